"""Seconds per stage, and peak memory."""

import time

import psutil
import torch


class Clock:
    """Seconds per stage; on a GPU the queue is emptied before the clock is read."""

    def __init__(self, device: torch.device):
        self.device, self.seconds, self.last = device, {}, time.perf_counter()

    def lap(self, stage: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[stage], self.last = round(now - self.last, 4), now


def peak_memory_bytes(device: torch.device) -> int:
    """The largest memory so far: of the GPU where the run is on one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    usage = psutil.Process().memory_info()
    return getattr(usage, "peak_wset", None) or _unix_peak_bytes()


def _unix_peak_bytes() -> int:
    import resource  # there is none on Windows
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
