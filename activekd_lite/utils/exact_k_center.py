"""The exact and fast engine behind `kcenter.py`, for Euclidean and cosine distance.

Each pick is the point farthest from its nearest centre, and becomes a centre itself. New centres
only lower distances, so an outdated distance is an upper bound, and a point whose bound is below
the current radius cannot be the next pick: nothing is computed for it (lazy greedy; Minoux 1978).
VLM probabilities are clustered, so this skips nearly every point.

One pass over the labelled centres gives every point a bound. Then each turn
1. lowers the REACH largest bounds, by a matrix product with the centres that these points lack;
2. settles the FRONT largest of them, i.e. replaces each by the exact distance;
3. picks from this front by a running minimum, as long as no point outside it can be farther.
If more points tie than fit in the front, a turn yields no pick, and the next lowers and settles
twice as many. If turns yield so few picks that searching the bounds costs more than it saves
(few columns, no clusters; see SWEEP), the rest is picked by a running minimum over all points.

Floating point. A distance is sum((x - c) ** 2) in float64, summed by numpy row by row. It alone
decides the picks. The matrix product |x|^2 + |c|^2 - 2 x.c only gives bounds. With C columns, and
u half the spacing of its numbers at 1, its error is at most
- (C + 3) u (|x| + |c|)^2, whatever the order of summation;
- as much again for the distance itself, with the u of float64;
- (C + 4) u |x| for a row that was rounded or normalised.
The sum is below 16 (C + 8) (u (|x|^2 + |c|^2) + the smallest normal number), the margin by which
bounds are raised. After an overflow the bound is infinite. Products are computed in float32 if
all squares fit its range, else in float64.
"""

import math
import warnings

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

FRONT, REACH = 512, 2048  # the fastest powers of two
TRIED, SWEEP = 8, 20  # sweep if, after TRIED turns, a turn yields fewer than SWEEP / C picks
CHUNK_NUMBERS = 2**19  # numbers in a buffer: about the size of a CPU cache

Matrix = Tensor | np.ndarray


def greedy(
    points: Matrix, centers: Matrix, k: int, metric: str = "euclidean", *, progress: bool = False
) -> tuple[Tensor, Tensor]:
    """Greedy k-center; see `kcenter.k_center_greedy`.

    The picks equal those of a float64 brute force for every input and on every device.
    Memory beyond the inputs: 2 N + (L + k) C numbers of 8 bytes.
    """
    points, points_fit = _checked(points, "points", metric)
    centers, centers_fit = _checked(centers, "centers", metric)
    if points.shape[1] != centers.shape[1]:
        raise ValueError(
            f"points {tuple(points.shape)} and centers {tuple(centers.shape)} differ in columns"
        )
    dtype = _product_dtype(points, points_fit and centers_fit)
    nearest = _Nearest(points, centers, k, metric, dtype)
    return _greedy(nearest, torch.empty(0, dtype=torch.int64), k, progress)


def greedy_in_pool(points: Tensor, labeled: Tensor, k: int, metric: str = "euclidean") -> Tensor:
    """Greedy k-center in a pool; see `kcenter.k_center_in_pool`. The points are not copied."""
    points, fits = _checked(points, "points", metric)
    centers = points[labeled.to(points.device)]
    nearest = _Nearest(points, centers, k, metric, _product_dtype(points, fits))
    return _greedy(nearest, labeled, k)[0]


def check_count(k: int, left: int) -> None:
    """Raise ValueError unless k of the `left` remaining points can be picked."""
    if not 0 <= k <= left:
        raise ValueError(f"k = {k} picks from {left} points; k must be in 0..{left}")


