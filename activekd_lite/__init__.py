"""ActiveKD and PCoreSet, to see and to use: a vision-language model teaches a student, active learning chooses labels."""

import importlib
import importlib.util
from typing import TYPE_CHECKING

from activekd_lite import openmp

openmp.spin_briefly()  # before torch is imported, whose OpenMP reads it then

if TYPE_CHECKING:  # for editors; each is imported when it is asked for, so that the command can be stopped meanwhile
    from activekd_lite import (
        cache,
        doctor,
        kcenter,
        losses,
        metrics,
        notebooks,
        plots,
        report,
        seeding,
        statistics,
        strategies,
        students,
        sweep,
        teacher,
        views,
    )
    from activekd_lite.cache import FrozenFeatures, TeacherCache
    from activekd_lite.datasets import Dataset, load_dataset, make_dataset
    from activekd_lite.loop import RoundRecord, RunResult, load_run, run_active_learning
    from activekd_lite.pool import LabelState, Oracle, Pool, Predictions
    from activekd_lite.protocol import RunConfig
    from activekd_lite.strategies import STRATEGIES
    from activekd_lite.students import DualHeadStudent, build_student, mix_heads
    from activekd_lite.teacher import ClapConfig, ClapTeacher, ZeroShotTeacher
    from activekd_lite.training import TrainConfig, predict, train_student
    from activekd_lite.views import Augmentation, Views
    from activekd_lite.vlm import VLM, load_vlm

__all__ = [
    "STRATEGIES", "VLM", "Augmentation", "ClapConfig", "ClapTeacher", "Dataset", "DualHeadStudent", "FrozenFeatures",
    "LabelState", "Oracle", "Pool", "Predictions", "RoundRecord", "RunConfig", "RunResult", "TeacherCache",
    "TrainConfig", "Views", "ZeroShotTeacher", "build_student", "cache", "doctor", "kcenter", "load_dataset", "load_run",
    "load_vlm", "losses", "make_dataset", "metrics", "mix_heads", "notebooks", "plots", "predict", "report",
    "run_active_learning", "seeding", "statistics", "strategies", "students", "sweep", "teacher", "train_student", "views",
]  # fmt: skip


_NAMES = {
    "cache": "FrozenFeatures TeacherCache",
    "datasets": "Dataset load_dataset make_dataset",
    "loop": "RoundRecord RunResult load_run run_active_learning",
    "pool": "LabelState Oracle Pool Predictions",
    "protocol": "RunConfig",
    "scikit_activeml": "PCoreSetQuery",
    "strategies": "STRATEGIES",
    "students": "DualHeadStudent build_student mix_heads",
    "teacher": "ClapConfig ClapTeacher ZeroShotTeacher",
    "training": "TrainConfig predict train_student",
    "views": "Augmentation Views",
    "vlm": "VLM load_vlm",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str):
    """Any module, and the names of __all__; `widgets` needs the extra notebooks, PCoreSetQuery the extra skactiveml."""
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "PCoreSetQuery", "widgets"]
