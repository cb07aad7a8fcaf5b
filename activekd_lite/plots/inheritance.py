"""The picture of the method: what the teacher says, what the student inherits, what PCoreSet picks.

With three classes the triangle is the whole probability space: distances on paper are distances
between probability vectors. More classes are the corners of a regular polygon. That is an
orthogonal projection, on which distances can only be shorter, and the figure says so.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from plotly.colors import hex_to_rgb
from torch import Tensor

from activekd_lite.analysis.structure import SplitBall, copied_errors, split_balls
from activekd_lite.plots.base import (
    COLOURS,
    INK,
    MARKERS,
    PALE,
    Figure,
    data_uri,
    picture_sheet,
    squares,
)
from activekd_lite.plots.maps import CORNERS, HIDDEN, SIDE, Array
from activekd_lite.utils.distances import nearest_distances_by_pick
from activekd_lite.utils.images import ImageFiles

UNIT = SIDE / np.sqrt(2)  # steps on paper per unit of distance: two corners are sqrt(2) apart
CLASS_PLACES = (0, 2, 3, 5, 7, 8, 9)  # of colours and markers; vermilion is for mistakes
COPIED, CHANGED = COLOURS[1], "#555555"  # mistakes that the student repeats, or does not
# Colours of the distance to the nearest labelled answer, near to far.
FIELD = ("#FFFEFA", "#FEEBC8", "#F9BF7C", "#E58A44", "#BE5427", "#84301C", "#4F1813")
PIXELS = 260  # width of the coloured triangle
MOST_TILES = 8  # picks drawn as pictures; more are drawn as numbers
SYMBOLS = {"circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "triangle-down": "▼"}
SYMBOLS |= {"x": "✖", "star": "★", "pentagon": "⬟", "hexagram": "✶", "cross": "✚"}


def class_look(place: int) -> tuple[str, str]:
    """Return colour and marker of the class in this place."""
    number = place % len(CLASS_PLACES)
    turn = place // len(CLASS_PLACES)
    kinds = [MARKERS[p] for p in CLASS_PLACES]
    return COLOURS[CLASS_PLACES[number]], kinds[(number + turn) % len(kinds)]


def corners_of(probs: Tensor) -> np.ndarray:
    """Return where the corner of each class lies on paper, (C, 2); points are at probs @ corners.

    Three classes: an equilateral triangle. More: a regular polygon of the size that makes it an
    orthogonal projection, with classes that `probs` (N, C) mixes up beside each other.
    """
    size = probs.shape[1]
    if size == 3:
        return CORNERS.astype(np.float64)
    turns = 2 * np.pi * np.arange(size) / size
    corners = np.empty((size, 2))
    circle = np.stack([-np.sin(turns), np.cos(turns)], axis=1)
    corners[_around(probs)] = UNIT * np.sqrt(2 / size) * circle
    return corners


def _around(probs: Tensor) -> list[int]:
    """Order the classes so that each is followed by the one that it is mixed up with most."""
    probs = torch.as_tensor(probs).double().cpu()
    together = (probs.T @ probs).fill_diagonal_(-1)
    order = [int(together.max(dim=1).values.argmax())]
    while len(order) < len(together):
        together[:, order[-1]] = -2  # taken
        order.append(int(together[order[-1]].argmax()))
    return order


def inheritance(
    teacher_probs: Array,
    student_probs: Array,
    labels: Array,
    labeled: Sequence[int] | Tensor,
    picks: Sequence[int] | Tensor | Mapping[str, Sequence[int] | Tensor],
    classnames: Sequence[str],
    *,
    images: Tensor | ImageFiles | None = None,
    balls: bool = False,
    kd_weight: float = 0.5,
    title: str = "",
) -> Figure:
    """Plot a teacher's predictions, its student's, and the picks in the student's space.

    Panel 1: the teacher's probabilities, coloured by true class. Panel 2: the student's, with an
    arrow from the teacher's place for each image that the teacher gets wrong. Panel 3: the
    student's space, coloured by the distance to the nearest labelled or picked image; one such
    panel per strategy.

    Parameters
    ----------
    teacher_probs, student_probs
        (N, C), at least three classes. With more than three, the panels are a projection.
    labels
        (N,) true classes, for inspection only; -1 for unknown.
    labeled, picks
        Indices of the labelled images, and of the picks of PCoreSet in their order, or of several
        strategies by name.
    images
        Drawn for the picks, and shown on hover in a saved page.
    balls
        Add the teacher's balls, split by true label, and the student's; dashed: what the
        proposition of arXiv:2506.00910 expects of an ideal student with this kd_weight.

    Raises
    ------
    ValueError
        For fewer than three classes, or shapes that do not fit.
    """
    p = _Picture(teacher_probs, student_probs, labels, labeled, picks, list(classnames))
    sheet = picture_sheet(images) if images is not None else None
    measured = split_balls(p.teacher, p.student, p.labels) if balls else []
    figure = Figure(
        table=p.table(measured, kd_weight), alt=p.alt(measured, kd_weight), pictures=sheet
    )
    figure.set_subplots(1, 2 + len(p.picks), horizontal_spacing=0.02)
    for col in (1, 2):
        p.add_frame(figure, col)
    p.add_points(figure, 0, 0.3 if balls else 0.8)
    if balls:
        p.add_points(figure, 1, 0.3)
        p.add_balls(figure, measured, kd_weight)
    else:
        p.add_student(figure)
    for col, name in enumerate(p.picks, 3):
        p.add_space(figure, name, images, col)
    return p.finish(figure, measured, title)


class _Picture:
    """The data of the figure on paper, and its parts."""

    def __init__(self, teacher, student, labels, labeled, picks, classnames):
        self.teacher, self.student = (
            torch.as_tensor(x).detach().cpu().double() for x in (teacher, student)
        )
        self.labels = torch.as_tensor(labels).cpu().long()
        picks = picks if isinstance(picks, Mapping) else {"PCoreSet": picks}
        self.picks = {name: torch.as_tensor(p).cpu().tolist() for name, p in picks.items()}
        self.labeled = torch.as_tensor(labeled).cpu().tolist()
        self.classnames = classnames
        shape = (len(self.labels), len(classnames))
        if len(classnames) < 3 or self.teacher.shape != shape or self.student.shape != shape:
            raise ValueError(
                f"teacher {tuple(self.teacher.shape)}, student {tuple(self.student.shape)}, "
                f"{shape[0]} labels and {shape[1]} class names: (N, C) with at least three "
                "classes is needed of both"
            )
        self.whole = len(classnames) == 3
        self.corners = corners_of(self.teacher)
        self.xy = [p.numpy() @ self.corners for p in (self.teacher, self.student)]
        self.answers = [p.argmax(dim=1) for p in (self.teacher, self.student)]
        self.counts = copied_errors(*self.answers, self.labels)
        self.by_pick = {
            name: nearest_distances_by_pick(self.student, self.labeled, rows).numpy()
            for name, rows in self.picks.items()
        }
        self.far = float(next(iter(self.by_pick.values()))[0].max())

    # Words and numbers.

    def accuracy(self, answers: Tensor) -> str:
        right = int((answers == self.labels)[self.labels >= 0].sum())
        return f"{100 * right / max(1, self.counts['images']):.0f} %"

    def radii(self, name: str) -> np.ndarray:
        """The largest distance to a labelled image (Q + 1,) after 0, 1, ... picks."""
        return self.by_pick[name].max(axis=1)

    def alt(self, measured: Sequence[SplitBall], kd_weight: float) -> str:
        c, names = self.counts, self.classnames
        some = f"of {len(names)} classes, {NOTE}"
        where = f"between {', '.join(names)}" if self.whole else some
        parts = [
            f"Three panels of {len(self.labels)} images {where}.",
            f"1: the teacher's accuracy is {self.accuracy(self.answers[0])}; it makes "
            f"{c['errors']} mistakes.",
            f"2: the student's accuracy is {self.accuracy(self.answers[1])}; it copies "
            f"{c['copied']} of the {c['errors']} mistakes, corrects {c['corrected']}, and makes "
            f"{c['new']} new ones.",
        ]
        for panel, (name, rows) in enumerate(self.picks.items(), 3):
            radii = self.radii(name)
            parts.append(
                f"{panel}: {len(rows)} picks of {name} reduce the largest distance to a labelled "
                f"answer from {radii[0]:.2f} to {radii[-1]:.2f}."
            )
            if rows:
                parts.append("Picks in order: " + "; ".join(map(self.describe, rows)) + ".")
        if measured:
            parts.append(ratio_text(measured, kd_weight))
        return " ".join(parts)

    def describe(self, index: int) -> str:
        said = [self.classnames[answers[index]] for answers in self.answers]
        label = int(self.labels[index])
        true = f"truly {self.classnames[label]}, " if label >= 0 else ""
        return f"image {index} ({true}teacher {said[0]}, student {said[1]})"

    def table(self, measured: Sequence[SplitBall], kd_weight: float) -> pd.DataFrame:
        """One row per true class and answer of the teacher: what the student answers."""
        size, rows = len(self.classnames), []
        balls = {(ball.label, ball.answer): ball for ball in measured}
        for label, answer in np.ndindex(size, size):
            members = (self.labels == label) & (self.answers[0] == answer)
            if not members.any():
                continue
            said = self.answers[1][members]
            names = {"true class": self.classnames[label], "teacher": self.classnames[answer]}
            row = names | {
                "images": int(members.sum()),
                "student agrees": int((said == answer).sum()),
            }
            row["student is right"] = int((said == label).sum())
            if measured:
                row |= _ball_row(balls.get((label, answer)), kd_weight)
            rows.append(row)
        return pd.DataFrame(rows)

    # Panels.

    def add_points(self, figure: Figure, panel: int, opacity: float) -> None:
        xy = self.xy[panel]
        for place in [*range(len(self.classnames)), -1]:
            members = np.flatnonzero(self.labels.numpy() == place)
            if not len(members):
                continue
            tint, symbol = class_look(place) if place >= 0 else (PALE, "circle")
            name = self.classnames[place] if place >= 0 else "unknown"
            figure.add_scatter(
                x=xy[members, 0].round(),
                y=xy[members, 1].round(),
                mode="markers",
                name=f"truly {name}",
                legendgroup=name,
                showlegend=panel == 0 and len(self.classnames) <= 12,
                customdata=members[:, None],
                marker=dict(color=tint, symbol=symbol, size=8, opacity=opacity, line=WHITE),
                hovertemplate=f"truly {name}<br>image %{{customdata[0]}}<extra></extra>",
                row=1,
                col=panel + 1,
            )

    def add_student(self, figure: Figure) -> None:
        """Add the student's points, with the corrected mistakes below and the copied ones above."""
        wrong = (self.labels >= 0) & (self.answers[0] != self.labels)
        same = self.answers[0] == self.answers[1]
        self.add_arrows(figure, wrong & ~same, "changed answer", CHANGED, 0.5)
        self.add_points(figure, 1, 0.8)
        self.add_arrows(figure, wrong & same, "copied mistake", COPIED, 0.9)

    def add_arrows(
        self, figure: Figure, members: Tensor, name: str, tint: str, opacity: float
    ) -> None:
        """Add arrows from the teacher's answer to the student's."""
        rows = np.flatnonzero(members.numpy())
        x, y = _wedges(self.xy[0][rows], self.xy[1][rows])
        look = dict(mode="lines", fill="toself", fillcolor=tint, line=dict(width=0.5, color=tint))
        look |= dict(opacity=opacity, hoverinfo="skip", name=name)
        figure.add_scatter(x=x, y=y, **look, row=1, col=2)

    def add_space(
        self, figure: Figure, name: str, images: Tensor | ImageFiles | None, col: int
    ) -> None:
        if self.whole:
            self.add_field(figure, self.picks[name], col)
        self.add_frame(figure, col)
        xy = self.xy[1].round()
        distance = self.by_pick[name][-1].round(3)
        dots = dict(size=5, coloraxis="coloraxis", color=distance)
        dots["line"] = dict(width=0.8, color="rgba(34,34,34,.55)")
        hover = "image %{customdata[0]}<br>distance %{marker.color:.2f}<extra></extra>"
        data = dict(customdata=np.arange(len(xy))[:, None], hovertemplate=hover, marker=dots)
        plain = dict(mode="markers", showlegend=False, row=1, col=col)
        figure.add_scatter(x=xy[:, 0], y=xy[:, 1], **data, **plain)
        self.add_centres(figure, name, images, col)

    def add_field(self, figure: Figure, picks: list[int], col: int) -> None:
        """Colour the triangle by the distance to the nearest labelled or picked answer."""
        uri = data_uri(field_picture(self.xy[1][self.labeled + picks], self.far))
        place = dict(x=0, y=CORNERS[2, 1], sizex=SIDE, sizey=CORNERS[2, 1], sizing="stretch")
        figure.add_layout_image(source=uri, layer="below", **place, row=1, col=col)

    def add_centres(
        self, figure: Figure, name: str, images: Tensor | ImageFiles | None, col: int
    ) -> None:
        picks, here = self.picks[name], dict(row=1, col=col)
        ring = dict(symbol="circle-open", size=13, color=INK, line=dict(width=3.5))
        start = self.xy[1][self.labeled]
        look = dict(mode="markers", name="labelled", hoverinfo="skip", marker=ring)
        look |= dict(showlegend=col == 3)
        figure.add_scatter(x=start[:, 0], y=start[:, 1], **look, **here)
        if not picks:
            return
        if images is not None and len(picks) <= MOST_TILES:
            return self.add_tiles(figure, picks, images, col)
        disc = dict(symbol="circle", size=19, color=INK, line=dict(width=1.5, color="white"))
        look = dict(mode="markers+text", name="picks, in order", marker=disc)
        look |= dict(textfont=dict(color="white", size=12), hoverinfo="skip", showlegend=col == 3)
        x, y = self.xy[1][picks].T
        text = [f"<b>{n}</b>" for n in range(1, len(picks) + 1)]
        figure.add_scatter(x=x, y=y, text=text, **look, **here)

    def add_tiles(
        self, figure: Figure, picks: list[int], images: Tensor | ImageFiles, col: int
    ) -> None:
        """Draw the picked images at their places, numbered."""
        side, here = 0.12 * self.size(), dict(row=1, col=col)
        tiles = squares(images, picks, 48)
        for number, (index, tile) in enumerate(zip(picks, tiles, strict=True), 1):
            x, y = self.xy[1][index]
            edge = dict(type="rect", line=dict(color=INK, width=2.5), layer="above")
            box = dict(x0=x - side / 2, x1=x + side / 2, y0=y - side / 2, y1=y + side / 2)
            uri = data_uri(tile.permute(1, 2, 0).numpy())
            place = dict(x=x, y=y, xanchor="center", yanchor="middle", sizex=side, sizey=side)
            figure.add_layout_image(source=uri, sizing="stretch", layer="above", **place, **here)
            figure.add_shape(**edge, **box, **here)
            badge = dict(bgcolor=INK, font=dict(color="white", size=13), borderpad=1)
            corner = dict(x=x + side / 2, y=y + side / 2, showarrow=False)
            figure.add_annotation(text=f"<b>{number}</b>", **badge, **corner, **here)

    def add_balls(self, figure: Figure, measured: Sequence[SplitBall], kd_weight: float) -> None:
        """Solid: measured, holding half of the images. Dashed: what the proposition expects."""
        turns = np.linspace(0, 2 * np.pi, 49)
        circle = np.stack([np.cos(turns), np.sin(turns)], axis=1)
        names = {"solid": "ball of half the images", "dash": "the proposition's ball"}
        for ball in measured:
            outlines = (
                (1, ball.teacher_center, ball.teacher_radius, "solid"),
                (2, ball.student_center, ball.student_radius, "solid"),
                (2, *ball.proposed(kd_weight), "dash"),
            )
            for col, middle, radius, dash in outlines:
                x, y = (middle.numpy() @ self.corners + UNIT * radius * circle).round().T
                line = dict(color=class_look(ball.label)[0], width=2.5, dash=dash)
                name = names.pop(dash, "") if col == 2 else ""
                look = dict(mode="lines", line=line, hoverinfo="skip", name=name)
                figure.add_scatter(x=x, y=y, showlegend=bool(name), **look, row=1, col=col)

    def add_frame(self, figure: Figure, col: int) -> None:
        """Edges, the borders between answers, and the names of the corners."""
        plain = dict(mode="lines", hoverinfo="skip", showlegend=False, row=1, col=col)
        around = self.corners[_angles(self.corners).argsort()]
        lines = [(np.concatenate([around, around[:1]]), EDGE)]
        if self.whole:
            middle = self.corners.mean(axis=0)
            halves = (self.corners + np.roll(self.corners, 1, axis=0)) / 2
            lines += [(np.stack([middle, half]), BORDER) for half in halves]
        for line, look in lines:
            figure.add_scatter(x=line[:, 0].round(), y=line[:, 1].round(), line=look, **plain)
        for place, (corner, name) in enumerate(zip(self.corners, self.classnames, strict=True)):
            self.add_name(figure, place, corner, name, col)

    def add_name(self, figure: Figure, place: int, corner: np.ndarray, name: str, col: int) -> None:
        tint, symbol = class_look(place)
        away = corner - self.corners.mean(axis=0)
        sideways = 0 if self.whole or abs(away[0]) < 0.3 * np.abs(away).max() else np.sign(away[0])
        anchors = {0: "center", 1: "left", -1: "right"}
        below = away[1] < -1e-6
        text = f"<span style='color:{tint}'>{SYMBOLS[symbol]}</span> <b>{name}</b>"
        style = dict(showarrow=False, font_size=16 if len(self.corners) <= 12 else 11)
        style |= dict(xanchor=anchors[int(sideways)], xshift=6 * int(sideways))
        style |= dict(yanchor="top" if below else "bottom", yshift=-7 if below else 7)
        figure.add_annotation(x=corner[0], y=corner[1], text=text, **style, row=1, col=col)

    def finish(self, figure: Figure, measured: Sequence[SplitBall], title: str) -> Figure:
        for col, (head, words) in enumerate(self.heads(measured), 1):
            text = f"<b>{head}</b><br><span style='font-size:14px'>{words}</span>"
            place = dict(xref=f"x{col} domain".replace("x1", "x"), yref="paper", x=0.5, y=1.0)
            figure.add_annotation(text=text, showarrow=False, yanchor="bottom", **place)
        low, high = self.limits()
        figure.update_xaxes(**HIDDEN, showline=False, range=[low[0], high[0]])
        figure.update_yaxes(**HIDDEN, showline=False, range=[low[1], high[1]])
        for col in range(1, 3 + len(self.picks)):
            axis = f"x{col}" if col > 1 else "x"
            anchored = dict(scaleanchor=axis, constrain="domain", constraintoward="top")
            figure.update_yaxes(**anchored, row=1, col=col)
        shades = dict(cmin=0, cmax=self.far, colorscale=list(FIELD), colorbar=_bar(len(self.picks)))
        if not self.whole:
            title = f"{title or f'{len(self.classnames)} classes'}: {NOTE}"
        legend = dict(orientation="h", x=0, xanchor="left", y=-0.24, yanchor="top")
        legend |= dict(itemsizing="constant", font_size=15, traceorder="normal")
        margin = dict(l=4, r=4, t=104 if title else 58, b=130)
        size = dict(height=490, margin=margin)
        return figure.update_layout(title=title, legend=legend, coloraxis=shades, **size)

    def heads(self, measured: Sequence[SplitBall]) -> list[tuple[str, str]]:
        """Title and subtitle of each panel."""
        c = self.counts
        student = f"copies {c['copied']} of {c['errors']} mistakes"
        if measured:
            student = f"radius × {np.median([ball.ratio for ball in measured]):.2f} (median)"
        teacher = f"{self.accuracy(self.answers[0])} right, {c['errors']} mistakes"
        heads = [("1 The teacher", teacher), ("2 The student", student)]
        for panel, name in enumerate(self.picks, 3):
            radii = self.radii(name)
            change = f"largest distance {radii[0]:.2f} → {radii[-1]:.2f}"
            heads.append((f"{panel} Where {name} asks", change))
        return heads

    def size(self) -> float:
        return float(np.ptp(self.corners, axis=0).max())

    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.corners.min(axis=0), self.corners.max(axis=0)
        edge = np.array([0.07 if self.whole else 0.2, 0.17]) * self.size()
        return low - edge, high + edge


