"""k-center selection against its alternatives: ratios in one run, with the picks compared.

    python benchmarks/selection.py                    # all rows: about 20 minutes and 10 GB
    python benchmarks/selection.py --row 20000x100

Points: clustered softmax vectors in float32 (ImageNet's size: float16), and two rows that are not clustered; centres: random
points of theirs. Alternatives:
- all centres again: `torch.cdist(points, centres).min(1)` at each pick, in float64, where it is exact (the algorithm of the
  paper's code), and in float32, where it is faster and its picks may differ;
- running minimum: cdist to the labelled centres once, then `minimum(nearest, ((points - pick) ** 2).sum(1))` a pick, float32;
- scikit-activeml's CoreSet, float64.
A second table has strategies as they are called, the construction of `Predictions` included: `pcoreset`, and `coreset` on 512
unit-norm features, by cosine. "All centres again" for cosine is `(1 - points @ centres.T).min(1)`, which is faster than cdist.
Each is run once to warm up, then in turns; a ratio is that of medians. "same" compares whole sequences of picks.
On a GPU (`--device cuda`) the floor is the time to read all points once a centre, at `--bandwidth` GB/s.
"""

import argparse
import resource
import statistics
import time

import numpy as np
import torch

import activekd_lite as akd
from activekd_lite.kcenter import k_center_greedy

ROWS = {  # name: (N, C, labelled, picks)
    "5000x47": (5_000, 47, 47, 47),
    "20000x100": (20_000, 100, 100, 100),
    "50000x100": (50_000, 100, 800, 100),
    "imagenet": (1_281_167, 1_000, 1_000, 1_000),
    "isotropic": (50_000, 512, 100, 100),  # normal features
    "line": (
        1_000_000,
        1,
        1,
        200,
    ),  # uniform: bounds leave nothing out, and a distance costs no more than a look at a bound
}
STRATEGIES = {"pcoreset": "euclidean", "coreset": "cosine"}
FEATURES = 512
CHUNK = 8_192
TIMED_PICKS = 20  # of the running minimum at ImageNet's size


def clustered_softmax(n, c, dtype, spread=4.0, noise=1.0):
    """(n, c) rows softmax(spread * mean[class] + noise), with mean logits N(0, 1) and the class's own raised by 2: as in a
    zero-shot teacher, the images of a class share their confusions (mean top-1 probability 0.5 to 0.7)."""
    g = torch.Generator().manual_seed(0)
    means = torch.randn(c, c, generator=g) + 2 * torch.eye(c)
    out = torch.empty(n, c, dtype=dtype)
    for part in out.split(CHUNK):
        logits = spread * means[torch.randint(c, (len(part),), generator=g)]
        part.copy_(torch.softmax(logits + noise * torch.randn(len(part), c, generator=g), dim=1))
    return out


def points_of(name, dtype=torch.float32):
    n, c = ROWS[name][:2]
    if name in ("isotropic", "line"):
        g = torch.Generator().manual_seed(0)
        return (
            torch.randn(n, c, generator=g) if name == "isotropic" else torch.rand(n, c, generator=g)
        )
    return clustered_softmax(n, c, dtype)


def clustered_features(probs):
    """(n, FEATURES) unit rows, each around the direction of its likeliest class."""
    g = torch.Generator().manual_seed(2)
    directions = torch.randn(probs.shape[1], FEATURES, generator=g)
    noise = torch.randn(len(probs), FEATURES, generator=g)
    return torch.nn.functional.normalize(directions[probs.argmax(dim=1)] + 0.7 * noise, dim=1)


def all_centres_again(points, centers, k, metric="euclidean"):
    picks, left = [], torch.ones(len(points), dtype=torch.bool, device=points.device)
    for _ in range(k):
        distance = torch.cdist(points, centers) if metric == "euclidean" else 1 - points @ centers.T
        nearest = distance.min(dim=1).values
        picks.append(int(nearest.where(left, -1).argmax()))
        left[picks[-1]] = False
        centers = torch.cat([centers, points[picks[-1], None]])
    return picks


def running_minimum(points, centers, k, progress=None):
    """In chunks, for float16 points would not fit twice. progress: called after the labelled pass."""
    parts = points.split(CHUNK)
    nearest = (
        torch.cat([torch.cdist(p.float(), centers.float()).min(dim=1).values for p in parts]) ** 2
    )
    if progress:
        progress()
    picks = []
    for _ in range(k):
        picks.append(int(nearest.argmax()))
        center = points[picks[-1]].float()
        for p, part in zip(parts, nearest.split(CHUNK), strict=True):
            torch.minimum(part, (p.float() - center).square_().sum(dim=1), out=part)
        nearest[picks[-1]] = -1
    return picks


def coreset_of_scikit_activeml(points, centers, k):
    from skactiveml.pool import CoreSet

    x = torch.cat([centers, points]).double().numpy()
    y = np.full(len(x), np.nan)
    y[: len(centers)] = 0
    return [int(i) - len(centers) for i in CoreSet(random_state=0).query(x, y, batch_size=k)]


def timed(function, device):
    start = time.perf_counter()
    result = function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def compare(algorithms, repeats, device, seconds=60):
    """{name: (median seconds, runs, picks)}, the algorithms in turns; one that took `seconds` in all is not run again."""
    times, picks = {name: [] for name in algorithms}, {}
    for turn in range(repeats + 1):
        for name, function in algorithms.items():
            if sum(times[name]) < seconds:
                spent, picks[name] = timed(function, device)
                if turn or spent > seconds / 4:  # a long run is its own warm-up
                    times[name].append(spent)
    return {name: (statistics.median(t), len(t), picks[name]) for name, t in times.items()}


