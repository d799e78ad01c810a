"""What holds for the whole test session."""

import os

# Of this process and all that it starts, before any of them imports torch: small networks are
# fastest on one thread, sums are added up in one order, and other tests want the cores as well.
os.environ["OMP_NUM_THREADS"] = "1"
