"""The data sets that come with the kit.

`digits`: scikit-learn's copy of the UCI handwritten digits (Alpaydin and Kaynak 1998), 1,797 real
8 x 8 images. `shapes`: 36 generated classes, see `shapes.py`. Each is a family of tasks: `spec.py`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from activekd_lite.datasets import alterations, shapes
from activekd_lite.datasets.spec import POOL, TaskSpec
from activekd_lite.datasets.subset import only_classes
from activekd_lite.pool import Dataset, Oracle, make_dataset
from activekd_lite.utils.files import (
    digest,
    folder_lock,
    make_folder,
    remove_partials,
    write_atomic,
)
from activekd_lite.utils.seeding import generator
from activekd_lite.utils.views import Augmentation

Parts = dict[str, Tensor]


def load_task(spec: TaskSpec, root: Path) -> Dataset:
    """Return the data set of a task; generated images are kept under `root`."""
    data = FAMILIES[spec.family](spec, root)
    images, labels = data.pool.images, data.oracle.label(torch.arange(len(data.pool)))
    if spec.duplicates:
        images = alterations.with_near_copies(images, labels, spec.duplicates)
    if spec.noise:
        labels = alterations.with_wrong_labels(labels, spec.num_classes, spec.noise)
    oracle = Oracle(labels, spec.num_classes)
    return replace(data, name=spec.name, pool=replace(data.pool, images=images), oracle=oracle)


def _chosen_classes(spec: TaskSpec) -> Tensor:
    """Return the numbers of the task's classes, ascending: fewer are a subset of more."""
    order = torch.randperm(spec.all_classes, generator=generator(0, "classes"))
    return order[: spec.num_classes].sort().values


def _sizes(spec: TaskSpec) -> list[int] | None:
    """Return the pool images of each class, or None for all there are."""
    sizes = spec.class_sizes
    return alterations.shuffled_sizes(sizes) if sizes and spec.imbalance > 1 else sizes


def _digits(spec: TaskSpec, root: Path) -> Dataset:
    """Return the digits with the classes and the class sizes of a task."""
    data = _all_digits()
    if spec.classes:
        data, _ = only_classes(data, _chosen_classes(spec).tolist())
    if (sizes := _sizes(spec)) is None:
        return data
    labels = data.oracle.label(torch.arange(len(data.pool)))
    rows = alterations.draw_rows(labels, sizes)
    pool = replace(data.pool, images=data.pool.images[rows])
    return replace(data, pool=pool, oracle=Oracle(labels[rows], spec.num_classes))


def _all_digits() -> Dataset:
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


SHAPES_PARTS = {"pool": (POOL["shapes"], 0), "test": (2000, 1)}  # number of images, seed


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


def _shapes(spec: TaskSpec, root: Path) -> Dataset:
    """Return the figures of a task, drawn when they are first needed."""
    drawing = TaskSpec("shapes", spec.by, spec.classes, spec.imbalance, spec.shift, pool=spec.pool)
    made_of = asdict(drawing) | {"domain": asdict(shapes.SHIFTS[spec.shift])}
    suffix = "" if drawing == TaskSpec("shapes") else f"-{digest(made_of)[:12]}"
    parts = _stored(root / f"shapes-v1{suffix}.safetensors", lambda: _draw(drawing))
    data = [parts[f"{part}_{kind}"] for part in ("pool", "test") for kind in ("images", "labels")]
    names = shapes.classes_by(spec.by)[0]
    noun = "" if "figure" in spec.by else " shape"
    # A crop enlarges what it shows: a small one could make a small figure big.
    augmentation = Augmentation(scale=(0.8 if "size" in spec.by else 0.5, 1.0))
    return make_dataset(
        "shapes",
        *data,
        classnames=[names[c] for c in _chosen_classes(spec).tolist()],
        templates=(f"a photo of a {{}}{noun}.",),
        augmentation=augmentation,
        student="tiny-resnet",
    )


def _draw(spec: TaskSpec) -> Parts:
    """Draw pool and test set; the test set is as large for every class, however rare."""
    chosen, parts = _chosen_classes(spec), {}
    count, seed = SHAPES_PARTS["test"]
    test = alterations.class_sizes(count, spec.num_classes)
    drawn = {"pool": (_sizes(spec), SHAPES_PARTS["pool"][1]), "test": (test, seed)}
    for part, (sizes, seed) in drawn.items():
        domain = shapes.SHIFTS[spec.shift]
        images, labels = shapes.make_task(spec.by, chosen, sizes, seed, domain)
        parts |= {f"{part}_images": images, f"{part}_labels": labels}
    return parts


def _stored(path: Path, draw: Callable[[], Parts]) -> Parts:
    """Return what is stored, or draw and store it."""
    if (parts := _read(path)) is None:
        with folder_lock(make_folder(path.parent)):
            remove_partials(path.parent, path.name)
            parts = _read(path)  # another process may have made it
            if parts is None:
                parts = draw()
                checksum = torch.tensor(_checksum(parts), dtype=torch.uint8)
                write_atomic(path, save(parts | {"sha256": checksum}))
    return parts


def _read(path: Path) -> Parts | None:
    """Return the images and labels, or None if the file is missing, incomplete or altered."""
    try:
        parts = load_file(path)
    except (FileNotFoundError, SafetensorError):
        return None
    found = parts.pop("sha256", torch.empty(0)).tolist()
    return parts if found == _checksum(parts) else None


def _checksum(parts: Parts) -> list[int]:
    """Return the sha256 of all names, types, shapes and values as 32 bytes."""
    digest = hashlib.sha256()
    for name, values in sorted(parts.items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.view(torch.uint8).numpy())
    return list(digest.digest())


FAMILIES = {"digits": _digits, "shapes": _shapes}
EMBEDDED = tuple(FAMILIES)
