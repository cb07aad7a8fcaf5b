"""What a run needs before its first round: a configuration, and data on the device."""

from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from activekd_lite.banks import FeatureBank, ViewBank, check_features, make_bank
from activekd_lite.cache import FrozenFeatures
from activekd_lite.pool import Dataset
from activekd_lite.runs.preflight import (
    check_labels,
    check_selection_source,
    check_start,
    check_teacher,
    strategy_name,
)
from activekd_lite.strategies import get_strategy
from activekd_lite.strategies.contract import Strategy
from activekd_lite.teacher import Teacher
from activekd_lite.train_config import TrainConfig
from activekd_lite.utils.backbones import weights_sha256
from activekd_lite.utils.checks import whole_number
from activekd_lite.utils.images import ImageFiles
from activekd_lite.utils.views import FRESH, Views


@dataclass(frozen=True)
class Run:
    """What stays the same in all rounds of a run."""

    data: Dataset
    teacher: Teacher | None
    choose: Strategy
    config: dict
    train: TrainConfig
    bank: ViewBank | FeatureBank
    test_inputs: Tensor | ImageFiles
    progress: bool


def default_views(data: Dataset, teacher: Teacher | None, features: FrozenFeatures | None) -> Views:
    """Return the views of the teacher or the features; without either, fresh ones at each step."""
    given = (teacher.views if teacher else None) or (features.pool.views if features else None)
    return given or Views(FRESH, augmentation=data.pool.augmentation)


def configure(
    data: Dataset,
    teacher: Teacher | None,
    *,
    strategy: str | Strategy,
    rounds: int,
    query_size: int,
    seed: int,
    shots: int,
    selection_source: str,
    student: str,
    train: TrainConfig,
    views: Views,
    features: FrozenFeatures | None,
) -> dict:
    """Return the configuration of a run, JSON-ready: all that its records depend on.

    Raises ValueError for settings that cannot work.
    """
    choose = get_strategy(strategy)
    shots, seed = whole_number("shots", shots), whole_number("seed", seed)
    check_labels(data, rounds, query_size, shots)
    check_selection_source(selection_source, teacher is not None, train.heads)
    check_start(choose, shots, query_size, teacher is not None)
    check_features(data.pool, student, views, features)
    config = {
        "dataset": data.name,
        "pool": data.pool.fingerprint(),
        "pool_size": len(data.pool),
        "labels": data.oracle.fingerprint(),
        "test": data.test.fingerprint(),
        "classnames": list(data.classnames),
        "student": student,
        "train": asdict(train),
        "views": views.fingerprint(),
        "teacher": teacher.fingerprint() if teacher else None,
        "features": features.fingerprint() | {"dim": features.pool.dim} if features else None,
        "student_weights": weights_sha256(train.pretrained),
        "strategy": strategy_name(strategy),
        "rounds": int(rounds),  # numpy's integers cannot be written as JSON
        "query_size": int(query_size),
        "seed": seed,
        "shots": shots,
        "selection_source": selection_source,
    }
    if teacher is not None:
        check_teacher(data, config, teacher, views)
    return config


def prepare(
    data: Dataset,
    teacher: Teacher | None,
    choose: Strategy,
    config: dict,
    train: TrainConfig,
    views: Views,
    features: FrozenFeatures | None,
    device: torch.device,
    progress: bool,
) -> Run:
    """Move data and teacher to the device, and render what the student is trained on."""
    images = data.pool.images
    encoded = features is not None or "cache" in (config["teacher"] or {})
    if isinstance(images, ImageFiles) and not encoded:
        images.check()  # otherwise encoding has decoded them all
    data = replace(data, pool=replace(data.pool, images=images.to(device)))
    bank = make_bank(data.pool, config["student"], views, device, features)
    test_inputs = data.test.images if bank.dim is None else features.test
    teacher = teacher and teacher.to(device)
    return Run(data, teacher, choose, config, train, bank, test_inputs, progress)


def progress_bar(config: dict, done: int, progress: bool) -> tqdm:
    """Return a bar over the rounds of a run, of which `done` are finished."""
    distillation = "" if config["teacher"] else ", no distillation"
    title = f"{config['dataset']}, {config['strategy']}{distillation}, seed {config['seed']}"
    total = config["rounds"] + 1
    return tqdm(total=total, initial=done, unit="round", disable=not progress, desc=title)
