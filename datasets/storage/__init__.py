"""Storage shared by the data sets: blob stores, frame stores, opening pictures, and worker processes."""
