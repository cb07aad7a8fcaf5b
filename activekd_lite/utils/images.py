"""Many images -> pixels of their views. Images are equal-sized in one tensor, or files of any size.

Views of files are cut from the whole picture (`photos.py`): the teacher's from the file itself,
the student's from a copy reduced to a shorter side of `side` pixels. All reduced copies stay in
memory if they fit. Errors name the files that cannot be read.
"""

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from tqdm import tqdm

from activekd_lite.utils.device import send
from activekd_lite.utils.photos import LONGEST, File, Photo, read_photo, reduced_bytes, render_photo
from activekd_lite.utils.seeding import generator
from activekd_lite.utils.views import Views, check_view, crop, pixels, render_center

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
SIDE = 384  # pixels; crops of half such a square are at least 235 wide, more than a view's 224
SHOWN = 256  # pixels of the squares that are displayed
# how files become pixels: part of fingerprints
RENDERING = f"whole pictures, version 1, up to 1:{LONGEST}"
FEW = 128  # views; threads render so many before worker processes have started
MAX_WORKERS = 8
ITEM, ITEM_BYTES = 16, 3 * 2**20  # at most so many views and bytes per message of a worker
AHEAD = 8  # messages requested from each worker in advance
CPU = torch.device("cpu")

Batch = tuple[Tensor, Tensor]  # images (B,) and the view of each (B,)


def stream_views(
    images: "Tensor | ImageFiles",
    batches: Sequence[Batch],
    views: Views,
    size: int,
    mode: str = "bilinear",
    device: torch.device = CPU,
    *,
    reduced: bool = True,
) -> Iterator[Tensor]:
    """Render batches of (image, view) pairs, in order.

    images: (N, 3, H, W) uint8, cut on the device by `views.pixels`; or files, see `ImageFiles`.
    Yields the pixels of each batch, (B, 3, size, size) float32 in [0, 1], on `device`.
    """
    if isinstance(images, ImageFiles):
        for x in images.stream(batches, views, size, mode, reduced=reduced):
            yield send(x, device).float() / 255
        return
    for index, view in batches:
        # each image is sent once for all of its views
        rows, places = torch.as_tensor(index).unique(return_inverse=True)
        x = send(images[rows.to(images.device)], device)[send(places, device)]
        yield pixels(views, x, index, view, size, mode)


def stream_centers(
    images: "Tensor | ImageFiles",
    batch: int,
    size: int,
    mode: str = "bilinear",
    device: torch.device = CPU,
    *,
    reduced: bool = True,
) -> Iterator[Tensor]:
    """Render the centre views of all images in order, `batch` at a time; see `stream_views`."""
    if isinstance(images, ImageFiles):
        batches = _center_batches(len(images), batch)
        return stream_views(images, batches, Views(), size, mode, device, reduced=reduced)
    return (render_center(part.to(device), size, mode) for part in images.split(batch))


def read_images(
    paths: Sequence[File], side: int = SIDE, budget_bytes: int = 2**31, *, check: bool = True
) -> "ImageFiles":
    """Open image files; keep the reduced pictures in memory if they fit the budget.

    check: decode all files once if they are not kept. This is not needed for a pool that a
        teacher encodes before training.
    Raises FileNotFoundError for missing files and ValueError for damaged ones, naming them.
    """
    if missing := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} images are missing, first {_first_names(missing)}"
        )
    files = ImageFiles(paths, side)
    if not files.hold(budget_bytes) and check:
        files.check()
    return files


def damaged(paths: Sequence[File]) -> dict[File, str]:
    """Decode all files; return {file: reason} for those that are missing or cannot be read."""
    return ImageFiles(paths).damaged()


class Held(NamedTuple):
    """A Photo in memory: (h, w, 3) uint8, three bytes per pixel, where PIL uses four."""

    pixels: np.ndarray
    width: int
    height: int

    @classmethod
    def from_photo(cls, photo: Photo) -> "Held":
        return cls(np.asarray(photo.image), photo.width, photo.height)

    def photo(self) -> Photo:
        return Photo(Image.fromarray(self.pixels), self.width, self.height)


