"""Figures of many runs, drawn from the tables of `statistics` and `metrics`."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from activekd_lite.analysis.paired import cannot_show, mean_interval, runs_needed
from activekd_lite.analysis.statistics import (
    VALUES,
    Ranking,
    Results,
    aulc,
    curves_frame,
    gains,
    interval_text,
    one_setting,
    query_diagnostics,
    teacher_curve,
)
from activekd_lite.plots.base import INK, PALE, SEQUENTIAL, Figure, colour, marker

AXES = {
    "accuracy_pct": "test accuracy (%)",
    "calibration_error_pct": "calibration error (%)",
    "covering_radius": "covering radius in probability space",
    "teacher_accuracy_pct": "teacher's test accuracy (%)",
    "ce_accuracy_pct": "test accuracy of the ce head (%)",
    "kd_accuracy_pct": "test accuracy of the kd head (%)",
    "label_imbalance": "class imbalance of the labels",
    "query_imbalance": "class imbalance of the query",
    "label_imbalance_ratio": "largest / smallest class count",
    "mean_nearest_distance": "mean distance to the nearest labelled image, in probability space",
    "nearest_neighbor_loss_pct": "nearest-neighbour loss in probability space (%)",
    "cluster_purity_pct": "cluster purity in probability space (%)",
    "few_shot_accuracy_pct": "test accuracy of a few-shot teacher (%)",
    "query_uncertainty": "normalised entropy of the query",
    "query_feature_diversity": "feature diversity of the query",
    "query_probability_diversity": "probability diversity of the query",
}
TEACHER = "#555555"


def learning_curves(
    results: Results,
    *,
    value: str = "accuracy_pct",
    teacher_accuracy_pct: float | None = None,
    title: str = "",
) -> Figure:
    """Plot test accuracy, or another recorded value, against the number of labels in one setting.

    Each strategy has a colour and a marker; curves without distillation are dashed; bars are 95 %
    intervals over the seeds. The teacher's own accuracy is dotted.

    Parameters
    ----------
    value
        A field of `RoundRecord`.
    teacher_accuracy_pct
        Drawn as a line if the runs did not record the teacher's accuracy.

    Raises
    ------
    ValueError
        If the runs belong to several settings (pass one of `statistics.settings(results)`), or if
        no run recorded `value`.
    """
    table, axis = one_setting(results), AXES.get(value, value)
    curves = shown = curves_frame(table, value)
    lines, level = _strategy_lines(curves, axis), teacher_accuracy_pct
    taught = teacher_curve(table) if value == "accuracy_pct" else pd.DataFrame()
    if len(taught):
        shown = pd.concat([curves, taught], ignore_index=True)
        level = taught["mean"].iloc[0]
        if np.ptp(taught["mean"]) > 1e-6:  # a teacher that learns has a curve
            lines, level = [*lines, (_teacher_line(taught), taught)], None
    phrases = [_endpoints(line.name, curve) for line, curve in lines]
    phrases += [] if level is None else [f"teacher alone: {level:.3g}"]
    alt = f"{axis} by number of labels. {'; '.join(phrases)}."
    figure = Figure([line for line, _ in lines], table=shown, alt=alt)
    if level is not None:
        look = dict(line_dash="dot", line_color=TEACHER)
        figure.add_hline(level, **look, annotation_text=f"teacher alone {level:.1f}")
    figure.update_xaxes(title="labels").update_yaxes(title=axis)
    subject = "learning curves" if value == "accuracy_pct" else axis
    title = title or f"{table['dataset'].iloc[0]}: {subject}"
    return figure.update_layout(title=title, hovermode="x unified")


def _strategy_lines(curves: pd.DataFrame, axis: str) -> list[tuple[go.Scatter, pd.DataFrame]]:
    """One trace per strategy and side, each with its curve."""
    strategies, lines = list(dict.fromkeys(curves["strategy"])), []
    for (strategy, distill), curve in curves.groupby(["strategy", "distill"], sort=False):
        place = strategies.index(strategy)
        several = bool((curve["n"] > 1).all())
        line = go.Scatter(
            x=curve["labeled_count"],
            y=curve["mean"],
            mode="lines+markers",
            name=f"{strategy}{'' if distill else ', no distillation'}",
            legendgroup=strategy,
            error_y=dict(array=curve["half_width"], visible=several, thickness=1, width=3),
            line=dict(color=colour(place), dash="solid" if distill else "dash"),
            marker=dict(symbol=marker(place) + ("" if distill else "-open"), size=9),
            hovertemplate="%{y:.1f}" if "(%)" in axis else "%{y:.3f}",
        )
        lines.append((line, curve))
    return lines


def _teacher_line(taught: pd.DataFrame) -> go.Scatter:
    name, line = "teacher, mean over strategies", dict(color=TEACHER, dash="dot", width=3)
    x, y = taught["labeled_count"], taught["mean"]
    return go.Scatter(x=x, y=y, mode="lines", name=name, line=line, hovertemplate="%{y:.1f}")


def _endpoints(name: str, curve: pd.DataFrame) -> str:
    ends = (f"{r.mean:.3g} at {r.labeled_count}" for r in curve.iloc[[0, -1]].itertuples())
    return f"{name}: from {' to '.join(ends)}"


def aulc_intervals(results: Results, title: str = "") -> Figure:
    """Plot the mean accuracy over the rounds (AULC) of each strategy of one setting.

    With and without the teacher, with 95 % intervals over the seeds. Incomplete runs are left out.
    """
    runs = aulc(one_setting(results)).query("whole")
    runs["series"] = np.where(runs["distill"], "with teacher", "without")
    groups = runs.groupby(["strategy", "series"], sort=False)["aulc_pct"]
    rows = [(*key, *mean_interval(values), len(values)) for key, values in groups]
    table = pd.DataFrame(rows, columns=["group", "series", "mean", "half_width", "n"])
    title = title or "Area under the learning curve"
    return interval_dots(table, x_title="mean accuracy over the rounds (%)", title=title)


def gain_intervals(results: Results, title: str = "") -> Figure:
    """Plot what distillation adds to each strategy of one setting, paired by seed.

    In the first round, on average over the rounds, and in the last round.
    Raises ValueError if no strategy has a seed with both sides.
    """
    table = gains(one_setting(results)).rename(columns={"strategy": "group", "value": "series"})
    if table.empty:
        raise ValueError(
            "no gain to show: no strategy has the same seed with and without distillation"
        )
    table = table.drop(columns="setting").replace({"series": VALUES})
    title = title or "What the teacher adds (points, paired by seed)"
    figure = interval_dots(table, x_title="with teacher minus without (points)", title=title)
    return figure.add_vline(0, line_dash="dot")


def interval_dots(table: pd.DataFrame, *, x_title: str, title: str = "") -> Figure:
    """Plot means with intervals: one line per `group`, one colour and marker per `series`.

    table: columns group, series, mean, half_width (NaN: no interval) and n.
    """
    groups, series = (list(dict.fromkeys(table[name])) for name in ("group", "series"))
    dots = []
    for place, name in enumerate(series):
        part = table[table["series"] == name]
        shift = (place - (len(series) - 1) / 2) * min(0.25, 0.8 / len(series))
        trace = go.Scatter(
            x=part["mean"],
            y=[groups.index(group) + shift for group in part["group"]],
            mode="markers",
            name=str(name),
            error_x=dict(array=part["half_width"], thickness=2, width=5),
            customdata=part[["half_width", "n"]].to_numpy(),
            marker=dict(color=colour(place), symbol=marker(place), size=11),
            text=part["group"].astype(str),
            hovertemplate="%{text}: %{x:.1f} ± %{customdata[0]:.1f} (n = %{customdata[1]})",
        )
        dots.append(trace)
    several = len(series) > 1
    names = table["group"].astype(str) + (" (" + table["series"] + ")" if several else "")
    rows = zip(names, table["mean"], table["half_width"], strict=True)
    values = "; ".join(f"{name} {interval_text(mean, half)}" for name, mean, half in rows)
    figure = Figure(dots, table=table, alt=f"{x_title}: {values}.")
    span, places = [len(groups) - 0.5, -0.5], list(range(len(groups)))
    figure.update_xaxes(title=x_title)
    figure.update_yaxes(tickvals=places, ticktext=[str(group) for group in groups], range=span)
    return figure.update_layout(title=title, height=170 + 52 * len(groups), showlegend=several)


def win_tie_loss(table: pd.DataFrame, title: str = "") -> Figure:
    """Compare each strategy (row) with each other one (column).

    Colour and number are the mean difference, row - column; below it are wins/ties/losses over the
    paired runs. A star marks a significant difference (Holm-corrected p < 0.05); the subtitle says
    if there are too few runs for one.
    table: from `metrics.paired_comparisons`.
    """
    names = list(dict.fromkeys([*table["a"], *table["b"]]))
    z, text = _cells(table, names)
    size, n, most = len(names), int(table["n"].iloc[0]), max(1e-9, np.nanmax(np.abs(z)))
    wins = [
        f"{r.a} over {r.b}" if r.difference > 0 else f"{r.b} over {r.a}"
        for r in table[table["p_holm"] < 0.05].itertuples()
    ]
    finding, note = f"Significant: {', '.join(wins) or 'none'}", "* significant"
    if table["least"].iloc[0] >= 0.05:
        finding, needed = cannot_show(n, len(table)), runs_needed(len(table))
        note = f"{n} paired runs are too few for a star; at least {needed} are needed"
    look = dict(colorscale="RdBu", zmin=-most * 1.6, zmax=most * 1.6, colorbar_title="points")
    hover = "%{y} vs. %{x}: %{text}<extra></extra>"
    heat = go.Heatmap(
        z=z, x=names, y=names, text=text, texttemplate="%{text}", **look, hovertemplate=hover
    )
    alt = f"Paired differences between {size} strategies. {finding}."
    figure = Figure(heat, table=table, alt=alt)
    figure.update_yaxes(autorange="reversed", title="row ...", showgrid=False)
    figure.update_xaxes(title="... minus column", showgrid=False)
    title = title or "Mean difference in points, wins/ties/losses"
    return figure.update_layout(title=_with_note(title, note), height=210 + 62 * size, margin_t=90)


def _cells(table: pd.DataFrame, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The matrices of `win_tie_loss`: rounded differences and the text of each cell."""
    shape = (len(names), len(names))
    z, text = np.full(shape, np.nan), np.full(shape, "", dtype=object)
    for r in table.round({"difference": 1}).itertuples():
        i, j, star = names.index(r.a), names.index(r.b), " *" if r.p_holm < 0.05 else ""
        z[i, j], z[j, i] = r.difference, 0.0 - r.difference
        text[i, j] = f"{z[i, j] + 0.0:+.1f}{star}<br>{r.wins}/{r.ties}/{r.losses}"
        text[j, i] = f"{z[j, i]:+.1f}{star}<br>{r.losses}/{r.ties}/{r.wins}"
    return z, text


