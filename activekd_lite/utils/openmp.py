"""Short waits at OpenMP's barriers, so that training is not many times slower on a machine that other programs use.

libgomp, the OpenMP of torch's Linux packages, lets threads that wait for others spin for 3 ms before they sleep. Where other
processes want the cores, a thread spins in place of the one that it waits for, at each of the many barriers of a step.
libgomp reads its settings when torch is imported: after `import torch` it is too late, and child processes inherit them.
"""

import os
import sys

SPINS = "10000"  # about 0.1 ms; see benchmarks/busy.py


def spin_briefly() -> None:
    """Set GOMP_SPINCOUNT on Linux, unless the user has set it or OMP_WAIT_POLICY."""
    if sys.platform == "linux" and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
