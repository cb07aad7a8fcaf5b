"""The objects that flow through a run: a pool of images without labels, the oracle that knows them,
what is labelled, and what is predicted.

Every index is a pool index: an image keeps its number 0..N-1 throughout an experiment.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from activekd_lite.utils.check_tensors import (
    check_finite,
    check_images,
    check_indices,
    check_probabilities,
)
from activekd_lite.utils.checks import class_numbers
from activekd_lite.utils.hashing import tensor_sha256
from activekd_lite.utils.images import RENDERING, ImageFiles
from activekd_lite.utils.views import Augmentation


def images_sha256(images: Tensor | ImageFiles) -> str:
    """Return the sha256 of shape and pixels, or of the files, which are read once."""
    if isinstance(images, ImageFiles):
        return images.fingerprint()
    digest = hashlib.sha256(str(tuple(images.shape)).encode())
    pixels: Any = np.ascontiguousarray(images.cpu().numpy())
    digest.update(pixels)
    return digest.hexdigest()


@dataclass(frozen=True)
class Pool:
    """N images and the names of the classes they may belong to; no labels.

    images: (N, 3, H, W) uint8, in memory or files.
    augmentation: what may be done to an image without changing its class.
    """

    images: Tensor | ImageFiles
    classnames: tuple[str, ...]
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self):
        object.__setattr__(self, "classnames", tuple(self.classnames))
        check_images(self.images, "pool")
        if len(set(self.classnames)) < len(self.classnames):
            twice = sorted({c for c in self.classnames if self.classnames.count(c) > 1})
            raise ValueError(f"class names {twice} occur twice; each class needs its own name")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        return len(self.classnames)

    def fingerprint(self) -> str:
        """See `images_sha256`."""
        return images_sha256(self.images)

    def identity(self) -> dict[str, str]:
        """Return what features of the pool depend on: fingerprint, and how files are decoded."""
        rendering = {"rendering": RENDERING} if isinstance(self.images, ImageFiles) else {}
        return {"pool": self.fingerprint()} | rendering


class Oracle:
    """Knows the true labels of pool images, -1 for unknown; `label` is the only way to see one."""

    def __init__(self, labels: Tensor | Sequence[int], num_classes: int):
        labels = class_numbers(labels)
        if len(labels) and not (-1 <= int(labels.min()) and int(labels.max()) < num_classes):
            raise ValueError(
                f"labels run from {int(labels.min())} to {int(labels.max())}, but there are "
                f"{num_classes} class names (0..{num_classes - 1}); give one name per label"
            )
        self._labels, self.num_classes = labels, num_classes

    @property
    def unknown_count(self) -> int:
        """Number of images without a label."""
        return int((self._labels < 0).sum())

    @property
    def known(self) -> Tensor:
        """Which images have a label: (N,) bool."""
        return self._labels >= 0

    def label(self, indices: Tensor) -> Tensor:
        """Return the classes (Q,) int64 of pool indices (Q,).

        Raises ValueError for images without a label and for indices outside the pool.
        """
        indices = torch.as_tensor(indices)
        check_indices(indices, len(self._labels), "the oracle was asked for")
        labels = self._labels[indices]
        if unknown := indices[labels < 0].tolist():
            raise ValueError(
                f"{len(unknown)} of {len(labels)} images asked for have no label, first at pool "
                f"index {unknown[0]}; label them in the CSV file, or leave images without a label "
                "out of the pool"
            )
        return labels

    def fingerprint(self) -> str | None:
        """Return the sha256 of all labels, to tell whether they changed.

        None if a subclass has a `label` of its own, since a person's answers are not known yet.
        """
        if type(self).label is not Oracle.label:
            return None
        return tensor_sha256(self._labels)

    def initial_indices(self, shots: int, generator: torch.Generator) -> Tensor:
        """Draw `shots` images per class at random, to start with: (shots * C,) pool indices.

        Raises ValueError for a class with fewer than `shots` images.
        """
        if shots < 1:
            raise ValueError(
                f"shots = {shots}: the first student needs at least 1 labelled image per class"
            )
        order = torch.randperm(len(self._labels), generator=generator)
        chosen = []
        for c in range(self.num_classes):
            members = order[self._labels[order] == c]
            if len(members) < shots:
                raise ValueError(f"class {c} has {len(members)} pool images, fewer than {shots = }")
            chosen.append(members[:shots])
        return torch.cat(chosen)


@dataclass(frozen=True)
class LabelState:
    """What is labelled, and since which round. Immutable: `with_labels` returns a new one.

    labeled_round: (N,) int16, -1 = unlabelled, 0 = the initial set.
    labels: (N,) int64, -1 = unknown.
    """

    labeled_round: Tensor
    labels: Tensor

    @classmethod
    def empty(cls, size: int) -> "LabelState":
        nothing = torch.full((size,), -1)
        return cls(nothing.to(torch.int16), nothing)

    def with_labels(self, indices: Tensor, labels: Tensor, round: int) -> "LabelState":
        """Add labels (Q,) of unlabelled pool indices (Q,).

        Raises ValueError for an image that is labelled already, named twice or outside the pool,
        and for labels that are not whole numbers of 0 or more, one per image.
        """
        indices, labels = torch.as_tensor(indices), class_numbers(labels)
        check_indices(indices, len(self.labels), "labels were given for")
        if len(labels) != len(indices):
            raise ValueError(
                f"{len(indices)} images but {len(labels)} labels; give one label per image"
            )
        if (labels < 0).any():
            raise ValueError(
                f"labels {labels.tolist()}: a class is 0 or more; leave out images without a label"
            )
        again = indices[self.labels[indices] >= 0]
        if len(again) or len(indices.unique()) < len(indices):
            named = again.tolist() or indices.tolist()
            raise ValueError(f"images {named} are labelled already or named twice")
        labeled_round, known = self.labeled_round.clone(), self.labels.clone()
        labeled_round[indices], known[indices] = round, labels
        return LabelState(labeled_round, known)

    @property
    def labeled_indices(self) -> Tensor:
        """(L,) pool indices, ascending."""
        return torch.nonzero(self.labels >= 0).flatten()

    def in_labeling_order(self) -> Tensor:
        """Return (L,) pool indices: the initial set, then each round's, ascending in a round."""
        labeled = self.labeled_indices
        return labeled[self.labeled_round[labeled].argsort(stable=True)]

    @property
    def unlabeled_indices(self) -> Tensor:
        """(N - L,) pool indices, ascending."""
        return torch.nonzero(self.labels < 0).flatten()


