"""`activekd-lite sweep`."""

import datetime
import math
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from activekd_lite.cli import options as opt
from activekd_lite.cli.report import print_failures, write_report
from activekd_lite.experiments import cluster, sweep
from activekd_lite.experiments.grid import Grid


def _axis(
    flag: str, field: str, kind: type, help: str, default: str, **settings: Any
) -> opt.Option:
    return opt.option(field, list[kind], help, default, name=flag, **settings)


Settings = opt.options_class(
    "Settings",
    _axis("--dataset", "datasets", str, opt.DATASET, "digits"),
    _axis(*("--teacher", "teachers", str, opt.TEACHER, "zero-shot"), validator=opt.known_teacher),
    _axis("--student", "students", str, opt.STUDENT, "the data set's own"),
    _axis(
        "--strategy", "strategies", str, opt.STRATEGY, "the paper's six; with --paper its code's"
    ),
    _axis("--selection-source", "selection_sources", opt.SelectionSource, opt.SOURCE, "mixed"),
    _axis("--seeds", "seeds", int, "Seeds of the runs.", "0; with --paper 1 to 5"),
    opt.option("paper", bool, "Start from the paper's protocol."),
    *opt.LABELS,
    *opt.VLM,
)


def command(
    grid: Annotated[str | None, Parameter(name="GRID.yaml")] = None,
    /,
    *,
    no_distill: bool = False,
    out: str = "runs/sweep",
    dry_run: bool = False,
    notebook: str | None = None,
    workers: Annotated[int | None, Parameter(converter=opt.strict)] = None,
    memory_limit: str = "auto",
    scheduler: str | None = None,
    device: Annotated[str, Parameter(help=opt.DEVICE)] = "auto",
    settings: Annotated[Settings, opt.FLAT] = Settings(),
    train: Annotated[opt.Train, opt.FLAT] = opt.Train(),
    folders: Annotated[opt.Folders, opt.FLAT] = opt.Folders(),
) -> int:
    """Run a grid, or continue it, and write the report.

    Parameters
    ----------
    grid
        YAML file of the grid; options given here override it.
    no_distill
        Only runs without a teacher.
    out
        Folder of the runs; finished runs are kept.
    dry_run
        List the runs and estimate how long they take.
    notebook
        Execute this notebook for each run, instead of training.
    workers
        Number of processes; 0 runs everything in this one. Default: one per core or GPU.
    memory_limit
        Memory of each worker, such as 4GB; auto is an equal share.
    scheduler
        Address of a running Dask cluster, such as tcp://node1:8786.
    """
    planned = _grid(grid, no_distill, settings, train)
    if dry_run:
        return _dry_run(planned, out, cluster.worker_count(workers))
    where = {"workers": workers, "scheduler": scheduler, "memory_limit": memory_limit}
    where |= {"device": device} | folders.roots()
    if notebook:
        return _run_notebooks(planned, notebook, out, where)
    try:
        results = sweep.run(planned, out, **where)
    except RuntimeError as error:
        print(f"activekd-lite: {error}", file=sys.stderr)
        return print_failures(Path(out)) or 1
    return write_report(results, Path(out))


def _grid(path: str | None, no_distill: bool, settings: Any, train: Any) -> Grid:
    """Return the grid of the file, or the default one, with the options that were given."""
    changes = opt.given(settings)
    if no_distill:
        changes["distill"] = [False]
    if train := opt.train_changes(train):
        changes["train"] = train
    return Grid.read(path, **changes) if path else Grid(**changes)


def _run_notebooks(grid: Grid, notebook: str, out: str, where: dict) -> int:
    from activekd_lite.course import batches

    outcomes = batches.run(grid, notebook, out, **where)
    failed = {name: reason for name, reason in outcomes.items() if reason}
    for name, reason in failed.items():
        print(f"FAILED {name}: {reason}")
    count = len(outcomes)
    page = Path(out, "index.html")
    print(f"{count - len(failed)} of {count} notebooks ran without an error; open {page}")
    return 1 if failed else 0


def _dry_run(grid: Grid, out: str, workers: int) -> int:
    plan, seconds = sweep.estimate(grid, out, workers)
    print(plan.to_string(index=False))
    left = plan[plan["done"] < plan["trainings"]]
    trainings = (left["trainings"] - left["done"]).sum()
    print(f"\n{len(plan) - len(left)} of {len(plan)} runs are finished; ", end="")
    print(f"{trainings} trainings are left")
    if math.isfinite(seconds):
        time = f"about {datetime.timedelta(seconds=round(seconds))}"
    else:
        time = "unknown until a training is finished"
    if len(left):
        print(f"time left with {workers} workers: {time}")
    return 0
