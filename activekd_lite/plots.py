"""Plotly figures of runs, predictions and picks: each a `figures.Figure`, with `.table`, its data, and `.alt`, what it shows.

Points by the thousand are drawn by WebGL, so that 50,000 stay responsive; fewer are not, as a page has few WebGL contexts.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from torch import Tensor

from activekd_lite.figures import COLOURS, INK, MARKERS, PALE, SEQUENTIAL, Figure, data_uri, picture_sheet, squares, tiled
from activekd_lite.images import ImageFiles
from activekd_lite.loop import RunResult
from activekd_lite.metrics import calibration_error_pct, mean_interval, reliability
from activekd_lite.seeding import uniforms
from activekd_lite.sweep import to_frame

DENSE = 8000  # points in a figure from which on WebGL draws them
NAMED = 12  # more groups have no legend: hover names them
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])  # of the triangle
HIDDEN = dict(showgrid=False, zeroline=False, showticklabels=False, ticks="")
Array = Tensor | np.ndarray


# --- runs -----------------------------------------------------------------------------------------------------------


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
) -> Figure:
    """Test accuracy against labels: a colour and marker for each strategy, dashed without distillation, bars over seeds.

    value: a field of `RoundRecord`; teacher_accuracy_pct: drawn as a horizontal line. The runs must share a data set.
    """
    names = {r.config["dataset"] for r in results}
    if len(names) != 1:
        raise ValueError(f"learning curves of {len(names)} data sets {sorted(names)} do not share an axis; give one at a time")
    axis = {"accuracy_pct": "test accuracy (%)", "calibration_error_pct": "calibration error (%)",
            "covering_radius": "covering radius in probability space"}.get(value, value)  # fmt: skip
    curves, said, lines = curves_frame(results, value), [], []
    strategies = list(dict.fromkeys(curves["strategy"]))
    for (strategy, distill), curve in curves.groupby(["strategy", "distill"], sort=False):
        place, name = strategies.index(strategy), f"{strategy}{'' if distill else ', no distillation'}"
        first, last = curve.iloc[0], curve.iloc[-1]
        said.append(f"{name} {first['mean']:.3g} at {first['labeled_count']} to {last['mean']:.3g} at {last['labeled_count']}")
        lines.append(go.Scatter(
            x=curve["labeled_count"], y=curve["mean"], mode="lines+markers", name=name, legendgroup=strategy,
            error_y=dict(array=curve["half_width"], visible=bool((curve["n"] > 1).all()), thickness=1, width=3),
            line=dict(color=_colour(place), dash="solid" if distill else "dash"),
            marker=dict(symbol=_marker(place) + ("" if distill else "-open"), size=9),
            hovertemplate="%{y:.3f}" if value == "covering_radius" else "%{y:.1f}",
        ))  # fmt: skip
    figure = Figure(lines, table=curves, alt=f"{axis} against the number of labels. {'; '.join(said)}.")
    if teacher_accuracy_pct is not None:
        figure.add_hline(teacher_accuracy_pct, line_dash="dot", line_color="#555555",
                         annotation_text=f"teacher alone {teacher_accuracy_pct:.1f}")  # fmt: skip
    figure.update_xaxes(title="labels")
    figure.update_yaxes(title=axis)
    title = title or f"{names.pop()}: {'learning curves' if value == 'accuracy_pct' else axis}"
    return figure.update_layout(title=title, hovermode="x unified")


def aulc_intervals(results: Sequence[RunResult], title: str = "") -> Figure:
    """Mean accuracy over the rounds (AULC) of each strategy with and without the teacher: mean and 95 % interval over seeds."""
    runs = to_frame(results).assign(series=lambda f: np.where(f["distill"], "with teacher", "without"))
    groups = runs.groupby(["strategy", "series"], sort=False)["aulc_pct"]
    rows = [(*key, *mean_interval(values), len(values)) for key, values in groups]
    table = pd.DataFrame(rows, columns=["group", "series", "mean", "half_width", "n"])
    return interval_dots(table, x_title="mean accuracy over the rounds (%)", title=title or "Area under the learning curve")


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
            marker=dict(color=_colour(place), symbol=_marker(place), size=11), text=of["group"].astype(str),
            hovertemplate="%{text}: %{x:.1f} ± %{customdata[0]:.1f} (n = %{customdata[1]})",
        ))  # fmt: skip
    said = "; ".join(
        f"{r.group}{f' ({r.series})' if len(series) > 1 else ''} {r.mean:.1f}"
        + (f" ± {r.half_width:.1f}" if np.isfinite(r.half_width) else "")
        for r in table.itertuples()
    )
    figure = Figure(dots, table=table, alt=f"{x_title}: {said}.")
    figure.update_xaxes(title=x_title)
    figure.update_yaxes(tickvals=list(range(len(groups))), ticktext=[str(g) for g in groups], range=[len(groups) - 0.5, -0.5])
    return figure.update_layout(title=title, height=170 + 52 * len(groups), showlegend=len(series) > 1)


def win_tie_loss(table: pd.DataFrame, title: str = "") -> Figure:
    """Each row against each column, from `metrics.paired_comparisons`: the mean difference (row - column) as colour and
    number, wins/ties/losses over the paired runs, and a star where it is more than luck (Holm-corrected p < 0.05)."""
    names = list(dict.fromkeys([*table["a"], *table["b"]]))
    size = len(names)
    z, text = np.full((size, size), np.nan), np.full((size, size), "", dtype=object)
    for r in table.itertuples():
        i, j, star = names.index(r.a), names.index(r.b), " *" if r.p_holm < 0.05 else ""
        z[i, j], z[j, i] = r.difference, -r.difference
        text[i, j] = f"{r.difference:+.1f}{star}<br>{r.wins}/{r.ties}/{r.losses}"
        text[j, i] = f"{-r.difference:+.1f}{star}<br>{r.losses}/{r.ties}/{r.wins}"
    most = max(1e-9, np.nanmax(np.abs(z)))
    sure = table[table["p_holm"] < 0.05]
    beats = [f"{r.a} over {r.b}" if r.difference > 0 else f"{r.b} over {r.a}" for r in sure.itertuples()]
    alt = f"Differences between {size} strategies, paired. More than luck: {', '.join(beats) or 'none'}."
    heat = go.Heatmap(
        z=z, x=names, y=names, text=text, texttemplate="%{text}", zmin=-most * 1.6, zmax=most * 1.6, colorscale="RdBu",
        colorbar_title="points", hovertemplate="%{y} against %{x}: %{text}<extra></extra>",
    )  # fmt: skip
    figure = Figure(heat, table=table, alt=alt)
    figure.update_yaxes(autorange="reversed", title="this ...")
    figure.update_xaxes(title="... minus this")
    figure.update_xaxes(showgrid=False).update_yaxes(showgrid=False)
    title = title or "Mean difference in points, wins/ties/losses; * more than luck"
    return figure.update_layout(title=title, height=190 + 62 * size)


def reliability_diagram(predictions: Mapping[str, Tensor], labels: Tensor, bins: int = 10) -> Figure:
    """How often predictions of a given confidence are right: a line for each entry name -> probs (N, C); labels (N,).

    The diagonal is perfect calibration; below it a model is too sure of itself. Empty bins are left out.
    """
    lines = [go.Scatter(x=[0, 1], y=[0, 1], mode="lines", name="perfect", line=dict(color="#888888", dash="dot"))]
    tables, errors = [], {name: calibration_error_pct(probs, labels, bins) for name, probs in predictions.items()}
    for place, (name, probs) in enumerate(predictions.items()):
        table = reliability(probs, labels, bins)
        table = table[table["count"] > 0]
        tables.append(table.assign(model=name))
        lines.append(go.Scatter(
            x=table["confidence"], y=table["accuracy"], mode="lines+markers", customdata=table["count"],
            name=f"{name} (ECE {errors[name]:.1f} %)", line_color=_colour(place),
            marker=dict(symbol=_marker(place), size=10), hovertemplate="right %{y:.0%} of %{customdata} images",
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


# --- pictures ---------------------------------------------------------------------------------------------------------


def query_montage(result: RunResult, images: Tensor | ImageFiles, *, tile: int = 56, columns: int = 12) -> Figure:
    """What was asked for, a line of pictures a round, in pick order; the true label on hover.

    images: (N, 3, H, W) uint8, the pool's. Long queries are cut after `columns` pictures, and the title says so.
    """
    start = torch.nonzero(result.state.labeled_round == 0).flatten().tolist()
    queries = [record.query_indices for record in result.records if record.query_indices]
    rows = {"start": start} | {f"query {i}": query for i, query in enumerate(queries, 1)}
    labels, classnames = result.state.labels.tolist(), result.config["classnames"]
    captions = {i: classnames[labels[i]] for row in rows.values() for i in row}
    return image_rows(rows, images, captions, tile=tile, columns=columns, title=f"{result.name}: what was asked")


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
    shown = [(y, x, index) for y, indices in enumerate(rows.values()) for x, index in enumerate(indices[:columns])]
    canvas = torch.full((len(rows) * columns, 3, tile, tile), 255, dtype=torch.uint8)
    places = [y * columns + x for y, x, _ in shown]
    canvas[places, :, 2:-2, 2:-2] = squares(images, [index for _, _, index in shown], tile - 4)
    said = [f"image {i}: {captions[i]}" if captions is not None else f"image {i}" for _, _, i in shown]
    table = pd.DataFrame({"row": [list(rows)[y] for y, _, _ in shown], "index": [i for *_, i in shown], "image": said})
    alt = f"{len(rows)} rows of pictures: " + "; ".join(f"{name}, {len(indices)}" for name, indices in rows.items()) + "."
    dots = go.Scatter(
        x=[(x + 0.5) * tile for _, x, _ in shown], y=[(y + 0.5) * tile for y, _, _ in shown], mode="markers", text=said,
        marker=dict(size=tile, opacity=0), showlegend=False, hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    picture = go.Image(source=data_uri(tiled(canvas, columns)), hoverinfo="skip")
    figure = Figure([picture, dots], table=table, alt=alt)
    figure.update_yaxes(
        tickvals=[(y + 0.5) * tile for y in range(len(rows))], ticktext=list(rows), showgrid=False, constraintoward="top"
    )
    figure.update_xaxes(visible=False, range=[0, columns * tile], constraintoward="left")
    title += f" (the first {columns} of each)" if cut else ""
    return figure.update_layout(title=title, height=90 + len(rows) * tile, margin=dict(t=60, r=20, b=20, l=90))


# --- probability space and maps -----------------------------------------------------------------------------------------


def simplex(
    probs: Array, corners: Sequence[str | int], classnames: Sequence[str], groups: Array | None = None,
    group_names: Sequence[str] | None = None, *, images: Tensor | ImageFiles | None = None,
    picks: Mapping[str, Sequence[int]] | None = None, title: str = "",
) -> Figure:  # fmt: skip
    """Predictions in the triangle of three classes: a corner is certainty, the middle is doubt among all three.

    probs: (N, C); corners: three class names or positions, or "rest", which groups all others. Without "rest" only images
    with at least half of their probability on the three are shown, scaled to sum to 1. Points, which pile up in the corners,
    are moved by up to 1.5 % of a side. groups (N,) colour, default: the predicted class; picks: name -> pool indices.
    """
    probs = np.asarray(torch.as_tensor(probs).cpu(), dtype=np.float64)
    columns, names = _corner_columns(corners, list(classnames), probs)
    mass = columns.sum(axis=1)
    shown = np.flatnonzero(mass >= 0.5)
    if groups is None:
        groups, group_names = probs.argmax(axis=1), [f"predicted {c}" for c in classnames]
    weights = columns / np.maximum(mass, 1e-12)[:, None]
    angle, reach = uniforms(0, np.arange(len(probs)), 2).T
    jitter = 0.015 * np.sqrt(reach)[:, None] * np.stack([np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)], axis=1)
    xy = weights @ CORNERS + jitter
    sure = [f"{((weights[shown, k] > 0.9).mean() if len(shown) else 0):.0%} at {name}" for k, name in enumerate(names)]
    alt = (
        f"Triangle of {', '.join(names)} with {len(shown)} of {len(probs)} images; within 10 % of a corner: {', '.join(sure)}."
    )
    figure = Figure(
        table=_points_table(xy, groups, group_names, shown),
        alt=alt,
        pictures=picture_sheet(images) if images is not None else None,
    )
    _add_triangle(figure, names)
    hover = "".join(f"<br>{name} %{{customdata[{k + 1}]:.2f}}" for k, name in enumerate(names))
    _add_groups(figure, xy, groups, group_names, shown, numbers=columns.astype(np.float32), hover=hover)
    _add_picks(figure, xy, {n: [i for i in np.asarray(p).tolist() if mass[i] >= 0.5] for n, p in (picks or {}).items()})
    figure.update_xaxes(**HIDDEN, range=[-0.15, 1.15])
    figure.update_yaxes(**HIDDEN, range=[-0.1, 0.98], scaleanchor="x")
    rest = "" if len(shown) == len(probs) else f" ({len(shown)} of {len(probs)} images)"
    return figure.update_layout(title=(title or f"Between {', '.join(names)}") + rest, height=620)


def maps(
    panels: Mapping[str, Array], groups: Array, group_names: Sequence[str], *, images: Tensor | ImageFiles | None = None,
    picks: Mapping[str, Sequence[int]] | None = None, title: str = "",
) -> Figure:  # fmt: skip
    """The same N points in panels side by side, name -> (N, 2): one colour and marker for each of `groups` (N,) in all.

    In a saved page hovering a point shows its picture and rings it in the other panels. picks: name -> pool indices.
    """
    arrays = {name: np.asarray(torch.as_tensor(xy).cpu(), dtype=np.float32) for name, xy in panels.items()}
    if len({len(xy) for xy in arrays.values()}) != 1:
        raise ValueError(
            f"panels of {', '.join(f'{k}: {len(v)}' for k, v in arrays.items())} points; the same are needed in all"
        )
    count, picks = len(next(iter(arrays.values()))), picks or {}
    present = np.unique(np.asarray(torch.as_tensor(groups).cpu()))
    table = pd.concat([_points_table(xy, groups, group_names).assign(panel=name) for name, xy in arrays.items()])
    alt = f"{count} points in {len(arrays)} panels ({', '.join(arrays)}), coloured by {len(present)} groups."
    figure = Figure(
        table=table, alt=alt, linked=len(present) + len(picks), pictures=picture_sheet(images) if images is not None else None
    )
    figure.set_subplots(1, len(arrays), subplot_titles=list(arrays), horizontal_spacing=0.04)
    for column, xy in enumerate(arrays.values(), 1):
        _add_groups(figure, xy, groups, group_names, np.arange(count), row=1, col=column, dense=count * len(arrays))
        _add_picks(figure, xy, picks, row=1, col=column)
    figure.update_xaxes(**HIDDEN)
    figure.update_yaxes(**HIDDEN)
    return figure.update_layout(title=title, height=600, margin=dict(l=20))


def picks_on_map(
    xy: Array, picks: Mapping[str, Sequence[int]], labeled: Sequence[int] | None = None, *, columns: int = 3, title: str = ""
) -> Figure:
    """The same map (N, 2) once for each strategy: its picks in colour, numbered in pick order, what is labelled as a cross."""
    xy = np.asarray(torch.as_tensor(xy).cpu(), dtype=np.float32)
    columns = min(columns, len(picks))
    rows = -(-len(picks) // columns)
    table = pd.DataFrame(
        [(name, t, int(i)) for name, p in picks.items() for t, i in enumerate(p, 1)], columns=["strategy", "pick", "index"]
    )
    table = table.assign(x=xy[table["index"], 0], y=xy[table["index"], 1])
    alt = f"A map of {len(xy)} images, once for each of {', '.join(picks)}, with the picks of each."
    figure = Figure(table=table, alt=alt)
    figure.set_subplots(rows, columns, subplot_titles=list(picks), horizontal_spacing=0.02, vertical_spacing=0.1 / rows)
    dots = go.Scattergl if len(xy) * len(picks) >= DENSE else go.Scatter
    for place, (name, indices) in enumerate(picks.items()):
        at = dict(row=place // columns + 1, col=place % columns + 1)
        indices = [int(i) for i in indices]
        figure.add_trace(dots(x=xy[:, 0], y=xy[:, 1], mode="markers", marker=dict(size=3, color=PALE), hoverinfo="skip"), **at)
        if labeled is not None:
            known = xy[np.asarray(labeled)]
            cross = dict(symbol="x-thin", size=9, line=dict(width=2, color=INK))
            figure.add_scatter(
                x=known[:, 0], y=known[:, 1], mode="markers", marker=cross, hovertemplate="labelled<extra></extra>", **at
            )
        figure.add_scatter(
            x=xy[indices, 0], y=xy[indices, 1], mode="markers+text" if len(indices) <= 12 else "markers",
            text=[str(t) for t in range(1, len(indices) + 1)], textposition="top center", textfont_size=12, customdata=indices,
            marker=dict(size=12, color=_colour(place), symbol=_marker(place), line=dict(width=1.5, color=INK)),
            hovertemplate=f"{name}, pick %{{text}}: image %{{customdata}}<extra></extra>", **at,
        )  # fmt: skip
    figure.update_xaxes(**HIDDEN)
    figure.update_yaxes(**HIDDEN)
    return figure.update_layout(title=title, height=90 + 300 * rows, showlegend=False, margin=dict(l=20, b=20))


def pick_by_pick(xy: Array, points: Array, labeled: Sequence[int], picks: Sequence[int], *, title: str = "") -> Figure:
    """Greedy picks one by one, under a slider: colour is an image's distance to the nearest centre, the ring the next pick.

    xy: (N, 2) where to draw; points: (N, C) where distances are measured (Euclidean); labeled: the first centres, pool
    indices; picks: in their order. The covering radius, the largest distance, is in the slider's labels and the table.
    """
    xy = np.asarray(torch.as_tensor(xy).cpu(), dtype=np.float32)
    points = torch.as_tensor(points).double().cpu()
    labeled, picks = np.asarray(labeled).tolist(), np.asarray(picks).tolist()
    nearest = torch.cdist(points, points[labeled]).amin(dim=1)
    distances = [nearest]
    for pick in picks:
        distances.append(torch.minimum(distances[-1], (points - points[pick]).norm(dim=1)))
    radii = [d.max().item() for d in distances]
    scale = 250 / max(radii[0], 1e-12)  # a byte a point and step
    colours = [(d * scale).round().byte().numpy() for d in distances]
    table = pd.DataFrame({"picks": range(len(radii)), "next": [*picks, None], "covering_radius": radii})
    alt = (
        f"A map of {len(xy)} images under {len(picks)} picks; the covering radius falls from {radii[0]:.2f} to {radii[-1]:.2f}."
    )

    def step(t: int) -> list[go.Scatter]:
        centers, ring = xy[labeled + picks[:t]], xy[picks[t : t + 1]]
        dots = go.Scattergl if len(xy) >= DENSE else go.Scatter
        return [
            dots(x=xy[:, 0], y=xy[:, 1], mode="markers", customdata=np.arange(len(xy)),
                 hovertemplate="image %{customdata}<extra></extra>",
                 marker=dict(size=6, color=colours[t], coloraxis="coloraxis")),
            go.Scatter(x=centers[:, 0], y=centers[:, 1], mode="markers", name="labelled or picked", hoverinfo="skip",
                       marker=dict(symbol="x-thin", size=11, line=dict(width=3, color=COLOURS[1]))),
            go.Scatter(x=ring[:, 0], y=ring[:, 1], mode="markers", name="next pick", hoverinfo="skip",
                       marker=dict(symbol="circle-open", size=20, line=dict(width=4, color=COLOURS[3]))),
        ]  # fmt: skip

    frames = [
        go.Frame(name=str(t), data=[dict(marker=dict(color=colours[t])), *(dict(x=s.x, y=s.y) for s in step(t)[1:])])
        for t in range(len(radii))
    ]
    figure = Figure(step(0), table=table, alt=alt, frames=frames)
    ticks = np.linspace(0, radii[0], 5)
    figure.update_layout(
        coloraxis=dict(cmin=0, cmax=250, colorscale=SEQUENTIAL, colorbar=dict(
            title="distance", tickvals=ticks * scale, ticktext=[f"{v:.2f}" for v in ticks])),
        sliders=[_slider([f"{t}: radius {r:.2f}" for t, r in enumerate(radii)])], updatemenus=[_play_button()],
        title=title or "Pick by pick: what is far from every centre?", height=680, margin=dict(l=20),
        legend=dict(orientation="h", y=1.02, yanchor="bottom", x=1, xanchor="right"),
    )  # fmt: skip
    figure.data[0].showlegend = False
    figure.update_xaxes(**HIDDEN)
    return figure.update_yaxes(**HIDDEN)


def confusions(matrices: Mapping[str, Array], classnames: Sequence[str], *, title: str = "") -> Figure:
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
    figure = Figure(table=table, alt=f"Confusion matrices; the most frequent errors: {'; '.join(said)}.")
    figure.set_subplots(1, len(panels), subplot_titles=list(panels), horizontal_spacing=0.04, shared_yaxes=True)
    for column, shares in enumerate(panels.values(), 1):
        errors = np.where(np.eye(len(shares), dtype=bool), np.nan, shares)
        text = np.where(shares >= 1, np.round(shares).astype(int).astype(str), "") if len(shares) <= NAMED else None
        heat = go.Heatmap(
            z=errors.round(1), x=list(classnames), y=list(classnames), coloraxis="coloraxis", xgap=1, ygap=1,
            hovertemplate="%{y} taken for %{x}: %{z:.0f} %<extra></extra>", text=text,
            texttemplate="%{text}" if text is not None else None,
        )  # fmt: skip
        figure.add_trace(heat, row=1, col=column)
    small = dict(tickfont_size=15 if len(classnames) <= NAMED else 9, tickmode="linear", type="category", showgrid=False)
    figure.update_xaxes(**small, tickangle=-90 if len(classnames) > NAMED else 0)
    figure.update_yaxes(**small, autorange="reversed")
    figure.update_layout(
        coloraxis=dict(colorscale=[[0, "#F7F7F7"], [0.25, "#F6C667"], [1, "#8C2D04"]], cmin=0, colorbar_title="%")
    )
    return figure.update_layout(title=title or "Who is taken for whom", height=560 if len(classnames) <= NAMED else 640)


# --- helpers ------------------------------------------------------------------------------------------------------------


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _marker(place: int) -> str:
    """Colours and markers go round at different places, so 100 groups have a pair of their own."""
    return MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]


def _corner_columns(corners: Sequence[str | int], classnames: list[str], probs: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(N, 3) and the three names."""
    corners = [c if isinstance(c, str) else classnames[int(c)] for c in corners]
    if len(corners) != 3 or len(set(corners)) != 3 or not set(corners) <= {*classnames, "rest"}:
        known = ", ".join(classnames[:20]) + (", ..." if len(classnames) > 20 else "")
        raise ValueError(f"corners {list(corners)}; three different ones of {known}, or 'rest' for all others, are needed")
    columns = {c: probs[:, classnames.index(c)] for c in corners if c != "rest"}
    columns["rest"] = 1 - sum(columns.values())
    return np.stack([columns[c] for c in corners], axis=1).clip(0), list(corners)


