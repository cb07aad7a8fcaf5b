"""A `Source`: the image files of a data set and their labels. Nothing is decoded here."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from activekd_lite.utils.images import SUFFIXES
from activekd_lite.utils.photos import File

Part = tuple[list[File], list[int]]  # files and labels


@dataclass(frozen=True)
class Source:
    """The files and labels of a data set.

    pool, test: label c stands for classnames[c], -1 for an unknown class.
    templates: prompts with {} for the class name.
    Raises ValueError if the pool or the test set is empty.
    """

    name: str
    pool: Part
    test: Part
    classnames: list[str]
    templates: Sequence[str] = ("a photo of a {}.",)

    def __post_init__(self):
        if not self.pool[0] or not self.test[0]:
            raise ValueError(
                f"{self.name} has {len(self.pool[0])} images in the pool and {len(self.test[0])} "
                "in the test set; each needs at least one: the student is trained on the pool "
                "and measured on the test set"
            )


def hold_out_test(part: Part, classes: Sequence[str], place: object) -> list[Part]:
    """Split one part into a pool and a test set.

    A fifth of the labelled images of each class, drawn with seed 0, becomes the test set.
    Images without a label stay in the pool.
    place: names the source in the error message.
    Raises ValueError for a class with fewer than two labelled images.
    """
    from sklearn.model_selection import train_test_split  # slow

    files, labels = part[0], np.array(part[1])
    known = np.flatnonzero(labels >= 0)
    counts = np.bincount(labels[known], minlength=len(classes))
    if small := [name for name, count in zip(classes, counts, strict=True) if count < 2]:
        raise ValueError(
            f"{place} has no test set, and these classes have fewer than 2 labelled images, so "
            f"none can be held out for testing: {', '.join(small)}; add images or a test set"
        )
    count = max(len(classes), round(len(known) / 5))
    _, test = train_test_split(known, test_size=count, random_state=0, stratify=labels[known])
    pool = np.setdiff1d(np.arange(len(files)), test)
    return [([files[i] for i in rows], labels[rows].tolist()) for rows in (pool, np.sort(test))]


def subfolders(path: Path) -> list[str]:
    """Return the sorted names of the visible folders in `path`; [] if `path` is not a folder."""
    inside = path.iterdir() if path.is_dir() else ()
    return sorted(d.name for d in inside if d.is_dir() and not d.name.startswith("."))


def images_in_classes(folder: Path, classes: Sequence[str]) -> Part:
    """Return the image files below each class folder, ordered by class and name, with labels."""
    found = [_images_below(folder / name) for name in classes]
    labels = [label for label, paths in enumerate(found) for _ in paths]
    return [path for paths in found for path in paths], labels


def _images_below(top: Path) -> list[Path]:
    """Return all image files at any depth, sorted. Hidden files and folders are skipped."""
    files = (p for p in top.rglob("*") if p.suffix.lower() in SUFFIXES and not p.is_dir())
    return sorted(p for p in files if not any(s.startswith(".") for s in p.relative_to(top).parts))


def path_inside(folder: Path, path: str, file: Path) -> Path:
    """Return folder / path.

    file: the list that contains the path, named in the error message.
    Raises ValueError if the path leads out of the folder.
    """
    inner = os.path.normpath(path)
    if os.path.isabs(path) or inner in (".", "..") or inner.startswith(".." + os.sep):
        raise ValueError(
            f"{file} names {path!r}, which lies outside {folder}; give a path inside that folder"
        )
    return folder / inner


def readable(name: str) -> str:
    """Return a class name as it is written in a prompt: "red_panda" becomes "red panda"."""
    return name.replace("_", " ")


def unique_names(names: Sequence[str]) -> list[str]:
    """Append the class number to every repeated class name."""
    first = {}
    return [
        name if first.setdefault(name, i) == i else f"{name} {i}" for i, name in enumerate(names)
    ]
