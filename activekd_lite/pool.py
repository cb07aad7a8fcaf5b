"""The objects that flow: a pool of images without labels, the oracle who knows them, what is labelled, what is predicted.

Every index is a pool index: an image keeps its number 0..N-1 for the whole experiment, whatever is labelled.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from activekd_lite.utils.checks import class_numbers
from activekd_lite.utils.images import RENDERING, ImageFiles
from activekd_lite.utils.views import Augmentation


def check_images(images: "Tensor | ImageFiles", part: str) -> None:
    """Raises ValueError for anything but (N, 3, H, W) torch.uint8."""
    if not isinstance(images, Tensor | ImageFiles):
        raise ValueError(
            f"{part} images are a {type(images).__name__}; one tensor or array (N, 3, H, W) of uint8 is needed: "
            "torch.stack or np.stack makes one of a list"
        )
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        recipe = (
            "images.permute(0, 3, 1, 2) puts channels first"
            if images.shape[-1] == 3
            else "0 to 255, channels first"
        )
        raise ValueError(
            f"{part} images are {tuple(images.shape)} {images.dtype}; (N, 3, H, W) torch.uint8 is needed: {recipe}"
        )


def check_indices(indices: Tensor, size: int, what: str) -> None:
    """Raises ValueError for anything but pool indices, integers from 0 to size - 1; torch counts negative ones from the end.

    what: says who names them, at the start of the message.
    """
    if indices.is_floating_point() or indices.dtype in (
        torch.bool,
        torch.uint8,
    ):  # to torch uint8 is a mask
        raise ValueError(
            f"{what} {indices.dtype} numbers; pool indices are needed, integers from 0 to {size - 1}"
        )
    if wrong := indices[(indices < 0) | (indices >= size)].tolist():
        raise ValueError(
            f"{what} {wrong[0]}, which is no pool index: the pool has {size} images, 0 to {size - 1}"
        )


def images_sha256(images: "Tensor | ImageFiles") -> str:
    """Over shape and pixels, or files, which are read once: equal only for the same images in the same order."""
    if isinstance(images, ImageFiles):
        return images.fingerprint()
    digest = hashlib.sha256(str(tuple(images.shape)).encode())
    digest.update(np.ascontiguousarray(images.cpu().numpy()))
    return digest.hexdigest()


@dataclass(frozen=True)
class Pool:
    """N images and the names of the classes they may belong to; no labels.

    images: (N, 3, H, W) uint8, in memory or files; augmentation: what may be done to an image without changing its class.
    """

    images: Tensor | ImageFiles
    classnames: tuple[str, ...]
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self):
        object.__setattr__(self, "classnames", tuple(self.classnames))
        check_images(self.images, "pool")
        if len(set(self.classnames)) < len(self.classnames):
            twice = sorted({c for c in self.classnames if self.classnames.count(c) > 1})
            raise ValueError(f"class names {twice} occur twice; each class needs a name of its own")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        return len(self.classnames)

    def fingerprint(self) -> str:
        """See `images_sha256`."""
        return images_sha256(self.images)

    def identity(self) -> dict[str, str]:
        """The fingerprint and, of files, how they become pixels, JSON-ready: what features of the pool depend on."""
        rendering = {"rendering": RENDERING} if isinstance(self.images, ImageFiles) else {}
        return {"pool": self.fingerprint()} | rendering


class Oracle:
    """Knows the true labels of pool images, -1 where there is none; `label` is the only way to see one."""

    def __init__(self, labels: Tensor, num_classes: int):
        labels = class_numbers(labels)
        if len(labels) and not (-1 <= int(labels.min()) and int(labels.max()) < num_classes):
            raise ValueError(
                f"labels run from {int(labels.min())} to {int(labels.max())}, but there are {num_classes} class names "
                f"(0..{num_classes - 1}); give one name for each label"
            )
        self._labels, self.num_classes = labels, num_classes

    @property
    def unknown_count(self) -> int:
        """How many images have no label."""
        return int((self._labels < 0).sum())

    @property
    def known(self) -> Tensor:
        """Which images have a label: (N,) bool."""
        return self._labels >= 0

    def label(self, indices: Tensor) -> Tensor:
        """indices: (Q,) pool indices; returns their classes (Q,) int64. Raises ValueError for images without a label, and for
        indices outside the pool."""
        indices = torch.as_tensor(indices)
        check_indices(indices, len(self._labels), "the oracle was asked for")
        labels = self._labels[indices]
        if unknown := indices[labels < 0].tolist():
            raise ValueError(
                f"{len(unknown)} of {len(labels)} images asked for have no label, first at pool index {unknown[0]}; label them "
                "in the CSV file, or leave images without a label out of the pool"
            )
        return labels

    def fingerprint(self) -> str | None:
        """sha256 of all labels, for telling whether they changed. None where a subclass has a `label` of its own: nobody knows
        what a person is going to say; one that does know may say so here."""
        if type(self).label is not Oracle.label:
            return None
        return hashlib.sha256(self._labels.cpu().numpy()).hexdigest()

    def initial_indices(self, shots: int, generator: torch.Generator) -> Tensor:
        """`shots` images of each class, drawn at random: what a person would pick out by hand before the first round.

        Returns (shots * C,) pool indices. Raises ValueError for a class with fewer than `shots` images.
        """
        if shots < 1:
            raise ValueError(
                f"shots = {shots}: the first student needs at least 1 labelled image of each class"
            )
        order = torch.randperm(len(self._labels), generator=generator)
        chosen = []
        for c in range(self.num_classes):
            members = order[self._labels[order] == c]
            if len(members) < shots:
                raise ValueError(
                    f"class {c} has {len(members)} images in the pool, fewer than shots = {shots}"
                )
            chosen.append(members[:shots])
        return torch.cat(chosen)


@dataclass(frozen=True)
class LabelState:
    """What is labelled, and since when. Never changed: `with_labels` returns a new one.

    labeled_round: (N,) int16, -1 = unlabelled, 0 = the initial set; labels: (N,) int64, -1 = unknown.
    """

    labeled_round: Tensor
    labels: Tensor

    @classmethod
    def empty(cls, size: int) -> "LabelState":
        return cls(
            torch.full((size,), -1, dtype=torch.int16), torch.full((size,), -1, dtype=torch.int64)
        )

    def with_labels(self, indices: Tensor, labels: Tensor, round: int) -> "LabelState":
        """indices: (Q,) unlabelled pool indices, labels: (Q,) classes.

        Raises ValueError if one is labelled already or outside the pool, and for labels of another shape, that are no whole
        numbers, or below 0.
        """
        indices, labels = torch.as_tensor(indices), class_numbers(labels)
        check_indices(indices, len(self.labels), "labels were given for")
        if len(labels) != len(indices):
            raise ValueError(
                f"{len(indices)} images but {len(labels)} labels; give one label for each image"
            )
        if (labels < 0).any():
            raise ValueError(
                f"labels {labels.tolist()}: a class is 0 or more; leave images without a label out"
            )
        again = indices[self.labels[indices] >= 0]
        if len(again) or len(indices.unique()) < len(indices):
            raise ValueError(
                f"images {again.tolist() or indices.tolist()} are labelled already or named twice"
            )
        labeled_round, known = self.labeled_round.clone(), self.labels.clone()
        labeled_round[indices], known[indices] = round, labels
        return LabelState(labeled_round, known)

    @property
    def labeled_indices(self) -> Tensor:
        """(L,) pool indices, ascending."""
        return torch.nonzero(self.labels >= 0).flatten()

    def in_labeling_order(self) -> Tensor:
        """(L,) pool indices: those of the initial set, then each round's, ascending within a round."""
        labeled = self.labeled_indices
        return labeled[self.labeled_round[labeled].argsort(stable=True)]

    @property
    def unlabeled_indices(self) -> Tensor:
        """(N - L,) pool indices, ascending."""
        return torch.nonzero(self.labels < 0).flatten()


