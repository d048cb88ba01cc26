"""Shared by the scripts of all MMNas tasks: flags, networks, checkpoints. A task is a `tasks.task.AttentionTask`."""
