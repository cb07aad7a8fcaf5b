"""Tables of finished runs: learning curves, areas under them, gains, ranks and leads.

`results` is the tidy table of `sweep.load` (one row per round of each run) or a sequence of
RunResults. A *setting* is everything that a comparison of strategies holds fixed: data set, teacher
and its model, student, query size, first labels. Runs of a setting with the same seed are *paired*:
they share the first labels, the student's initial weights and the order of its batches.

A run without distillation has no teacher; it is compared with every teacher of its data set.
Paired comparisons use complete seeds only: if a run failed or stopped early, its seed is left out
of the comparisons that need it, and `missing` lists it.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from activekd_lite.analysis.paired import mean_interval
from activekd_lite.runs.record import RunResult
from activekd_lite.strategies import STRATEGIES

SETTING = ["dataset", "vlm", "teacher", "student", "query_size", "shots", "selection_source"]
PLAIN = [
    "dataset",
    "student",
    "query_size",
    "shots",
]  # shared with the matching runs without teacher
RUN = [*SETTING, "strategy", "distill", "seed"]
NEEDED = [*(c for c in RUN if c != "selection_source"), "round", "labeled_count", "accuracy_pct"]
CURVE = ["strategy", "distill", "labeled_count", "mean", "half_width", "n"]
# Columns of `aulc`, in words
VALUES = {"first_pct": "first round", "aulc_pct": "mean of the rounds", "last_pct": "last round"}
# What describes a query, in words, and its column of `RoundRecord`; class balance is 1 - imbalance
DIAGNOSTICS = {
    "uncertainty": "query_uncertainty",
    "class balance": "query_imbalance",
    "feature diversity": "query_feature_diversity",
    "probability diversity": "query_probability_diversity",
}
STAGES = ("teacher", "train", "predict", "select")  # of a round, as in `RoundRecord.seconds`
Results = pd.DataFrame | Sequence[RunResult]


def tidy_table(results: Results) -> pd.DataFrame:
    """Check the tidy table and sort it.

    Strategies come in the package's order, with distillation before without, then by round.
    `vlm` is "none" for runs without a model; `selection_source` is "mixed" where not recorded.
    Raises ValueError if there are no runs, columns are missing, or a round occurs twice: such runs
    differ in something that the table does not record, so they cannot be paired.
    """
    if not isinstance(results, pd.DataFrame):
        frames = [result.to_frame() for result in results]
        results = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if lacking := [name for name in NEEDED if name not in results]:
        problem = f"without {', '.join(lacking)}" if len(results.columns) else "of no runs"
        raise ValueError(
            f"a table {problem}: pass the table of `sweep.load` or a list of RunResults"
        )
    table = results.astype({"vlm": object})
    table["vlm"] = table["vlm"].where(table["vlm"].notna(), "none")
    source = table.get("selection_source", pd.Series(None, table.index, dtype=object))
    table["selection_source"] = source.where(source.notna(), "mixed")
    _refuse_duplicates(table)
    order = list(dict.fromkeys([*STRATEGIES, *table["strategy"]]))
    table["place"] = table["strategy"].map(order.index)
    keys, ascending = ["place", "distill", "round"], [True, False, True]
    table = table.sort_values(keys, ascending=ascending, kind="stable", ignore_index=True)
    return table.drop(columns="place")


def _refuse_duplicates(table: pd.DataFrame) -> None:
    duplicates = table.loc[table.duplicated([*RUN, "round"]), [*RUN, "round"]]
    if len(duplicates):
        run = ", ".join(f"{name} {value}" for name, value in duplicates.iloc[0].items())
        raise ValueError(
            f"two runs of {run}: they differ in something the table does not record; pass only one"
        )


def settings(results: Results) -> dict[str, pd.DataFrame]:
    """Split the table into settings, by name: "digits", or "digits, clap" if there are several.

    Each setting holds the runs with its teacher and the matching runs without one. Runs without a
    teacher that match no other setting form a setting of their own.
    """
    table = tidy_table(results)
    plain, parts = table["teacher"] == "none", {}
    for key, part in table[~plain].groupby(SETTING, sort=False):
        same = (table[PLAIN] == part[PLAIN].iloc[0]).all(axis=1)
        matching = table[plain & same & table["vlm"].isin(["none", key[1]])]
        parts[key] = pd.concat([part, matching]).sort_index()
    used = {row for part in parts.values() for row in part.index}
    unmatched = table[plain & ~table.index.isin(used)]
    parts |= dict(iter(unmatched.groupby(SETTING, sort=False)))
    return {_name(key, list(parts)): part.reset_index(drop=True) for key, part in parts.items()}


def _name(key: tuple, keys: Sequence[tuple]) -> str:
    """The data set, and whatever distinguishes this setting from others of the same data set."""
    dataset, vlm, teacher, student, query_size, shots, source = key
    same_data = pd.DataFrame([k for k in keys if k[0] == dataset], columns=SETTING)
    labels = {
        "teacher": "no teacher" if teacher == "none" else teacher,
        "vlm": vlm,
        "student": student,
        "selection_source": f"selected by {source}",
        "query_size": f"{query_size} per query",
        "shots": f"{shots} per class at the start",
    }
    differing = [label for name, label in labels.items() if same_data[name].nunique() > 1]
    return ", ".join([dataset, *(label for label in differing if label != "none")])


def one_setting(results: Results) -> pd.DataFrame:
    """The tidy table, if all runs belong to one setting.

    Raises ValueError, with the names of the settings, if there are several.
    """
    if len(found := settings(results)) > 1:
        raise ValueError(
            f"{len(found)} settings ({'; '.join(found)}) cannot be combined; "
            "pass one of `statistics.settings(results)`"
        )
    return next(iter(found.values()))


def curves_frame(results: Results, value: str = "accuracy_pct") -> pd.DataFrame:
    """Learning curves of one setting, with 95 % intervals over the seeds.

    Columns: strategy, distill, labeled_count, mean, half_width, n. Rounds without the value are
    left out. Raises ValueError if no round has it.
    """
    table = one_setting(results)
    if not recorded(table, value):
        columns = ", ".join(table.columns)
        raise ValueError(f"these runs did not record {value}; the columns are {columns}")
    table, keys = table.dropna(subset=value), ["strategy", "distill", "labeled_count"]
    return _intervals(table.groupby(keys, sort=False)[value], keys)


def _intervals(groups: pd.api.typing.SeriesGroupBy, keys: list[str]) -> pd.DataFrame:
    """The columns `keys`, mean, half_width and n of each group of a pandas groupby."""
    rows = [(*key, *mean_interval(values), len(values)) for key, values in groups]
    return pd.DataFrame(rows, columns=[*keys, "mean", "half_width", "n"])


def recorded(table: pd.DataFrame, *columns: str) -> bool:
    """Whether each column is in the table and has a value: runs of version 0.1 lack some."""
    return all(name in table and table[name].notna().any() for name in columns)


def teacher_curve(results: Results) -> pd.DataFrame:
    """The teacher's own test accuracy in one setting: `curves_frame` with the strategy "teacher".

    Averaged over the strategies first, since a few-shot teacher learns from their labels, then over
    the seeds. Empty if it was not recorded.
    """
    table = one_setting(results)
    if not recorded(table, "teacher_accuracy_pct"):
        return pd.DataFrame(columns=CURVE)
    table = table.dropna(subset="teacher_accuracy_pct")
    seeds = table.groupby(["labeled_count", "seed"])["teacher_accuracy_pct"].mean()
    curve = _intervals(seeds.groupby(["labeled_count"]), ["labeled_count"])
    return curve.assign(strategy="teacher", distill=True)[CURVE]


def paired_means(
    results: Results, value: str, *, distill: bool = True, from_round: int = 1
) -> pd.DataFrame:
    """Average a recorded value over the rounds of each run of one setting, for paired comparisons.

    Round 0 is the same for all strategies, so it is left out; a value of the query starts there:
    from_round = 0. Returns seeds as rows and strategies as columns, NaN where a run is missing or
    incomplete, and an empty table if `value` was not recorded.
    """
    table = one_setting(results)
    table = table[(table["distill"] == distill) & (table["round"] >= from_round)]
    if not recorded(table, value):
        return pd.DataFrame()
    runs = table.groupby(["seed", "strategy"], sort=False)
    means = runs[value].mean().where(runs.size() == runs.size().max()).unstack("strategy")
    return means.sort_index()[list(dict.fromkeys(table["strategy"]))]


def query_diagnostics(results: Results, *, distill: bool = True) -> pd.DataFrame:
    """Describe the queries of each strategy of one setting, as fig. 8 of arXiv:2506.00910 does.

    Columns: strategy; diagnostic, one of DIAGNOSTICS (see `scores.query_scores`; class balance is
    the normalised entropy of the answers' classes); mean over the rounds and complete seeds,
    half_width (95 %, Student's t), n; rank of the mean, 1 for the largest.
    Empty if the diagnostics were not recorded.
    """
    rows = []
    for diagnostic, column in DIAGNOSTICS.items():
        runs = paired_means(results, column, distill=distill, from_round=0).dropna()
        if runs.empty:
            continue
        runs = 1 - runs if diagnostic == "class balance" else runs
        ranks = runs.mean().round(9).rank(ascending=False)
        rows += [
            (name, diagnostic, *mean_interval(runs[name]), len(runs), ranks[name]) for name in runs
        ]
    return pd.DataFrame(rows, columns=["strategy", "diagnostic", "mean", "half_width", "n", "rank"])


def stage_seconds(results: Results) -> pd.DataFrame:
    """Mean seconds per round in one setting, by strategy and stage.

    Columns: strategy, distill, STAGES, round (all stages), rounds (their number). `select` averages
    the rounds that request labels, all but the last. Empty if the stages were not recorded.
    """
    table, columns = one_setting(results), [f"seconds_{stage}" for stage in STAGES]
    if not recorded(table, *columns):
        return pd.DataFrame(columns=["strategy", "distill", *STAGES, "round", "rounds"])
    not_last, total = table["round"] < table["round"].max(), table[columns].sum(axis=1)
    selecting = table["seconds_select"].where(not_last)
    table = table.assign(seconds_select=selecting, round=total)
    groups = table.groupby(["strategy", "distill"], sort=False)
    means = groups[[*columns, "round"]].mean().assign(rounds=groups.size()).reset_index()
    return means.rename(columns=dict(zip(columns, STAGES, strict=True)))


def round_seconds(results: Results) -> pd.DataFrame:
    """Mean seconds of each round in one setting, with one column per strategy.

    Columns: round, labeled_count and the strategies; the names of those without a teacher end in
    ", no distillation". Empty if no time was recorded.
    """
    table = one_setting(results)
    if not recorded(table, "seconds"):
        return pd.DataFrame()
    # The table of a sweep has the sum of the stages, that of a RunResult a dictionary.
    total = table["seconds"].map(lambda s: sum(s.values()) if isinstance(s, dict) else s)
    name = table["strategy"] + np.where(table["distill"], "", ", no distillation")
    groups = table.assign(name=name, total=total).groupby(["round", "labeled_count", "name"])
    means = groups["total"].mean().unstack("name")[list(name.unique())]
    return means.reset_index().rename_axis(columns=None)


def aulc(results: Results) -> pd.DataFrame:
    """One row per run: SETTING, strategy, distill, seed, and its accuracies in percent.

    aulc_pct: mean over the rounds; first_pct: round 0; last_pct: the last round.
    rounds: their number; whole: whether it equals that of the longest comparable run.
    """
    runs = tidy_table(results).groupby(RUN, sort=False)["accuracy_pct"]
    columns = dict(aulc_pct="mean", first_pct="first", last_pct="last", rounds="size")
    table = runs.agg(**columns).reset_index()
    return table.assign(whole=table["rounds"] == table.groupby(PLAIN)["rounds"].transform("max"))


def missing(results: Results) -> pd.DataFrame:
    """Runs that stopped early, and seeds that a strategy lacks but others of its setting have.

    Columns: SETTING, strategy, distill, seed, rounds (0: no such run), of (rounds of the other
    runs). Empty if the grid is complete.
    """
    runs, rows = aulc(results), []
    runs["of"] = runs.groupby(PLAIN)["rounds"].transform("max")
    for key, part in runs.groupby(SETTING, sort=False):
        found, most = part.set_index(["strategy", "seed"])["rounds"], part["of"].iloc[0]
        grid = [part["strategy"].unique(), sorted(part["seed"].unique())]
        found = found.reindex(pd.MultiIndex.from_product(grid), fill_value=0)
        distill = key[2] != "none"
        short = found[found < most].items()
        rows += [(*key, strategy, distill, seed, n, most) for (strategy, seed), n in short]
    return pd.DataFrame(rows, columns=[*RUN, "rounds", "of"])


def paired(results: Results, value: str = "aulc_pct", *, distill: bool = True) -> pd.DataFrame:
    """Arrange one setting for `metrics.paired_comparisons`: seeds as rows, strategies as columns.

    value: a column of `aulc`. NaN where there is no complete run.
    Raises ValueError if there is no run with (or without) distillation.
    """
    runs = _runs(one_setting(results), value, distill)
    table = runs[runs["whole"]].pivot(index="seed", columns="strategy", values=value)
    return table.reindex(columns=runs["strategy"].unique())


def _runs(results: Results, value: str, distill: bool) -> pd.DataFrame:
    _check_value(value)
    runs = aulc(results)
    if (runs["distill"] != distill).all():
        raise ValueError(f"no run {'with' if distill else 'without'} distillation in this table")
    return runs[runs["distill"] == distill]


def _check_value(value: str) -> None:
    if value not in VALUES:
        raise ValueError(f"value = {value!r}: expected one of {', '.join(VALUES)}")


def gains(results: Results) -> pd.DataFrame:
    """What distillation adds, in percentage points: differences paired by seed.

    One row per setting, strategy and value ("first_pct": round 0, "aulc_pct", "last_pct"):
    mean and half_width of the 95 % interval (Student's t), n, and left_out, the number of seeds
    that lack either side.
    """
    rows = []
    for name, table in settings(results).items():
        for strategy, runs in aulc(table).groupby("strategy", sort=False):
            rows += [(name, strategy, *row) for row in _gains_of(runs)]
    columns = ["setting", "strategy", "value", "mean", "half_width", "n", "left_out"]
    return pd.DataFrame(rows, columns=columns)


def _gains_of(runs: pd.DataFrame) -> list[tuple]:
    """(value, mean, half_width, n, left_out) for the runs of one strategy in one setting."""
    rows, whole = [], runs[runs["whole"]]
    if set(whole["distill"]) != {True, False}:
        return rows
    for value in VALUES:
        sides = whole.pivot(index="seed", columns="distill", values=value)
        gap = (sides[True] - sides[False]).dropna()
        if len(gap):
            rows.append((value, *mean_interval(gap), len(gap), runs["seed"].nunique() - len(gap)))
    return rows


def summary(results: Results, value: str = "aulc_pct") -> pd.DataFrame:
    """Means and 95 % intervals over the seeds, one row per setting and strategy, as text.

    Columns with and without (distillation), and gain, their difference paired by seed. seeds: their
    number, or "3 and 10" where the two sides differ. A single seed has no interval.
    """
    _check_value(value)
    rows, table = [], gains(results)
    gain = table[table["value"] == value].set_index(["setting", "strategy"])
    for name, part in settings(results).items():
        runs = aulc(part).query("whole")
        for strategy, of_strategy in runs.groupby("strategy", sort=False):
            values = [of_strategy[of_strategy["distill"] == side][value] for side in (True, False)]
            seeds = " and ".join(dict.fromkeys(str(len(v)) for v in values if len(v)))
            sides = [interval_text(*mean_interval(v)) if len(v) else "" for v in values]
            key, added = (name, strategy), ""
            if key in gain.index:
                added = interval_text(*gain.loc[key, ["mean", "half_width"]], "+")
            rows.append((name, strategy, seeds, *sides, added))
    columns = ["data set", "strategy", "seeds", "with", "without", "gain"]
    return pd.DataFrame(rows, columns=columns)


def interval_text(mean: float, half_width: float, sign: str = "") -> str:
    """`interval_text(1.23, 0.45, "+")` -> "+1.2 ± 0.5"; only the mean if half_width is NaN."""
    return f"{mean:{sign}.1f}" + (f" ± {half_width:.1f}" if np.isfinite(half_width) else "")


@dataclass(frozen=True)
class Ranking:
    """Strategies ranked within blocks; the tests assume that blocks are independent.

    ranks: one row per block, one column per strategy; 1 is best, ties share the mean rank.
    blocks: what a block is, in words.
    left_out: number of seeds that lack a strategy.
    """

    ranks: pd.DataFrame
    blocks: str
    left_out: int

    @property
    def table(self) -> pd.DataFrame:
        """strategy, mean_rank and n, the number of blocks; best first."""
        mean = self.ranks.mean().sort_values(kind="stable")
        columns = {"strategy": mean.index, "mean_rank": mean.to_numpy(), "n": len(self.ranks)}
        return pd.DataFrame(columns)

    @property
    def friedman_p(self) -> float:
        """p-value of Friedman's test that all strategies are equal.

        NaN for fewer than 3 strategies or 2 blocks. The chi-squared approximation is good from
        about 10 blocks or 5 strategies.
        """
        if self.ranks.shape[1] < 3 or len(self.ranks) < 2:
            return float("nan")
        if (self.ranks.nunique(axis=1) == 1).all():  # all ties: scipy would divide by 0
            return 1.0
        return float(stats.friedmanchisquare(*self.ranks.to_numpy().T).pvalue)

    @property
    def critical_difference(self) -> float:
        return nemenyi_critical_difference(self.ranks.shape[1], len(self.ranks))

    @property
    def groups(self) -> list[list[str]]:
        """The largest sets of strategies whose mean ranks do not differ significantly."""
        mean, groups = self.table.set_index("strategy")["mean_rank"], []
        for start, rank in enumerate(mean):
            close = mean.index[start:][mean[start:] - rank < self.critical_difference].tolist()
            if len(close) > 1 and not (groups and close[-1] in groups[-1]):
                groups.append(close)
        return groups


@functools.cache
def nemenyi_critical_difference(strategies: int, blocks: int, level: float = 0.95) -> float:
    """The smallest significant difference of mean ranks over independent blocks.

    Nemenyi's test as in Demsar 2006, JMLR 7, section 3.2.2.
    """
    q = stats.studentized_range.ppf(level, strategies, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(strategies * (strategies + 1) / (6 * blocks)))


BLOCKS = {"dataset": "data sets", "setting": "settings", "seed": "paired seeds"}


def ranking(
    results: Results, blocks: str = "setting", *, distill: bool = True, value: str = "aulc_pct"
) -> Ranking:
    """Rank the strategies by `value`, a column of `aulc`, within each block.

    Parameters
    ----------
    blocks
        - "dataset": the textbook choice; values are averaged over complete seeds and settings
        - "setting": averaged over complete seeds; settings that share a data set are not quite
          independent
        - "seed": each seed of each setting. Seeds only vary the randomness within one task, so the
          result says what more seeds of that task would give, and nothing about other data.
    distill
        Rank the runs with a teacher, or those without.

    Raises
    ------
    ValueError
        For another `blocks` or `value`, or if no seed has at least two strategies.
    """
    if blocks not in BLOCKS:
        raise ValueError(f"blocks = {blocks!r}: expected one of {', '.join(BLOCKS)}")
    runs = _runs(results, value, distill)
    order, seed = list(runs["strategy"].unique()), [*SETTING, "seed"]
    values = runs[runs["whole"]].pivot(index=seed, columns="strategy", values=value)
    whole = values.reindex(columns=order).dropna()
    if whole.empty or len(order) < 2:
        raise ValueError(
            f"{len(order)} strategies in {len(whole)} seeds that have all of them: "
            "at least 2 strategies in 1 seed are needed"
        )
    left_out = runs.groupby(seed).ngroups - len(whole)
    if blocks != "seed":
        whole = whole.groupby(SETTING, sort=False).mean()
    if blocks == "dataset":
        whole = whole.groupby("dataset", sort=False).mean()
    return Ranking(whole.round(9).rank(axis=1, ascending=False), BLOCKS[blocks], left_out)


def leads(results: Results, *, distill: bool = True) -> pd.DataFrame:
    """How far each strategy is ahead of the best other one, in each setting and round from 1 on.

    Columns: SETTING, round, strategy, accuracy_pct (mean over complete seeds), lead (percentage
    points; 0: tied for first, negative: behind).
    """
    table, parts = tidy_table(results), []
    for key, part in table[table["distill"] == distill].groupby(SETTING, sort=False):
        strategies, cells = list(part["strategy"].unique()), ["round", "strategy"]
        seeds = part.pivot(index="seed", columns=cells, values="accuracy_pct").dropna()
        if seeds.empty or len(strategies) < 2:
            continue
        mean = seeds.mean().round(9).unstack("strategy")[strategies]
        lead = mean.apply(lambda column, of=mean: column - of.drop(columns=column.name).max(axis=1))
        columns = {"accuracy_pct": mean.stack(), "lead": lead.stack().round(9)}
        long = pd.DataFrame(columns).reset_index().query("round > 0")
        parts.append(long.assign(**dict(zip(SETTING, key, strict=True))))
    columns = [*SETTING, "round", "strategy", "accuracy_pct", "lead"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def firsts(results: Results, *, distill: bool = True) -> pd.DataFrame:
    """Count how often each strategy is first, as arXiv:2506.00910 does.

    A comparison is one round, from 1 on, of one setting, by mean accuracy over the seeds.
    Columns: strategy; first, tied (for first) and of (number of comparisons); after_2 and
    of_after_2, the same from round 3 on; mean_lead over the best other strategy in points.
    Rounds of a run depend on each other, so `of` overstates the number of independent comparisons.
    """
    table = leads(results, distill=distill)
    first, late = table["lead"] > 0, table["round"] > 2
    counts = dict(first=first, tied=table["lead"] == 0, after_2=late & first, of_after_2=late)
    groups = table.assign(**counts).groupby("strategy", sort=False)
    found = groups[list(counts)].sum().assign(of=groups.size(), mean_lead=groups["lead"].mean())
    columns = ["strategy", "first", "tied", "of", "after_2", "of_after_2", "mean_lead"]
    order = ["first", "mean_lead"]
    return found.reset_index()[columns].sort_values(order, ascending=False, ignore_index=True)