@dataclass(frozen=True)
class Predictions:
    """The current student over the whole pool, in pool order: probs (N, C), rows sum to 1, and features (N, F); and where there
    is one the teacher's teacher_probs (N, C). Before there is a student, the teacher's probabilities and features are both.

    ce_probs, kd_probs: (N, C), what each head answers alone; None where it is not known, kd_probs also without a teacher.
    Each takes as much memory as probs, except that ce_probs is the same tensor as probs where kd_weight is 0.

    Raises ValueError for NaN, for numbers of rows that differ, and for probabilities that are negative or do not sum to 1.
    """

    probs: Tensor
    features: Tensor
    teacher_probs: Tensor | None = None
    ce_probs: Tensor | None = None
    kd_probs: Tensor | None = None

    def __post_init__(self):
        parts = {
            "probs": self.probs,
            "features": self.features,
            "teacher_probs": self.teacher_probs,
        }
        parts |= {"ce_probs": self.ce_probs, "kd_probs": self.kd_probs}
        parts = {name: values for name, values in parts.items() if values is not None}
        for name, values in parts.items():
            if values.ndim != 2 or not values.is_floating_point():
                raise ValueError(
                    f"{name} are {tuple(values.shape)} {values.dtype}; floats, one row per image, are needed: 2-D"
                )
        if len({len(values) for values in parts.values()}) > 1:
            raise ValueError(
                f"as many rows in each are needed: {', '.join(f'{k} {tuple(v.shape)}' for k, v in parts.items())}"
            )
        for name, values in parts.items():
            _check_finite(name, values)
            if name != "features":
                _check_probabilities(name, values)


