"""The statistics of many runs as one self-contained page: figures, tables and generated sentences.

A sentence claims a difference only if it is significant after correction, and says just as clearly
where the data cannot tell or where learning without a teacher is better.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from activekd_lite.analysis import statistics
from activekd_lite.analysis.paired import cannot_show, paired_comparisons
from activekd_lite.analysis.statistics import VALUES, Ranking, Results
from activekd_lite.plots import comparisons
from activekd_lite.plots.base import Figure, html_of, render
from activekd_lite.utils.files import write_atomic

SIDES = {True: "With the teacher", False: "Without a teacher"}
Accuracies = Mapping[tuple[str, str], float]
Parts = list[tuple[str, str]]  # (kind, content), as in report.html


def write(
    results: Results,
    path: str | os.PathLike,
    *,
    teacher_accuracy_pct: Accuracies | None = None,
    failed: Mapping[str, str] | None = None,
) -> Path:
    """Write the report and return its path.

    Parameters
    ----------
    results
        As in `statistics`.
    teacher_accuracy_pct
        By (data set, teacher); drawn as a line if the runs did not record it.
    failed
        Name of a failed run -> reason.

    Raises
    ------
    ValueError
        If there are no runs.
    OSError
        If the page cannot be written.
    """
    table, path = statistics.tidy_table(results), Path(path)
    parts = statistics.settings(table)
    levels, settings = teacher_accuracy_pct or {}, []
    for name, part in parts.items():
        taught = part.loc[part["distill"], ["dataset", "teacher"]]
        level = levels.get(tuple(taught.iloc[0])) if len(taught) else None
        shown = one_setting(part, level)
        settings.append({"name": name, "summary": summarize(part), "parts": shown})
    page = render(
        "report.html",
        title="Results of these runs",
        overview=overview(table, parts, failed or {}),
        settings=settings,
        all_settings=all_settings(table, len(parts)),
    )
    write_atomic(path, page)
    return path


def overview(
    table: pd.DataFrame, parts: Mapping[str, pd.DataFrame], failed: Mapping[str, str]
) -> Parts:
    """How many runs there are of each kind, and which are missing."""
    rows, absent = (
        [_setting_row(name, part) for name, part in parts.items()],
        statistics.missing(table),
    )
    shown = [_table(pd.DataFrame(rows))]
    shown.append(("text", f"{len(statistics.aulc(table))} runs, {len(table)} trainings."))
    if len(absent):
        stopped = [
            f"stopped after {r.rounds} of {r.of} trainings" if r.rounds else "no run"
            for r in absent.itertuples()
        ]
        columns = ["dataset", "teacher", "vlm", "student", "strategy", "seed"]
        warning = f"Missing or incomplete runs: {len(absent)}. Comparisons leave out their seeds:"
        shown += [("warning", warning), _table(absent[columns].assign(problem=stopped))]
    if failed:
        reasons = pd.DataFrame({"run": list(failed), "reason": list(failed.values())})
        shown += [("warning", f"Failed runs: {len(failed)}"), _table(reasons)]
    return shown


def _setting_row(name: str, part: pd.DataFrame) -> dict:
    runs, counts = statistics.aulc(part), part["labeled_count"]
    return {
        "setting": name,
        "strategies": runs["strategy"].nunique(),
        "seeds": runs["seed"].nunique(),
        "runs with a teacher": int(runs["distill"].sum()),
        "without": int((~runs["distill"]).sum()),
        "trainings per run": runs["rounds"].max(),
        "labels": f"{counts.min()} to {counts.max()}",
    }


def summarize(part: pd.DataFrame) -> str:
    """The main findings of one setting: the gain, and the significant differences on each side."""
    gain = statistics.gains(part)
    sentences = [describe_gain(gain, ["aulc_pct"])] if len(gain) else []
    for distill, pairs in _pairs(part).items():
        sentences.append(f"{SIDES[distill]}: {describe_pairs(pairs)}")
    return " ".join(sentences)


def one_setting(part: pd.DataFrame, teacher_accuracy_pct: float | None = None) -> Parts:
    """All figures and tables of a setting, each with a sentence."""
    curves = comparisons.learning_curves(part, teacher_accuracy_pct=teacher_accuracy_pct)
    shown = [
        ("heading", "Learning curves"),
        ("text", describe_curves(statistics.curves_frame(part))),
    ]
    shown += [_figure(curves, legend=True), *_teacher(part)]
    areas = statistics.summary(part).drop(columns="data set")
    shown += [("heading", "Area under the learning curve"), ("text", describe_areas(part))]
    shown += [_table(areas), _figure(comparisons.aulc_intervals(part), wide=False, legend=True)]
    if len(gain := statistics.gains(part)):
        shown += [("heading", "What the teacher adds"), ("text", describe_gain(gain))]
        shown.append(_figure(comparisons.gain_intervals(part), wide=False, legend=True))
    for distill, pairs in _pairs(part).items():
        shown += [("heading", f"{SIDES[distill]}: pairwise comparisons")]
        shown += [("text", describe_pairs(pairs)), _figure(comparisons.win_tie_loss(pairs))]
        shown += _ranks(statistics.ranking(part, "seed", distill=distill))
    if "calibration_error_pct" in part:
        figure = comparisons.learning_curves(part, value="calibration_error_pct")
        sentence = describe_curves(figure.table, "calibration error")
        shown += [("heading", "Calibration"), ("text", sentence), _figure(figure, legend=True)]
    return [*shown, *_class_balance(part), *_structure(part), *_queries(part), *_seconds(part)]


def _teacher(part: pd.DataFrame) -> Parts:
    """The teacher's own test accuracy; with a figure by strategy if it learns from the labels."""
    if not part["distill"].any():
        return []
    taught = statistics.teacher_curve(part)
    shown = [("heading", "The teacher"), ("text", describe_teacher(taught))]
    if len(taught) and np.ptp(taught["mean"]) > 1e-6:
        figure = comparisons.learning_curves(part[part["distill"]], value="teacher_accuracy_pct")
        shown.append(_figure(figure, legend=True))
    return shown


