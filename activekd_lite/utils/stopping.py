"""How the command ends when it is told to: Ctrl-C, SIGTERM, SIGHUP. One line, every child process gone, exit 128 + signal.

Nothing is raised: an exception in the middle of anything (an import, a library's callback) may be swallowed or printed. All
that is kept on disk is written so that a process may die at any moment, so the handler ends it where it stands.
"""

import _thread
import contextlib
import multiprocessing.util
import os
import signal
import sys
import time
from types import FrameType

import psutil

RESUME_HINT = "run the same command again, and it goes on where it stopped"
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
PATIENCE = 5  # seconds for an orderly end


def catch_signals() -> None:
    """From now on each of SIGNALS ends this process, except those that it was started to ignore (`nohup`)."""
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a fork, such as one that decodes images
            os._exit(128 + number)
        _stop(number)

    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


def _stop(number: int) -> None:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    if hasattr(signal, "SIGCHLD"):  # torch's DataLoader raises in its handler when a worker dies
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _thread.start_new_thread(
        _exit_later, (128 + number,)
    )  # no lock is needed for it, which might be held just now
    with contextlib.suppress(OSError):  # the terminal is gone
        os.write(
            2,
            f"{_line_break()}activekd-lite: stopped by {signal.Signals(number).name}; {RESUME_HINT}\n".encode(),
        )
    with contextlib.suppress(Exception):  # it was being written to
        sys.stdout.flush()
    with contextlib.suppress(BaseException):  # whatever fails now, the process ends
        _kill_children()
        multiprocessing.util._exit_function()  # as at any exit: gives back semaphores, which would be reported as leaked
        _kill_children()  # those that were started in the place of the killed
    os._exit(128 + number)


def _exit_later(code: int) -> None:
    time.sleep(PATIENCE)
    os._exit(code)


def _line_break() -> str:
    """To leave the line that a progress bar is on."""
    bar = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    return "\n" if len(getattr(bar, "_instances", ())) else ""


def _kill_children() -> None:
    """Workers of Dask, kernels and what these have started; multiprocessing's resource tracker ends by itself."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "multiprocessing.resource_tracker" not in " ".join(process.cmdline()):
                process.kill()
