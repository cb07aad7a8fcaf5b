"""The exact engine behind `kcenter.py`, for Euclidean and cosine distance.

A pick is the point farthest from its nearest centre; then it is a centre itself. Centres only ever bring distances down, so a
distance that is out of date is still an upper bound, and a point whose bound lies under the current radius cannot be the next
pick: nothing needs to be computed for it (lazy greedy; Minoux 1978). VLM probabilities are clustered, so that is nearly every
point. After one pass over the labelled centres, each turn
1. lowers the REACH largest bounds, by a matrix product with the centres that are new to these points;
2. settles the FRONT largest bounds of those: exact distances to the nearest centre;
3. picks from the front, by a running minimum over it alone, as long as nobody outside can be farther.
A turn without a pick (more points tie than a front holds) is followed by one that lowers and settles twice as many. Where turns
find so few picks that looking at every bound costs more than the distances saved (SWEEP; few columns, no clusters), the rest
is picked by a running minimum over all points.

Floating point. The distance is sum((x - c) ** 2) in float64, summed by numpy row by row: it alone decides picks. A product's
|x|^2 + |c|^2 - 2 x.c, in whatever order it is summed, is off by at most (C + 3) u (|x| + |c|)^2, where u is half the spacing
of its numbers at 1; the distance itself by as much in float64; and a row that was rounded or brought to unit norm by
(C + 4) u |x|. All of that stays under the margin 16 (C + 8) (u (|x|^2 + |c|^2) + the smallest normal number), by which
bounds are raised; what overflows has the bound infinity. Products are in float32 where no square leaves it, else in float64.
"""

import math
import warnings

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

FRONT, REACH = 512, 2048  # the fastest of the powers of two that were tried
TRIED, SWEEP = 8, 20  # after so many turns, less than SWEEP / C picks a turn do not pay
CHUNK_NUMBERS = 2**19  # numbers in a buffer: about what a cache holds


