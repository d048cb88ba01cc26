"""What the scripts of every BM-NAS task share: flags, networks, data, presets; a task is a `tasks.task.FusionTask`."""
