"""BM-NAS: fusion networks whose architecture is searched on two levels, the cell and the step nodes inside it."""
