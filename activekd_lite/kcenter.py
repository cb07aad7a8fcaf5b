"""Exact k-center greedy (farthest-first traversal; Gonzalez 1985, Sener and Savarese arXiv:1708.00489): the engine of
`pcoreset` (probabilities, Euclidean) and `coreset` (features, cosine).

Each point keeps the squared distance to its nearest centre; a pick is the point where that is largest, and can only lower it.
So one pass over the points a pick is enough: (L + k) N C multiply-adds, where distances to all centres again at every pick
(as in the paper's code) would cost (k L + k^2 / 2) N C. Differences, squares and sums are float64 whatever comes in.
"""

import warnings

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

CHUNK_NUMBERS = 2**22  # numbers held in float64 at a time, 32 MiB


def k_center_greedy(
    points: Tensor | np.ndarray, centers: Tensor | np.ndarray, k: int, *, metric: str = "euclidean", progress: bool = False
) -> tuple[Tensor, Tensor]:
    """Pick k rows of `points`, each the farthest from `centers` and from the picks before it; ties: the lowest index.

    points: (N, C), centers: (L, C), any floating dtype and device, the same for both. With L = 0 every distance is infinite:
    the first pick is index 0. metric: "euclidean" or "cosine" (1 - cos; rows need not be normalised). Returns, on the CPU,
    indices (k,) int64 in pick order and radii (k,) float64: the largest distance of any point to its nearest centre before
    that pick. No point is picked twice; once the radius is 0 it warns "pool exhausted at pick t" (the picks before t were
    useful) and goes on with unpicked points in index order.

    Raises ValueError for NaN or infinite rows, for k outside 0..N, and for shapes that do not fit.

    >>> k_center_greedy(np.array([[0.0], [1.0], [5.0]]), np.array([[0.0]]), 2)
    (tensor([2, 1]), tensor([5., 1.], dtype=torch.float64))
    """
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric {metric!r} is unknown; choose 'euclidean' or 'cosine'")
    points, centers = _checked(points, "points", metric), _checked(centers, "centers", metric)
    if points.shape[1] != centers.shape[1]:
        raise ValueError(f"points {tuple(points.shape)} and centers {tuple(centers.shape)} differ in columns")
    if not 0 <= k <= len(points):
        raise ValueError(f"k = {k} picks asked of {len(points)} points; k must be in 0..{len(points)}")

    nearest = torch.full((len(points),), torch.inf, dtype=torch.float64, device=points.device)  # squared distances
    for center in tqdm(_rows(centers, metric), disable=not progress, desc="labelled centres"):
        _lower(nearest, points, center, metric)
    indices, squared = torch.empty(k, dtype=torch.int64), torch.empty(k, dtype=torch.float64)
    for pick in tqdm(range(k), disable=not progress, desc="k-center"):
        index = int(nearest.argmax())
        indices[pick], squared[pick] = index, nearest[index]
        _lower(nearest, points, _rows(points[index : index + 1], metric)[0], metric)
        nearest[index] = -1  # picked: never again
    if k and squared[-1] == 0:
        useful = int((squared > 0).sum())
        warnings.warn(
            f"pool exhausted at pick {useful} of {k}: every point left equals a centre (radius 0); unpicked points follow "
            "in index order",
            stacklevel=2,
        )
    return indices, squared / 2 if metric == "cosine" else squared.sqrt()


def _lower(nearest: Tensor, points: Tensor, center: Tensor, metric: str) -> None:
    """nearest (N,) after one more centre (C,), in place. A picked point, marked by -1, stays at -1."""
    step = max(1, CHUNK_NUMBERS // points.shape[1])
    for start in range(0, len(points), step):
        part = slice(start, start + step)
        squares = (_rows(points[part], metric) - center).square_()
        # numpy's sum of a row is the same number whatever the rows beside it; torch's is not promised to be
        distance = torch.from_numpy(squares.numpy().sum(axis=1)) if squares.device.type == "cpu" else squares.sum(dim=1)
        torch.minimum(nearest[part], distance, out=nearest[part])


def _rows(x: Tensor, metric: str) -> Tensor:
    """float64 rows; for cosine of unit norm, whose squared Euclidean distance is 2 (1 - cos)."""
    x = x.double()
    return x / x.norm(dim=1, keepdim=True) if metric == "cosine" else x


def _checked(x: Tensor | np.ndarray, name: str, metric: str) -> Tensor:
    x = torch.as_tensor(x)
    if x.device.type == "mps":
        x = x.cpu()  # MPS has no float64
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"{name} are {tuple(x.shape)} {x.dtype}; a 2-D floating-point array is needed")
    bad, what = ~torch.isfinite(x).all(dim=1), "NaN or infinite values"
    if metric == "cosine" and not bad.any():
        bad, what = (x == 0).all(dim=1), "only zeros, so no direction for a cosine"
    if bad.any():
        first = torch.nonzero(bad).flatten()[:5].tolist()
        raise ValueError(f"{name}: {int(bad.sum())} of {len(x)} rows hold {what}, first {first}")
    return x
