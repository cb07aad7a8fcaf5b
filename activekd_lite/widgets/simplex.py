"""Explore probability space: a triangle of three classes beside a map of the same images."""

import re
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from plotly.colors import sample_colorscale
from torch import Tensor

from activekd_lite.plots.base import (
    COLOURS,
    MARKERS,
    NAMED,
    SEQUENTIAL,
    Figure,
    colour,
    marker,
)
from activekd_lite.plots.maps import (
    HIDDEN,
    SIDE,
    Array,
    add_groups,
    add_picks,
    add_triangle,
    corner_labels,
    in_steps,
    main_components,
    most_mixed_up,
    triangle,
    triangle_lines,
)
from activekd_lite.pool import Dataset, LabelState
from activekd_lite.widgets.base import Explorer, Selection
from activekd_lite.widgets.page import Page, groups, points

# Of the triangle, with room for a button at each corner.
RANGE = {"x": [-0.08 * SIDE, 1.08 * SIDE], "y": [-0.19 * SIDE, 1.06 * SIDE]}
STEPS = 10  # shades of confidence
SUGGESTED = 6  # classes offered for a corner, the most confused first
GALLERY = 24  # pictures of a selection's group
MOST_UMAP = 20_000  # with more images, the map is a UMAP only when asked for
COMPONENTS, UMAP = "main components", "UMAP"

Look = tuple[str, str]  # colour, marker


