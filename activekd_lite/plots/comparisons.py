"""Figures of many runs: curves, areas, gains, wins and losses, ranks, firsts; what `statistics` and `metrics` count, drawn."""

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
    one_setting,
    teacher_curve,
)
from activekd_lite.plots.base import INK, PALE, Figure, colour, marker

AXES = {"accuracy_pct": "test accuracy (%)", "calibration_error_pct": "calibration error (%)",
        "covering_radius": "covering radius in probability space", "teacher_accuracy_pct": "teacher's test accuracy (%)",
        "ce_accuracy_pct": "test accuracy of the ce head (%)", "kd_accuracy_pct": "test accuracy of the kd head (%)",
        "label_imbalance": "class imbalance of the labels",
        "query_imbalance": "class imbalance of the query",
        "label_imbalance_ratio": "largest class count over smallest"}  # fmt: skip
TEACHER = "#555555"


def learning_curves(
    results: Results,
    *,
    value: str = "accuracy_pct",
    teacher_accuracy_pct: float | None = None,
    title: str = "",
) -> Figure:
    """Test accuracy against labels: a colour and marker for each strategy, dashed without distillation, bars over seeds.

    The teacher's own accuracy is dotted where the runs recorded it: a line, or for a teacher that learns a curve.
    value: a field of `RoundRecord`. teacher_accuracy_pct: drawn as a line where the runs did not record it.
    Raises ValueError where the runs are of several settings (data sets, teachers, students): give one of
    `statistics.settings(results)`; and where no run recorded `value`.
    """
    table, axis = one_setting(results), AXES.get(value, value)
    curves, said, lines = curves_frame(table, value), [], []
    strategies = list(dict.fromkeys(curves["strategy"]))
    for (strategy, distill), curve in curves.groupby(["strategy", "distill"], sort=False):
        name = f"{strategy}{'' if distill else ', no distillation'}"
        said.append(_ends(name, curve))
        lines.append(_strategy_line(curve, name, strategies.index(strategy), axis))
    taught = teacher_curve(table) if value == "accuracy_pct" else curves.head(0)
    if learns := len(taught) and np.ptp(taught["mean"]) > 1e-6:
        said.append(_ends("the teacher", taught))
        lines.append(_teacher_line(taught))
    shown = pd.concat([curves, taught], ignore_index=True) if len(taught) else curves
    level = taught["mean"].iloc[0] if len(taught) else teacher_accuracy_pct
    if not learns and level is not None:
        said.append(f"the teacher's own accuracy is {level:.3g}")
    figure = Figure(
        lines, table=shown, alt=f"{axis} against the number of labels. {'; '.join(said)}."
    )
    if not learns and level is not None:
        figure.add_hline(
            level, line_dash="dot", line_color=TEACHER, annotation_text=f"teacher alone {level:.1f}"
        )
    figure.update_xaxes(title="labels")
    figure.update_yaxes(title=axis)
    title = (
        title
        or f"{table['dataset'].iloc[0]}: {'learning curves' if value == 'accuracy_pct' else axis}"
    )
    return figure.update_layout(title=title, hovermode="x unified")


def _strategy_line(curve: pd.DataFrame, name: str, place: int, axis: str) -> go.Scatter:
    strategy, distill = curve["strategy"].iloc[0], curve["distill"].iloc[0]
    return go.Scatter(
        x=curve["labeled_count"], y=curve["mean"], mode="lines+markers", name=name, legendgroup=strategy,
        error_y=dict(array=curve["half_width"], visible=bool((curve["n"] > 1).all()), thickness=1, width=3),
        line=dict(color=colour(place), dash="solid" if distill else "dash"),
        marker=dict(symbol=marker(place) + ("" if distill else "-open"), size=9),
        hovertemplate="%{y:.1f}" if "(%)" in axis else "%{y:.3f}",
    )  # fmt: skip


def _teacher_line(taught: pd.DataFrame) -> go.Scatter:
    return go.Scatter(
        x=taught["labeled_count"], y=taught["mean"], mode="lines", name="teacher, mean over strategies",
        line=dict(color=TEACHER, dash="dot", width=3), hovertemplate="%{y:.1f}",
    )  # fmt: skip


def _ends(name: str, curve: pd.DataFrame) -> str:
    first, last = curve.iloc[0], curve.iloc[-1]
    return f"{name} {first['mean']:.3g} at {first['labeled_count']} to {last['mean']:.3g} at {last['labeled_count']}"


def aulc_intervals(results: Results, title: str = "") -> Figure:
    """Mean accuracy over the rounds (AULC) of each strategy with and without the teacher: mean and 95 % interval over the seeds
    of one setting. Runs that were cut short are left out."""
    runs = aulc(one_setting(results)).query("whole")
    runs["series"] = np.where(runs["distill"], "with teacher", "without")
    groups = runs.groupby(["strategy", "series"], sort=False)["aulc_pct"]
    rows = [(*key, *mean_interval(values), len(values)) for key, values in groups]
    table = pd.DataFrame(rows, columns=["group", "series", "mean", "half_width", "n"])
    return interval_dots(
        table,
        x_title="mean accuracy over the rounds (%)",
        title=title or "Area under the learning curve",
    )


