"""Sweeps: the commands of many runs (`plan`), run on this machine (`running`) or on a cluster (`cluster`).

What is finished is read from the run folders alone, so a sweep that was killed goes on when it is started again.
"""
