"""Plotly figures of records. Colours are Okabe and Ito's, told apart by colour-blind readers; markers differ as well."""

import base64
import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from activekd_lite.loop import RunResult
from activekd_lite.metrics import calibration_error_pct, mean_interval, reliability

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
LAYOUT = dict(template="plotly_white", font_size=15, hovermode="x unified", height=520, margin=dict(t=60, r=20))


def curves_frame(results: Sequence[RunResult], value: str = "accuracy_pct") -> pd.DataFrame:
    """What `learning_curves` draws: strategy, distill, labeled_count, mean and half-width (95 %, over the seeds), n."""
    frame = pd.concat([r.to_frame() for r in results], ignore_index=True)
    groups = frame.groupby(["strategy", "distill", "labeled_count"], sort=False)[value]
    rows = [(*key, *mean_interval(values), len(values)) for key, values in groups]
    return pd.DataFrame(rows, columns=["strategy", "distill", "labeled_count", "mean", "half_width", "n"])


def learning_curves(
    results: Sequence[RunResult],
    *,
    value: str = "accuracy_pct",
    teacher_accuracy_pct: float | None = None,
    title: str = "",
) -> go.Figure:
    """Test accuracy against labels: a colour and marker for each strategy, dashed without distillation, bars over seeds.

    value: a field of `RoundRecord`; teacher_accuracy_pct: drawn as a horizontal line. The runs must share a data set.
    """
    names = {r.config["dataset"] for r in results}
    if len(names) != 1:
        raise ValueError(f"learning curves of {len(names)} data sets {sorted(names)} do not share an axis; give one at a time")
    curves, figure = curves_frame(results, value), go.Figure(layout=LAYOUT)
    strategies = list(dict.fromkeys(curves["strategy"]))
    for (strategy, distill), curve in curves.groupby(["strategy", "distill"], sort=False):
        place = strategies.index(strategy)
        figure.add_scatter(
            x=curve["labeled_count"], y=curve["mean"], mode="lines+markers",
            name=f"{strategy}{'' if distill else ', no distillation'}", legendgroup=strategy,
            error_y=dict(array=curve["half_width"], visible=bool((curve["n"] > 1).all()), thickness=1, width=3),
            line=dict(color=COLOURS[place % len(COLOURS)], dash="solid" if distill else "dash"),
            marker=dict(symbol=MARKERS[place % len(MARKERS)] + ("" if distill else "-open"), size=9),
            hovertemplate="%{y:.3f}" if value == "covering_radius" else "%{y:.1f}",
        )  # fmt: skip
    if teacher_accuracy_pct is not None:
        figure.add_hline(teacher_accuracy_pct, line_dash="dot", line_color="#555555",
                         annotation_text=f"teacher alone {teacher_accuracy_pct:.1f}")  # fmt: skip
    axis = {"accuracy_pct": "test accuracy (%)", "calibration_error_pct": "calibration error (%)",
            "covering_radius": "covering radius in probability space"}  # fmt: skip
    figure.update_xaxes(title="labels")
    figure.update_yaxes(title=axis.get(value, value))
    return figure.update_layout(
        title=title or f"{names.pop()}: {'learning curves' if value == 'accuracy_pct' else axis.get(value, value)}"
    )


def query_montage(result: RunResult, images: Tensor, *, tile: int = 44, columns: int = 12) -> go.Figure:
    """What was asked for, a line of pictures a round, in pick order; the true label on hover.

    images: (N, 3, H, W) uint8, the pool's. Long queries are cut after `columns` pictures, and the title says so.
    """
    rows = [result.state.labeled_indices[result.state.labeled_round[result.state.labeled_indices] == 0].tolist()]
    rows += [record.query_indices for record in result.records if record.query_indices]
    cut, columns = max(map(len, rows)) > columns, min(columns, max(map(len, rows)))
    canvas = np.full((len(rows) * tile, columns * tile, 3), 255, dtype=np.uint8)
    shown = [(y, x, index) for y, indices in enumerate(rows) for x, index in enumerate(indices[:columns])]
    for y, x, index in shown:
        picture = F.interpolate(images[index : index + 1].cpu().float(), tile - 4)[0].permute(1, 2, 0)
        canvas[y * tile + 2 : (y + 1) * tile - 2, x * tile + 2 : (x + 1) * tile - 2] = picture.numpy().astype(np.uint8)
    figure = go.Figure(go.Image(source=data_uri(canvas), hoverinfo="skip"), layout=LAYOUT)
    labels = [result.config["classnames"][result.state.labels[index]] for _, _, index in shown]
    figure.add_scatter(
        x=[(x + 0.5) * tile for _, x, _ in shown], y=[(y + 0.5) * tile for y, _, _ in shown], mode="markers",
        marker=dict(size=tile, opacity=0), showlegend=False, hovertemplate="%{text}<extra></extra>",
        text=[f"image {index}: {label}" for (_, _, index), label in zip(shown, labels, strict=True)],
    )  # fmt: skip
    names = ["start"] + [f"query {i}" for i in range(1, len(rows))]
    figure.update_yaxes(tickvals=[(y + 0.5) * tile for y in range(len(rows))], ticktext=names, showgrid=False)
    figure.update_xaxes(visible=False, range=[0, columns * tile])
    title = f"{result.name}: what was asked{f' (the first {columns} of each query)' if cut else ''}"
    size = dict(height=90 + len(rows) * tile, width=max(560, 120 + columns * tile), margin=dict(t=60, r=20, b=20, l=90))
    return figure.update_layout(title=title, hovermode="closest", **size)


def data_uri(picture: np.ndarray) -> str:
    """(H, W, 3) uint8 as a PNG inside a string: what a browser can show without a file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def reliability_diagram(predictions: dict[str, Tensor], labels: Tensor, bins: int = 10) -> go.Figure:
    """How often predictions of a given confidence are right: a line for each entry name -> probs (N, C); labels (N,).

    The diagonal is perfect calibration; below it a model is too sure of itself. Empty bins are left out.
    """
    figure = go.Figure(layout=LAYOUT)
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="perfect", line=dict(color="#888888", dash="dot"))
    for place, (name, probs) in enumerate(predictions.items()):
        table = reliability(probs, labels, bins)
        table = table[table["count"] > 0]
        figure.add_scatter(
            x=table["confidence"], y=table["accuracy"], mode="lines+markers", customdata=table["count"],
            name=f"{name} (ECE {calibration_error_pct(probs, labels, bins):.1f} %)",
            line_color=COLOURS[place % len(COLOURS)],
            marker=dict(symbol=MARKERS[place % len(MARKERS)], size=10),
            hovertemplate="right %{y:.0%} of %{customdata} images",
        )  # fmt: skip
    figure.update_xaxes(title="confidence", range=[0, 1.02], tickformat=".0%")
    figure.update_yaxes(title="share that is right", range=[0, 1.02], tickformat=".0%")
    return figure.update_layout(title="Is it as sure as it is right?")
