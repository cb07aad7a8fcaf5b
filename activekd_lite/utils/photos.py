"""One image file -> an upright RGB picture -> one view of it.

Views equal those of torchvision's transforms on a PIL image, pixel for pixel.
"""

import io
import math
import os
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

TURNS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90"
# EXIF orientation (2 to 8) -> the transposition that puts the picture upright
UPRIGHT = {i: getattr(Image.Transpose, name) for i, name in enumerate(TURNS.split(), start=2)}
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# Longest aspect ratio. Longer pictures lose their ends, which no crop of more than
# 4/3/20 = 6.7 % of the area reaches.
LONGEST = 20

# top, left, height, width in pixels of the whole picture, and flip
Box = tuple[int, int, int, int, bool]


class File(Protocol):
    """A source of image bytes: a Path, or an object with these members and a `str`."""

    @property
    def name(self) -> str: ...
    def is_file(self) -> bool: ...
    def read_bytes(self) -> bytes: ...


@dataclass(frozen=True, eq=False)
class MemoryFile:
    """A PIL image as a File: PNG bytes in memory."""

    name: str
    content: bytes

    @classmethod
    def from_image(cls, name: str, image: Image.Image) -> "MemoryFile":
        buffer = io.BytesIO()
        upright(image).save(buffer, "PNG", compress_level=1)
        return cls(name, buffer.getvalue())

    def __str__(self) -> str:
        return self.name

    def is_file(self) -> bool:
        return True

    def read_bytes(self) -> bytes:
        return self.content


class Photo(NamedTuple):
    """An RGB picture, possibly reduced; `width` and `height` are those before the reduction."""

    image: Image.Image
    width: int
    height: int


def read_photo(file: File, side: int | None = None) -> Photo:
    """Decode a file.

    side: reduce the shorter side to this many pixels, but never enlarge; None keeps every pixel.
    Raises Pillow's errors for a missing or damaged file (mostly OSError), and ValueError for a
    pixel format of other than 8 or 16 bits.
    """
    with _open(file) as image:
        width, height = _whole_size(image)
        if side:
            image.draft(image.mode, (side, side))  # decodes a large JPEG at a fraction of its size
        image.load()  # for a TIFF, this also applies and removes the orientation
        image = upright(image)
    image = _central(image, *_bounded(*image.size))
    if side and min(width, height) > side:
        image = image.resize(_resized(width, height, side), Image.Resampling.BICUBIC)
    return Photo(image, width, height)


def reduced_bytes(file: File, side: int) -> int:
    """The size of `read_photo(file, side)`, from the header; 0 for a file that cannot be read."""
    try:
        with _open(file) as image:
            width, height = _whole_size(image)
    except Exception:  # of many types; the reason is reported when the file is decoded
        return 0
    if min(width, height) > side:
        width, height = _resized(width, height, side)
    return 3 * width * height


def render_photo(photo: Photo, box: Box | None, size: int, mode: str = "bilinear") -> np.ndarray:
    """One view (3, size, size) uint8, antialiased.

    box: None for the centre view. mode: a key of RESAMPLING.
    """
    image = photo.image
    if box is None:
        image = _central(image.resize(_resized(*image.size, size), RESAMPLING[mode]), size, size)
    else:
        top, left, height, width, flip = box
        x, y = image.width / photo.width, image.height / photo.height  # 1 if not reduced
        edges = (left * x, top * y, (left + width) * x, (top + height) * y)
        image = _resized_crop(image, edges, size, RESAMPLING[mode])
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image
    return np.asarray(image).transpose(2, 0, 1)


def upright(image: Image.Image) -> Image.Image:
    """A PIL image of any mode as RGB, upright by its EXIF orientation, on a white background."""
    turn = UPRIGHT.get(image.getexif().get(0x0112))
    image = image.transpose(turn) if turn is not None else image
    if image.mode == "F":
        raise ValueError("floating-point pixels; save the picture with 8 or 16 bits")
    if image.mode.startswith("I"):
        numbers = np.asarray(image).astype(np.float64)
        if numbers.max() > 65535:
            raise ValueError("pixels of more than 16 bits; save the picture with 8 or 16 bits")
        image = Image.fromarray((numbers / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _open(file: File) -> Image.Image:
    return Image.open(file if isinstance(file, os.PathLike) else io.BytesIO(file.read_bytes()))


def _whole_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of the upright picture, within the LONGEST aspect ratio."""
    # for a TIFF, Pillow gives the size of the upright picture
    turned = image.format != "TIFF" and image.getexif().get(0x0112) in (5, 6, 7, 8)
    return _bounded(*(image.size[::-1] if turned else image.size))


def _bounded(width: int, height: int) -> tuple[int, int]:
    most = LONGEST * min(width, height)
    return min(width, most), min(height, most)


def _resized(width: int, height: int, side: int) -> tuple[int, int]:
    """The size with `side` as the shorter side; rounded down, as in torchvision's Resize."""
    short = min(width, height)
    return int(side * width / short), int(side * height / short)


def _central(image: Image.Image, width: int, height: int) -> Image.Image:
    """The centre of the image, rounded as in torchvision's CenterCrop."""
    if image.size == (width, height):
        return image
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _resized_crop(
    image: Image.Image, edges: tuple[float, float, float, float], size: int, resampling: int
) -> Image.Image:
    """The part between the edges (left, top, right, bottom), possibly fractional, resized."""
    left, top = math.floor(edges[0]), math.floor(edges[1])
    right, bottom = min(math.ceil(edges[2]), image.width), min(math.ceil(edges[3]), image.height)
    x, y = min(edges[2], right) - left, min(edges[3], bottom) - top
    inside = (edges[0] - left, edges[1] - top, x, y)
    return image.crop((left, top, right, bottom)).resize((size, size), resampling, inside)
