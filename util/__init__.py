"""Small tools, one subject a file; nothing here imports another package of this project.

Every script imports something from here before it imports torch, which makes this the one place that sets how
OpenMP's threads wait.
"""

from util.threads import set_openmp_defaults

set_openmp_defaults()
