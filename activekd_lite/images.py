"""Image files -> pixels. Any mode, size and orientation becomes a square of uint8 RGB; what cannot be read is named.

An image is turned as its EXIF says, its shorter side resized to `side` pixels (bicubic, antialiased), the longer one cut to the
centred square. So all images of a pool have one shape; what lies outside the square is never seen, by teacher or student.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
TURN = {  # EXIF orientation -> what puts the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
BATCH = 512  # images decoded ahead


def read_image(path: str | os.PathLike, side: int = 256) -> Tensor:
    """(3, side, side) uint8. Raises what Pillow raises for a file that is missing or damaged, mostly OSError, and ValueError
    for a picture of other than 8 or 16 bits."""
    with Image.open(path) as image:
        image.draft(image.mode, (side, side))  # a large JPEG is decoded at a fraction of its size
        return square(image, side)


def square(image: Image.Image, side: int) -> Tensor:
    """A PIL image of any mode as (3, side, side) uint8; transparent parts become white."""
    turn = TURN.get(image.getexif().get(0x0112))
    image = _rgb(image.transpose(turn) if turn is not None else image)
    image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _rgb(image: Image.Image) -> Image.Image:
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


def read_images(
    paths: Sequence[Path], side: int = 256, budget_bytes: int = 2**31, *, check: bool = True
) -> "Tensor | ImageFiles":
    """(N, 3, side, side) uint8: in memory where that fits the budget, else decoded again whenever asked for.

    Raises FileNotFoundError for missing files, and ValueError, with their number and paths, for damaged ones. check: where they
    are not held, decode all once to see that (not needed for a pool that a teacher encodes before anything is trained).
    """
    if missing := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"{len(missing)} of {len(paths)} images are missing, first {_named(missing)}")
    files = ImageFiles(paths, side)
    if len(paths) * 3 * side * side > budget_bytes:
        if check:
            _refuse(damaged(paths, side), len(paths))
        return files
    pixels, bad = torch.empty(files.shape, dtype=torch.uint8), {}
    for i, image in enumerate(files.each("reading images")):
        if isinstance(image, Tensor):
            pixels[i] = image
        else:
            bad[paths[i]] = image
    _refuse(bad, len(paths))
    return pixels


def damaged(paths: Sequence[Path], side: int = 256) -> dict[Path, Exception]:
    """Every file that is missing or cannot be read, with the reason; all are decoded."""
    images = ImageFiles(paths, side).each("checking images")
    return {path: image for path, image in zip(paths, images, strict=True) if not isinstance(image, Tensor)}


class ImageFiles:
    """Images on disk that are indexed, split and moved as an (N, 3, side, side) uint8 tensor; decoded by all cores when asked
    for, the next batch of `split` while the one before is worked on."""

    dtype, ndim, device = torch.uint8, 4, torch.device("cpu")

    def __init__(self, paths: Sequence[Path], side: int = 256):
        self.paths, self.side = list(paths), side
        self.shape, self._fingerprint = (len(self.paths), 3, side, side), None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor | slice | int) -> Tensor:
        """(B, 3, side, side); one image for an integer. Raises ValueError that names the files which cannot be read."""
        rows = torch.arange(len(self))[index]
        if rows.ndim == 0:
            return self[rows[None]][0]
        if len(rows) == 0:
            return torch.empty(0, *self.shape[1:], dtype=torch.uint8)
        chosen = [self.paths[i] for i in rows.tolist()]
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            return _whole(list(workers.map(self._read, chosen)), chosen)

    def split(self, size: int) -> Iterator[Tensor]:
        start = 0
        for part in self.batches(size):
            yield _whole(part, self.paths[start : start + len(part)])
            start += len(part)

    def batches(self, size: int) -> Iterator[list[Tensor | Exception]]:
        """All images in order, `size` at a time; for one that cannot be read the reason."""
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            ahead = [workers.submit(self._read, path) for path in self.paths[:size]]
            for start in range(0, len(self.paths), size):
                now = ahead
                ahead = [workers.submit(self._read, path) for path in self.paths[start + size : start + 2 * size]]
                yield [future.result() for future in now]

    def each(self, title: str) -> Iterator[Tensor | Exception]:
        """All images in order, one by one, under a progress bar where there are many."""
        with tqdm(total=len(self), unit="image", desc=title, disable=len(self) < 2000) as bar:
            for part in self.batches(BATCH):
                yield from part
                bar.update(len(part))

    def to(self, device: str | torch.device) -> "ImageFiles":
        """Itself: images go to the device as they are read."""
        return self

    def fingerprint(self) -> str:
        """sha256 over the side and the files' bytes, read once."""
        if self._fingerprint is None:
            digest = hashlib.sha256(str(self.shape).encode())
            for path in self.paths:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _read(self, path: Path) -> Tensor | Exception:
        try:
            return read_image(path, self.side)
        except Exception as error:  # whatever Pillow makes of a damaged file: the reason is reported with its path
            return error


def _whole(images: list[Tensor | Exception], paths: Sequence[Path]) -> Tensor:
    _refuse({path: image for path, image in zip(paths, images, strict=True) if not isinstance(image, Tensor)}, len(paths))
    return torch.stack(images)


def _refuse(bad: dict[Path, Exception], of: int) -> None:
    if bad:
        path, reason = next(iter(bad.items()))
        raise ValueError(
            f"{len(bad)} of {of} images cannot be read, first {_named(list(bad))} ({path.name}: {reason}); remove or replace "
            "them: `activekd-lite doctor --data` lists all"
        )


def _named(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
