"""The scores of a round: accuracy, calibration, class balance, coverage."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor


def accuracy_pct(probs: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest probability is the label's, in percent: probs (N, C), labels (N,)."""
    return 100.0 * (probs.argmax(dim=1).cpu() == labels.cpu()).double().mean().item()


def reliability(probs: Tensor, labels: Tensor, bins: int = 15) -> pd.DataFrame:
    """Predictions sorted into equal-width bins of confidence: columns count, confidence and accuracy (means, 0..1).

    probs: (N, C); labels: (N,). Empty bins have NaN means.
    """
    confidence, predicted = probs.cpu().double().max(dim=1)
    place = (confidence * bins).long().clamp(max=bins - 1)
    table = pd.DataFrame(
        {"bin": place, "confidence": confidence, "accuracy": (predicted == labels.cpu()).double()}
    )
    groups = table.groupby("bin")
    return (
        groups.mean()
        .assign(count=groups.size())
        .reindex(range(bins))
        .fillna({"count": 0})
        .astype({"count": int})
    )


def calibration_error_pct(probs: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error over equal-width bins of confidence, in percent (Guo et al. 2017, arXiv:1706.04599).

    probs: (N, C); labels: (N,). 0 means: of the predictions made with 80 % confidence, 80 % are right.
    """
    table = reliability(probs, labels, bins)
    gap = (table["accuracy"] - table["confidence"]).abs() * table["count"]
    return float(100.0 * gap.sum() / len(probs))


def class_imbalance(counts: Sequence[int]) -> float | None:
    """1 - normalised Shannon entropy of class counts (C,): 0 for equal counts, 1 where one class has them all.

    The entropy is divided by log C; a class without labels adds nothing to it. None for no labels at all, 0 where C is 1.
    """
    total, size = sum(counts), len(counts)
    if total == 0:
        return None
    excess = sum(
        n / total * math.log(n * size / total) for n in counts if n
    )  # log C - entropy: exactly 0 for equal counts
    return min(1.0, max(0.0, excess / math.log(size))) if size > 1 else 0.0


def imbalance_ratio(counts: Sequence[int]) -> float | None:
    """The largest class count over the smallest; None where a class has none, since the ratio has no finite value."""
    return max(counts) / min(counts) if len(counts) and min(counts) > 0 else None


def covering_radius(points: Tensor, centers: Tensor) -> float:
    """The largest distance of a point to its nearest centre: points (N, C), centers (L, C), Euclidean.

    0 for no points. Raises ValueError for no centres.
    """
    if len(centers) == 0:
        raise ValueError("no centres: a covering radius needs at least one labelled image")
    if len(points) == 0:
        return 0.0
    nearest = [
        torch.cdist(part.double(), centers.double()).amin(dim=1).max()
        for part in points.split(4096)
    ]
    return torch.stack(nearest).max().item()


def aulc_pct(accuracies_pct: Sequence[float]) -> float:
    """Area under the learning curve as the mean accuracy over the rounds, the initial one included, in percent."""
    if len(accuracies_pct) == 0:
        raise ValueError("no rounds: the area under a learning curve needs at least one accuracy")
    return float(np.mean(accuracies_pct))
