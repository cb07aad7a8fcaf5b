"""One notebook for all runs of a grid, with an executed copy and a page per run, and an index.

activekd-lite sweep grid.yaml --notebook notebooks/05_active_learning_run.ipynb --out runs/batch
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

PLURAL = {"strategy": "strategies", "seed": "seeds"}  # list parameters of comparing notebooks


def run(
    grid: Grid,
    notebook: str | os.PathLike,
    out: str | os.PathLike = "runs/batch",
    *,
    cache_root: str | os.PathLike = ".cache",
    data_root: str | os.PathLike = "data",
    device: str | torch.device = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
    memory_limit: str | int = "auto",
    progress: bool = True,
) -> dict[str, str]:
    """Execute `notebook` with papermill for each run of `grid`; skip those that have finished.

    The notebook gets those settings of a run that are among its parameters: `strategy`, or
    `strategies` with a single entry, and so on. Runs with the same values are executed once
    (notebook 05 compares with and without distillation itself).
    workers, scheduler, memory_limit: see `cluster.run_tasks`.

    Returns, by name, the failed cell and its error, or "" for a notebook that finished. A failed
    notebook is kept up to the failed cell.
    Raises FileNotFoundError if the notebook does not exist.
    Raises ValueError for settings of the grid that are not among the notebook's parameters.
    """
    path, out = Path(notebook).resolve(), Path(out).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no notebook {notebook}; the course is in {notebooks.FOLDER}")
    make_folder(out)
    known = list(notebooks.parameters_of(read_notebook(path)))
    places = {"cache": os.path.abspath(cache_root), "data_root": os.path.abspath(data_root)}
    tasks = []
    for name, given in parameters(grid, known).items():
        given = notebooks.absolute(given) | places
        given |= {"device": str(device), "out": str(out / "runs" / name)}
        given = {k: v for k, v in given.items() if k in known}
        tasks.append(Task(name, _execute, (str(path), str(out / f"{name}.ipynb"), given)))
    results = run_tasks(tasks, workers=workers, scheduler=scheduler, memory_limit=memory_limit)
    errors = {}
    try:
        with tqdm(total=len(tasks), unit="notebook", desc=path.stem, disable=not progress) as bar:
            for task, result in results:
                errors[task.name] = _describe_error(result)
                bar.set_postfix(failed=sum(map(bool, errors.values())))
                bar.update()
    finally:
        index(out)
    return errors


def parameters(grid: Grid, known: Sequence[str]) -> dict[str, dict]:
    """Return the values for a notebook with the parameters `known`, by a name for each run.

    An example of a name is "digits-pcoreset-seed0".
    Raises ValueError for a setting, or an axis with several values, that is not in `known`.
    """
    if "distill" not in known and True in grid.distill:
        # The notebook compares runs with and without distillation itself.
        grid = replace(grid, distill=(True,))
    runs, given = list(grid.runs().values()), {}
    settings = [_settings(grid, run) for run in runs]
    _check_known(settings, known)
    for run, setting in zip(runs, settings, strict=True):
        values = {k: v for k, v in setting.items() if k in known}
        lists = {k: name for k, name in PLURAL.items() if k not in known and name in known}
        values |= {name: [setting[k]] for k, name in lists.items()}
        teacher = run.teacher if len(grid.teachers) > 1 else None
        plain = "plain" if "distill" in known and not setting["distill"] else None
        parts = [short_name(run.config.dataset), setting["strategy"], teacher, plain]
        parts += [setting.get("student"), setting.get("selection_source"), f"seed{setting['seed']}"]
        name = file_name("-".join(filter(None, parts)))
        if given.setdefault(name, values) != values:
            raise ValueError(
                f"two notebooks would be called {name}; give each teacher of the grid a 'name'"
            )
    return given


def _check_known(settings: Sequence[Mapping], known: Sequence[str]) -> None:
    for name in dict.fromkeys(name for setting in settings for name in setting):
        values = dict.fromkeys(repr(setting.get(name)) for setting in settings)
        optional = name == "distill" or (name in PLURAL and len(values) == 1)
        if not optional and name not in known and PLURAL.get(name) not in known:
            raise ValueError(
                f"the grid has {name} = {', '.join(values)}, which is not a parameter of this "
                f"notebook ({', '.join(known)}); give the grid a single {name}, or none"
            )


def _settings(grid: Grid, run: Planned) -> dict:
    """Return the settings of a run under the names that notebooks use."""
    config, default = run.config, RunConfig()
    settings = {"dataset": config.dataset, "strategy": config.strategy, "seed": config.seed}
    settings["distill"] = bool(config.teacher)
    if config.student:
        settings["student"] = config.student
    names = (*OF_MODEL, "teacher", "selection_source") if config.teacher else ()
    changed = [k for k in names if getattr(config, k) != getattr(default, k)]
    settings |= {k: getattr(config, k) for k in changed}
    settings |= {k: getattr(grid, k) for k in SHARED if getattr(grid, k) is not None}
    return settings | (dict(grid.train) if isinstance(grid.train, Mapping) else {})


def _execute(notebook: str, target: str, given: Mapping) -> Outcome:
    path = Path(notebook)
    return notebooks.run_one(path, read_notebook(path), Path(target), given, progress=False)


def _describe_error(result: Outcome | Failure) -> str:
    if isinstance(result, Failure):
        return result.error
    return f"{result.failed_cell}: {result.error}" if result.error else ""
