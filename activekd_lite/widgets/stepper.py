"""Step through PCoreSet pick by pick, beside another strategy or beside your own picks."""

import operator

import numpy as np
import pandas as pd
import torch
from plotly.colors import sample_colorscale

from activekd_lite.plots.base import COLOURS, INK, MARKERS, SEQUENTIAL, Figure, colour
from activekd_lite.plots.maps import GROUND, HIDDEN, Array, in_steps, main_components
from activekd_lite.pool import Dataset, LabelState, Predictions
from activekd_lite.strategies import get_strategy
from activekd_lite.utils.distances import nearest_distances_by_pick
from activekd_lite.utils.seeding import generator
from activekd_lite.widgets.base import Explorer, count_of
from activekd_lite.widgets.page import Page, groups, points

SHADES = 20  # of the distance to the nearest centre
BAND = 4  # shades per entry of the legend
STEPS = 10_000  # of the distances that the page gets, per unit
SENT = 2_000_000  # distances sent at once; of larger tables, those of the picks shown
OURS, CHANCE, YOU = "pcoreset", "random", "you"
OTHERS = (CHANCE, "uncertainty", "coreset", "badge", "classbalanced", "typiclust", "probcover")


class PCoreSetStepper(Explorer):
    """Which images PCoreSet picks and why, one after the other.

    Centres are the images labelled or picked so far. The colour of an image is its distance to the
    nearest centre in the space of `predictions.probs`. PCoreSet picks the farthest image; its
    distance is the covering radius: no image is farther from a centre. On the right is another
    strategy, or the images that the learner picks.

    Parameters
    ----------
    beside : strategy to compare with, on the right
    budget : number of picks, by default the number of classes
    layout : (N, 2) positions on the map, by default main components of the probabilities

    Attributes
    ----------
    picks : strategy -> pool indices in pick order; `picks["you"]` are the learner's, if any
    radii : strategy -> (picks + 1,) covering radius after 0, 1, ... picks
    at : number of picks shown

    Raises
    ------
    ValueError : unknown strategy, arrays that do not fit the pool, no labelled image, or none to
        pick
    """

    def __init__(
        self,
        data: Dataset,
        predictions: Predictions,
        state: LabelState,
        *,
        beside: str = CHANCE,
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
        if size < 2 or not 0 < len(state.labeled_indices) < size:
            raise ValueError(
                f"{len(state.labeled_indices)} of {size} images of {data.name} are labelled; "
                "at least one labelled image and one to pick are needed"
            )
        self.data, self.predictions, self.state, self.seed = data, predictions, state, seed
        most = len(state.unlabeled_indices)
        self.budget, self.at = budget or min(data.pool.num_classes, most), 0
        self.probs = predictions.probs.detach().cpu().double()
        xy = (
            main_components(self.probs) if layout is None else torch.as_tensor(layout).cpu().numpy()
        )
        if xy.shape != (size, 2):
            raise ValueError(f"layout is {xy.shape}; the pool of {data.name} needs ({size}, 2)")
        self.xy = in_steps(xy.astype(np.float32))
        self.picks: dict[str, list[int]] = {}
        # Strategy -> (picks + 1, N) distances to the nearest centre after 0, 1, ... picks.
        self.distances: dict[str, np.ndarray] = {}
        self.nearest: dict[str, list[int]] = {}  # strategy -> centre nearest to each pick
        self._paths: dict[str, dict] = {}  # what the page says about each strategy
        self.beside, self._first, self._yours = beside, beside, False
        for name in (OURS, beside):
            self._run(name)
        self._largest = max(1e-12, self.distances[OURS][0].max())

    @property
    def radii(self) -> dict[str, np.ndarray]:
        """Covering radius (picks + 1,) after 0, 1, ... picks: both strategies', and yours."""
        yours = (YOU,) if self.picks.get(YOU) else ()
        names = dict.fromkeys((OURS, self.beside, *yours))
        return {name: self.distances[name].max(axis=1) for name in names}

    def _run(self, name: str) -> None:
        """Compute the picks of a strategy and the distances after each, once."""
        if name in self.picks:
            return
        strategy, chance = get_strategy(name), generator(self.seed, "selection", 0)
        picks = strategy(self.predictions, self.state, self.budget, generator=chance).tolist()
        labeled = self.state.labeled_indices
        self.distances[name] = nearest_distances_by_pick(self.probs, labeled, picks).numpy()
        centres = labeled.tolist() + picks
        self.nearest[name] = [
            self._nearest(pick, centres[: len(labeled) + made]) for made, pick in enumerate(picks)
        ]
        self.picks[name] = picks

    def _nearest(self, index: int, centres: list[int]) -> int:
        """The centre that is nearest to an image."""
        return centres[int((self.probs[centres] - self.probs[index]).norm(dim=1).argmin())]

    # The learner's own picks.

    def pick(self, index: int) -> None:
        """Add an image to your own picks.

        Raises ValueError if it is not in the pool, is labelled or picked already, or the budget is
        used up.
        """
        picks, index = self.picks.get(YOU, []), int(operator.index(index))
        if not 0 <= index < len(self.data.pool):
            raise ValueError(f"image {index}: the pool has images 0 to {len(self.data.pool) - 1}")
        if index in self.state.labeled_indices:
            raise ValueError(f"image {index} is labelled already; pick another one")
        if index in picks:
            raise ValueError(f"image {index} is picked already; pick another one")
        if len(picks) == self.budget:
            raise ValueError(f"all {self.budget} picks are made; undo one, or clear them")
        before = self.distances.get(YOU, self.distances[OURS][:1])
        after = np.minimum(before[-1], (self.probs - self.probs[index]).norm(dim=1).numpy())
        centres = self.state.labeled_indices.tolist() + picks
        self.nearest[YOU] = [*self.nearest.get(YOU, []), self._nearest(index, centres)]
        self.distances[YOU] = np.concatenate([before, after[None]])
        self.picks[YOU] = [*picks, index]
        self._refresh()

    def undo(self) -> None:
        """Take back your last pick."""
        if picks := self.picks.get(YOU):
            self.picks[YOU], self.nearest[YOU] = picks[:-1], self.nearest[YOU][:-1]
            self.distances[YOU] = self.distances[YOU][:-1]
            self._refresh()

    def clear(self) -> None:
        """Take back all your picks."""
        for parts in (self.picks, self.nearest, self.distances):
            parts.pop(YOU, None)
        self._refresh()

    # What figure and page say.

    def why(self, name: str, made: int) -> str:
        """One sentence about a strategy's next pick after `made` picks."""
        distances, picks = self.distances[name][made], self.picks[name]
        farthest = int(distances.argmax())
        radius = f"{distances[farthest]:.2f}"
        if made == len(picks):
            after = f"After {count_of(made, 'pick')}"
            return f"{after}, no image is farther than {radius} from a labelled one."
        pick, near = picks[made], self.nearest[name][made]
        number = f", pick {picks.index(near) + 1}" if near in picks else ""
        text = f"image {pick} is {distances[pick]:.2f} from its nearest labelled image "
        text += f"(image {near}{number})"
        if distances[pick] >= distances[farthest] - 1e-9:
            return f"{text}: farther than any other."
        return f"{text}; the farthest, image {farthest}, is {radius} away."

    def score(self) -> str:
        """Your covering radius, PCoreSet's and that of random picks, after as many picks."""
        made = len(self.picks.get(YOU, []))
        if not made:
            return (
                f"Click up to {count_of(self.budget, 'image')} to make the covering radius small."
            )
        self._run(CHANCE)
        radii = {name: self.distances[name][made].max() for name in (YOU, OURS, CHANCE)}
        said = ", ".join(f"{name} {radius:.2f}" for name, radius in radii.items())
        return f"Covering radius after {made} of {count_of(self.budget, 'pick')}: {said}."

    def _describe(self, at: int) -> str:
        changes = [
            f"{name} {radii[0]:.2f}"
            + (f" to {radii[min(at, len(radii) - 1)]:.2f}" if at and len(radii) > 1 else "")
            for name, radii in self.radii.items()
        ]
        radius = f"Covering radius in probability space: {', '.join(changes)}."
        return f"{at} of {count_of(self.budget, 'pick')} made. {radius}"

    def _status(self) -> str:
        return self.score() if self._yours else self._describe(self.at)

    # The static twin.

    def figure(self) -> Figure:
        first = f"First pick of {OURS}: {self.why(OURS, 0)}"
        figure = Figure(table=self._table(), alt=f"{self._describe(self.budget)} {first}")
        shown = list(dict.fromkeys((OURS, self.beside)))
        titles = [*(f"{name} after {self.budget} picks" for name in shown), "covering radius"]
        curves = dict(row=1, col=len(titles))
        figure.set_subplots(1, len(titles), subplot_titles=titles, horizontal_spacing=0.05)
        for column, name in enumerate(shown, 1):
            self._add_map(figure, name, row=1, col=column)
        self._add_curves(figure, **curves)
        figure.update_xaxes(title="picks", **curves).update_yaxes(rangemode="tozero", **curves)
        bar = dict(title="distance", orientation="h", y=-0.12, x=0.3, len=0.5, thickness=12)
        axis = dict(cmin=0, cmax=float(self._largest), colorbar=bar, colorscale=SEQUENTIAL)
        legend = dict(orientation="h", x=0, y=1.1, yanchor="bottom", font_size=14)
        margin = dict(l=10, r=10, t=90, b=70)
        return figure.update_layout(height=480, margin=margin, legend=legend, coloraxis=axis)

    def _table(self) -> pd.DataFrame:
        """One row per number of picks: the radii, PCoreSet's next pick and its nearest image."""
        table = pd.DataFrame(index=pd.RangeIndex(self.budget + 1, name="picks"))
        for name, radii in self.radii.items():
            table[name] = pd.Series(radii).round(3)
        table["next"] = pd.Series(self.picks[OURS], dtype="Int64")
        table["nearest"] = pd.Series(self.nearest[OURS], dtype="Int64")
        return table.reset_index()

    def _add_map(self, figure: Figure, name: str, **panel: int) -> None:
        part = slice(None, None, -(-len(self.xy) // GROUND))
        distance = self.distances[name][-1].round(2)[part]
        plain = dict(hoverinfo="skip", **panel)
        dots = dict(color=distance, size=5, coloraxis="coloraxis")
        x, y = self.xy[part].T
        figure.add_scatter(x=x, y=y, marker=dots, mode="markers", showlegend=False, **plain)
        line = self.xy[[self.nearest[name][0], self.picks[name][0]]]
        reach = dict(mode="lines", line=dict(color=INK, width=2, dash="dot"))
        named = dict(showlegend=panel["col"] == 1, legendgroup="reach")
        reach |= dict(name="first pick and its nearest labelled image", **named)
        figure.add_scatter(x=line[:, 0], y=line[:, 1], **reach, **plain)
        start = ("start", self.state.labeled_indices.tolist(), "x-thin", INK)
        for kind, at, symbol, tint in (start, ("picks", self.picks[name], "star", COLOURS[1])):
            edge = dict(width=2 if kind == "start" else 1, color=INK)
            look = dict(symbol=symbol, size=9 if kind == "start" else 11, color=tint, line=edge)
            style = dict(mode="markers", marker=look, name=kind, legendgroup=kind)
            style["showlegend"] = panel["col"] == 1
            x, y = self.xy[np.asarray(at)].T
            figure.add_scatter(x=x, y=y, **style, **plain)
        figure.update_xaxes(**HIDDEN, **panel).update_yaxes(**HIDDEN, **panel)

    def _add_curves(self, figure: Figure, **panel: int) -> None:
        for place, (name, radii) in enumerate(self.radii.items()):
            line = dict(color=colour(place), dash=("solid", "dash", "dot")[place])
            style = dict(mode="lines", name=name, line=line)
            figure.add_scatter(x=np.arange(len(radii)), y=radii, **style, **panel)

    # The live page.

    def _build(self) -> Page:
        shades = sample_colorscale(SEQUENTIAL, SHADES, colortype="rgb")
        others = [n for n in dict.fromkeys((self.beside, *OTHERS)) if n != OURS]
        view = {
            "budget": self.budget,
            "others": others,
            "looks": [(shade, MARKERS[0]) for shade in shades],
            "band": BAND,
            "steps": STEPS,
            "largest": float(self._largest),
            "start": self.state.labeled_indices.tolist(),
        }
        images, view = self.data.pool.images, view | self._state()
        return self._page_of("stepper", images, view=view, arrays=self._arrays())

    def _state(self) -> dict:
        """What the page shows and what changes."""
        names = dict.fromkeys((OURS, self.beside, CHANCE, YOU))
        paths = {name: self._path(name) for name in names if self.picks.get(name)}
        shown = dict(at=self.at, beside=self.beside, yours=self._yours, paths=paths)
        return shown | dict(score=self.score(), status=self._status())

    def _arrays(self) -> dict[str, bytes]:
        """Positions, and distances to the nearest centre."""
        mine = self.distances.get(YOU, self.distances[OURS][:1])[-1]
        return {"xy": points(self.xy), "mine": _in_steps(mine)} | self._tables()

    def _tables(self) -> dict[str, bytes]:
        """Distances (picks + 1, N) of both strategies; in a large pool, of the step shown (N,)."""
        tables = dict(ours=self.distances[OURS], other=self.distances[self.beside])
        if self._sends_steps:
            tables = {key: table[min(self.at, len(table) - 1)] for key, table in tables.items()}
        return {key: _in_steps(table) for key, table in tables.items()}

    @property
    def _sends_steps(self) -> bool:
        """Whether the pool is so large that the page gets the distances step by step."""
        return len(self.xy) * (self.budget + 1) > SENT

    def _path(self, name: str) -> dict:
        """A strategy's picks, and what the page says of it after 0, 1, ... picks."""
        if name != YOU and name in self._paths:
            return self._paths[name]
        radii = self.distances[name].max(axis=1)
        path = dict(picks=self.picks[name], nearest=self.nearest[name])
        picked = enumerate(self.picks[name])
        path["gaps"] = [round(float(self.distances[name][made][i]), 4) for made, i in picked]
        path["why"] = [self.why(name, made) for made in range(len(radii))]
        self._paths[name] = path | {"radii": radii.round(4).tolist()}
        return self._paths[name]

    def _refresh(self) -> None:
        """Bring the page, if there is one, and the twin up to date."""
        if self._widget is not None:
            with self._page.hold_sync():
                for name, array in self._arrays().items():
                    self._page.set_trait(name, array)
                self._page.update(**self._state())
            self._update_twin()

    def _on_step(self, to: int) -> None:
        self.at = min(max(0, int(to)), self.budget)
        with self._page.hold_sync():
            for name, array in (self._tables() if self._sends_steps else {}).items():
                self._page.set_trait(name, array)
            self._page.update(at=self.at, status=self._status())

    def _on_beside(self, name: str) -> None:
        self._run(name)
        self.beside = name
        self._refresh()

    def _on_yours(self, shown: bool) -> None:
        self._yours = bool(shown)
        self._refresh()

    def _on_pick(self, index: int) -> None:
        self.pick(index)

    def _on_undo(self) -> None:
        self.undo()

    def _on_clear(self) -> None:
        self.clear()

    def _on_reset(self) -> None:
        """Back to the first comparison, before the first pick; your picks are taken back."""
        self.at, self.beside, self._yours = 0, self._first, False
        self.clear()


def _in_steps(distances: np.ndarray) -> bytes:
    return groups((distances * STEPS).round())
