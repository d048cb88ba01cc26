"""Small tools, one subject a file; nothing here imports another package of this project."""
