"""Pictures that travel with a page's state, since a busy kernel cannot be asked for them."""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor

from activekd_lite.plots.base import data_uri, squares
from activekd_lite.utils.images import ImageFiles

SIDE = 288  # pixels of a photo to label
SMALL = 64  # an image of at most so many pixels a side is also shown smoothed
SMOOTH = 96  # pixels of the smoothed version, which the browser enlarges further
TILE = 48  # pixels of a small picture


class Pictures:
    """Data URIs of a pool's images; the small ones are kept."""

    def __init__(self, images: Tensor | ImageFiles):
        self.images, self._tiles, self._last = images, {}, (-1, {})

    def tile(self, index: int, caption: str, **fields: object) -> dict:
        """A small picture as an entry of the page's `tiles`."""
        if index not in self._tiles:
            self._tiles[index] = picture_uri(self.images, index, TILE, quality=80)
        return {"index": index, "caption": caption, "src": self._tiles[index]} | fields

    def tiles(self, indices: Iterable[int], captions: dict[int, str]) -> list[dict]:
        return [self.tile(i, captions[i]) for i in indices]

    def large(self, index: int) -> dict[str, str]:
        """The image and, if it is small, its smoothed version; the page enlarges them."""
        if index != self._last[0]:
            self._last = index, self._draw_large(index)
        return self._last[1]

    def _draw_large(self, index: int) -> dict[str, str]:
        side = self.images.shape[-1]
        if side > SMALL:
            return {"image": picture_uri(self.images, index, SIDE, quality=90), "smooth": ""}
        pixels = squares(self.images, [index], side)
        smooth = F.interpolate(pixels.float(), (SMOOTH, SMOOTH), mode="bicubic")
        smooth = smooth.round().clamp(0, 255).byte()
        return {"image": _uri(pixels[0], quality=None), "smooth": _uri(smooth[0], quality=90)}


def picture_uri(images: Tensor | ImageFiles, index: int, side: int = 96, quality: int = 85) -> str:
    """One image as a data URI, `side` pixels high."""
    return _uri(squares(images, [index], side)[0], quality)


def _uri(image: Tensor, quality: int | None) -> str:
    return data_uri(image.permute(1, 2, 0).contiguous().numpy(), quality=quality)
