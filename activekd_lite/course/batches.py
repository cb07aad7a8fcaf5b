"""A notebook over a grid: one executed notebook and one page a run, and an index of them all.

activekd-lite sweep grid.yaml --notebook notebooks/04_active_learning_run.ipynb --out runs/batch
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from activekd_lite.course import notebooks
from activekd_lite.course.notebooks import Outcome
from activekd_lite.course.pages import index, read_notebook
from activekd_lite.datasets.sources import short_name
from activekd_lite.experiments.cluster import Failure, Task, run_tasks
from activekd_lite.experiments.config import RunConfig
from activekd_lite.experiments.grid import OF_MODEL, SHARED, Grid, Planned, file_name
from activekd_lite.utils.files import make_folder

PLURAL = {
    "strategy": "strategies",
    "seed": "seeds",
}  # what notebooks that compare call a list of them


def run(
    grid: Grid, notebook: str | os.PathLike, out: str | os.PathLike = "runs/batch", *, cache_root: str | os.PathLike = ".cache",
    data_root: str | os.PathLike = "data", device: str | torch.device = "auto", workers: int | None = None,
    scheduler: str | None = None, memory_limit: str | int = "auto", progress: bool = True,
) -> dict[str, str]:  # fmt: skip
    """Execute `notebook` by papermill for every run of `grid`, into `out`; what ran through before is not run again.

    A notebook is given what it knows of a run: `strategy`, or `strategies` with one in it, and so on. Runs that are the same to
    it (04 compares with and without distillation itself) are one. workers, scheduler, memory_limit: see `cluster.run_tasks`.
    Returns by name the cell and the error of those that failed, which are kept as far as they came, and "" for the others.

    Raises FileNotFoundError for no such notebook, ValueError for settings of the grid that the notebook does not know.
    """
    path, out = Path(notebook).resolve(), make_folder(out).resolve()
    if not path.is_file():
        raise FileNotFoundError(
            f"no notebook {notebook}; those of the course are in {notebooks.FOLDER}"
        )
    known, done, tasks = notebooks.parameters_of(read_notebook(path)), {}, []
    places = {
        "cache": os.path.abspath(cache_root),
        "data_root": os.path.abspath(data_root),
        "device": str(device),
    }
    for name, given in parameters(grid, list(known)).items():
        own = {k: v for k, v in (places | {"out": str(out / "runs" / name)}).items() if k in known}
        tasks.append(
            Task(
                name,
                _execute,
                (str(path), str(out / f"{name}.ipynb"), notebooks.absolute(given) | own),
            )
        )
    try:
        with tqdm(total=len(tasks), unit="notebook", desc=path.stem, disable=not progress) as bar:
            for task, result in run_tasks(
                tasks, workers=workers, scheduler=scheduler, memory_limit=memory_limit
            ):
                if isinstance(result, Failure):
                    done[task.name] = result.error
                else:
                    done[task.name] = (
                        f"{result.failed_cell}: {result.error}" if result.error else ""
                    )
                bar.set_postfix(failed=sum(map(bool, done.values())))
                bar.update()
    finally:
        index(out)
    return done


def parameters(grid: Grid, known: Sequence[str]) -> dict[str, dict]:
    """What to give a notebook with the parameters `known` for each run of the grid, by a name such as "digits-pcoreset-seed0".

    Raises ValueError for a setting that it does not know, and for an axis of several values that it does not know.
    """
    if "distill" not in known and True in grid.distill:
        grid = replace(grid, distill=(True,))  # the notebook compares with and without itself
    planned, given = list(grid.runs().values()), {}
    settings = [_settings(grid, run) for run in planned]
    for name in dict.fromkeys(name for of in settings for name in of):
        values = list(dict.fromkeys(repr(of.get(name)) for of in settings))
        ignored = name == "distill" or (name in PLURAL and len(values) == 1)
        if not ignored and name not in known and PLURAL.get(name) not in known:
            raise ValueError(
                f"the grid says {name} = {', '.join(values)}, which this notebook does not know: its parameters are "
                f"{', '.join(known)}; give the grid one {name}, or none"
            )
    for run, of in zip(planned, settings, strict=True):
        own = {k: v for k, v in of.items() if k in known}
        own |= {PLURAL[k]: [v] for k, v in of.items() if k not in known and PLURAL.get(k) in known}
        parts = [
            short_name(run.config.dataset),
            of["strategy"],
            run.teacher if len(grid.teachers) > 1 else None,
        ]
        plain = "plain" if not of["distill"] and "distill" in known else None
        parts += [plain, of.get("student"), of.get("selection_source"), f"seed{of['seed']}"]
        name = file_name("-".join(filter(None, parts)))
        if given.setdefault(name, own) != own:
            raise ValueError(
                f"two notebooks would be called {name}; give the grid's teachers a 'name' each"
            )
    return given


def _settings(grid: Grid, run: Planned) -> dict:
    """What the grid says of a run, by the names that notebooks use."""
    config = run.config
    said = {
        "dataset": config.dataset,
        "strategy": config.strategy,
        "seed": config.seed,
        "distill": bool(config.teacher),
    }
    said |= {"student": config.student} if config.student else {}
    if config.teacher:
        default = RunConfig()
        named = (*OF_MODEL, "teacher", "selection_source")
        said |= {k: getattr(config, k) for k in named if getattr(config, k) != getattr(default, k)}
    said |= {k: getattr(grid, k) for k in SHARED if getattr(grid, k) is not None}
    return said | (dict(grid.train) if isinstance(grid.train, Mapping) else {})


def _execute(notebook: str, target: str, given: Mapping) -> Outcome:
    path = Path(notebook)
    return notebooks.run_one(path, read_notebook(path), Path(target), given, progress=False)
