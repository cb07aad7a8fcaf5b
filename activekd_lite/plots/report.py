"""The statistics of many runs as one page that opens without a network: figures, tables, and sentences computed from them.

A sentence says what holds after correction, and as plainly where nothing can be told or where plain learning wins.
"""

import html
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from plotly.offline import get_plotlyjs

from activekd_lite.analysis import statistics
from activekd_lite.analysis.paired import cannot_show, paired_comparisons
from activekd_lite.analysis.statistics import VALUES, Ranking, Results
from activekd_lite.plots import comparisons
from activekd_lite.plots.base import PAGE, Figure, html_of
from activekd_lite.utils.files import write_atomic

SIDES = {True: "With the teacher", False: "Without a teacher"}
Accuracies = Mapping[tuple[str, str], float]


def write(
    results: Results, path: str | os.PathLike, *, teacher_accuracy_pct: Accuracies | None = None,
    failed: Mapping[str, str] | None = None,
) -> Path:  # fmt: skip
    """Write the page and return its path. results: see `statistics`; teacher_accuracy_pct: of (data set, teacher), drawn as a
    line; failed: name of a run -> why it has no results. Raises ValueError for no runs, OSError where it cannot be written."""
    table, path = statistics.tidy_table(results), Path(path)
    parts = statistics.settings(table)
    links = "".join(
        f'<li><a href="#s{i}">{html.escape(name)}</a></li>'
        for i, name in enumerate([*parts, "All settings"])
    )
    body = [
        "<h1>What these runs say</h1>",
        what_was_run(table, parts, failed or {}),
        in_short(parts),
        f"<nav><ul>{links}</ul></nav>",
    ]
    for i, (name, part) in enumerate(parts.items()):
        key = (
            tuple(part[part["distill"]].iloc[0][["dataset", "teacher"]])
            if part["distill"].any()
            else None
        )
        body += [
            f'<section id="s{i}"><h2>{html.escape(name)}</h2>',
            *one_setting(part, (teacher_accuracy_pct or {}).get(key)),
        ]
        body.append("</section>")
    body += [
        f'<section id="s{len(parts)}"><h2>All settings</h2>',
        *all_settings(table, len(parts)),
        HOW_TO_READ,
        "</section>",
    ]
    head = f"<style>{STYLE}</style><script>{get_plotlyjs()}</script>"
    write_atomic(path, PAGE.format(title="What these runs say", head=head, body="\n".join(body)))
    return path


def what_was_run(
    table: pd.DataFrame, parts: Mapping[str, pd.DataFrame], failed: Mapping[str, str]
) -> str:
    """How many runs of what, and which are missing."""
    rows = []
    for name, part in parts.items():
        runs, counts = statistics.aulc(part), part["labeled_count"]
        rows.append({
            "setting": name, "strategies": runs["strategy"].nunique(), "seeds": runs["seed"].nunique(),
            "runs with a teacher": int(runs["distill"].sum()), "without": int((~runs["distill"]).sum()),
            "trainings a run": runs["rounds"].max(), "labels": f"{counts.min()} to {counts.max()}",
        })  # fmt: skip
    said, gone = (
        [_p(f"{len(statistics.aulc(table))} runs, {len(table)} trainings.")],
        statistics.missing(table),
    )
    if len(gone):
        short = [
            "no run" if r.rounds == 0 else f"stopped after {r.rounds} of {r.of} trainings"
            for r in gone.itertuples()
        ]
        columns = ["dataset", "teacher", "vlm", "student", "strategy", "seed"]
        said.append(
            _p(
                f"Missing, or cut short, are {len(gone)} of the runs. Comparisons leave their seeds out:",
                "warn",
            )
        )
        said.append(_table(gone[columns].assign(what=short)))
    if failed:
        said.append(_p(f"Failed: {len(failed)}", "warn"))
        said.append(_table(pd.DataFrame({"run": list(failed), "why": list(failed.values())})))
    return "\n".join([_table(pd.DataFrame(rows)), *said])


