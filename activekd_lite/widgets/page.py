"""The page of an explorer: one anywidget, whose script is the shared shell and the explorer's own.

The scripts lie in `web/` and are joined here, since a widget has exactly one script.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import anywidget
import numpy as np
import traitlets
from torch import Tensor

from activekd_lite.plots.base import picture_sheet
from activekd_lite.utils.images import ImageFiles

WEB = Path(__file__).parent / "web"
SHARED = ("shell", "points", "chart")


class Page(anywidget.AnyWidget):
    """What an explorer shows in the browser; made by `page_of`."""

    view = traitlets.Dict().tag(sync=True)  # all that is JSON
    sheet = traitlets.Dict().tag(sync=True)  # result of `picture_sheet`
    hovered = traitlets.Int(-1).tag(sync=True)  # pool index, -1: none; set by browser or kernel
    # Bit mask of the selected pool indices, b"" for none; set by browser or kernel.
    chosen = traitlets.Bytes().tag(sync=True, from_json=lambda value, page: bytes(value))

    def update(self, **fields: object) -> None:
        """Replace some fields of `view`."""
        self.view = self.view | fields

    def select(self, indices: Iterable[int], size: int) -> None:
        """Select these pool indices of `size`."""
        self.chosen = mask_of(indices, size)

    @property
    def selected(self) -> np.ndarray:
        """The selected pool indices, ascending."""
        return indices_of(self.chosen)

    def tell(self, kind: str, **fields: object) -> None:
        """Send a message that is not part of the state."""
        self.send({"kind": kind} | fields)


def page_of(
    name: str,
    *,
    images: Tensor | ImageFiles | None = None,
    view: Mapping[str, object] | None = None,
    arrays: Mapping[str, bytes] | None = None,
) -> Page:
    """A new page that runs `web/{name}.js`.

    images: (N, 3, H, W), sent as small pictures, as far as they fit into 2 MB.
    view: what `S.view(key)` returns in the script.
    arrays: name -> bytes for `S.array(name)`; each is an attribute of the page and sent alone.
    """
    arrays = dict(arrays or {})
    sheet = {}
    if images is not None:
        sheet = picture_sheet(images, most=6000, side=32, budget_bytes=2_000_000)
        sheet["count"] = -(-len(images) // sheet["step"])
    return _page_class(name, tuple(arrays))(view=dict(view or {}), sheet=sheet, **arrays)


@cache
def _page_class(name: str, arrays: tuple[str, ...]) -> type[Page]:
    scripts = [(WEB / f"{part}.js").read_text(encoding="utf-8") for part in (*SHARED, name)]
    styles = [WEB / f"{part}.css" for part in ("shell", name)]
    style = "\n".join(path.read_text(encoding="utf-8") for path in styles if path.exists())
    traits = {key: traitlets.Bytes().tag(sync=True) for key in arrays}
    return type(
        f"{name.title()}Page", (Page,), {"_esm": "\n".join(scripts), "_css": style} | traits
    )


def points(xy: np.ndarray) -> bytes:
    """Coordinates (N, 2) as little-endian float32; NaN: not shown."""
    return np.ascontiguousarray(xy, dtype="<f4").tobytes()


def groups(numbers: np.ndarray) -> bytes:
    """Group numbers (N,) as little-endian int16; -1: pale."""
    return np.ascontiguousarray(numbers, dtype="<i2").tobytes()


def as_array(indices: Iterable[int]) -> np.ndarray:
    return indices if isinstance(indices, np.ndarray) else np.fromiter(indices, dtype=np.int64)


def mask_of(indices: Iterable[int], size: int) -> bytes:
    """A bit mask of `size` bits; b"" if there are no indices."""
    mask = np.zeros(size, dtype=bool)
    mask[as_array(indices)] = True
    return np.packbits(mask, bitorder="little").tobytes() if mask.any() else b""


def indices_of(mask: bytes) -> np.ndarray:
    """The indices of the set bits, ascending."""
    bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), bitorder="little")
    return np.flatnonzero(bits)
