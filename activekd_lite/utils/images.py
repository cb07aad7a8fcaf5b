"""Many images -> pixels of their views: a tensor of equal-sized images, or files, each with a size of its own.

Views of files are cut from the whole picture (`photos.py`): the teacher's from the file itself, the student's from the picture
reduced to a shorter side of `side` pixels, which stays in memory where all of them fit. What cannot be read is named.
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
SIDE = 384  # pixels; half of a square picture's area is then at least 235 wide: a view of 224 pixels is not enlarged
SHOWN = 256  # pixels of the squares that are shown to people
RENDERING = f"whole pictures, version 1, up to 1:{LONGEST}"  # how files become pixels: part of a fingerprint
FEW = 128  # views; so many are made by threads before worker processes are up
MOST_WORKERS = 8
ITEM, ITEM_BYTES = (
    16,
    3 * 2**20,
)  # the most views, and bytes, that a worker makes and sends at a time
AHEAD = 8  # items that each worker is asked for ahead
CPU = torch.device("cpu")

Batch = tuple[Tensor, Tensor]  # images (B,) and the view of each (B,)


def stream_views(
    images: "Tensor | ImageFiles", batches: Sequence[Batch], views: Views, size: int, mode: str = "bilinear",
    device: torch.device = CPU, *, reduced: bool = True,
) -> Iterator[Tensor]:  # fmt: skip
    """The pixels (B, 3, size, size) float32 in [0, 1], on `device`, of each batch of (image, view) pairs, in order.

    images: (N, 3, H, W) uint8, whose views are cut on the device (`views.pixels`), or files (`ImageFiles.stream`).
    """
    if isinstance(images, ImageFiles):
        for x in images.stream(batches, views, size, mode, reduced=reduced):
            yield send(x, device).float() / 255
        return
    for index, view in batches:
        rows, places = torch.as_tensor(index).unique(
            return_inverse=True
        )  # an image is sent once for all of its views
        x = send(images[rows.to(images.device)], device)[send(places, device)]
        yield pixels(views, x, index, view, size, mode)


def stream_centers(
    images: "Tensor | ImageFiles", batch: int, size: int, mode: str = "bilinear", device: torch.device = CPU, *,
    reduced: bool = True,
) -> Iterator[Tensor]:  # fmt: skip
    """The centre views of all images in order, `batch` at a time; see `stream_views`."""
    if isinstance(images, ImageFiles):
        return stream_views(
            images, _centers(len(images), batch), Views(), size, mode, device, reduced=reduced
        )
    return (render_center(part.to(device), size, mode) for part in images.split(batch))


def read_images(
    paths: Sequence[File], side: int = SIDE, budget_bytes: int = 2**31, *, check: bool = True
) -> "ImageFiles":
    """Files as images: reduced and held in memory where that fits the budget, else decoded again whenever asked for.

    Raises FileNotFoundError for missing files, and ValueError, with their number and paths, for damaged ones. check: where they
    are not held, decode all once to see that (not needed for a pool that a teacher encodes before anything is trained).
    """
    if missing := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} images are missing, first {_named(missing)}"
        )
    files = ImageFiles(paths, side)
    if not files.hold(budget_bytes) and check:
        files.check()
    return files


def damaged(paths: Sequence[File]) -> dict[File, str]:
    """Every file that is missing or cannot be read, with the reason; all are decoded."""
    return ImageFiles(paths).damaged()


class Held(NamedTuple):
    """A Photo as it is kept in memory: (h, w, 3) uint8, three bytes per pixel, where PIL takes four."""

    pixels: np.ndarray
    width: int
    height: int

    @classmethod
    def of(cls, photo: Photo) -> "Held":
        return cls(np.asarray(photo.image), photo.width, photo.height)

    def photo(self) -> Photo:
        return Photo(Image.fromarray(self.pixels), self.width, self.height)


class ImageFiles:
    """Image files whose views are rendered when asked for; to look at, an (N, 3, S, S) uint8 tensor of centred squares.

    side: pixels of the shorter side of the reduced pictures, which students see; smaller pictures are not enlarged. A student
    gets the same pixels whether these are held in memory (`hold`) or decoded anew. S is at most 256.
    """

    dtype, ndim, device = torch.uint8, 4, CPU

    def __init__(self, paths: Sequence[File], side: int = SIDE):
        self.paths, self.side, self.held, self._fingerprint = list(paths), side, None, None
        self.shape = (len(self.paths), 3, min(side, SHOWN), min(side, SHOWN))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor | slice | int) -> Tensor:
        """Squares (B, 3, S, S), one for an integer. Raises ValueError that names the files which cannot be read."""
        rows = torch.arange(len(self))[index]
        images = self.squares(rows.reshape(-1), self.shape[-1])
        return images if rows.ndim else images[0]

    def squares(self, rows: Tensor, size: int) -> Tensor:
        """The centred squares (B, 3, size, size) uint8 of some images."""
        return next(self.stream([(rows, torch.zeros_like(rows))], Views(), size))

    def split(self, size: int) -> Iterator[Tensor]:
        """All squares in order, `size` at a time."""
        return self.stream(_centers(len(self), size), Views(), self.shape[-1])

    def to(self, device: str | torch.device) -> "ImageFiles":
        """Itself: views go to the device as they are rendered."""
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
        """The pixels (B, 3, size, size) uint8 of each batch of (image, view) pairs, in order; the next are made meanwhile.

        reduced: cut from the reduced pictures, else from the files' own pixels. mode: "bilinear" or "bicubic", antialiased.
        Batches may be of any size and repeat images: a picture is decoded once for all of its views in a batch. All batches
        have to be known beforehand. More than FEW views are made by a worker process per core, at most 8. Each is ahead by at
        most AHEAD items of ITEM_BYTES (24 MiB, and as much again while they are sent), through pipes, as /dev/shm is small in
        containers. torch's global random state is left alone. Raises ValueError that names the files of a batch which cannot be
        read, RuntimeError when a worker was killed.
        """
        every = torch.arange(len(self))
        batches = [
            (every[index], check_view(views, view)) for index, view in batches
        ]  # refused here, not in a worker

        def render(row: int, which: Sequence[int]) -> np.ndarray:
            photo = self._photo(row, reduced)
            boxes = (crop(views, row, view, photo.width, photo.height) for view in which)
            return np.stack([render_photo(photo, box, size, mode) for box in boxes])

        most = _most_at_once(3 * size**2)
        items = (
            item for index, view in batches for item in _items(_places(index), view.tolist(), most)
        )
        with closing(_results(render, items, sum(len(index) for index, _ in batches))) as results:
            for index, _ in batches:
                images = torch.empty(len(index), 3, size, size, dtype=torch.uint8)
                self._fill(images, _places(index), results)
                yield images

    def hold(self, budget_bytes: int) -> bool:
        """Keep all reduced pictures in memory if they take at most `budget_bytes`; says whether they do.

        Raises ValueError, with number and paths, where some cannot be read.
        """
        if self._estimated_bytes() > budget_bytes:
            return False
        held, bad, left = [], {}, budget_bytes
        with closing(self._each(Held.of, "reading images")) as results:
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
        """Every file that cannot be read, with the reason; all are decoded, under a progress bar where there are many."""
        with closing(self._each(lambda photo: None, "checking images")) as reasons:
            return {
                path: reason
                for path, reason in zip(self.paths, reasons, strict=True)
                if reason is not None
            }

    def check(self) -> None:
        """Raises ValueError, with number and paths, where some cannot be read; all are decoded, unless they are held."""
        if self.held is None:
            _refuse(self.damaged(), len(self))

    def fingerprint(self) -> str:
        """sha256 over the files' bytes, read once, and over how they become pixels; the same whether they are held or not."""
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
        """Put the next results into `images` (B, 3, S, S). Raises ValueError that names the files which cannot be read."""
        bad = {}
        for (row, where), result in zip(places.items(), results, strict=False):
            if isinstance(result, str):
                bad[self.paths[row]] = result
            else:
                images[where] = torch.from_numpy(result)
        _refuse(bad, len(images))

    def _each(self, of: Callable[[Photo], Any], title: str) -> Iterator[Any]:
        """`of` each reduced picture, in order; the reason for one that cannot be read."""
        rows = torch.arange(len(self)).split(_most_at_once(4 * self.side**2))
        items = ([(row,) for row in part.tolist()] for part in rows)
        with closing(
            _results(lambda row: of(self._photo(row, reduced=True)), items, len(self))
        ) as results:
            yield from tqdm(
                results, total=len(self), unit="image", desc=title, disable=len(self) < 2000
            )

    def _estimated_bytes(self) -> float:
        """What all reduced pictures take, by the headers of 200 files spread evenly."""
        some = self.paths[:: -(-len(self) // 200)] if self.paths else []
        return (
            len(self) * float(np.mean([reduced_bytes(path, self.side) for path in some]))
            if some
            else 0
        )


def _centers(count: int, batch: int) -> list[Batch]:
    return [(rows, torch.zeros_like(rows)) for rows in torch.arange(count).split(batch)]


def _most_at_once(nbytes: int) -> int:
    """How many results of so many bytes a worker sends together."""
    return min(ITEM, max(1, ITEM_BYTES // nbytes))


def _places(index: Tensor) -> dict[int, list[int]]:
    """Where in a batch each of its images is."""
    places = {}
    for place, row in enumerate(index.tolist()):
        places.setdefault(row, []).append(place)
    return places


def _items(
    places: dict[int, list[int]], view: Sequence[int], most: int
) -> Iterator[list[tuple[int, list[int]]]]:
    """The images of a batch, each with its views, some at a time: `most` views together, or one image."""
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
    """What a DataLoader takes for a data set: an item is a list of arguments, its batch what `function` makes of each.

    Arrays and text are sent, not tensors and exceptions: a worker would send tensors through shared memory, and some exceptions
    cannot be sent. A worker does one after the other, any other process uses a thread per core.
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
            return "no picture that Pillow knows"
        except (
            Exception
        ) as error:  # whatever Pillow makes of a damaged file: the reason is reported with its path
            return str(error) or repr(error)


def _results(function: Callable, items: Iterable[list[tuple]], count: int) -> Iterator[Any]:
    """What `function` makes of the arguments in `items`, in order, `count` or more of them; where it raises, the reason."""
    workers = _workers(count)
    loader = DataLoader(
        _Work(function), batch_sampler=items, collate_fn=list, num_workers=workers, generator=generator(0, "decoding"),
        prefetch_factor=AHEAD if workers else None, multiprocessing_context="fork" if workers else None,
    )  # fmt: skip
    for results in loader:
        yield from results


def _workers(count: int) -> int:
    """How many processes decode and render `count` views. None outside Linux: where processes are spawned, not forked, each
    would run a user's script again; nor in a process that may have no children."""
    if count <= FEW or sys.platform != "linux" or multiprocessing.current_process().daemon:
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