def critical_differences(ranking: Ranking, title: str = "") -> Figure:
    """Plot the mean ranks of the strategies, best first, in a critical-difference diagram.

    Grey bars join strategies that do not differ significantly; the ruler above shows Nemenyi's
    critical difference. ranking: from `statistics.ranking`.
    """
    table, width, groups = ranking.table, ranking.critical_difference, ranking.groups
    size, blocks = len(table), f"{len(ranking.ranks)} {ranking.blocks}"
    joined = "; ".join(", ".join(group) for group in groups) or "none"
    ranks = ", ".join(f"{r.strategy} {r.mean_rank:.2f}" for r in table.itertuples())
    alt = f"Mean ranks over {blocks}: {ranks}. Critical difference: {width:.2f}. "
    alt += f"Not significantly different: {joined}."
    figure = Figure([*_rank_dots(ranking), *_rank_bars(ranking)], table=table, alt=alt)
    note = f"{blocks} are too few to distinguish {size} strategies"
    if width < size - 1:
        note = f"over {blocks}; grey: not significantly different"
        ruler = dict(color=INK, width=3)
        figure.add_shape(type="line", x0=1, x1=1 + width, y0=-1, y1=-1, line=ruler)
        place = dict(x=1, y=-1, xanchor="left", yanchor="bottom", showarrow=False)
        figure.add_annotation(**place, text=f"critical difference {width:.2f}")
    bottom, span = size - 0.25 + 0.35 * len(groups), [0.7, size + 0.3]
    figure.update_xaxes(title="mean rank (1: always best)", range=span, dtick=1, zeroline=False)
    names = dict(tickvals=list(range(size)), ticktext=table["strategy"].tolist())
    figure.update_yaxes(**names, range=[bottom, -1.7], gridcolor=PALE)
    title, height = _with_note(title or "Mean ranks", note), round(200 + 40 * (bottom + 1.7))
    return figure.update_layout(title=title, height=height, showlegend=False, margin_t=90)


