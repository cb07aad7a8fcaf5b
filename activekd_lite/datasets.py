"""A name -> images, oracle, test set, class names and prompts. Nothing is downloaded here.

`digits`: scikit-learn's copy of the UCI handwritten digits (Alpaydin and Kaynak 1998), 1,797 real 8 x 8 images.
`shapes`: 36 generated classes, see `shapes.py`.
Any other is made of files or comes from Hugging Face `datasets`, see `sources.py`, or from torchvision.
"""

import hashlib
import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from activekd_lite import shapes
from activekd_lite.files import alone, make_folder, remove_partials, write_atomic
from activekd_lite.images import SIDE, ImageFiles, read_images
from activekd_lite.photos import MemoryFile, upright
from activekd_lite.pool import Oracle, Pool, check_images, images_sha256
from activekd_lite.seeding import generator
from activekd_lite.sources import LAYOUTS, find, short_name
from activekd_lite.views import Augmentation


@dataclass(frozen=True)
class TestSet:
    """Held-out images (M, 3, H, W) uint8, in memory or files, with labels (M,) int64: for measuring, never for selection."""

    __test__ = False  # not a test case, whatever pytest makes of the name
    images: Tensor | ImageFiles
    labels: Tensor

    def __post_init__(self):
        check_images(self.images, "test")
        if len(self.images) == 0:
            raise ValueError("the test set has no images; accuracy is measured on them: give at least one, with its label")

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> dict[str, str]:
        """sha256 of the images (files are read once) and of the labels."""
        labels = hashlib.sha256(self.labels.cpu().numpy()).hexdigest()
        return {"images": images_sha256(self.images), "labels": labels}


@dataclass(frozen=True)
class Dataset:
    """All that an experiment needs of its data. `student`: the student that suits its images."""

    name: str
    pool: Pool
    oracle: Oracle
    test: TestSet
    templates: tuple[str, ...]
    student: str

    @property
    def classnames(self) -> tuple[str, ...]:
        return self.pool.classnames


def load_dataset(
    name: str = "digits", root: str | os.PathLike = "data", *, cache_root: str | os.PathLike = ".cache", side: int = SIDE,
    pool_size: int | None = None, pool_seed: int = 0, pool_shots: int = 0, budget_bytes: int = 2**31,
) -> Dataset:  # fmt: skip
    """Load a data set by name: an embedded one (`digits`, `shapes`), one of the paper's eleven (`sources.LAYOUTS`), a folder of
    class folders ("folder:/my/images"), a CSV file ("csv:/my/list.csv"), one of Hugging Face `datasets` ("hf:org/name", with a
    configuration "hf:org/name:config", or a folder, "hf:./my_folder") or of torchvision ("torchvision:CIFAR10").

    root: the folder that holds the data sets; cache_root: where the generated images of `shapes` are kept.
    Views are cut from whole photographs; torchvision's sets of small, equal squares become tensors. side: the student sees
    photographs reduced to a shorter side of so many pixels, never enlarged. These are held in memory where pool and test set
    each fit budget_bytes, else decoded whenever they are asked for: the pixels are the same. pool_size: a random part of the
    pool, drawn with pool_seed, beside pool_shots images per class; its order is kept. The paper takes 100,000 of ImageNet
    beside one image per class, anew for each seed.
    Raises ValueError for an unknown name or unreadable images, FileNotFoundError for missing ones, ImportError where "hf:"
    lacks its package (`pip install -e '.[hf]'`).
    """
    check_name(name)
    if name in EMBEDDED:
        return _smaller(EMBEDDED[name](Path(cache_root)), pool_size, pool_seed, pool_shots)
    root = Path(root)
    if name.startswith("torchvision:"):
        return _from_torchvision(
            name.removeprefix("torchvision:"), root, side, (pool_size, pool_seed, pool_shots), budget_bytes
        )
    source = find(name, root)
    chosen = _part_of(source.pool[1], pool_size, pool_seed, pool_shots)
    paths, labels = ([part[i] for i in chosen.tolist()] for part in source.pool)
    return make_dataset(
        source.name, read_images(paths, side, budget_bytes, check=False), labels,
        read_images(source.test[0], side, budget_bytes), source.test[1], source.classnames, source.templates,
    )  # fmt: skip


