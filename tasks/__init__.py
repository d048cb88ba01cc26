"""Tasks: the published values, flags, data, networks, loss and metric that the scripts of a task share."""