def row(name, repeats, device):
    n, _, labelled, k = ROWS[name]
    points = points_of(name).to(device)
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[torch.randperm(n, generator=torch.Generator().manual_seed(1))[:labelled]] = True
    points, centers = points[~chosen.to(device)], points[chosen.to(device)]
    algorithms = {
        "k_center_greedy": lambda: k_center_greedy(points, centers, k)[0].tolist(),
        "running minimum": lambda: running_minimum(points, centers, k),
    }
    if name not in ("isotropic", "line"):
        algorithms["all centres, float64"] = lambda: all_centres_again(
            points.double(), centers.double(), k
        )
        algorithms["all centres, float32"] = lambda: all_centres_again(points, centers, k)
    if name == "20000x100" and device == "cpu":
        algorithms["scikit-activeml"] = lambda: coreset_of_scikit_activeml(points, centers, k)
    return compare(algorithms, repeats, device)


def strategy_row(strategy, name, repeats, device):
    """The strategy's whole call, the engine alone and the alternative, all of which pick pool indices."""
    n, _, labelled, k = ROWS[name]
    probs = points_of(name)
    features = clustered_features(probs).to(device)
    probs, metric = probs.to(device), STRATEGIES[strategy]
    known = torch.randperm(n, generator=torch.Generator().manual_seed(1))[:labelled].sort().values
    state = akd.LabelState.empty(n).with_labels(
        known, torch.zeros(labelled, dtype=torch.int64), round=0
    )
    unlabeled, space = state.unlabeled_indices, probs if metric == "euclidean" else features
    points, centers = space[unlabeled], space[known]
    choose, g = akd.STRATEGIES[strategy], torch.Generator()
    algorithms = {
        "whole call": lambda: choose(
            akd.Predictions(probs, features), state, k, generator=g
        ).tolist(),
        "engine": lambda: unlabeled[k_center_greedy(points, centers, k, metric=metric)[0]].tolist(),
        "again": lambda: unlabeled[all_centres_again(points, centers, k, metric)].tolist(),
    }
    return compare(algorithms, repeats, device)


def report_strategy(strategy, name, results):
    n, c, labelled, k = ROWS[name]
    (whole, _, picks), (engine, _, of_engine), (again, _, theirs) = (
        results[x] for x in ("whole call", "engine", "again")
    )
    same = "same" if picks == of_engine == theirs else "differ"
    width = c if strategy == "pcoreset" else FEATURES
    print(
        f"| {n:,} x {width:,}, {labelled}, {k} | {strategy} | {again:.4g} | {whole:.4g} | {again / whole:.1f} | {engine:.4g} | "
        f"{again / engine:.1f} | {same} |",
        flush=True,
    )


def imagenet_row(device):
    """One run each; the running minimum's first picks are timed and its rest extrapolated."""
    n, _, labelled, k = ROWS["imagenet"]
    points = points_of("imagenet", torch.float16).to(device)
    centers = points[torch.randperm(n, generator=torch.Generator().manual_seed(1))[:labelled]]
    made = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, picks = timed(
        lambda: k_center_greedy(points, centers, k, progress=True)[0].tolist(), device
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"imagenet: peak memory {peak / 2**20:.2f} GiB, {made / 2**20:.2f} GiB of it before the call"
    )
    labelled_pass = []
    start = time.perf_counter()
    first, theirs = timed(
        lambda: running_minimum(
            points, centers, TIMED_PICKS, lambda: labelled_pass.append(time.perf_counter() - start)
        ),
        device,
    )
    whole = labelled_pass[0] + (first - labelled_pass[0]) * k / TIMED_PICKS
    return {
        "k_center_greedy": (seconds, 1, picks),
        f"running minimum, {TIMED_PICKS} picks timed": (whole, 1, theirs),
    }


def report(name, results, device, bandwidth):
    n, c, labelled, k = ROWS[name]
    ours, _, picks = results["k_center_greedy"]
    for algorithm, (seconds, runs, theirs) in results.items():
        same = (
            "same"
            if theirs == picks[: len(theirs)]
            else f"differ from pick {[*map(int.__eq__, theirs, picks)].index(False)}"
        )
        print(
            f"| {n:,} x {c:,}, {labelled}, {k} | {algorithm} | {seconds:.4g} | {runs} | {seconds / ours:.1f} | {same} |",
            flush=True,
        )
    if device == "cuda":
        floor = (labelled + k) * n * c * (2 if name == "imagenet" else 4) / bandwidth / 1e9
        print(
            f"| {n:,} x {c:,}, {labelled}, {k} | reading all points once a centre | {floor:.4g} | - | {floor / ours:.2f} | - |"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", action="append", choices=ROWS, help="repeatable; default: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--bandwidth", type=float, default=4800, help="GB/s of the GPU's memory")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {args.device}\n")
    print(
        "| N x C, labelled, picks | algorithm | seconds | runs | ratio | picks |\n|---|---|---|---|---|---|"
    )
    for name in args.row or ROWS:
        results = (
            imagenet_row(args.device)
            if name == "imagenet"
            else row(name, args.repeats, args.device)
        )
        report(name, results, args.device, args.bandwidth)
    print(
        "\n| N x columns, labelled, picks | strategy | all centres again, float32, s | whole call, s | ratio | ",
        end="",
    )
    print("engine, s | ratio | picks |\n|---|---|---|---|---|---|---|---|")
    for name in args.row or ROWS:
        for strategy in STRATEGIES if name not in ("imagenet", "isotropic", "line") else ():
            report_strategy(strategy, name, strategy_row(strategy, name, args.repeats, args.device))


if __name__ == "__main__":
    main()
