"""Greedy k-center (farthest-first traversal; Gonzalez 1985): the selection of PCoreSet and CoreSet.

Each pick is the point farthest from its nearest centre, and becomes a centre itself. "euclidean"
and "cosine" go to an exact and much faster engine, `utils/exact_k_center.py`; any other metric is a
function, and `_greedy` below is the whole algorithm.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from activekd_lite.utils import exact_k_center

# distances (N,) float from points (N, C) to one centre (C,)
Metric = str | Callable[[Tensor, Tensor], Tensor]


def k_center_greedy(
    points: Tensor | np.ndarray,
    centers: Tensor | np.ndarray,
    k: int,
    *,
    metric: Metric = "euclidean",
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Pick k of the points, each the farthest from the centres and the picks before it.

    Parameters
    ----------
    points, centers
        (N, C) and (L, C), any floating dtype and device. With L = 0 the first pick is index 0.
    metric
        "euclidean", "cosine" (1 - cos; rows need not be normalised), or a function.

    Returns
    -------
    indices, radii
        (k,) int64 in pick order, and (k,) float64, on the CPU. A radius is the largest distance of
        any point to its nearest centre before that pick. Ties go to the lowest index; once the
        radius is 0, points are picked in index order ("euclidean" and "cosine" warn of it).

    Raises
    ------
    ValueError
        For NaN or infinite rows, k outside 0..N, and shapes that do not fit.

    Examples
    --------
    >>> k_center_greedy(np.array([[0.0], [1.0], [5.0]]), np.array([[0.0]]), 2)
    (tensor([2, 1]), tensor([5., 1.], dtype=torch.float64))
    """
    if not callable(metric):
        return exact_k_center.greedy(points, centers, k, metric, progress=progress)
    return _greedy(torch.as_tensor(points), torch.as_tensor(centers), [], k, metric)


def k_center_in_pool(
    points: Tensor, labeled: Tensor, k: int, *, metric: Metric = "euclidean"
) -> Tensor:
    """Pick k unlabelled rows of points (N, C), with the rows `labeled` (L,) as the centres.

    Returns (k,) int64 rows of `points`. Raises ValueError if nothing is labelled.
    """
    if len(labeled) == 0:
        raise ValueError("nothing is labelled, and k-center starts from labelled images")
    if not callable(metric):
        return exact_k_center.greedy_in_pool(points, labeled, k, metric)
    return _greedy(points, points[labeled.to(points.device)], labeled.tolist(), k, metric)[0]


def _greedy(
    points: Tensor, centers: Tensor, taken: list[int], k: int, metric: Callable
) -> tuple[Tensor, Tensor]:
    """Pick k points that are not in `taken`, by a running minimum of the distances."""
    exact_k_center.check_count(k, len(points) - len(taken))
    nearest = torch.full((len(points),), torch.inf, dtype=torch.float64)
    for center in centers:
        nearest = torch.minimum(nearest, metric(points, center).double().cpu())
    if nearest.isnan().any():
        raise ValueError(f"the metric is NaN for point {int(nearest.isnan().float().argmax())}")
    nearest[taken] = -1
    picks, radii = [], []
    for _ in range(k):
        pick = int(nearest.argmax())
        picks.append(pick)
        radii.append(float(nearest[pick]))
        nearest = torch.minimum(nearest, metric(points, points[pick]).double().cpu())
        nearest[taken + picks] = -1  # never again
    return torch.tensor(picks, dtype=torch.int64), torch.tensor(radii, dtype=torch.float64)
