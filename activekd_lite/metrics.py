"""What is measured: accuracy, class balance, calibration, coverage, learning curves, intervals over seeds, the structure of
predictions."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

RESAMPLES = 2**14  # ways to sign paired differences that a test tries: all of them up to 14 pairs


def accuracy_pct(probs: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest probability is the label's, in percent: probs (N, C), labels (N,)."""
    return 100.0 * (probs.argmax(dim=1).cpu() == labels.cpu()).double().mean().item()


def reliability(probs: Tensor, labels: Tensor, bins: int = 15) -> pd.DataFrame:
    """Predictions sorted into equal-width bins of confidence: columns count, confidence and accuracy (means, 0..1).

    probs: (N, C); labels: (N,). Empty bins have NaN means.
    """
    confidence, predicted = probs.cpu().double().max(dim=1)
    place = (confidence * bins).long().clamp(max=bins - 1)
    table = pd.DataFrame({"bin": place, "confidence": confidence, "accuracy": (predicted == labels.cpu()).double()})
    groups = table.groupby("bin")
    return groups.mean().assign(count=groups.size()).reindex(range(bins)).fillna({"count": 0}).astype({"count": int})


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
    excess = sum(n / total * math.log(n * size / total) for n in counts if n)  # log C - entropy: exactly 0 for equal counts
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
    nearest = [torch.cdist(part.double(), centers.double()).amin(dim=1).max() for part in points.split(4096)]
    return torch.stack(nearest).max().item()


def aulc_pct(accuracies_pct: Sequence[float]) -> float:
    """Area under the learning curve as the mean accuracy over the rounds, the initial one included, in percent."""
    if len(accuracies_pct) == 0:
        raise ValueError("no rounds: the area under a learning curve needs at least one accuracy")
    return float(np.mean(accuracies_pct))


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of Student's t interval: `mean_interval(aulcs) -> (77.6, 1.2)` reads 77.6 +- 1.2.

    The half-width is NaN for fewer than two values. For paired runs give the differences, seed by seed.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    spread = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(spread)