NOTE = "a projection: true distances are larger"
WHITE = dict(color="white", width=0.6)
EDGE, BORDER = dict(color="#555555", width=1.5), dict(color="#BBBBBB", width=1.2, dash="dot")


def ratio_text(measured: Sequence[SplitBall], kd_weight: float) -> str:
    """Say how the balls' radii compare with what the proposition expects."""
    ratios = np.array([ball.ratio for ball in measured])
    spread = f"from {ratios.min():.2f} to {ratios.max():.2f}" if len(ratios) > 1 else ""
    return (
        f"The radius of the {len(measured)} balls with at least 10 images, student / teacher: "
        f"median {np.median(ratios):.2f} {spread}".rstrip()
        + f"; the proposition says {kd_weight:.2f}."
    )


def _ball_row(ball: SplitBall | None, kd_weight: float) -> dict:
    if ball is None:
        return {"teacher's radius": np.nan, "student's radius": np.nan, "ratio": np.nan}
    radii = {"teacher's radius": ball.teacher_radius, "student's radius": ball.student_radius}
    return radii | {"ratio": ball.ratio, "proposition": kd_weight}


def _bar(panels: int) -> dict:
    """The colour bar, below the panels that show a space."""
    title = dict(text="distance to nearest label", side="top", font_size=15)
    shape = dict(orientation="h", thickness=12, outlinewidth=0, tickfont_size=14, nticks=4)
    shape |= dict(len=0.9 / (2 + panels), x=1 - 0.5 * panels / (2 + panels), xanchor="center")
    return dict(title=title, y=0.0, yanchor="top", **shape)


