"""The contract of all strategies, and their helper functions.

A strategy sees the student's predictions over the pool and what is labelled so far, never a hidden
label. It returns pool indices of unlabelled images, each at most once, in pick order. Equal scores
go to the lowest pool index.

Asking for more images must not change the first picks: a query of q is a prefix of a query of
q + 1. A strategy that breaks this rule says so.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions


class Strategy(Protocol):
    """Which images a person labels next."""

    def __call__(
        self,
        predictions: Predictions,
        state: LabelState,
        query_size: int,
        *,
        generator: torch.Generator,
    ) -> Tensor:
        """Choose images.

        Returns (query_size,) int64 pool indices in pick order.
        Raises ValueError if fewer than query_size images are unlabelled.
        """
        ...


Function = TypeVar("Function", bound=Callable[..., Tensor])


def needs(*, labels: bool = False, teacher: bool = False) -> Callable[[Function], Function]:
    """Declare what a strategy cannot work without; a run checks this before it trains anything.

    labels: at least one labelled image. teacher: `Predictions.teacher_probs`.
    """

    def declare(strategy: Function) -> Function:
        setattr(strategy, "needs_labels", labels)  # noqa: B010
        setattr(strategy, "needs_teacher", teacher)  # noqa: B010
        return strategy

    return declare


def needs_labels(strategy: Strategy) -> bool:
    """True if the strategy needs labelled images to start from."""
    return getattr(strategy, "needs_labels", False)


def needs_teacher(strategy: Strategy) -> bool:
    """True if the strategy cannot choose without a teacher's probabilities."""
    return getattr(strategy, "needs_teacher", False)


def unlabeled_indices(predictions: Predictions, state: LabelState, query_size: int) -> Tensor:
    """Return the unlabelled pool indices (U,), ascending.

    Raises ValueError if predictions and labels differ in size, or if the query cannot be filled.
    """
    unlabeled = state.unlabeled_indices
    if len(predictions.probs) != len(state.labels):
        raise ValueError(
            f"predictions cover {len(predictions.probs)} images, but the pool has "
            f"{len(state.labels)}"
        )
    if not 1 <= query_size <= len(unlabeled):
        raise ValueError(
            f"query_size = {query_size}, but {len(unlabeled)} of {len(state.labels)} images are "
            f"unlabelled; ask for 1 to {len(unlabeled)}"
        )
    return unlabeled


def labeled_indices(state: LabelState) -> Tensor:
    """Return the labelled pool indices (L,). Raises ValueError if there are none."""
    if len(labeled := state.labeled_indices):
        return labeled
    from activekd_lite.strategies import STRATEGIES  # imports this file

    others = (name for name, strategy in STRATEGIES.items() if not needs_labels(strategy))
    raise ValueError(
        "nothing is labelled, and this strategy starts from labelled images; these start without: "
        + ", ".join(others)
    )


def highest(score: Tensor, unlabeled: Tensor, query_size: int) -> Tensor:
    """Return the unlabelled images with the highest score (N,)."""
    return unlabeled[score[unlabeled].argsort(descending=True, stable=True)[:query_size].cpu()]


def teacher_probs(predictions: Predictions, name: str) -> Tensor:
    """Return the teacher's probabilities (N, C). Raises ValueError, naming the strategy."""
    if predictions.teacher_probs is None:
        raise ValueError(f"{name} needs Predictions.teacher_probs: run with a teacher, or set them")
    return predictions.teacher_probs


def draw_seed(generator: torch.Generator) -> int:
    """Draw a seed for a library that takes no generator."""
    return int(torch.randint(2**31, (1,), generator=generator))


def representatives(
    features: Tensor, count: int, seed: int, weight: Tensor | None = None
) -> Tensor:
    """Return `count` rows of features (n, F): one per cluster of k-means, nearest to its centre.

    Features are scaled to norm 1. weight: (n,), of each row in its centre. Clusters come in the
    order of their first row; copies cannot form clusters of their own, so the lowest other rows
    fill the rest.
    """
    import numpy as np
    from sklearn.cluster import KMeans  # slow to import

    x = F.normalize(features.double(), dim=1).cpu().numpy()
    clusters = min(count, len(np.unique(x, axis=0)))
    means = KMeans(clusters, n_init=1, random_state=seed)
    group = means.fit_predict(x, sample_weight=None if weight is None else weight.cpu().numpy())
    distance = np.linalg.norm(x - means.cluster_centers_[group], axis=1)
    members = (np.flatnonzero(group == g) for g in dict.fromkeys(group.tolist()))
    chosen = [int(m[distance[m].argmin()]) for m in members]
    others = (row for row in range(len(x)) if row not in chosen)
    chosen += [next(others) for _ in range(count - len(chosen))]
    return torch.tensor(chosen)
