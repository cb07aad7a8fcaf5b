"""Explore probability space: a triangle of three classes beside a map of the same images."""

import html
import re
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property

import ipywidgets as w
import numpy as np
import pandas as pd
import torch
from plotly.colors import sample_colorscale
from torch import Tensor

from activekd_lite.plots.base import MARKERS, NAMED, PALE, SEQUENTIAL, Figure, colour, marker
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
from activekd_lite.widgets import base, scatter
from activekd_lite.widgets.base import Explorer, Selection

RANGE = {"x": [-0.14 * SIDE, 1.14 * SIDE], "y": [-0.12 * SIDE, 1.0 * SIDE]}  # of the triangle
STEPS = 21  # shades of confidence
COMPONENTS = "main components"

Look = tuple[str, str]  # colour, marker


class SimplexExplorer(Explorer):
    """`SimplexExplorer(data, {"teacher": probs, "student": its_probs})`: triangle and map, linked.

    Hovering over a point shows its image and its five most probable classes, and rings it in both
    panels. A lasso in either panel selects in both; `explorer.selected` has the pool indices. True
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
        self.source = next(iter(self.probs))
        mixed_up = most_mixed_up(self.probs[self.source])
        self.corners = list(mixed_up if corners is None else corners)
        self._colourings = self._all_colourings(state, clusters)
        self.coloured_by = next(iter(self._colourings))
        self._check()
        *_, self.corners = self._triangle()

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
        steps = [f"{k / (STEPS - 1):.0%} confidence" for k in range(STEPS)]
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
            groups = probs.argmax(dim=1).numpy()
        if self.coloured_by == "confidence":
            groups = (probs.amax(dim=1).numpy() * (STEPS - 1)).round().astype(int)
        if self.coloured_by == "cluster":
            groups = self._clusters(probs) if groups is None else groups
            self._colourings["cluster"] = (groups, None)
            names = [f"cluster {k}" for k in range(groups.max() + 1)]
        return groups, names

    def _clusters(self, probs: Tensor) -> np.ndarray:
        from sklearn.cluster import KMeans

        k_means = KMeans(self.data.pool.num_classes, n_init=1, random_state=self.seed)
        return k_means.fit_predict(probs.numpy())

    def _looks(
        self, groups: np.ndarray, names: list[str]
    ) -> tuple[list[Look], list[tuple[str, Look]]]:
        """Look of each group, and the legend, which is empty for more than NAMED groups."""
        if self.coloured_by == "confidence":
            looks = [(c, MARKERS[0]) for c in sample_colorscale(SEQUENTIAL, STEPS, colortype="rgb")]
            return looks, [(names[k], looks[k]) for k in range(0, STEPS, 5)]
        present = np.unique(groups[groups >= 0]).tolist()
        looks = [(PALE, MARKERS[0])] * len(names)
        for place, group in enumerate(present):
            looks[group] = (colour(place), marker(place))
        return looks, [(str(names[g]), looks[g]) for g in present] if len(present) <= NAMED else []

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

    def _triangle(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        probs = self.probs[self.source].numpy()
        return triangle(probs, self.corners, self.data.classnames)

    def _in_triangle(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions (N, 2) in the triangle, and the indices of the images shown.

        Images with less than half of their probability on the corners are NaN.
        """
        columns, xy, _ = self._triangle()
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

    # The live widget.

    def _build(self) -> w.Widget:
        self._layout = next(iter(self.layouts), COMPONENTS)
        triangle = dict(ranges=[RANGE, None], lines=[triangle_lines(), []])
        self._points = scatter.linked_scatter(self.data.pool.images, **triangle)
        self._points.observe(lambda change: self._show(change["new"]), "hovered")
        self._points.observe(lambda change: self.selection.set(change["new"]), "selected")
        controls = self._controls()
        self._card, self._summary = base.html_box("card"), base.html_box("summary")
        self._pictures = base.html_box("selection")
        self._card.value = CARD.format("Hover over a point, or enter an image number.")
        self._export = self._selection_field()
        self._observe(self.selection, self._show_selection, "indices")
        self._draw()
        self._show_selection()
        if not self.layouts:
            threading.Thread(target=self._make_umap, daemon=True).start()
        below = base.row(self._card, self._pictures)
        parts = [controls, self._points, self._summary, self._export, below]
        return w.VBox(parts).add_class("activekd-simplex")

    def _selection_field(self) -> w.Text:
        field = w.Text(description="selected", continuous_update=False)
        field.placeholder = "Draw a lasso, or enter indices such as 3, 17, 101"
        field.layout.width = "98%"
        field.observe(self._on_typed, "value")
        return field

    def _controls(self) -> w.Widget:
        def menu(name: str, options: Sequence[str], value: str) -> w.Dropdown:
            return base.menu(name, options, self._on_menu, 80, value=value)

        layouts = list(self.layouts) or [self._layout]
        self._menus = {
            "source": menu("source", list(self.probs), self.source),
            "colour": menu("colour", list(self._colourings), self.coloured_by),
            "map": menu("map", layouts, self._layout),
        }
        sides = zip(("left", "right", "top"), self.corners, strict=True)
        names = [*self.data.classnames, "rest"]
        self._corner_menus = [menu(side, names, corner) for side, corner in sides]
        image = w.BoundedIntText(description="image", min=0, max=len(self.data.pool) - 1)
        image.layout.width, image.style.description_width = "180px", "80px"
        image.observe(lambda change: self._points.set_trait("hovered", change["new"]), "value")
        return base.row(*self._menus.values(), *self._corner_menus, image)

    def _on_menu(self, change: dict) -> None:
        menus = self._corner_menus
        corners = [menu.value for menu in menus]
        if len(set(corners)) < 3:  # the class is at another corner already: swap the two
            others = [menu for menu in menus if menu is not change["owner"]]
            twin = next(menu for menu in others if menu.value == change["new"])
            twin.value = change["old"]  # calls this method again
            return
        self.corners = corners
        self.source, self.coloured_by, self._layout = (menu.value for menu in self._menus.values())
        self._draw()

    def _draw(self) -> None:
        """Update the points to the current choices."""
        xy, self._shown = self._in_triangle()
        groups, names = self._groups()
        looks, legend = self._looks(groups, names)
        view = self._points
        with view.hold_sync():
            view.xys = scatter.points([xy, in_steps(self._map(self._layout))])
            view.groups, view.looks, view.legend = scatter.groups([groups]), looks, legend
            view.titles = [self._title(), self._layout]
            view.labels = [corner_labels(self.corners), []]
        self._show_summary()

    def _make_umap(self) -> None:
        """Compute the UMAP in a thread, and show it unless the explorer was closed meanwhile."""
        self.layouts["UMAP"] = self._umap()
        if self._widget is not None:
            menu = self._menus["map"]
            menu.options, menu.value = ["UMAP", self._layout], "UMAP"

    def _show(self, index: int) -> None:
        """Show an image and its most probable classes in the card."""
        if index < 0:
            return
        names, truth = self.data.classnames, self._colourings.get("true label")
        picture = base.thumbnail(self.data.pool.images, index, 112)
        left = f"{picture}<br><b>image {index}</b>"
        left += f"<br>true label: {html.escape(names[truth[0][index]])}" if truth else ""
        content = f"<div>{left}</div>"
        for name, probs in self.probs.items():
            content += f"<div><b>{html.escape(name)}</b>{base.top(probs[index], names)}</div>"
        self._card.value = CARD.format(content)

    def _on_typed(self, change: dict) -> None:
        typed = [int(i) for i in re.findall(r"\d+", change["new"])]
        self.selection.set(i for i in typed if i < len(self.data.pool))

    def _show_selection(self, change: dict | None = None) -> None:
        indices, names = self.selection.indices, self.data.classnames
        predicted = self.probs[self.source].argmax(dim=1).tolist()
        self._points.selected = list(indices)
        self._show_summary()
        self._export.value = ", ".join(map(str, indices))
        images = self.data.pool.images
        self._pictures.value = base.gallery(
            images, indices, lambda i: f"{i}: {names[predicted[i]]}"
        )

    def _show_summary(self) -> None:
        self._points.alt = summary = self._describe(self._shown, self._layout)
        self._summary.value = base.status(html.escape(summary))


def _numpy(array: Array) -> np.ndarray:
    return np.asarray(torch.as_tensor(array).cpu())


CARD = """<div style="display:flex;flex-wrap:wrap;gap:16px;min-height:150px;margin-right:24px;
font-size:14px;line-height:1.4">{}</div>"""
