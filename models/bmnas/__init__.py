"""BM-NAS: the fusion network that is searched on two levels, cells and their inner nodes."""
