"""Figures of a study over tasks: one dot per task."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from activekd_lite.analysis.statistics import interval_text
from activekd_lite.plots.base import INK, Figure, colour, marker


def task_leads(
    table: pd.DataFrame, *, x: str, x_title: str, rival: str = "random", title: str = ""
) -> Figure:
    """Plot PCoreSet's lead over a rival against a number of each task's card.

    table: a row per task with dataset, lead, half_width (NaN: no interval), n, and the column `x`.
    Families of tasks, the part of a name before "?", differ in colour and marker.
    """
    families = table["dataset"].str.partition("?")[0]
    dots = []
    for place, family in enumerate(dict.fromkeys(families)):
        part = table[families == family]
        dot = go.Scatter(
            x=part[x],
            y=part["lead"],
            error_y=dict(array=part["half_width"].fillna(0), thickness=1, width=3),
            mode="markers",
            name=family,
            marker=dict(color=colour(place), symbol=marker(place), size=11),
            text=part["dataset"],
            customdata=part[["half_width", "n"]].to_numpy(),
            hovertemplate=(
                f"%{{text}}<br>{x_title}: %{{x:.3g}}<br>lead: %{{y:+.1f}} ± %{{customdata[0]:.1f}} "
                "(%{customdata[1]} seeds)<extra></extra>"
            ),
        )
        dots.append(dot)
    figure = Figure(dots, table=table, alt=_describe(table, x, x_title, rival))
    figure.add_hline(0, line=dict(color=INK, width=1, dash="dot"))
    figure.update_xaxes(title=x_title)
    figure.update_yaxes(title=f"lead of pcoreset over {rival} (points)")
    return figure.update_layout(title=title or f"{len(table)} tasks", height=430)


def _describe(table: pd.DataFrame, x: str, x_title: str, rival: str) -> str:
    ahead, known = (table["lead"] > 0).sum(), table.dropna(subset="half_width")
    clear = (known["lead"] - known["half_width"] > 0).sum()
    behind = (known["lead"] + known["half_width"] < 0).sum()
    rank = np.corrcoef(table[x].rank(), table["lead"].rank())[0, 1] if len(table) > 2 else np.nan
    ends = table.loc[[table["lead"].idxmax(), table["lead"].idxmin()]]
    most, least = (
        f"{r.dataset} {interval_text(r.lead, r.half_width, '+')}" for r in ends.itertuples()
    )
    intervals = f"; its 95 % interval lies above 0 on {clear} and below on {behind}"
    return (
        f"pcoreset is ahead of {rival} on {ahead} of {len(table)} tasks"
        f"{intervals if len(known) else ''}. Largest lead: {most}; smallest: {least}. Rank "
        f"correlation of the lead with the {x_title}: {rank:.2f}."
    )
