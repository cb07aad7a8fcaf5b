"""Step through PCoreSet pick by pick, beside another strategy with the same budget."""

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
from activekd_lite.utils.distances import nearest_distances_by_pick
from activekd_lite.utils.seeding import generator
from activekd_lite.widgets import base, scatter
from activekd_lite.widgets.base import Explorer

SHADES = 21  # of the distance to the nearest centre
OURS = "pcoreset"
OTHERS = ("random", "uncertainty", "coreset", "badge", "classbalanced", "typiclust", "probcover")


class PCoreSetStepper(Explorer):
    """Which images PCoreSet picks and why, one after the other.

    Centres are the images labelled or picked so far. The colour of an image is its distance to the
    nearest centre in the space of `predictions.probs`. PCoreSet picks the farthest image; its
    distance is the covering radius: no image is farther from a centre.

    Parameters
    ----------
    beside : strategy to compare with, on the right
    budget : number of picks, by default the number of classes
    layout : (N, 2) positions on the map, by default main components of the probabilities

    Attributes
    ----------
    picks : strategy -> pool indices in pick order
    radii : strategy -> (budget + 1,) covering radius after 0, 1, ... picks

    Raises
    ------
    ValueError : unknown strategy, or arrays that do not fit the pool
    """

    def __init__(
        self,
        data: Dataset,
        predictions: Predictions,
        state: LabelState,
        *,
        beside: str = "random",
        budget: int | None = None,
        layout: Array | None = None,
        seed: int = 0,
    ):
        super().__init__()
        size = len(data.pool)
        if len(predictions.probs) != size or len(state.labels) != size:
            raise ValueError(
                f"predictions have {len(predictions.probs)} images and labels "
                f"{len(state.labels)}; the pool of {data.name} has {size}"
            )
        self.data, self.predictions, self.state, self.seed = data, predictions, state, seed
        self.budget, self.at = budget or data.pool.num_classes, 0
        self.probs = predictions.probs.detach().cpu().double()
        xy = (
            main_components(self.probs) if layout is None else torch.as_tensor(layout).cpu().numpy()
        )
        if xy.shape != (size, 2):
            raise ValueError(f"layout is {xy.shape}; the pool of {data.name} needs ({size}, 2)")
        self.xy = in_steps(xy.astype(np.float32))
        self.picks: dict[str, list[int]] = {}
        # Strategy -> (budget + 1, N) distances to the nearest centre after 0, 1, ... picks.
        self.distances: dict[str, np.ndarray] = {}
        self.beside = beside
        for name in (OURS, beside):
            self._pick(name)
        self._largest = self.distances[OURS][0].max()

    @property
    def radii(self) -> dict[str, np.ndarray]:
        """Covering radius (budget + 1,) of both strategies after 0, 1, ... picks."""
        names = dict.fromkeys((OURS, self.beside))
        return {name: self.distances[name].max(axis=1) for name in names}

    def _pick(self, name: str) -> None:
        """Compute the picks of a strategy and the distances after each."""
        strategy, chance = get_strategy(name), generator(self.seed, "selection", 0)
        picks = strategy(self.predictions, self.state, self.budget, generator=chance).tolist()
        labeled = self.state.labeled_indices
        self.distances[name] = nearest_distances_by_pick(self.probs, labeled, picks).numpy()
        self.picks[name] = picks

    def _shades(self, name: str) -> np.ndarray:
        """Shade (N,) of each image: 0 at a centre, SHADES - 1 at the first covering radius."""
        share = self.distances[name][self.at] / max(1e-12, self._largest)
        return (share * (SHADES - 1)).round().astype(np.int16)

    def _describe(self, at: int) -> str:
        changes = [
            f"{name} {radii[0]:.2f} to {radii[at]:.2f}" for name, radii in self.radii.items()
        ]
        radius = f"Covering radius in probability space: {', '.join(changes)}."
        return f"{at} of {self.budget} picks made. {radius}"

    # The static twin.

    def figure(self) -> Figure:
        long = pd.DataFrame(self.radii).rename_axis(index="picks")
        figure = Figure(table=long.reset_index().round(3), alt=self._describe(self.budget))
        titles = [*(f"{name} after {self.budget} picks" for name in self.radii), "covering radius"]
        curves = dict(row=1, col=len(titles))
        figure.set_subplots(1, len(titles), subplot_titles=titles, horizontal_spacing=0.05)
        for column, name in enumerate(self.radii, 1):
            self._add_map(figure, name, row=1, col=column)
        self._add_curves(figure, **curves)
        figure.update_xaxes(title="picks", **curves).update_yaxes(rangemode="tozero", **curves)
        bar = dict(title="distance", orientation="h", y=-0.12, x=0.3, len=0.5, thickness=12)
        axis = dict(cmin=0, cmax=float(self._largest), colorbar=bar, colorscale=SEQUENTIAL)
        legend = dict(x=1, xanchor="right", y=0.02, yanchor="bottom")
        margin = dict(l=10, r=10, t=60, b=70)
        return figure.update_layout(height=460, margin=margin, legend=legend, coloraxis=axis)

    def _add_map(self, figure: Figure, name: str, **panel: int) -> None:
        part = slice(None, None, -(-len(self.xy) // GROUND))
        distance = self.distances[name][-1].round(2)[part]
        hidden = dict(showlegend=False, hoverinfo="skip", mode="markers", **panel)
        dots = dict(color=distance, size=5, coloraxis="coloraxis")
        figure.add_scatter(x=self.xy[part, 0], y=self.xy[part, 1], marker=dots, **hidden)
        labeled = (self.state.labeled_indices, "x-thin", INK)
        for centres, symbol, tint in (labeled, (self.picks[name], "cross-thin", COLOURS[1])):
            at = self.xy[np.asarray(centres)]
            cross = dict(symbol=symbol, size=9, line=dict(width=2, color=tint))
            figure.add_scatter(x=at[:, 0], y=at[:, 1], marker=cross, **hidden)
        figure.update_xaxes(**HIDDEN, **panel).update_yaxes(**HIDDEN, **panel)

    def _add_curves(self, figure: Figure, **panel: int) -> None:
        for place, (name, radii) in enumerate(self.radii.items()):
            line = dict(color=colour(place), dash="solid" if place == 0 else "dash")
            style = dict(mode="lines", name=name, line=line)
            figure.add_scatter(x=np.arange(len(radii)), y=radii, **style, **panel)

    # The live widget.

    def _build(self) -> w.Widget:
        colours = sample_colorscale(SEQUENTIAL, SHADES, colortype="rgb")
        looks = [(c, MARKERS[0]) for c in colours]
        step = self._largest / (SHADES - 1)
        legend = [(f"distance {k * step:.2f}", looks[k]) for k in range(0, SHADES, 5)]
        xys = scatter.points([self.xy, self.xy])
        images = self.data.pool.images
        self._points = scatter.linked_scatter(images, xys=xys, looks=looks, legend=legend)
        self._curves = base.live_figure(self._curves_figure())
        sides = ("step-left", "step-right")
        self._sides = [base.html_box(side, flex="1 1 320px", min_width="0") for side in sides]
        parts = [self._controls(), self._points, base.row(*self._sides), self._curves]
        self._draw()
        return w.VBox(parts).add_class("activekd-stepper")

    def _controls(self) -> w.Widget:
        picks = dict(min=0, max=self.budget, value=self.at)
        self._slider = w.IntSlider(**picks, description="picks", continuous_update=True)
        play = w.Play(**picks, interval=900, tooltip="play or pause")
        self._links = [w.jslink((play, "value"), (self._slider, "value"))]
        self._slider.observe(lambda change: self._go(change["new"]), "value")
        steps = [self._button("back", "previous pick", -1), self._button("step", "next pick", 1)]
        names = [n for n in dict.fromkeys((self.beside, *OTHERS)) if n != OURS]
        menu = w.Dropdown(options=names, value=self.beside, description="compare with")
        menu.observe(lambda change: self._set_beside(change["new"]), "value")
        return base.row(play, *steps, self._slider, menu)

    def _button(self, name: str, tooltip: str, move: int) -> w.Button:
        icon = "step-forward" if move > 0 else "step-backward"
        look = dict(description=name, tooltip=tooltip, icon=icon)
        button = w.Button(**look, layout=w.Layout(width="90px"))
        button.on_click(
            lambda _: self._slider.set_trait("value", min(max(0, self.at + move), self.budget))
        )
        return button

    def _set_beside(self, name: str) -> None:
        if name not in self.picks:
            self._pick(name)
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
        figure = Figure(alt=self._describe(self.at))
        self._add_curves(figure)
        for place, radii in enumerate(self.radii.values()):
            dot = dict(symbol=marker(place), size=12, color=colour(place))
            style = dict(mode="markers", marker=dot, showlegend=False, hoverinfo="skip")
            figure.add_scatter(x=[self.at], y=radii[[self.at]], **style)
        figure.update_xaxes(title="picks").update_yaxes(title="covering radius", rangemode="tozero")
        return figure.update_layout(height=300, margin=dict(t=20), hovermode="x unified")

    def _draw(self) -> None:
        """Update all parts to the step `at`."""
        names, at = (OURS, self.beside), self.at
        with self._points.hold_sync():
            self._points.groups = scatter.groups([self._shades(name) for name in names])
            self._points.titles = list(names)
            self._points.alt = self._describe(at)
            self._points.marks = [self._marks(self.picks[name]) for name in names]
        for side, name in zip(self._sides, names, strict=True):
            side.value = self._side(name)
        with self._curves.batch_update():
            for trace, radii in zip(self._curves.data[2:], self.radii.values(), strict=True):
                trace.x, trace.y = [at], [radii[at]]

    def _marks(self, picks: list[int]) -> dict[str, list[int]]:
        centres = self.state.labeled_indices.tolist() + picks[: self.at]
        return {"cross": centres, "ring": picks[self.at : self.at + 1]}

    def _side(self, name: str) -> str:
        """HTML of a strategy's progress: radius, next image, images picked."""
        picks, distances = self.picks[name], self.distances[name][self.at]
        images, made = self.data.pool.images, f"{self.at} of {self.budget} picks"
        radius = f"covering radius <b>{distances.max():.2f}</b>"
        body = f"<b>{html.escape(name)}</b>: {made}, {radius}"
        if self.at < self.budget:
            pick = picks[self.at]
            body += f"<br>next: image {pick}, {distances[pick]:.2f} from the nearest centre"
            body += f"<br>{base.thumbnail(images, pick, 72)}"
        done = picks[: self.at][::-1]
        numbers = {i: str(n) for n, i in enumerate(picks, 1)}
        if shown := base.gallery(images, done, numbers.__getitem__, side=40, most=12):
            body += f"<div>picked so far, newest first:</div>{shown}"
        return base.status(body)
