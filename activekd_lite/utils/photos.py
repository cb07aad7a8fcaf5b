"""One picture file -> upright RGB -> one view of it, pixel for pixel as torchvision's transforms cut it from a PIL image."""

import io
import math
import os
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

TURN = {  # EXIF orientation -> what puts the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
LONGEST = 20  # aspect ratio; longer pictures lose their ends, which no crop of more than 4/3/20 = 6.7 % of the area reaches

Box = tuple[
    int, int, int, int, bool
]  # top, left, height, width in pixels of the whole picture, and flip


class File(Protocol):
    """What an image is read from: a Path, or anything else that has these and a str."""

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
    def of(cls, name: str, image: Image.Image) -> "MemoryFile":
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
    """An RGB picture, perhaps reduced; `width` and `height` are those of the whole picture, for which crops are drawn."""

    image: Image.Image
    width: int
    height: int


def read_photo(file: File, side: int | None = None) -> Photo:
    """Decode a file. side: reduce the shorter side to so many pixels, never enlarge it; None: keep every pixel.

    Raises what Pillow raises for a file that is missing or damaged, mostly OSError, and ValueError for a picture of other than
    8 or 16 bits.
    """
    with _open(file) as image:
        width, height = _whole_size(image)
        if side:
            image.draft(
                image.mode, (side, side)
            )  # a large JPEG is decoded at a fraction of its size
        image.load()  # Pillow turns a TIFF itself, and takes the mark of its orientation away
        image = upright(image)
    image = _central(image, *_bounded(*image.size))
    if side and min(width, height) > side:
        image = image.resize(_resized(width, height, side), Image.Resampling.BICUBIC)
    return Photo(image, width, height)


def reduced_bytes(file: File, side: int) -> int:
    """Bytes of the pixels of `read_photo(file, side)`, from the file's header; 0 for a file that cannot be read."""
    try:
        with _open(file) as image:
            width, height = _whole_size(image)
    except (
        Exception
    ):  # whatever Pillow makes of a damaged file: the reason is given when it is decoded
        return 0
    width, height = (width, height) if min(width, height) <= side else _resized(width, height, side)
    return 3 * width * height


def render_photo(photo: Photo, box: Box | None, size: int, mode: str = "bilinear") -> np.ndarray:
    """One view (3, size, size) uint8, resized with antialiasing. box: None is the centre view; mode: of RESAMPLING."""
    image = photo.image
    if box is None:
        image = _central(image.resize(_resized(*image.size, size), RESAMPLING[mode]), size, size)
    else:
        top, left, height, width, flip = box
        x, y = image.width / photo.width, image.height / photo.height  # 1 where it is not reduced
        edges = (left * x, top * y, (left + width) * x, (top + height) * y)
        image = _resized_crop(image, edges, size, RESAMPLING[mode])
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image
    return np.asarray(image).transpose(2, 0, 1)


def upright(image: Image.Image) -> Image.Image:
    """A PIL image of any mode as RGB, turned as its EXIF says; transparent parts become white."""
    turn = TURN.get(image.getexif().get(0x0112))
    image = image.transpose(turn) if turn is not None else image
    if image.mode == "F":
        raise ValueError("a picture of floating-point numbers; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        numbers = np.asarray(image).astype(np.float64)
        if numbers.max() > 65535:
            raise ValueError("a picture of numbers of more than 16 bits; save it with 8 or 16")
        image = Image.fromarray((numbers / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _open(file: File) -> Image.Image:
    return Image.open(file if isinstance(file, os.PathLike) else io.BytesIO(file.read_bytes()))


def _whole_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of the upright picture, without the ends of one that is too long."""
    turned = image.format != "TIFF" and image.getexif().get(0x0112) in (
        5,
        6,
        7,
        8,
    )  # a TIFF's size is that of the turned one
    return _bounded(*(image.size[::-1] if turned else image.size))


def _bounded(width: int, height: int) -> tuple[int, int]:
    most = LONGEST * min(width, height)
    return min(width, most), min(height, most)


def _resized(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height when the shorter of them becomes `side`, the longer rounded down as in torchvision's Resize."""
    short = min(width, height)
    return int(side * width / short), int(side * height / short)


def _central(image: Image.Image, width: int, height: int) -> Image.Image:
    """The central part, rounded as in torchvision's CenterCrop."""
    if image.size == (width, height):
        return image
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _resized_crop(
    image: Image.Image, edges: tuple[float, float, float, float], size: int, resampling: int
) -> Image.Image:
    """What lies between the edges (left, top, right, bottom), whole numbers or not, as size x size pixels."""
    left, top = math.floor(edges[0]), math.floor(edges[1])
    right, bottom = min(math.ceil(edges[2]), image.width), min(math.ceil(edges[3]), image.height)
    inside = (
        edges[0] - left,
        edges[1] - top,
        min(edges[2], right) - left,
        min(edges[3], bottom) - top,
    )
    return image.crop((left, top, right, bottom)).resize((size, size), resampling, inside)
