"""Small utilities, one subject per file. Nothing here imports another package of this project.

Every script imports something from here before it imports torch, so this is the place to set how idle OpenMP threads
wait.
"""

from util.threads import set_openmp_defaults

set_openmp_defaults()