def gain_intervals(results: Results, title: str = "") -> Figure:
    """What distillation adds to each strategy of one setting: at first, over the rounds and in the end, paired by seed."""
    table = gains(one_setting(results)).rename(columns={"strategy": "group", "value": "series"})
    if table.empty:
        raise ValueError(
            "no strategy has a seed with distillation and the same seed without: there is no gain to show"
        )
    table = table.drop(columns="setting").replace({"series": VALUES})
    title = title or "What the teacher adds (points, paired by seed)"
    figure = interval_dots(table, x_title="with the teacher minus without (points)", title=title)
    return figure.add_vline(0, line_dash="dot")


def interval_dots(table: pd.DataFrame, *, x_title: str, title: str = "") -> Figure:
    """Means with their intervals, a line for each `group`, a colour and marker for each `series`.

    table: columns group, series, mean, half_width (NaN: none) and n.
    """
    groups, series = (list(dict.fromkeys(table[name])) for name in ("group", "series"))
    dots = []
    for place, name in enumerate(series):
        of = table[table["series"] == name]
        shift = (place - (len(series) - 1) / 2) * min(0.25, 0.8 / len(series))
        dots.append(go.Scatter(
            x=of["mean"], y=[groups.index(g) + shift for g in of["group"]], mode="markers", name=str(name),
            error_x=dict(array=of["half_width"], thickness=2, width=5), customdata=of[["half_width", "n"]].to_numpy(),
            marker=dict(color=colour(place), symbol=marker(place), size=11), text=of["group"].astype(str),
            hovertemplate="%{text}: %{x:.1f} ± %{customdata[0]:.1f} (n = %{customdata[1]})",
        ))  # fmt: skip
    said = "; ".join(
        f"{r.group}{f' ({r.series})' if len(series) > 1 else ''} {r.mean:.1f}"
        + (f" ± {r.half_width:.1f}" if np.isfinite(r.half_width) else "")
        for r in table.itertuples()
    )
    figure = Figure(dots, table=table, alt=f"{x_title}: {said}.")
    figure.update_xaxes(title=x_title)
    figure.update_yaxes(
        tickvals=list(range(len(groups))),
        ticktext=[str(g) for g in groups],
        range=[len(groups) - 0.5, -0.5],
    )
    return figure.update_layout(
        title=title, height=170 + 52 * len(groups), showlegend=len(series) > 1
    )


def win_tie_loss(table: pd.DataFrame, title: str = "") -> Figure:
    """Each row against each column, from `metrics.paired_comparisons`: the mean difference (row - column) as colour and
    number, wins/ties/losses over the paired runs, and a star where it is more than luck (Holm-corrected p < 0.05). Where there
    are too few runs for any star, it says so."""
    names = list(dict.fromkeys([*table["a"], *table["b"]]))
    size = len(names)
    z, text = np.full((size, size), np.nan), np.full((size, size), "", dtype=object)
    for r in table.round({"difference": 1}).itertuples():
        i, j, star = names.index(r.a), names.index(r.b), " *" if r.p_holm < 0.05 else ""
        z[i, j], z[j, i] = r.difference, 0.0 - r.difference
        text[i, j] = f"{z[i, j] + 0.0:+.1f}{star}<br>{r.wins}/{r.ties}/{r.losses}"
        text[j, i] = f"{z[j, i]:+.1f}{star}<br>{r.losses}/{r.ties}/{r.wins}"
    most = max(1e-9, np.nanmax(np.abs(z)))
    sure, n = table[table["p_holm"] < 0.05], int(table["n"].iloc[0])
    beats = [
        f"{r.a} over {r.b}" if r.difference > 0 else f"{r.b} over {r.a}" for r in sure.itertuples()
    ]
    said, note = f"More than luck: {', '.join(beats) or 'none'}", "* more than luck"
    if table["least"].iloc[0] >= 0.05:
        said, note = (
            cannot_show(n, len(table)),
            f"{n} pairs are too few for a star; {runs_needed(len(table))} can have one",
        )
    heat = go.Heatmap(
        z=z, x=names, y=names, text=text, texttemplate="%{text}", zmin=-most * 1.6, zmax=most * 1.6, colorscale="RdBu",
        colorbar_title="points", hovertemplate="%{y} against %{x}: %{text}<extra></extra>",
    )  # fmt: skip
    figure = Figure(
        heat, table=table, alt=f"Differences between {size} strategies, paired. {said}."
    )
    figure.update_yaxes(autorange="reversed", title="this ...")
    figure.update_xaxes(title="... minus this")
    figure.update_xaxes(showgrid=False).update_yaxes(showgrid=False)
    title = title or "Mean difference in points, wins/ties/losses"
    return figure.update_layout(title=_with_note(title, note), height=210 + 62 * size, margin_t=90)


