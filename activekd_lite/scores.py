"""The scores of a round: accuracy, calibration, class balance, coverage, clusters, its query."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.strategies.uncertainty import entropy
from activekd_lite.utils.distances import CHUNK, nearest_distances, nearest_rows

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


def covering_distances(points: Tensor, centers: Tensor) -> dict[str, float]:
    """Return `covering_radius` and `mean_nearest_distance`, from the same distances."""
    if len(centers) == 0:
        raise ValueError("no centres: a covering radius needs at least one labelled image")
    nearest = nearest_distances(points, centers) if len(points) else torch.zeros(1)
    return {
        "covering_radius": nearest.max().item(),
        "mean_nearest_distance": nearest.mean().item(),
    }


def covering_radius(points: Tensor, centers: Tensor) -> float:
    """Return the largest Euclidean distance of points (N, C) to their nearest of centers (L, C).

    0 for no points. Raises ValueError for no centres.
    """
    return covering_distances(points, centers)["covering_radius"]


def nearest_neighbor_loss_pct(
    probs: Tensor, labels: Tensor, labeled_probs: Tensor, labeled_labels: Tensor
) -> float:
    """Return the error in percent of predicting each image's class by its nearest labelled image.

    Nearest in probability space: probs (M, C) and labels (M,) of the images to predict,
    labeled_probs (L, C) and labeled_labels (L,) of the labelled ones. arXiv:2506.00910 draws a
    nearest-neighbour loss whose formula was not at hand: this 0-1 loss was chosen here.
    """
    nearest = nearest_rows(probs, labeled_probs).cpu()
    return 100.0 * (labeled_labels.cpu()[nearest] != labels.cpu()).double().mean().item()


def mean_nearest_distance(points: Tensor, centers: Tensor) -> float:
    """Return the mean Euclidean distance of points (N, C) to their nearest of centers (L, C).

    The mean where `covering_radius` is the maximum: the other way to read the paper's loss.
    0 for no points. Raises ValueError for no centres.
    """
    return covering_distances(points, centers)["mean_nearest_distance"]


def cluster_purity_pct(probs: Tensor, labels: Tensor, iterations: int = 20) -> float:
    """Return the percentage of images that are of the most frequent class in their cluster.

    probs: (M, C); labels: (M,). The clusters are those of k-means with C centres, started at the
    corners of the simplex, so nothing is drawn at random; a centre that loses all its images stays
    where it was. arXiv:2506.00910 draws a cluster purity whose formula was not at hand.
    """
    points, num_classes = probs.double(), probs.shape[1]
    centers = torch.eye(num_classes, dtype=torch.float64, device=points.device)
    groups = points.argmax(dim=1)
    for _ in range(iterations):
        counts, sums = torch.zeros(num_classes, 1).to(centers), torch.zeros_like(centers)
        for group, part in zip(groups.split(CHUNK), points.split(CHUNK), strict=True):
            member = F.one_hot(group, num_classes).double()  # index_add_ varies on a GPU
            counts, sums = counts + member.sum(dim=0)[:, None], sums + member.T @ part
        centers = torch.where(counts > 0, sums / counts.clamp(min=1), centers)
        moved = nearest_rows(points, centers)
        if torch.equal(moved, groups):
            break
        groups = moved
    cells = groups.cpu() * num_classes + labels.cpu()
    table = torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)
    return 100.0 * table.amax(dim=1).sum().item() / len(labels)


def query_scores(probs: Tensor, features: Tensor, query: Tensor) -> dict:
    """Describe a query (Q,) of a pool by three numbers; class balance needs its labels.

    query_uncertainty
        Mean Shannon entropy of the chosen rows of probs (N, C), over log C: 0 to 1.
    query_feature_diversity, query_probability_diversity
        Mean distance of a chosen image to the nearest other one, over the root mean square distance
        of two random images of the pool: among features (N, F) scaled to norm 1, and among probs.
        None for fewer than two images, and for a pool of equal images.

    arXiv:2506.00910 names these diagnostics; the formulas of its code were not at hand.
    """
    if len(query) == 0:
        return dict.fromkeys(QUERY_SCORES)
    values = (
        entropy(probs[query].double()).mean().item() / math.log(max(2, probs.shape[1])),
        *(_diversity(points, query) for points in (F.normalize(features.float(), dim=1), probs)),
    )
    return dict(zip(QUERY_SCORES, values, strict=True))


QUERY_SCORES = ("query_uncertainty", "query_feature_diversity", "query_probability_diversity")


def _diversity(points: Tensor, query: Tensor) -> float | None:
    points = points.double()
    spread = math.sqrt(2 * points.var(dim=0, correction=0).sum().item())
    if len(query) < 2 or spread < 1e-9:
        return None
    distances = torch.cdist(points[query], points[query])
    return distances.fill_diagonal_(torch.inf).amin(dim=1).mean().item() / spread


def aulc_pct(accuracies_pct: Sequence[float]) -> float:
    """Return the area under the learning curve: the mean accuracy over all rounds, in percent."""
    if len(accuracies_pct) == 0:
        raise ValueError("no rounds: the area under a learning curve needs at least one accuracy")
    return float(np.mean(accuracies_pct))
