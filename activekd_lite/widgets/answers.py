"""Figures of a person's answers: labelled pictures, label errors, accuracy against time."""

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go
import torch
from torch import Tensor

from activekd_lite.plots.base import Figure, colour, marker
from activekd_lite.plots.runs import image_rows
from activekd_lite.runs.record import RunResult
from activekd_lite.utils.images import ImageFiles
from activekd_lite.widgets.journal import Journal

COLUMNS = 12


def labelled_rows(
    rows: Mapping[str, Sequence[int]],
    images: Tensor | ImageFiles,
    labels: Mapping[int, str],
    *,
    tile: int = 56,
    title: str = "",
) -> Figure:
    """`plots.image_rows` with the labels on hover and, where short enough, on the pictures.

    rows: name -> pool indices, of which 12 are shown. labels: pool index -> class name.
    """
    figure = image_rows(rows, images, labels, tile=tile, columns=COLUMNS, title=title)
    shown = [
        dict(x=(x + 1) * tile - 3, y=(y + 1) * tile - 3, text=labels[i])
        for y, row in enumerate(rows.values())
        for x, i in enumerate(row[:COLUMNS])
    ]
    if max(len(label["text"]) for label in shown) <= tile // 8:
        corner = dict(xanchor="right", yanchor="bottom", bgcolor="white", borderpad=1, opacity=0.9)
        for label in shown:
            figure.add_annotation(**label, **corner, showarrow=False, font_size=13)
    return figure


def against_truth(given: pd.DataFrame, images: Tensor | ImageFiles, *, title: str = "") -> Figure:
    """The images whose label is not the true one, one row of pictures per true class.

    given: columns index, label and true.
    """
    wrong = given[given["label"] != given["true"]]
    summary = f"{len(wrong)} of {len(given)} labels differ from the true ones"
    if wrong.empty:
        return text_figure(f"{summary}.", title, given)
    classes = wrong.groupby("true", sort=False)["index"]
    rows = {f"true: {name}": indices.tolist() for name, indices in classes}
    labels = wrong.set_index("index")["label"]
    figure = labelled_rows(rows, images, labels, title=f"{title}: {summary}")
    return figure.update_layout(margin_l=150)


def accuracy_by_seconds(
    runs: Mapping[str, tuple[RunResult, Journal | float]], *, title: str = ""
) -> Figure:
    """Test accuracy against the seconds spent on labelling, one line per run.

    runs: name -> (run, its journal or the assumed seconds per label). An initial set that the true
    labels gave (shots > 0) takes no time.
    """
    tables, lines, summaries = [], [], []
    for place, (name, (result, spent)) in enumerate(runs.items()):
        table = _time_spent(result, spent).assign(run=name)
        tables.append(table)
        line = dict(line_color=colour(place), marker=dict(symbol=marker(place), size=10))
        line |= dict(x=table["seconds"], y=table["accuracy_pct"], customdata=table["labels"])
        hover = "%{customdata} labels, %{x:.0f} s: %{y:.1f} %"
        lines.append(go.Scatter(**line, mode="lines+markers", name=name, hovertemplate=hover))
        ends = [
            f"{r.accuracy_pct:.1f} % at {r.seconds:.0f} s" for r in table.iloc[[0, -1]].itertuples()
        ]
        summaries.append(f"{name}: {', '.join(ends)}")
    alt = f"Test accuracy against seconds of labelling. {'; '.join(summaries)}."
    figure = Figure(lines, table=pd.concat(tables, ignore_index=True), alt=alt)
    figure.update_xaxes(title="seconds spent on labels", rangemode="tozero")
    figure.update_yaxes(title="test accuracy (%)")
    only = f" ({next(iter(runs))})" if len(runs) == 1 else ""
    title = title or f"Accuracy against seconds spent{only}"
    return figure.update_layout(title=title, showlegend=len(runs) > 1)


def _time_spent(result: RunResult, spent: Journal | float) -> pd.DataFrame:
    """One row per round: labels queried so far, seconds they took, test accuracy."""
    start = torch.nonzero(result.state.labeled_round == 0).flatten().tolist()
    asked, rows = [] if result.config["shots"] else start, []
    for record in result.records:
        seconds = spent.seconds_until(asked) if isinstance(spent, Journal) else spent * len(asked)
        rows.append((len(asked), seconds, record.accuracy_pct))
        asked = asked + record.query_indices
    return pd.DataFrame(rows, columns=["labels", "seconds", "accuracy_pct"])


def text_figure(message: str, title: str, table: pd.DataFrame | None = None) -> Figure:
    """A figure with a sentence in place of data."""
    figure = Figure(table=table, alt=f"{title}: {message}")
    place = dict(x=0, y=0.5, xref="paper", yref="paper", xanchor="left")
    figure.add_annotation(**place, text=message, showarrow=False, font_size=18)
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return figure.update_layout(title=title, height=170)