def _points_table(xy: np.ndarray, groups: Array, names: Sequence[str], shown: np.ndarray | None = None) -> pd.DataFrame:
    shown = np.arange(len(xy)) if shown is None else shown
    groups = np.asarray(torch.as_tensor(groups).cpu())[shown]
    return pd.DataFrame({"index": shown, "group": [names[g] for g in groups], "x": xy[shown, 0], "y": xy[shown, 1]})


def _add_triangle(figure: Figure, names: Sequence[str]) -> None:
    outline = np.vstack([CORNERS, CORNERS[:1]])
    line = dict(mode="lines", hoverinfo="skip", showlegend=False)
    for k in range(3):  # where a class has one half: who crosses it has changed sides
        half = (CORNERS[k] + CORNERS[[(k + 1) % 3, (k + 2) % 3]]) / 2
        figure.add_scatter(x=half[:, 0], y=half[:, 1], line=dict(color="#DDDDDD", width=1, dash="dot"), **line)
    figure.add_scatter(x=outline[:, 0], y=outline[:, 1], line=dict(color="#444444", width=1.5), **line)
    for (x, y), name, place in zip(CORNERS, names, ("top", "top", "bottom"), strict=True):
        figure.add_annotation(
            x=x, y=y, text=f"<b>{name}</b>", showarrow=False, yanchor=place, yshift=-12 if place == "top" else 12
        )


