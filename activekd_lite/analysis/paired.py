"""Intervals over seeds, and paired tests between runs."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES = 2**14  # ways to sign paired differences that a test tries: all of them up to 14 pairs


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
    behind = {
        r.b if r.a == best else r.a: r.p_holm for r in table.itertuples() if best in (r.a, r.b)
    }
    beaten, open_ = ([k for k, p in behind.items() if (p < 0.05) == sure] for sure in (True, False))
    said += f"; ahead of {', '.join(beaten)} by more than luck explains" if beaten else ""
    return said + (f"; its lead over {', '.join(open_)} can be luck." if open_ else ".")


def cannot_show(n: int, comparisons: int) -> str:
    """In words, where `smallest_p_holm` is not under 0.05: so few runs cannot tell a difference from luck."""
    least, of = (
        smallest_p_holm(n, comparisons),
        f"{comparisons} comparisons" if comparisons > 1 else "one comparison",
    )
    return (
        f"{n} paired runs cannot show that any difference is more than luck (smallest p for {of}: {least:.2g}); "
        f"{runs_needed(comparisons)} can"
    )
