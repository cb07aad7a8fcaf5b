"""A grid of runs, on one machine or many: resumed where it stopped, with nothing computed twice.

Whatever their strategy, runs with the same seed share the initial labelled set, the student's
initial weights and the random draws of its batches, so their differences are paired. The folder of
a sweep contains a folder per run, `runs.json` (the plan), `teachers.json` (the accuracy of each
teacher alone) and `results.parquet` (every round of every run).
"""

import contextlib
import functools
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import torch
from tqdm import tqdm

from activekd_lite.datasets.sources import short_name
from activekd_lite.experiments.cluster import Failure, Task, run_tasks
from activekd_lite.experiments.config import Inputs, RunConfig
from activekd_lite.experiments.grid import Grid, Planned, run_folder
from activekd_lite.runs.folder import RunFolder
from activekd_lite.runs.record import tidy
from activekd_lite.scores import accuracy_pct
from activekd_lite.train_config import TrainConfig
from activekd_lite.utils.files import (
    embedded_folder,
    make_folder,
    parse_json,
    read_json,
    write_atomic,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["STUDY", "Grid", "estimate", "failures", "load", "run", "run_folder", "teachers"]

STUDY = embedded_folder("study")  # 318 finished runs of both embedded data sets, to `load`
FAILED = "failure.txt"  # in a run's folder: why it could not be finished
REMEDY = "delete it, and the same sweep writes it again"


def run(
    grid: Grid,
    out: str | os.PathLike = "runs/sweep",
    *,
    cache_root: str | os.PathLike = ".cache",
    data_root: str | os.PathLike = "data",
    device: str | torch.device = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
    memory_limit: str | int = "auto",
    threads: int = 1,
    progress: bool = True,
) -> "pd.DataFrame":
    """Make every run of a grid under `out`, and return their part of `load(out)`.

    Finished runs are read, and interrupted ones continue. The teachers' features are encoded
    first, once for all runs that share them. A run that fails is tried once more; then its error is
    recorded (see `failures`), and the other runs go on.
    workers, scheduler, memory_limit, threads: see `cluster.run_tasks`. Workers on other machines
    need `out`, `cache_root`, `data_root` and the images under the same paths as this one.
    Raises RuntimeError if no run could be finished.
    """
    runs, out = grid.runs(), make_folder(out).resolve()
    plan = {f: {"teacher": p.teacher, "config": asdict(p.config)} for f, p in runs.items()}
    _add_to(out / "runs.json", plan)
    todo = tasks(runs, out, (os.path.abspath(cache_root), os.path.abspath(data_root), str(device)))
    how = {"workers": workers, "scheduler": scheduler, "memory_limit": memory_limit}
    failed = 0
    with (
        tqdm(total=len(runs), unit="run", disable=not progress, desc="sweep") as bar,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(_inputs.cache_clear)
        for task, outcome in run_tasks(todo, threads=threads, **how):
            if task.name not in runs:
                accuracies = {} if isinstance(outcome, Failure) else outcome
                _add_to(out / "teachers.json", accuracies)
                continue
            failed += _record_failure(out / task.name, outcome)
            if failed:
                bar.set_postfix(failed=failed)
            bar.update()
    if failed == len(runs):
        first = next(iter(failures(out).values())).splitlines()[0]
        raise RuntimeError(
            f"none of the {failed} runs could be finished; {FAILED} in each folder under {out} "
            f"says why: {first}"
        )
    found = load(out)
    return found[found["run"].isin(runs)].reset_index(drop=True)


def _record_failure(folder: Path, outcome: object) -> bool:
    """Write why a run failed, or delete what an earlier sweep wrote; return whether it failed."""
    if failed := isinstance(outcome, Failure):
        text = f"{outcome.error}\n\n{outcome.traceback}"
        write_atomic(make_folder(folder) / FAILED, text)
    else:
        (folder / FAILED).unlink(missing_ok=True)
    return failed


def tasks(runs: Mapping[str, Planned], out: Path, roots: tuple) -> list[Task]:
    """Return tasks that encode the images, one for all runs that share them, and then the runs.

    roots: the folder of the caches, that of the data sets, and the device.
    """
    token, first, after, known = uuid4().hex, {}, [], _read_teachers(out)
    for folder, planned in runs.items():
        shared = _inputs_of(planned.config)
        key = f"{short_name(shared.dataset)}/{planned.teacher}"
        measured = None if key in known or not shared.teacher else key
        inputs = (token, shared, *roots)
        task = Task(f"inputs-{len(first)}", _prepare, (*inputs, measured))
        prepare = first.setdefault(shared, task)
        args = (*inputs, planned.config, str(out / folder))
        after.append(Task(folder, _finish, args, prepare.name))
    return [*first.values(), *after]


def _inputs_of(config: RunConfig) -> RunConfig:
    """Return the same configuration for all runs that share data, teacher and features."""
    seed = config.seed if config.pool_per_seed else 0
    train = TrainConfig(pretrained=config.train.pretrained)
    return replace(config, strategy="random", selection_source="mixed", seed=seed, train=train)


def _prepare(
    token: str,
    shared: RunConfig,
    cache_root: str,
    data_root: str,
    device: str,
    measured: str | None,
) -> dict[str, float]:
    """Encode the images that are not cached yet.

    Returns {measured: the accuracy in percent of the teacher alone}, or {} if measured is None.
    """
    inputs = _inputs(token, shared, cache_root, data_root, device)
    if not measured:
        return {}
    # Of CLAP: the predictions before any label.
    zero_shot = getattr(inputs.teacher, "zero_shot", inputs.teacher)
    return {measured: accuracy_pct(zero_shot.test_probs(), inputs.data.test.labels)}


def _finish(
    token: str,
    shared: RunConfig,
    cache_root: str,
    data_root: str,
    device: str,
    config: RunConfig,
    folder: str,
) -> None:
    """Make a run, or the rounds of it that are missing."""
    inputs = _inputs(token, shared, cache_root, data_root, device)
    config.run(folder, device=device, progress=False, inputs=inputs)


@functools.lru_cache(maxsize=1)
def _inputs(token: str, shared: RunConfig, cache_root: str, data_root: str, device: str) -> Inputs:
    """Load what the runs of a sweep share; consecutive runs in a process load it once.

    token: identifies the sweep.
    """
    return shared.load(cache_root=cache_root, data_root=data_root, device=device, progress=False)


def load(out: str | os.PathLike) -> "pd.DataFrame":
    """Return a tidy table with a row for every round of every run under `out`.

    out: the folder of a sweep or of any runs, or a `results.parquet`.
    Columns: `run` (the folder); those of `runs.tidy` except loss_curve, with `teacher` as named in
    the grid; `seconds` of the whole round, besides seconds_teacher and so on of its stages;
    `rounds` (planned). Failed runs are left out (see `failures`).
    The table is also written to `results.parquet` in `out`.
    Raises FileNotFoundError if there are no runs, ValueError if the files of one are damaged.
    """
    import pandas as pd  # slow

    out = Path(out)
    stored = out if out.suffix == ".parquet" else out / "results.parquet"
    found = (path for path in out.rglob("rounds.jsonl") if not path.with_name(FAILED).is_file())
    folders = sorted(path.parent for path in found)
    if not folders and stored.is_file():
        return pd.read_parquet(stored)
    if not folders:
        raise FileNotFoundError(
            f"no runs under {out}; make some with `activekd-lite sweep --out {out}`"
        )
    planned = _read_mapping(out / "runs.json")
    table = pd.concat([_rows(folder, out, planned) for folder in folders], ignore_index=True)
    with contextlib.suppress(OSError):  # the folder may be read-only
        write_atomic(stored, table.to_parquet(index=False))
    return table


def _rows(folder: Path, out: Path, planned: Mapping) -> "pd.DataFrame":
    """Return the rows of one run. planned: the content of runs.json."""
    config, records, _ = RunFolder(folder).read()
    name = folder.relative_to(out).as_posix()
    table = tidy(config, records).drop(columns="loss_curve")
    table["seconds"] = [sum(record.seconds.values()) for record in records]
    table["teacher"] = planned.get(name, {}).get("teacher") or table["teacher"]
    table.insert(0, "run", name)
    return table.assign(rounds=config["rounds"])


def failures(out: str | os.PathLike) -> dict[str, str]:
    """Return the error and traceback of each run under `out` that failed, by its folder."""
    return {
        path.parent.relative_to(out).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(Path(out).rglob(FAILED))
    }


def teachers(out: str | os.PathLike) -> dict[tuple[str, str], float]:
    """Return the zero-shot test accuracy in percent of each (data set, teacher) under `out`."""
    return {tuple(key.split("/", 1)): value for key, value in _read_teachers(Path(out)).items()}


def estimate(grid: Grid, out: str | os.PathLike, workers: int = 1) -> "tuple[pd.DataFrame, float]":
    """Return a table of the runs (run, trainings, done), and the seconds that are left.

    A training is assumed to take the mean of those done with the same data set, teacher and
    student, or else the mean of all that are done; without any, the seconds are NaN.
    """
    import pandas as pd  # slow

    runs, out = grid.runs(), Path(out)
    kind = {folder: (p.config.dataset, p.teacher, p.config.student) for folder, p in runs.items()}
    seconds = [(folder, value) for folder in runs for value in _seconds(out / folder)]
    took = pd.DataFrame(seconds, columns=["run", "seconds"])
    of_kind = took.groupby(took["run"].map(kind))["seconds"].mean().to_dict()
    done = took["run"].value_counts()
    rows = [(name, p.config.rounds + 1, int(done.get(name, 0))) for name, p in runs.items()]
    plan = pd.DataFrame(rows, columns=["run", "trainings", "done"])
    each = [of_kind.get(kind[folder], took["seconds"].mean()) for folder in runs]
    return plan, float(((plan["trainings"] - plan["done"]) * each).sum(skipna=False) / workers)


def _seconds(folder: Path) -> list[float]:
    """Return the seconds of each finished round. Raises ValueError for a damaged file."""
    path = folder / "rounds.jsonl"
    lines = path.read_bytes().splitlines() if path.is_file() else []
    try:
        return [sum(parse_json(line)["seconds"].values()) for line in lines]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); {RunFolder(folder).remedy(0)}") from error


def _read_mapping(path: Path) -> dict:
    """Return a mapping that a sweep wrote, or {} if there is no file.

    Raises ValueError for any other content.
    """
    found = read_json(path, REMEDY) if path.is_file() else {}
    if not isinstance(found, dict):
        raise ValueError(f"{path} contains a {type(found).__name__}; a mapping is needed; {REMEDY}")
    return found


def _read_teachers(out: Path) -> dict[str, float]:
    """Return accuracies in percent by "dataset/teacher". Raises ValueError for other content."""
    path = out / "teachers.json"
    found = _read_mapping(path)
    for key, value in found.items():
        if "/" not in key or type(value) not in (int, float) or not 0 <= value <= 100:
            raise ValueError(
                f"{path} says {key!r}: {value!r}; 'dataset/teacher' and a percentage are needed; "
                f"{REMEDY}"
            )
    return found


def _add_to(path: Path, more: Mapping) -> None:
    """Add entries to a mapping that this sweep, or an earlier one in the folder, wrote."""
    write_atomic(path, json.dumps(_read_mapping(path) | dict(more), indent=1) + "\n")
