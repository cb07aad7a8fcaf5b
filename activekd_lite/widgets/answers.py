"""What a person answered, in figures: the pictures with the labels given, what differs from the truth, accuracy by seconds."""

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
    """`plots.image_rows` with the labels in the pictures where they fit, and on hover.

    rows: name -> pool indices, at most 12 are shown; labels: of the pool indices.
    """
    figure = image_rows(rows, images, labels, tile=tile, columns=COLUMNS, title=title)
    shown = [
        (x, y, labels[i])
        for y, row in enumerate(rows.values())
        for x, i in enumerate(row[:COLUMNS])
    ]
    if max(len(name) for *_, name in shown) <= tile // 8:
        for x, y, name in shown:
            figure.add_annotation(
                x=(x + 1) * tile - 3, y=(y + 1) * tile - 3, xanchor="right", yanchor="bottom", text=name, showarrow=False,
                bgcolor="white", borderpad=1, font_size=13, opacity=0.9,
            )  # fmt: skip
    return figure


def against_truth(given: pd.DataFrame, images: Tensor | ImageFiles, *, title: str = "") -> Figure:
    """The images whose label is not the true one, a row for each true class; given: columns index, label, true."""
    different = given[given["label"] != given["true"]]
    said = f"{len(different)} of {len(given)} labels differ from the true ones."
    if different.empty:
        return words(said, title, given)
    rows = {
        f"true: {name}": of["index"].tolist() for name, of in different.groupby("true", sort=False)
    }
    figure = labelled_rows(
        rows, images, different.set_index("index")["label"], title=f"{title}: {said[:-1]}"
    )
    return figure.update_layout(margin_l=150)


def accuracy_by_seconds(
    runs: Mapping[str, tuple[RunResult, Journal | float]], *, title: str = ""
) -> Figure:
    """Test accuracy against the seconds that labelling took, a line for each entry name -> (run, its journal, or the seconds a
    label that are assumed). An initial set by hand, shots > 0, counts nothing."""
    tables, lines, said = [], [], []
    for place, (name, (result, spent)) in enumerate(runs.items()):
        table = _spent(result, spent).assign(run=name)
        tables.append(table)
        lines.append(go.Scatter(
            x=table["seconds"], y=table["accuracy_pct"], customdata=table["labels"], mode="lines+markers", name=name,
            line_color=colour(place), marker=dict(symbol=marker(place), size=10),
            hovertemplate="%{customdata} labels, %{x:.0f} s: %{y:.1f} %",
        ))  # fmt: skip
        first, last = table.iloc[0], table.iloc[-1]
        said.append(
            f"{name}: {first.accuracy_pct:.1f} % at {first.seconds:.0f} s, {last.accuracy_pct:.1f} % at {last.seconds:.0f} s"
        )
    figure = Figure(
        lines,
        table=pd.concat(tables, ignore_index=True),
        alt=f"Test accuracy against seconds of labelling. {'; '.join(said)}.",
    )
    figure.update_xaxes(title="seconds spent on labels", rangemode="tozero")
    figure.update_yaxes(title="test accuracy (%)")
    only = f" ({next(iter(runs))})" if len(runs) == 1 else ""
    return figure.update_layout(
        title=title or f"Accuracy against seconds spent{only}", showlegend=len(runs) > 1
    )


def _spent(result: RunResult, spent: Journal | float) -> pd.DataFrame:
    """A row a round: labels that were asked for by then, the seconds they took, the test accuracy."""
    start = torch.nonzero(result.state.labeled_round == 0).flatten().tolist()
    asked, rows = [] if result.config["shots"] else start, []
    for record in result.records:
        seconds = spent.seconds_until(asked) if isinstance(spent, Journal) else spent * len(asked)
        rows.append((len(asked), seconds, record.accuracy_pct))
        asked = asked + record.query_indices
    return pd.DataFrame(rows, columns=["labels", "seconds", "accuracy_pct"])


def words(said: str, title: str, table: pd.DataFrame | None = None) -> Figure:
    """Where there is nothing to draw: a sentence."""
    figure = Figure(table=table, alt=f"{title}: {said}")
    figure.add_annotation(
        x=0,
        y=0.5,
        xref="paper",
        yref="paper",
        xanchor="left",
        text=said,
        showarrow=False,
        font_size=18,
    )
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return figure.update_layout(title=title, height=170)
