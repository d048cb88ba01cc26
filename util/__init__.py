"""Small tools, one subject per file; nothing here imports another package of this project.

Every script imports something from here before it imports torch, so this is the place to set how OpenMP's threads
wait.
"""

from util.threads import set_openmp_defaults

set_openmp_defaults()
