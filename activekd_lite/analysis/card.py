"""The card of a task: a few numbers that say what it is like, computed from one training."""

import os
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from activekd_lite.analysis.structure import (
    chance_errors,
    confusion_matrix,
    perplexity,
    without_diagonal,
)
from activekd_lite.cache import FrozenFeatures, TeacherCache
from activekd_lite.loop import run_active_learning
from activekd_lite.pool import Dataset
from activekd_lite.scores import accuracy_pct, cluster_purity_pct, imbalance_ratio
from activekd_lite.teacher import Teacher, ZeroShotTeacher, test_answers
from activekd_lite.train_config import TrainConfig
from activekd_lite.utils.seeding import generator
from activekd_lite.vlm import load_vlm

CHANCE_DRAWS = 20


@dataclass(frozen=True)
class TaskCard:
    """What a task is like, with one teacher and one student.

    Parameters
    ----------
    dataset, classes, pool_size
        Name, number of classes, and images in the pool.
    imbalance_ratio
        Labels of the pool's most frequent class per label of the rarest. None if a class has none,
        or the labels are not known.
    teacher_accuracy_pct
        Of the teacher on the test images, before any label.
    student_accuracy_pct
        On the test images, of the student of round 0: trained by the loop on the initial labels
        (`shots` per class) and the teacher's answers, both heads mixed.
    copy_accuracy_pct
        The same student's kd head alone, which learns from the teacher and from no label. (It
        shares its backbone with the head that learns from the initial labels.)
    gap_points, copy_gap_points
        teacher_accuracy_pct less student_accuracy_pct, and less copy_accuracy_pct: how far a
        student stays below its teacher with few labels, and with none.
    error_choices
        Effective number of wrong answers that the teacher gives to a class of test images, see
        `perplexity`. None without errors.
    error_choices_by_chance
        The mean of the same if the wrong answers did not depend on the class, see `chance_errors`.
    error_concentration
        error_choices_by_chance / error_choices: 1 for errors that are as scattered as chance has
        them, more for teachers that confuse few pairs of classes.
    cluster_purity_pct
        Of the teacher's probabilities of the test images, see `scores.cluster_purity_pct`.
    """

    dataset: str
    classes: int
    pool_size: int
    imbalance_ratio: float | None
    teacher: str
    teacher_accuracy_pct: float
    student: str
    shots: int
    seed: int
    student_accuracy_pct: float
    copy_accuracy_pct: float
    gap_points: float
    copy_gap_points: float
    error_choices: float | None
    error_choices_by_chance: float | None
    error_concentration: float | None
    cluster_purity_pct: float

    def to_dict(self) -> dict:
        return asdict(self)


def task_card(
    data: Dataset,
    teacher: Teacher | None = None,
    *,
    student: str | None = None,
    features: FrozenFeatures | None = None,
    train: TrainConfig = TrainConfig(),
    shots: int = 1,
    seed: int = 0,
    cache_root: str | os.PathLike = ".cache",
    device: str | torch.device = "auto",
) -> TaskCard:
    """Compute the card of a task: one training, and what the teacher says of the test images.

    It takes about 10 seconds of one core for the embedded data sets, once they are encoded.

    It looks at labels that a run would have to ask for, so it describes a task; it is no part of a
    run.

    Parameters
    ----------
    teacher
        None: the embedded tiny-clip, zero-shot. Any other needs predictions of the test images
        (`test=` of the teachers).
    student, features, train, shots, seed
        Of the student of round 0, see `run_active_learning`.

    Raises ValueError for a teacher without test predictions.
    """
    teacher = teacher or _embedded_teacher(data, cache_root, device)
    probs = test_answers(teacher)
    if probs is None:
        raise ValueError(
            "the teacher has no predictions of the test images, and a card needs them; give it "
            "test=TeacherCache.build_test(vlm, data), or test logits"
        )
    probs, labels = probs.cpu(), data.test.labels.cpu()
    how = {"rounds": 0, "shots": shots, "seed": seed, "student": student, "train": train}
    run = run_active_learning(
        data, teacher, features=features, device=device, progress=False, **how
    )
    record, accuracy = run.records[0], accuracy_pct(probs, labels)
    return TaskCard(
        dataset=data.name,
        classes=data.pool.num_classes,
        pool_size=len(data.pool),
        imbalance_ratio=_imbalance_ratio(data),
        teacher=run.config["teacher"]["kind"],
        teacher_accuracy_pct=accuracy,
        student=run.config["student"],
        shots=run.config["shots"],
        seed=run.config["seed"],
        student_accuracy_pct=record.accuracy_pct,
        copy_accuracy_pct=record.kd_accuracy_pct,
        gap_points=accuracy - record.accuracy_pct,
        copy_gap_points=accuracy - record.kd_accuracy_pct,
        **error_concentration(probs, labels, seed),
        cluster_purity_pct=cluster_purity_pct(probs, labels),
    )


def error_concentration(probs: Tensor, labels: Tensor, seed: int = 0) -> dict[str, float | None]:
    """Compare the spread of a classifier's errors with chance, see `TaskCard`.

    probs: (N, C); labels: (N,). A mean over CHANCE_DRAWS draws from `chance_errors`.
    """
    errors = without_diagonal(confusion_matrix(labels, probs.argmax(dim=1), probs.shape[1]))
    names = ("error_choices", "error_choices_by_chance", "error_concentration")
    if not errors.any():
        return dict.fromkeys(names)
    g = generator(seed, "errors by chance")
    by_chance = np.mean([perplexity(chance_errors(errors, g)) for _ in range(CHANCE_DRAWS)])
    choices = perplexity(errors)
    return dict(zip(names, (choices, float(by_chance), float(by_chance / choices)), strict=True))


def _imbalance_ratio(data: Dataset) -> float | None:
    if not data.oracle.known.all():
        return None
    labels = data.oracle.label(torch.arange(len(data.pool)))
    return imbalance_ratio(torch.bincount(labels, minlength=data.pool.num_classes).tolist())


def _embedded_teacher(
    data: Dataset, cache_root: str | os.PathLike, device: str | torch.device
) -> ZeroShotTeacher:
    vlm = load_vlm(device=device)
    test = TeacherCache.build_test(vlm, data, cache_root, progress=False)
    cache = TeacherCache.build(vlm, data.pool, 1, cache_root, progress=False)
    return ZeroShotTeacher(cache, vlm.text_weights(data.classnames, data.templates), test=test)
