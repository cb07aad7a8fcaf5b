"""Image files -> pixels. Any mode, size and orientation becomes a square of uint8 RGB; what cannot be read is named.

An image is turned as its EXIF says, its shorter side resized to `side` pixels (bicubic, antialiased), the longer one cut to the
centred square. So all images of a pool have one shape; what lies outside the square is never seen, by teacher or student.
"""

import hashlib
import io
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from tqdm import tqdm

from activekd_lite.seeding import generator

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
TURN = {  # EXIF orientation -> what puts the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
FEW = 128  # images; so many threads have decoded before worker processes are up
MOST_WORKERS = 8
ITEM = 16  # images that a worker decodes and sends at a time: 3 MiB at side 256
AHEAD = 8  # items that each worker is asked for ahead


class File(Protocol):
    """What an image is read from: a Path, or anything else that has these and a str."""

    @property
    def name(self) -> str: ...
    def is_file(self) -> bool: ...
    def read_bytes(self) -> bytes: ...


def read_image(file: File | str | os.PathLike, side: int = 256) -> Tensor:
    """(3, side, side) uint8. Raises what Pillow raises for a file that is missing or damaged, mostly OSError, and ValueError
    for a picture of other than 8 or 16 bits."""
    with Image.open(file if isinstance(file, str | os.PathLike) else io.BytesIO(file.read_bytes())) as image:
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
    paths: Sequence[File], side: int = 256, budget_bytes: int = 2**31, *, check: bool = True
) -> "Tensor | ImageFiles":
    """(N, 3, side, side) uint8: in memory where that fits the budget, else decoded again whenever asked for.

    Raises FileNotFoundError for missing files, and ValueError, with their number and paths, for damaged ones. check: where they
    are not held, decode all once to see that (not needed for a pool that a teacher encodes before anything is trained).
    """
    if missing := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"{len(missing)} of {len(paths)} images are missing, first {_named(missing)}")
    files = ImageFiles(paths, side)
    held = len(paths) * 3 * side * side <= budget_bytes
    pixels = torch.empty(files.shape, dtype=torch.uint8) if held else None
    if held or check:
        files.check(pixels)
    return pixels if held else files


def damaged(paths: Sequence[File], side: int = 256) -> dict[File, str]:
    """Every file that is missing or cannot be read, with the reason; all are decoded."""
    return ImageFiles(paths, side).damaged()


class ImageFiles:
    """Images on disk that are indexed, split and moved as an (N, 3, side, side) uint8 tensor; decoded when asked for.

    `stream` decodes ahead in worker processes, `split` and an index through it.
    """

    dtype, ndim, device = torch.uint8, 4, torch.device("cpu")

    def __init__(self, paths: Sequence[File], side: int = 256):
        self.paths, self.side = list(paths), side
        self.shape, self._fingerprint = (len(self.paths), 3, side, side), None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor | slice | int) -> Tensor:
        """(B, 3, side, side); one image for an integer. Raises ValueError that names the files which cannot be read."""
        rows = torch.arange(len(self))[index]
        (images,) = self.stream([rows.reshape(-1)])
        return images if rows.ndim else images[0]

    def split(self, size: int) -> Iterator[Tensor]:
        """All images in order, `size` at a time."""
        return self.stream(torch.arange(len(self)).split(size))

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """For each batch, (B,) int64 indices, its images (B, 3, side, side), in order; the next ones are decoded meanwhile.

        Batches may be of any size and repeat images; all have to be known beforehand. More than FEW images are decoded by a
        worker process for each core, at most 8. Each is ahead by at most AHEAD * ITEM = 128 images (24 MiB at side 256, and as
        much again while they are sent), through pipes, as /dev/shm is small in containers. torch's global random state is left
        alone. Raises ValueError that names the files of a batch which cannot be read, RuntimeError when a worker was killed.
        """
        every = torch.arange(len(self))
        batches = [every[batch] for batch in batches]  # an index out of range is refused here, not in a worker
        with closing(self._decode(torch.cat([every[:0], *batches]))) as decoded:
            for batch in batches:
                images = torch.empty(len(batch), *self.shape[1:], dtype=torch.uint8)
                _refuse(self._fill(images, batch, decoded), len(batch))
                yield images

    def damaged(self, into: Tensor | None = None) -> dict[File, str]:
        """Every file that cannot be read, with the reason; all are decoded, under a progress bar where there are many.

        into: (N, 3, side, side) uint8 that receives the images.
        """
        every, title = torch.arange(len(self)), "checking images" if into is None else "reading images"
        with closing(self._decode(every)) as decoded:
            bar = tqdm(decoded, total=len(self), unit="image", desc=title, disable=len(self) < 2000)
            return self._fill(into, every, bar)

    def check(self, into: Tensor | None = None) -> None:
        """Raises ValueError, with number and paths, where some cannot be read; all are decoded. into: see `damaged`."""
        _refuse(self.damaged(into), len(self))

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

    def _decode(self, rows: Tensor) -> Iterator[np.ndarray | str]:
        """The images of `rows` one by one, (3, side, side) uint8; for one that cannot be read the reason."""
        workers = _workers(len(rows))
        loader = DataLoader(
            self, batch_sampler=[part.tolist() for part in rows.split(ITEM)], collate_fn=list, num_workers=workers,
            prefetch_factor=AHEAD if workers else None, multiprocessing_context="fork" if workers else None,
            generator=generator(0, "decoding"),
        )  # fmt: skip
        for images in loader:
            yield from images

    def _fill(self, into: Tensor | None, rows: Tensor, decoded: Iterable[np.ndarray | str]) -> dict[File, str]:
        """Put the next B images into `into` (B, 3, side, side); returns the files that cannot be read, with the reason."""
        bad = {}
        for i, (row, image) in enumerate(zip(rows.tolist(), decoded, strict=False)):
            if isinstance(image, str):
                bad[self.paths[row]] = image
            elif into is not None:
                into[i] = torch.from_numpy(image)
        return bad

    def __getitems__(self, rows: list[int]) -> list[np.ndarray | str]:
        """What a DataLoader asks for. Arrays and text, not tensors and exceptions: a worker would send tensors through shared
        memory, and some exceptions cannot be sent. A worker decodes by itself, any other process by a thread for each core."""
        paths = [self.paths[i] for i in rows]
        if get_worker_info():
            return [self._read(path) for path in paths]
        with ThreadPoolExecutor(_cores()) as threads:
            return list(threads.map(self._read, paths))

    def _read(self, path: File) -> np.ndarray | str:
        try:
            return read_image(path, self.side).numpy()
        except UnidentifiedImageError:
            return "no picture that Pillow knows"
        except Exception as error:  # whatever Pillow makes of a damaged file: the reason is reported with its path
            return str(error) or repr(error)


def _workers(images: int) -> int:
    """How many processes decode. None outside Linux: where processes are spawned, not forked, each would run a user's script
    again; nor in a process that may have no children."""
    if images <= FEW or sys.platform != "linux" or multiprocessing.current_process().daemon:
        return 0
    return min(_cores(), MOST_WORKERS)


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _refuse(bad: dict[File, str], of: int) -> None:
    if bad:
        path, reason = next(iter(bad.items()))
        raise ValueError(
            f"{len(bad)} of {of} images cannot be read, first {_named(list(bad))} ({path.name}: {reason}); remove or replace "
            "them: `activekd-lite doctor --data` lists all"
        )


def _named(paths: Sequence[File]) -> str:
    return ", ".join(str(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
