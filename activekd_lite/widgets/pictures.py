"""Pictures that travel with a page's state, since a busy kernel cannot be asked for them."""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor

from activekd_lite.plots.base import data_uri, squares
from activekd_lite.utils.images import ImageFiles

SIDE = 288  # pixels of a large picture
SMALL = 64  # an image of at most so many pixels a side is also shown smoothed
TILE = 48  # pixels of a small picture


class Pictures:
    """Data URIs of a pool's images; the small ones are kept."""

    def __init__(self, images: Tensor | ImageFiles):
        self.images, self._tiles = images, {}

    def tile(self, index: int, caption: str, **fields: object) -> dict:
        """A small picture as an entry of the page's `tiles`."""
        if index not in self._tiles:
            self._tiles[index] = _uri(squares(self.images, [index], TILE)[0], quality=80)
        return {"index": index, "caption": caption, "src": self._tiles[index]} | fields

    def tiles(self, indices: Iterable[int], captions: dict[int, str]) -> list[dict]:
        return [self.tile(i, captions[i]) for i in indices]

    def large(self, index: int) -> dict[str, str]:
        """The image with its pixels and, if it is small, also enlarged with smooth edges."""
        pixels, side = squares(self.images, [index], SIDE)[0], self.images.shape[-1]
        if side > SMALL:
            return {"image": _uri(pixels), "smooth": ""}
        small = squares(self.images, [index], side).float()
        smooth = F.interpolate(small, (SIDE, SIDE), mode="bicubic").round().clamp(0, 255)
        return {"image": _uri(pixels), "smooth": _uri(smooth[0].byte())}


def _uri(image: Tensor, quality: int = 90) -> str:
    return data_uri(image.permute(1, 2, 0).numpy(), quality=quality)
