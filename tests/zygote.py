"""Runs `activekd-lite` commands in processes of their own and kills them, for `test_survival.py`.

All is imported once, then each command is a fork of this process, as importing takes longer than the runs. A line of JSON on
stdin is a list of jobs that run at the same time, {"argv", "log"} and when to die, "at_second" or "at_moment"; the answer is a
line with, for each, {"code": exit code or minus the signal, "seconds", and what is on the BOARD}.
"""

import json
import mmap
import os
import signal
import struct
import sys
import time
import traceback

import torch

torch.set_num_threads(1)

from activekd_lite import cache, cli, loop, runs
from activekd_lite.cli import run, sweep  # noqa: F401, otherwise imported in every fork
from activekd_lite.utils import store

store.SHARD = 64  # several shards of few images
BOARD = (
    "stage",
    "moments",
    "trainings",
    "batches",
)  # what a fork writes down, for each job four integers
STAGES = ("other", "encode", "store", "train", "write")
LAYOUT, MOST_JOBS = struct.Struct("4i"), 4
board = mmap.mmap(-1, LAYOUT.size * MOST_JOBS)
job = {"place": 0}  # that this fork does


def seen(place: int) -> dict[str, int]:
    return dict(zip(BOARD, LAYOUT.unpack_from(board, place * LAYOUT.size), strict=True))


def note(**changes: int) -> None:
    now = seen(job["place"]) | changes
    LAYOUT.pack_into(board, job["place"] * LAYOUT.size, *now.values())


def watch(owner: object, name: str, stage: str, counted: str | None = None) -> None:
    """Whoever is in this function is in that stage."""
    original = getattr(owner, name)

    def watched(*args, **kwargs):
        before = seen(job["place"])
        note(stage=STAGES.index(stage), **({counted: before[counted] + 1} if counted else {}))
        result = original(*args, **kwargs)
        note(stage=before["stage"])
        return result

    setattr(owner, name, watched)


def count_moments(owner: object, name: str) -> None:
    """Two moments at which a fork may die: before this function and after it."""
    original = getattr(owner, name)

    def counted(*args, **kwargs):
        moment(*args)
        result = original(*args, **kwargs)
        moment()
        return result

    setattr(owner, name, counted)


def moment(written: object = None, *_) -> None:
    """One more; at the one that was asked for the fork dies, and where it was writing a new file half of that is lost."""
    note(moments=seen(job["place"])["moments"] + 1)
    if seen(job["place"])["moments"] == job.get("at_moment"):
        name = os.readlink(f"/proc/self/fd/{written}") if isinstance(written, int) else "/"
        if os.path.isfile(name) and not name.endswith(
            "features.f16"
        ):  # that one is written piece by piece
            os.ftruncate(written, os.fstat(written).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)


def begin(place: int, asked: dict) -> int:
    """Fork; the fork runs the command and ends. Returns its process id."""
    job.update(place=place)
    note(**dict.fromkeys(BOARD, 0))
    if pid := os.fork():
        return pid
    job.update(asked)
    code = 70
    try:
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = cli.main(asked["argv"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def outcomes(jobs: list[dict]) -> list[dict]:
    """Begin all, kill those whose time has come, until none is left."""
    start = time.monotonic()
    left = {begin(place, asked): place for place, asked in enumerate(jobs)}
    done = [{} for _ in jobs]
    while left:
        for pid, place in list(left.items()):
            seconds, (ended, status) = time.monotonic() - start, os.waitpid(pid, os.WNOHANG)
            if ended:
                now = seen(place)
                done[place] = now | {"stage": STAGES[now["stage"]], "seconds": seconds}
                done[place]["code"] = os.waitstatus_to_exitcode(status)
                del left[pid]
            elif seconds >= jobs[place].get("at_second", float("inf")):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)
    return done


if __name__ == "__main__":
    watch(cache, "_fill", "encode")
    watch(cache, "_encode", "encode", "batches")
    watch(store.FeatureStore, "write", "store")
    watch(loop, "train_student", "train", "trainings")
    watch(runs.RunFolder, "write", "write")
    for name in (
        "fsync",
        "replace",
        "unlink",
    ):  # a file is forced to the disk, takes its name, goes
        count_moments(os, name)
    count_moments(torch.optim.AdamW, "step")
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(outcomes(json.loads(line))), flush=True)
