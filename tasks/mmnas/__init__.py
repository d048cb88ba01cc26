"""What the scripts of every MMNas task share: flags, networks, checkpoints; a task is a `tasks.task.AttentionTask`."""
