"""Classification data sets of torchvision."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor

from activekd_lite.pool import Dataset, make_dataset
from activekd_lite.utils.images import read_images
from activekd_lite.utils.photos import MemoryFile, upright

LARGEST_IN_TENSOR = 256  # pixels; larger squares are treated as photographs, since views of a tensor are not antialiased


def from_torchvision(
    name: str, root: Path, side: int, choose: Callable[[Sequence[int]], Tensor], budget_bytes: int
) -> Dataset:
    """A classification data set of torchvision.datasets with `train` and `classes`, downloaded before: CIFAR10, MNIST, ..."""
    kind = getattr(torchvision.datasets, name, None)
    if not isinstance(kind, type) or not {"train", "download"} <= set(
        inspect.signature(kind).parameters
    ):
        raise ValueError(
            f"torchvision:{name} is no data set of torchvision with a train and a test part; CIFAR10 is one"
        )
    try:
        train, test = (kind(root, train=part, download=False) for part in (True, False))
    except (RuntimeError, OSError, TypeError) as error:
        raise FileNotFoundError(
            f"torchvision's {name} is not in {root} ({error}); fetch it once where there is a network: "
            f"`torchvision.datasets.{name}({str(root)!r}, download=True)`"
        ) from error
    if not hasattr(train, "classes"):
        raise ValueError(
            f"torchvision:{name} names no classes; ActiveKD needs names to ask the teacher with"
        )
    labels = (
        train.targets if hasattr(train, "targets") else [train[i][1] for i in range(len(train))]
    )
    chosen = choose(labels).tolist()
    parts = [
        [data[i] for i in index] for data, index in ((train, chosen), (test, range(len(test))))
    ]
    classnames = [c.replace("_", " ") for c in train.classes]
    pictures, labels = ([[example[k] for example in part] for part in parts] for k in (0, 1))
    if _equal_squares([image for part in pictures for image in part], min(side, LARGEST_IN_TENSOR)):
        x, test_x = (torch.stack([_tensor(image) for image in part]) for part in pictures)
    else:
        files = (
            [MemoryFile.from_image(f"{name} {i}", image) for i, image in enumerate(part)]
            for part in pictures
        )
        x, test_x = (read_images(part, side, budget_bytes) for part in files)
    return make_dataset(name, x, labels[0], test_x, labels[1], classnames)


def _equal_squares(pictures: Sequence[Image.Image], most: int) -> bool:
    """Are all squares of one size, of `most` pixels or fewer?"""
    (width, height), *others = {image.size for image in pictures}
    return not others and width == height <= most


def _tensor(image: Image.Image) -> Tensor:
    """(3, H, W) uint8."""
    return torch.from_numpy(np.array(upright(image))).permute(2, 0, 1).contiguous()
