"""Euclidean distances of points to their nearest centre, in float64."""

from collections.abc import Sequence

import torch
from torch import Tensor

CHUNK = 4096  # points at a time


def nearest_distances(points: Tensor, centers: Tensor) -> Tensor:
    """Return the distance (N,) of each of points (N, C) to the nearest of centers (L, C)."""
    centers = centers.double()
    parts = [torch.cdist(part.double(), centers).amin(dim=1) for part in points.split(CHUNK)]
    return torch.cat(parts)


def nearest_rows(points: Tensor, centers: Tensor) -> Tensor:
    """Return the row (N,) of centers (L, C) that is nearest to each of points (N, C)."""
    centers = centers.double()
    parts = [torch.cdist(part.double(), centers).argmin(dim=1) for part in points.split(CHUNK)]
    return torch.cat(parts)


def nearest_distances_by_pick(
    points: Tensor, labeled: Sequence[int] | Tensor, picks: Sequence[int]
) -> Tensor:
    """Return the distances (Q + 1, N) to the nearest centre after 0, 1, ... Q picks.

    The centres are the rows `labeled`, and then the rows `picks` of points (N, C).
    """
    points = points.double()
    nearest = [nearest_distances(points, points[labeled])]
    for pick in picks:
        nearest.append(torch.minimum(nearest[-1], (points - points[pick]).norm(dim=1)))
    return torch.stack(nearest)
