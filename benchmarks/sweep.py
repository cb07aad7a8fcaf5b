"""How a sweep scales on one machine: two workers against one, and what the scheduler costs.

    python benchmarks/sweep.py              # a quarter of an hour on two cores; nothing else should run beside it
    python benchmarks/sweep.py --runs 8 --tiny 50

Throughput: the same runs on one worker and on two, each of one thread, from the first run's begin to the last one's end;
starting the processes, which import torch, is told apart; and on two as Dask starts them by itself, which give memory back to
the system at once (`cluster.MALLOC`). Overhead: the share of the workers' time, over many tiny runs, in which no run was under
way.
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
    """Seconds until the first task began, and a row a task: begin and end, in seconds since 1970."""
    started, rows = time.time(), []
    for task, outcome in run_tasks(
        [Task(t.name, clocked, (t.function, t.args), t.after) for t in tasks], workers=workers
    ):
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
    """A sweep's tasks, and the names of those that are runs."""
    runs = grid.runs()
    return sweep.tasks(runs, folder, (str(cache), "data", "cpu")), list(runs)


def throughput(count: int, folder: Path) -> pd.DataFrame:
    grid = sweep.Grid(**DIGITS, seeds=range(count // 4), rounds=3, train={"steps": 60})
    RunConfig().load(cache_root=folder / "cache", progress=False)  # encoded before the clock starts
    rows = []
    for name, workers, malloc in (
        ("1", 1, cluster.MALLOC),
        ("2", 2, cluster.MALLOC),
        ("2, Dask's default", 2, {}),
    ):
        tasks, names = tasks_of(grid, folder / name, folder / "cache")
        with mock.patch.object(cluster, "MALLOC", malloc):
            start_up, table = timed(tasks, workers)
        of = table.loc[names]
        rows.append(
            (
                name,
                len(of),
                start_up,
                of["end"].max() - of["begin"].min(),
                (of["end"] - of["begin"]).mean(),
            )
        )
    table = pd.DataFrame(
        rows, columns=["workers", "runs", "start-up, s", "runs done in, s", "a run, s"]
    )
    return table.assign(throughput=table["runs done in, s"][0] / table["runs done in, s"])


def overhead(count: int, folder: Path, workers: int) -> pd.DataFrame:
    grid = sweep.Grid(
        **DIGITS, distill=(True,), seeds=range(count // 2), rounds=1, train={"steps": 2}
    )
    tasks, names = tasks_of(grid, folder / f"tiny{workers}", folder / "cache")
    _, table = timed(tasks, workers)
    of = table.loc[names]
    wall, busy = of["end"].max() - of["begin"].min(), (of["end"] - of["begin"]).sum() / workers
    columns = ["workers", "tiny runs", "wall, s", "a run, ms", "overhead, %"]
    return pd.DataFrame(
        [(workers, len(of), wall, 1000 * busy * workers / len(of), 100 * (1 - busy / wall))],
        columns=columns,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=24, help="runs of about 10 seconds (24)")
    parser.add_argument(
        "--tiny", type=int, default=1000, help="runs of a quarter of a second (1000)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(throughput(args.runs, Path(folder)).round(2).to_string(index=False), "\n")
        print(overhead(args.tiny, Path(folder), workers=1).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
