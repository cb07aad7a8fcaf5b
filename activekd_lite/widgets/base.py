"""What all explorers share: is somebody there to touch them, a selection that several of them show, pictures, closing.

An explorer is shown by a cell that ends in it. If a person's front end asked for the cell, that is a live widget, followed by
its static twin, a `figures.Figure`: the page hides the twin while the widget is alive, and shows it in a saved notebook,
where the widget is gone. If a program asked (papermill, nbval, nbconvert), it is the figure alone. ipywidgets and its
like come with the extra `notebooks`.
"""

import html
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go
import torch
import traitlets
from torch import Tensor

from activekd_lite.plots.base import (
    CONFIG,
    INK,
    PLOTLY,
    TEMPLATE,
    Figure,
    data_uri,
    squares,
    table_of,
)
from activekd_lite.utils.images import ImageFiles

NARROW = dict(
    display="flex", flex_flow="row wrap", width="100%"
)  # rows that break where the page is narrow


def somebody_there() -> bool:
    """Did a front end that shows cells ask for what runs now? JupyterLab and its like name the cell; programs do not."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(shell, "kernel", None)
    parent = kernel.get_parent() if kernel else None
    if not parent:
        return False
    return "cellId" in parent.get("metadata", {}) or parent["header"]["msg_type"].startswith(
        "comm_"
    )


class Selection(traitlets.HasTraits):
    """Images that are selected, as pool indices in ascending order; explorers that are given the same one show the same."""

    indices = traitlets.Tuple()

    def set(self, indices: Iterable[int]) -> None:
        self.indices = tuple(sorted({int(i) for i in indices}))


class Explorer(ABC):
    """A widget that is built when it is shown, and taken apart by `close`. Subclasses give `figure`, its static twin, and
    `_build`, the widget; what they want to be told of a `Selection` goes through `_watch`."""

    def __init__(self):
        self._widget: w.Widget | None = None
        self._extra: list[w.Widget] = []  # that are not on the page: links
        self._watched: list[tuple[traitlets.HasTraits, Callable, str]] = []
        self._twin = None  # IPython's handle of the static figure below the live widget

    @abstractmethod
    def figure(self) -> Figure:
        """The same without a live kernel: a figure with its table and its words."""

    @abstractmethod
    def _build(self) -> w.Widget:
        """The live widget, all of it new."""

    @property
    def widget(self) -> w.Widget:
        """The live widget: to be put beside others, or into a layout of your own."""
        if self._widget is None:
            self._widget = self._build()
            self._widget.add_class("activekd")
        return self._widget

    def _watch(self, what: traitlets.HasTraits, hear: Callable, names: str) -> None:
        what.observe(hear, names)
        self._watched.append((what, hear, names))

    def close(self) -> None:
        """Take the widget off the page and out of the kernel's memory. Showing the explorer again builds it anew."""
        for what, hear, names in self._watched:
            what.unobserve(hear, names)
        self._watched.clear()
        parts, self._widget, self._extra = [*self._extra, self._widget], None, []
        for part in parts:
            if part is not None:
                close_all(part)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if somebody_there():
            self._display_live()
        else:
            display(self.figure())

    def _display_live(self) -> None:
        """Three outputs: the live widget, a line that leads from the twin back to it, the twin."""
        from IPython.display import display

        self.widget.add_class(f"activekd-live-{self.widget.model_id}")
        bundle = self.widget._repr_mimebundle_()
        view, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        display(
            view | {"text/html": "", "text/plain": ""}, raw=True, metadata=metadata
        )  # nothing where widgets cannot run
        display(
            {"text/html": TWIN.replace("{id}", self.widget.model_id), "text/plain": ""}, raw=True
        )
        self._twin = display(twin(self.figure()), raw=True, display_id=True)

    def _update_twin(self) -> None:
        """What a saved notebook shows becomes what the explorer holds now."""
        if self._twin is not None:
            self._twin.update(twin(self.figure()), raw=True)


def close_all(widget: w.Widget) -> None:
    """Close a widget and all that it is made of: children, layouts, styles."""
    todo, seen = [widget], {}
    while todo:
        part = todo.pop()
        if id(part) not in seen:
            seen[id(part)] = part
            for value in part.trait_values().values():
                parts = value if isinstance(value, tuple | list) else [value]
                todo += [p for p in parts if isinstance(p, w.Widget)]
    for part in seen.values():
        part.unobserve_all()
        part.close()