def in_short(parts: Mapping[str, pd.DataFrame]) -> str:
    lines = []
    for name, part in parts.items():
        said = [] if (gain := statistics.gains(part)).empty else [gain_said(gain, ["aulc_pct"])]
        said += [
            f"{SIDES[distill]}: {pairs_said(pairs)}" for distill, pairs in _pairs(part).items()
        ]
        lines.append(f"<li><b>{html.escape(name)}.</b> {html.escape(' '.join(said))}</li>")
    return f"<h2>In short</h2><ul>{''.join(lines)}</ul>"


def one_setting(part: pd.DataFrame, teacher_accuracy_pct: float | None = None) -> list[str]:
    """Curves, areas, gain, wins and losses, ranks, calibration, class balance and seconds of a setting, each with its
    sentence."""
    curves = comparisons.learning_curves(part, teacher_accuracy_pct=teacher_accuracy_pct)
    said = curves_said(statistics.curves_frame(part))
    shown = ["<h3>Learning curves</h3>", _p(said), _figure(curves, legend=True), *_teacher(part)]
    areas = statistics.summary(part).drop(columns="data set")
    shown += ["<h3>Area under the learning curve</h3>", _p(areas_said(part)), _table(areas)]
    shown.append(_figure(comparisons.aulc_intervals(part), wide=False, legend=True))
    if len(gain := statistics.gains(part)):
        dots = comparisons.gain_intervals(part)
        shown += [
            "<h3>What the teacher adds</h3>",
            _p(gain_said(gain)),
            _figure(dots, wide=False, legend=True),
        ]
    for distill, pairs in _pairs(part).items():
        shown += [
            f"<h3>{SIDES[distill]}: who beats whom</h3>",
            _p(pairs_said(pairs)),
            _figure(comparisons.win_tie_loss(pairs)),
        ]
        shown += _ranks(statistics.ranking(part, "seed", distill=distill))
    if "calibration_error_pct" in part:
        figure = comparisons.learning_curves(part, value="calibration_error_pct")
        shown += [
            "<h3>Calibration</h3>",
            _p(curves_said(figure.table, "calibration error")),
            _figure(figure, legend=True),
        ]
    return [*shown, *_class_balance(part), *_seconds(part)]


def _teacher(part: pd.DataFrame) -> list[str]:
    """The teacher's own test accuracy: a sentence, and a figure by strategy where it learns from the labels."""
    if not part["distill"].any():
        return []
    taught = statistics.teacher_curve(part)
    shown = ["<h3>The teacher</h3>", _p(teacher_said(taught))]
    if len(taught) and np.ptp(taught["mean"]) > 1e-6:
        figure = comparisons.learning_curves(part[part["distill"]], value="teacher_accuracy_pct")
        shown.append(_figure(figure, legend=True))
    return shown


def _class_balance(part: pd.DataFrame) -> list[str]:
    head = "<h3>Class balance of the labels</h3>"
    if not statistics.recorded(part, "label_imbalance"):
        return [head, _p("class counts were not recorded in these runs.")]
    figure = comparisons.learning_curves(part, value="label_imbalance")
    return [head, _p(balance_said(figure.table)), _figure(figure, legend=True)]


def _seconds(part: pd.DataFrame) -> list[str]:
    """Tables of time by strategy and stage, and by round."""
    stages, rounds = statistics.stage_seconds(part), statistics.round_seconds(part)
    shown = ["<h3>Seconds</h3>", _p(seconds_said(part))]
    if len(stages):
        side = np.where(stages["distill"], "with teacher", "without")
        shown.append(
            _table(stages.assign(distill=side).rename(columns={"distill": "teacher?"}).round(3))
        )
    if len(rounds):
        shown += [
            _p("seconds of each round, all stages together:"),
            _table(rounds.rename(columns={"labeled_count": "labels"}).round(2)),
        ]
    return shown