def _greedy(
    nearest: "_Nearest", taken: Tensor, k: int, progress: bool = False
) -> tuple[Tensor, Tensor]:
    """Picks (k,) and radii (k,) among the points that are not in `taken` (T,)."""
    check_count(k, len(nearest.points) - len(taken))
    nearest.start(taken, progress)
    indices, squared, reach, turns = [], [], REACH, 0
    with tqdm(total=k, disable=not progress, desc="k-center") as bar:
        while len(indices) < k:
            if turns >= TRIED and len(indices) * nearest.points.shape[1] < SWEEP * turns:
                picked, distances = nearest.sweep(k - len(indices), bar)
            else:
                picked, distances = nearest.turn(reach, k - len(indices))
                bar.update(len(picked))
            indices += picked
            squared += distances
            reach, turns = REACH if picked else 2 * reach, turns + 1
    squared = np.array(squared)
    if k and squared[-1] == 0:
        warnings.warn(
            f"pool exhausted at pick {int((squared > 0).sum())} of {k}: every remaining point "
            "equals a centre (radius 0); the remaining picks are in index order",
            stacklevel=3,
        )
    radii = squared / 2 if nearest.metric == "cosine" else np.sqrt(squared)
    return torch.tensor(indices, dtype=torch.int64), torch.from_numpy(radii)


