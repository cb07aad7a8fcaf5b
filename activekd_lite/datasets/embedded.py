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
from torch import Tensor

from activekd_lite.datasets import shapes
from activekd_lite.pool import Dataset, make_dataset
from activekd_lite.utils.files import folder_lock, make_folder, remove_partials, write_atomic
from activekd_lite.utils.views import Augmentation


def _digits(root: Path) -> Dataset:
    from sklearn.datasets import load_digits  # slow
    from sklearn.model_selection import train_test_split

    raw = load_digits()
    # A pixel counts the dark pixels, 0 to 16, of a 4 x 4 block of the scan.
    images = torch.from_numpy(np.round(raw.images * (255 / 16)).astype(np.uint8))
    images = images[:, None].expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(raw.target)
    rows = np.arange(len(images))
    split = train_test_split(rows, train_size=1100, random_state=0, stratify=raw.target)
    pool, test = (torch.from_numpy(np.sort(part)) for part in split)
    data = images[pool], labels[pool], images[test], labels[test]
    return make_dataset(
        "digits",
        *data,
        classnames=[str(digit) for digit in range(10)],
        templates=('a photo of the number: "{}".',),
        augmentation=Augmentation(scale=(0.7, 1.0), ratio=(0.85, 1.18), flip=0.0),
        student="tiny-cnn",
    )


SHAPES_PARTS = {"pool": (4000, 0), "test": (2000, 1)}  # number of images, seed


def colours_of_shapes(images: Tensor) -> Tensor:
    """Return the colours of the figures in pool images of `shapes`, a second labelling of them.

    images: (N, 3, 32, 32) uint8, any of the pool's.
    Returns (N,) int64 positions in `shapes.COLOURS`, -1 for images that are not in the pool.
    The colours are not stored: the pool is drawn again from its seed, which takes 2 seconds.
    """
    drawn, _, colours = shapes.make_coloured_shapes(*SHAPES_PARTS["pool"])
    pixels = (image.numpy().tobytes() for image in drawn)
    known = dict(zip(pixels, colours.tolist(), strict=True))
    return torch.tensor([known.get(image.numpy().tobytes(), -1) for image in images.cpu()])


def _shapes(root: Path) -> Dataset:
    path = root / "shapes-v1.safetensors"
    parts = _read_shapes(path)
    if parts is None:
        with folder_lock(make_folder(root)):
            remove_partials(root, path.name)
            parts = _read_shapes(path) or _write_shapes(path)  # another process may have made it
    data = [parts[f"{part}_{kind}"] for part in ("pool", "test") for kind in ("images", "labels")]
    augmentation = Augmentation(scale=(0.5, 1.0))
    return make_dataset(
        "shapes", *data, shapes.CLASSNAMES, augmentation=augmentation, student="tiny-resnet"
    )


def _read_shapes(path: Path) -> dict[str, Tensor] | None:
    """Return the images and labels, or None if the file is missing, incomplete or altered."""
    try:
        parts = load_file(path)
    except (FileNotFoundError, SafetensorError):
        return None
    found = parts.pop("sha256", torch.empty(0)).tolist()
    return parts if found == _checksum(parts) else None


def _write_shapes(path: Path) -> dict[str, Tensor]:
    """Draw pool and test set, and store them with a checksum."""
    parts = {}
    for part, (count, seed) in SHAPES_PARTS.items():
        parts[f"{part}_images"], parts[f"{part}_labels"] = shapes.make_shapes(count, seed)
    checksum = torch.tensor(_checksum(parts), dtype=torch.uint8)
    write_atomic(path, save(parts | {"sha256": checksum}))
    return parts


def _checksum(parts: dict[str, Tensor]) -> list[int]:
    """Return the sha256 of all names, types, shapes and values as 32 bytes."""
    digest = hashlib.sha256()
    for name, values in sorted(parts.items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.view(torch.uint8).numpy())
    return list(digest.digest())


EMBEDDED = {"digits": _digits, "shapes": _shapes}