def critical_differences(ranking: Ranking, title: str = "") -> Figure:
    """Mean ranks of the strategies, the best (1) at the left; grey bars below join those that are not told apart, and a ruler
    above shows how far ranks must be apart (Nemenyi's critical difference). ranking: of `statistics.ranking`."""
    table, width, groups = ranking.table, ranking.critical_difference, ranking.groups
    size, n, mean = len(table), len(ranking.ranks), table["mean_rank"].tolist()
    order = list(ranking.ranks.columns)  # colours as in the other figures of these runs
    lines = [go.Scatter(
        x=[r.mean_rank], y=[r.Index], mode="markers+text", text=[f"{r.mean_rank:.1f}"], textposition="top center",
        name=r.strategy, marker=dict(color=colour(order.index(r.strategy)), symbol=marker(order.index(r.strategy)), size=14),
        hovertemplate=f"{r.strategy}: mean rank {r.mean_rank:.2f} of {n} {ranking.blocks}<extra></extra>",
    ) for r in table.itertuples()]  # fmt: skip
    for lane, group in enumerate(groups):
        ends = (
            mean[table["strategy"].tolist().index(group[0])],
            mean[table["strategy"].tolist().index(group[-1])],
        )
        lines.append(go.Scatter(
            x=[ends[0] - 0.04, ends[1] + 0.04], y=[size - 0.25 + 0.35 * lane] * 2, mode="lines",
            line=dict(color="#888888", width=7),
            hovertemplate=f"not told apart: {', '.join(group)}<extra></extra>",
        ))  # fmt: skip
    joined = "; ".join(", ".join(group) for group in groups) or "none"
    ranks = ", ".join(f"{r.strategy} {r.mean_rank:.2f}" for r in table.itertuples())
    said = f"Mean ranks over {n} {ranking.blocks}: {ranks}. Critical difference {width:.2f}. Not told apart: {joined}."
    figure = Figure(lines, table=table, alt=said)
    if width < size - 1:
        figure.add_shape(
            type="line", x0=1, x1=1 + width, y0=-1, y1=-1, line=dict(color=INK, width=3)
        )
        figure.add_annotation(x=1, y=-1, xanchor="left", yanchor="bottom", showarrow=False,
                              text=f"critical difference {width:.2f}")  # fmt: skip
        note = f"over {n} {ranking.blocks}; grey: not told apart"
    else:
        note = f"{n} {ranking.blocks} cannot tell {size} strategies apart"
    bottom = size - 0.25 + 0.35 * len(groups)
    figure.update_xaxes(
        title="mean rank (1: always the best)", range=[0.7, size + 0.3], dtick=1, zeroline=False
    )
    figure.update_yaxes(
        tickvals=list(range(size)),
        ticktext=table["strategy"].tolist(),
        range=[bottom, -1.7],
        gridcolor=PALE,
    )
    title = title or "Who ranks first?"
    return figure.update_layout(
        title=_with_note(title, note),
        height=round(200 + 40 * (bottom + 1.7)),
        showlegend=False,
        margin_t=90,
    )


def first_counts(table: pd.DataFrame, title: str = "") -> Figure:
    """How often each strategy is first, and tied for first, of how many comparisons. table: of `statistics.firsts`."""
    bars = [go.Bar(
        y=table["strategy"], x=table[column], name=name, orientation="h", marker=dict(color=shade, pattern_shape=pattern),
        text=table[column].where(table[column] > 0, "").astype(str), textposition="inside", insidetextanchor="end",
        hovertemplate=f"%{{y}}: {name} in %{{x}}<extra></extra>",
    ) for column, name, shade, pattern in (
        ("first", "first", colour(0), ""), ("tied", "tied for first", PALE, "/"),
    ) if column == "first" or table[column].any()]  # fmt: skip
    most, chance = int(table["of"].max()), table["of"].max() / len(table)
    said = "; ".join(
        f"{r.strategy} {r.first} of {r.of}" + (f", tied in {r.tied}" if r.tied else "")
        for r in table.itertuples()
    )
    figure = Figure(bars, table=table, alt=f"First in so many rounds of settings: {said}.")
    figure.add_vline(
        chance, line_dash="dot", annotation_text="if all were equal", annotation_position="top"
    )
    figure.update_xaxes(title=f"first, of {most} comparisons (a round of a setting each)")
    figure.update_yaxes(autorange="reversed")
    title = title or "Who is first, how often?"
    return figure.update_layout(
        title=title, barmode="stack", height=190 + 44 * len(table), showlegend=len(bars) > 1
    )


def _with_note(title: str, note: str) -> dict:
    return dict(text=title, subtitle=dict(text=note, font_size=15))
