"""What surrounds an epoch: flags, run folders, the training loop, search, features computed once, results."""