def live_figure(figure: go.Figure) -> go.FigureWidget:
    """The figure as a widget. Words and pictures, which are for pages, stay behind."""
    live = go.FigureWidget(figure.data, figure.layout)
    live.update_layout(template=TEMPLATE, meta=None, autosize=True)
    live._config = CONFIG
    return live


def twin(figure: Figure) -> dict:
    """The figure for a saved notebook; where plotly does not run, such as in nbconvert's pages, its words and its table."""
    fields = json.loads(figure.to_json()) | {"config": CONFIG}
    words = f"<p>{html.escape(figure.alt)}</p>{table_of(figure.layout.meta or {})}"
    return {PLOTLY: fields, "text/html": words, "text/plain": figure.alt}


def thumbnail(images: Tensor | ImageFiles, index: int, side: int = 96, alt: str = "") -> str:
    """One image as HTML, `side` pixels high."""
    return _picture(squares(images, [index], side)[0], side, alt or f"image {index}")


def gallery(
    images: Tensor | ImageFiles,
    indices: Sequence[int],
    captions: Callable[[int], str],
    *,
    side: int = 56,
    most: int = 24,
) -> str:
    """Images in rows that break, each with its caption below; how many more there are."""
    indices = [int(i) for i in indices]
    shown = indices[:most]
    if not shown:
        return ""
    pictures = zip(shown, squares(images, shown, side), strict=True)
    cells = "".join(
        TILE.format(
            width=side + 16,
            picture=_picture(x, side, f"image {i}"),
            caption=html.escape(captions(i)),
        )
        for i, x in pictures
    )
    more = (
        f'<span style="align-self:center">and {len(indices) - most} more</span>'
        if len(indices) > most
        else ""
    )
    return f'<div style="display:flex;flex-wrap:wrap;color:{INK}">{cells}{more}</div>'


def bars(names: Sequence[str], shares: Sequence[float]) -> str:
    """Shares as a list with bars, in HTML."""
    rows = [
        BAR.format(name=html.escape(n), share=s, width=max(1, round(90 * s)))
        for n, s in zip(names, shares, strict=True)
    ]
    return f'<table style="font-size:14px;line-height:1.35;border-collapse:collapse;color:{INK}">{"".join(rows)}</table>'


def top(probs: Tensor | np.ndarray, classnames: Sequence[str], most: int = 5) -> str:
    """The `most` largest of the probabilities (C,) as bars."""
    best = torch.as_tensor(probs).topk(min(most, len(classnames)))
    return bars([classnames[i] for i in best.indices.tolist()], best.values.tolist())


def _picture(image: Tensor, side: int, alt: str) -> str:
    uri = data_uri(image.permute(1, 2, 0).numpy(), quality=85)
    return f'<img alt="{html.escape(alt)}" src="{uri}" width="{side}" height="{side}" style="image-rendering:pixelated">'


# The line above the twin. Its style hides line and twin while the widget of this id is on the page, and hides JupyterLab's
# "Error displaying widget" (an output without any element in it) where it is not. Line and twin wait a second for the widget.
TWIN = """<p class="activekd-twin-{id}"><b>Run this cell to touch it.</b> Until then, this is a still picture of it.</p>
<style>
body:has(.activekd-live-{id}) .activekd-twin-{id},
.jp-OutputArea:has(.activekd-live-{id}) > .jp-OutputArea-child:has(.activekd-twin-{id}),
.jp-OutputArea:has(.activekd-live-{id}) > .jp-OutputArea-child:has(.activekd-twin-{id}) + .jp-OutputArea-child,
.jp-OutputArea:has(.activekd-twin-{id}) > .jp-OutputArea-child > .jp-OutputArea-output.lm-Panel:not(:has(*)) {
  display: none }
.jp-OutputArea-child:has(.activekd-twin-{id}), .jp-OutputArea-child:has(.activekd-twin-{id}) + .jp-OutputArea-child {
  animation: activekd-twin 0s 1s backwards }
@keyframes activekd-twin { from { max-height: 0; overflow: hidden; opacity: 0 } }
</style>"""
TILE = """<figure style="margin:0 6px 6px 0;width:{width}px;text-align:center">{picture}
<figcaption style="font-size:13px;line-height:1.2;overflow-wrap:anywhere">{caption}</figcaption></figure>"""
BAR = """<tr><td style="padding:0 8px 0 0;white-space:nowrap">{name}</td>
<td style="text-align:right;padding:0 6px 0 0">{share:.0%}</td>
<td><div style="height:10px;width:{width}px;background:#0072B2"></div></td></tr>"""
