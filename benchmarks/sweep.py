"""How a sweep scales on one machine: two workers compared with one, and the scheduler's overhead.

    python benchmarks/sweep.py        # 15 minutes on two cores; keep the machine otherwise idle
    python benchmarks/sweep.py --runs 8 --tiny 50

Throughput: the same runs on one worker and on two, one thread each, timed from the start of the
first run to the end of the last. Starting the processes, which import torch, is reported
separately. A third row has two workers with Dask's default malloc settings, which return memory to
the system at once, in place of `cluster.MALLOC`.
Overhead: with many tiny runs, the share of the workers' time in which they had no run to do.
"""

import argparse
import tempfile
import time
from pathlib import Path
from unittest import mock

import pandas as pd

from activekd_lite.experiments import cluster, sweep
from activekd_lite.experiments.cluster import Failure, Task, run_tasks
from activekd_lite.experiments.config import RunConfig

DIGITS = {"strategies": ("random", "pcoreset")}


def timed(tasks: list[Task], workers: int) -> tuple[float, pd.DataFrame]:
    """Run the tasks; returns the seconds until the first one began, and a table of times.

    The table has one row per task, `begin` and `end` in seconds since 1970.
    """
    started, rows = time.time(), []
    tasks = [Task(t.name, clocked, (t.function, t.args), t.after) for t in tasks]
    for task, outcome in run_tasks(tasks, workers=workers):
        if isinstance(outcome, Failure):
            raise RuntimeError(outcome.traceback)
        rows.append((task.name, *outcome))
    table = pd.DataFrame(rows, columns=["name", "begin", "end"]).set_index("name")
    return table["begin"].min() - started, table


def clocked(function, args) -> tuple[float, float]:
    begin = time.time()
    function(*args)
    return begin, time.time()


def tasks_of(grid: sweep.Grid, folder: Path, cache: Path) -> tuple[list[Task], list[str]]:
    """The tasks of a sweep, and the names of those that are runs."""
    runs = grid.runs()
    return sweep.tasks(runs, folder, (str(cache), "data", "cpu")), list(runs)


def throughput(count: int, folder: Path) -> pd.DataFrame:
    grid = sweep.Grid(**DIGITS, seeds=range(count // 4), rounds=3, train={"steps": 60})
    RunConfig().load(cache_root=folder / "cache", progress=False)  # encoded before the clock starts
    ours = cluster.MALLOC
    rows = []
    for name, workers, malloc in (("1", 1, ours), ("2", 2, ours), ("2, Dask's default", 2, {})):
        tasks, names = tasks_of(grid, folder / name, folder / "cache")
        with mock.patch.object(cluster, "MALLOC", malloc):
            start_up, table = timed(tasks, workers)
        runs = table.loc[names]
        wall, mean = runs["end"].max() - runs["begin"].min(), (runs["end"] - runs["begin"]).mean()
        rows.append((name, len(runs), start_up, wall, mean))
    columns = ["workers", "runs", "start-up, s", "all runs, s", "mean run, s"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(throughput=table["all runs, s"][0] / table["all runs, s"])


def overhead(count: int, folder: Path, workers: int) -> pd.DataFrame:
    seeds = range(count // 2)
    grid = sweep.Grid(**DIGITS, distill=(True,), seeds=seeds, rounds=1, train={"steps": 2})
    tasks, names = tasks_of(grid, folder / f"tiny{workers}", folder / "cache")
    _, table = timed(tasks, workers)
    runs = table.loc[names]
    wall, spent = runs["end"].max() - runs["begin"].min(), (runs["end"] - runs["begin"]).sum()
    idle_pct = 100 * (1 - spent / workers / wall)
    row = (workers, len(runs), wall, 1000 * spent / len(runs), idle_pct)
    columns = ["workers", "tiny runs", "wall, s", "mean run, ms", "overhead, %"]
    return pd.DataFrame([row], columns=columns)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--runs", type=int, default=24, help="runs of about 10 seconds (24)")
    add("--tiny", type=int, default=1000, help="runs of a quarter of a second (1000)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(throughput(args.runs, Path(folder)).round(2).to_string(index=False), "\n")
        print(overhead(args.tiny, Path(folder), workers=1).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