def check_name(name: str) -> None:
    """Raises ValueError for what names no data set of a known kind; whether it is there is not looked at."""
    kind, colon, where = name.partition(":")
    if name in (*EMBEDDED, *LAYOUTS):
        return
    if colon and kind in KINDS:
        if not where or not short_name(name).strip(". ") or (kind == "torchvision" and not where.isidentifier()):
            raise ValueError(f"data set {name!r} names nothing that can be read; give it as in {KINDS[kind]}")
        return
    meant = f"did you mean '{'csv' if name.endswith('.csv') else 'folder'}:{name}'? " if _is_path(name) else ""
    known = ", ".join([*EMBEDDED, *LAYOUTS, *KINDS.values()])
    raise ValueError(f"unknown data set {name!r}; {meant}known are {known} and the like")


def _is_path(name: str) -> bool:
    return "/" in name or "\\" in name or name.startswith((".", "~")) or Path(name).exists()


def make_dataset(
    name: str,
    images: Tensor | ImageFiles,
    labels: Sequence[int],
    test_images: Tensor | ImageFiles,
    test_labels: Sequence[int],
    classnames: Sequence[str],
    templates: Sequence[str] = ("a photo of a {}.",),
    augmentation: Augmentation | None = None,
    student: str = "tiny-resnet",
) -> Dataset:
    """A data set from tensors or numpy arrays: images (N, 3, H, W) uint8, labels (N,) positions in `classnames`.

    A pool label of -1 is not known. Raises ValueError when images, labels and class names do not fit together.
    """
    images, test_images = (torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in (images, test_images))
    for part, x, y in (("pool", images, labels), ("test", test_images, test_labels)):
        if len(x) != len(y):
            raise ValueError(f"{part}: {len(x)} images but {len(y)} labels; give one label for each image")
    pool = Pool(images, tuple(classnames), augmentation or Augmentation())
    test_oracle = Oracle(test_labels, len(classnames))  # checks their range
    test = TestSet(test_images, test_oracle.label(torch.arange(len(test_images))))  # and that each has one
    return Dataset(name, pool, Oracle(labels, len(classnames)), test, tuple(templates), student)


def _part_of(labels: Sequence[int], pool_size: int | None, pool_seed: int = 0, pool_shots: int = 0) -> Tensor:
    """Pool positions, ascending: all, or `pool_size` drawn at random beside `pool_shots` of each class (label -1: of none)."""
    labels = torch.as_tensor(labels, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=generator(pool_seed, "part of the pool"))
    if pool_size is None:
        return order.sort().values
    classes = labels.unique()[labels.unique() >= 0].tolist() if pool_shots else []
    shots = torch.cat([order[:0], *(order[labels[order] == c][:pool_shots] for c in classes)])
    most = len(labels) - len(shots)
    if not 1 <= pool_size <= most:
        beside = f" beside {pool_shots} per class" if pool_shots else ""
        raise ValueError(
            f"pool_size = {pool_size}, but the data set has {most} images to draw from{beside}; ask for 1 to {most}"
        )
    rest = order[~torch.isin(order, shots)]
    return torch.cat([shots, rest[:pool_size]]).sort().values


def _smaller(data: Dataset, pool_size: int | None, pool_seed: int, pool_shots: int) -> Dataset:
    if pool_size is None:
        return data
    labels = data.oracle.label(torch.arange(len(data.pool)))
    chosen = _part_of(labels, pool_size, pool_seed, pool_shots)
    oracle = Oracle(labels[chosen], data.pool.num_classes)
    return replace(data, pool=replace(data.pool, images=data.pool.images[chosen]), oracle=oracle)


LARGEST_IN_TENSOR = 256  # pixels; larger squares are treated as photographs, since views of a tensor are not antialiased


def _from_torchvision(name: str, root: Path, side: int, pool_part: tuple[int | None, int, int], budget_bytes: int) -> Dataset:
    """A classification data set of torchvision.datasets with `train` and `classes`, downloaded before: CIFAR10, MNIST, ..."""
    kind = getattr(torchvision.datasets, name, None)
    if not isinstance(kind, type) or not {"train", "download"} <= set(inspect.signature(kind).parameters):
        raise ValueError(f"torchvision:{name} is no data set of torchvision with a train and a test part; CIFAR10 is one")
    try:
        train, test = (kind(root, train=part, download=False) for part in (True, False))
    except (RuntimeError, OSError, TypeError) as error:
        raise FileNotFoundError(
            f"torchvision's {name} is not in {root} ({error}); fetch it once where there is a network: "
            f"`torchvision.datasets.{name}({str(root)!r}, download=True)`"
        ) from error
    if not hasattr(train, "classes"):
        raise ValueError(f"torchvision:{name} names no classes; ActiveKD needs names to ask the teacher with")
    labels = train.targets if hasattr(train, "targets") else [train[i][1] for i in range(len(train))]
    chosen = _part_of(labels, *pool_part).tolist()
    parts = [[data[i] for i in index] for data, index in ((train, chosen), (test, range(len(test))))]
    classnames = [c.replace("_", " ") for c in train.classes]
    pictures, labels = ([[example[k] for example in part] for part in parts] for k in (0, 1))
    if _equal_squares([image for part in pictures for image in part], min(side, LARGEST_IN_TENSOR)):
        x, test_x = (torch.stack([_tensor(image) for image in part]) for part in pictures)
    else:
        files = ([MemoryFile.of(f"{name} {i}", image) for i, image in enumerate(part)] for part in pictures)
        x, test_x = (read_images(part, side, budget_bytes) for part in files)
    return make_dataset(name, x, labels[0], test_x, labels[1], classnames)


