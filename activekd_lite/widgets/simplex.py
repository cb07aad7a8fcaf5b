"""Probability space to touch: a triangle of three classes beside a map of the same points, linked both ways."""

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
from sklearn.cluster import KMeans
from torch import Tensor

from activekd_lite.plots.base import INK, MARKERS, NAMED, PALE, SEQUENTIAL, Figure, colour, marker
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
from activekd_lite.widgets.base import NARROW, Explorer, Selection, gallery, thumbnail, top
from activekd_lite.widgets.scatter import groups, linked_scatter, points

RANGE = {"x": [-0.14 * SIDE, 1.14 * SIDE], "y": [-0.12 * SIDE, 1.0 * SIDE]}  # of the triangle
STEPS = 21  # shades of confidence
COMPONENTS = "main components"


class SimplexExplorer(Explorer):
    """`SimplexExplorer(data, {"teacher": probs, "student": its_probs})`: the pool between three classes, and on a map.

    Hovering a point shows its picture and its five likeliest classes and rings it on the other side; a lasso on either side
    selects on both. Afterwards `explorer.selected` holds pool indices (n,).

    probs: (N, C), or name -> (N, C); corners: three class names or positions, or "rest", default: what the first of `probs`
    mixes up most; layouts: name -> (N, 2) maps (NaN: not on it), default: a UMAP of the first of `probs`, computed while its
    main components are there to look at (a figure stays with these); state: offers the round in which an image was labelled
    as a colour; clusters: (N,), default: k-means, as many as classes; selection: one that other explorers show, too. True
    labels are offered as a colour where all are known: for looking only. Raises ValueError for arrays of another size and for
    unknown corners.
    """

    def __init__(
        self, data: Dataset, probs: Array | Mapping[str, Array], *, corners: Sequence[str | int] | None = None,
        layouts: Mapping[str, Array] | None = None, state: LabelState | None = None, clusters: Array | None = None,
        selection: Selection | None = None, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        named = probs if isinstance(probs, Mapping) else {"predictions": probs}
        self.data, self.seed = data, seed
        self.probs = {name: torch.as_tensor(p).float().cpu() for name, p in named.items()}
        self.layouts = {
            name: np.asarray(torch.as_tensor(xy).cpu(), dtype=np.float32)
            for name, xy in (layouts or {}).items()
        }
        self.selection = selection or Selection()
        self.source = next(iter(self.probs))
        self.corners = list(most_mixed_up(self.probs[self.source]) if corners is None else corners)
        self._colourings = self._named_groups(state, clusters)
        self.coloured_by = next(iter(self._colourings))
        self._check()
        *_, self.corners = triangle(self.probs[self.source].numpy(), self.corners, data.classnames)

    def _check(self) -> None:
        pool, classes = len(self.data.pool), self.data.pool.num_classes
        for name, p in self.probs.items():
            if p.shape != (pool, classes):
                raise ValueError(
                    f"probs {name!r} are {tuple(p.shape)}; the pool of {self.data.name} needs ({pool}, {classes})"
                )
        for name, xy in self.layouts.items():
            if xy.shape != (pool, 2):
                raise ValueError(
                    f"layout {name!r} is {xy.shape}; the pool of {self.data.name} needs ({pool}, 2)"
                )

    @property
    def selected(self) -> Tensor:
        """(n,) pool indices that are selected, ascending."""
        return torch.tensor(self.selection.indices, dtype=torch.int64)

    # What the colours mean: name -> (groups (N,), their names), None in the place of groups that are computed when asked for.

    def _named_groups(self, state: LabelState | None, clusters: Array | None) -> dict:
        classes, known = list(self.data.classnames), {}
        if not self.data.oracle.unknown_count:
            known["true label"] = (
                self.data.oracle.label(torch.arange(len(self.data.pool))).numpy(),
                classes,
            )
        steps = [f"{k / (STEPS - 1):.0%} sure" for k in range(STEPS)]
        known |= {"prediction": (None, classes), "confidence": (None, steps)}
        clusters = None if clusters is None else np.asarray(torch.as_tensor(clusters).cpu())
        known["cluster"] = (clusters, None)
        if state is not None:
            rounds = state.labeled_round.numpy()
            known["round labelled"] = (
                rounds,
                [f"round {r}" if r else "start" for r in range(max(1, rounds.max() + 1))],
            )
        return known

    def _groups(self) -> tuple[np.ndarray, list[str]]:
        """The groups (N,) of the present colouring, -1: pale, and their names."""
        of, names = self._colourings[self.coloured_by]
        probs = self.probs[self.source]
        if self.coloured_by == "prediction":
            of = probs.argmax(dim=1).numpy()
        if self.coloured_by == "confidence":
            of = (probs.amax(dim=1).numpy() * (STEPS - 1)).round().astype(int)
        if self.coloured_by == "cluster":
            if of is None:
                of = KMeans(
                    self.data.pool.num_classes, n_init=1, random_state=self.seed
                ).fit_predict(probs.numpy())
                self._colourings["cluster"] = (of, None)
            names = [f"cluster {k}" for k in range(of.max() + 1)]
        return of, names

    def _looks(
        self, of: np.ndarray, names: list[str]
    ) -> tuple[list[tuple[str, str]], list[tuple[str, tuple[str, str]]]]:
        """Colour and marker of each group, and the legend, which is empty where there are too many."""
        if self.coloured_by == "confidence":
            looks = [(c, MARKERS[0]) for c in sample_colorscale(SEQUENTIAL, STEPS, colortype="rgb")]
            return looks, [(names[k], looks[k]) for k in range(0, STEPS, 5)]
        present = np.unique(of[of >= 0]).tolist()
        looks = [(PALE, MARKERS[0])] * len(names)
        for place, group in enumerate(present):
            looks[group] = (colour(place), marker(place))
        return looks, [(str(names[g]), looks[g]) for g in present] if len(present) <= NAMED else []

    def figure(self) -> Figure:
        left, shown = self._in_triangle()
        layout, (of, names) = next(iter(self.layouts), COMPONENTS), self._groups()
        table = pd.DataFrame(
            {"index": range(len(left)), "group": [names[g] if g >= 0 else "others" for g in of]}
        )
        figure = Figure(
            table=table.assign(x=left[:, 0], y=left[:, 1]), alt=self._words(shown, layout)
        )
        figure.set_subplots(1, 2, horizontal_spacing=0.03, subplot_titles=[self._title(), layout])
        right = in_steps(self._map(layout))
        drawn = np.flatnonzero(~np.isnan(right.astype(np.float32)).any(axis=1))
        for column, (xy, who) in enumerate(((left, shown), (right, drawn)), 1):
            whole = np.nan_to_num(xy).astype(
                np.int16
            )  # two bytes a coordinate keep notebooks small
            add_groups(figure, whole, of, names, who, row=1, col=column, dense=2 * len(left))
            marked = [i for i in self.selection.indices if i in set(who.tolist())]
            add_picks(
                figure,
                whole,
                2 * len(left),
                {"selected": marked} if marked else {},
                row=1,
                col=column,
            )
        add_triangle(figure, self.corners)
        figure.update_xaxes(**HIDDEN).update_yaxes(**HIDDEN)
        figure.update_xaxes(range=RANGE["x"], row=1, col=1).update_yaxes(
            range=RANGE["y"], scaleanchor="x", row=1, col=1
        )
        named = len(np.unique(of)) <= NAMED
        return figure.update_layout(
            height=520,
            margin=dict(l=70, r=10, t=50, b=10),
            showlegend=named,
            legend_itemsizing="constant",
        )

    def _title(self) -> str:
        return f"{self.source}, between three classes"

    def _in_triangle(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each image is in the triangle (N, 2), NaN where less than half of its probability is on the corners; and who
        is shown."""
        columns, xy, _ = triangle(
            self.probs[self.source].numpy(), self.corners, self.data.classnames
        )
        shown = columns.sum(axis=1) >= 0.5
        return np.where(shown[:, None], xy, np.nan).astype(np.float32), np.flatnonzero(shown)

    def _map(self, layout: str) -> np.ndarray:
        return self.layouts[layout] if layout in self.layouts else self._components

    @cached_property
    def _components(self) -> np.ndarray:
        return main_components(next(iter(self.probs.values())))

    def _umap(self) -> np.ndarray:
        import umap  # takes seconds

        return umap.UMAP(random_state=self.seed, n_jobs=1).fit_transform(
            next(iter(self.probs.values())).numpy()
        )

    def _words(self, shown: np.ndarray, layout: str) -> str:
        def some(count: int) -> str:
            return (
                f"all {count}"
                if count == len(self.data.pool)
                else f"{count} of {len(self.data.pool)}"
            )

        drawn = int((~np.isnan(self._map(layout)).any(axis=1)).sum())
        return (
            f"Left, {some(len(shown))} images between {', '.join(self.corners)}, as {self.source} says; right, {some(drawn)} "
            f"on a map ({layout}). Colour: {self.coloured_by}. {len(self.selection.indices)} selected."
        )

    # The live face.

    def _build(self) -> w.Widget:
        self._layout = next(iter(self.layouts), COMPONENTS)
        self._points = linked_scatter(
            self.data.pool.images, ranges=[RANGE, None], lines=[triangle_lines(), []]
        )
        self._points.observe(lambda change: self._show(change["new"]), "hovered")
        self._points.observe(lambda change: self.selection.set(change["new"]), "selected")
        controls = self._controls()
        self._card = w.HTML(
            CARD.format("Hover a point, or type the number of an image.")
        ).add_class("activekd-card")
        self._said, self._pictures = (
            w.HTML().add_class("activekd-said"),
            w.HTML().add_class("activekd-selection"),
        )
        self._export = w.Text(
            description="selected", placeholder="draw a lasso, or type indices: 3, 17, 101", continuous_update=False,
            layout=w.Layout(width="98%"),
        )  # fmt: skip
        self._export.observe(self._on_typed, "value")
        self._watch(self.selection, self._show_selection, "indices")
        below = w.HBox([self._card, self._pictures], layout=w.Layout(**NARROW))
        self._draw()
        self._show_selection()
        if not self.layouts:
            threading.Thread(target=self._make_umap, daemon=True).start()
        return w.VBox([controls, self._points, self._said, self._export, below]).add_class(
            "activekd-simplex"
        )

    def _controls(self) -> w.Widget:
        def menu(name: str, options: Sequence[str], value: str) -> w.Dropdown:
            shape = dict(layout=w.Layout(width="240px"), style={"description_width": "80px"})
            chosen = w.Dropdown(options=options, value=value, description=name, **shape)
            chosen.observe(self._on_menu, "value")
            return chosen

        names = [*self.data.classnames, "rest"]
        self._menus = {
            "source": menu("answers of", list(self.probs), self.source),
            "colour": menu("colour", list(self._colourings), self.coloured_by),
            "map": menu("map", list(self.layouts) or [self._layout], self._layout),
        }
        sides = zip(("left", "right", "top"), self.corners, strict=True)
        self._corner_menus = [menu(side, names, name) for side, name in sides]
        shape = dict(layout=w.Layout(width="180px"), style={"description_width": "80px"})
        self._image = w.BoundedIntText(
            description="image", min=0, max=len(self.data.pool) - 1, **shape
        )
        self._image.observe(
            lambda change: self._points.set_trait("hovered", change["new"]), "value"
        )
        return w.HBox(
            [*self._menus.values(), *self._corner_menus, self._image], layout=w.Layout(**NARROW)
        )

    def _on_menu(self, change: dict) -> None:
        corners = [menu.value for menu in self._corner_menus]
        if (
            len(set(corners)) < 3
        ):  # a class stands at one corner only: the other one gets what was there
            twin = next(
                m
                for m in self._corner_menus
                if m is not change["owner"] and m.value == change["new"]
            )
            twin.value = change["old"]  # comes back here
            return
        self.corners = corners
        self.source, self.coloured_by, self._layout = (menu.value for menu in self._menus.values())
        self._draw()

    def _draw(self) -> None:
        """Bring the points to the present choices."""
        xy, self._shown = self._in_triangle()
        of, names = self._groups()
        looks, legend = self._looks(of, names)
        with self._points.hold_sync():
            self._points.xys = points([xy, in_steps(self._map(self._layout))])
            self._points.groups, self._points.looks, self._points.legend = (
                groups([of]),
                looks,
                legend,
            )
            self._points.titles = [self._title(), self._layout]
            self._points.labels = [corner_labels(self.corners), []]
        self._show_words()

    def _make_umap(self) -> None:
        """In a thread of its own; nothing happens when the explorer was closed meanwhile."""
        self.layouts["UMAP"] = self._umap()
        if self._widget is not None:
            menu = self._menus["map"]
            menu.options, menu.value = ["UMAP", self._layout], "UMAP"

    def _show(self, index: int) -> None:
        """The picture of an image and what is said of it."""
        if index < 0:
            return
        truth = self._colourings.get("true label")
        lines = [f"<b>image {index}</b>"] + (
            [f"truly {html.escape(self.data.classnames[truth[0][index]])}"] if truth else []
        )
        picture = thumbnail(self.data.pool.images, index, 112)
        said = [
            f"<div><b>{html.escape(n)}</b>{top(p[index], self.data.classnames)}</div>"
            for n, p in self.probs.items()
        ]
        self._card.value = CARD.format(
            f"<div>{picture}<br>{'<br>'.join(lines)}</div>{''.join(said)}"
        )

    def _on_typed(self, change: dict) -> None:
        typed = [int(i) for i in re.findall(r"\d+", change["new"])]
        self.selection.set(i for i in typed if i < len(self.data.pool))

    def _show_selection(self, change: dict | None = None) -> None:
        indices, answers = self.selection.indices, self.probs[self.source].argmax(dim=1)
        self._points.selected = list(indices)
        self._show_words()
        self._export.value = ", ".join(map(str, indices))
        self._pictures.value = gallery(
            self.data.pool.images, indices, lambda i: f"{i}: {self.data.classnames[answers[i]]}"
        )

    def _show_words(self) -> None:
        self._points.alt = words = self._words(self._shown, self._layout)
        self._said.value = f'<div role="status" style="color:{INK}">{html.escape(words)}</div>'


CARD = """<div style="display:flex;flex-wrap:wrap;gap:16px;min-height:150px;margin-right:24px;font-size:14px;line-height:1.4">
{}</div>"""
