"""Many runs: every data set x strategy x with or without distillation x seed, one after another, resumable.

Runs that share a seed share the initial labelled set, the student's weights and the batches' draws, whatever the strategy:
so their differences are paired.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import torch
from tqdm import tqdm

from activekd_lite.cache import FrozenFeatures
from activekd_lite.datasets import load_dataset
from activekd_lite.loop import RunResult, check_labels, load_run, run_active_learning
from activekd_lite.protocol import make_teacher
from activekd_lite.sources import short_name
from activekd_lite.statistics import aulc as to_frame  # noqa: F401, until notebook 05 asks `statistics` itself
from activekd_lite.statistics import summary  # noqa: F401
from activekd_lite.strategies import COLD_START, PAPER_STRATEGIES, STRATEGIES, get_strategy
from activekd_lite.students import ON_FEATURES, find_backbone
from activekd_lite.training import TrainConfig
from activekd_lite.vlm import load_vlm


@dataclass(frozen=True)
class Grid:
    """What to run; see `protocol.RunConfig`, which is one of these runs. distill: with the teacher, without it, or both;
    views, where given, are of both."""

    datasets: Sequence[str] = ("digits",)
    strategies: Sequence[str] = PAPER_STRATEGIES
    distill: Sequence[bool] = (True, False)
    seeds: Sequence[int] = (0,)
    rounds: int = 8
    query_size: int | None = None
    shots: int = 1
    views: int | None = None
    vlm: str = "tiny-clip"
    pretrained: str | None = None
    teacher: str = "zero-shot"
    student: str | None = None
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self):
        for strategy in self.strategies:
            get_strategy(strategy)
        if self.student:
            find_backbone(self.student)
        names = [short_name(name) for name in self.datasets]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"data sets {', '.join(self.datasets)}: {', '.join(twice)} twice; their runs would share a folder")
        if self.shots == 0 and (warm := [s for s in self.strategies if s in STRATEGIES and s not in COLD_START]):
            raise ValueError(f"shots = 0: {', '.join(warm)} start from labelled images; these do not: {', '.join(COLD_START)}")


def run(
    grid: Grid, out: str | os.PathLike, *, cache_root: str | os.PathLike = ".cache", data_root: str | os.PathLike = "data",
    device: str | torch.device = "auto", progress: bool = True,
) -> list[RunResult]:  # fmt: skip
    """Run all of `grid` under `out`; finished runs are read, an interrupted one goes on. Returns the runs, in grid order.

    What only a teacher makes possible, `pcoreset_teacher` and a cold start (shots = 0), is run with distillation alone.
    """
    vlm, results = load_vlm(grid.vlm, grid.pretrained, device), []
    jobs = [job for job in product(grid.seeds, grid.strategies, grid.distill) if _possible(grid, *job[1:])]
    trainings = grid.rounds + 1
    with tqdm(total=len(grid.datasets) * len(jobs) * trainings, unit="round", disable=not progress) as bar:
        for name in grid.datasets:
            data = load_dataset(name, data_root, cache_root=cache_root)
            query_size = data.pool.num_classes if grid.query_size is None else grid.query_size
            check_labels(data, grid.rounds, query_size, grid.shots)  # before what takes long
            teacher = make_teacher(grid.teacher, vlm, data, grid.views or 1, cache_root, progress=progress)
            on_features = grid.student in ON_FEATURES
            features = FrozenFeatures.build(vlm, data, teacher.views, cache_root, progress) if on_features else None
            for seed, strategy, distill in jobs:
                bar.set_description(f"{data.name}, {strategy}{'' if distill else ', no distillation'}, seed {seed}")
                folder = run_folder(out, data.name, strategy, distill, seed)
                result = run_active_learning(
                    data, teacher if distill else None, strategy=strategy, rounds=grid.rounds, seed=seed,
                    query_size=query_size, shots=grid.shots, train=grid.train, student=grid.student, features=features,
                    views=teacher.views if grid.views else None, out=folder, device=device, progress=False,
                    on_round=lambda record: bar.update(),
                )  # fmt: skip
                results.append(result)
                bar.update(len(results) * trainings - bar.n)  # rounds that were there already
    return results


def _possible(grid: Grid, strategy: str, distill: bool) -> bool:
    return distill or (strategy != "pcoreset_teacher" and grid.shots > 0)


def run_folder(out: str | os.PathLike, dataset: str, strategy: str, distill: bool, seed: int) -> Path:
    return Path(out) / dataset / f"{strategy.replace(':', '-')}-{'activekd' if distill else 'plain'}" / f"seed{seed}"


def load(out: str | os.PathLike) -> list[RunResult]:
    """Every run found under `out`. Raises FileNotFoundError when there is none."""
    folders = sorted(path.parent for path in Path(out).rglob("rounds.jsonl"))
    if not folders:
        raise FileNotFoundError(f"no runs under {out}; make some with `activekd-lite sweep --out {out}`")
    return [load_run(folder) for folder in folders]