def _class_balance(part: pd.DataFrame) -> Parts:
    heading = ("heading", "Class balance of the labels")
    if not statistics.recorded(part, "label_imbalance"):
        return [heading, ("text", "Class counts were not recorded in these runs.")]
    figure = comparisons.learning_curves(part, value="label_imbalance")
    return [heading, ("text", describe_balance(figure.table)), _figure(figure, legend=True)]


def _structure(part: pd.DataFrame) -> Parts:
    """Curves of how well labelled images stand for the others in probability space."""
    shown = []
    for value in ("nearest_neighbor_loss_pct", "cluster_purity_pct", "few_shot_accuracy_pct"):
        if statistics.recorded(part, value):
            figure = comparisons.learning_curves(part.dropna(subset=value), value=value)
            sentence = describe_ends(figure.table, comparisons.AXES[value])
            shown += [("text", sentence), _figure(figure, legend=True)]
    return [("heading", "Structure of the student's probabilities"), *shown] if shown else []


def _queries(part: pd.DataFrame) -> Parts:
    """What the strategies ask for, by four diagnostics."""
    shown = []
    for distill, side in SIDES.items():
        if (part["distill"] == distill).any():
            table = statistics.query_diagnostics(part, distill=distill)
            if len(table):
                figure = comparisons.diagnostics(part, distill=distill)
                shown += [("text", f"{side}: {describe_diagnostics(table)}"), _figure(figure)]
    return [("heading", "What the strategies ask for"), *shown] if shown else []


def _seconds(part: pd.DataFrame) -> Parts:
    """Tables of time by strategy and stage, and by round."""
    stages, rounds = statistics.stage_seconds(part), statistics.round_seconds(part)
    shown = [("heading", "Seconds"), ("text", describe_seconds(part))]
    if len(stages):
        stages["distill"] = np.where(stages["distill"], "with teacher", "without")
        shown.append(_table(stages.rename(columns={"distill": "teacher?"}).round(3)))
    if len(rounds):
        rounds = rounds.rename(columns={"labeled_count": "labels"}).round(2)
        shown += [("text", "Seconds of each round, all stages together:"), _table(rounds)]
    return shown