def all_settings(table: pd.DataFrame, count: int) -> list[str]:
    """Firsts as the paper counts them, and ranks over settings, where there are several."""
    shown = []
    for distill, words in SIDES.items():
        firsts = statistics.firsts(table, distill=distill)
        if len(firsts):
            figure = comparisons.first_counts(firsts)
            shown += [
                f"<h3>{words}: first in x of y</h3>",
                _p(firsts_said(firsts)),
                _figure(figure, wide=False),
            ]
        if len(firsts) and count > 1:
            try:
                shown += _ranks(statistics.ranking(table, "setting", distill=distill))
            except ValueError as error:  # each setting lacks a strategy that another has
                shown.append(_p(f"no ranks over settings: {error}."))
    return shown or [_p("One strategy only: there is nobody to be ahead of.")]


def curves_said(curves: pd.DataFrame, what: str = "test accuracy") -> str:
    """From where to where the mean over the strategies goes. curves: of `statistics.curves_frame`."""
    said = []
    for distill, of in curves.groupby("distill", sort=False):
        mean = of.groupby("labeled_count")["mean"].mean()
        start, end = mean.index[0], mean.index[-1]
        said.append(
            f"{SIDES[distill].lower()} from {mean[start]:.1f} % at {start} labels to {mean[end]:.1f} % at {end}"
        )
    return f"The mean {what} of all strategies goes {'; '.join(said)}."


def teacher_said(taught: pd.DataFrame) -> str:
    """The teacher's own accuracy, and whether it changes. taught: of `statistics.teacher_curve`."""
    if taught.empty:
        return "the teacher's own test accuracy was not recorded in these runs."
    first, last = taught.iloc[0], taught.iloc[-1]
    if np.ptp(taught["mean"]) <= 1e-6:
        return f"the teacher alone has a test accuracy of {first['mean']:.1f} % in every round: it does not learn from labels."
    return (
        f"the teacher learns from the labels: its own test accuracy goes from {first['mean']:.1f} % at "
        f"{first['labeled_count']} labels to {last['mean']:.1f} % at {last['labeled_count']} (mean over the strategies)."
    )


def balance_said(curves: pd.DataFrame) -> str:
    """Whose labels are most and least balanced in the end. curves: of `statistics.curves_frame`, value label_imbalance."""
    said = [
        "imbalance is 1 - normalised entropy of the class counts: 0 for equal counts, 1 where all labels are of one class."
    ]
    for distill, of in curves.groupby("distill", sort=False):
        last = of[of["labeled_count"] == of["labeled_count"].max()].sort_values(
            "mean", kind="stable"
        )
        ends = [f"{r['strategy']} ({r['mean']:.3f})" for r in (last.iloc[0], last.iloc[-1])]
        start = f"{SIDES[distill]}, at {last['labeled_count'].iloc[0]} labels, "
        said.append(
            f"{start}{ends[0]} is the most balanced, {ends[1]} the least."
            if len(last) > 1
            else f"{start}{ends[0]}."
        )
    return " ".join(said)


def seconds_said(part: pd.DataFrame) -> str:
    """What the tables of seconds hold, what was not recorded, and on what it was computed. part: one setting."""
    if not statistics.recorded(part, "seconds"):
        return "time was not recorded in these runs."
    said = "mean seconds per round, over rounds and seeds; select counts only rounds that ask for labels."
    if not statistics.recorded(part, *(f"seconds_{stage}" for stage in statistics.STAGES)):
        said = "seconds per stage were not recorded in these runs."
    devices = sorted(set(part["device"].dropna()) - {""}) if "device" in part else []
    return said + (f" Computed on {'; '.join(devices)}." if devices else "")


def areas_said(part: pd.DataFrame) -> str:
    """How far the strategies lie apart in their mean area. part: one setting."""
    runs, said = statistics.aulc(part).query("whole"), []
    for distill, of in runs.groupby("distill", sort=False):
        mean = of.groupby("strategy", sort=False)["aulc_pct"].mean().sort_values()
        ends = [
            f"{name} ({area:.1f})" for name, area in (*mean.tail(1).items(), *mean.head(1).items())
        ]
        said += [f"{SIDES[distill]} {' is highest, '.join(ends)} lowest."] if len(mean) > 1 else []
    text = "Mean test accuracy over the rounds (%), ± the 95 % interval over seeds; the gain is paired by seed."
    return " ".join([text, *said])


