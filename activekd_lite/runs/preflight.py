"""Checks of a run before anything is trained, and of every query that a strategy returns."""

from numbers import Integral

import torch
from torch import Tensor

from activekd_lite.pool import Dataset, LabelState
from activekd_lite.strategies import STRATEGIES
from activekd_lite.strategies.contract import Strategy, needs_labels, needs_teacher
from activekd_lite.teacher import Teacher, test_count, test_pool_of
from activekd_lite.utils.check_tensors import check_indices
from activekd_lite.utils.files import name_of
from activekd_lite.utils.views import Views

SELECTION_SOURCES = ("mixed", "ce", "kd", "teacher")  # whose probabilities a strategy selects by


def check_labels(data: Dataset, rounds: int, query_size: int, shots: int) -> None:
    """Raise ValueError for more labels than images, or counts that make no sense."""
    whole = isinstance(rounds, Integral) and isinstance(query_size, Integral)
    if not whole or rounds < 0 or (rounds and query_size < 1):
        raise ValueError(
            f"rounds = {rounds!r} and query_size = {query_size!r}: whole numbers are needed, at "
            "least 0 rounds of 1 label"
        )
    if rounds and data.oracle.unknown_count:
        raise ValueError(
            f"{data.oracle.unknown_count} images of the pool have no label, and a strategy may ask "
            "for any: label them, or leave them out (`rounds=0` trains on what is labelled)"
        )
    start = shots * data.pool.num_classes or query_size
    needed = start + rounds * query_size
    if needed > len(data.pool):
        raise ValueError(
            f"{start} labels to start with and {rounds} rounds of {query_size} make {needed} "
            f"labels, but the pool has {len(data.pool)} images; ask for fewer rounds or a smaller "
            "query"
        )


def check_selection_source(source: str, distilled: bool, heads: str = "dual") -> None:
    """Raise ValueError for an unknown source, and for one that lacks its teacher or its head."""
    if source not in SELECTION_SOURCES:
        known = ", ".join(map(repr, SELECTION_SOURCES))
        raise ValueError(f"selection_source = {source!r}; choose one of {known}")
    if source in ("kd", "teacher") and not distilled:
        raise ValueError(
            f"selection_source = {source!r} needs the predictions of a teacher: run with one, or "
            "choose 'mixed' or 'ce'"
        )
    if source == "kd" and heads == "single":
        raise ValueError(
            "selection_source = 'kd' needs a head of its own for the teacher, but heads = 'single';"
            " choose 'mixed', or heads = 'dual'"
        )


def check_start(strategy: Strategy, shots: int, query_size: int, distilled: bool) -> None:
    """Raise ValueError if nothing could be labelled before the first training."""
    if shots < 0 or (shots == 0 and (not distilled or query_size < 1)):
        raise ValueError(
            f"shots = {shots}: at least 1 labelled image per class is needed to start; 0, a cold "
            "start, needs a teacher and a query_size of at least 1"
        )
    if shots == 0 and needs_labels(strategy):
        others = ", ".join(name for name, known in STRATEGIES.items() if not needs_labels(known))
        raise ValueError(
            f"shots = 0, so nothing is labelled, and {strategy_name(strategy)} starts from "
            f"labelled images; these start without any: {others}"
        )
    if needs_teacher(strategy) and not distilled:
        raise ValueError(
            f"{strategy_name(strategy)} chooses by the teacher's probabilities: run with a "
            "teacher, or choose pcoreset"
        )


def check_teacher(data: Dataset, config: dict, teacher: Teacher, views: Views) -> None:
    """Raise ValueError for a teacher that does not fit the data.

    config: the run's, with the fingerprints of pool, test images and teacher.
    """
    if teacher.num_classes != data.pool.num_classes:
        raise ValueError(
            f"the teacher has text weights for {teacher.num_classes} classes, {data.name} has "
            f"{data.pool.num_classes}"
        )
    made_from = config["teacher"].get("cache", {}).get("pool")  # unknown for a teacher from logits
    if len(teacher) != len(data.pool) or made_from not in (None, config["pool"]):
        raise ValueError(
            f"the teacher's cache or outputs ({len(teacher)} images) were made from other images "
            f"than {data.name}'s pool ({len(data.pool)}); build a cache of it with "
            "TeacherCache.build"
        )
    if teacher.views not in (None, views):
        raise ValueError(
            f"views {views} were asked for, but the teacher's cache holds {teacher.views}"
        )
    _check_test_answers(data, config["test"]["images"], teacher)


def _check_test_answers(data: Dataset, images: str, teacher: Teacher) -> None:
    if (count := test_count(teacher)) is None:
        return
    if count != len(data.test) or test_pool_of(teacher) not in (None, images):
        raise ValueError(
            f"the teacher's test predictions ({count} images) are of other images than "
            f"{data.name}'s test set ({len(data.test)}); build them with "
            "TeacherCache.build_test(vlm, data)"
        )


def check_query(query: Tensor, state: LabelState, query_size: int, choose: Strategy) -> None:
    """Raise an error for a query that breaks the contract of strategies."""
    name = strategy_name(choose)
    right = (
        isinstance(query, Tensor) and query.shape == (query_size,) and query.dtype == torch.int64
    )
    if not right:
        found = type(query).__name__
        if isinstance(query, Tensor):
            found = f"{tuple(query.shape)} {query.dtype}"
        raise ValueError(
            f"{name} returned {found}; pool indices are needed, a torch tensor ({query_size},) "
            "torch.int64"
        )
    check_indices(query, len(state.labels), f"{name} chose")
    if len(query.unique()) < query_size or (state.labels[query] >= 0).any():
        raise ValueError(
            f"{name} chose an image twice or one that is labelled already: {query.tolist()}"
        )


def strategy_name(strategy: str | Strategy) -> str:
    """Return the name of a strategy as it stands in records."""
    return strategy if isinstance(strategy, str) else name_of(strategy)
