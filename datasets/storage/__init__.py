"""What several data sets are kept with: blob stores, frame stores, pictures and worker processes."""