def gain_said(gains: pd.DataFrame, values: list[str] | None = None) -> str:
    """What the teacher adds, for how many strategies beyond their interval, and where plain learning is ahead."""
    said, several = [], gains["strategy"].nunique() > 1
    for value in values or list(VALUES):
        of = gains[gains["value"] == value]
        more, less = of[of["mean"] - of["half_width"] > 0], of[of["mean"] + of["half_width"] < 0]
        line = f"{VALUES[value].capitalize()}: the teacher adds {of['mean'].mean():+.1f} points{' on average' if several else ''}"
        if of["half_width"].isna().all():
            said.append(f"{line}, from a single seed, which says nothing about luck.")
            continue
        line += (
            f", beyond the 95 % interval for {len(more)} of {len(of)} strategies" if several else ""
        )
        ahead = [
            f"{r.strategy} ({statistics.interval_text(r.mean, r.half_width, '+')})"
            for r in less.itertuples()
        ]
        line += f"; plain learning is ahead for {', '.join(ahead)}" if ahead else ""
        open_ = [r.strategy for r in of.itertuples() if not abs(r.mean) > r.half_width]
        line += f"; it cannot be told from 0 for {', '.join(open_)}" if open_ else ""
        said.append(f"{line}.")
    return " ".join(said)


def pairs_said(pairs: pd.DataFrame) -> str:
    """Which differences hold after Holm's correction. pairs: of `metrics.paired_comparisons`."""
    n, count = int(pairs["n"].iloc[0]), len(pairs)
    if n < 2:
        return "one seed that all strategies have says nothing about luck."
    if pairs["least"].iloc[0] >= 0.05:
        return f"{cannot_show(n, count)}."
    sure = pairs[pairs["p_holm"] < 0.05]
    ahead = [
        (r.a, r.b, r.difference) if r.difference > 0 else (r.b, r.a, -r.difference)
        for r in sure.itertuples()
    ]
    if not ahead:
        return f"none of {count} differences holds after Holm's correction ({n} paired seeds): each can be luck."
    said = "; ".join(
        f"{a} over {b} ({gap:+.1f})" for a, b, gap in sorted(ahead, key=lambda row: -row[2])
    )
    return f"{len(ahead)} of {count} differences hold after Holm's correction ({n} paired seeds): {said}."


def ranks_said(ranking: Ranking) -> str:
    """What the ranks over blocks can tell, and of what."""
    table, width, n = ranking.table, ranking.critical_difference, len(ranking.ranks)
    best, size = table.iloc[0], len(table)
    said = f"Over {n} {ranking.blocks} {best['strategy']} has the best mean rank by AULC ({best['mean_rank']:.2f})"
    if width > size - 1:
        said += f", but {n} {ranking.blocks} cannot tell {size} strategies apart: ranks would have to be {width:.2f} apart."
    elif ranking.friedman_p >= 0.05:
        said += f". Ranks as uneven as these can be luck (Friedman's test, p = {ranking.friedman_p:.2g})."
    else:
        behind = table[table["mean_rank"] - best["mean_rank"] >= width]["strategy"]
        p = (
            f" (Friedman's test, p = {ranking.friedman_p:.2g})"
            if np.isfinite(ranking.friedman_p)
            else ""
        )
        said += f"; {', '.join(behind) or 'no other'} ranks lower by more than the critical difference, {width:.2f}{p}."
    seeds = (
        "1 seed that lacks a strategy is"
        if ranking.left_out == 1
        else f"{ranking.left_out} seeds that lack a strategy are"
    )
    left = f" {seeds} left out." if ranking.left_out else ""
    if ranking.blocks == statistics.BLOCKS["seed"]:
        return said + left + " Seeds are luck within one task: this says nothing of other data."
    return said + left + " The test takes settings as independent; those that share data are not."


