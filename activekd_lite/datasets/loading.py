"""A name -> images, oracle, test set, class names and prompts. Nothing is downloaded here.

`digits`: scikit-learn's copy of the UCI handwritten digits (Alpaydin and Kaynak 1998), 1,797 real 8 x 8 images.
`shapes`: 36 generated classes, see `shapes.py`.
Any other is made of files or comes from Hugging Face `datasets`, see `sources.py`, or from torchvision.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from activekd_lite.datasets.embedded import EMBEDDED
from activekd_lite.datasets.paper import LAYOUTS
from activekd_lite.datasets.sources import KINDS, find, short_name
from activekd_lite.pool import Dataset, Oracle, make_dataset
from activekd_lite.utils.images import SIDE, read_images
from activekd_lite.utils.seeding import generator

TORCHVISION = "torchvision:CIFAR10"  # an example


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
    choose = partial(part_of, pool_size=pool_size, pool_seed=pool_seed, pool_shots=pool_shots)
    if name.startswith("torchvision:"):
        from activekd_lite.datasets.torchvision_sets import from_torchvision  # slow to import

        return from_torchvision(
            name.removeprefix("torchvision:"), Path(root), side, choose, budget_bytes
        )
    source = find(name, root)
    chosen = choose(source.pool[1])
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
    examples = {kind: of.example for kind, of in KINDS.items()} | {"torchvision": TORCHVISION}
    if colon and kind in examples:
        if (
            not where
            or not short_name(name).strip(". ")
            or (kind == "torchvision" and not where.isidentifier())
        ):
            raise ValueError(
                f"data set {name!r} names nothing that can be read; give it as in {examples[kind]}"
            )
        return
    meant = (
        f"did you mean '{'csv' if name.endswith('.csv') else 'folder'}:{name}'? "
        if _is_path(name)
        else ""
    )
    known = ", ".join([*EMBEDDED, *LAYOUTS, *examples.values()])
    raise ValueError(f"unknown data set {name!r}; {meant}known are {known} and the like")


def _is_path(name: str) -> bool:
    return "/" in name or "\\" in name or name.startswith((".", "~")) or Path(name).exists()


def part_of(
    labels: Sequence[int], pool_size: int | None, pool_seed: int = 0, pool_shots: int = 0
) -> Tensor:
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
    chosen = part_of(labels, pool_size, pool_seed, pool_shots)
    oracle = Oracle(labels[chosen], data.pool.num_classes)
    return replace(data, pool=replace(data.pool, images=data.pool.images[chosen]), oracle=oracle)
