"""A grid of runs, on one machine or many: resumed where it stopped, nothing computed twice.

Runs that share a seed share the initial labelled set, the student's weights and the batches' draws, whatever the strategy:
so their differences are paired. A sweep's folder has a folder for each run, `runs.json` (what was planned), `teachers.json`
(how often each teacher alone is right) and `results.parquet` (every round of every run).
"""

import contextlib
import functools
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from uuid import uuid4

import pandas as pd
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

__all__ = ["STUDY", "Grid", "estimate", "failures", "load", "run", "run_folder", "teachers"]

STUDY = embedded_folder("study")  # 318 finished runs of both embedded data sets, to `load`
FAILED = "failure.txt"  # in a run's folder: why it could not be finished
FORGET = "delete it, and the same sweep writes it again"


def run(
    grid: Grid, out: str | os.PathLike = "runs/sweep", *, cache_root: str | os.PathLike = ".cache",
    data_root: str | os.PathLike = "data", device: str | torch.device = "auto", workers: int | None = None,
    scheduler: str | None = None, memory_limit: str | int = "auto", threads: int = 1, progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Run all of `grid` under `out`: finished runs are read, an interrupted one goes on. Returns its part of `load(out)`.

    The teachers' features are encoded first, once for all runs that share them. A run that fails is tried once more, then noted
    (see `failures`), and the others go on. workers, scheduler, memory_limit, threads: see `cluster.run_tasks`. Workers on other
    machines read and write `out`, `cache_root`, `data_root` and the images under the same paths as this one.

    Raises RuntimeError when no run could be finished.
    """
    runs, out = grid.runs(), make_folder(out).resolve()
    _note(
        out / "runs.json",
        {f: {"teacher": p.teacher, "config": asdict(p.config)} for f, p in runs.items()},
    )
    todo = tasks(runs, out, (os.path.abspath(cache_root), os.path.abspath(data_root), str(device)))
    failed = 0
    with (
        tqdm(total=len(runs), unit="run", disable=not progress, desc="sweep") as bar,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(_inputs.cache_clear)
        how = {
            "workers": workers,
            "scheduler": scheduler,
            "memory_limit": memory_limit,
            "threads": threads,
        }
        for task, outcome in run_tasks(todo, **how):
            if task.name not in runs:
                _note(out / "teachers.json", {} if isinstance(outcome, Failure) else outcome)
                continue
            if isinstance(outcome, Failure):
                failed += 1
                bar.set_postfix(failed=failed)
                write_atomic(
                    make_folder(out / task.name) / FAILED, f"{outcome.error}\n\n{outcome.traceback}"
                )
            else:
                (out / task.name / FAILED).unlink(missing_ok=True)
            bar.update()
    if failed == len(runs):
        first = next(iter(failures(out).values())).splitlines()[0]
        raise RuntimeError(
            f"none of the {failed} runs could be finished; {FAILED} in each folder under {out} says why: {first}"
        )
    found = load(out)
    return found[found["run"].isin(runs)].reset_index(drop=True)


def tasks(runs: Mapping[str, Planned], out: Path, roots: tuple) -> list[Task]:
    """First what encodes the images of runs that share them, then the runs."""
    token, first, after, known = uuid4().hex, {}, [], _noted_teachers(out)
    for folder, planned in runs.items():
        shared = _inputs_of(planned.config)
        key = f"{short_name(shared.dataset)}/{planned.teacher}"
        measured = None if key in known or not shared.teacher else key
        prepare = first.setdefault(
            shared, Task(f"inputs-{len(first)}", _prepare, (token, shared, *roots, measured))
        )
        after.append(
            Task(
                folder,
                _finish,
                (token, shared, *roots, planned.config, str(out / folder)),
                prepare.name,
            )
        )
    return [*first.values(), *after]


def _inputs_of(config: RunConfig) -> RunConfig:
    """The same for all runs that load the same data, teacher and features."""
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
    """Encode what is not encoded yet. Returns how often the teacher alone is right on the test images, in percent, under the
    name `measured`; nothing without one."""
    inputs = _inputs(token, shared, cache_root, data_root, device)
    if not measured:
        return {}
    zero_shot = getattr(inputs.teacher, "zero_shot", inputs.teacher)  # CLAP's before any label
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
    """Do what is left of a run."""
    inputs = _inputs(token, shared, cache_root, data_root, device)
    config.run(folder, device=device, progress=False, inputs=inputs)


@functools.lru_cache(maxsize=1)
def _inputs(token: str, shared: RunConfig, cache_root: str, data_root: str, device: str) -> Inputs:
    """Loaded once for the runs of a sweep, its `token`, that follow each other in a process."""
    return shared.load(cache_root=cache_root, data_root=data_root, device=device, progress=False)


def load(out: str | os.PathLike) -> pd.DataFrame:
    """Every round of every run under `out` as a tidy table: `run` (its folder), the columns of `loop.tidy` except
    loss_curve, `rounds` (planned).

    `teacher` is the name in the grid; seconds are of a whole round, seconds_teacher and so on of its stages. The table is also
    kept as `results.parquet` in `out`. out: the folder of a sweep or of any runs, or such a parquet file. Runs that failed (see
    `failures`) are left out. Raises FileNotFoundError for no runs, ValueError for one whose files are damaged.
    """
    out = Path(out)
    stored = out if out.suffix == ".parquet" else out / "results.parquet"
    folders = sorted(
        path.parent for path in out.rglob("rounds.jsonl") if not path.with_name(FAILED).is_file()
    )
    if not folders and stored.is_file():
        return pd.read_parquet(stored)
    if not folders:
        raise FileNotFoundError(
            f"no runs under {out}; make some with `activekd-lite sweep --out {out}`"
        )
    planned = _noted(out / "runs.json")
    table = pd.concat([_rows(folder, out, planned) for folder in folders], ignore_index=True)
    with contextlib.suppress(OSError):  # a folder that can only be read
        write_atomic(stored, table.to_parquet(index=False))
    return table


def _rows(folder: Path, out: Path, planned: Mapping) -> pd.DataFrame:
    config, records, _ = RunFolder(folder).read()
    name = folder.relative_to(out).as_posix()
    table = tidy(config, records).drop(columns="loss_curve")
    table["seconds"] = [sum(record.seconds.values()) for record in records]
    table["teacher"] = planned.get(name, {}).get("teacher") or table["teacher"]
    table.insert(0, "run", name)
    return table.assign(rounds=config["rounds"])


def failures(out: str | os.PathLike) -> dict[str, str]:
    """Why runs under `out` could not be finished: the error and its traceback, by the runs' folders."""
    paths = sorted(Path(out).rglob(FAILED))
    return {
        path.parent.relative_to(out).as_posix(): path.read_text(encoding="utf-8") for path in paths
    }


def teachers(out: str | os.PathLike) -> dict[tuple[str, str], float]:
    """How often each teacher alone, asked in words, is right on the test images, in percent: by data set and name."""
    return {tuple(key.split("/", 1)): value for key, value in _noted_teachers(Path(out)).items()}


def estimate(grid: Grid, out: str | os.PathLike, workers: int = 1) -> tuple[pd.DataFrame, float]:
    """A row a run (run, trainings, done), and the seconds that `workers` need for what is left: as long as the trainings of the
    same data set, teacher and student took, or else of all that are done. NaN where none is."""
    runs, out = grid.runs(), Path(out)
    kind = {folder: (p.config.dataset, p.teacher, p.config.student) for folder, p in runs.items()}
    took = pd.DataFrame(
        [(folder, s) for folder in runs for s in _seconds(out / folder)], columns=["run", "seconds"]
    )
    of_kind = took.groupby(took["run"].map(kind))["seconds"].mean().to_dict()
    rows = [
        (folder, p.config.rounds + 1, int((took["run"] == folder).sum()))
        for folder, p in runs.items()
    ]
    plan = pd.DataFrame(rows, columns=["run", "trainings", "done"])
    each = [of_kind.get(kind[folder], took["seconds"].mean()) for folder in runs]
    return plan, float(((plan["trainings"] - plan["done"]) * each).sum(skipna=False) / workers)


def _seconds(folder: Path) -> list[float]:
    """Of each round that is there. Raises ValueError for a damaged file."""
    path = folder / "rounds.jsonl"
    lines = path.read_bytes().splitlines() if path.is_file() else []
    try:
        return [sum(parse_json(line)["seconds"].values()) for line in lines]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); {RunFolder(folder).remedy(0)}") from error


def _noted(path: Path) -> dict:
    """What a sweep has noted by name; {} without a file. Raises ValueError for anything but a mapping."""
    found = read_json(path, FORGET) if path.is_file() else {}
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__}, not a mapping; {FORGET}")
    return found


def _noted_teachers(out: Path) -> dict[str, float]:
    """Accuracies in percent by "dataset/teacher". Raises ValueError for anything else in teachers.json."""
    path = out / "teachers.json"
    found = _noted(path)
    for key, value in found.items():
        if "/" not in key or type(value) not in (int, float) or not 0 <= value <= 100:
            raise ValueError(
                f"{path} says {key!r}: {value!r}; 'dataset/teacher' and a percentage are needed; {FORGET}"
            )
    return found


def _note(path: Path, more: Mapping) -> None:
    """Add to what a sweep, or an earlier one in the same folder, has noted."""
    write_atomic(path, json.dumps(_noted(path) | dict(more), indent=1) + "\n")