def _check_finite(name: str, values: Tensor) -> None:
    """values: (N, ...). Looks for the images to name only where the extremes are not finite."""
    if values.numel() == 0 or all(torch.isfinite(extreme) for extreme in values.aminmax()):
        return
    bad = ~torch.isfinite(values).all(dim=1)
    raise ValueError(
        f"{name} of {int(bad.sum())} images are NaN or infinite, first at pool index {int(bad.float().argmax())}; "
        "the training diverged (lower lr) or an image is damaged"
    )


def _check_probabilities(name: str, probs: Tensor) -> None:
    """probs: (N, C), finite; sums may be off by what float16 and bfloat16 round."""
    sums = probs.sum(dim=1, dtype=torch.promote_types(probs.dtype, torch.float32))
    bad = (sums - 1).abs() > 0.01
    if len(probs) and probs.min() < 0:
        bad |= (probs < 0).any(dim=1)
    if bad.any():
        first = int(bad.float().argmax())
        raise ValueError(
            f"{name} of {int(bad.sum())} images are no probabilities, first at pool index {first}, where they sum to "
            f"{float(sums[first]):.4g} and the smallest is {float(probs[first].min()):.3g}; of logits take .softmax(dim=1)"
        )


@dataclass(frozen=True)
class TestSet:
    """Held-out images (M, 3, H, W) uint8, in memory or files, with labels (M,) int64: for measuring, never for selection."""

    __test__ = False  # not a test case, whatever pytest makes of the name
    images: Tensor | ImageFiles
    labels: Tensor

    def __post_init__(self):
        check_images(self.images, "test")
        if len(self.images) == 0:
            raise ValueError(
                "the test set has no images; accuracy is measured on them: give at least one, with its label"
            )

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> dict[str, str]:
        """sha256 of the images (files are read once) and of the labels."""
        labels = hashlib.sha256(self.labels.cpu().numpy()).hexdigest()
        return {"images": images_sha256(self.images), "labels": labels}


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


def make_dataset(
    name: str,
    images: Tensor | ImageFiles,
    labels: Sequence[int],
    test_images: Tensor | ImageFiles,
    test_labels: Sequence[int],
    classnames: Sequence[str],
    templates: Sequence[str] = ("a photo of a {}.",),
    augmentation: Augmentation | None = None,
    student: str = "tiny-resnet",
) -> Dataset:
    """A data set from tensors or numpy arrays: images (N, 3, H, W) uint8, labels (N,) positions in `classnames`.

    A pool label of -1 is not known. Raises ValueError when images, labels and class names do not fit together.
    """
    images, test_images = (
        torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in (images, test_images)
    )
    for part, x, y in (("pool", images, labels), ("test", test_images, test_labels)):
        if len(x) != len(y):
            raise ValueError(
                f"{part}: {len(x)} images but {len(y)} labels; give one label for each image"
            )
    pool = Pool(images, tuple(classnames), augmentation or Augmentation())
    test_oracle = Oracle(test_labels, len(classnames))  # checks their range
    test = TestSet(
        test_images, test_oracle.label(torch.arange(len(test_images)))
    )  # and that each has one
    return Dataset(name, pool, Oracle(labels, len(classnames)), test, tuple(templates), student)