def greedy(
    points: Tensor | np.ndarray,
    centers: Tensor | np.ndarray,
    k: int,
    metric: str = "euclidean",
    *,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """See `kcenter.k_center_greedy`. The picks are those of a brute force in float64 for every input, on every device.

    Memory beyond the inputs: 2 N + (L + k) C numbers of 8 bytes.
    """
    (points, small), (centers, small_too) = (
        _checked(points, "points", metric),
        _checked(centers, "centers", metric),
    )
    if points.shape[1] != centers.shape[1]:
        raise ValueError(
            f"points {tuple(points.shape)} and centers {tuple(centers.shape)} differ in columns"
        )
    nothing, dtype = torch.empty(0, dtype=torch.int64), _product_dtype(points, small and small_too)
    return _greedy(_Nearest(points, centers, k, metric, dtype), nothing, k, progress)


def greedy_in_pool(points: Tensor, labeled: Tensor, k: int, metric: str = "euclidean") -> Tensor:
    """See `kcenter.k_center_in_pool`; the points are not copied."""
    points, small = _checked(points, "points", metric)
    centers, dtype = points[labeled.to(points.device)], _product_dtype(points, small)
    return _greedy(_Nearest(points, centers, k, metric, dtype), labeled, k)[0]


def check_count(k: int, left: int) -> None:
    """Raise ValueError for a number of picks that `left` points cannot give."""
    if not 0 <= k <= left:
        raise ValueError(f"k = {k} picks asked of {left} points; k must be in 0..{left}")


def _greedy(
    nearest: "_Nearest", taken: Tensor, k: int, progress: bool = False
) -> tuple[Tensor, Tensor]:
    """Picks (k,) and radii (k,) from the points that are not in `taken` (T,)."""
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
        useful = int((squared > 0).sum())
        warnings.warn(
            f"pool exhausted at pick {useful} of {k}: every point left equals a centre (radius 0); unpicked points follow "
            "in index order",
            stacklevel=3,
        )
    radii = squared / 2 if nearest.metric == "cosine" else np.sqrt(squared)
    return torch.tensor(indices, dtype=torch.int64), torch.from_numpy(radii)


class _Nearest:
    """The centres so far, and for each point an upper bound of the squared distance to the nearest of them; -1: picked."""

    def __init__(self, points: Tensor, centers: Tensor, k: int, metric: str, dtype: torch.dtype):
        self.points, self.metric, self.dtype = points, metric, dtype  # of products
        self.count = len(centers)
        self.centers = np.empty((len(centers) + max(k, 0), points.shape[1]))  # float64
        self.centers[: self.count] = _rows(centers.cpu(), metric)
        self.buffer = torch.empty(CHUNK_NUMBERS, dtype=self.dtype, device=points.device)
        self.bound = np.full(len(points), np.inf)
        self.seen = np.full(
            len(points), self.count
        )  # the bound holds for the first so many centres

    def start(self, taken: Tensor, progress: bool) -> None:
        """The bounds of all points with the labelled centres; those in `taken` (T,) are out."""
        step = max(1, CHUNK_NUMBERS // self.points.shape[1])
        for i in tqdm(
            range(0, len(self.points), step), disable=not progress, desc="labelled centres"
        ):
            self.bound[i : i + step] = self._least(self.points[i : i + step], 0)
        self.bound[taken.cpu().numpy()] = -1

    def turn(self, reach: int, most: int) -> tuple[list[int], list[float]]:
        """The next picks, `most` at most, and their squared distances; none where a turn of longer reach is needed."""
        rows, outside = _largest(self.bound, reach)
        self.lower(rows)
        if reach > REACH:
            self.settle(rows)
        front, beside = _largest(self.bound[rows], FRONT)
        rest = max(outside, (beside[0], -rows[-beside[1]]))
        self.settle(rows[front])
        return self._pick(rows[front], rest, most)

    def lower(self, rows: np.ndarray) -> None:
        """Bring the bounds of the points `rows` (n,) up to the newest centre."""
        seen = self.seen[rows]
        for first in np.unique(seen[seen < self.count]):
            for part in self._parts(rows[seen == first]):
                self.bound[part] = np.minimum(
                    self.bound[part], self._least(self._take(part), first)
                )
        self.seen[rows] = self.count

    def settle(self, rows: np.ndarray) -> None:
        """Make the bounds of the points `rows` (n,) exact: only centres within the bound need a distance."""
        for part in self._parts(rows):
            x, bound, exact = (
                _rows(self._take(part).cpu(), self.metric),
                self.bound[part],
                np.full(len(part), np.inf),
            )
            rounded, step = x.to(self.dtype), max(1, CHUNK_NUMBERS // len(part))
            xx = rounded.norm(dim=1).square()
            for start in range(0, self.count, step):
                c = torch.from_numpy(self.centers[start : min(start + step, self.count)])
                products, low, _ = _products(rounded, xx, c.to(self.dtype))
                least = (torch.from_numpy(bound) - low).to(
                    self.dtype
                )  # the margin has room for this rounding, too
                row, column = torch.nonzero(~(products > least[:, None]), as_tuple=True)
                for i, j in zip(row.split(len(part)), column.split(len(part)), strict=True):
                    np.minimum.at(exact, i.numpy(), _squares(x[i] - c[j]).numpy())
            if (exact > np.where(bound < 0, np.inf, bound)).any():
                raise RuntimeError(
                    f"products of {self.dtype} are less exact than their type: torch rounds their factors"
                )
            self.bound[part] = np.where(bound < 0, bound, exact)

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
            self.bound[best] = -1  # picked: never again
            bar.update()
        return picked, distances

    def _pick(
        self, front: np.ndarray, rest: tuple[float, int], most: int
    ) -> tuple[list[int], list[float]]:
        """Pick from the settled points `front` (n,) until one outside, (bound, -index) at best, may come first."""
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
            distance[near] = np.minimum(
                distance[near], _squares(torch.from_numpy(points[near] - points[best])).numpy()
            )
            distance[best] = -1  # picked: never again
        self.bound[front], self.seen[front] = distance, self.count
        return picked, distances

    def _least(self, x: Tensor, first: int) -> np.ndarray:
        """Upper bounds (n,) of the squared distances of points x (n, C) to the nearest of the centres from `first` on."""
        x = (_rows(x, self.metric) if self.dtype == torch.float64 else x).to(self.dtype)
        if self.metric == "cosine" and self.dtype == torch.float32:
            x = x / x.norm(dim=1, keepdim=True)
        least = torch.full((len(x),), torch.inf, dtype=self.dtype, device=x.device)
        step = max(1, CHUNK_NUMBERS // len(x))
        xx = x.norm(dim=1).square()
        for start in range(first, self.count, step):
            c = torch.from_numpy(self.centers[start : min(start + step, self.count)]).to(x)
            products, _, high = _products(x, xx, c, self.buffer)
            least = torch.minimum(
                least, (products.amin(dim=1) + high).nan_to_num(nan=torch.inf, posinf=torch.inf)
            )
        return least.double().cpu().numpy()

    def _take(self, rows: np.ndarray) -> Tensor:
        return self.points[torch.from_numpy(rows).to(self.points.device)]

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """`rows` in parts whose points fill a buffer."""
        step = max(1, CHUNK_NUMBERS // self.points.shape[1])
        return [rows[i : i + step] for i in range(0, len(rows), step)]


def _largest(bound: np.ndarray, size: int) -> tuple[np.ndarray, tuple[float, int]]:
    """The `size` points with the largest bounds (of equal ones the lowest indices), ascending, and the (bound, -index) of the
    best point outside them."""
    if size >= len(bound):
        return np.arange(len(bound)), (-np.inf, 0)
    floor = np.partition(bound, -size - 1)[-size - 1]
    above, equal = np.flatnonzero(bound > floor), np.flatnonzero(bound == floor)
    fill = size - len(above)
    return np.sort(np.concatenate([above, equal[:fill]])), (floor, -equal[fill])


def _products(
    x: Tensor, xx: Tensor, c: Tensor, buffer: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(products (n, m), low (n,), high (n,)): the squared distance of row i of x to row j of c is from products[i, j] + low[i]
    to products[i, j] + high[i]. xx: |x|^2 of the rows."""
    cc = c.norm(dim=1).square()
    margin = _margin(xx, cc, x.shape[1])
    out = None if buffer is None else buffer[: len(x) * len(c)].view(len(x), len(c))
    return torch.addmm(cc, x, c.T, alpha=-2, out=out), xx - margin, xx + margin


def _margin(xx: Tensor, cc: Tensor, columns: int) -> Tensor:
    """(n,): what a product may be off by, see the head of this file."""
    kind = torch.finfo(xx.dtype)
    return 8 * (columns + 8) * (kind.eps * (xx + cc.max()) + kind.tiny)


def _squares(x: Tensor) -> Tensor:
    """Sums of squares of the rows. On the CPU by numpy, whose sum of a row is the same number whatever the rows beside it."""
    if x.device.type != "cpu":
        return x.square().sum(dim=1)
    with np.errstate(over="ignore"):  # an infinite distance is one that is larger than all others
        return torch.from_numpy(np.square(x.numpy()).sum(axis=1))


def _rows(x: Tensor, metric: str) -> Tensor:
    """float64 rows; for cosine of unit norm, whose squared Euclidean distance is 2 (1 - cos)."""
    x = x.double().contiguous()  # numpy sums rows of another layout in another order
    if metric == "cosine":
        x = x / x.abs().amax(dim=1, keepdim=True)  # no square overflows
        x = x / _squares(x).sqrt()[:, None]
    return x


def _product_dtype(points: Tensor, small: bool) -> torch.dtype:
    """float32 where it is float32 in truth (torch can be set to round factors to fewer bits) and nothing overflows."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)  # torch 2.9 and later
    whole = (
        matmul.fp32_precision in ("none", "ieee")
        if matmul
        else torch.get_float32_matmul_precision() == "highest"
    )
    return torch.float32 if whole and small and points.device.type == "cpu" else torch.float64


def _norms(x: Tensor) -> Tensor:
    """|x| of the rows (N,) in float32."""
    return torch.cat(
        [part.float().norm(dim=1) for part in x.split(max(1, CHUNK_NUMBERS // x.shape[1]))]
    )


def _checked(x: Tensor | np.ndarray, name: str, metric: str) -> tuple[Tensor, bool]:
    """The rows, and whether squares of them neither overflow nor underflow in float32."""
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric {metric!r} is unknown; choose 'euclidean' or 'cosine'")
    x = torch.as_tensor(x).detach()
    if x.device.type == "mps":
        x = x.cpu()  # MPS has no float64
    if x.ndim != 2 or x.shape[1] == 0 or not x.is_floating_point():
        raise ValueError(
            f"{name} are {tuple(x.shape)} {x.dtype}; a 2-D floating-point array with columns is needed"
        )
    if len(x) == 0:
        return x, True
    largest = max(abs(float(v)) for v in x.aminmax())
    if not math.isfinite(largest):
        _refuse_rows(~torch.isfinite(x).all(dim=1), name, "NaN or infinite values")
    smallest = 1.0
    if metric == "cosine" and (smallest := float(_norms(x).min())) == 0:
        _refuse_rows((x == 0).all(dim=1), name, "only zeros, so no direction for a cosine")
    return x, largest < 1e15 and smallest > 1e-15


def _refuse_rows(bad: Tensor, name: str, what: str) -> None:
    if bad.any():
        first = torch.nonzero(bad).flatten()[:5].tolist()
        raise ValueError(f"{name}: {int(bad.sum())} of {len(bad)} rows hold {what}, first {first}")
