"""What is measured: accuracy, calibration, coverage, the area under a learning curve, and intervals over seeds."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor


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


def paired_comparisons(values: pd.DataFrame) -> pd.DataFrame:
    """Every column against every other, over paired runs.

    values: a row for each pairing (a seed, or a seed of a data set), a column for each method, such as AULCs in percent; rows
    that lack a method are left out. Returns a row a pair: a, b, difference (mean of a - b), half_width (95 %, Student's t), n,
    wins, ties and losses of a, p (paired t-test, two-sided; NaN for fewer than two runs) and p_holm (see `holm`).
    Raises ValueError for fewer than two columns or no whole row.
    """
    whole = values.dropna()
    if values.shape[1] < 2 or len(whole) == 0:
        raise ValueError(
            f"{values.shape[1]} methods in {len(whole)} whole paired runs: at least 2 methods and 1 run are needed"
        )
    rows = []
    for a, b in combinations(whole.columns, 2):
        gap = whole[a] - whole[b]
        mean, half_width = mean_interval(gap)
        if len(gap) < 2:
            p = float("nan")
        elif gap.std() == 0:  # the t-test divides by it
            p = 1.0 if mean == 0 else 0.0
        else:
            p = float(stats.ttest_rel(whole[a], whole[b]).pvalue)
        rows.append((a, b, mean, half_width, len(gap), (gap > 0).sum(), (gap == 0).sum(), (gap < 0).sum(), p))
    columns = ["a", "b", "difference", "half_width", "n", "wins", "ties", "losses", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=holm(table["p"]))


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
    best, n = means.idxmax(), int(table["n"].iloc[0])
    if n < 2:
        return f"{best} is highest ({means.max():.1f}) in a single run of each: that says nothing about luck."
    behind = {r.b if r.a == best else r.a: r.p_holm for r in table.itertuples() if best in (r.a, r.b)}
    beaten, open_ = ([k for k, p in behind.items() if (p < 0.05) == sure] for sure in (True, False))
    said = f"Over {n} paired runs {best} has the highest mean ({means.max():.1f})"
    said += f"; ahead of {', '.join(beaten)} by more than luck explains" if beaten else ""
    return said + (f"; its lead over {', '.join(open_)} can be luck." if open_ else ".")
