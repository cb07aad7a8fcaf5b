"""The eleven data sets of the paper, as CoOp lays them out (Zhou et al. 2022, arXiv:2109.01134).

`data/README.md` says how to get each.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from activekd_lite.datasets.source import Source, distinct, files_in_classes, path_inside, spoken
from activekd_lite.utils.files import read_json


@dataclass(frozen=True)
class Layout:
    """One of the eleven: `folder` under the root holds the split file, and `images` is where its paths start."""

    folder: str
    images: str
    split: str
    templates: tuple[str, ...] = ("a photo of a {}.",)


IMAGENET_TEMPLATES = (  # the short list of CLIP's authors (arXiv:2103.00020), which arXiv:2506.00910 uses
    "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.",
    "art of the {}.", "a photo of the small {}.",
)  # fmt: skip


LAYOUTS = {
    "caltech101": Layout("caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json"),
    "dtd": Layout("dtd", "images", "split_zhou_DescribableTextures.json", ("{} texture.",)),
    "eurosat": Layout(
        "eurosat", "2750", "split_zhou_EuroSAT.json", ("a centered satellite photo of {}.",)
    ),
    "fgvc_aircraft": Layout(
        "fgvc_aircraft", "images", "variants.txt", ("a photo of a {}, a type of aircraft.",)
    ),
    "food101": Layout(
        "food-101", "images", "split_zhou_Food101.json", ("a photo of {}, a type of food.",)
    ),
    "flowers102": Layout(
        "oxford_flowers",
        "jpg",
        "split_zhou_OxfordFlowers.json",
        ("a photo of a {}, a type of flower.",),
    ),
    "oxford_pets": Layout(
        "oxford_pets", "images", "split_zhou_OxfordPets.json", ("a photo of a {}, a type of pet.",)
    ),
    "stanford_cars": Layout("stanford_cars", "", "split_zhou_StanfordCars.json"),
    "sun397": Layout("sun397", "SUN397", "split_zhou_SUN397.json"),
    "ucf101": Layout(
        "ucf101", "UCF-101-midframes", "split_zhou_UCF101.json", ("a photo of a person doing {}.",)
    ),
    "imagenet": Layout("imagenet", "images", "classnames.txt", IMAGENET_TEMPLATES),
}


def missing_parts(name: str, root: str | os.PathLike) -> list[Path]:
    """The files and folders of a data set of LAYOUTS that are not under `root`."""
    layout = LAYOUTS[name]
    parts = [layout.split, layout.images]
    if name == "fgvc_aircraft":
        parts += ["images_variant_train.txt", "images_variant_test.txt"]
    if name == "imagenet":
        parts += ["images/train", "images/val"]
    return [
        path for part in parts if part and not (path := Path(root) / layout.folder / part).exists()
    ]


def _coop(name: str, folder: Path, layout: Layout) -> Source:
    """{"train": [[path, label, class name], ...], "val": ..., "test": ...}; "val" is not used."""
    file = folder / layout.split
    split = read_json(file, "fetch it again")
    try:
        rows = {
            part: [(str(path), int(label), str(word)) for path, label, word in split[part]]
            for part in ("train", "test")
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no split file of CoOp ({error!r}); fetch it again") from error
    words = {}
    for _, label, word in rows["train"] + rows["test"]:
        if words.setdefault(label, word) != word:
            raise ValueError(
                f"{file} calls label {label} both {words[label]!r} and {word!r}; fetch it again"
            )
    if sorted(words) != list(range(len(words))):
        raise ValueError(
            f"{file} has labels {sorted(words)[:5]}...; 0 to {len(words) - 1} are needed; fetch it again"
        )
    parts = [
        (
            [path_inside(folder / layout.images, path, file) for path, _, _ in r],
            [label for _, label, _ in r],
        )
        for r in rows.values()
    ]
    return Source(name, *parts, [spoken(words[i]) for i in range(len(words))], layout.templates)


def _fgvc(name: str, folder: Path, layout: Layout) -> Source:
    """variants.txt: a class a line; images_variant_train.txt and _test.txt: "number class" a line."""
    classnames = (folder / layout.split).read_text(encoding="utf-8").splitlines()
    label = {word.strip(): i for i, word in enumerate(classnames)}
    parts = []
    for part in ("train", "test"):
        file = folder / f"images_variant_{part}.txt"
        rows = [
            line.split(" ", 1)
            for line in file.read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
        if unknown := sorted({row[-1].strip() for row in rows} - set(label)):
            raise ValueError(
                f"{file} names classes that {layout.split} does not: {unknown[:5]}; fetch both again"
            )
        paths = [path_inside(folder / layout.images, f"{number}.jpg", file) for number, _ in rows]
        parts.append((paths, [label[word.strip()] for _, word in rows]))
    return Source(name, *parts, [word.strip() for word in classnames], layout.templates)


def _imagenet(name: str, folder: Path, layout: Layout) -> Source:
    """classnames.txt: "n01440764 tench" a line; images/train and images/val: a folder for each number."""
    lines = (folder / layout.split).read_text(encoding="utf-8").splitlines()
    numbers, words = zip(
        *(line.strip().split(" ", 1) for line in lines if line.strip()), strict=True
    )
    parts = [files_in_classes(folder / layout.images / part, numbers) for part in ("train", "val")]
    return Source(name, *parts, distinct(words), layout.templates)


def from_layout(name: str, root: Path) -> Source:
    """Return the files of one of LAYOUTS. Raises FileNotFoundError if some are missing."""
    layout = LAYOUTS[name]
    if missing := missing_parts(name, root):
        raise FileNotFoundError(
            f"{name} is not whole: no {', '.join(str(path) for path in missing)}; data/README.md says how to get it and how it "
            "must lie"
        )
    special = {"fgvc_aircraft": _fgvc, "imagenet": _imagenet}
    return special.get(name, _coop)(name, root / layout.folder, layout)
