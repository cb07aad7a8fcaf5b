"""k-center selection compared with its alternatives, by the ratio of times; picks are compared too.

    python benchmarks/selection.py                    # all rows: about 20 minutes and 10 GB
    python benchmarks/selection.py --row 20000x100

Points are clustered softmax vectors in float32 (float16 at ImageNet's size), and in two rows not
clustered; centres are random points among them.
Alternatives:
- all centres again: `torch.cdist(points, centres).min(1)` at each pick, as in the paper's code. In
  float64 it is exact; in float32 it is faster, but its picks may differ;
- running minimum: cdist to the labelled centres once, then for each pick
  `minimum(nearest, ((points - pick) ** 2).sum(1))`, in float32;
- scikit-activeml's CoreSet, in float64.
The second table times whole strategy calls, including the construction of `Predictions`:
`pcoreset`, and `coreset` on 512 unit-norm features, by cosine. There, "all centres again" is
`(1 - points @ centres.T).min(1)`, which is faster than cdist.
Each algorithm runs once to warm up, then they take turns; ratios are those of the medians. "same"
means that the whole sequences of picks are equal.
On a GPU (`--device cuda`), the lower limit is the time to read all points once per centre, at
`--bandwidth` GB/s.
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
    "line": (1_000_000, 1, 1, 200),  # uniform: bounds rule nothing out, and distances are cheap
}
UNCLUSTERED = ("isotropic", "line")
STRATEGIES = {"pcoreset": "euclidean", "coreset": "cosine"}
FEATURES = 512
CHUNK = 8_192
TIMED_PICKS = 20  # by the running minimum, at ImageNet's size; the rest is extrapolated


def clustered_softmax(n, c, dtype, spread=4.0, noise=1.0):
    """(n, c) rows softmax(spread * mean[class] + noise), whose classes have typical confusions.

    Mean logits are N(0, 1), plus 2 for the class itself, so the mean top-1 probability is 0.5 to
    0.7, as for a zero-shot teacher.
    """
    g = torch.Generator().manual_seed(0)
    means = torch.randn(c, c, generator=g) + 2 * torch.eye(c)
    out = torch.empty(n, c, dtype=dtype)
    for part in out.split(CHUNK):
        logits = spread * means[torch.randint(c, (len(part),), generator=g)]
        part.copy_(torch.softmax(logits + noise * torch.randn(len(part), c, generator=g), dim=1))
    return out


def points_of(name, dtype=torch.float32):
    n, c = ROWS[name][:2]
    if name in UNCLUSTERED:
        draw = torch.randn if name == "isotropic" else torch.rand
        return draw(n, c, generator=torch.Generator().manual_seed(0))
    return clustered_softmax(n, c, dtype)


def clustered_features(probs):
    """(n, FEATURES) unit rows, each near the direction of its most probable class."""
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
    """In chunks, as float16 points do not fit twice. Calls `progress` after the labelled pass."""
    parts, centers = points.split(CHUNK), centers.float()
    nearest = torch.cat([torch.cdist(p.float(), centers).min(dim=1).values for p in parts]) ** 2
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
    """{name: (median seconds, runs, picks)}; the algorithms take turns.

    One that has taken `seconds` in total is not run again.
    """
    times, picks = {name: [] for name in algorithms}, {}
    for turn in range(repeats + 1):
        for name, function in algorithms.items():
            if sum(times[name]) < seconds:
                spent, picks[name] = timed(function, device)
                if turn or spent > seconds / 4:  # a long run is its own warm-up
                    times[name].append(spent)
    return {name: (statistics.median(t), len(t), picks[name]) for name, t in times.items()}


def random_rows(n, count):
    return torch.randperm(n, generator=torch.Generator().manual_seed(1))[:count]


def row(name, repeats, device):
    n, _, labelled, k = ROWS[name]
    points = points_of(name).to(device)
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[random_rows(n, labelled)] = True
    points, centers = points[~chosen.to(device)], points[chosen.to(device)]
    algorithms = {
        "k_center_greedy": lambda: k_center_greedy(points, centers, k)[0].tolist(),
        "running minimum": lambda: running_minimum(points, centers, k),
        "all centres again, float64": lambda: all_centres_again(
            points.double(), centers.double(), k
        ),
        "all centres again, float32": lambda: all_centres_again(points, centers, k),
        "scikit-activeml": lambda: coreset_of_scikit_activeml(points, centers, k),
    }
    names = ["k_center_greedy", "running minimum"]
    if name not in UNCLUSTERED:
        names += ["all centres again, float64", "all centres again, float32"]
    if name == "20000x100" and device == "cpu":
        names += ["scikit-activeml"]
    return compare({name: algorithms[name] for name in names}, repeats, device)


def strategy_row(strategy, name, repeats, device):
    """The whole strategy call, the engine alone and the alternative; all pick pool indices."""
    n, _, labelled, k = ROWS[name]
    probs = points_of(name)
    features = clustered_features(probs).to(device)
    probs, metric = probs.to(device), STRATEGIES[strategy]
    known, labels = random_rows(n, labelled).sort().values, torch.zeros(labelled, dtype=torch.int64)
    state = akd.LabelState.empty(n).with_labels(known, labels, round=0)
    unlabeled, space = state.unlabeled_indices, probs if metric == "euclidean" else features
    points, centers = space[unlabeled], space[known]

    def whole_call():
        predictions, g = akd.Predictions(probs, features), torch.Generator()
        return akd.STRATEGIES[strategy](predictions, state, k, generator=g).tolist()

    def engine():
        return unlabeled[k_center_greedy(points, centers, k, metric=metric)[0]].tolist()

    def again():
        return unlabeled[all_centres_again(points, centers, k, metric)].tolist()

    return compare({"whole call": whole_call, "engine": engine, "again": again}, repeats, device)


def report_strategy(strategy, name, results):
    n, c, labelled, k = ROWS[name]
    width = c if strategy == "pcoreset" else FEATURES
    whole, engine, again = (results[key][0] for key in ("whole call", "engine", "again"))
    picks, *others = (found for *_, found in results.values())
    same = "same" if others == [picks, picks] else "differ"
    print(f"| {n:,} x {width:,}, {labelled}, {k} | {strategy} | {again:.4g} | ", end="")
    print(f"{whole:.4g} | {again / whole:.1f} | {engine:.4g} | {again / engine:.1f} | ", end="")
    print(f"{same} |", flush=True)


def imagenet_row(device):
    """Run each algorithm once; for the running minimum, extrapolate from the first picks."""
    n, _, labelled, k = ROWS["imagenet"]
    points = points_of("imagenet", torch.float16).to(device)
    centers = points[random_rows(n, labelled)]
    before = peak_gib()
    ours = timed(lambda: k_center_greedy(points, centers, k, progress=True)[0].tolist(), device)
    print(f"imagenet: peak memory {peak_gib():.2f} GiB, {before:.2f} GiB of it before the call")
    marks, start = [], time.perf_counter()

    def mark():
        marks.append(time.perf_counter() - start)

    first, picks = timed(lambda: running_minimum(points, centers, TIMED_PICKS, mark), device)
    whole = marks[0] + (first - marks[0]) * k / TIMED_PICKS
    return {
        "k_center_greedy": (ours[0], 1, ours[1]),
        f"running minimum, {TIMED_PICKS} picks timed": (whole, 1, picks),
    }


def peak_gib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def report(name, results, device, bandwidth):
    n, c, labelled, k = ROWS[name]
    ours, _, picks = results["k_center_greedy"]
    head = f"| {n:,} x {c:,}, {labelled}, {k}"
    for algorithm, (seconds, runs, others) in results.items():
        same = "same"
        if others != picks[: len(others)]:
            same = f"differ from pick {[*map(int.__eq__, others, picks)].index(False)}"
        cells = f"{seconds:.4g} | {runs} | {seconds / ours:.1f}"
        print(f"{head} | {algorithm} | {cells} | {same} |", flush=True)
    if device == "cuda":
        least = (labelled + k) * n * c * (2 if name == "imagenet" else 4) / bandwidth / 1e9
        cells = f"{least:.4g} | - | {least / ours:.2f}"
        print(f"{head} | reading all points once per centre | {cells} | - |")


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", action="append", choices=ROWS, help="repeatable; default: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--bandwidth", type=float, default=4800, help="GB/s of the GPU's memory")
    return parser.parse_args()


def main():
    args = parse()
    names, how = args.row or ROWS, (args.repeats, args.device)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {args.device}\n")
    print("| N x C, labelled, picks | algorithm | seconds | runs | ratio | picks |")
    print("|" + 6 * "---|")
    for name in names:
        results = imagenet_row(args.device) if name == "imagenet" else row(name, *how)
        report(name, results, args.device, args.bandwidth)
    print("\n| N x columns, labelled, picks | strategy | all centres again, float32, s | ", end="")
    print("whole call, s | ratio | engine, s | ratio | picks |\n|" + 8 * "---|")
    for name in names:
        for strategy in STRATEGIES if name not in ("imagenet", *UNCLUSTERED) else ():
            report_strategy(strategy, name, strategy_row(strategy, name, *how))


if __name__ == "__main__":
    main()
