"""What surrounds the loop: checks before it, records of it, and the folder that keeps them."""

from activekd_lite.runs.folder import RunFolder, finished_rounds, load_run
from activekd_lite.runs.record import RoundRecord, RunResult, class_balance, tidy

__all__ = [
    "RoundRecord",
    "RunFolder",
    "RunResult",
    "class_balance",
    "finished_rounds",
    "load_run",
    "tidy",
]
