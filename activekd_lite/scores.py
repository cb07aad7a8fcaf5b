"""The scores of a round: accuracy, calibration, class balance, coverage."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from activekd_lite.utils.distances import nearest_distances

if TYPE_CHECKING:
    import pandas as pd


def accuracy_pct(probs: Tensor, labels: Tensor) -> float:
    """Return the percentage of rows of probs (N, C) whose largest entry is that of labels (N,)."""
    return 100.0 * (probs.argmax(dim=1).cpu() == labels.cpu()).double().mean().item()


def reliability(probs: Tensor, labels: Tensor, bins: int = 15) -> "pd.DataFrame":
    """Sort predictions into equal-width bins of confidence.

    probs: (N, C), labels: (N,). Returns a row per bin: count, mean confidence and accuracy (0..1),
    NaN in empty bins.
    """
    import pandas as pd

    confidence, predicted = probs.cpu().double().max(dim=1)
    place = (confidence * bins).long().clamp(max=bins - 1)
    right = (predicted == labels.cpu()).double()
    table = pd.DataFrame({"bin": place, "confidence": confidence, "accuracy": right})
    groups = table.groupby("bin")
    table = groups.mean().assign(count=groups.size()).reindex(range(bins))
    return table.fillna({"count": 0}).astype({"count": int})


def calibration_error_pct(probs: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the expected calibration error in percent (Guo et al. 2017, arXiv:1706.04599).

    probs: (N, C), labels: (N,). 0 means, for example, that 80 % of the predictions made with 80 %
    confidence are right.
    """
    table = reliability(probs, labels, bins)
    gap = (table["accuracy"] - table["confidence"]).abs() * table["count"]
    return float(100.0 * gap.sum() / len(probs))


def class_imbalance(counts: Sequence[int]) -> float | None:
    """Return 1 - normalised Shannon entropy of class counts (C,).

    0 for equal counts, 1 if one class has them all, None for no labels at all.
    """
    total, size = sum(counts), len(counts)
    if total == 0:
        return None
    if size == 1:
        return 0.0
    # log C - entropy, written so that it is exactly 0 for equal counts
    excess = sum(n / total * math.log(n * size / total) for n in counts if n)
    return min(1.0, max(0.0, excess / math.log(size)))


def imbalance_ratio(counts: Sequence[int]) -> float | None:
    """Return the largest class count over the smallest, or None if a class has no label."""
    return max(counts) / min(counts) if len(counts) and min(counts) > 0 else None


def covering_radius(points: Tensor, centers: Tensor) -> float:
    """Return the largest Euclidean distance of points (N, C) to their nearest of centers (L, C).

    0 for no points. Raises ValueError for no centres.
    """
    if len(centers) == 0:
        raise ValueError("no centres: a covering radius needs at least one labelled image")
    if len(points) == 0:
        return 0.0
    return nearest_distances(points, centers).max().item()


def aulc_pct(accuracies_pct: Sequence[float]) -> float:
    """Return the area under the learning curve: the mean accuracy over all rounds, in percent."""
    if len(accuracies_pct) == 0:
        raise ValueError("no rounds: the area under a learning curve needs at least one accuracy")
    return float(np.mean(accuracies_pct))