class _Nearest:
    """The current centres, and for each point a bound: the state of the algorithm.

    bound: (N,) upper bounds of the squared distances to the nearest centre; -1 for picked points.
    seen: (N,) how many of the centres each bound accounts for.
    """

    def __init__(self, points: Tensor, centers: Tensor, k: int, metric: str, dtype: torch.dtype):
        self.points, self.metric, self.dtype = points, metric, dtype  # dtype of products
        self.count = len(centers)
        self.centers = np.empty((len(centers) + max(k, 0), points.shape[1]))  # float64
        self.centers[: self.count] = _rows(centers.cpu(), metric).numpy()
        self.buffer = torch.empty(CHUNK_NUMBERS, dtype=self.dtype, device=points.device)
        self.bound = np.full(len(points), np.inf)
        self.seen = np.full(len(points), self.count)

    def start(self, taken: Tensor, progress: bool) -> None:
        """Bound the distances of all points to the labelled centres; exclude `taken` (T,)."""
        step = max(1, CHUNK_NUMBERS // self.points.shape[1])
        starts = range(0, len(self.points), step)
        for i in tqdm(starts, disable=not progress, desc="labelled centres"):
            self.bound[i : i + step] = self._least(self.points[i : i + step], 0)
        self.bound[taken.cpu().numpy()] = -1

    def turn(self, reach: int, most: int) -> tuple[list[int], list[float]]:
        """The next picks, at most `most`, and their squared distances.

        Empty if a longer reach is needed.
        """
        rows, outside = _largest(self.bound, reach)
        self.lower(rows)
        if reach > REACH:
            self.settle(rows)
        front, beside = _largest(self.bound[rows], FRONT)
        rest = max(outside, (beside[0], -rows[-beside[1]]))
        self.settle(rows[front])
        return self._pick(rows[front], rest, most)

    def lower(self, rows: np.ndarray) -> None:
        """Update the bounds of the points `rows` (n,) to all current centres."""
        seen = self.seen[rows]
        for first in np.unique(seen[seen < self.count]):
            for part in self._parts(rows[seen == first]):
                self.bound[part] = np.minimum(
                    self.bound[part], self._least(self._take(part), first)
                )
        self.seen[rows] = self.count

    def settle(self, rows: np.ndarray) -> None:
        """Make the bounds of the points `rows` (n,) exact."""
        for part in self._parts(rows):
            bound = self.bound[part]
            exact = self._exact(part, bound)
            if (exact > np.where(bound < 0, np.inf, bound)).any():
                raise RuntimeError(
                    f"products in {self.dtype} are less exact than the type: torch rounds factors"
                )
            self.bound[part] = np.where(bound < 0, bound, exact)

    def _exact(self, part: np.ndarray, bound: np.ndarray) -> np.ndarray:
        """Squared distances (n,) to the nearest centre, comparing only centres within `bound`."""
        x, exact = _rows(self._take(part).cpu(), self.metric), np.full(len(part), np.inf)
        rounded, step = x.to(self.dtype), max(1, CHUNK_NUMBERS // len(part))
        xx = rounded.norm(dim=1).square()
        for start in range(0, self.count, step):
            c = torch.from_numpy(self.centers[start : min(start + step, self.count)])
            products, low, _ = _products(rounded, xx, c.to(self.dtype))
            # the margin covers this rounding, too
            least = (torch.from_numpy(bound) - low).to(self.dtype)
            row, column = torch.nonzero(~(products > least[:, None]), as_tuple=True)
            for i, j in zip(row.split(len(part)), column.split(len(part)), strict=True):
                np.minimum.at(exact, i.numpy(), _squares(x[i] - c[j]).numpy())
        return exact

    def sweep(self, most: int, bar: tqdm) -> tuple[list[int], list[float]]:
        """`most` picks by a running minimum over all points, and their squared distances."""
        self.settle(np.arange(len(self.points)))
        points = self.points.cpu()
        step = max(1, CHUNK_NUMBERS // self.points.shape[1])
        picked, distances = [], []
        for _ in range(most):
            best = int(self.bound.argmax())
            picked.append(best)
            distances.append(float(self.bound[best]))
            center = _rows(points[best : best + 1], self.metric)
            for i in range(0, len(points), step):
                bound, x = self.bound[i : i + step], _rows(points[i : i + step], self.metric)
                np.minimum(bound, _squares(x - center).numpy(), out=bound)
            self.bound[best] = -1
            bar.update()
        return picked, distances

    def _pick(
        self, front: np.ndarray, rest: tuple[float, int], most: int
    ) -> tuple[list[int], list[float]]:
        """Pick from the settled points `front` (n,) until a point outside them may come first.

        rest: (bound, -index) of the best point outside.
        """
        x, distance = _rows(self._take(front).cpu(), self.metric), self.bound[front]
        rounded, points = x.to(self.dtype), x.numpy()
        xx = rounded.norm(dim=1).square()
        low = xx - _margin(xx, xx, x.shape[1])
        picked, distances = [], []
        for _ in range(most):
            best = int(distance.argmax())
            if (distance[best], -front[best]) < rest:
                break
            picked.append(int(front[best]))
            distances.append(float(distance[best]))
            self.centers[self.count] = points[best]
            self.count += 1
            products = torch.addmv(low + xx[best], rounded, rounded[best], alpha=-2).numpy()
            near = (~(products > distance)).nonzero()[0]
            exact = _squares(torch.from_numpy(points[near] - points[best])).numpy()
            distance[near] = np.minimum(distance[near], exact)
            distance[best] = -1
        self.bound[front], self.seen[front] = distance, self.count
        return picked, distances

    def _least(self, x: Tensor, first: int) -> np.ndarray:
        """Bounds (n,) of the points x (n, C) for the centres from number `first` on."""
        x = (_rows(x, self.metric) if self.dtype == torch.float64 else x).to(self.dtype)
        if self.metric == "cosine" and self.dtype == torch.float32:
            x = x / x.norm(dim=1, keepdim=True)
        least = torch.full((len(x),), torch.inf, dtype=self.dtype, device=x.device)
        step = max(1, CHUNK_NUMBERS // len(x))
        xx = x.norm(dim=1).square()
        for start in range(first, self.count, step):
            c = torch.from_numpy(self.centers[start : min(start + step, self.count)]).to(x)
            products, _, high = _products(x, xx, c, self.buffer)
            bound = products.amin(dim=1) + high
            least = torch.minimum(least, bound.nan_to_num(nan=torch.inf, posinf=torch.inf))
        return least.double().cpu().numpy()

    def _take(self, rows: np.ndarray) -> Tensor:
        return self.points[torch.from_numpy(rows).to(self.points.device)]

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """`rows` in parts whose points fill a buffer."""
        step = max(1, CHUNK_NUMBERS // self.points.shape[1])
        return [rows[i : i + step] for i in range(0, len(rows), step)]


def _largest(bound: np.ndarray, size: int) -> tuple[np.ndarray, tuple[float, int]]:
    """Indices of the `size` largest bounds, ascending; ties go to the lowest index.

    Also returns (bound, -index) of the best point outside them.
    """
    if size >= len(bound):
        return np.arange(len(bound)), (-np.inf, 0)
    floor = np.partition(bound, -size - 1)[-size - 1]
    above, equal = np.flatnonzero(bound > floor), np.flatnonzero(bound == floor)
    fill = size - len(above)
    return np.sort(np.concatenate([above, equal[:fill]])), (floor, -equal[fill])


def _products(
    x: Tensor, xx: Tensor, c: Tensor, buffer: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Bounds of squared distances: products (n, m), low (n,) and high (n,).

    The squared distance of x[i] to c[j] is within products[i, j] + low[i] .. + high[i].
    xx: |x|^2 of the rows.
    """
    cc = c.norm(dim=1).square()
    margin = _margin(xx, cc, x.shape[1])
    out = None if buffer is None else buffer[: len(x) * len(c)].view(len(x), len(c))
    return torch.addmm(cc, x, c.T, alpha=-2, out=out), xx - margin, xx + margin


def _margin(xx: Tensor, cc: Tensor, columns: int) -> Tensor:
    """(n,): the largest error of a product, derived at the top of this file."""
    kind = torch.finfo(xx.dtype)
    return 8 * (columns + 8) * (kind.eps * (xx + cc.max()) + kind.tiny)


def _squares(x: Tensor) -> Tensor:
    """Sums of squares of the rows.

    On the CPU by numpy, whose sum of a row does not depend on the other rows.
    """
    if x.device.type != "cpu":
        return x.square().sum(dim=1)
    with np.errstate(over="ignore"):  # an infinite distance is still the largest
        return torch.from_numpy(np.square(x.numpy()).sum(axis=1))


def _rows(x: Tensor, metric: str) -> Tensor:
    """float64 rows; for cosine of unit norm, whose squared Euclidean distance is 2 (1 - cos)."""
    x = x.double().contiguous()  # numpy sums rows of another layout in another order
    if metric == "cosine":
        x = x / x.abs().amax(dim=1, keepdim=True)  # no square overflows
        x = x / _squares(x).sqrt()[:, None]
    return x


def _product_dtype(points: Tensor, fits: bool) -> torch.dtype:
    """float32 on the CPU if no square leaves its range and torch does not round factors."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)  # torch 2.9 and later
    if matmul:
        exact = matmul.fp32_precision in ("none", "ieee")
    else:
        exact = torch.get_float32_matmul_precision() == "highest"
    return torch.float32 if exact and fits and points.device.type == "cpu" else torch.float64


def _norms(x: Tensor) -> Tensor:
    """|x| of the rows (N,) in float32."""
    parts = x.split(max(1, CHUNK_NUMBERS // x.shape[1]))
    return torch.cat([part.float().norm(dim=1) for part in parts])


def _checked(x: Matrix, name: str, metric: str) -> tuple[Tensor, bool]:
    """The rows, and whether their squares fit the range of float32."""
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric {metric!r} is unknown; choose 'euclidean' or 'cosine'")
    x = torch.as_tensor(x).detach()
    if x.device.type == "mps":
        x = x.cpu()  # MPS has no float64
    if x.ndim != 2 or x.shape[1] == 0 or not x.is_floating_point():
        shape = tuple(x.shape)
        raise ValueError(f"{name} are {shape} {x.dtype}; a 2-D array of floats is needed")
    if len(x) == 0:
        return x, True
    largest = max(abs(float(v)) for v in x.aminmax())
    if not math.isfinite(largest):
        _refuse_rows(~torch.isfinite(x).all(dim=1), name, "NaN or infinite values")
    smallest = 1.0
    if metric == "cosine" and (smallest := float(_norms(x).min())) == 0:
        _refuse_rows((x == 0).all(dim=1), name, "only zeros, so no direction for a cosine")
    return x, largest < 1e15 and smallest > 1e-15


def _refuse_rows(bad: Tensor, name: str, content: str) -> None:
    if bad.any():
        first = torch.nonzero(bad).flatten()[:5].tolist()
        count = int(bad.sum())
        raise ValueError(f"{name}: {count} of {len(bad)} rows hold {content}, first {first}")
