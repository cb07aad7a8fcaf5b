"""Figures of one run: its loop, its queries, its predictions."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from torch import Tensor

from activekd_lite.plots.base import INK, NAMED, Figure, colour, data_uri, marker, squares, tiled
from activekd_lite.runs.record import RunResult
from activekd_lite.scores import calibration_error_pct, reliability
from activekd_lite.utils.images import ImageFiles


def reliability_diagram(
    predictions: Mapping[str, Tensor], labels: Tensor, bins: int = 10
) -> Figure:
    """How often predictions of a given confidence are right: a line for each entry name -> probs (N, C); labels (N,).

    The diagonal is perfect calibration; below it a model is too sure of itself. Empty bins are left out.
    """
    lines = [
        go.Scatter(
            x=[0, 1], y=[0, 1], mode="lines", name="perfect", line=dict(color="#888888", dash="dot")
        )
    ]
    tables, errors = (
        [],
        {name: calibration_error_pct(probs, labels, bins) for name, probs in predictions.items()},
    )
    for place, (name, probs) in enumerate(predictions.items()):
        table = reliability(probs, labels, bins)
        table = table[table["count"] > 0]
        tables.append(table.assign(model=name))
        lines.append(go.Scatter(
            x=table["confidence"], y=table["accuracy"], mode="lines+markers", customdata=table["count"],
            name=f"{name} (ECE {errors[name]:.1f} %)", line_color=colour(place),
            marker=dict(symbol=marker(place), size=10), hovertemplate="right %{y:.0%} of %{customdata} images",
        ))  # fmt: skip
    said = "; ".join(f"{name} {error:.1f} %" for name, error in errors.items())
    figure = Figure(
        lines,
        table=pd.concat(tables, ignore_index=True),
        alt=f"Share that is right against confidence. Calibration error: {said}.",
    )
    figure.update_xaxes(title="confidence", range=[0, 1.02], tickformat=".0%")
    figure.update_yaxes(title="share that is right", range=[0, 1.02], tickformat=".0%")
    return figure.update_layout(title="Is it as sure as it is right?", hovermode="x unified")


def query_montage(
    result: RunResult, images: Tensor | ImageFiles, *, tile: int = 56, columns: int = 12
) -> Figure:
    """What was asked for, a line of pictures a round, in pick order; the true label on hover.

    images: (N, 3, H, W) uint8, the pool's. Long queries are cut after `columns` pictures, and the title says so.
    """
    start = torch.nonzero(result.state.labeled_round == 0).flatten().tolist()
    queries = [record.query_indices for record in result.records if record.query_indices]
    rows = {"start": start} | {f"query {i}": query for i, query in enumerate(queries, 1)}
    labels, classnames = result.state.labels.tolist(), result.config["classnames"]
    captions = {i: classnames[labels[i]] for row in rows.values() for i in row}
    return image_rows(
        rows, images, captions, tile=tile, columns=columns, title=f"{result.name}: what was asked"
    )


def image_rows(
    rows: Mapping[str, Sequence[int] | Tensor], images: Tensor | ImageFiles,
    captions: Mapping[int, str] | Sequence[str] | None = None, *, tile: int = 56, columns: int = 12, title: str = "",
) -> Figure:  # fmt: skip
    """A named row of pictures for each entry: pool indices, in their order; number and caption on hover.

    images: (N, 3, H, W) uint8; captions: of the pool indices. Rows are cut after `columns` pictures, and the title says so.
    """
    rows = {name: [int(i) for i in indices] for name, indices in rows.items()}
    longest = max(map(len, rows.values()), default=0)
    if longest == 0:
        raise ValueError("no pictures: every row is empty")
    cut, columns = longest > columns, min(columns, longest)
    shown = [
        (y, x, index)
        for y, indices in enumerate(rows.values())
        for x, index in enumerate(indices[:columns])
    ]
    canvas = torch.full((len(rows) * columns, 3, tile, tile), 255, dtype=torch.uint8)
    places = [y * columns + x for y, x, _ in shown]
    canvas[places, :, 2:-2, 2:-2] = squares(images, [index for _, _, index in shown], tile - 4)
    said = [
        f"image {i}: {captions[i]}" if captions is not None else f"image {i}" for _, _, i in shown
    ]
    table = pd.DataFrame(
        {
            "row": [list(rows)[y] for y, _, _ in shown],
            "index": [i for *_, i in shown],
            "image": said,
        }
    )
    alt = (
        f"{len(rows)} rows of pictures: "
        + "; ".join(f"{name}, {len(indices)}" for name, indices in rows.items())
        + "."
    )
    dots = go.Scatter(
        x=[(x + 0.5) * tile for _, x, _ in shown], y=[(y + 0.5) * tile for y, _, _ in shown], mode="markers", text=said,
        marker=dict(size=tile, opacity=0), showlegend=False, hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    picture = go.Image(source=data_uri(tiled(canvas, columns)), hoverinfo="skip")
    figure = Figure([picture, dots], table=table, alt=alt)
    figure.update_yaxes(
        tickvals=[(y + 0.5) * tile for y in range(len(rows))],
        ticktext=list(rows),
        showgrid=False,
        constraintoward="top",
    )
    figure.update_xaxes(visible=False, range=[0, columns * tile], constraintoward="left")
    title += f" (the first {columns} of each)" if cut else ""
    return figure.update_layout(
        title=title, height=90 + len(rows) * tile, margin=dict(t=60, r=20, b=20, l=90)
    )


def confusions(
    matrices: Mapping[str, Tensor | np.ndarray], classnames: Sequence[str], *, title: str = ""
) -> Figure:
    """Who is taken for whom, a panel for each entry name -> (C, C) counts, rows the true class, columns the answer.

    Shares of a row in percent; the diagonal, what is right, is left white, so that the errors have the colours.
    """
    panels, tables = {}, []
    for name, matrix in matrices.items():
        counts = np.asarray(torch.as_tensor(matrix).cpu(), dtype=np.float64)
        panels[name] = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        rows, cols = np.nonzero((counts > 0) & ~np.eye(len(counts), dtype=bool))
        table = pd.DataFrame({"panel": name, "true": [classnames[i] for i in rows], "answer": [classnames[j] for j in cols],
                              "count": counts[rows, cols].astype(int)})  # fmt: skip
        tables.append(table.sort_values("count", ascending=False))
    table = pd.concat(tables, ignore_index=True)
    said = [
        f"{n}: {', '.join(f'{r.true} as {r.answer} ({r.count})' for r in t.head(3).itertuples())}"
        for n, t in zip(panels, tables, strict=True)
    ]
    figure = Figure(
        table=table, alt=f"Confusion matrices; the most frequent errors: {'; '.join(said)}."
    )
    figure.set_subplots(
        1, len(panels), subplot_titles=list(panels), horizontal_spacing=0.04, shared_yaxes=True
    )
    for column, shares in enumerate(panels.values(), 1):
        errors = np.where(np.eye(len(shares), dtype=bool), np.nan, shares)
        text = (
            np.where(shares >= 1, np.round(shares).astype(int).astype(str), "")
            if len(shares) <= NAMED
            else None
        )
        heat = go.Heatmap(
            z=errors.round(1), x=list(classnames), y=list(classnames), coloraxis="coloraxis", xgap=1, ygap=1,
            hovertemplate="%{y} taken for %{x}: %{z:.0f} %<extra></extra>", text=text,
            texttemplate="%{text}" if text is not None else None,
        )  # fmt: skip
        figure.add_trace(heat, row=1, col=column)
    small = dict(
        tickfont_size=15 if len(classnames) <= NAMED else 9,
        tickmode="linear",
        type="category",
        showgrid=False,
    )
    figure.update_xaxes(**small, tickangle=-90 if len(classnames) > NAMED else 0)
    figure.update_yaxes(**small, autorange="reversed")
    figure.update_layout(
        coloraxis=dict(
            colorscale=[[0, "#F7F7F7"], [0.25, "#F6C667"], [1, "#8C2D04"]],
            cmin=0,
            colorbar_title="%",
        )
    )
    return figure.update_layout(
        title=title or "Who is taken for whom", height=560 if len(classnames) <= NAMED else 640
    )


def loop_picture(
    result: RunResult, images: Tensor | ImageFiles, *, teacher: str = "", teacher_accuracy_pct: float | None = None,
    round: int = 0,
) -> Figure:  # fmt: skip
    """One turn of the loop as boxes and arrows, with the run's own pictures and numbers.

    images: (N, 3, H, W) uint8, the pool's; teacher: its name; round: which turn, one that asked for labels. At most 10 pictures
    a box. Raises ValueError for a round that asked for nothing.
    """
    record, config, state = result.records[round], result.config, result.state
    query, size = record.query_indices, config["pool_size"]
    if not query:
        raise ValueError(
            f"round {round} asked for nothing; rounds 0 to {len(result.records) - 2} did"
        )
    answers = textwrap.shorten(
        ", ".join(config["classnames"][state.labels[i]] for i in query), 30, placeholder=" ..."
    )
    before = (
        torch.nonzero((state.labeled_round >= 0) & (state.labeled_round <= round))
        .flatten()
        .tolist()
    )
    count, distilled = len(before), config["teacher"] is not None
    learns = [f"learns from {count} labels", *(["and the teacher"] if distilled else [])]
    boxes = {  # name: (column, row from below), what is said, pictures
        "Pool": (
            (0, 1),
            [f"{size:,} images,", f"{size - count:,} unlabelled"],
            range(0, size, -(-size // 10)),
        ),
        "Student": ((1, 1), [*learns, f"test: {record.accuracy_pct:.1f} % right"], []),
        "Strategy": ((2, 1), [f"{config['strategy']} picks {len(query)}"], query),
        "Oracle": ((2, 0), [answers], query),
        "Labels": ((1, 0), [f"{count}, and {len(query)} more"], before),
    }
    arrows = [("Pool", "Student", "images"), ("Student", "Strategy", "predictions"), ("Strategy", "Oracle", "asks a person"),
              ("Oracle", "Labels", "answers"), ("Labels", "Student", "train again")]  # fmt: skip
    if distilled:
        alone = (
            [] if teacher_accuracy_pct is None else [f"test: {teacher_accuracy_pct:.1f} % right"]
        )
        boxes["Teacher"] = (
            (0, 0),
            [*([teacher[:30]] if teacher else []), "is asked in words", *alone],
            [],
        )
        arrows += [("Pool", "Teacher", "encoded once"), ("Teacher", "Student", "answers")]
    table = pd.DataFrame(
        [(name, " ".join(said)) for name, (_, said, _) in boxes.items()], columns=["part", "what"]
    )
    alt = "; ".join(f"{start} to {end}: {said}" for start, end, said in arrows)
    figure = Figure(
        table=table,
        alt=f"Boxes and arrows. {alt}. {'; '.join(': '.join(row) for row in table.to_numpy())}.",
    )
    width, height, across, up = (
        25,
        22,
        37.5,
        32,
    )  # of a box, and from one to the next, in hundredths of the figure's width
    middle = {
        name: (x * across + width / 2, y * up + height / 2)
        for name, ((x, y), _, _) in boxes.items()
    }
    for number, (name, (_, said, shown)) in enumerate(boxes.items()):
        (x, y), shown = middle[name], list(shown)[:10]
        figure.add_shape(type="rect", x0=x - width / 2, x1=x + width / 2, y0=y - height / 2, y1=y + height / 2, layer="below",
                         fillcolor="#F7F7F7", line=dict(color=colour(number), width=3))  # fmt: skip
        at = dict(y=y + height / 2 - 1, yanchor="top") if shown else dict(y=y)
        figure.add_annotation(
            x=x, **at, showarrow=False, font_size=14, text="<br>".join([f"<b>{name}</b>", *said])
        )
        if shown:
            framed = torch.full((len(shown), 3, 54, 54), 255, dtype=torch.uint8)
            framed[..., 3:-3, 3:-3] = squares(images, shown, 48)
            place = dict(
                xref="x", yref="y", x=x, y=y - height / 2 + 1, xanchor="center", yanchor="bottom"
            )
            picture = data_uri(tiled(framed, min(5, len(shown))))
            figure.add_layout_image(
                source=picture, **place, sizex=width - 2, sizey=12, sizing="contain"
            )
    for start, end, said in arrows:
        (x0, y0), (x1, y1) = middle[start], middle[end]
        dx, dy = (
            np.sign(x1 - x0) * width / 2,
            np.sign(y1 - y0) * height / 2,
        )  # from the middle of a box to its edge
        x0, y0, x1, y1 = x0 + dx, y0 + dy, x1 - dx, y1 - dy
        figure.add_annotation(x=x1, y=y1, ax=x0, ay=y0, xref="x", yref="y", axref="x", ayref="y", text="", arrowhead=2,
                              arrowwidth=2, arrowcolor=INK)  # fmt: skip
        figure.add_annotation(x=(x0 + x1) / 2, y=(y0 + y1) / 2, text=said, showarrow=False, font_size=13, borderpad=1,
                              bgcolor="white", yshift=0 if dy else 12)  # fmt: skip
    figure.update_xaxes(visible=False, range=[-1, 2 * across + width + 1], fixedrange=True)
    figure.update_yaxes(visible=False, range=[-1, up + height + 1], fixedrange=True)
    title = f"{config['dataset']}, seed {config['seed']}, round {round}: one turn of the loop"
    return figure.update_layout(title=title, height=540, margin=dict(t=56, r=10, b=10, l=10))
