"""Seconds per stage, and peak memory."""

import sys
import time

import psutil
import torch


class Clock:
    """Measures seconds per stage; on a GPU each stage includes its queued work."""

    def __init__(self, device: torch.device):
        self.device, self.seconds, self.last = device, {}, time.perf_counter()

    def lap(self, stage: str) -> None:
        """Record the seconds since the last lap under `stage`."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[stage], self.last = round(now - self.last, 4), now


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far: of the GPU if `device` is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    usage = psutil.Process().memory_info()
    return getattr(usage, "peak_wset", None) or _unix_peak_bytes()


def _unix_peak_bytes() -> int:
    import resource  # missing on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
