"""What the study over tasks says of a new one: tasks with a similar card, and who won there."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from activekd_lite.analysis.card import TaskCard
from activekd_lite.analysis.paired import mean_interval
from activekd_lite.analysis.statistics import Results
from activekd_lite.analysis.tasks import paired_areas
from activekd_lite.utils.files import embedded_folder

AGAINST = ("random", "coreset")  # whom PCoreSet is compared with

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


@dataclass(frozen=True)
class Advice:
    """What a study says of tasks like a given one.

    nearest: a row per task, the most similar first: dataset, distance (see `similar_tasks`), best
    (the strategy with the largest mean area under the learning curve), and for each rival in
    AGAINST the lead of PCoreSet over it in points.
    mean_ranks: of the strategies over these tasks, best first; 1: always best.
    outside: see `unlike_the_study`.
    """

    nearest: pd.DataFrame
    mean_ranks: pd.Series
    outside: dict[str, tuple]

    def lead(self, rival: str) -> tuple[float, float]:
        """Mean and half-width (95 %, over these tasks) of PCoreSet's lead over a rival."""
        return mean_interval(self.nearest[f"over {rival}"])


def load_study() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the embedded study over tasks: a card per task, and the rounds of the runs."""
    folder = embedded_folder("study")
    return pd.read_parquet(folder / "cards.parquet"), pd.read_parquet(folder / "tasks.parquet")


def advise(card: TaskCard, cards: pd.DataFrame, results: Results, count: int = 5) -> Advice:
    """Compare a task with the most similar ones of a study, in which students had a teacher.

    cards: a row per task, with the fields of `TaskCard`; results: the runs on these tasks.
    count: how many similar tasks to look at.
    Raises ValueError if the study has fewer than two tasks.
    """
    areas = paired_areas(results).dropna().groupby("dataset").mean()
    nearest = similar_tasks(card, cards[cards["dataset"].isin(areas.index)]).head(count)
    table = areas.loc[nearest["dataset"]]
    found = nearest[["dataset", "distance"]].reset_index(drop=True)
    found["best"] = table.idxmax(axis=1).to_numpy()
    for rival in AGAINST:
        found[f"over {rival}"] = (table["pcoreset"] - table[rival]).to_numpy()
    ranks = table.round(9).rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    return Advice(found, ranks, unlike_the_study(card, cards))


def similar_tasks(card: TaskCard, studied: pd.DataFrame) -> pd.DataFrame:
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


def unlike_the_study(card: TaskCard, studied: pd.DataFrame) -> dict[str, tuple]:
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