class SimplexExplorer(Explorer):
    """`SimplexExplorer(data, {"teacher": probs, "student": its_probs})`: triangle and map, linked.

    Hovering over a point shows its image and its most probable classes, and rings it in both
    panels. A lasso in either panel selects in both; `explorer.selected` has the pool indices. With
    several sets of answers, a slider moves the points of the triangle from one to another. True
    labels are offered as a colour, for inspection only, if all of them are known.

    Parameters
    ----------
    probs : (N, C), or name -> (N, C)
    corners : three class names or positions, or "rest"; by default, the classes that the first of
        `probs` mixes up most
    layouts : name -> (N, 2) maps, NaN for images not on the map; by default, a UMAP of the first of
        `probs`, with main components shown until it is ready (and in static figures)
    state : offers the round in which each image was labelled as a colour
    clusters : (N,) cluster numbers; by default, k-means with as many clusters as classes
    selection : a selection to share with other explorers

    Raises
    ------
    ValueError : arrays that do not fit the pool, or unknown corners
    """

    def __init__(
        self,
        data: Dataset,
        probs: Array | Mapping[str, Array],
        *,
        corners: Sequence[str | int] | None = None,
        layouts: Mapping[str, Array] | None = None,
        state: LabelState | None = None,
        clusters: Array | None = None,
        selection: Selection | None = None,
        seed: int = 0,
    ):
        super().__init__()
        named = probs if isinstance(probs, Mapping) else {"predictions": probs}
        self.data, self.seed = data, seed
        self.probs = {name: torch.as_tensor(p).float().cpu() for name, p in named.items()}
        self.layouts = {n: _numpy(xy).astype(np.float32) for n, xy in (layouts or {}).items()}
        self.selection = selection or Selection()
        self.source, self.beside = next(iter(self.probs)), next(reversed(self.probs))
        self.corners = list(self._default_corners() if corners is None else corners)
        self._colourings = self._all_colourings(state, clusters)
        self.coloured_by = next(iter(self._colourings))
        self._check()
        self.corners = self._checked(self.corners)
        self._first = dict(
            source=self.source,
            beside=self.beside,
            coloured_by=self.coloured_by,
            corners=self.corners,
        )

    def _default_corners(self) -> list[str | int]:
        classes = self.data.pool.num_classes
        return [0, 1, "rest"] if classes == 2 else most_mixed_up(self.probs[self.source])

    def _check(self) -> None:
        pool, classes = len(self.data.pool), self.data.pool.num_classes
        arrays = [("probs", name, p, (pool, classes)) for name, p in self.probs.items()]
        arrays += [("layout", name, xy, (pool, 2)) for name, xy in self.layouts.items()]
        for kind, name, array, shape in arrays:
            if array.shape != shape:
                raise ValueError(
                    f"{kind} {name!r}: shape {tuple(array.shape)}, "
                    f"but the pool of {self.data.name} needs {shape}"
                )

    @property
    def selected(self) -> Tensor:
        """Selected pool indices (n,), ascending."""
        return torch.tensor(self.selection.indices, dtype=torch.int64)

    # Colours.

    def _all_colourings(self, state: LabelState | None, clusters: Array | None) -> dict:
        """Name -> (groups (N,), group names); groups are None if computed on demand."""
        classes, colourings, oracle = list(self.data.classnames), {}, self.data.oracle
        if not oracle.unknown_count:
            labels = oracle.label(torch.arange(len(self.data.pool)))
            colourings["true label"] = (labels.numpy(), classes)
        edges = [f"{k / STEPS:.0%}" for k in range(STEPS + 1)]
        steps = [f"{a} to {b} confidence" for a, b in pairwise(edges)]
        colourings |= {"prediction": (None, classes), "confidence": (None, steps)}
        colourings["cluster"] = (None if clusters is None else _numpy(clusters), None)
        if state is not None:
            rounds = state.labeled_round.numpy()
            names = [f"round {r}" if r else "start" for r in range(max(1, rounds.max() + 1))]
            colourings["round labelled"] = (rounds, names)
        return colourings

    def _groups(self) -> tuple[np.ndarray, list[str]]:
        """Groups (N,) of the current colouring, -1 for pale, and their names."""
        groups, names = self._colourings[self.coloured_by]
        probs = self.probs[self.source]
        if self.coloured_by == "prediction":
            groups = self._predicted[self.source]
        if self.coloured_by == "confidence":
            groups = (probs.amax(dim=1).numpy() * STEPS).astype(int).clip(max=STEPS - 1)
        if self.coloured_by == "cluster":
            groups = self._clusters(probs) if groups is None else groups
            self._colourings["cluster"] = (groups, None)
            names = [f"cluster {k}" for k in range(groups.max() + 1)]
        return groups, names

    @cached_property
    def _predicted(self) -> dict[str, np.ndarray]:
        """Source -> predicted classes (N,)."""
        return {name: probs.argmax(dim=1).numpy() for name, probs in self.probs.items()}

    def _clusters(self, probs: Tensor) -> np.ndarray:
        from sklearn.cluster import KMeans

        k_means = KMeans(self.data.pool.num_classes, n_init=1, random_state=self.seed)
        return k_means.fit_predict(probs.numpy())

    def _looks(self, groups: np.ndarray, names: Sequence[str]) -> tuple[list[Look], list[dict]]:
        """Look of each group, and the legend of those that are there."""
        families = _families(names)
        looks = [(colour(k), marker(k)) for k in range(len(names))]
        if self.coloured_by == "confidence":
            shades = sample_colorscale(SEQUENTIAL, STEPS, colortype="rgb")
            looks, families = [(shade, MARKERS[0]) for shade in shades], {}
        elif families:
            looks = _looks_of(names, families)
        counts = np.bincount(groups[groups >= 0], minlength=len(names)).tolist()
        present = sorted(np.flatnonzero(counts).tolist(), key=lambda g: (families.get(g, ""), g))
        legend = [
            dict(key=g, name=str(names[g]), look=looks[g], count=counts[g], group=families.get(g))
            for g in present
        ]
        return looks, legend

    # The static twin.

    def figure(self) -> Figure:
        (left, shown), layout = self._in_triangle(), next(iter(self.layouts), COMPONENTS)
        groups, names = self._groups()
        table = pd.DataFrame({"index": range(len(left)), "group": "others"})
        table["group"] = [names[g] if g >= 0 else "others" for g in groups]
        table = table.assign(x=left[:, 0], y=left[:, 1])
        figure = Figure(table=table, alt=self._describe(shown, layout))
        titles = [self._title(), layout]
        figure.set_subplots(1, 2, horizontal_spacing=0.03, subplot_titles=titles)
        right = in_steps(self._map(layout))
        on_map = np.flatnonzero(~np.isnan(right.astype(np.float32)).any(axis=1))
        for column, (xy, indices) in enumerate(((left, shown), (right, on_map)), 1):
            self._add_panel(figure, xy, indices, groups, names, row=1, col=column)
        add_triangle(figure, self.corners)
        figure.update_xaxes(**HIDDEN).update_yaxes(**HIDDEN)
        figure.update_xaxes(range=RANGE["x"], row=1, col=1)
        figure.update_yaxes(range=RANGE["y"], scaleanchor="x", row=1, col=1)
        legend = dict(showlegend=len(np.unique(groups)) <= NAMED, legend_itemsizing="constant")
        return figure.update_layout(height=520, margin=dict(l=70, r=10, t=50, b=10), **legend)

    def _add_panel(
        self,
        figure: Figure,
        xy: np.ndarray,
        indices: np.ndarray,
        groups: np.ndarray,
        names: list[str],
        **panel: int,
    ) -> None:
        """Draw the images `indices` and which of them are selected."""
        dense = 2 * len(xy)
        steps = np.nan_to_num(xy).astype(np.int16)  # two bytes per coordinate: small notebooks
        add_groups(figure, steps, groups, names, indices, dense=dense, **panel)
        drawn = set(indices.tolist())
        if selected := [i for i in self.selection.indices if i in drawn]:
            add_picks(figure, steps, dense, {"selected": selected}, **panel)

    def _title(self) -> str:
        return f"three classes ({self.source})"

    def _checked(self, corners: Sequence[str | int]) -> list[str]:
        """The names of the corners; ValueError unless they are three different known ones."""
        return triangle(self.probs[self.source][:1].numpy(), corners, self.data.classnames)[2]

    def _in_triangle(self, source: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Positions (N, 2) in the triangle, and the indices of the images shown.

        Images with less than half of their probability on the corners are NaN.
        """
        probs = self.probs[source or self.source].numpy()
        columns, xy, _ = triangle(probs, self.corners, self.data.classnames)
        shown = columns.sum(axis=1) >= 0.5
        return np.where(shown[:, None], xy, np.nan).astype(np.float32), np.flatnonzero(shown)

    def _map(self, layout: str) -> np.ndarray:
        return self.layouts[layout] if layout in self.layouts else self._components

    @cached_property
    def _components(self) -> np.ndarray:
        return main_components(next(iter(self.probs.values())))

    def _umap(self) -> np.ndarray:
        import umap

        mapper = umap.UMAP(random_state=self.seed, n_jobs=1)
        return mapper.fit_transform(next(iter(self.probs.values())).numpy())

    def _describe(self, shown: np.ndarray, layout: str) -> str:
        size = len(self.data.pool)
        on_map = int((~np.isnan(self._map(layout)).any(axis=1)).sum())
        inside, mapped = (
            f"all {n}" if n == size else f"{n} of {size}" for n in (len(shown), on_map)
        )
        return (
            f"Left: {inside} images between {', '.join(self.corners)}, according to {self.source}. "
            f"Right: {mapped} images on a map ({layout}). Colour: {self.coloured_by}. "
            f"{len(self.selection.indices)} selected."
        )

    # The page.

    def _build(self) -> Page:
        self._layout = next(iter(self.layouts), COMPONENTS)
        names = ("start", "end", "map", "groups")
        page = self._page_of(
            "simplex", self.data.pool.images, arrays=dict.fromkeys(names, b""), view=self._choices()
        )
        page.observe(lambda change: self._show(change["new"]), "hovered")
        page.observe(lambda change: self._select(page.selected), "chosen")
        self._observe(self.selection, self._show_selection, "indices")
        self._draw()
        self._show_selection()
        if not self.layouts and len(self.data.pool) <= MOST_UMAP:
            self._start_umap()
        return page

    def _choices(self) -> dict:
        """What the menus offer, and the geometry of the triangle."""
        layouts = list(self.layouts) or [COMPONENTS, UMAP]
        return dict(
            size=len(self.data.pool),
            data=self.data.name,
            classnames=list(self.data.classnames),
            sources=list(self.probs),
            colourings=list(self._colourings),
            layouts=layouts,
            range=RANGE,
            lines=triangle_lines(),
        )

    def _on_choose(self, **chosen: str) -> None:
        """Change source, beside, colour or map; unknown names are refused."""
        known = dict(source=self.probs, beside=self.probs, colour=self._colourings)
        known["map"] = self._page.view["layouts"]
        for kind, name in chosen.items():
            if name not in known[kind]:
                raise ValueError(f"{kind} {name!r}: known are {', '.join(known[kind])}")
        self.source = chosen.get("source", self.source)
        self.beside = chosen.get("beside", self.beside)
        self.coloured_by = chosen.get("colour", self.coloured_by)
        layout = chosen.get("map", self._layout)
        if layout == UMAP and UMAP not in self.layouts:
            return self._start_umap()
        self._layout = layout
        self._draw()
        self._show_selection()

    def _on_reset(self) -> None:
        """Back to the first sets of answers, colour and corners; the map stays."""
        vars(self).update(self._first)
        self._draw()
        self._show_selection()

    def _on_corner(self, place: int, name: str) -> None:
        """Put a class at a corner; one that is at another corner already changes places."""
        if place not in (0, 1, 2):
            raise ValueError(f"corner {place!r}: 0, 1 or 2 are expected")
        corners = list(self.corners)
        if name in corners:
            corners[corners.index(name)] = corners[place]
        corners[place] = name
        self.corners = self._checked(corners)
        self._draw()

    def _on_find(self, name: str) -> None:
        """Select all images that are predicted as a class."""
        if name not in self.data.classnames:
            raise ValueError(f"no class is called {name!r}")
        place = list(self.data.classnames).index(name)
        self.selection.set(np.flatnonzero(self._predicted[self.source] == place))

    def _on_typed(self, text: str) -> None:
        self._select(np.array(re.findall(r"\d{1,18}", text), dtype=np.int64))

    def _select(self, indices: np.ndarray) -> None:
        """Select those of `indices` that are in the pool."""
        self.selection.set(indices[indices < len(self.data.pool)])

    def _draw(self) -> None:
        """Send the current choices to the page."""
        start, self._shown = self._in_triangle()
        end = start if self.beside == self.source else self._in_triangle(self.beside)[0]
        numbers, names = self._groups()
        looks, legend = self._looks(numbers, names)
        page = self._page
        with page.hold_sync():
            page.start, page.end = points(start), points(end)
            page.map = points(in_steps(self._map(self._layout)))
            page.groups = groups(numbers)
            page.update(
                source=self.source,
                beside=self.beside,
                colour=self.coloured_by,
                layout=self._layout,
                corners=self.corners,
                labels=corner_labels(self.corners),
                suggestions=[self._suggested(corner) for corner in self.corners],
                looks=looks,
                legend=legend,
                status=self._describe(self._shown, self._layout),
            )

    def _suggested(self, corner: str) -> list[tuple[str, float]]:
        """The classes that images predicted as `corner` are most confused with, and their shares.

        The share is the mean probability of the other class.
        """
        names, probs = list(self.data.classnames), self.probs[self.source]
        if corner not in names:
            return []
        place = names.index(corner)
        mean = (
            probs[torch.from_numpy(self._predicted[self.source]) == place].mean(dim=0).nan_to_num(0)
        )
        mean[place] = -1
        best = mean.topk(min(SUGGESTED, len(names) - 1))
        return [
            (names[i], share)
            for i, share in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def _start_umap(self) -> None:
        self._page.update(progress="UMAP")
        threading.Thread(target=self._make_umap, daemon=True).start()

    def _make_umap(self) -> None:
        """Compute the UMAP in a thread, and show it unless the explorer was closed meanwhile."""
        try:
            self.layouts[UMAP] = self._umap()
        finally:
            if self._widget is not None:
                self._page.update(progress=None)
        if self._widget is not None:
            self._layout = UMAP
            self._draw()

    def _show(self, index: int) -> None:
        """Show an image and its most probable classes in the card."""
        if not 0 <= index < len(self.data.pool):
            return
        names, truth = self.data.classnames, self._colourings.get("true label")
        answers, most = [], 5 if len(self.probs) == 1 else 3
        for name, probs in self.probs.items():
            best = probs[index].topk(min(most, len(names)))
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            answers.append((name, [(names[i], share) for i, share in pairs]))
        label = names[truth[0][index]] if truth else None
        self._page.update(card=dict(index=index, truth=label, answers=answers))

    def _show_selection(self, change: dict | None = None) -> None:
        """Group the selection by predicted class, the largest group first."""
        indices, names = np.array(self.selection.indices, dtype=np.int64), self.data.classnames
        predicted, chosen = self._predicted[self.source][indices], []
        for label in np.argsort(-np.bincount(predicted, minlength=len(names)), kind="stable"):
            members = indices[predicted == label]
            if not len(members) or len(chosen) == NAMED:
                break
            row = dict(name=names[label], count=len(members), images=members[:GALLERY].tolist())
            chosen.append(row)
        self._page.select(indices, len(self.data.pool))
        status = self._describe(self._shown, self._layout)
        self._page.update(selection=chosen, selected=len(indices), status=status)


def _numpy(array: Array) -> np.ndarray:
    return np.asarray(torch.as_tensor(array).cpu())


def _families(names: Sequence[str]) -> dict[int, str]:
    """Group -> last word of its name, if there are many names that share few last words."""
    last = [str(name).split()[-1] for name in names]
    shared = len(set(last)) <= max(NAMED, len(names) // 3)
    return dict(enumerate(last)) if len(names) > NAMED and 1 < len(set(last)) and shared else {}


def _looks_of(names: Sequence[str], families: Mapping[int, str]) -> list[Look]:
    """One colour per family, one marker per member."""
    order, seen, looks = list(dict.fromkeys(families.values())), {}, []
    for place in range(len(names)):
        family = order.index(families[place])
        member = seen[family] = seen.get(family, -1) + 1
        shift = member + 3 * (family // len(COLOURS))
        looks.append((colour(family), MARKERS[shift % len(MARKERS)]))
    return looks
