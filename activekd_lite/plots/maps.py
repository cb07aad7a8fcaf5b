"""Figures of probability space: the simplex of three classes, maps, and picks on them.

Figures with thousands of points are drawn by WebGL, so that 50,000 stay responsive; smaller ones
are not, since a page can hold only a few WebGL contexts. WebGL draws above SVG, so whatever lies on
top of WebGL points is drawn by WebGL too.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from torch import Tensor

from activekd_lite.plots.base import (
    COLOURS,
    INK,
    NAMED,
    PALE,
    SEQUENTIAL,
    Figure,
    colour,
    marker,
    picture_sheet,
)
from activekd_lite.utils.distances import nearest_distances_by_pick
from activekd_lite.utils.images import ImageFiles
from activekd_lite.utils.seeding import uniforms

DENSE = 8000  # a figure with at least this many points is drawn by WebGL
GROUND = 1500  # background points of a small map, at most
SIDE = 10_000  # of a map, in integer steps: two bytes per coordinate keep notebooks small
CORNERS = SIDE * np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])  # of the triangle
HIDDEN = dict(showgrid=False, zeroline=False, showticklabels=False, ticks="")
Array = Tensor | np.ndarray
Picks = Mapping[str, Sequence[int]]


def simplex(
    probs: Array,
    corners: Sequence[str | int],
    classnames: Sequence[str],
    groups: Array | None = None,
    group_names: Sequence[str] | None = None,
    *,
    images: Tensor | ImageFiles | None = None,
    picks: Picks | None = None,
    balls: tuple[Tensor, Tensor] | None = None,
    title: str = "",
) -> Figure:
    """Plot predictions in the triangle of three classes: certain at the corners, unsure inside.

    Parameters
    ----------
    probs
        (N, C). Unless a corner is "rest", only images with at least half of their probability on
        the three classes are shown, rescaled to sum to 1. Points are jittered by up to 1.5 % of a
        side, since they pile up in the corners.
    corners
        Three class names or indices; "rest" combines all other classes.
    groups, group_names
        (N,) group of each point, -1 for the pale "others"; default: the predicted class.
    images
        Shown on hover in a saved page.
    picks
        Name -> pool indices to mark.
    balls
        Centers (K, 3) and radii (K,) in probability space, drawn as circles. Only three classes in
        all have a triangle on which these are true: a ValueError otherwise.
    """
    probs = np.asarray(torch.as_tensor(probs).cpu(), dtype=np.float64)
    columns, xy, names = triangle(probs, corners, classnames)
    mass = columns.sum(axis=1)
    shown = np.flatnonzero(mass >= 0.5)
    if groups is None:
        groups, group_names = probs.argmax(axis=1), [f"predicted {c}" for c in classnames]
    sheet = picture_sheet(images) if images is not None else None
    table, alt = (
        _points_table(xy, groups, group_names, shown),
        _corner_shares(columns, shown, names),
    )
    figure = Figure(table=table, alt=alt, pictures=sheet)
    add_triangle(figure, names)
    hover = "".join(f"<br>{name} %{{customdata[{k + 1}]}} %" for k, name in enumerate(names))
    add_groups(figure, xy, groups, group_names, shown, numbers=(100 * columns).round(), hover=hover)
    marked = {name: [int(i) for i in p if mass[int(i)] >= 0.5] for name, p in (picks or {}).items()}
    add_picks(figure, xy, len(shown), marked)
    if balls is not None:
        _add_balls(figure, *balls, [names.index(name) for name in classnames if name in names])
    figure.update_xaxes(**HIDDEN, range=[-0.15 * SIDE, 1.15 * SIDE])
    figure.update_yaxes(**HIDDEN, range=[-0.1 * SIDE, 0.98 * SIDE], scaleanchor="x")
    rest = "" if len(shown) == len(probs) else f" ({len(shown)} of {len(probs)} images)"
    title = (title or f"Between {', '.join(names)}") + rest
    return figure.update_layout(title=title, height=620, legend_itemsizing="constant")


def _add_balls(figure: Figure, centers: Tensor, radii: Tensor, corners: list[int]) -> None:
    """Add a circle per ball; two corners are sqrt(2) apart in probability space."""
    centers = torch.as_tensor(centers).cpu().double().numpy()
    if centers.shape[1] != 3 or len(corners) != 3:
        raise ValueError(
            f"balls in {centers.shape[1]} classes are no circles in this triangle: it needs "
            "probabilities of three classes, each with a corner"
        )
    circles = zip(centers @ CORNERS[corners], torch.as_tensor(radii).tolist(), strict=True)
    for (x, y), radius in circles:
        reach = SIDE / np.sqrt(2) * radius
        box = dict(x0=x - reach, x1=x + reach, y0=y - reach, y1=y + reach)
        figure.add_shape(type="circle", line=dict(color=INK, width=2), **box)


def _corner_shares(columns: np.ndarray, shown: np.ndarray, names: Sequence[str]) -> str:
    """The alternative text of a simplex: how many images are almost certain of each corner."""
    weights = columns[shown] / np.maximum(columns[shown].sum(axis=1), 1e-12)[:, None]
    shares = (weights > 0.9).mean(axis=0) if len(shown) else np.zeros(3)
    parts = zip(100 * shares, names, strict=True)
    near = ", ".join(f"{share:.0f} % at {name}" for share, name in parts)
    return (
        f"Triangle of {', '.join(names)} with {len(shown)} of {len(columns)} images. "
        f"Within 10 % of a corner: {near}."
    )


def maps(
    panels: Mapping[str, Array],
    groups: Array,
    group_names: Sequence[str],
    *,
    images: Tensor | ImageFiles | None = None,
    picks: Picks | None = None,
    title: str = "",
) -> Figure:
    """Plot the same N points in panels side by side, coloured by group.

    In a saved page, hovering a point shows its image and rings the point in the other panels.

    Parameters
    ----------
    panels
        Name -> coordinates (N, 2).
    groups, group_names
        (N,) group of each point, -1 for the pale "others".
    images
        Shown on hover in a saved page.
    picks
        Name -> pool indices to mark.
    """
    arrays = {name: _coordinates(xy) for name, xy in panels.items()}
    if len({len(xy) for xy in arrays.values()}) != 1:
        sizes = ", ".join(f"{name}: {len(xy)}" for name, xy in arrays.items())
        raise ValueError(f"panels of {sizes} points; all panels need the same points")
    count, picks = len(next(iter(arrays.values()))), picks or {}
    present = len(np.unique(_integers(groups)))
    tables = [_points_table(xy, groups, group_names).assign(panel=k) for k, xy in arrays.items()]
    alt = f"{count} points in {len(arrays)} panels ({', '.join(arrays)}), in {present} groups."
    sheet, linked = None if images is None else picture_sheet(images), present + len(picks)
    figure = Figure(table=pd.concat(tables), alt=alt, linked=linked, pictures=sheet)
    figure.set_subplots(1, len(arrays), subplot_titles=list(arrays), horizontal_spacing=0.04)
    everything, dense = np.arange(count), count * len(arrays)
    for column, xy in enumerate(map(in_steps, arrays.values()), 1):
        at = dict(row=1, col=column)
        add_groups(figure, xy, groups, group_names, everything, dense=dense, **at)
        add_picks(figure, xy, dense, picks, **at)
    figure.update_xaxes(**HIDDEN).update_yaxes(**HIDDEN)
    layout = dict(height=600, margin=dict(l=20), legend_itemsizing="constant")
    return figure.update_layout(title=title, **layout)


def picks_on_map(
    xy: Array,
    picks: Picks,
    labeled: Sequence[int] | None = None,
    *,
    columns: int = 3,
    title: str = "",
) -> Figure:
    """Plot each strategy's picks on the same map (N, 2), numbered in pick order.

    Crosses mark the labelled images; at most GROUND points are drawn as the background.
    """
    xy = in_steps(_coordinates(xy))
    columns = min(columns, len(picks))
    rows = -(-len(picks) // columns)
    entries = [(name, t, int(i)) for name, p in picks.items() for t, i in enumerate(p, 1)]
    table = pd.DataFrame(entries, columns=["strategy", "pick", "index"])
    table = table.assign(x=xy[table["index"], 0], y=xy[table["index"], 1])
    alt = f"A map of {len(xy)} images with the picks of {', '.join(picks)}, one panel each."
    figure = Figure(table=table, alt=alt)
    spacing = dict(horizontal_spacing=0.02, vertical_spacing=0.1 / rows)
    figure.set_subplots(rows, columns, subplot_titles=list(picks), **spacing)
    known = None if labeled is None else xy[np.asarray(labeled)]
    for place, (name, indices) in enumerate(picks.items()):
        at = dict(row=place // columns + 1, col=place % columns + 1)
        for trace in _pick_panel(xy, name, place, [int(i) for i in indices], known):
            figure.add_trace(trace, **at)
    figure.update_xaxes(**HIDDEN).update_yaxes(**HIDDEN)
    layout = dict(height=90 + 300 * rows, showlegend=False, margin=dict(l=20, b=20))
    return figure.update_layout(title=title, **layout)


def _pick_panel(
    xy: np.ndarray, name: str, place: int, indices: list[int], known: np.ndarray | None
) -> list[go.Scatter]:
    """Background, labelled images `known` (n, 2) and picks of one panel."""
    ground = xy[:: -(-len(xy) // GROUND)]
    pale = dict(mode="markers", marker=dict(size=3, color=PALE), hoverinfo="skip")
    traces = [go.Scatter(x=ground[:, 0], y=ground[:, 1], **pale)]
    if known is not None:
        cross = dict(symbol="x-thin", size=9, line=dict(width=2, color=INK))
        look = dict(mode="markers", marker=cross, hovertemplate="labelled<extra></extra>")
        traces.append(go.Scatter(x=known[:, 0], y=known[:, 1], **look))
    edge = dict(width=1.5, color=INK)
    dots = go.Scatter(
        x=xy[indices, 0],
        y=xy[indices, 1],
        mode="markers+text" if len(indices) <= 12 else "markers",
        text=[str(t) for t in range(1, len(indices) + 1)],
        textposition="top center",
        textfont_size=12,
        customdata=indices,
        marker=dict(size=12, color=colour(place), symbol=marker(place), line=edge),
        hovertemplate=f"{name}, pick %{{text}}: image %{{customdata}}<extra></extra>",
    )
    return [*traces, dots]


def pick_by_pick(
    xy: Array, points: Array, labeled: Sequence[int], picks: Sequence[int], *, title: str = ""
) -> Figure:
    """Animate greedy picks under a slider: colour is the distance to the nearest centre.

    A ring marks the next pick. The covering radius, the largest of these distances, is in the
    slider's labels and in the table.

    Parameters
    ----------
    xy
        (N, 2) coordinates to draw.
    points
        (N, C), between which Euclidean distances are measured.
    labeled
        Pool indices of the first centres.
    picks
        Pool indices in pick order.
    """
    xy, points = in_steps(_coordinates(xy)), torch.as_tensor(points).double().cpu()
    labeled, picks = np.asarray(labeled).tolist(), np.asarray(picks).tolist()
    distances = nearest_distances_by_pick(points, labeled, picks)
    radii = [d.max().item() for d in distances]
    scale = 250 / max(radii[0], 1e-12)  # one byte per point and step
    colours = [(d * scale).round().byte().numpy() for d in distances]
    columns = {"picks": range(len(radii)), "next": [*picks, None], "covering_radius": radii}
    alt = f"A map of {len(xy)} images and {len(picks)} picks. "
    alt += f"The covering radius falls from {radii[0]:.2f} to {radii[-1]:.2f}."
    steps = [_step_traces(xy, labeled + picks[:t], picks[t : t + 1]) for t in range(len(radii))]
    frames = [_frame(t, colours[t], traces) for t, traces in enumerate(steps)]
    first = [_distance_trace(xy, colours[0]), *steps[0]]
    figure = Figure(first, table=pd.DataFrame(columns), alt=alt, frames=frames)
    ticks = np.linspace(0, radii[0], 5)
    bar = dict(title="distance", tickvals=ticks * scale, ticktext=[f"{v:.2f}" for v in ticks])
    figure.update_layout(
        coloraxis=dict(cmin=0, cmax=250, colorscale=SEQUENTIAL, colorbar=bar),
        sliders=[_slider([f"{t}: radius {r:.2f}" for t, r in enumerate(radii)])],
        updatemenus=[_play_button()],
        title=title or "Greedy picks, one by one",
        height=680,
        margin=dict(l=20),
        legend=dict(orientation="h", y=1.02, yanchor="bottom", x=1, xanchor="right"),
    )
    return figure.update_xaxes(**HIDDEN).update_yaxes(**HIDDEN)


def _distance_trace(xy: np.ndarray, colours: np.ndarray) -> go.Scatter:
    return kind_of(len(xy))(
        x=xy[:, 0],
        y=xy[:, 1],
        mode="markers",
        customdata=np.arange(len(xy)),
        showlegend=False,
        hovertemplate="image %{customdata}<extra></extra>",
        marker=dict(size=6, color=colours, coloraxis="coloraxis"),
    )


def _step_traces(xy: np.ndarray, centers: list[int], following: list[int]) -> list[go.Scatter]:
    """The centres, and the next pick (none after the last one)."""
    kind, look = kind_of(len(xy)), dict(mode="markers", hoverinfo="skip")
    cross = dict(symbol="x-thin", size=11, line=dict(width=3, color=COLOURS[1]))
    ring = dict(symbol="circle-open", size=20, line=dict(width=4, color=COLOURS[3]))
    marks = ((centers, "labelled or picked", cross), (following, "next pick", ring))
    return [
        kind(x=xy[indices, 0], y=xy[indices, 1], name=name, marker=mark, **look)
        for indices, name, mark in marks
    ]


def _frame(step: int, colours: np.ndarray, traces: Sequence[go.Scatter]) -> go.Frame:
    changes = [dict(marker=dict(color=colours)), *(dict(x=t.x, y=t.y) for t in traces)]
    return go.Frame(name=str(step), data=changes)


def triangle(
    probs: np.ndarray, corners: Sequence[str | int], classnames: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Project probs (N, C) onto a triangle.

    Returns the probabilities of the corners (N, 3), int16 coordinates (N, 2) jittered by up to
    1.5 % of a side, and the names of the corners.
    """
    columns, names = _corner_columns(corners, list(classnames), probs)
    weights = columns / np.maximum(columns.sum(axis=1), 1e-12)[:, None]
    angle, reach = uniforms(0, np.arange(len(probs)), 2).T
    direction = np.stack([np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)], axis=1)
    jitter = 0.015 * np.sqrt(reach)[:, None] * direction
    return columns, (weights @ CORNERS + SIDE * jitter).round().astype(np.int16), names


