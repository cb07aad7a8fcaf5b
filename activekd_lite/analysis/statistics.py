"""What finished runs say, in tables: curves, areas under them, gains, ranks, firsts. `comparisons` draws them.

`results` is the tidy table of `sweep.load` (a row for each round of each run, see `loop.tidy`) or a sequence of RunResults.
A *setting* is all that strategies are compared within: data set, teacher and its model, student, query size, start. Runs of a
setting that share a seed share the first labels, the student's first weights and the draws of its batches: they are *paired*.
A run without distillation has no teacher, and goes with each teacher of its data set. What is paired uses whole seeds only:
a failed run, or one that was cut short, takes its seed out of the comparisons that need it, and `missing` lists it.
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
]  # what a run with a teacher shares with the plain one that goes with it
RUN = [*SETTING, "strategy", "distill", "seed"]
CURVE = ["strategy", "distill", "labeled_count", "mean", "half_width", "n"]
VALUES = {
    "first_pct": "first round",
    "aulc_pct": "mean of the rounds",
    "last_pct": "last round",
}  # columns of `aulc`, in words
STAGES = ("teacher", "train", "predict", "select")  # of a round, as `RoundRecord.seconds` has them
Results = pd.DataFrame | Sequence[RunResult]


def tidy_table(results: Results) -> pd.DataFrame:
    """The tidy table, checked: strategies in the package's order, with distillation before without, then the rounds. `vlm` is
    "none" where there is none, `selection_source` "mixed" where the table does not tell.

    Raises ValueError for no runs, missing columns, and for a round that is there twice: such runs differ in something that the
    table does not tell, so they cannot be paired.
    """
    if not isinstance(results, pd.DataFrame):
        results = (
            pd.concat([r.to_frame() for r in results], ignore_index=True)
            if len(results)
            else pd.DataFrame()
        )
    needed = [
        name
        for name in [*RUN, "round", "labeled_count", "accuracy_pct"]
        if name != "selection_source"
    ]
    if lacking := [name for name in needed if name not in results]:
        what = f"without {', '.join(lacking)}" if len(results.columns) else "of no runs"
        raise ValueError(f"a table {what}: give what `sweep.load` returns, or a list of RunResults")
    table = results.astype({"vlm": object})
    table["vlm"] = table["vlm"].where(table["vlm"].notna(), "none")
    source = table.get("selection_source", pd.Series(None, table.index, dtype=object))
    table["selection_source"] = source.where(source.notna(), "mixed")
    if len(twice := table[table.duplicated([*RUN, "round"])]):
        run = ", ".join(f"{k} {v}" for k, v in twice.iloc[0][[*RUN, "round"]].items())
        raise ValueError(
            f"two runs of {run}: they differ in what the table does not tell; give one of them"
        )
    places = {
        name: place for place, name in enumerate(dict.fromkeys([*STRATEGIES, *table["strategy"]]))
    }
    table = table.assign(place=table["strategy"].map(places)).sort_values(
        ["place", "distill", "round"],
        ascending=[True, False, True],
        kind="stable",
        ignore_index=True,
    )
    return table.drop(columns="place")


def settings(results: Results) -> dict[str, pd.DataFrame]:
    """The table in settings, by name ("digits", or "digits, clap" where there are several): the runs with that teacher and the
    plain ones that go with them. Plain runs that go with no teacher are a setting of their own."""
    table = tidy_table(results)
    plain, parts = table["teacher"] == "none", {}
    for key, of in table[~plain].groupby(SETTING, sort=False):
        fits = (
            plain
            & (table[PLAIN] == of[PLAIN].iloc[0]).all(axis=1)
            & table["vlm"].isin(["none", key[1]])
        )
        parts[key] = pd.concat([of, table[fits]]).sort_index()
    used = {row for part in parts.values() for row in part.index}
    alone = table[plain & ~table.index.isin(used)]
    parts |= {key: of for key, of in alone.groupby(SETTING, sort=False)}
    return {_named(key, list(parts)): part.reset_index(drop=True) for key, part in parts.items()}


def _named(key: tuple, keys: Sequence[tuple]) -> str:
    """The data set, and whatever tells this setting from the others of the same data set."""
    values = dict(zip(SETTING, key, strict=True))
    of = pd.DataFrame([k for k in keys if k[0] == key[0]], columns=SETTING)
    shown = {
        "teacher": "no teacher" if key[2] == "none" else key[2],
        "vlm": key[1],
        "student": key[3],
    }
    shown["selection_source"] = f"selected by {values['selection_source']}"
    shown |= {
        "query_size": f"{values['query_size']} a query",
        "shots": f"{values['shots']} a class at the start",
    }
    return ", ".join(
        [
            key[0],
            *(text for name, text in shown.items() if of[name].nunique() > 1 and text != "none"),
        ]
    )


def one_setting(results: Results) -> pd.DataFrame:
    """The tidy table, if its runs belong together. Raises ValueError, naming the settings, where there are several."""
    if len(found := settings(results)) > 1:
        raise ValueError(
            f"{len(found)} settings ({'; '.join(found)}) are not to be mixed; give one of `statistics.settings(results)`"
        )
    return next(iter(found.values()))


def curves_frame(results: Results, value: str = "accuracy_pct") -> pd.DataFrame:
    """Learning curves of one setting: strategy, distill, labeled_count, mean and half_width (95 %, over the seeds), n.

    Rounds without the value are left out. Raises ValueError where no round has it.
    """
    table = one_setting(results)
    if not recorded(table, value):
        raise ValueError(
            f"these runs did not record {value}; the columns are {', '.join(table.columns)}"
        )
    groups = table.dropna(subset=value).groupby(
        ["strategy", "distill", "labeled_count"], sort=False
    )[value]
    rows = [(*key, *mean_interval(values), len(values)) for key, values in groups]
    return pd.DataFrame(rows, columns=CURVE)


def recorded(table: pd.DataFrame, *columns: str) -> bool:
    """Whether the table has these columns, each with a value somewhere: runs of version 0.1 lack some."""
    return all(name in table and table[name].notna().any() for name in columns)


def teacher_curve(results: Results) -> pd.DataFrame:
    """The teacher's own test accuracy in one setting: the columns of `curves_frame`, with the strategy "teacher".

    mean: over the strategies, since a few-shot teacher learns from their labels, then over the seeds. Empty where it was not
    recorded.
    """
    table = one_setting(results)
    if not recorded(table, "teacher_accuracy_pct"):
        return pd.DataFrame(columns=CURVE)
    seeds = (
        table.dropna(subset="teacher_accuracy_pct")
        .groupby(["labeled_count", "seed"])["teacher_accuracy_pct"]
        .mean()
    )
    rows = [
        ("teacher", True, count, *mean_interval(of), len(of))
        for count, of in seeds.groupby("labeled_count")
    ]
    return pd.DataFrame(rows, columns=CURVE)


def stage_seconds(results: Results) -> pd.DataFrame:
    """Mean seconds per round in one setting: strategy, distill, STAGES, round (all stages together), rounds (how many).

    select: of the rounds that ask for labels; the last one does not. Empty where the stages were not recorded.
    """
    table, columns = one_setting(results), [f"seconds_{stage}" for stage in STAGES]
    if not recorded(table, *columns):
        return pd.DataFrame(columns=["strategy", "distill", *STAGES, "round", "rounds"])
    asked = table["round"] < table["round"].max()
    table = table.assign(
        seconds_select=table["seconds_select"].where(asked), round=table[columns].sum(axis=1)
    )
    groups = table.groupby(["strategy", "distill"], sort=False)
    found = groups[[*columns, "round"]].mean().assign(rounds=groups.size()).reset_index()
    return found.rename(columns=dict(zip(columns, STAGES, strict=True)))


def round_seconds(results: Results) -> pd.DataFrame:
    """Mean seconds of each round in one setting: round, labeled_count, and a column for each strategy, with ", no distillation"
    in its name where there is no teacher. Empty where no time was recorded."""
    table = one_setting(results)
    if not recorded(table, "seconds"):
        return pd.DataFrame()
    name = table["strategy"] + np.where(table["distill"], "", ", no distillation")
    means = (
        table.assign(name=name, took=_seconds(table))
        .groupby(["round", "labeled_count", "name"])["took"]
        .mean()
    )
    return means.unstack("name")[list(name.unique())].reset_index().rename_axis(columns=None)


def _seconds(table: pd.DataFrame) -> pd.Series:
    """Of each whole round: `seconds` is their sum in the table of a sweep, and by stage in that of a `RunResult`."""
    return table["seconds"].map(lambda s: sum(s.values()) if isinstance(s, dict) else s)


def aulc(results: Results) -> pd.DataFrame:
    """A row a run: the columns SETTING, strategy, distill, seed, aulc_pct (mean accuracy over the rounds), first_pct (round 0),
    last_pct, rounds (how many), and whole: whether it has as many as the longest that it could be compared with."""
    runs = tidy_table(results).groupby(RUN, sort=False)["accuracy_pct"]
    table = runs.agg(
        aulc_pct="mean", first_pct="first", last_pct="last", rounds="size"
    ).reset_index()
    return table.assign(whole=table["rounds"] == table.groupby(PLAIN)["rounds"].transform("max"))


def missing(results: Results) -> pd.DataFrame:
    """Where a strategy lacks a seed that others of its setting have, or was cut short: SETTING, strategy, distill, seed, rounds
    (0: there is no run) and of (how many rounds the others have). Empty where the grid is full."""
    runs, rows = aulc(results), []
    runs["of"] = runs.groupby(PLAIN)["rounds"].transform("max")
    for key, of in runs.groupby(SETTING, sort=False):
        found, most = of.set_index(["strategy", "seed"])["rounds"], of["of"].iloc[0]
        wanted = pd.MultiIndex.from_product([of["strategy"].unique(), sorted(of["seed"].unique())])
        found = found.reindex(wanted, fill_value=0)
        rows += [
            (*key, strategy, key[2] != "none", seed, n, most)
            for (strategy, seed), n in found.items()
            if n < most
        ]
    return pd.DataFrame(rows, columns=[*RUN, "rounds", "of"])


def paired(results: Results, value: str = "aulc_pct", *, distill: bool = True) -> pd.DataFrame:
    """One setting as `metrics.paired_comparisons` takes it: a row a seed, a column a strategy; NaN where no whole run is.

    value: a column of `aulc`. Raises ValueError where there is no run with (or without) distillation.
    """
    runs = _runs(one_setting(results), value, distill)
    return (
        runs[runs["whole"]]
        .pivot(index="seed", columns="strategy", values=value)
        .reindex(columns=runs["strategy"].unique())
    )


def _runs(results: Results, value: str, distill: bool) -> pd.DataFrame:
    _check(value)
    runs = aulc(results)
    if (runs["distill"] != distill).all():
        raise ValueError(f"no run {'with' if distill else 'without'} distillation in this table")
    return runs[runs["distill"] == distill]


def _check(value: str) -> None:
    if value not in VALUES:
        raise ValueError(f"value = {value!r}: one of {', '.join(VALUES)} is needed")


def gains(results: Results) -> pd.DataFrame:
    """What distillation adds, in points, seed by seed: a row for each setting, strategy and value ("first_pct": round 0,
    "aulc_pct", "last_pct"): mean and half_width of the 95 % interval (Student's t), n, and left_out, seeds that lack a side."""
    rows = []
    for name, table in settings(results).items():
        runs = aulc(table)
        for strategy, of in runs.groupby("strategy", sort=False):
            for value in VALUES:
                sides = of[of["whole"]].pivot(index="seed", columns="distill", values=value)
                gap = (sides[True] - sides[False]).dropna() if {True, False} <= set(sides) else []
                if len(gap):
                    rows.append(
                        (
                            name,
                            strategy,
                            value,
                            *mean_interval(gap),
                            len(gap),
                            of["seed"].nunique() - len(gap),
                        )
                    )
    return pd.DataFrame(
        rows, columns=["setting", "strategy", "value", "mean", "half_width", "n", "left_out"]
    )


def summary(results: Results, value: str = "aulc_pct") -> pd.DataFrame:
    """A row for each setting and strategy: mean +- half-width of the 95 % interval over the seeds, with and without
    distillation, and of their difference paired by seed. seeds: how many, "3 and 10" where there are more on one side. Text
    columns, ready to print; one seed has no interval."""
    _check(value)
    rows, gain = [], gains(results)
    gain = gain[gain["value"] == value].set_index(["setting", "strategy"])
    for name, table in settings(results).items():
        runs = aulc(table)
        for strategy, of in runs[runs["whole"]].groupby("strategy", sort=False):
            counts = [n for side in (True, False) if (n := (of["distill"] == side).sum())]
            row = {
                "data set": name,
                "strategy": strategy,
                "seeds": " and ".join(map(str, dict.fromkeys(counts))),
            }
            for column, side in (("with", True), ("without", False)):
                row[column] = (
                    interval_text(*mean_interval(values))
                    if len(values := of[of["distill"] == side][value])
                    else ""
                )
            key = (name, strategy)
            rows.append(
                row
                | {
                    "gain": interval_text(*gain.loc[key, ["mean", "half_width"]], "+")
                    if key in gain.index
                    else ""
                }
            )
    return pd.DataFrame(rows)


def interval_text(mean: float, half_width: float, sign: str = "") -> str:
    """`interval_text(1.23, 0.45, "+")` -> "+1.2 ± 0.5"; without the half-width where it is NaN."""
    return f"{mean:{sign}.1f}" + (f" ± {half_width:.1f}" if np.isfinite(half_width) else "")


@dataclass(frozen=True)
class Ranking:
    """Strategies ranked in blocks: ranks has a row a block, a column a strategy; 1 is the best, equals share the mean rank.

    blocks: what a block is, in words; left_out: seeds that lack a strategy. The tests assume that blocks are independent.
    """

    ranks: pd.DataFrame
    blocks: str
    left_out: int

    @property
    def table(self) -> pd.DataFrame:
        """strategy, mean_rank and n, the number of blocks; the best first."""
        mean = self.ranks.mean().sort_values(kind="stable")
        return pd.DataFrame(
            {"strategy": mean.index, "mean_rank": mean.to_numpy(), "n": len(self.ranks)}
        )

    @property
    def friedman_p(self) -> float:
        """Could ranks as uneven as these come from equal strategies (scipy's Friedman test)? NaN for fewer than 3 strategies or
        2 blocks. The chi-squared approximation wants more than about 10 blocks, or 5 strategies."""
        if self.ranks.shape[1] < 3 or len(self.ranks) < 2:
            return float("nan")
        if (self.ranks.nunique(axis=1) == 1).all():  # all equal: scipy would divide by 0
            return 1.0
        return float(stats.friedmanchisquare(*self.ranks.to_numpy().T).pvalue)

    @property
    def critical_difference(self) -> float:
        return nemenyi_critical_difference(self.ranks.shape[1], len(self.ranks))

    @property
    def groups(self) -> list[list[str]]:
        """The largest sets of two or more strategies whose mean ranks lie within the critical difference: not told apart."""
        mean, found, least = (
            self.table.set_index("strategy")["mean_rank"],
            [],
            self.critical_difference,
        )
        for start, rank in enumerate(mean):
            group = [name for name in mean.index[start:] if mean[name] - rank < least]
            if len(group) > 1 and not (found and group[-1] in found[-1]):
                found.append(group)
        return found


@functools.cache
def nemenyi_critical_difference(strategies: int, blocks: int, level: float = 0.95) -> float:
    """How far mean ranks over independent blocks must be apart (Nemenyi's test as in Demsar 2006, JMLR 7, section 3.2.2)."""
    q = stats.studentized_range.ppf(level, strategies, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(strategies * (strategies + 1) / (6 * blocks)))


BLOCKS = {"dataset": "data sets", "setting": "settings", "seed": "paired seeds"}


def ranking(
    results: Results, blocks: str = "setting", *, distill: bool = True, value: str = "aulc_pct"
) -> Ranking:
    """Rank the strategies by `value`, a column of `aulc`, in each block, with the teacher or without.

    blocks: "dataset", the textbook's use, or "setting": a block is a mean over the whole seeds, and settings that share a data
    set are not quite independent; "seed": each seed of each setting is a block. Seeds are draws of luck within a task: ranks
    over them say what would happen with more seeds of it, nothing of other data. Raises ValueError for another word, and where
    no block has two strategies.
    """
    if blocks not in BLOCKS:
        raise ValueError(f"blocks = {blocks!r}: one of {', '.join(BLOCKS)} is needed")
    runs = _runs(results, value, distill)
    order = list(runs["strategy"].unique())
    values = (
        runs[runs["whole"]]
        .pivot(index=[*SETTING, "seed"], columns="strategy", values=value)
        .reindex(columns=order)
    )
    whole = values.dropna()
    if whole.empty or len(order) < 2:
        raise ValueError(
            f"{len(order)} strategies in {len(whole)} seeds that have them all: at least 2 strategies in 1 seed are needed"
        )
    left_out = runs.groupby([*SETTING, "seed"]).ngroups - len(whole)
    if blocks != "seed":
        whole = whole.groupby(SETTING, sort=False).mean()
    if blocks == "dataset":
        whole = whole.groupby("dataset", sort=False).mean()
    return Ranking(whole.round(9).rank(axis=1, ascending=False), BLOCKS[blocks], left_out)


def leads(results: Results, *, distill: bool = True) -> pd.DataFrame:
    """How far each strategy is ahead of the best of the others: a row for each setting, round from 1 on, and strategy:
    accuracy_pct (mean over the whole seeds) and lead, in points; 0: level with another at the top; below 0: behind."""
    table, parts = tidy_table(results), []
    for key, of in table[table["distill"] == distill].groupby(SETTING, sort=False):
        seeds = of.pivot(
            index="seed", columns=["round", "strategy"], values="accuracy_pct"
        ).dropna()
        if seeds.empty or of["strategy"].nunique() < 2:
            continue
        mean = seeds.mean().round(9).unstack("strategy")[list(of["strategy"].unique())]
        lead = pd.DataFrame(
            {name: mean[name] - mean.drop(columns=name).max(axis=1) for name in mean}
        ).rename_axis(columns="strategy")
        long = pd.DataFrame(
            {"accuracy_pct": mean.stack(), "lead": lead.stack().round(9)}
        ).reset_index()
        parts.append(long[long["round"] > 0].assign(**dict(zip(SETTING, key, strict=True))))
    columns = [*SETTING, "round", "strategy", "accuracy_pct", "lead"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def firsts(results: Results, *, distill: bool = True) -> pd.DataFrame:
    """In how many comparisons is a strategy first, as arXiv:2506.00910 counts? A comparison is a round of a setting, from round
    1 on, by mean accuracy over the seeds: strategy, first, tied (for first), of; after_2 and of_after_2: the same of the rounds
    from 3 on; mean_lead over the best other, in points. Rounds of a run hang together: they are far fewer independent draws
    than `of`.
    """
    found = leads(results, distill=distill)
    late = found["round"] > 2
    counted = found.assign(
        first=found["lead"] > 0,
        tied=found["lead"] == 0,
        after_2=late & (found["lead"] > 0),
        of_after_2=late,
    ).groupby("strategy", sort=False)
    table = (
        counted[["first", "tied", "after_2", "of_after_2"]]
        .sum()
        .assign(of=counted.size(), mean_lead=counted["lead"].mean())
    )
    columns = ["strategy", "first", "tied", "of", "after_2", "of_after_2", "mean_lead"]
    return table.reset_index()[columns].sort_values(
        ["first", "mean_lead"], ascending=False, ignore_index=True
    )
