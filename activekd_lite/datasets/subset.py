"""A part of a data set: some of its classes."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from activekd_lite.pool import Dataset, Oracle, TestSet
from activekd_lite.utils.images import ImageFiles


def only_classes(data: Dataset, classes: Sequence[str | int]) -> tuple[Dataset, Tensor]:
    """Restrict a data set to some of its classes, given by name or position, in this order.

    Images of other classes and images without a label are left out of pool and test set.
    Returns the data set and the old pool indices (n,) of the images that it kept, ascending.
    Raises ValueError for an unknown or repeated class, and if no test image is left.
    """
    names = [c if isinstance(c, str) else data.classnames[int(c)] for c in classes]
    if not names or len({*names}) < len(names) or not {*names} <= {*data.classnames}:
        known = ", ".join(data.classnames[:20]) + (", ..." if len(data.classnames) > 20 else "")
        raise ValueError(f"classes {names}: expected different names of {known}")
    numbers = torch.full((data.pool.num_classes,), -1)
    numbers[[data.classnames.index(name) for name in names]] = torch.arange(len(names))
    known = torch.nonzero(data.oracle.known).flatten()
    labels = numbers[data.oracle.label(known)]
    kept, test_labels = known[labels >= 0], numbers[data.test.labels]
    pool = replace(data.pool, images=_rows_of(data.pool.images, kept), classnames=tuple(names))
    tested = torch.nonzero(test_labels >= 0).flatten()
    test = TestSet(_rows_of(data.test.images, tested), test_labels[tested])
    oracle = Oracle(labels[labels >= 0], len(names))
    name = f"{data.name} ({', '.join(names)})"
    return replace(data, name=name, pool=pool, oracle=oracle, test=test), kept


def _rows_of(images: Tensor | ImageFiles, rows: Tensor) -> Tensor | ImageFiles:
    return images.part(rows) if isinstance(images, ImageFiles) else images[rows]
