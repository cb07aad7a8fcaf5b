"""The data sets that come with the kit.

`digits`: scikit-learn's copy of the UCI handwritten digits (Alpaydin and Kaynak 1998), 1,797 real
8 x 8 images. `shapes`: 36 generated classes, see `shapes.py`.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from activekd_lite.datasets import shapes
from activekd_lite.pool import Dataset, make_dataset
from activekd_lite.utils.files import folder_lock, make_folder, remove_partials, write_atomic
from activekd_lite.utils.views import Augmentation


def _digits(root: Path) -> Dataset:
    raw = load_digits()
    images = np.round(raw.images * (255 / 16)).astype(
        np.uint8
    )  # counts 0..16 of dark pixels in a 4 x 4 block
    images = torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1).contiguous()
    pool, test = train_test_split(
        np.arange(len(images)), train_size=1100, random_state=0, stratify=raw.target
    )
    pool, test, labels = (
        torch.from_numpy(np.sort(pool)),
        torch.from_numpy(np.sort(test)),
        torch.from_numpy(raw.target),
    )
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
    known = {
        image.numpy().tobytes(): colour
        for image, colour in zip(drawn, colours.tolist(), strict=True)
    }
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
        with folder_lock(make_folder(root)):
            remove_partials(root, path.name)
            if (parts := _whole_shapes(path)) is None:  # nobody made it meanwhile
                parts = {}
                for part, (count, seed) in SHAPES_PARTS.items():
                    parts[f"{part}_images"], parts[f"{part}_labels"] = shapes.make_shapes(
                        count, seed
                    )
                write_atomic(
                    path,
                    save(parts | {"sha256": torch.tensor(_checksum(parts), dtype=torch.uint8)}),
                )
    return make_dataset(
        "shapes", parts["pool_images"], parts["pool_labels"], parts["test_images"], parts["test_labels"],
        classnames=shapes.CLASSNAMES, augmentation=Augmentation(scale=(0.5, 1.0)), student="tiny-resnet",
    )  # fmt: skip


EMBEDDED = {"digits": _digits, "shapes": _shapes}