def _rank_dots(ranking: Ranking) -> list[go.Scatter]:
    blocks, dots = f"{len(ranking.ranks)} {ranking.blocks}", []
    order = list(ranking.ranks.columns)  # for the colours of the other figures of these runs
    for r in ranking.table.itertuples():
        place = order.index(r.strategy)
        dot = go.Scatter(
            x=[r.mean_rank],
            y=[r.Index],
            mode="markers+text",
            text=[f"{r.mean_rank:.1f}"],
            textposition="top center",
            name=r.strategy,
            marker=dict(color=colour(place), symbol=marker(place), size=14),
            hovertemplate=f"{r.strategy}: mean rank {r.mean_rank:.2f} over {blocks}<extra></extra>",
        )
        dots.append(dot)
    return dots


def _rank_bars(ranking: Ranking) -> list[go.Scatter]:
    mean, bars = ranking.table.set_index("strategy")["mean_rank"], []
    for lane, group in enumerate(ranking.groups):
        bar = go.Scatter(
            x=[mean[group[0]] - 0.04, mean[group[-1]] + 0.04],
            y=[len(mean) - 0.25 + 0.35 * lane] * 2,
            mode="lines",
            line=dict(color="#888888", width=7),
            hovertemplate=f"not significantly different: {', '.join(group)}<extra></extra>",
        )
        bars.append(bar)
    return bars


