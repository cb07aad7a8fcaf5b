"""Classification data sets of torchvision."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor

from activekd_lite.datasets.source import readable
from activekd_lite.pool import Dataset, make_dataset
from activekd_lite.utils.images import ImageFiles, read_images
from activekd_lite.utils.photos import MemoryFile, upright

# Pixels. Views of a tensor are not antialiased, so larger squares are treated as photographs.
LARGEST_IN_TENSOR = 256


def from_torchvision(
    name: str, root: Path, side: int, choose: Callable[[Sequence[int]], Tensor], budget_bytes: int
) -> Dataset:
    """Read a data set of torchvision.datasets that was downloaded before, such as CIFAR10.

    choose: from the labels of the training part to the pool indices that are kept.
    Raises ValueError if it has no training part or class names, FileNotFoundError if it is missing.
    """
    train, test = _load(name, root)
    labels = getattr(train, "targets", None)
    if labels is None:
        labels = [train[i][1] for i in range(len(train))]
    chosen = choose(labels).tolist()
    parts = [train[i] for i in chosen], [test[i] for i in range(len(test))]
    pictures = [[picture for picture, _ in part] for part in parts]
    pool, test_images = _images(name, pictures, side, budget_bytes)
    labels, test_labels = ([label for _, label in part] for part in parts)
    classnames = [readable(c) for c in train.classes]
    return make_dataset(name, pool, labels, test_images, test_labels, classnames)


def _load(name: str, root: Path) -> list:
    """Return the training and the test part as torchvision's own objects."""
    kind = getattr(torchvision.datasets, name, None)
    parameters = inspect.signature(kind).parameters if isinstance(kind, type) else {}
    if not {"train", "download"} <= set(parameters):
        raise ValueError(
            f"torchvision:{name} is not a torchvision data set with a training and a test part; "
            "CIFAR10 is one"
        )
    try:
        parts = [kind(root, train=train, download=False) for train in (True, False)]
    except (RuntimeError, OSError, TypeError) as error:
        raise FileNotFoundError(
            f"torchvision's {name} is not in {root} ({error}); download it once: "
            f"`torchvision.datasets.{name}({str(root)!r}, download=True)`"
        ) from error
    if not hasattr(parts[0], "classes"):
        raise ValueError(
            f"torchvision:{name} has no class names, which the teacher's prompts need; choose "
            "another data set, such as CIFAR10"
        )
    return parts


def _images(
    name: str, parts: Sequence[Sequence[Image.Image]], side: int, budget_bytes: int
) -> list[Tensor | ImageFiles]:
    """Turn small squares of one size into a tensor, anything else into image files in memory."""
    sizes = {picture.size for pictures in parts for picture in pictures}
    (width, height), *others = sizes
    if not others and width == height <= min(side, LARGEST_IN_TENSOR):
        return [torch.stack([_tensor(picture) for picture in pictures]) for pictures in parts]
    files = [
        [MemoryFile.from_image(f"{name} {i}", picture) for i, picture in enumerate(pictures)]
        for pictures in parts
    ]
    return [read_images(part, side, budget_bytes) for part in files]


def _tensor(picture: Image.Image) -> Tensor:
    """Return (3, H, W) uint8."""
    return torch.from_numpy(np.array(upright(picture))).permute(2, 0, 1).contiguous()