def _angles(points: np.ndarray) -> np.ndarray:
    away = points - points.mean(axis=0)
    return np.arctan2(away[:, 1], away[:, 0])


def _wedges(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outlines of tapered arrows from `start` to `end` (n, 2), separated by NaN, as x and y."""
    step = end - start
    length = np.linalg.norm(step, axis=1, keepdims=True)
    along = step / np.maximum(length, 1e-9)
    aside = along[:, ::-1] * [-1, 1]
    neck = end - along * np.minimum(length, 0.05 * SIDE)
    shaft, head = 0.003 * SIDE * aside, 0.013 * SIDE * aside
    corners = [start, neck + shaft, neck + head, end, neck - head, neck - shaft, start]
    path = np.stack([*corners, np.full_like(start, np.nan)], axis=1).round()  # (n, 8, 2)
    return path[..., 0].ravel(), path[..., 1].ravel()


def field_picture(centres: np.ndarray, far: float, width: int = PIXELS) -> np.ndarray:
    """Colour the triangle by the distance to the nearest of `centres` (L, 2) on paper.

    far: the distance that gets the last colour. Returns (H, width, 4) uint8, transparent outside.
    """
    step = SIDE / width
    height = round(CORNERS[2, 1] / step)
    x = (np.arange(width) + 0.5) * step
    y = CORNERS[2, 1] - (np.arange(height) + 0.5) * (CORNERS[2, 1] / height)
    grid = np.stack(np.meshgrid(x, y), axis=-1)  # (H, W, 2)
    gaps = grid[:, :, None] - centres
    nearest = np.sqrt(np.square(gaps).sum(axis=-1)).min(axis=-1) / UNIT
    stops = np.array([hex_to_rgb(tint) for tint in FIELD], dtype=np.float64)
    place = (nearest / max(far, 1e-12)).clip(0, 1) * (len(stops) - 1)
    channels = [np.interp(place, np.arange(len(stops)), stops[:, k]) for k in range(3)]
    inside = np.minimum.reduce([_depth(grid, k) for k in range(3)]) / step
    alpha = 255 * (inside + 0.5).clip(0, 1)
    return np.stack([*channels, alpha], axis=-1).round().astype(np.uint8)


def _depth(grid: np.ndarray, k: int) -> np.ndarray:
    """The distance of points (..., 2) to an edge of the triangle, negative outside."""
    start, end = CORNERS[k], CORNERS[(k + 1) % 3]
    along = (end - start) / SIDE
    return (grid - start) @ np.array([-along[1], along[0]])
