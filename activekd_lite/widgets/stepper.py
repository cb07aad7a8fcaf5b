"""PCoreSet pick by pick, to be played, paused and stepped, with another strategy spending the same budget beside it."""

import html

import ipywidgets as w
import numpy as np
import pandas as pd
import torch
from plotly.colors import sample_colorscale

from activekd_lite.plots.base import COLOURS, INK, MARKERS, SEQUENTIAL, Figure, colour, marker
from activekd_lite.plots.maps import GROUND, HIDDEN, Array, in_steps, main_components
from activekd_lite.pool import Dataset, LabelState, Predictions
from activekd_lite.strategies import get_strategy
from activekd_lite.utils.seeding import generator
from activekd_lite.widgets.base import NARROW, Explorer, gallery, live_figure, thumbnail
from activekd_lite.widgets.scatter import groups, linked_scatter, points

SHADES = 21  # of the distance to the nearest centre
OURS = "pcoreset"


class PCoreSetStepper(Explorer):
    """`PCoreSetStepper(data, predictions, state)`: what PCoreSet picks, one image after the other, and why.

    Colour is an image's distance, in the space of `predictions.probs`, to the nearest image that is labelled or picked: a
    centre. PCoreSet picks the one that is farthest. Its distance is the covering radius: no image is farther from a centre.
    beside: the strategy that spends the same budget on the right; budget: picks, default: as many as there are classes;
    layout: (N, 2) where to draw, default: main components of the probabilities.

    `stepper.picks` are the picks of both, `stepper.radii` (budget + 1,) each: the covering radius after 0, 1, ... picks. Raises
    ValueError for an unknown strategy and for arrays that do not fit the pool.
    """

    def __init__(
        self, data: Dataset, predictions: Predictions, state: LabelState, *, beside: str = "random", budget: int | None = None,
        layout: Array | None = None, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        size, budget = len(data.pool), budget or data.pool.num_classes
        if len(predictions.probs) != size or len(state.labels) != size:
            raise ValueError(
                f"predictions of {len(predictions.probs)} and labels of {len(state.labels)} images; {data.name} has {size}"
            )
        self.data, self.predictions, self.state, self.seed, self.budget = (
            data,
            predictions,
            state,
            seed,
            budget,
        )
        self.probs = predictions.probs.detach().cpu().double()
        xy = (
            main_components(self.probs) if layout is None else torch.as_tensor(layout).cpu().numpy()
        )
        if xy.shape != (size, 2):
            raise ValueError(f"layout is {xy.shape}; the pool of {data.name} needs ({size}, 2)")
        self.xy, self.at = in_steps(xy.astype(np.float32)), 0
        self.picks: dict[str, list[int]] = {}
        self.distances: dict[
            str, np.ndarray
        ] = {}  # (budget + 1, N) each: to the nearest centre after so many picks
        self.beside = beside
        for name in (OURS, beside):
            self._ask(name)

    @property
    def radii(self) -> dict[str, np.ndarray]:
        """Covering radius after 0, 1, ..., budget picks, of both strategies."""
        return {
            name: self.distances[name].max(axis=1) for name in dict.fromkeys((OURS, self.beside))
        }

    def _ask(self, name: str) -> None:
        """The picks of a strategy, and how they bring the distances down."""
        chance = generator(self.seed, "selection", 0)
        picks = get_strategy(name)(
            self.predictions, self.state, self.budget, generator=chance
        ).tolist()
        nearest = [torch.cdist(self.probs, self.probs[self.state.labeled_indices]).amin(dim=1)]
        for pick in picks:
            nearest.append(torch.minimum(nearest[-1], (self.probs - self.probs[pick]).norm(dim=1)))
        self.picks[name], self.distances[name] = picks, torch.stack(nearest).numpy()

    def _shades(self, name: str, at: int) -> np.ndarray:
        """(N,) from 0, at a centre, to SHADES - 1, as far as anything was before the first pick."""
        most = max(1e-12, self.distances[OURS][0].max())
        return (self.distances[name][at] / most * (SHADES - 1)).round().astype(np.int16)

    def _looks(self) -> list[tuple[str, str]]:
        return [(c, MARKERS[0]) for c in sample_colorscale(SEQUENTIAL, SHADES, colortype="rgb")]

    def _words(self, at: int) -> str:
        said = ", ".join(
            f"{name} {radii[0]:.2f} to {radii[at]:.2f}" for name, radii in self.radii.items()
        )
        return f"{at} of {self.budget} picks made. Covering radius in probability space: {said}."

    # The static twin: where both end, and the way there.

    def figure(self) -> Figure:
        long = pd.DataFrame(self.radii).rename_axis(index="picks")
        figure = Figure(table=long.reset_index().round(3), alt=self._words(self.budget))
        names, part = list(self.radii), slice(None, None, -(-len(self.xy) // GROUND))
        titles = [*(f"{name} after {self.budget} picks" for name in names), "covering radius"]
        figure.set_subplots(1, len(titles), subplot_titles=titles, horizontal_spacing=0.05)
        for column, name in enumerate(names, 1):
            self._add_map(figure, name, part, column)
        self._add_curves(figure, row=1, col=len(titles))
        figure.update_xaxes(title="picks", row=1, col=len(titles)).update_yaxes(
            rangemode="tozero", row=1, col=len(titles)
        )
        most = self.distances[OURS][0].max()
        bar = dict(title="distance", orientation="h", y=-0.12, x=0.3, len=0.5, thickness=12)
        return figure.update_layout(
            height=460, margin=dict(l=10, r=10, t=60, b=70), legend=dict(x=1, xanchor="right", y=0.02, yanchor="bottom"),
            coloraxis=dict(cmin=0, cmax=float(most), colorbar=bar, colorscale=SEQUENTIAL),
        )  # fmt: skip

    def _add_map(self, figure: Figure, name: str, part: slice, column: int) -> None:
        left, here = self.distances[name][-1].round(2), dict(row=1, col=column)
        hidden = dict(showlegend=False, hoverinfo="skip", mode="markers")
        figure.add_scatter(x=self.xy[part, 0], y=self.xy[part, 1], **here, **hidden,
                           marker=dict(color=left[part], size=5, coloraxis="coloraxis"))  # fmt: skip
        for centers, symbol, tint in (
            (self.state.labeled_indices, "x-thin", INK),
            (self.picks[name], "cross-thin", COLOURS[1]),
        ):
            at = self.xy[np.asarray(centers)]
            cross = dict(symbol=symbol, size=9, line=dict(width=2, color=tint))
            figure.add_scatter(x=at[:, 0], y=at[:, 1], marker=cross, **here, **hidden)
        figure.update_xaxes(**HIDDEN, **here).update_yaxes(**HIDDEN, **here)

    def _add_curves(self, figure: Figure, **where: int) -> None:
        for place, (name, radii) in enumerate(self.radii.items()):
            line = dict(color=colour(place), dash="solid" if place == 0 else "dash")
            figure.add_scatter(
                x=np.arange(len(radii)), y=radii, mode="lines", name=name, line=line, **where
            )

    # The live face.

    def _build(self) -> w.Widget:
        looks = self._looks()
        most = self.distances[OURS][0].max()
        legend = [
            (f"distance {k / (SHADES - 1) * most:.2f}", looks[k]) for k in range(0, SHADES, 5)
        ]
        self._points = linked_scatter(
            self.data.pool.images, xys=points([self.xy, self.xy]), looks=looks, legend=legend
        )
        self._curves = live_figure(self._curves_figure())
        halves = [w.HTML(layout=w.Layout(flex="1 1 320px", min_width="0")) for _ in range(2)]
        self._said = [
            half.add_class(f"activekd-step-{side}")
            for half, side in zip(halves, ("left", "right"), strict=True)
        ]
        sides = w.HBox(self._said, layout=w.Layout(**NARROW))
        box = w.VBox([self._controls(), self._points, sides, self._curves]).add_class(
            "activekd-stepper"
        )
        self._draw()
        return box

    def _controls(self) -> w.Widget:
        self._slider = w.IntSlider(
            min=0, max=self.budget, value=self.at, description="picks made", continuous_update=True
        )
        self._play = w.Play(
            min=0, max=self.budget, value=self.at, interval=900, tooltip="play and pause"
        )
        self._extra = [w.jslink((self._play, "value"), (self._slider, "value"))]
        self._slider.observe(lambda change: self._go(change["new"]), "value")
        back = w.Button(
            description="back",
            tooltip="one pick back",
            icon="step-backward",
            layout=w.Layout(width="90px"),
        )
        step = w.Button(
            description="step",
            tooltip="one pick more",
            icon="step-forward",
            layout=w.Layout(width="90px"),
        )
        back.on_click(lambda _: self._slider.set_trait("value", max(0, self.at - 1)))
        step.on_click(lambda _: self._slider.set_trait("value", min(self.budget, self.at + 1)))
        names = dict.fromkeys(
            (
                self.beside,
                "random",
                "uncertainty",
                "coreset",
                "badge",
                "classbalanced",
                "typiclust",
                "probcover",
            )
        )
        menu = w.Dropdown(
            options=[n for n in names if n != OURS], value=self.beside, description="beside it"
        )
        menu.observe(lambda change: self._set_beside(change["new"]), "value")
        return w.HBox([self._play, back, step, self._slider, menu], layout=w.Layout(**NARROW))

    def _set_beside(self, name: str) -> None:
        if name not in self.picks:
            self._ask(name)
        self.beside = name
        new = self._curves_figure()
        with self._curves.batch_update():
            for old, trace in zip(self._curves.data, new.data, strict=True):
                old.update(x=trace.x, y=trace.y, name=trace.name)
        self._draw()

    def _go(self, at: int) -> None:
        self.at = at
        self._draw()

    def _curves_figure(self) -> Figure:
        figure = Figure(alt=self._words(self.at))
        self._add_curves(figure)
        for place, radii in enumerate(self.radii.values()):
            here = dict(symbol=marker(place), size=12, color=colour(place))
            figure.add_scatter(
                x=[self.at],
                y=radii[[self.at]],
                mode="markers",
                marker=here,
                showlegend=False,
                hoverinfo="skip",
            )
        figure.update_xaxes(title="picks").update_yaxes(title="covering radius", rangemode="tozero")
        return figure.update_layout(height=300, margin=dict(t=20), hovermode="x unified")

    def _draw(self) -> None:
        """Bring all parts to the step `at`."""
        names = (OURS, self.beside)
        labeled = self.state.labeled_indices.tolist()
        with self._points.hold_sync():
            self._points.groups = groups([self._shades(name, self.at) for name in names])
            self._points.titles = list(names)
            self._points.alt = self._words(self.at)
            self._points.marks = [
                {
                    "cross": labeled + self.picks[n][: self.at],
                    "ring": self.picks[n][self.at : self.at + 1],
                }
                for n in names
            ]
        for said, name in zip(self._said, names, strict=True):
            said.value = self._side(name)
        with self._curves.batch_update():
            for trace, radii in zip(self._curves.data[2:], self.radii.values(), strict=True):
                trace.x, trace.y = [self.at], [radii[self.at]]

    def _side(self, name: str) -> str:
        """What a strategy has done by now: radius, the picture that is next, the pictures picked."""
        picks, radius = self.picks[name], self.distances[name][self.at].max()
        lines = [
            f"<b>{html.escape(name)}</b>: {self.at} of {self.budget} picks, covering radius <b>{radius:.2f}</b>"
        ]
        if self.at < self.budget:
            pick = picks[self.at]
            far = self.distances[name][self.at, pick]
            lines.append(
                f"next: image {pick}, {far:.2f} from the nearest centre<br>{thumbnail(self.data.pool.images, pick, 72)}"
            )
        done = gallery(
            self.data.pool.images,
            picks[: self.at][::-1],
            lambda i: f"{picks.index(i) + 1}",
            side=40,
            most=12,
        )
        body = "<br>".join(lines) + (
            f"<div>picked, the last one first:</div>{done}" if done else ""
        )
        return f'<div role="status" style="color:{INK};font-size:14px;line-height:1.5">{body}</div>'
