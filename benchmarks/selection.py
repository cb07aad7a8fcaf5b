"""k-center selection against its baselines, as ratios in one run, with the picks compared.

    python benchmarks/selection.py                      # every row (the ImageNet-scale one needs 4 GB and minutes)
    python benchmarks/selection.py --row 20000x100 --row skactiveml

Points: clustered softmax vectors, float32 (the ImageNet-scale row: float16); centres: random points. Baselines:
- all centres again: the reference algorithm, `torch.cdist(points, all centres).min(1)` a pick;
- running minimum: the labelled pass once, then `minimum(m, ((points - pick) ** 2).sum(1))` a pick.
Compilation is warmed up first and not timed. "same picks" compares whole sequences where a baseline ran whole.
"""

import argparse
import resource
import time

import numpy as np
import torch

from activekd_lite import kcenter

ROWS = {  # name: (N, C, labelled, picks, dtype)
    "5000x47": (5_000, 47, 47, 47, torch.float32),
    "20000x100": (20_000, 100, 100, 100, torch.float32),
    "50000x100": (50_000, 100, 800, 100, torch.float32),
    "imagenet": (1_281_167, 1_000, 1_000, 1_000, torch.float16),
}
CHUNK = 8_192


def clustered_softmax(n, width, dtype, seed=0, spread=4.0, noise=1.0):
    """(n, width) rows softmax(spread * mean[class] + noise): one cluster a class, its mean logits N(0, 1) with the
    class's own raised by 2; a cluster shares its confusions, as a zero-shot teacher's does (mean top-1 0.5 to 0.7)."""
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(width, width, generator=g) + 2 * torch.eye(width)
    out = torch.empty(n, width, dtype=dtype)
    for part in out.split(CHUNK):
        logits = spread * means[torch.randint(width, (len(part),), generator=g)]
        part.copy_(torch.softmax(logits + noise * torch.randn(len(part), width, generator=g), 1))
    return out


def all_centres_again(points, centers, k):
    picks, left = [], torch.ones(len(points), dtype=torch.bool)
    for _ in range(k):
        nearest = torch.cdist(points, centers).min(1).values
        picks.append(int(nearest.where(left, -1).argmax()))
        left[picks[-1]] = False
        centers = torch.cat([centers, points[picks[-1], None]])
    return picks


def running_minimum(points, centers, k):
    """Chunked so that float16 points need no float32 copy. Returns picks and the seconds of (labelled pass, picks)."""
    start = time.perf_counter()
    m = torch.cat([torch.cdist(p.float(), centers.float()).min(1).values for p in points.split(CHUNK)]) ** 2
    middle, picks = time.perf_counter(), []
    for _ in range(k):
        picks.append(int(m.argmax()))
        c = points[picks[-1]].float()
        for p, part in zip(points.split(CHUNK), m.split(CHUNK), strict=True):
            torch.minimum(part, ((p.float() - c) ** 2).sum(1), out=part)
        m[picks[-1]] = -1
    return picks, (middle - start, time.perf_counter() - middle)


def timed(function, repeats=1):
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return best, result


def same(a, b):
    n = min(len(a), len(b))
    equal = [int(i) for i in a[:n]] == [int(i) for i in b[:n]]
    return f"yes ({n})" if equal else f"NO, from pick {next(i for i in range(n) if int(a[i]) != int(b[i]))}"


def row(name, repeats):
    n, width, labelled, k, dtype = ROWS[name]
    points = clustered_softmax(n, width, dtype)
    centers = points[torch.randperm(n, generator=torch.Generator().manual_seed(1))[:labelled]].clone()
    warm = max(2_000, kcenter.SMALL // width // 100)
    kcenter.k_center_greedy(points[:warm], centers, 100)
    ours, (picks, _) = timed(lambda: kcenter.k_center_greedy(points, centers, k), repeats)
    baseline_k = 20 if name == "imagenet" else k
    minimum, (theirs, (first, rest)) = timed(lambda: running_minimum(points, centers, baseline_k), repeats)
    note = ""
    if name == "imagenet":
        minimum, note = first + rest / baseline_k * k, f" (extrapolated from {baseline_k} picks)"
    cells = [f"{ours:.4g} s", f"{minimum / ours:.1f}x{note}", same(picks, theirs)]
    if name == "imagenet":
        cells += ["-", "-"]
    else:
        again, reference = timed(lambda: all_centres_again(points, centers, k))
        cells += [f"{again / ours:.1f}x", same(picks, reference)]
    return cells


def skactiveml_row(repeats):
    n, width, labelled, k, _ = ROWS["20000x100"]
    points = clustered_softmax(n, width, torch.float32)
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(1))[:labelled].sort().values
    left = torch.ones(n, dtype=torch.bool)
    left[chosen] = False
    pool, centers = points[left], points[chosen]
    kcenter.k_center_greedy(pool, centers, k)
    ours, (picks, _) = timed(lambda: kcenter.k_center_greedy(pool, centers, k), repeats)
    try:
        from skactiveml.pool import CoreSet
    except ImportError:
        return [f"{ours:.4g} s", "scikit-activeml not installed", "-", "-", "-"]
    y = np.full(n, np.nan)
    y[chosen] = 0
    query = CoreSet(random_state=0)
    seconds, theirs = timed(lambda: query.query(points.numpy(), y, batch_size=k))
    picks = left.nonzero().squeeze(1)[picks]
    return [f"{ours:.4g} s", f"{seconds / ours:.1f}x (scikit-activeml CoreSet)", same(picks, theirs), "-", "-"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", choices=[*ROWS, "skactiveml"], help="repeatable; default: all")
    parser.add_argument("--repeats", type=int, default=3, help="best of so many (ImageNet row and all-centres: 1)")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    titles = ["row", "N x C, labelled, picks", "k_center_greedy", "running minimum / ours", "same picks"]
    titles += ["all centres again / ours", "same picks", "peak GB"]
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for name in args.row or [*ROWS, "skactiveml"]:
        n, width, labelled, k, dtype = ROWS.get(name, ROWS["20000x100"])
        repeats = 1 if name == "imagenet" else args.repeats
        cells = skactiveml_row(repeats) if name == "skactiveml" else row(name, repeats)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        size = f"{n:,} x {width}, {labelled}, {k}, {str(dtype)[6:]}"
        print(f"| {' | '.join([name, size, *cells, f'{peak:.2f}'])} |", flush=True)


if __name__ == "__main__":
    main()
