"""Shared by the scripts of all BM-NAS tasks: flags, networks, data, presets. A task is a `tasks.task.FusionTask`."""