def _add_groups(
    figure: Figure, xy: np.ndarray, groups: Array, names: Sequence[str], shown: np.ndarray, *,
    numbers: np.ndarray | None = None, hover: str = "", row: int | None = None, col: int | None = None,
    dense: int | None = None,
) -> None:  # fmt: skip
    """A trace for each group that occurs, the same in every panel; customdata: pool index, then `numbers` (N, k)."""
    groups = np.asarray(torch.as_tensor(groups).cpu())
    kind = go.Scattergl if (dense or len(shown)) >= DENSE else go.Scatter
    present, size = np.unique(groups[shown]), 7 if len(shown) < 3000 else 5 if len(shown) < DENSE else 3
    for place, group in enumerate(present):
        members = shown[groups[shown] == group]
        custom = members[:, None] if numbers is None else np.column_stack([members, numbers[members]])
        trace = kind(
            x=xy[members, 0].astype(np.float32), y=xy[members, 1].astype(np.float32), mode="markers", name=str(names[group]),
            legendgroup=str(group), showlegend=len(present) <= NAMED and col in (None, 1), customdata=custom.astype(np.float32),
            marker=dict(color=_colour(place), symbol=_marker(place), size=size, opacity=0.75),
            hovertemplate=f"{names[group]}<br>image %{{customdata[0]:.0f}}{hover}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(trace, row=row, col=col)


def _add_picks(
    figure: Figure, xy: np.ndarray, picks: Mapping[str, Sequence[int]], row: int | None = None, col: int | None = None
) -> None:
    for place, (name, indices) in enumerate(picks.items()):
        indices = [int(i) for i in indices]
        trace = go.Scatter(
            x=xy[indices, 0], y=xy[indices, 1], mode="markers", name=name, legendgroup=f"picks {name}",
            showlegend=col in (None, 1), customdata=np.array(indices)[:, None],
            marker=dict(symbol=_marker(place) + "-open", size=15, color=INK, line_width=2.5),
            hovertemplate=f"{name}: image %{{customdata[0]}}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(trace, row=row, col=col)


def _slider(labels: Sequence[str]) -> dict:
    still = dict(mode="immediate", frame=dict(duration=0, redraw=False), transition=dict(duration=0))
    steps = [dict(method="animate", args=[[str(t)], still], label=label) for t, label in enumerate(labels)]
    return dict(
        steps=steps, currentvalue=dict(prefix="picks made ", font_size=16), pad=dict(t=20, l=110), x=0, len=1, font_size=11
    )


def _play_button() -> dict:
    play = dict(frame=dict(duration=900, redraw=False), transition=dict(duration=0), fromcurrent=True)
    stop = dict(mode="immediate", frame=dict(duration=0, redraw=False), transition=dict(duration=0))
    buttons = [
        dict(label="play", method="animate", args=[None, play]),
        dict(label="stop", method="animate", args=[[None], stop]),
    ]
    return dict(type="buttons", direction="left", buttons=buttons, x=0, y=0, xanchor="left", yanchor="top", pad=dict(t=40))