def all_settings(table: pd.DataFrame, count: int) -> Parts:
    """How often each strategy is first, and ranks over settings if there are several."""
    shown = []
    for distill, side in SIDES.items():
        firsts = statistics.firsts(table, distill=distill)
        if firsts.empty:
            continue
        shown += [("heading", f"{side}: first in x of y"), ("text", describe_firsts(firsts))]
        shown.append(_figure(comparisons.first_counts(firsts), wide=False))
        if count > 1:
            try:
                shown += _ranks(statistics.ranking(table, "setting", distill=distill))
            except ValueError as error:  # each setting lacks a strategy that another has
                shown.append(("text", f"No ranks over settings: {error}."))
    return shown or [("text", "There is only one strategy, so there is nothing to compare.")]


def describe_curves(curves: pd.DataFrame, quantity: str = "test accuracy") -> str:
    """The mean over the strategies at both ends. curves: from `statistics.curves_frame`."""
    sides = []
    for distill, curve in curves.groupby("distill", sort=False):
        mean = curve.groupby("labeled_count")["mean"].mean().iloc[[0, -1]]
        ends = " to ".join(f"{value:.1f} % at {count} labels" for count, value in mean.items())
        sides.append(f"{SIDES[distill].lower()}, from {ends}")
    return f"Mean {quantity} of all strategies: {'; '.join(sides)}."


def describe_teacher(taught: pd.DataFrame) -> str:
    """The teacher's own accuracy, and whether it changes.

    taught: from `statistics.teacher_curve`.
    """
    if taught.empty:
        return "The teacher's own test accuracy was not recorded in these runs."
    first, last = taught.iloc[0], taught.iloc[-1]
    if np.ptp(taught["mean"]) <= 1e-6:
        return (
            f"The teacher's own test accuracy is {first['mean']:.1f} % in every round: "
            "it does not learn from the labels."
        )
    return (
        "The teacher learns from the labels: its own test accuracy goes from "
        f"{first['mean']:.1f} % at {first['labeled_count']} labels to "
        f"{last['mean']:.1f} % at {last['labeled_count']} (mean over the strategies)."
    )


def describe_balance(curves: pd.DataFrame) -> str:
    """Which strategy's final labels are most and least balanced.

    curves: from `statistics.curves_frame`, with the value label_imbalance.
    """
    sentences = [
        "Imbalance is 1 minus the normalised entropy of the class counts: "
        "0 if all counts are equal, 1 if all labels are of one class."
    ]
    for distill, curve in curves.groupby("distill", sort=False):
        count = curve["labeled_count"].max()
        last = curve[curve["labeled_count"] == count].sort_values("mean", kind="stable")
        ends = [f"{r['strategy']} ({r['mean']:.3f})" for r in (last.iloc[0], last.iloc[-1])]
        finding = f"{ends[0]} is most balanced, {ends[1]} least" if len(last) > 1 else ends[0]
        sentences.append(f"{SIDES[distill]}, at {count} labels: {finding}.")
    return " ".join(sentences)


def describe_ends(curves: pd.DataFrame, quantity: str) -> str:
    """Which strategy has the highest and the lowest value after the last round.

    curves: from `statistics.curves_frame`.
    """
    sentences = []
    for distill, curve in curves.groupby("distill", sort=False):
        count = curve["labeled_count"].max()
        last = curve[curve["labeled_count"] == count].sort_values("mean", kind="stable")
        low, high = (f"{r['strategy']} ({r['mean']:.3g})" for r in (last.iloc[0], last.iloc[-1]))
        finding = f"{high} is highest, {low} lowest" if len(last) > 1 else high
        sentences.append(f"{SIDES[distill]}, at {count} labels: {finding}.")
    return f"{quantity[0].upper()}{quantity[1:]}. {' '.join(sentences)}"