def first_counts(table: pd.DataFrame, title: str = "") -> Figure:
    """Plot how often each strategy is first or tied for first. table: from `statistics.firsts`."""
    bars, looks = [], [("first", "first", colour(0), ""), ("tied", "tied for first", PALE, "/")]
    for column, name, shade, pattern in looks:
        if column == "tied" and not table["tied"].any():
            continue
        bar = go.Bar(
            y=table["strategy"],
            x=table[column],
            name=name,
            orientation="h",
            marker=dict(color=shade, pattern_shape=pattern),
            text=table[column].where(table[column] > 0, "").astype(str),
            textposition="inside",
            insidetextanchor="end",
            hovertemplate=f"%{{y}}: {name} in %{{x}}<extra></extra>",
        )
        bars.append(bar)
    most, chance = int(table["of"].max()), table["of"].max() / len(table)
    counts = "; ".join(
        f"{r.strategy} {r.first} of {r.of}" + (f", tied in {r.tied}" if r.tied else "")
        for r in table.itertuples()
    )
    figure = Figure(bars, table=table, alt=f"Rounds in which each strategy is first: {counts}.")
    label = dict(annotation_text="if all were equal", annotation_position="top")
    figure.add_vline(chance, line_dash="dot", **label)
    figure.update_xaxes(title=f"times first, of {most} rounds of all settings")
    figure.update_yaxes(autorange="reversed")
    look = dict(barmode="stack", height=190 + 44 * len(table), showlegend=len(bars) > 1)
    return figure.update_layout(title=title or "How often each strategy is first", **look)


def diagnostics(results: Results, *, distill: bool = True, title: str = "") -> Figure:
    """Plot what each strategy of one setting asks for, with its rank in each of four diagnostics.

    As fig. 8 of arXiv:2506.00910; see `statistics.query_diagnostics`.
    Raises ValueError if no run recorded them.
    """
    table = query_diagnostics(results, distill=distill)
    if table.empty:
        raise ValueError("these runs did not record what their queries look like")
    strategies, names = (list(dict.fromkeys(table[name])) for name in ("strategy", "diagnostic"))
    cells = table.pivot(index="strategy", columns="diagnostic").loc[strategies]
    text = cells["mean"].map("{:.2f}".format) + " (" + cells["rank"].map("{:.3g}".format) + ".)"
    leaders = [
        f"{name}: {cells['mean'][name].idxmax()} ({cells['mean'][name].max():.2f})"
        for name in names
    ]
    heat = go.Heatmap(
        z=cells["rank"][names].to_numpy(),
        x=names,
        y=strategies,
        text=text[names].to_numpy(),
        texttemplate="%{text}",
        colorscale=SEQUENTIAL,
        reversescale=True,
        colorbar_title="rank",
        xgap=1,
        ygap=1,
        hovertemplate="%{y}, %{x}: %{text}<extra></extra>",
    )
    alt = f"What the queries look like. Largest {'; '.join(leaders)}."
    figure = Figure(heat, table=table, alt=alt)
    figure.update_xaxes(showgrid=False).update_yaxes(showgrid=False, autorange="reversed")
    note = f"mean over rounds and {table['n'].iloc[0]} seeds, and rank"
    title = _with_note(title or "What the strategies ask for", note)
    return figure.update_layout(title=title, height=210 + 44 * len(strategies), margin_t=90)


def _with_note(title: str, note: str) -> dict:
    return dict(text=title, subtitle=dict(text=note, font_size=15))
