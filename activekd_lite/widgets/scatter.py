"""Scatter plots of thousands of points whose panels are linked in the browser, not the kernel.

plotly's FigureWidget redraws the whole figure for each change, which takes at least half a second
for two panels of 5,000 points on two cores; this canvas takes a few hundredths of a second.
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
    """The same N points in P panels: hovering rings a point in all panels, a lasso selects in all.

    Mouse: lasso or click to select, with Shift to add; wheel to zoom, double click to reset.
    Keys in a panel: arrows move from image to image, space selects, Escape clears.
    """

    _esm, _css = HERE / "scatter.js", HERE / "scatter.css"
    # Per panel: (N, 2) float32 as bytes; NaN: not in this panel.
    xys = traitlets.List().tag(sync=True)
    # For all panels or per panel: (N,) int16 as bytes; -1: pale.
    groups = traitlets.List().tag(sync=True)
    looks = traitlets.List().tag(sync=True)  # per group: (colour, marker)
    legend = traitlets.List().tag(sync=True)  # (name, (colour, marker))
    titles = traitlets.List().tag(sync=True)
    # Per panel: {"x": (low, high), "y": (low, high)}, or None to fit the points.
    ranges = traitlets.List().tag(sync=True)
    lines = traitlets.List().tag(sync=True)  # per panel: (x0, y0, x1, y1, "edge" or "half")
    labels = traitlets.List().tag(sync=True)  # per panel: (x, y, text, whether it is below)
    marks = traitlets.List().tag(sync=True)  # per panel: {"cross": indices, "ring": indices}
    size = traitlets.Float(3.5).tag(sync=True)  # radius of a point in pixels
    sheet = traitlets.Dict().tag(sync=True)  # result of `picture_sheet`
    alt = traitlets.Unicode().tag(sync=True)
    hovered = traitlets.Int(-1).tag(sync=True)  # -1: none; set by browser or kernel
    selected = traitlets.List().tag(sync=True)  # indices; set by browser or kernel


def linked_scatter(images: Tensor | ImageFiles, **traits) -> LinkedScatter:
    """A `LinkedScatter` whose points are images (N, 3, H, W), shown beside the mouse on hover."""
    sheet = picture_sheet(images, most=6000, side=32, budget_bytes=2_000_000)
    return LinkedScatter(sheet=sheet, size=3.5 if len(images) < 3000 else 2.5, **traits)


def points(xys: Sequence[np.ndarray]) -> list[bytes]:
    """Coordinates (N, 2) of each panel as little-endian float32."""
    return [np.ascontiguousarray(xy, dtype="<f4").tobytes() for xy in xys]


def groups(panels: Sequence[np.ndarray]) -> list[bytes]:
    """Group numbers (N,) of each panel as little-endian int16."""
    return [np.ascontiguousarray(numbers, dtype="<i2").tobytes() for numbers in panels]
