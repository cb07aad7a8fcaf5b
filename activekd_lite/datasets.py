"""A name -> images, oracle, test set, class names and prompts. Nothing is downloaded here.

`digits`: scikit-learn's copy of the UCI handwritten digits (Alpaydin and Kaynak 1998), 1,797 real 8 x 8 images.
`shapes`: 36 generated classes, see `shapes.py`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from activekd_lite import shapes
from activekd_lite.files import make_folder, write_atomic
from activekd_lite.pool import Oracle, Pool
from activekd_lite.views import Augmentation


@dataclass(frozen=True)
class TestSet:
    """Held-out images (M, 3, H, W) uint8 with labels (M,) int64: for measuring, never for selection."""

    __test__ = False  # not a test case, whatever pytest makes of the name
    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)


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


def load_dataset(name: str = "digits", root: str | os.PathLike | None = None) -> Dataset:
    """Load a data set by name. root: where generated images are kept, `.cache/` by default.

    Raises ValueError for an unknown name.
    """
    if name not in _LOADERS:
        raise ValueError(f"unknown data set {name!r}; known are {', '.join(_LOADERS)}")
    return _LOADERS[name](Path(root or ".cache"))


def make_dataset(
    name: str,
    images: Tensor,
    labels: Sequence[int],
    test_images: Tensor,
    test_labels: Sequence[int],
    classnames: Sequence[str],
    templates: Sequence[str] = ("a photo of a {}.",),
    augmentation: Augmentation | None = None,
    student: str = "tiny-resnet",
) -> Dataset:
    """A data set from arrays in memory: images (N, 3, H, W) uint8, labels (N,) positions in `classnames`.

    Raises ValueError when images, labels and class names do not fit together.
    """
    for part, x, y in (("pool", images, labels), ("test", test_images, test_labels)):
        if len(x) != len(y):
            raise ValueError(f"{part}: {len(x)} images but {len(y)} labels; give one label for each image")
    pool = Pool(images, tuple(classnames), augmentation or Augmentation())
    test_oracle = Oracle(torch.as_tensor(test_labels), len(classnames))  # checks their range
    test = TestSet(test_images, test_oracle.label(torch.arange(len(test_images))))
    return Dataset(name, pool, Oracle(torch.as_tensor(labels), len(classnames)), test, tuple(templates), student)


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


def _shapes(root: Path) -> Dataset:
    path = root / "shapes-v1.safetensors"
    try:
        parts = load_file(path)
    except (FileNotFoundError, SafetensorError):  # not made yet, or a half-written file of a killed process
        parts = {}
        for part, (count, seed) in {"pool": (4000, 0), "test": (2000, 1)}.items():
            parts[f"{part}_images"], parts[f"{part}_labels"] = shapes.make_shapes(count, seed)
        make_folder(root)
        write_atomic(path, save(parts))
    return make_dataset(
        "shapes", parts["pool_images"], parts["pool_labels"], parts["test_images"], parts["test_labels"],
        classnames=shapes.CLASSNAMES, augmentation=Augmentation(scale=(0.5, 1.0)), student="tiny-resnet",
    )  # fmt: skip


_LOADERS = {"digits": _digits, "shapes": _shapes}