def _equal_squares(pictures: Sequence[Image.Image], most: int) -> bool:
    """Are all squares of one size, of `most` pixels or fewer?"""
    (width, height), *others = {image.size for image in pictures}
    return not others and width == height <= most


def _tensor(image: Image.Image) -> Tensor:
    """(3, H, W) uint8."""
    return torch.from_numpy(np.array(upright(image))).permute(2, 0, 1).contiguous()


def _digits(root: Path) -> Dataset:
    raw = load_digits()
    images = np.round(raw.images * (255 / 16)).astype(np.uint8)  # counts 0..16 of dark pixels in a 4 x 4 block
    images = torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1).contiguous()
    pool, test = train_test_split(np.arange(len(images)), train_size=1100, random_state=0, stratify=raw.target)
    pool, test, labels = torch.from_numpy(np.sort(pool)), torch.from_numpy(np.sort(test)), torch.from_numpy(raw.target)
    return make_dataset(
        "digits", images[pool], labels[pool], images[test], labels[test],
        classnames=[str(d) for d in range(10)],
        templates=('a photo of the number: "{}".',),
        augmentation=Augmentation(scale=(0.7, 1.0), ratio=(0.85, 1.18), flip=0.0),  # a mirrored 2 is no 2
        student="tiny-cnn",
    )  # fmt: skip


SHAPES_PARTS = {"pool": (4000, 0), "test": (2000, 1)}  # how many images, and their seed


def colours_of_shapes(images: Tensor) -> Tensor:
    """What else could be asked of `shapes`: the figures' colours (N,) int64, positions in `shapes.COLOURS`.

    images: (N, 3, 32, 32) uint8 of its pool, or some of them. No file holds their colours: the pool is drawn again from its
    seed (2 seconds) and images are found in it by their pixels; -1 for images that are not of it.
    """
    drawn, _, colours = shapes.make_coloured_shapes(*SHAPES_PARTS["pool"])
    known = {image.numpy().tobytes(): colour for image, colour in zip(drawn, colours.tolist(), strict=True)}
    return torch.tensor([known.get(image.numpy().tobytes(), -1) for image in images.cpu()])


def _whole_shapes(path: Path) -> dict[str, Tensor] | None:
    """Images and labels of the file; None where it is missing, half-written, changed since, or without a checksum."""
    try:
        parts = load_file(path)
    except (FileNotFoundError, SafetensorError):
        return None
    found = parts.pop("sha256", torch.empty(0)).tolist()
    return parts if found == _checksum(parts) else None


def _checksum(parts: dict[str, Tensor]) -> list[int]:
    """sha256 over names, shapes and numbers, 32 bytes."""
    digest = hashlib.sha256()
    for name, values in sorted(parts.items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.view(torch.uint8).numpy())
    return list(digest.digest())


def _shapes(root: Path) -> Dataset:
    path = root / "shapes-v1.safetensors"
    parts = _whole_shapes(path)
    if parts is None:
        with alone(make_folder(root)):
            remove_partials(root, path.name)
            if (parts := _whole_shapes(path)) is None:  # nobody made it meanwhile
                parts = {}
                for part, (count, seed) in SHAPES_PARTS.items():
                    parts[f"{part}_images"], parts[f"{part}_labels"] = shapes.make_shapes(count, seed)
                write_atomic(path, save(parts | {"sha256": torch.tensor(_checksum(parts), dtype=torch.uint8)}))
    return make_dataset(
        "shapes", parts["pool_images"], parts["pool_labels"], parts["test_images"], parts["test_labels"],
        classnames=shapes.CLASSNAMES, augmentation=Augmentation(scale=(0.5, 1.0)), student="tiny-resnet",
    )  # fmt: skip


EMBEDDED = {"digits": _digits, "shapes": _shapes}
KINDS = {  # an example of each
    "folder": "folder:/path/to/images",
    "csv": "csv:/path/to/file.csv",
    "hf": "hf:org/name",
    "torchvision": "torchvision:CIFAR10",
}
