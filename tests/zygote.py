"""Run `activekd-lite` commands in separate processes and kill them, for `test_survival.py`.

Each command is a fork of this process, because importing takes longer than the runs. Each line on
stdin is a JSON list of jobs to run at the same time: {"argv", "log"} and, to kill one, "at_second"
or "at_moment". The answer is a line with one {"code", "seconds", and the fields of BOARD} per job;
"code" is the exit code or minus the signal.
"""

import functools
import json
import mmap
import os
import signal
import struct
import sys
import time
import traceback
from dataclasses import replace

import open_clip
import pandas  # noqa: F401 - as all of these, once here, not in every fork
import sklearn.datasets
import sklearn.model_selection
import timm  # noqa: F401
import torch
import torchvision  # noqa: F401

torch.set_num_threads(1)

from activekd_lite import cache, cli, loop, runs  # noqa: E402
from activekd_lite.cli import run, sweep  # noqa: E402, F401 - else imported in every fork
from activekd_lite.experiments import config  # noqa: E402
from activekd_lite.utils import store  # noqa: E402
from activekd_lite.vlm import load_vlm  # noqa: E402

store.SHARD = 64  # several shards of few images
TEST_IMAGES = 64  # encoding all 697 would take most of a run's time
BOARD = ("stage", "moments", "trainings", "batches")  # shared memory: four integers per job
STAGES = ("other", "encode", "store", "train", "write")
LAYOUT, MOST_JOBS = struct.Struct("4i"), 4
board = mmap.mmap(-1, LAYOUT.size * MOST_JOBS)
job = {"place": 0}  # the job of this fork


def seen(place: int) -> dict[str, int]:
    return dict(zip(BOARD, LAYOUT.unpack_from(board, place * LAYOUT.size), strict=True))


def note(**changes: int) -> None:
    now = seen(job["place"]) | changes
    LAYOUT.pack_into(board, job["place"] * LAYOUT.size, *now.values())


def with_few_test_images(load):
    """Wrap `load_dataset` so that the data it returns have TEST_IMAGES test images."""

    def loaded(*args, **kwargs):
        data = load(*args, **kwargs)
        few = {name: getattr(data.test, name)[:TEST_IMAGES] for name in ("images", "labels")}
        return replace(data, test=replace(data.test, **few))

    return loaded


def watch(owner: object, name: str, stage: str, counted: str | None = None) -> None:
    """Record `stage` while this function runs, and count its calls as `counted`."""
    original = getattr(owner, name)

    def watched(*args, **kwargs):
        before = seen(job["place"])
        note(stage=STAGES.index(stage), **({counted: before[counted] + 1} if counted else {}))
        result = original(*args, **kwargs)
        note(stage=before["stage"])
        return result

    setattr(owner, name, watched)


def count_moments(owner: object, name: str) -> None:
    """Count two moments at which a fork can be killed: before this function and after it."""
    original = getattr(owner, name)

    def counted(*args, **kwargs):
        moment(*args)
        result = original(*args, **kwargs)
        moment()
        return result

    setattr(owner, name, counted)


def moment(written: object = None, *_) -> None:
    """Count a moment. At the requested one, truncate a file being written to half, then die."""
    note(moments=seen(job["place"])["moments"] + 1)
    if seen(job["place"])["moments"] == job.get("at_moment"):
        name = os.readlink(f"/proc/self/fd/{written}") if isinstance(written, int) else "/"
        # features.f16 is written in parts, so it is never truncated
        if os.path.isfile(name) and not name.endswith("features.f16"):
            os.ftruncate(written, os.fstat(written).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)


def begin(place: int, asked: dict) -> int:
    """Fork; the child runs the command and exits. Returns its process id."""
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
    """Start all jobs, kill each at its time, and wait until all have ended."""
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
    # Read once, not in every fork: a tokenizer's vocabulary and scikit-learn's text file of digits.
    for owner, name in ((open_clip, "get_tokenizer"), (sklearn.datasets, "load_digits")):
        setattr(owner, name, functools.cache(getattr(owner, name)))
    sklearn.datasets.load_digits()
    load_vlm(device="cpu")
    config.load_dataset = with_few_test_images(config.load_dataset)
    watch(cache, "_fill", "encode")
    watch(cache, "_encode", "encode", "batches")
    watch(store.FeatureStore, "write", "store")
    watch(loop, "train_student", "train", "trainings")
    watch(runs.RunFolder, "write", "write")
    for name in ("fsync", "replace", "unlink"):
        count_moments(os, name)
    count_moments(torch.optim.AdamW, "step")
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(outcomes(json.loads(line))), flush=True)
