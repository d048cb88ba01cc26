"""What the scripts of one task share: published values, flags, data, networks, loss and metric."""
