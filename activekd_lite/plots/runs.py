"""Figures of one run: its loop, its queries, its predictions."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from torch import Tensor

from activekd_lite.plots.base import (
    INK,
    NAMED,
    SEQUENTIAL,
    Figure,
    colour,
    data_uri,
    marker,
    squares,
    tiled,
)
from activekd_lite.runs.record import RunResult
from activekd_lite.scores import calibration_error_pct, reliability
from activekd_lite.utils.images import ImageFiles

ERRORS = [[0, "#F7F7F7"], [0.25, "#F6C667"], [1, "#8C2D04"]]  # colour scale


def reliability_diagram(
    predictions: Mapping[str, Tensor], labels: Tensor, bins: int = 10
) -> Figure:
    """Plot accuracy against confidence, one line per entry name -> probs (N, C).

    The diagonal is perfect calibration; below it a model is overconfident. Empty bins are left out.
    labels: (N,) class indices.
    """
    dotted = dict(color="#888888", dash="dot")
    lines = [go.Scatter(x=[0, 1], y=[0, 1], mode="lines", name="perfect", line=dotted)]
    tables, errors = [], []
    for place, (name, probs) in enumerate(predictions.items()):
        error = calibration_error_pct(probs, labels, bins)
        table = reliability(probs, labels, bins).query("count > 0")
        line = go.Scatter(
            x=table["confidence"],
            y=table["accuracy"],
            mode="lines+markers",
            customdata=table["count"],
            name=f"{name} (ECE {error:.1f} %)",
            line_color=colour(place),
            marker=dict(symbol=marker(place), size=10),
            hovertemplate="%{y:.0%} of %{customdata} images are correct",
        )
        lines.append(line)
        tables.append(table.assign(model=name))
        errors.append(f"{name} {error:.1f} %")
    alt = f"Accuracy by confidence. Expected calibration error: {'; '.join(errors)}."
    figure = Figure(lines, table=pd.concat(tables, ignore_index=True), alt=alt)
    axis = dict(range=[0, 1.02], tickformat=".0%")
    figure.update_xaxes(title="confidence", **axis).update_yaxes(title="accuracy", **axis)
    return figure.update_layout(title="Calibration", hovermode="x unified")


def query_montage(
    result: RunResult, images: Tensor | ImageFiles, *, tile: int = 56, columns: int = 12
) -> Figure:
    """Show the images of each query in pick order, one row per round; hover for the true label.

    images: the pool's, (N, 3, H, W) uint8.
    Only the first `columns` images of a query are shown; the title says if there are more.
    """
    start = torch.nonzero(result.state.labeled_round == 0).flatten().tolist()
    queries = [record.query_indices for record in result.records if record.query_indices]
    rows = {"start": start} | {f"query {i}": query for i, query in enumerate(queries, 1)}
    labels, classnames = result.state.labels.tolist(), result.config["classnames"]
    captions = {i: classnames[labels[i]] for row in rows.values() for i in row}
    title = f"{result.name}: labelled images"
    return image_rows(rows, images, captions, tile=tile, columns=columns, title=title)


def image_rows(
    rows: Mapping[str, Sequence[int] | Tensor],
    images: Tensor | ImageFiles,
    captions: Mapping[int, str] | Sequence[str] | None = None,
    *,
    tile: int = 56,
    columns: int = 12,
    title: str = "",
) -> Figure:
    """Show one row of images per entry, name -> pool indices; hover for index and caption.

    images: (N, 3, H, W) uint8; captions: by pool index.
    Only the first `columns` images of a row are shown; the title says if there are more.
    Raises ValueError if all rows are empty.
    """
    rows = {name: [int(i) for i in indices] for name, indices in rows.items()}
    longest = max(map(len, rows.values()), default=0)
    if longest == 0:
        raise ValueError("no images to show: every row is empty")
    cut, columns = longest > columns, min(columns, longest)
    places = [(y, x, i) for y, row in enumerate(rows.values()) for x, i in enumerate(row[:columns])]
    ys, xs, indices = map(np.array, zip(*places, strict=True))
    canvas = torch.full((len(rows) * columns, 3, tile, tile), 255, dtype=torch.uint8)
    canvas[ys * columns + xs, :, 2:-2, 2:-2] = squares(images, indices, tile - 4)
    names = list(rows)
    text = [f"image {i}" + (f": {captions[i]}" if captions is not None else "") for *_, i in places]
    table = pd.DataFrame({"row": [names[y] for y in ys], "index": indices, "image": text})
    sizes = "; ".join(f"{name}, {len(row)}" for name, row in rows.items())
    look = dict(mode="markers", marker=dict(size=tile, opacity=0), showlegend=False)
    hover = dict(text=text, hovertemplate="%{text}<extra></extra>")
    x, y = ((k + 0.5) * tile for k in (xs, ys))
    dots = go.Scatter(x=x.tolist(), y=y.tolist(), **look, **hover)
    picture = go.Image(source=data_uri(tiled(canvas, columns)), hoverinfo="skip")
    figure = Figure([picture, dots], table=table, alt=f"{len(rows)} rows of images: {sizes}.")
    ticks = [(y + 0.5) * tile for y in range(len(rows))]
    figure.update_yaxes(tickvals=ticks, ticktext=names, showgrid=False, constraintoward="top")
    figure.update_xaxes(visible=False, range=[0, columns * tile], constraintoward="left")
    title += f" (the first {columns} of each)" if cut else ""
    margin = dict(t=60, r=20, b=20, l=90)
    return figure.update_layout(title=title, height=90 + len(rows) * tile, margin=margin)


def selected_probabilities(
    rows: Mapping[str, Sequence[int] | Tensor],
    probs: Tensor,
    classnames: Sequence[str],
    *,
    title: str = "",
) -> Figure:
    """Plot the class probabilities of chosen images as heat maps, one per entry of `rows`.

    As fig. 9 of arXiv:2506.00910: name -> pool indices, such as the labelled images and the first
    query of each strategy. probs: (N, C). Images are ordered by their most likely class, so a
    diagonal means one image per class, and an empty column a class that nothing stands for.
    """
    parts = {name: probs[torch.as_tensor(index)].cpu().double() for name, index in rows.items()}
    ordered = {n: p[p.argmax(dim=1).argsort(stable=True)].numpy() for n, p in parts.items()}
    covered = {name: len(p.argmax(dim=1).unique()) for name, p in parts.items()}
    columns = {"images": map(len, parts.values()), "predicted classes": covered.values()}
    table = pd.DataFrame({"panel": list(parts), **columns})
    counts = "; ".join(f"{r[1]}: {r[3]} in {r[2]} images" for r in table.itertuples())
    alt = f"Heat maps of class probabilities. Classes predicted, of {len(classnames)}: {counts}."
    across = min(4, len(parts))
    down = -(-len(parts) // across)
    figure = Figure(table=table, alt=alt)
    panels = dict(horizontal_spacing=0.03, vertical_spacing=0.28 / down)
    figure.set_subplots(down, across, subplot_titles=list(parts), **panels)
    few = len(classnames) <= NAMED
    for place, values in enumerate(ordered.values()):
        look = dict(coloraxis="coloraxis", hovertemplate="%{x}: %{z:.0%}<extra></extra>")
        heat = go.Heatmap(z=values.round(3), x=list(classnames), **look)
        figure.add_trace(heat, row=place // across + 1, col=place % across + 1)
    figure.update_xaxes(showticklabels=few, tickangle=-90, type="category", showgrid=False)
    figure.update_yaxes(showticklabels=False, autorange="reversed", showgrid=False)
    scale = dict(colorscale=SEQUENTIAL, cmin=0, cmax=1, colorbar_tickformat=".0%")
    title = title or "Probabilities of the chosen images"
    return figure.update_layout(title=title, coloraxis=scale, height=140 + 300 * down)


def confusions(
    matrices: Mapping[str, Tensor | np.ndarray], classnames: Sequence[str], *, title: str = ""
) -> Figure:
    """Plot confusion matrices side by side, name -> (C, C) counts, rows the true classes.

    Colours are percentages of a row. The diagonal is left blank, so that errors stand out.
    """
    counts = {k: np.asarray(torch.as_tensor(m).cpu(), np.float64) for k, m in matrices.items()}
    tables = [_errors(name, matrix, classnames) for name, matrix in counts.items()]
    worst = [
        ", ".join(f"{r.true} as {r.answer} ({r.count})" for r in table.head(3).itertuples())
        for table in tables
    ]
    worst = [f"{name}: {errors}" for name, errors in zip(counts, worst, strict=True)]
    alt = f"Confusion matrices. Most frequent errors: {'; '.join(worst)}."
    figure = Figure(table=pd.concat(tables, ignore_index=True), alt=alt)
    panels = dict(subplot_titles=list(counts), horizontal_spacing=0.04, shared_yaxes=True)
    figure.set_subplots(1, len(counts), **panels)
    for column, matrix in enumerate(counts.values(), 1):
        shares = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        figure.add_trace(_error_heatmap(shares, list(classnames)), row=1, col=column)
    few = len(classnames) <= NAMED
    axis = dict(tickfont_size=15 if few else 9, tickmode="linear", type="category", showgrid=False)
    figure.update_xaxes(**axis, tickangle=0 if few else -90)
    figure.update_yaxes(**axis, autorange="reversed")
    figure.update_layout(coloraxis=dict(colorscale=ERRORS, cmin=0, colorbar_title="%"))
    height = 560 if few else 640
    return figure.update_layout(title=title or "True class and predicted class", height=height)


def _errors(name: str, counts: np.ndarray, classnames: Sequence[str]) -> pd.DataFrame:
    """The errors of a confusion matrix, most frequent first."""
    rows, cols = np.nonzero((counts > 0) & ~np.eye(len(counts), dtype=bool))
    columns = {
        "panel": name,
        "true": [classnames[i] for i in rows],
        "answer": [classnames[j] for j in cols],
        "count": counts[rows, cols].astype(int),
    }
    return pd.DataFrame(columns).sort_values("count", ascending=False)


def _error_heatmap(shares: np.ndarray, classnames: list[str]) -> go.Heatmap:
    errors, numbers = np.where(np.eye(len(shares), dtype=bool), np.nan, shares), {}
    if len(shares) <= NAMED:
        text = np.where(shares >= 1, np.round(shares).astype(int).astype(str), "")
        numbers = dict(text=text, texttemplate="%{text}")
    hover = "%{y} predicted as %{x}: %{z:.0f} %<extra></extra>"
    look = dict(coloraxis="coloraxis", xgap=1, ygap=1, hovertemplate=hover)
    return go.Heatmap(z=errors.round(1), x=classnames, y=classnames, **look, **numbers)


# Sizes in `loop_picture`, in hundredths of the figure's width
WIDTH, HEIGHT = 25, 22  # of a box
ACROSS, UP = 37.5, 32  # from one box to the next
ARROWS = [
    ("Pool", "Student", "images"),
    ("Student", "Strategy", "predictions"),
    ("Strategy", "Oracle", "query"),
    ("Oracle", "Labels", "labels"),
    ("Labels", "Student", "training"),
]
TEACHER_ARROWS = [("Pool", "Teacher", "encoded once"), ("Teacher", "Student", "predictions")]
Box = tuple[tuple[int, int], list[str], Sequence[int]]  # (column, row from below), text, images


def loop_picture(
    result: RunResult,
    images: Tensor | ImageFiles,
    *,
    teacher: str = "",
    teacher_accuracy_pct: float | None = None,
    round: int = 0,
) -> Figure:
    """Draw one round of the loop as boxes and arrows, with the run's own images and numbers.

    images: the pool's, (N, 3, H, W) uint8, at most 10 per box; teacher: its name.
    Raises ValueError if the round has no query.
    """
    boxes, arrows, config = _loop_boxes(result, round), list(ARROWS), result.config
    if config["teacher"] is not None:
        lines = [teacher[:30]] if teacher else []
        lines.append("prompted with class names")
        if teacher_accuracy_pct is not None:
            lines.append(f"test accuracy {teacher_accuracy_pct:.1f} %")
        boxes["Teacher"], arrows = ((0, 0), lines, []), [*ARROWS, *TEACHER_ARROWS]
    rows = [(name, " ".join(lines)) for name, (_, lines, _) in boxes.items()]
    labels = "; ".join(f"{start} to {end}: {label}" for start, end, label in arrows)
    alt = f"Diagram of the loop. {labels}. {'; '.join(': '.join(row) for row in rows)}."
    figure = Figure(table=pd.DataFrame(rows, columns=["part", "what"]), alt=alt)
    for number, (name, box) in enumerate(boxes.items()):
        _draw_box(figure, name, box, images, colour(number))
    for start, end, label in arrows:
        _draw_arrow(figure, _middle(boxes[start]), _middle(boxes[end]), label)
    figure.update_xaxes(visible=False, range=[-1, 2 * ACROSS + WIDTH + 1], fixedrange=True)
    figure.update_yaxes(visible=False, range=[-1, UP + HEIGHT + 1], fixedrange=True)
    title = f"The loop: {config['dataset']}, seed {config['seed']}, round {round}"
    return figure.update_layout(title=title, height=540, margin=dict(t=56, r=10, b=10, l=10))


def _loop_boxes(result: RunResult, round: int) -> dict[str, Box]:
    """The boxes of `loop_picture` by name, without the teacher's."""
    record, config, state = result.records[round], result.config, result.state
    query, size, classnames = record.query_indices, config["pool_size"], config["classnames"]
    if not query:
        last = len(result.records) - 2
        raise ValueError(f"round {round} has no query; rounds 0 to {last} have one")
    answers = ", ".join(classnames[state.labels[i]] for i in query)
    known = (state.labeled_round >= 0) & (state.labeled_round <= round)
    before = torch.nonzero(known).flatten().tolist()
    count = len(before)
    learns = [f"learns from {count} labels"]
    learns += ["and the teacher"] if config["teacher"] is not None else []
    accuracy = f"test accuracy {record.accuracy_pct:.1f} %"
    sample, left = range(0, size, -(-size // 10)), f"{size - count:,} unlabelled"
    return {
        "Pool": ((0, 1), [f"{size:,} images,", left], sample),
        "Student": ((1, 1), [*learns, accuracy], []),
        "Strategy": ((2, 1), [f"{config['strategy']} picks {len(query)}"], query),
        "Oracle": ((2, 0), [textwrap.shorten(answers, 30, placeholder=" ...")], query),
        "Labels": ((1, 0), [f"{count} + {len(query)} new"], before),
    }


def _middle(box: Box) -> tuple[float, float]:
    (column, row), *_ = box
    return column * ACROSS + WIDTH / 2, row * UP + HEIGHT / 2


def _draw_box(figure: Figure, name: str, box: Box, images: Tensor | ImageFiles, edge: str) -> None:
    (x, y), (_, lines, indices) = _middle(box), box
    left, right, bottom, top = x - WIDTH / 2, x + WIDTH / 2, y - HEIGHT / 2, y + HEIGHT / 2
    look = dict(layer="below", fillcolor="#F7F7F7", line=dict(color=edge, width=3))
    figure.add_shape(type="rect", x0=left, x1=right, y0=bottom, y1=top, **look)
    place = dict(y=top - 1, yanchor="top") if len(indices) else dict(y=y)
    text = "<br>".join([f"<b>{name}</b>", *lines])
    figure.add_annotation(x=x, **place, showarrow=False, font_size=14, text=text)
    if len(indices):
        shown = list(indices)[:10]
        framed = torch.full((len(shown), 3, 54, 54), 255, dtype=torch.uint8)
        framed[..., 3:-3, 3:-3] = squares(images, shown, 48)
        place = dict(xref="x", yref="y", x=x, y=bottom + 1, xanchor="center", yanchor="bottom")
        source, extent = (
            data_uri(tiled(framed, min(5, len(shown)))),
            dict(sizex=WIDTH - 2, sizey=12),
        )
        figure.add_layout_image(source=source, **place, **extent, sizing="contain")


def _draw_arrow(
    figure: Figure, start: tuple[float, float], end: tuple[float, float], label: str
) -> None:
    """An arrow between the edges of two boxes, given by their middles."""
    (x0, y0), (x1, y1) = start, end
    dx, dy = np.sign(x1 - x0) * WIDTH / 2, np.sign(y1 - y0) * HEIGHT / 2
    x0, y0, x1, y1 = x0 + dx, y0 + dy, x1 - dx, y1 - dy
    axes = dict(xref="x", yref="y", axref="x", ayref="y")
    look = dict(text="", arrowhead=2, arrowwidth=2, arrowcolor=INK)
    figure.add_annotation(x=x1, y=y1, ax=x0, ay=y0, **axes, **look)
    look = dict(showarrow=False, font_size=13, borderpad=1, bgcolor="white")
    shift = 0 if dy else 12  # the label of a horizontal arrow goes above it
    figure.add_annotation(x=(x0 + x1) / 2, y=(y0 + y1) / 2, text=label, yshift=shift, **look)
