"""Stopping a command by Ctrl-C, SIGTERM or SIGHUP: one line, no child left, exit code 128 + signal.

The handler raises nothing, since an import or a library's callback may swallow or print an
exception. Everything on disk survives the death of the process at any moment, so the handler
ends the process where it is.
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

RESUME_HINT = "run the same command again to resume"
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
SIGNALS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
GRACE_SECONDS = 5  # for an orderly end


def catch_signals() -> None:
    """End this process on each of SIGNALS, except those it was started to ignore (`nohup`)."""
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked child, such as a worker that decodes images
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
    # threading.Thread would need locks that the interrupted code may hold
    _thread.start_new_thread(_exit_later, (128 + number,))
    line = f"activekd-lite: stopped by {signal.Signals(number).name}; {RESUME_HINT}\n"
    with contextlib.suppress(OSError):  # the terminal is gone
        os.write(2, (_line_break() + line).encode())
    with contextlib.suppress(Exception):  # the signal interrupted a write
        sys.stdout.flush()
    with contextlib.suppress(BaseException):  # the process ends in any case
        _kill_children()
        multiprocessing.util._exit_function()  # frees semaphores, otherwise reported as leaked
        _kill_children()  # those started to replace the killed ones
    os._exit(128 + number)


def _exit_later(code: int) -> None:
    time.sleep(GRACE_SECONDS)
    os._exit(code)


def _line_break() -> str:
    """A line break if a progress bar is on the current line."""
    bar = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    return "\n" if len(getattr(bar, "_instances", ())) else ""


def _kill_children() -> None:
    """Kill Dask workers, kernels and their children; the resource tracker ends by itself."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "multiprocessing.resource_tracker" not in " ".join(process.cmdline()):
                process.kill()