def most_mixed_up(probs: Tensor) -> list[int]:
    """The pair of classes that probs (N, C) confuse most, and the class most confused with it."""
    together = probs.T @ probs  # (C, C)
    together.fill_diagonal_(-1)  # never the same class twice, even if nothing is mixed up
    a, b = divmod(int(together.argmax()), len(together))
    third = together[a] + together[b]
    third[[a, b]] = -1
    return [a, b, int(third.argmax())]


def _corner_columns(
    corners: Sequence[str | int], classnames: list[str], probs: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """The probabilities (N, 3) and names of three corners."""
    corners = [c if isinstance(c, str) else classnames[int(c)] for c in corners]
    if len(corners) != 3 or len(set(corners)) != 3 or not set(corners) <= {*classnames, "rest"}:
        known = ", ".join(classnames[:20]) + (", ..." if len(classnames) > 20 else "")
        raise ValueError(
            f"corners {list(corners)}: expected three different names of {known}, "
            "or 'rest' for all other classes"
        )
    columns = {c: probs[:, classnames.index(c)] for c in corners if c != "rest"}
    columns["rest"] = 1 - sum(columns.values())
    return np.stack([columns[c] for c in corners], axis=1).clip(0), corners


def main_components(points: Tensor) -> np.ndarray:
    """A quick map (N, 2) of points (N, F): their first two principal components."""
    from sklearn.decomposition import PCA

    return PCA(2, random_state=0).fit_transform(points.cpu().numpy())


def kind_of(points: int) -> type:
    """The trace type for a figure of so many points."""
    return go.Scattergl if points >= DENSE else go.Scatter


def in_steps(xy: np.ndarray) -> np.ndarray:
    """Shift and scale a map (N, 2) to int16 steps from 0 to SIDE, keeping its proportions.

    float32 if some coordinates are NaN.
    """
    low, high = np.nanmin(xy, axis=0), np.nanmax(xy, axis=0)
    steps = ((xy - low) * (SIDE / max(1e-12, (high - low).max()))).round()
    return steps.astype(np.float32 if np.isnan(steps).any() else np.int16)


def _coordinates(xy: Array) -> np.ndarray:
    return np.asarray(torch.as_tensor(xy).cpu(), dtype=np.float32)


def _integers(groups: Array) -> np.ndarray:
    return np.asarray(torch.as_tensor(groups).cpu())


def _points_table(
    xy: np.ndarray, groups: Array, names: Sequence[str], shown: np.ndarray | None = None
) -> pd.DataFrame:
    shown = np.arange(len(xy)) if shown is None else shown
    named = [_group_name(group, names) for group in _integers(groups)[shown]]
    return pd.DataFrame({"index": shown, "group": named, "x": xy[shown, 0], "y": xy[shown, 1]})


def _group_name(group: int, names: Sequence[str]) -> str:
    return "others" if group < 0 else str(names[group])


def triangle_lines() -> list[tuple[float, float, float, float, str]]:
    """The lines of a triangle as (x0, y0, x1, y1, kind).

    kind: "edge", or "half", along which a class has a probability of one half.
    """
    halves = [(CORNERS[k] + CORNERS[[(k + 1) % 3, (k + 2) % 3]]) / 2 for k in range(3)]
    edges = [CORNERS[[k, (k + 1) % 3]] for k in range(3)]
    kinds = [*((line, "half") for line in halves), *((line, "edge") for line in edges)]
    return [(*line.ravel().tolist(), kind) for line, kind in kinds]


def corner_labels(names: Sequence[str]) -> list[tuple[float, float, str, bool]]:
    """(x, y, name, whether the label goes below) of each corner."""
    return [(*CORNERS[k].tolist(), name, k < 2) for k, name in enumerate(names)]


def add_triangle(figure: Figure, names: Sequence[str]) -> None:
    """Add the lines and corner labels of a triangle."""
    half, edge = dict(color="#DDDDDD", width=1, dash="dot"), dict(color="#444444", width=1.5)
    looks, plain = {"half": half, "edge": edge}, dict(hoverinfo="skip", showlegend=False)
    for x0, y0, x1, y1, kind in triangle_lines():
        figure.add_scatter(x=[x0, x1], y=[y0, y1], mode="lines", line=looks[kind], **plain)
    for x, y, name, below in corner_labels(names):
        side = dict(yanchor="top", yshift=-12) if below else dict(yanchor="bottom", yshift=12)
        figure.add_annotation(x=x, y=y, text=f"<b>{name}</b>", showarrow=False, **side)


def add_groups(
    figure: Figure,
    xy: np.ndarray,
    groups: Array,
    names: Sequence[str],
    shown: np.ndarray,
    *,
    numbers: np.ndarray | None = None,
    hover: str = "",
    row: int | None = None,
    col: int | None = None,
    dense: int | None = None,
) -> None:
    """Add one trace for each group of the points `shown`, in the same order in every panel.

    customdata: pool index, then `numbers` (N, k). dense: number of points in the whole figure.
    """
    groups, total = _integers(groups), dense or len(shown)
    present = np.unique(groups[shown])
    size = 7 if total < 3000 else 5 if len(shown) < DENSE else 3
    integer = np.uint16 if len(xy) < 2**16 else np.int32
    order = np.unique(groups[groups >= 0]).tolist()  # colours are the same in all panels
    for group in present:
        look, name = dict(color=PALE), _group_name(group, names)
        if group >= 0:
            place = order.index(group)
            look = dict(color=colour(place), symbol=marker(place), opacity=0.75)
        members = shown[groups[shown] == group]
        columns = [members] if numbers is None else [members, numbers[members]]
        trace = kind_of(total)(
            x=xy[members, 0],
            y=xy[members, 1],
            mode="markers",
            name=name,
            legendgroup=str(group),
            showlegend=len(present) <= NAMED and col in (None, 1),
            customdata=np.column_stack(columns).astype(integer),
            marker=dict(size=size, **look),
            hovertemplate=f"{name}<br>image %{{customdata[0]}}{hover}<extra></extra>",
        )
        figure.add_trace(trace, row=row, col=col)


def add_picks(
    figure: Figure,
    xy: np.ndarray,
    dense: int,
    picks: Picks,
    row: int | None = None,
    col: int | None = None,
) -> None:
    """Add one trace of ringed points for each entry of picks. dense: points in the figure."""
    for place, (name, indices) in enumerate(picks.items()):
        indices, symbol = [int(i) for i in indices], marker(place) + "-open"
        trace = kind_of(dense)(
            x=xy[indices, 0],
            y=xy[indices, 1],
            mode="markers",
            name=name,
            legendgroup=f"picks {name}",
            showlegend=col in (None, 1),
            customdata=np.array(indices)[:, None],
            marker=dict(symbol=symbol, size=15, color=INK, line_width=2.5),
            hovertemplate=f"{name}: image %{{customdata[0]}}<extra></extra>",
        )
        figure.add_trace(trace, row=row, col=col)


STILL = dict(duration=0, redraw=False)
AT_ONCE = dict(mode="immediate", frame=STILL, transition=dict(duration=0))


def _slider(labels: Sequence[str]) -> dict:
    steps = [
        dict(method="animate", args=[[str(t)], AT_ONCE], label=label)
        for t, label in enumerate(labels)
    ]
    value, pad = dict(prefix="picks made ", font_size=16), dict(t=20, l=110)
    return dict(steps=steps, currentvalue=value, pad=pad, x=0, len=1, font_size=11)


def _play_button() -> dict:
    frame = dict(duration=900, redraw=False)
    play = dict(frame=frame, transition=dict(duration=0), fromcurrent=True)
    buttons = [
        dict(label="play", method="animate", args=[None, play]),
        dict(label="stop", method="animate", args=[[None], AT_ONCE]),
    ]
    place = dict(x=0, y=0, xanchor="left", yanchor="top", pad=dict(t=40))
    return dict(type="buttons", direction="left", buttons=buttons, **place)