@dataclass(frozen=True)
class Predictions:
    """The current student's predictions for the whole pool, in pool order.

    probs: (N, C), rows sum to 1. features: (N, F). teacher_probs: (N, C), or None.
    ce_probs, kd_probs: (N, C), each head alone, or None if not known (kd: without a teacher).
    Before there is a student, probs and features are the teacher's.

    Raises ValueError for NaN, different numbers of rows, and rows that are not probability
    distributions.
    """

    probs: Tensor
    features: Tensor
    teacher_probs: Tensor | None = None
    ce_probs: Tensor | None = None
    kd_probs: Tensor | None = None

    def __post_init__(self):
        parts = {name: values for name, values in vars(self).items() if values is not None}
        for name, values in parts.items():
            if values.ndim != 2 or not values.is_floating_point():
                raise ValueError(
                    f"{name} are {tuple(values.shape)} {values.dtype}; 2-D floats are needed, one "
                    "row per image"
                )
        if len({len(values) for values in parts.values()}) > 1:
            shapes = ", ".join(f"{name} {tuple(values.shape)}" for name, values in parts.items())
            raise ValueError(f"all tensors need the same number of rows; got {shapes}")
        for name, values in parts.items():
            check_finite(name, values)
            if name != "features":
                check_probabilities(name, values)


@dataclass(frozen=True)
class TestSet:
    """Held-out images for measuring, never for selection.

    images: (M, 3, H, W) uint8, in memory or files. labels: (M,) int64.
    """

    __test__ = False  # tells pytest that this is not a test case
    images: Tensor | ImageFiles
    labels: Tensor

    def __post_init__(self):
        check_images(self.images, "test")
        if len(self.images) == 0:
            raise ValueError(
                "the test set has no images; accuracy is measured on them: give at least one, with "
                "its label"
            )

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> dict[str, str]:
        """Return the sha256 of the images (files are read once) and of the labels."""
        return {"images": images_sha256(self.images), "labels": tensor_sha256(self.labels)}


@dataclass(frozen=True)
class Dataset:
    """The data of an experiment. student: name of the default student for these images."""

    name: str
    pool: Pool
    oracle: Oracle
    test: TestSet
    templates: tuple[str, ...]
    student: str

    @property
    def classnames(self) -> tuple[str, ...]:
        return self.pool.classnames


def make_dataset(
    name: str,
    images: Tensor | ImageFiles | np.ndarray,
    labels: Sequence[int],
    test_images: Tensor | ImageFiles | np.ndarray,
    test_labels: Sequence[int],
    classnames: Sequence[str],
    templates: Sequence[str] = ("a photo of a {}.",),
    augmentation: Augmentation | None = None,
    student: str = "tiny-resnet",
) -> Dataset:
    """Make a data set from images (N, 3, H, W) uint8 and labels (N,), positions in `classnames`.

    A pool label of -1 is unknown. Raises ValueError if images, labels and class names do not fit
    together.
    """
    both = (images, test_images)
    images, test_images = (torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in both)
    for part, x, y in (("pool", images, labels), ("test", test_images, test_labels)):
        if len(x) != len(y):
            raise ValueError(f"{part}: {len(x)} images but {len(y)} labels; give one per image")
    pool = Pool(images, tuple(classnames), augmentation or Augmentation())
    test_oracle = Oracle(test_labels, len(classnames))  # checks their range
    test = TestSet(test_images, test_oracle.label(torch.arange(len(test_images))))
    oracle = Oracle(labels, len(classnames))
    return Dataset(name, pool, oracle, test, tuple(templates), student)
