"""Thousands of points in panels that are linked in the browser: what follows the mouse does not wait for the kernel.

Plotly's FigureWidget draws a figure anew for each change, which takes half a second and more for two panels of 5,000 points on
two cores; this draws them on a canvas in a few hundredths.
"""

from collections.abc import Sequence
from pathlib import Path

import anywidget
import numpy as np
import traitlets
from torch import Tensor

from activekd_lite.plots.base import picture_sheet
from activekd_lite.utils.images import ImageFiles

HERE = Path(__file__).parent


class LinkedScatter(anywidget.AnyWidget):
    """The same N points in P panels; hovering rings, a lasso selects in all of them.

    Mouse: lasso, Shift adds, a click takes one, double click and wheel zoom. Keys in a panel: arrows go from image to image,
    space selects, Escape clears. `hovered` is an index or -1, `selected` a list of indices, both set from either side.
    """

    _esm, _css = HERE / "scatter.js", HERE / "scatter.css"
    xys = traitlets.List().tag(sync=True)  # P times (N, 2) float32 as bytes; NaN: not in this panel
    groups = traitlets.List().tag(
        sync=True
    )  # one for all panels, or P times, (N,) int16 as bytes; -1: pale
    looks = traitlets.List().tag(sync=True)  # (colour, marker) of each group
    legend = traitlets.List().tag(sync=True)  # (name, (colour, marker))
    titles = traitlets.List().tag(sync=True)
    ranges = traitlets.List().tag(
        sync=True
    )  # of each panel {"x": (low, high), "y": ...}, or None: around its points
    lines = traitlets.List().tag(sync=True)  # of each panel (x0, y0, x1, y1, "edge" or "half")
    labels = traitlets.List().tag(sync=True)  # of each panel (x, y, text, is it below?)
    marks = traitlets.List().tag(sync=True)  # of each panel {"cross": indices, "ring": indices}
    size = traitlets.Float(3.5).tag(sync=True)  # radius of a point, pixels
    sheet = traitlets.Dict().tag(sync=True)  # of `figures.picture_sheet`
    alt = traitlets.Unicode().tag(sync=True)
    hovered = traitlets.Int(-1).tag(sync=True)
    selected = traitlets.List().tag(sync=True)


def linked_scatter(images: Tensor | ImageFiles, **traits) -> LinkedScatter:
    """One whose points are the images (N, 3, H, W): their pictures beside the mouse, dots as large as their number allows."""
    sheet = picture_sheet(images, most=6000, side=32, budget_bytes=2_000_000)
    return LinkedScatter(sheet=sheet, size=3.5 if len(images) < 3000 else 2.5, **traits)


def points(xys: Sequence[np.ndarray]) -> list[bytes]:
    return [np.ascontiguousarray(xy, dtype="<f4").tobytes() for xy in xys]


def groups(of: Sequence[np.ndarray]) -> list[bytes]:
    return [np.ascontiguousarray(g, dtype="<i2").tobytes() for g in of]
