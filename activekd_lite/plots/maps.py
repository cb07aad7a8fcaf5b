"""Pictures of probability space: the triangle of three classes, maps side by side, what strategies pick on them.

Points by the thousand are drawn by WebGL, so that 50,000 stay responsive; fewer are not, as a page has few WebGL contexts. What
WebGL draws lies above all else, so what is to be seen on top of it is drawn by it, too.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from sklearn.decomposition import PCA
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
from activekd_lite.utils.images import ImageFiles
from activekd_lite.utils.seeding import uniforms

DENSE = 8000  # points in a figure from which on WebGL draws them
GROUND = 1500  # points that draw the ground of a small map
SIDE = 10_000  # of a map, in whole steps: two bytes a coordinate keep notebooks small
CORNERS = SIDE * np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])  # of the triangle
HIDDEN = dict(showgrid=False, zeroline=False, showticklabels=False, ticks="")
Array = Tensor | np.ndarray


def simplex(
    probs: Array, corners: Sequence[str | int], classnames: Sequence[str], groups: Array | None = None,
    group_names: Sequence[str] | None = None, *, images: Tensor | ImageFiles | None = None,
    picks: Mapping[str, Sequence[int]] | None = None, title: str = "",
) -> Figure:  # fmt: skip
    """Predictions in the triangle of three classes: a corner is certainty, the middle is doubt among all three.

    probs: (N, C); corners: three class names or positions, or "rest", which groups all others. Without "rest" only images
    with at least half of their probability on the three are shown, scaled to sum to 1. Points, which pile up in the corners,
    are moved by up to 1.5 % of a side. groups (N,) colour, default: the predicted class, -1: pale, others; picks: name -> pool
    indices.
    """
    probs = np.asarray(torch.as_tensor(probs).cpu(), dtype=np.float64)
    columns, xy, names = triangle(probs, corners, classnames)
    mass = columns.sum(axis=1)
    shown = np.flatnonzero(mass >= 0.5)
    if groups is None:
        groups, group_names = probs.argmax(axis=1), [f"predicted {c}" for c in classnames]
    weights = columns / np.maximum(mass, 1e-12)[:, None]
    sure = [
        f"{((weights[shown, k] > 0.9).mean() if len(shown) else 0):.0%} at {name}"
        for k, name in enumerate(names)
    ]
    alt = f"Triangle of {', '.join(names)} with {len(shown)} of {len(probs)} images; within 10 % of a corner: {', '.join(sure)}."
    figure = Figure(
        table=_points_table(xy, groups, group_names, shown),
        alt=alt,
        pictures=picture_sheet(images) if images is not None else None,
    )
    add_triangle(figure, names)
    hover = "".join(f"<br>{name} %{{customdata[{k + 1}]}} %" for k, name in enumerate(names))
    add_groups(figure, xy, groups, group_names, shown, numbers=(100 * columns).round(), hover=hover)
    add_picks(
        figure,
        xy,
        len(shown),
        {
            n: [i for i in np.asarray(p).tolist() if mass[i] >= 0.5]
            for n, p in (picks or {}).items()
        },
    )
    figure.update_xaxes(**HIDDEN, range=[-0.15 * SIDE, 1.15 * SIDE])
    figure.update_yaxes(**HIDDEN, range=[-0.1 * SIDE, 0.98 * SIDE], scaleanchor="x")
    rest = "" if len(shown) == len(probs) else f" ({len(shown)} of {len(probs)} images)"
    return figure.update_layout(
        title=(title or f"Between {', '.join(names)}") + rest,
        height=620,
        legend_itemsizing="constant",
    )


def maps(
    panels: Mapping[str, Array], groups: Array, group_names: Sequence[str], *, images: Tensor | ImageFiles | None = None,
    picks: Mapping[str, Sequence[int]] | None = None, title: str = "",
) -> Figure:  # fmt: skip
    """The same N points in panels side by side, name -> (N, 2): one colour and marker for each of `groups` (N,) in all (-1:
    pale, others).

    In a saved page hovering a point shows its picture and rings it in the other panels. picks: name -> pool indices.
    """
    arrays = {
        name: np.asarray(torch.as_tensor(xy).cpu(), dtype=np.float32) for name, xy in panels.items()
    }
    if len({len(xy) for xy in arrays.values()}) != 1:
        raise ValueError(
            f"panels of {', '.join(f'{k}: {len(v)}' for k, v in arrays.items())} points; the same are needed in all"
        )
    count, picks = len(next(iter(arrays.values()))), picks or {}
    present = np.unique(np.asarray(torch.as_tensor(groups).cpu()))
    table = pd.concat(
        [_points_table(xy, groups, group_names).assign(panel=name) for name, xy in arrays.items()]
    )
    alt = f"{count} points in {len(arrays)} panels ({', '.join(arrays)}), coloured by {len(present)} groups."
    figure = Figure(
        table=table,
        alt=alt,
        linked=len(present) + len(picks),
        pictures=picture_sheet(images) if images is not None else None,
    )
    figure.set_subplots(1, len(arrays), subplot_titles=list(arrays), horizontal_spacing=0.04)
    for column, xy in enumerate(map(in_steps, arrays.values()), 1):
        add_groups(
            figure,
            xy,
            groups,
            group_names,
            np.arange(count),
            row=1,
            col=column,
            dense=count * len(arrays),
        )
        add_picks(figure, xy, count * len(arrays), picks, row=1, col=column)
    figure.update_xaxes(**HIDDEN)
    figure.update_yaxes(**HIDDEN)
    return figure.update_layout(
        title=title, height=600, margin=dict(l=20), legend_itemsizing="constant"
    )


def picks_on_map(
    xy: Array,
    picks: Mapping[str, Sequence[int]],
    labeled: Sequence[int] | None = None,
    *,
    columns: int = 3,
    title: str = "",
) -> Figure:
    """The same map (N, 2) once for each strategy: its picks in colour, numbered in pick order, what is labelled as a cross, and
    GROUND points at most as the ground."""
    xy = in_steps(np.asarray(torch.as_tensor(xy).cpu(), dtype=np.float32))
    columns = min(columns, len(picks))
    rows = -(-len(picks) // columns)
    table = pd.DataFrame(
        [(name, t, int(i)) for name, p in picks.items() for t, i in enumerate(p, 1)],
        columns=["strategy", "pick", "index"],
    )
    table = table.assign(x=xy[table["index"], 0], y=xy[table["index"], 1])
    alt = f"A map of {len(xy)} images, once for each of {', '.join(picks)}, with the picks of each."
    figure = Figure(table=table, alt=alt)
    figure.set_subplots(
        rows,
        columns,
        subplot_titles=list(picks),
        horizontal_spacing=0.02,
        vertical_spacing=0.1 / rows,
    )
    ground = xy[:: -(-len(xy) // GROUND)]
    for place, (name, indices) in enumerate(picks.items()):
        at = dict(row=place // columns + 1, col=place % columns + 1)
        indices = [int(i) for i in indices]
        dots = dict(mode="markers", marker=dict(size=3, color=PALE), hoverinfo="skip")
        figure.add_scatter(x=ground[:, 0], y=ground[:, 1], **dots, **at)
        if labeled is not None:
            known = xy[np.asarray(labeled)]
            cross = dict(symbol="x-thin", size=9, line=dict(width=2, color=INK))
            figure.add_scatter(
                x=known[:, 0],
                y=known[:, 1],
                mode="markers",
                marker=cross,
                hovertemplate="labelled<extra></extra>",
                **at,
            )
        figure.add_scatter(
            x=xy[indices, 0], y=xy[indices, 1], mode="markers+text" if len(indices) <= 12 else "markers",
            text=[str(t) for t in range(1, len(indices) + 1)], textposition="top center", textfont_size=12, customdata=indices,
            marker=dict(size=12, color=colour(place), symbol=marker(place), line=dict(width=1.5, color=INK)),
            hovertemplate=f"{name}, pick %{{text}}: image %{{customdata}}<extra></extra>", **at,
        )  # fmt: skip
    figure.update_xaxes(**HIDDEN)
    figure.update_yaxes(**HIDDEN)
    return figure.update_layout(
        title=title, height=90 + 300 * rows, showlegend=False, margin=dict(l=20, b=20)
    )


def pick_by_pick(
    xy: Array, points: Array, labeled: Sequence[int], picks: Sequence[int], *, title: str = ""
) -> Figure:
    """Greedy picks one by one, under a slider: colour is an image's distance to the nearest centre, the ring the next pick.

    xy: (N, 2) where to draw; points: (N, C) where distances are measured (Euclidean); labeled: the first centres, pool
    indices; picks: in their order. The covering radius, the largest distance, is in the slider's labels and the table.
    """
    xy = in_steps(np.asarray(torch.as_tensor(xy).cpu(), dtype=np.float32))
    points = torch.as_tensor(points).double().cpu()
    labeled, picks = np.asarray(labeled).tolist(), np.asarray(picks).tolist()
    nearest = torch.cdist(points, points[labeled]).amin(dim=1)
    distances = [nearest]
    for pick in picks:
        distances.append(torch.minimum(distances[-1], (points - points[pick]).norm(dim=1)))
    radii = [d.max().item() for d in distances]
    scale = 250 / max(radii[0], 1e-12)  # a byte a point and step
    colours = [(d * scale).round().byte().numpy() for d in distances]
    table = pd.DataFrame(
        {"picks": range(len(radii)), "next": [*picks, None], "covering_radius": radii}
    )
    alt = f"A map of {len(xy)} images under {len(picks)} picks; the covering radius falls from {radii[0]:.2f} to {radii[-1]:.2f}."

    def step(t: int) -> list[go.Scatter]:
        centers, ring = xy[labeled + picks[:t]], xy[picks[t : t + 1]]
        kind = kind_of(len(xy))
        return [
            kind(x=xy[:, 0], y=xy[:, 1], mode="markers", customdata=np.arange(len(xy)),
                 hovertemplate="image %{customdata}<extra></extra>",
                 marker=dict(size=6, color=colours[t], coloraxis="coloraxis")),
            kind(x=centers[:, 0], y=centers[:, 1], mode="markers", name="labelled or picked", hoverinfo="skip",
                       marker=dict(symbol="x-thin", size=11, line=dict(width=3, color=COLOURS[1]))),
            kind(x=ring[:, 0], y=ring[:, 1], mode="markers", name="next pick", hoverinfo="skip",
                       marker=dict(symbol="circle-open", size=20, line=dict(width=4, color=COLOURS[3]))),
        ]  # fmt: skip

    frames = [
        go.Frame(
            name=str(t),
            data=[dict(marker=dict(color=colours[t])), *(dict(x=s.x, y=s.y) for s in step(t)[1:])],
        )
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


def triangle(
    probs: np.ndarray, corners: Sequence[str | int], classnames: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """What a triangle shows of probs (N, C): the probabilities (N, 3) of the corners, where to draw them (N, 2) in int16 steps,
    moved by up to 1.5 % of a side, and the three names."""
    columns, names = _corner_columns(corners, list(classnames), probs)
    weights = columns / np.maximum(columns.sum(axis=1), 1e-12)[:, None]
    angle, reach = uniforms(0, np.arange(len(probs)), 2).T
    jitter = (
        0.015
        * np.sqrt(reach)[:, None]
        * np.stack([np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)], axis=1)
    )
    return columns, (weights @ CORNERS + SIDE * jitter).round().astype(np.int16), names


def most_mixed_up(probs: Tensor) -> list[int]:
    """The three classes that probs (N, C) mix up most: the pair that shares the most, and who shares most with it."""
    together = probs.T @ probs  # (C, C)
    together.fill_diagonal_(0)
    a, b = divmod(int(together.argmax()), len(together))
    third = together[a] + together[b]
    third[[a, b]] = -1
    return [a, b, int(third.argmax())]


def _corner_columns(
    corners: Sequence[str | int], classnames: list[str], probs: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """(N, 3) and the three names."""
    corners = [c if isinstance(c, str) else classnames[int(c)] for c in corners]
    if len(corners) != 3 or len(set(corners)) != 3 or not set(corners) <= {*classnames, "rest"}:
        known = ", ".join(classnames[:20]) + (", ..." if len(classnames) > 20 else "")
        raise ValueError(
            f"corners {list(corners)}; three different ones of {known}, or 'rest' for all others, are needed"
        )
    columns = {c: probs[:, classnames.index(c)] for c in corners if c != "rest"}
    columns["rest"] = 1 - sum(columns.values())
    return np.stack([columns[c] for c in corners], axis=1).clip(0), list(corners)


def main_components(points: Tensor) -> np.ndarray:
    """A map (N, 2) of points (N, F) that takes no time: along the two directions in which they vary most."""
    return PCA(2, random_state=0).fit_transform(points.cpu().numpy())


def kind_of(points: int) -> type:
    return go.Scattergl if points >= DENSE else go.Scatter


def in_steps(xy: np.ndarray) -> np.ndarray:
    """A map (N, 2) moved and scaled, its proportions kept, to int16 steps from 0 to SIDE; float32 if some are NaN."""
    low, high = np.nanmin(xy, axis=0), np.nanmax(xy, axis=0)
    steps = ((xy - low) * (SIDE / max(1e-12, (high - low).max()))).round()
    return steps.astype(np.float32 if np.isnan(steps).any() else np.int16)


def _points_table(
    xy: np.ndarray, groups: Array, names: Sequence[str], shown: np.ndarray | None = None
) -> pd.DataFrame:
    shown = np.arange(len(xy)) if shown is None else shown
    groups = np.asarray(torch.as_tensor(groups).cpu())[shown]
    return pd.DataFrame(
        {
            "index": shown,
            "group": [_named(g, names) for g in groups],
            "x": xy[shown, 0],
            "y": xy[shown, 1],
        }
    )


def _named(group: int, names: Sequence[str]) -> str:
    return "others" if group < 0 else str(names[group])


def triangle_lines() -> list[tuple[float, float, float, float, str]]:
    """(x0, y0, x1, y1, kind) each: "half", where a class has one half (who crosses it has changed sides), and "edge"."""
    halves = [(CORNERS[k] + CORNERS[[(k + 1) % 3, (k + 2) % 3]]) / 2 for k in range(3)]
    edges = [CORNERS[[k, (k + 1) % 3]] for k in range(3)]
    kinds = ["half"] * 3 + ["edge"] * 3
    return [
        (*line.ravel().tolist(), kind) for line, kind in zip([*halves, *edges], kinds, strict=True)
    ]


def corner_labels(names: Sequence[str]) -> list[tuple[float, float, str, bool]]:
    """(x, y, name, does it stand below?) of each corner."""
    return [
        (x, y, name, k < 2)
        for k, ((x, y), name) in enumerate(zip(CORNERS.tolist(), names, strict=True))
    ]


def add_triangle(figure: Figure, names: Sequence[str]) -> None:
    looks = {
        "half": dict(color="#DDDDDD", width=1, dash="dot"),
        "edge": dict(color="#444444", width=1.5),
    }
    for x0, y0, x1, y1, kind in triangle_lines():
        figure.add_scatter(
            x=[x0, x1],
            y=[y0, y1],
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
            line=looks[kind],
        )
    for x, y, name, below in corner_labels(names):
        side = dict(yanchor="top", yshift=-12) if below else dict(yanchor="bottom", yshift=12)
        figure.add_annotation(x=x, y=y, text=f"<b>{name}</b>", showarrow=False, **side)


def add_groups(
    figure: Figure, xy: np.ndarray, groups: Array, names: Sequence[str], shown: np.ndarray, *,
    numbers: np.ndarray | None = None, hover: str = "", row: int | None = None, col: int | None = None,
    dense: int | None = None,
) -> None:  # fmt: skip
    """A trace for each group that occurs, the same in every panel; customdata: pool index, then `numbers` (N, k)."""
    groups = np.asarray(torch.as_tensor(groups).cpu())
    kind = kind_of(dense or len(shown))
    present, size = (
        np.unique(groups[shown]),
        7 if (dense or len(shown)) < 3000 else 5 if len(shown) < DENSE else 3,
    )
    whole = np.uint16 if len(xy) < 2**16 else np.int32
    places = {
        group: place for place, group in enumerate(g for g in np.unique(groups) if g >= 0)
    }  # the same in all panels
    for group in present:
        style = dict(color=PALE)
        if group >= 0:
            style = dict(color=colour(places[group]), symbol=marker(places[group]), opacity=0.75)
        members = shown[groups[shown] == group]
        custom = (
            members[:, None] if numbers is None else np.column_stack([members, numbers[members]])
        )
        trace = kind(
            x=xy[members, 0], y=xy[members, 1], mode="markers", name=_named(group, names),
            legendgroup=str(group), showlegend=len(present) <= NAMED and col in (None, 1), customdata=custom.astype(whole),
            marker=dict(size=size, **style),
            hovertemplate=f"{_named(group, names)}<br>image %{{customdata[0]}}{hover}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(trace, row=row, col=col)


def add_picks(
    figure: Figure,
    xy: np.ndarray,
    dense: int,
    picks: Mapping[str, Sequence[int]],
    row: int | None = None,
    col: int | None = None,
) -> None:
    for place, (name, indices) in enumerate(picks.items()):
        indices = [int(i) for i in indices]
        trace = kind_of(dense)(
            x=xy[indices, 0], y=xy[indices, 1], mode="markers", name=name, legendgroup=f"picks {name}",
            showlegend=col in (None, 1), customdata=np.array(indices)[:, None],
            marker=dict(symbol=marker(place) + "-open", size=15, color=INK, line_width=2.5),
            hovertemplate=f"{name}: image %{{customdata[0]}}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(trace, row=row, col=col)


def _slider(labels: Sequence[str]) -> dict:
    still = dict(
        mode="immediate", frame=dict(duration=0, redraw=False), transition=dict(duration=0)
    )
    steps = [
        dict(method="animate", args=[[str(t)], still], label=label)
        for t, label in enumerate(labels)
    ]
    return dict(
        steps=steps,
        currentvalue=dict(prefix="picks made ", font_size=16),
        pad=dict(t=20, l=110),
        x=0,
        len=1,
        font_size=11,
    )


def _play_button() -> dict:
    play = dict(
        frame=dict(duration=900, redraw=False), transition=dict(duration=0), fromcurrent=True
    )
    stop = dict(mode="immediate", frame=dict(duration=0, redraw=False), transition=dict(duration=0))
    buttons = [
        dict(label="play", method="animate", args=[None, play]),
        dict(label="stop", method="animate", args=[[None], stop]),
    ]
    return dict(
        type="buttons",
        direction="left",
        buttons=buttons,
        x=0,
        y=0,
        xanchor="left",
        yanchor="top",
        pad=dict(t=40),
    )