def permutation_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of paired differences (n,) by flipping signs: were both methods the same, each could have either sign.

    The share of the 2^n ways to sign them whose mean is as far from 0 as the one found: exact up to 14 runs, beyond that from
    RESAMPLES seeded draws. No curve is assumed, but n runs cannot give less than 2 / 2^n: five seeds never come under 0.05.
    1 for no difference at all, NaN for fewer than two runs.
    """
    gap = np.asarray(differences, dtype=float)
    if len(gap) < 2:
        return float("nan")
    scale = np.abs(gap).max()
    if scale == 0:
        return 1.0
    test = stats.permutation_test(
        (gap / scale,), lambda x, axis: np.round(x.mean(axis=axis), 9),  # else rounding errors break ties
        permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(test.pvalue)


def smallest_p_holm(n: int, comparisons: int) -> float:
    """The smallest Holm-corrected `permutation_p` that n paired runs can give, where so many comparisons are made at once."""
    return min(1.0, comparisons * max(2 / 2**n, 2 / (RESAMPLES + 1)))


def runs_needed(comparisons: int) -> int:
    """The fewest paired runs that can show any of so many comparisons (corrected p < 0.05): 6 for one, 10 for 15."""
    return next(n for n in range(1, 64) if comparisons * 2 / 2**n < 0.05)


def paired_comparisons(values: pd.DataFrame) -> pd.DataFrame:
    """Every column against every other, over paired runs.

    values: a row for each pairing (a seed, or a seed of a data set), a column for each method, such as AULCs in percent; rows
    that lack a method are left out. Returns a row a pair: a, b, difference (mean of a - b), half_width (95 %, Student's t), n,
    wins, ties and losses of a, p (`permutation_p`), p_holm (see `holm`) and least (the smallest p_holm that n runs can give:
    where it is not under 0.05, no difference, however large and steady, can be shown).
    Raises ValueError for fewer than two columns or no whole row.
    """
    whole = values.dropna()
    if values.shape[1] < 2 or len(whole) == 0:
        raise ValueError(
            f"{values.shape[1]} methods in {len(whole)} whole paired runs: at least 2 methods and 1 run are needed"
        )
    rows = []
    for a, b in combinations(whole.columns, 2):
        gap = (whole[a] - whole[b]).round(9)
        counts = (gap > 0).sum(), (gap == 0).sum(), (gap < 0).sum()
        rows.append((a, b, *mean_interval(gap), len(gap), *counts, permutation_p(gap)))
    columns = ["a", "b", "difference", "half_width", "n", "wins", "ties", "losses", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=holm(table["p"]), least=smallest_p_holm(len(whole), len(rows)))


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values (m,) corrected for their number (Holm 1979, step down): those under 0.05 hold together with 95 % confidence.

    NaN stays NaN and is not counted.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)[: np.isfinite(p).sum()]  # NaN is sorted last
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return corrected


def verdict(values: pd.DataFrame) -> str:
    """Who has the highest mean, and whether that can be luck, in a sentence. values: see `paired_comparisons`."""
    table, means = paired_comparisons(values), values.dropna().mean()
    best, n, least = means.idxmax(), int(table["n"].iloc[0]), table["least"].iloc[0]
    if n < 2:
        return f"{best} is highest ({means.max():.1f}) in a single run of each: that says nothing about luck."
    said = f"Over {n} paired runs {best} has the highest mean ({means.max():.1f})"
    if least >= 0.05:
        return f"{said}; {cannot_show(n, len(table))}."
    behind = {r.b if r.a == best else r.a: r.p_holm for r in table.itertuples() if best in (r.a, r.b)}
    beaten, open_ = ([k for k, p in behind.items() if (p < 0.05) == sure] for sure in (True, False))
    said += f"; ahead of {', '.join(beaten)} by more than luck explains" if beaten else ""
    return said + (f"; its lead over {', '.join(open_)} can be luck." if open_ else ".")


def cannot_show(n: int, comparisons: int) -> str:
    """In words, where `smallest_p_holm` is not under 0.05: so few runs cannot tell a difference from luck."""
    least, of = smallest_p_holm(n, comparisons), f"{comparisons} comparisons" if comparisons > 1 else "one comparison"
    return (
        f"{n} paired runs cannot show that any difference is more than luck (smallest p for {of}: {least:.2g}); "
        f"{runs_needed(comparisons)} can"
    )


# The structure of predictions: which errors, which clusters, and what chance alone would give.


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """How many images of class i were called j: (C, C) int64, a row a true class. labels, predicted: (N,) classes 0..C-1.

    Any two answers to the same images can be crossed so: the teacher's first and second choice, the teacher and a student.
    """
    labels, predicted = labels.cpu(), predicted.cpu()
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)


def without_diagonal(counts: Tensor) -> Tensor:
    """The errors of a confusion matrix (C, C): what is right set to 0."""
    return counts - counts.diagonal().diag()


def perplexity(counts: Tensor) -> float:
    """The effective number of choices, exp(entropy in nats): k equally frequent ones give k, ones that are rare add little.

    counts: (B,), or (A, B) for the choice within a row: the entropies' mean, rows weighted by their sums. NaN for no counts.
    """
    counts = counts.double().reshape(-1, counts.shape[-1])
    rows = counts.sum(dim=1, keepdim=True)
    entropy = -torch.xlogy(counts, counts / rows.clamp(min=1)).sum() / rows.sum()
    return float(entropy.exp())


def pairs_for_share(errors: Tensor, share: float = 2 / 3) -> int:
    """The fewest entries of `errors` (C, C) counts that hold `share` of their sum: `pairs_for_share(errors, 0.5)` = 1 when one
    confusion is half of all. 0 where there are no errors."""
    held = errors.flatten().sort(descending=True).values.cumsum(0)
    return int((held < share * held[-1] - 1e-9).sum()) + 1 if held[-1] else 0


def chance_errors(errors: Tensor, generator: torch.Generator) -> Tensor:
    """As many errors in each row of `errors` (C, C), each dealt anew to a wrong class by how often that class is a wrong answer
    at all: what would be left if the wrong answer did not depend on the true class."""
    weights = errors.double().sum(dim=0).expand(len(errors), -1).clone().fill_diagonal_(0)
    dealt = torch.zeros_like(errors)
    for row, (count, weight) in enumerate(zip(errors.sum(dim=1).tolist(), weights, strict=True)):
        if count:
            drawn = torch.multinomial(weight, count, replacement=True, generator=generator)
            dealt[row] = torch.bincount(drawn, minlength=len(errors))
    return dealt


def permuted_classes(probs: Tensor, generator: torch.Generator) -> Tensor:
    """Each class's probabilities dealt anew to the images, then rows scaled to sum 1: probs (N, C) -> (N, C).

    Every class keeps its distribution, up to the scaling; what a row has in two classes at once becomes chance.
    """
    order = torch.rand(probs.shape, generator=generator).argsort(dim=0)
    dealt = probs.cpu().double().gather(0, order)
    return (dealt / dealt.sum(dim=1, keepdim=True)).to(probs.dtype)


def shuffled_doubt(probs: Tensor, generator: torch.Generator) -> Tensor:
    """Each row keeps its largest probability where it is, and the others change places: probs (N, C) -> (N, C).

    A classifier with the same answers, as sure of each, that doubts at random.
    """
    probs = probs.cpu()
    rest = torch.ones_like(probs, dtype=torch.bool).scatter_(1, probs.argmax(dim=1, keepdim=True), False)
    doubt = probs[rest].view(len(probs), -1)  # (N, C - 1)
    order = torch.rand(doubt.shape, generator=generator).argsort(dim=1)
    return probs.masked_scatter(rest, doubt.gather(1, order))


def balls(points: Tensor, groups: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
    """Each group as a ball: centers (K, C), the means, and radii (K,), which hold `share` of the members (1: all of them).

    points: (N, C); groups: (N,) ints; row k is of the k-th smallest of the values that occur in `groups`.
    """
    centers, place = _means(points, groups)
    distances = (points.cpu().double() - centers[place]).norm(dim=1)
    radii = [distances[place == k].quantile(share, interpolation="higher") for k in range(len(centers))]
    return centers, torch.stack(radii)


def explained_share(points: Tensor, groups: Tensor) -> float:
    """How far the groups explain the points: 1 - (variance within the groups) / (total variance), from 0 to 1.

    points: (N, C); groups: (N,) ints. K random groups already explain about (K - 1) / (N - 1), and k-means, which looks for the
    groups that explain most, far more: compare with the same k on points that lack the structure. Raises ValueError where all
    points are equal.
    """
    centers, place = _means(points, groups)
    points = points.cpu().double()
    total = (points - points.mean(dim=0)).square().sum()
    if total == 0:
        raise ValueError("all points are equal: there is no variance to explain")
    return 1 - float((points - centers[place]).square().sum() / total)


def _means(points: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of each group (K, C) float64, and the row of each point's own (N,)."""
    names, place = groups.cpu().unique(return_inverse=True)
    sums = torch.zeros(len(names), points.shape[1], dtype=torch.float64).index_add(0, place, points.cpu().double())
    return sums / torch.bincount(place)[:, None], place


def same_error_pct(predicted: Tensor, other: Tensor, labels: Tensor) -> float:
    """Of the images that both get wrong, the percent with the same wrong answer; NaN where there is none.

    predicted, other, labels: (N,) classes. Wrong answers that have nothing to do with each other agree in about 100 / (C - 1).
    """
    predicted, other, labels = predicted.cpu(), other.cpu(), labels.cpu()
    both = (predicted != labels) & (other != labels)
    return 100.0 * (predicted == other)[both].double().mean().item()