def describe_diagnostics(table: pd.DataFrame) -> str:
    """Which strategy leads in each diagnostic. table: from `statistics.query_diagnostics`."""
    leaders = table.loc[table.groupby("diagnostic", sort=False)["mean"].idxmax()]
    parts = (f"{r['diagnostic']} {r['strategy']} ({r['mean']:.2f})" for _, r in leaders.iterrows())
    return (
        f"largest {', '.join(parts)}, on average over the rounds. Uncertainty and class balance "
        "are normalised entropies; diversity is the mean distance to the nearest other chosen "
        "image, over the root mean square distance of two random images."
    )


def describe_seconds(part: pd.DataFrame) -> str:
    """What the time tables of one setting show, and on which device the runs were computed."""
    if not statistics.recorded(part, "seconds"):
        return "Time was not recorded in these runs."
    text = "Mean seconds per round, over rounds and seeds; select averages rounds with a query."
    if not statistics.recorded(part, *(f"seconds_{stage}" for stage in statistics.STAGES)):
        text = "Seconds per stage were not recorded in these runs."
    devices = sorted(set(part["device"].dropna()) - {""}) if "device" in part else []
    return text + (f" Computed on: {'; '.join(devices)}." if devices else "")


def describe_areas(part: pd.DataFrame) -> str:
    """The highest and the lowest mean area under the learning curve in one setting."""
    sentences = [
        "Mean test accuracy over the rounds (%) ± 95 % interval over the seeds; "
        "the gain is paired by seed."
    ]
    for distill, runs in statistics.aulc(part).query("whole").groupby("distill", sort=False):
        mean = runs.groupby("strategy", sort=False)["aulc_pct"].mean().sort_values()
        low, high = (f"{mean.index[k]} ({mean.iloc[k]:.1f})" for k in (0, -1))
        if len(mean) > 1:
            sentences.append(f"{SIDES[distill]}, {high} is highest and {low} lowest.")
    return " ".join(sentences)


def describe_gain(gains: pd.DataFrame, values: list[str] | None = None) -> str:
    """What the teacher adds, and for which strategies the interval excludes 0.

    gains: from `statistics.gains`, of one setting.
    """
    rows = ((value, gains[gains["value"] == value]) for value in values or VALUES)
    return " ".join(f"{VALUES[value].capitalize()}: {_gain(table)}." for value, table in rows)


def _gain(table: pd.DataFrame) -> str:
    several, half_width = len(table) > 1, table["half_width"]
    text = f"the teacher changes accuracy by {table['mean'].mean():+.1f} points"
    text += " on average" if several else ""
    if half_width.isna().all():
        return f"{text}, but a single seed cannot show whether that is chance"
    worse = [
        f"{r.strategy} ({statistics.interval_text(r.mean, r.half_width, '+')})"
        for r in table[table["mean"] + half_width < 0].itertuples()
    ]
    unclear = table.loc[~(table["mean"].abs() > half_width), "strategy"]
    better = (table["mean"] - half_width > 0).sum()
    if several:
        text += f"; the 95 % interval is above 0 for {better} of {len(table)} strategies"
    text += f"; learning without a teacher is better for {', '.join(worse)}" if worse else ""
    return text + (f"; the interval includes 0 for {', '.join(unclear)}" if len(unclear) else "")


def describe_pairs(pairs: pd.DataFrame) -> str:
    """The differences that are significant after Holm's correction, largest first.

    pairs: from `metrics.paired_comparisons`.
    """
    n, count = int(pairs["n"].iloc[0]), len(pairs)
    if n < 2:
        return "Only one seed has all strategies, so no difference can be tested."
    if pairs["least"].iloc[0] >= 0.05:
        return f"{cannot_show(n, count)}."
    significant = [
        (r.a, r.b, r.difference) if r.difference > 0 else (r.b, r.a, -r.difference)
        for r in pairs[pairs["p_holm"] < 0.05].itertuples()
    ]
    ordered = sorted(significant, key=lambda row: -row[2])
    found = "; ".join(f"{a} over {b} ({difference:+.1f})" for a, b, difference in ordered)
    text = f"{len(significant) or 'none'} of {count}{': ' if found else ''}{found}"
    return f"Significant differences after Holm's correction ({n} paired seeds): {text}."


