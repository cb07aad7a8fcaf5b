"""Confidence intervals over seeds, and tests that compare runs paired by seed."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES = 2**14  # sign patterns tried by the permutation test: every pattern for up to 14 pairs


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of Student's t interval: `mean_interval(aulcs) -> (77.6, 1.2)`.

    For paired runs, pass the per-seed differences.
    The half-width is NaN for fewer than two values.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    half_width = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(half_width)


def permutation_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of paired differences (n,), from a sign-flip permutation test.

    If both methods were equal, each difference would be equally likely to have either sign.
    The p-value is the share of the 2^n sign patterns whose mean is at least as far from 0.

    Exact for up to 14 pairs; above that, estimated from RESAMPLES patterns with a fixed seed.
    Makes no assumption about the distribution. The smallest possible value is 2 / 2^n, so five
    seeds never give p < 0.05.
    Returns 1 if all differences are 0, NaN for fewer than two pairs.
    """
    differences = np.asarray(differences, dtype=float)
    if len(differences) < 2:
        return float("nan")
    scale = np.abs(differences).max()
    if scale == 0:
        return 1.0

    def mean(x: np.ndarray, axis: int) -> np.ndarray:
        return np.round(x.mean(axis=axis), 9)  # rounded, so that rounding errors do not break ties

    test = stats.permutation_test(
        (differences / scale,),
        mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def smallest_p_holm(n: int, comparisons: int) -> float:
    """The smallest Holm-corrected `permutation_p` that n pairs and this many comparisons allow."""
    return min(1.0, comparisons * max(2 / 2**n, 2 / (RESAMPLES + 1)))


def runs_needed(comparisons: int) -> int:
    """The fewest paired runs that allow a corrected p < 0.05: 6 for one comparison, 10 for 15."""
    return next(n for n in range(1, 64) if comparisons * 2 / 2**n < 0.05)


def paired_comparisons(values: pd.DataFrame) -> pd.DataFrame:
    """Compare every column with every other column over paired runs.

    Parameters
    ----------
    values
        One row per pair of runs (a seed, or a seed of a data set), one column per method, for
        example AULC in percent. Rows with a missing value are dropped.

    Returns
    -------
    pd.DataFrame
        One row per pair of methods:

        - a, b: the two methods; difference: mean of a - b; half_width: of its 95 % t interval
        - n: number of paired runs; wins, ties, losses: of a against b
        - p: `permutation_p`; p_holm: corrected by `holm`
        - least: the smallest p_holm that n runs allow. If it is 0.05 or more, no difference can
          be significant, however large.

    Raises
    ------
    ValueError
        For fewer than two columns, or if no row is complete.
    """
    complete = values.dropna()
    if values.shape[1] < 2 or len(complete) == 0:
        raise ValueError(
            f"{values.shape[1]} methods in {len(complete)} complete paired runs: "
            "at least 2 methods and 1 run are needed"
        )
    rows = []
    for a, b in combinations(complete.columns, 2):
        gap = (complete[a] - complete[b]).round(9)
        counts = (gap > 0).sum(), (gap == 0).sum(), (gap < 0).sum()
        rows.append((a, b, *mean_interval(gap), len(gap), *counts, permutation_p(gap)))
    columns = ["a", "b", "difference", "half_width", "n", "wins", "ties", "losses", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=holm(table["p"]), least=smallest_p_holm(len(complete), len(rows)))


def holm(p: Sequence[float]) -> np.ndarray:
    """Correct p-values (m,) for multiple comparisons (Holm 1979, step-down).

    Calling every corrected p below 0.05 significant keeps the family-wise error rate under 5 %.
    NaN stays NaN and is not counted.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)[: np.isfinite(p).sum()]  # NaN is sorted last
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return corrected


def verdict(values: pd.DataFrame) -> str:
    """Name the method with the highest mean and the methods it beats significantly, in a sentence.

    values: as in `paired_comparisons`.
    """
    table, means = paired_comparisons(values), values.dropna().mean()
    best, n = means.idxmax(), int(table["n"].iloc[0])
    if n < 2:
        return (
            f"{best} has the highest value ({means.max():.1f}), but a single run per method "
            "cannot show whether that is chance."
        )
    sentence = f"{best} has the highest mean over {n} paired runs ({means.max():.1f})"
    if table["least"].iloc[0] >= 0.05:
        return f"{sentence}, but {cannot_show(n, len(table))}."
    rivals = table[(table["a"] == best) | (table["b"] == best)]
    names = rivals["a"].where(rivals["a"] != best, rivals["b"])
    significant = rivals["p_holm"] < 0.05
    clauses = [
        (significant, "significantly ahead of {}"),
        (~significant, "not significantly ahead of {}"),
    ]
    parts = [text.format(", ".join(names[mask])) for mask, text in clauses if mask.any()]
    return f"{sentence}: {'; '.join(parts)}."


def cannot_show(n: int, comparisons: int) -> str:
    """Explain that n paired runs are too few for any significant difference.

    For use where `smallest_p_holm(n, comparisons)` is 0.05 or more.
    """
    count = f"{comparisons} comparisons" if comparisons > 1 else "one comparison"
    return (
        f"{n} paired runs are too few to show a significant difference (the smallest possible "
        f"p-value for {count} is {smallest_p_holm(n, comparisons):.2g}); "
        f"at least {runs_needed(comparisons)} are needed"
    )