def firsts_said(firsts: pd.DataFrame) -> str:
    """Who is first most often, as arXiv:2506.00910 counts. firsts: of `statistics.firsts`."""
    top = firsts.iloc[0]
    said = f"First most often: {top['strategy']}, in {top['first']} of {top['of']} comparisons "
    said += f"({100 * top['first'] / top['of']:.0f} %)"
    said += f", level with another in {top['tied']}" if top["tied"] else ""
    said += (
        f", {top['after_2']} of {top['of_after_2']} after the first two rounds"
        if top["of_after_2"]
        else ""
    )
    said += f"; on average {top['mean_lead']:+.1f} points from the best other"
    return f"{said}. Rounds of a run hang together, so these are far fewer than {top['of']} independent draws."


def _pairs(part: pd.DataFrame) -> dict[bool, pd.DataFrame]:
    """The comparisons with a teacher and without, where two strategies share a whole seed."""
    runs, found = statistics.aulc(part), {}
    for distill in (True, False):
        if (runs["distill"] == distill).any():
            values = statistics.paired(part, distill=distill)
            if values.shape[1] > 1 and len(values.dropna()):
                found[distill] = paired_comparisons(values)
    return found


def _ranks(ranking: Ranking) -> list[str]:
    if len(ranking.ranks) < 2:
        return []
    return [_p(ranks_said(ranking)), _figure(comparisons.critical_differences(ranking), wide=False)]


def _figure(figure: Figure, *, wide: bool = True, legend: bool = False) -> str:
    """The figure for a narrow page: its heading is its title; a wide one is scrolled on a phone, its legend goes below."""
    if legend:
        figure.update_layout(
            legend=dict(orientation="h", y=-0.2, yanchor="top", x=0), title_text="", margin_t=36
        )
        figure.update_layout(height=580 if wide else figure.layout.height + 20)
    return f'<div class="scroll"><div class="figure{" wide" * wide}">{html_of(figure)}</div></div>'


def _table(table: pd.DataFrame) -> str:
    return f'<div class="scroll">{table.to_html(index=False, border=0, na_rep="")}</div>'


def _p(text: str, kind: str = "") -> str:
    return f"<p{f' class={kind!r}' if kind else ''}>{html.escape(text[0].upper() + text[1:])}</p>"


STYLE = """
body { color: #222 } h2 { border-top: 2px solid #ddd; padding-top: 1.2rem; margin-top: 2.5rem } h3 { margin: 1.8rem 0 0.4rem }
p, li { max-width: 46rem } a { color: #0055aa } .warn { color: #a8420a; font-weight: bold }
.scroll { overflow-x: auto } .wide { min-width: 600px } nav ul { padding-left: 1.2rem }
table { font-size: 0.95em } th, td { border-bottom: 1px solid #e6e6e6; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
"""

HOW_TO_READ = """<h3>How to read this</h3>
<ul><li><b>Paired.</b> Runs that share a seed share the first labels, the student's first weights and the draws of its batches,
so differences are taken seed by seed. Only seeds in which a comparison has all its runs count.</li>
<li><b>Interval.</b> Student's t, 95 %, over the seeds. Intervals of two strategies may overlap although their paired
difference is sure.</li>
<li><b>More than luck.</b> A permutation test: if two strategies were equal, each seed's difference could as well have the other
sign. Its p-value is the share of all such signs that give as large a mean. n seeds cannot give less than 2 / 2<sup>n</sup>.
Holm's correction then asks for more, the more pairs are compared.</li>
<li><b>Critical difference.</b> Nemenyi's test after Friedman's, on ranks (Demsar 2006). It takes the blocks it ranks in as
independent, and is approximate for few of them. It asks one question of all strategies together, so it may find something where
the corrected test of each pair cannot. "Not told apart" is not "equal".</li>
<li><b>Class imbalance.</b> 1 - H / log C, H the entropy of the label counts of C classes.</li>
<li><b>First in x of y.</b> A comparison is a round of a setting, from round 1 on, by mean accuracy over the seeds.</li></ul>"""