def describe_ranks(ranking: Ranking) -> str:
    """Which strategy ranks best, which rank significantly lower, and what that does not show."""
    table, width, p = ranking.table, ranking.critical_difference, ranking.friedman_p
    best, size, blocks = table.iloc[0], len(table), f"{len(ranking.ranks)} {ranking.blocks}"
    text = (
        f"{best['strategy']} has the best mean rank by AULC ({best['mean_rank']:.2f}) over {blocks}"
    )
    friedman = f"Friedman's test, p = {p:.2g}"
    if width > size - 1:
        text += f", but {blocks} are too few to distinguish {size} strategies"
        text += f": ranks would have to differ by {width:.2f}."
    elif p >= 0.05:
        text += f", but the ranks do not differ significantly ({friedman})."
    else:
        lower = table[table["mean_rank"] - best["mean_rank"] >= width]["strategy"]
        test = f"; {friedman}" if np.isfinite(p) else ""
        text += f". Significantly lower: {', '.join(lower) or 'none'}"
        text += f" (critical difference {width:.2f}{test})."
    if ranking.left_out:
        text += f" Seeds left out because they lack a strategy: {ranking.left_out}."
    if ranking.blocks == statistics.BLOCKS["seed"]:
        return text + " Seeds vary only chance within one task: this says nothing about other data."
    return text + " The test assumes independent settings; settings that share data are not."


def describe_firsts(firsts: pd.DataFrame) -> str:
    """Which strategy is first most often, as counted in arXiv:2506.00910.

    firsts: from `statistics.firsts`.
    """
    top = firsts.iloc[0]
    share = 100 * top["first"] / top["of"]
    text = f"{top['strategy']} is first most often: in {top['first']} of {top['of']} comparisons"
    text += f" ({share:.0f} %)" + (f", tied for first in {top['tied']}" if top["tied"] else "")
    if top["of_after_2"]:
        text += f"; from round 3 on, in {top['after_2']} of {top['of_after_2']}"
    return (
        f"{text}. Its mean lead over the best other strategy is {top['mean_lead']:+.1f} points. "
        "Rounds of a run depend on each other, so this is weaker evidence than "
        f"{top['of']} independent comparisons."
    )


def _pairs(part: pd.DataFrame) -> dict[bool, pd.DataFrame]:
    """The comparisons with a teacher and without, where two strategies share a complete seed."""
    runs, found = statistics.aulc(part), {}
    for distill in (True, False):
        if (runs["distill"] == distill).any():
            values = statistics.paired(part, distill=distill)
            if values.shape[1] > 1 and len(values.dropna()):
                found[distill] = paired_comparisons(values)
    return found


def _ranks(ranking: Ranking) -> Parts:
    if len(ranking.ranks) < 2:
        return []
    figure = comparisons.critical_differences(ranking)
    return [("text", describe_ranks(ranking)), _figure(figure, wide=False)]


def _figure(figure: Figure, *, wide: bool = True, legend: bool = False) -> tuple[str, str]:
    """A figure for a narrow page; a wide one can be scrolled on a phone.

    With a legend, the title is dropped (the heading replaces it) and the legend moves below.
    """
    if legend:
        below = dict(orientation="h", y=-0.2, yanchor="top", x=0)
        height = 580 if wide else figure.layout.height + 20
        figure.update_layout(legend=below, title_text="", margin_t=36, height=height)
    return "figure wide" if wide else "figure", html_of(figure)


def _table(table: pd.DataFrame) -> tuple[str, str]:
    return "table", table.to_html(index=False, border=0, na_rep="")
