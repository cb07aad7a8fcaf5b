"""`load_dataset`: from a name to images, oracle, test set, class names and prompts."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from activekd_lite.datasets.embedded import EMBEDDED, load_task
from activekd_lite.datasets.paper import LAYOUTS
from activekd_lite.datasets.sources import KINDS, find, short_name
from activekd_lite.datasets.spec import EXAMPLE, parse
from activekd_lite.pool import Dataset, Oracle, make_dataset
from activekd_lite.utils.images import SIDE, read_images
from activekd_lite.utils.seeding import generator

EXAMPLES = {prefix: kind.example for prefix, kind in KINDS.items()}
EXAMPLES |= {"torchvision": "torchvision:CIFAR10"}


def load_dataset(
    name: str = "digits",
    root: str | os.PathLike = "data",
    *,
    cache_root: str | os.PathLike = ".cache",
    side: int = SIDE,
    pool_size: int | None = None,
    pool_seed: int = 0,
    pool_shots: int = 0,
    budget_bytes: int = 2**31,
) -> Dataset:
    """Load a data set by name. Nothing is downloaded.

    Parameters
    ----------
    name
        An embedded data set ("digits" or "shapes"), a task made from one ("shapes?by=figure", see
        `docs/tasks.md`), one of the paper's eleven (`LAYOUTS`), or a
        source such as "folder:/my/images": a prefix of `sources.KINDS` and what its file says, or
        "torchvision:CIFAR10". `docs/data-and-models.md` lists all of them.
    root
        Folder of the paper's and torchvision's data sets.
    cache_root
        Folder where the generated images of `shapes` are stored.
    side
        Shorter side, in pixels, to which photographs are reduced for the student; never enlarged.
        Small squares of one size, such as CIFAR's, stay as they are.
    pool_size
        Size of a random subset of the pool, which keeps the pool's order; None takes all of it.
    pool_seed
        Seed of that subset.
    pool_shots
        Images per class that are added to the subset. For each seed, the paper takes 100,000
        images of ImageNet and one more per class.
    budget_bytes
        The pool and the test set are each held in memory if they fit into this; otherwise images
        are decoded whenever they are needed. The pixels are the same.

    Raises
    ------
    ValueError
        For an unknown name or setting, unreadable images, or a `pool_size` larger than the pool.
    FileNotFoundError
        For missing files.
    ImportError
        If "hf:" lacks its package (`pip install -e '.[hf]'`).
    """
    check_name(name)
    if spec := parse(name):
        return _subset(load_task(spec, Path(cache_root)), pool_size, pool_seed, pool_shots)
    choose = partial(
        subset_indices, pool_size=pool_size, pool_seed=pool_seed, pool_shots=pool_shots
    )
    if name.startswith("torchvision:"):
        from activekd_lite.datasets.torchvision_sets import from_torchvision  # slow

        kind = name.removeprefix("torchvision:")
        return from_torchvision(kind, Path(root), side, choose, budget_bytes)
    source = find(name, root)
    chosen = choose(source.pool[1]).tolist()
    files, labels = ([part[i] for i in chosen] for part in source.pool)
    images = read_images(files, side, budget_bytes, check=False)
    test_files, test_labels = source.test
    test = read_images(test_files, side, budget_bytes), test_labels
    return make_dataset(source.name, images, labels, *test, source.classnames, source.templates)


def check_name(name: str) -> None:
    """Raise ValueError unless `name` is of a known kind. Whether the files exist is not checked."""
    if parse(name) or name in LAYOUTS:
        return
    family = name.partition("?")[0]
    if family != name and family in LAYOUTS:
        raise ValueError(
            f"data set {name!r}: only {' and '.join(EMBEDDED)} take settings, as in {EXAMPLE!r}; "
            f"write {family!r}"
        )
    prefix, colon, where = name.partition(":")
    if not colon or prefix not in EXAMPLES:
        raise ValueError(
            f"unknown data set {name!r}; {_guess(name)}choose {', '.join([*EMBEDDED, *LAYOUTS])}, "
            f"or a source such as {', '.join(EXAMPLES.values())}"
        )
    nameless = not where or not short_name(name).strip(". ")
    if nameless or (prefix == "torchvision" and not where.isidentifier()):
        raise ValueError(
            f"data set {name!r} names nothing that can be read; write it like {EXAMPLES[prefix]}"
        )


def _guess(name: str) -> str:
    """Return a suggestion for a path without its prefix."""
    is_path = "/" in name or "\\" in name or name.startswith((".", "~")) or Path(name).exists()
    prefix = "csv" if name.endswith(".csv") else "folder"
    return f"did you mean '{prefix}:{name}'? " if is_path else ""


def subset_indices(
    labels: Sequence[int], pool_size: int | None, pool_seed: int = 0, pool_shots: int = 0
) -> Tensor:
    """Draw `pool_size` pool indices at random and `pool_shots` more per class.

    labels: (N,), -1 for unknown. Returns ascending indices, all N if pool_size is None.
    Raises ValueError if the pool is too small.
    """
    labels = torch.as_tensor(labels, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=generator(pool_seed, "part of the pool"))
    if pool_size is None:
        return order.sort().values
    classes = labels.unique()[labels.unique() >= 0].tolist() if pool_shots else []
    shots = torch.cat([order[:0], *(order[labels[order] == c][:pool_shots] for c in classes)])
    most = len(labels) - len(shots)
    if not 1 <= pool_size <= most:
        shots_text = f" in addition to {pool_shots} per class" if pool_shots else ""
        raise ValueError(
            f"pool_size = {pool_size}, but the data set has {most} images to draw from"
            f"{shots_text}; choose 1 to {most}"
        )
    rest = order[~torch.isin(order, shots)]
    return torch.cat([shots, rest[:pool_size]]).sort().values


def _subset(data: Dataset, pool_size: int | None, pool_seed: int, pool_shots: int) -> Dataset:
    if pool_size is None:
        return data
    labels = data.oracle.label(torch.arange(len(data.pool)))
    chosen = subset_indices(labels, pool_size, pool_seed, pool_shots)
    oracle = Oracle(labels[chosen], data.pool.num_classes)
    return replace(data, pool=replace(data.pool, images=data.pool.images[chosen]), oracle=oracle)