class ImageFiles:
    """Image files, rendered on request; indexed like a uint8 tensor (N, 3, S, S) of squares.

    side: pixels of the shorter side of the reduced pictures, which students see. Smaller pictures
        are not enlarged. S is at most SHOWN.
    A student gets the same pixels whether the pictures are in memory (`hold`) or decoded again.
    """

    dtype, ndim, device = torch.uint8, 4, CPU

    def __init__(self, paths: Sequence[File], side: int = SIDE):
        self.paths, self.side, self.held, self._fingerprint = list(paths), side, None, None
        self.shape = (len(self.paths), 3, min(side, SHOWN), min(side, SHOWN))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor | slice | int) -> Tensor:
        """Squares (B, 3, S, S), or one for an integer.

        Raises ValueError naming the files that cannot be read.
        """
        rows = torch.arange(len(self))[index]
        images = self.squares(rows.reshape(-1), self.shape[-1])
        return images if rows.ndim else images[0]

    def squares(self, rows: Tensor, size: int) -> Tensor:
        """The centre squares (B, 3, size, size) uint8 of the images `rows` (B,)."""
        return next(self.stream([(rows, torch.zeros_like(rows))], Views(), size))

    def split(self, size: int) -> Iterator[Tensor]:
        """All squares in order, `size` at a time."""
        return self.stream(_center_batches(len(self), size), Views(), self.shape[-1])

    def part(self, rows: Tensor) -> "ImageFiles":
        """The images `rows` (n,) as files of their own; those that are held in memory stay so."""
        part = ImageFiles([self.paths[i] for i in rows.tolist()], self.side)
        part.held = self.held and [self.held[i] for i in rows.tolist()]
        return part

    def to(self, device: str | torch.device) -> "ImageFiles":
        """Returns itself: views are sent to the device when they are rendered."""
        return self

    def stream(
        self,
        batches: Sequence[Batch],
        views: Views,
        size: int,
        mode: str = "bilinear",
        *,
        reduced: bool = True,
    ) -> Iterator[Tensor]:
        """Render batches of (image, view) pairs in order, working ahead.

        batches: of any size, with repeats; a picture is decoded once for its views in a batch.
        mode: "bilinear" or "bicubic", both antialiased.
        reduced: cut from the reduced pictures, else from the files' own pixels.
        Yields the pixels (B, 3, size, size) uint8 of each batch.
        Raises ValueError naming files that cannot be read, RuntimeError if a worker was killed.

        More than FEW views are rendered by one worker process per core, at most MAX_WORKERS. Each
        works ahead by up to AHEAD messages of ITEM_BYTES (24 MiB, twice that while sending). They
        send through pipes, as /dev/shm is small in containers. torch's global random state does
        not change.
        """
        every = torch.arange(len(self))
        # checked here, not in a worker
        batches = [(every[index], check_view(views, view)) for index, view in batches]

        def render(row: int, numbers: Sequence[int]) -> np.ndarray:
            photo = self._photo(row, reduced)
            boxes = (crop(views, row, view, photo.width, photo.height) for view in numbers)
            return np.stack([render_photo(photo, box, size, mode) for box in boxes])

        most = _per_item(3 * size**2)
        items = (i for index, view in batches for i in _items(_places(index), view.tolist(), most))
        with closing(_results(render, items, sum(len(index) for index, _ in batches))) as results:
            for index, _ in batches:
                images = torch.empty(len(index), 3, size, size, dtype=torch.uint8)
                self._fill(images, _places(index), results)
                yield images

    def hold(self, budget_bytes: int) -> bool:
        """Keep all reduced pictures in memory if they take at most `budget_bytes`.

        Returns whether they are kept. Raises ValueError naming the files that cannot be read.
        """
        if self._estimated_bytes() > budget_bytes:
            return False
        held, bad, left = [], {}, budget_bytes
        with closing(self._each(Held.from_photo, "reading images")) as results:
            for path, result in zip(self.paths, results, strict=True):
                if isinstance(result, str):
                    bad[path] = result
                    continue
                held.append(result)
                left -= result.pixels.nbytes
                if left < 0:
                    return False
        _refuse(bad, len(self))
        self.held = held
        return True

    def damaged(self) -> dict[File, str]:
        """Decode all files; return {file: reason} for those that cannot be read."""
        with closing(self._each(lambda photo: None, "checking images")) as reasons:
            pairs = zip(self.paths, reasons, strict=True)
            return {path: reason for path, reason in pairs if reason is not None}

    def check(self) -> None:
        """Decode all files unless they are held; raise ValueError if some cannot be read."""
        if self.held is None:
            _refuse(self.damaged(), len(self))

    def fingerprint(self) -> str:
        """sha256 of the files' bytes (read once) and of how they are rendered."""
        if self._fingerprint is None:
            digest = hashlib.sha256(f"{RENDERING}, {len(self)} files, side {self.side}".encode())
            for path in self.paths:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _photo(self, row: int, reduced: bool) -> Photo:
        if reduced and self.held is not None:
            return self.held[row].photo()
        return read_photo(self.paths[row], self.side if reduced else None)

    def _fill(
        self, images: Tensor, places: dict[int, list[int]], results: Iterator[np.ndarray | str]
    ) -> None:
        """Copy the next results into `images` (B, 3, S, S). Raises ValueError for failed ones."""
        bad = {}
        for (row, where), result in zip(places.items(), results, strict=False):
            if isinstance(result, str):
                bad[self.paths[row]] = result
            else:
                images[where] = torch.from_numpy(result)
        _refuse(bad, len(images))

    def _each(self, function: Callable[[Photo], Any], title: str) -> Iterator[Any]:
        """`function(photo)` of each reduced picture in order, or the reason if it is damaged."""
        rows = torch.arange(len(self)).split(_per_item(4 * self.side**2))
        items = ([(row,) for row in part.tolist()] for part in rows)

        def apply(row: int) -> Any:
            return function(self._photo(row, reduced=True))

        few = len(self) < 2000
        with closing(_results(apply, items, len(self))) as results:
            yield from tqdm(results, total=len(self), unit="image", desc=title, disable=few)

    def _estimated_bytes(self) -> float:
        """The size of all reduced pictures, from the headers of 200 evenly spread files."""
        if not self.paths:
            return 0
        sample = self.paths[:: -(-len(self) // 200)]
        return len(self) * float(np.mean([reduced_bytes(path, self.side) for path in sample]))


def _center_batches(count: int, batch: int) -> list[Batch]:
    return [(rows, torch.zeros_like(rows)) for rows in torch.arange(count).split(batch)]


def _per_item(nbytes: int) -> int:
    """How many results of `nbytes` each a worker sends in one message."""
    return min(ITEM, max(1, ITEM_BYTES // nbytes))


def _places(index: Tensor) -> dict[int, list[int]]:
    """{image: its positions in the batch}."""
    places = {}
    for place, row in enumerate(index.tolist()):
        places.setdefault(row, []).append(place)
    return places


def _items(
    places: dict[int, list[int]], view: Sequence[int], most: int
) -> Iterator[list[tuple[int, list[int]]]]:
    """Split a batch into lists of (image, views): at most `most` views each, or one image."""
    item, count = [], 0
    for row, where in places.items():
        if item and count + len(where) > most:
            yield item
            item, count = [], 0
        item.append((row, [view[place] for place in where]))
        count += len(where)
    if item:
        yield item


class _Work:
    """A data set for DataLoader: an item is a list of arguments, each mapped by `function`.

    Results are arrays or text: a worker would send tensors through shared memory, and some
    exceptions cannot be sent. Workers are single-threaded; other processes use a thread per core.
    """

    def __init__(self, function: Callable):
        self.function = function

    def __getitems__(self, item: list[tuple]) -> list[Any]:
        if get_worker_info():
            return [self.attempt(arguments) for arguments in item]
        with ThreadPoolExecutor(_cores()) as threads:
            return list(threads.map(self.attempt, item))

    def attempt(self, arguments: tuple) -> Any:
        try:
            return self.function(*arguments)
        except UnidentifiedImageError:
            return "not an image that Pillow can read"
        except Exception as error:  # Pillow raises many types for damaged files
            return str(error) or repr(error)


def _results(function: Callable, items: Iterable[list[tuple]], count: int) -> Iterator[Any]:
    """`function` of all arguments in `items` in order, or the reason if it raises.

    count: the number of results, or fewer.
    """
    workers = _workers(count)
    options = {"prefetch_factor": AHEAD, "multiprocessing_context": "fork"} if workers else {}
    for results in DataLoader(
        _Work(function),
        batch_sampler=items,
        collate_fn=list,
        num_workers=workers,
        generator=generator(0, "decoding"),
        **options,
    ):
        yield from results


def _workers(count: int) -> int:
    """How many worker processes render `count` views; 0 means this process.

    It is 0 outside Linux, where a spawned process would run the user's script again, and in a
    process that cannot have children.
    """
    if count <= FEW or sys.platform != "linux" or multiprocessing.current_process().daemon:
        return 0
    return min(_cores(), MAX_WORKERS)


def _cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _refuse(bad: dict[File, str], total: int) -> None:
    if bad:
        path, reason = next(iter(bad.items()))
        raise ValueError(
            f"{len(bad)} of {total} images cannot be read, first {_first_names(list(bad))} "
            f"({path.name}: {reason}); remove or replace them: `activekd-lite doctor --data` "
            "lists all"
        )


def _first_names(paths: Sequence[File]) -> str:
    return ", ".join(str(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
