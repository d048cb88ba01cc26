"""Sweeps: the commands of many runs (`plan`), run on this machine (`running`) or on a cluster (`cluster`).

Only the run folders decide which commands are finished, so a sweep that was killed continues when it is started again.
"""
