"""ActiveKD and PCoreSet, to see and to use: a vision-language model teaches a student, active learning chooses labels."""

import importlib

from activekd_lite import openmp  # first: it sets what torch's OpenMP reads when it is loaded

openmp.spin_briefly()

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


def __getattr__(name: str):
    """What comes with an extra is imported when it is asked for: `widgets` (notebooks) and PCoreSetQuery (skactiveml)."""
    if name == "widgets":
        return importlib.import_module("activekd_lite.widgets")
    if name == "PCoreSetQuery":
        return importlib.import_module("activekd_lite.scikit_activeml").PCoreSetQuery
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "PCoreSetQuery", "widgets"]
