"""Which tasks of a study a new one is like, judged by their cards."""

from typing import TYPE_CHECKING

import numpy as np

from activekd_lite.analysis.card import TaskCard

if TYPE_CHECKING:
    import pandas as pd

# What tasks are compared by, and whether a ratio matters rather than a difference.
COMPARED = {
    "classes": True,
    "pool_size": True,
    "imbalance_ratio": True,
    "teacher_accuracy_pct": False,
    "gap_points": False,
    "error_concentration": True,
    "cluster_purity_pct": False,
}


def similar_tasks(card: TaskCard, studied: "pd.DataFrame") -> "pd.DataFrame":
    """Order the tasks of a study by how far their cards are from this one, nearest first.

    studied: a row per task, with the fields of `TaskCard`.
    Returns the rows with a column `distance`: the root mean square of the differences in the
    numbers of COMPARED, each in standard deviations over the study (of the logarithm, for a ratio).
    A number that this card or the study's row does not have is left out.
    Raises ValueError for fewer than two tasks.
    """
    if len(studied) < 2:
        raise ValueError(f"{len(studied)} tasks were studied; at least 2 are needed to compare")
    differences = []
    for name, is_ratio in COMPARED.items():
        known, here = _scaled(studied[name], is_ratio), _scaled(card.to_dict()[name], is_ratio)
        spread = np.nanstd(known) if np.isfinite(known).any() else 0.0
        if spread > 1e-9:  # otherwise equal in all tasks
            differences.append((known - here) / spread)
    squares = np.square(differences)
    known = np.isfinite(squares)
    mean = np.where(known, squares, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return studied.assign(distance=np.sqrt(mean)).sort_values("distance", kind="stable")


def unlike_the_study(card: TaskCard, studied: "pd.DataFrame") -> dict[str, tuple]:
    """Return the numbers of a card that lie outside the study: {name: (here, lowest, highest)}."""
    outside = {}
    for name in COMPARED:
        here, known = card.to_dict()[name], studied[name].dropna()
        if here is not None and len(known) and not known.min() <= here <= known.max():
            outside[name] = (here, known.min(), known.max())
    return outside


def _scaled(values: object, is_ratio: bool) -> np.ndarray:
    numbers = np.asarray(values, dtype=float)  # None becomes NaN
    return np.log(numbers) if is_ratio else numbers
