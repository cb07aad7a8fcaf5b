"""What all explorers share: live widget and static twin, selections, messages of the page.

A cell that ends in an explorer displays it. If a person runs the cell in JupyterLab, the output is
a live widget followed by its twin, a static `Figure`. The page hides the twin while the widget is
alive; a saved notebook, where the widget is gone, shows it. If a program runs the cell (papermill,
nbval, nbconvert), the output is the figure alone.
"""

import html
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence

import ipywidgets as w
import numpy as np
import traitlets
from torch import Tensor

from activekd_lite.plots import base as plots
from activekd_lite.plots.base import CONFIG, PLOTLY, Figure
from activekd_lite.utils.images import ImageFiles
from activekd_lite.widgets.page import Page, as_array, page_of
from activekd_lite.widgets.pictures import picture_uri


def is_interactive() -> bool:
    """Whether the running cell was requested by a front end that displays widgets.

    JupyterLab and similar front ends name the cell in their request; programs do not.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(shell, "kernel", None)
    parent = kernel.get_parent() if kernel else None
    if not parent:
        return False
    named = "cellId" in parent.get("metadata", {})
    return named or parent["header"]["msg_type"].startswith("comm_")


class Selection(traitlets.HasTraits):
    """Selected images as ascending pool indices, which several explorers can share."""

    indices = traitlets.Tuple()

    def set(self, indices: Iterable[int]) -> None:
        ordered = np.sort(as_array(indices))
        self.indices = tuple(ordered[np.diff(ordered, prepend=-1) > 0].tolist())


class Explorer(ABC):
    """A widget that is built when first displayed and released by `close`.

    Subclasses implement `figure`, the static twin, and `_build`, the live widget: mostly a page
    made by `self._page_of`. A message `{kind: "step", to: 3}` of the page calls `_on_step(to=3)`.
    They observe objects that outlive the widget, such as a `Selection`, through `_observe`.
    """

    def __init__(self):
        self._widget: w.Widget | None = None
        self._observed: list[tuple[traitlets.HasTraits, Callable, str]] = []
        self._twin = None  # IPython's display handle of the static figure

    @abstractmethod
    def figure(self) -> Figure:
        """A static figure of the current state, with its table and alt text."""

    @abstractmethod
    def _build(self) -> w.Widget:
        """A new live widget."""

    @property
    def widget(self) -> w.Widget:
        """The live widget, for use in a layout of your own."""
        if self._widget is None:
            self._widget = self._build()
            self._widget.add_class("activekd")
        return self._widget

    def _page_of(self, name: str, images: Tensor | ImageFiles | None = None, **parts) -> Page:
        """A page (see `page_of`) whose messages call methods of this explorer."""
        self._images = images
        self._page = page_of(name, images=images, **parts)
        self._page.on_msg(self._on_message)
        return self._page

    def _on_message(self, page: Page, message: Mapping, buffers: Sequence) -> None:
        """Call `_on_{kind}` with the fields of a message; its errors appear in the status line."""
        message = message if isinstance(message, Mapping) else {}
        kind = message.get("kind")
        fields = {key: value for key, value in message.items() if key != "kind"}
        handler = getattr(self, f"_on_{kind}", None) if kind != "message" else None
        try:
            if handler is not None:
                handler(**fields)
        except Exception as error:  # show any: the traceback of a message reaches nobody
            page.update(error=f"{type(error).__name__}: {error}")
        else:
            if page.view.get("error"):
                page.update(error="")
        page.tell("done")

    def _on_picture(self, index: int) -> None:
        """Send an image that the page's sheet does not hold."""
        if 0 <= index < len(self._images):
            self._page.tell("picture", index=index, source=picture_uri(self._images, index))

    def _observe(self, source: traitlets.HasTraits, handler: Callable, name: str) -> None:
        source.observe(handler, name)
        self._observed.append((source, handler, name))

    def close(self) -> None:
        """Remove the widget from page and kernel; displaying the explorer again rebuilds it."""
        for source, handler, name in self._observed:
            source.unobserve(handler, name)
        self._observed.clear()
        widget, self._widget = self._widget, None
        if widget is not None:
            close_all(widget)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if is_interactive():
            self._display_live()
        else:
            display(self.figure())

    def _display_live(self) -> None:
        """Display three outputs: the live widget, a note above the twin, the twin."""
        from IPython.display import display

        self.widget.add_class(f"activekd-live-{self.widget.model_id}")
        bundle = self.widget._repr_mimebundle_()
        view, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        # Empty text: pages without widgets show the twin only.
        display(view | {"text/html": "", "text/plain": ""}, raw=True, metadata=metadata)
        note = TWIN.replace("{id}", self.widget.model_id)
        display({"text/html": note, "text/plain": ""}, raw=True)
        self._twin = display(twin(self.figure()), raw=True, display_id=True)

    def _update_twin(self) -> None:
        """Replace the figure that a saved notebook shows by the current one."""
        if self._twin is not None:
            self._twin.update(twin(self.figure()), raw=True)


def close_all(widget: w.Widget) -> None:
    """Close a widget with its children, layouts and styles."""
    pending, seen = [widget], {}
    while pending:
        part = pending.pop()
        if id(part) not in seen:
            seen[id(part)] = part
            for value in part.trait_values().values():
                parts = value if isinstance(value, tuple | list) else [value]
                pending += [p for p in parts if isinstance(p, w.Widget)]
    for part in seen.values():
        part.unobserve_all()
        part.close()


def twin(figure: Figure) -> dict:
    """MIME bundle for a saved notebook: plotly where it runs, else alt text and table."""
    fields = json.loads(figure.to_json()) | {"config": CONFIG}
    words = f"<p>{html.escape(figure.alt)}</p>{plots.table_of(figure.layout.meta or {})}"
    return {PLOTLY: fields, "text/html": words, "text/plain": figure.alt}


def count_of(number: int, noun: str) -> str:
    """`1 label`, `2 labels`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# The note above the twin. Its style hides note and twin while the widget with this id is on the
# page, and otherwise JupyterLab's "Error displaying widget" (an output without elements). Note and
# twin appear after one second.
TWIN = """<p class="activekd-twin-{id}"><b>Run this cell to use the explorer.</b>
Until then, you see a static picture of it.</p>
<style>
body:has(.activekd-live-{id}) .activekd-twin-{id},
.jp-OutputArea:has(.activekd-live-{id}) > .jp-OutputArea-child:has(.activekd-twin-{id}),
.jp-OutputArea:has(.activekd-live-{id})
  > .jp-OutputArea-child:has(.activekd-twin-{id}) + .jp-OutputArea-child,
.jp-OutputArea:has(.activekd-twin-{id})
  > .jp-OutputArea-child > .jp-OutputArea-output.lm-Panel:not(:has(*)) { display: none }
.jp-OutputArea-child:has(.activekd-twin-{id}),
.jp-OutputArea-child:has(.activekd-twin-{id}) + .jp-OutputArea-child {
  animation: activekd-twin 0s 1s backwards }
@keyframes activekd-twin { from { max-height: 0; overflow: hidden; opacity: 0 } }
</style>"""
