"""The eleven data sets of the paper, laid out as in CoOp (Zhou et al. 2022, arXiv:2109.01134).

`data/README.md` says how to get each.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from activekd_lite.datasets.source import (
    Source,
    images_in_classes,
    path_inside,
    readable,
    unique_names,
)
from activekd_lite.utils.files import read_json


@dataclass(frozen=True)
class Layout:
    """Where the files of a data set are.

    folder: below the root. images: the folder, below `folder`, that the paths in the split file
    start from. split: the split file in `folder`. templates: prompts with {} for the class name.
    """

    folder: str
    images: str
    split: str
    templates: tuple[str, ...] = ("a photo of a {}.",)


# The short list that CLIP's authors recommend (arXiv:2103.00020); arXiv:2506.00910 uses it.
IMAGENET_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


def _coop_layout(folder: str, images: str, title: str, *templates: str) -> Layout:
    """Return the layout of a data set with one of CoOp's split files."""
    templates = templates or Layout.templates
    return Layout(folder, images, f"split_zhou_{title}.json", templates)


FLOWERS, PETS = "a photo of a {}, a type of flower.", "a photo of a {}, a type of pet."
AIRCRAFT = "a photo of a {}, a type of aircraft."
FOOD, ACTIONS = "a photo of {}, a type of food.", "a photo of a person doing {}."
LAYOUTS = {
    "caltech101": _coop_layout("caltech-101", "101_ObjectCategories", "Caltech101"),
    "dtd": _coop_layout("dtd", "images", "DescribableTextures", "{} texture."),
    "eurosat": _coop_layout("eurosat", "2750", "EuroSAT", "a centered satellite photo of {}."),
    "fgvc_aircraft": Layout("fgvc_aircraft", "images", "variants.txt", (AIRCRAFT,)),
    "food101": _coop_layout("food-101", "images", "Food101", FOOD),
    "flowers102": _coop_layout("oxford_flowers", "jpg", "OxfordFlowers", FLOWERS),
    "oxford_pets": _coop_layout("oxford_pets", "images", "OxfordPets", PETS),
    "stanford_cars": _coop_layout("stanford_cars", "", "StanfordCars"),
    "sun397": _coop_layout("sun397", "SUN397", "SUN397"),
    "ucf101": _coop_layout("ucf101", "UCF-101-midframes", "UCF101", ACTIONS),
    "imagenet": Layout("imagenet", "images", "classnames.txt", IMAGENET_TEMPLATES),
}
EXTRA_FILES = {
    "fgvc_aircraft": ["images_variant_train.txt", "images_variant_test.txt"],
    "imagenet": ["images/train", "images/val"],
}


def missing_parts(name: str, root: str | os.PathLike) -> list[Path]:
    """Return the files and folders of one of LAYOUTS that do not exist under `root`."""
    layout = LAYOUTS[name]
    parts = [layout.split, layout.images, *EXTRA_FILES.get(name, [])]
    paths = [Path(root) / layout.folder / part for part in parts if part]
    return [path for path in paths if not path.exists()]


def from_layout(name: str, root: Path) -> Source:
    """Return the files of one of LAYOUTS.

    Raises FileNotFoundError if some are missing, ValueError if a list of files is damaged.
    """
    layout = LAYOUTS[name]
    if missing := missing_parts(name, root):
        raise FileNotFoundError(
            f"{name} is incomplete: no {', '.join(str(path) for path in missing)}; data/README.md "
            "says how to get it and where its files belong"
        )
    special = {"fgvc_aircraft": _aircraft, "imagenet": _imagenet}
    return special.get(name, _coop)(name, root / layout.folder, layout)


def _coop(name: str, folder: Path, layout: Layout) -> Source:
    """Read a split file: {"train": [[path, label, class name], ...], "val": ..., "test": ...}.

    "val" is not used.
    """
    file = folder / layout.split
    split = read_json(file, "download it again")
    try:
        train, test = (
            [(str(path), int(label), str(word)) for path, label, word in split[part]]
            for part in ("train", "test")
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is not a split file of CoOp ({error!r}); download it again"
        ) from error
    classnames = _class_names(file, train + test)
    paths = [
        [path_inside(folder / layout.images, path, file) for path, _, _ in part]
        for part in (train, test)
    ]
    labels = [[label for _, label, _ in part] for part in (train, test)]
    return Source(name, *zip(paths, labels, strict=True), classnames, layout.templates)


def _class_names(file: Path, rows: list[tuple[str, int, str]]) -> list[str]:
    """Return the class names by label, from rows (path, label, name)."""
    names = {}
    for _, label, name in rows:
        if names.setdefault(label, name) != name:
            raise ValueError(
                f"{file} calls label {label} both {names[label]!r} and {name!r}; download it again"
            )
    if sorted(names) != list(range(len(names))):
        raise ValueError(
            f"{file} has labels {sorted(names)[:5]}...; 0 to {len(names) - 1} are needed; "
            "download it again"
        )
    return [readable(names[label]) for label in range(len(names))]


def _aircraft(name: str, folder: Path, layout: Layout) -> Source:
    """Read variants.txt, one class name per line, and images_variant_{train,test}.txt.

    Each line of the latter is "number class name".
    """
    lines = (folder / layout.split).read_text(encoding="utf-8").splitlines()
    classnames = [line.strip() for line in lines]
    label = {word: i for i, word in enumerate(classnames)}
    parts = []
    for part in ("train", "test"):
        file = folder / f"images_variant_{part}.txt"
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = [line.split(" ", 1) for line in lines if line.strip()]
        if unknown := sorted({row[-1].strip() for row in rows} - set(label)):
            raise ValueError(
                f"{file} names classes that {layout.split} does not: {unknown[:5]}; download both "
                "again"
            )
        paths = [path_inside(folder / layout.images, f"{number}.jpg", file) for number, _ in rows]
        parts.append((paths, [label[word.strip()] for _, word in rows]))
    return Source(name, *parts, classnames, layout.templates)


def _imagenet(name: str, folder: Path, layout: Layout) -> Source:
    """Read classnames.txt, lines "n01440764 tench", and one folder per number in train and val."""
    lines = (folder / layout.split).read_text(encoding="utf-8").splitlines()
    rows = [line.strip().split(" ", 1) for line in lines if line.strip()]
    numbers, words = zip(*rows, strict=True)
    parts = [images_in_classes(folder / layout.images / part, numbers) for part in ("train", "val")]
    return Source(name, *parts, unique_names(words), layout.templates)
