"""Studies over tasks: how far one strategy leads another on each task, and what that depends on.

One task is one observation. Seeds only say how well its lead is known.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from activekd_lite.analysis.paired import mean_interval
from activekd_lite.analysis.statistics import SETTING, Results, aulc
from activekd_lite.utils.seeding import derive_seed

RESAMPLES = 10_000  # of tasks and seeds


def paired_areas(results: Results, *, distill: bool = True) -> pd.DataFrame:
    """Return the area under each whole learning curve in percent: strategies as columns.

    Rows: every setting and seed, see `statistics.SETTING`. NaN where a run is missing.
    """
    runs = aulc(results)
    runs = runs[(runs["distill"] == distill) & runs["whole"]]
    return runs.pivot(index=[*SETTING, "seed"], columns="strategy", values="aulc_pct")


def paired_leads(
    results: Results, strategy: str = "pcoreset", against: str = "random", *, distill: bool = True
) -> pd.DataFrame:
    """Return the lead of one strategy over another for every task, teacher and seed.

    Columns: dataset, teacher, seed, lead (difference of the areas under the learning curves in
    points). Seeds that lack either run are left out. Raises ValueError if nothing is left.
    """
    table = paired_areas(results, distill=distill).reindex(columns=[strategy, against])
    leads = (table[strategy] - table[against]).dropna().rename("lead").reset_index()
    if leads.empty:
        raise ValueError(f"no task has a seed with both {strategy!r} and {against!r}")
    return leads[["dataset", "teacher", "seed", "lead"]]


def task_leads(leads: pd.DataFrame) -> pd.DataFrame:
    """Average paired leads over the seeds of each task and teacher.

    leads: from `paired_leads`. Columns: dataset, teacher, lead, half_width (95 %, Student's t, over
    the seeds; NaN for one), n (seeds).
    """
    groups = leads.groupby(["dataset", "teacher"], sort=False)["lead"]
    rows = [(*key, *mean_interval(lead), len(lead)) for key, lead in groups]
    return pd.DataFrame(rows, columns=["dataset", "teacher", "lead", "half_width", "n"])


def mean_over_tasks(leads: pd.DataFrame, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean lead over tasks, and the ends of its 95 % interval.

    The bootstrap draws tasks with replacement, and within each of them paired seeds: the interval
    is about other tasks like these. leads: as from `paired_leads`, with the columns dataset, lead.
    Raises ValueError for fewer than two tasks.
    """
    tasks = [lead.to_numpy() for _, lead in leads.groupby("dataset", sort=False)["lead"]]
    if len(tasks) < 2:
        raise ValueError(f"{len(tasks)} tasks; at least 2 are needed for an interval over tasks")
    rng = np.random.default_rng(derive_seed(seed, "tasks"))
    # Each task's mean over seeds drawn with replacement, once for each time the task may be drawn.
    drawn = rng.integers(len(tasks), size=(RESAMPLES, len(tasks)))
    means = np.empty(drawn.shape)
    for place, lead in enumerate(tasks):
        rows, columns = np.nonzero(drawn == place)
        means[rows, columns] = rng.choice(lead, (len(rows), len(lead))).mean(axis=1)
    low, high = np.percentile(means.mean(axis=1), [2.5, 97.5])
    return float(np.mean([lead.mean() for lead in tasks])), float(low), float(high)


def regress(values: Sequence[float], predictors: pd.DataFrame) -> pd.DataFrame:
    """Explain one value per task by several numbers of its card: a linear regression.

    values: (T,), such as leads in points. predictors: (T, P), a column per number.
    The slopes are in points per standard deviation of the predictor over these tasks. Their 95 %
    intervals come from leaving out one task at a time (jackknife; Student's t with T - P - 1
    degrees of freedom).
    Columns: predictor, slope, half_width, n (tasks).
    Raises ValueError unless there are at least P + 2 tasks and every predictor varies.
    """
    y, x = np.asarray(values, dtype=float), predictors.to_numpy(dtype=float)
    tasks, count = x.shape
    if len(y) != tasks or tasks < count + 2:
        raise ValueError(
            f"{len(y)} values and {tasks} tasks for {count} predictors: as many values as tasks "
            f"are needed, and at least {count + 2} of them"
        )
    spread = x.std(axis=0, ddof=1)
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (spread > 0).all()):
        raise ValueError("every predictor must be known for all tasks, and differ among them")
    x = np.column_stack([(x - x.mean(axis=0)) / spread, np.ones(tasks)])

    def slopes(kept: np.ndarray) -> np.ndarray:
        return np.linalg.lstsq(x[kept], y[kept], rcond=None)[0][:-1]

    without = np.array([slopes(np.arange(tasks) != task) for task in range(tasks)])
    error = np.sqrt((tasks - 1) * ((without - without.mean(axis=0)) ** 2).mean(axis=0))
    half_widths = stats.t.ppf(0.975, tasks - count - 1) * error
    columns = {"slope": slopes(np.ones(tasks, dtype=bool)), "half_width": half_widths}
    return pd.DataFrame({"predictor": [*predictors], **columns, "n": tasks})
