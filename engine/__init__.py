"""Everything around an epoch, for any task: flags, run folders, data loading, cached features, training, results."""
