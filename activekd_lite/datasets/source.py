"""A `Source`: the files of a data set and their labels. Lists only, nothing is decoded."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from activekd_lite.utils.images import SUFFIXES
from activekd_lite.utils.photos import File


@dataclass(frozen=True)
class Source:
    """Files and labels of a data set; label -1: unknown. Label c is called classnames[c]."""

    name: str
    pool: tuple[list[File], list[int]]
    test: tuple[list[File], list[int]]
    classnames: list[str]
    templates: Sequence[str] = ("a photo of a {}.",)

    def __post_init__(self):
        if not self.pool[0] or not self.test[0]:
            raise ValueError(
                f"{self.name} has {len(self.pool[0])} images in the pool and {len(self.test[0])} for the test; at least one of "
                "each is needed: the student learns from the one and is measured on the other"
            )


def held_out(
    files: Sequence[File], labels: Sequence[int], classes: Sequence[str], where: object
) -> list[tuple[list, list]]:
    """Pool and test part: a fifth of each class, drawn with seed 0, becomes the test. What has no label stays in the pool."""
    labels = np.array(labels)
    known = np.flatnonzero(labels >= 0)
    if small := [
        c
        for c, n in zip(classes, np.bincount(labels[known], minlength=len(classes)), strict=True)
        if n < 2
    ]:
        raise ValueError(
            f"{where} has no test part, and fewer than 2 images, to hold one out, of: {', '.join(small)}"
        )
    count = max(len(classes), round(len(known) / 5))
    _, held = train_test_split(known, test_size=count, random_state=0, stratify=labels[known])
    kept = np.setdiff1d(np.arange(len(files)), held)
    return [([files[i] for i in part], labels[part].tolist()) for part in (kept, np.sort(held))]


def folders_in(path: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones, and those of no folder, are none."""
    return (
        sorted(d.name for d in path.iterdir() if d.is_dir() and not d.name.startswith("."))
        if path.is_dir()
        else []
    )


def files_in_classes(folder: Path, classes: Sequence[str]) -> tuple[list[Path], list[int]]:
    """Image files of the class folders, in order of class and name, and their labels. Hidden ones are left out."""

    def images(top: Path) -> list[Path]:
        inside = (p for p in top.rglob("*") if p.suffix.lower() in SUFFIXES and not p.is_dir())
        return sorted(
            p for p in inside if not any(part.startswith(".") for part in p.relative_to(top).parts)
        )

    found = [images(folder / c) for c in classes]
    return [path for paths in found for path in paths], [
        label for label, paths in enumerate(found) for _ in paths
    ]


def path_inside(folder: Path, path: str, file: Path) -> Path:
    """folder / path, or a ValueError for a path that leads out of the folder."""
    inner = os.path.normpath(path)
    if os.path.isabs(path) or inner in (".", "..") or inner.startswith(".." + os.sep):
        raise ValueError(
            f"{file} names {path!r}, which lies outside {folder}; paths have to stay inside it"
        )
    return folder / inner


def spoken(name: str) -> str:
    return name.replace("_", " ")


def distinct(words: Sequence[str]) -> list[str]:
    """Class names have to differ; a later one of the same name gets its number."""
    seen = {}
    return [
        word if seen.setdefault(word, i) == i else f"{word} {i}" for i, word in enumerate(words)
    ]
