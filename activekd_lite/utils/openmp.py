"""Shorter spinning at OpenMP barriers, so that training stays fast on a busy machine.

libgomp, the OpenMP of torch's Linux packages, lets a waiting thread spin for 3 ms before it
sleeps. If other processes compete for the cores, a spinning thread takes the place of the thread
that it waits for, at each of the many barriers of a training step.
libgomp reads its settings when torch is imported, and child processes inherit them.
"""

import os
import sys

SPINS = "10000"  # about 0.1 ms; see benchmarks/busy.py


def spin_briefly() -> None:
    """Set GOMP_SPINCOUNT on Linux, unless the user has set it or OMP_WAIT_POLICY."""
    if sys.platform == "linux" and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
