"""Where image files and their labels are: a folder of folders, a CSV file, Hugging Face `datasets`, and the eleven data sets of
the paper as CoOp lays them out (Zhou et al. 2022, arXiv:2109.01134; `data/README.md` says how to get each). Lists of files:
nothing is decoded.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from activekd_lite import huggingface
from activekd_lite.files import read_json
from activekd_lite.images import SUFFIXES
from activekd_lite.photos import File


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
    "eurosat": Layout("eurosat", "2750", "split_zhou_EuroSAT.json", ("a centered satellite photo of {}.",)),
    "fgvc_aircraft": Layout("fgvc_aircraft", "images", "variants.txt", ("a photo of a {}, a type of aircraft.",)),
    "food101": Layout("food-101", "images", "split_zhou_Food101.json", ("a photo of {}, a type of food.",)),
    "flowers102": Layout("oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json", ("a photo of a {}, a type of flower.",)),
    "oxford_pets": Layout("oxford_pets", "images", "split_zhou_OxfordPets.json", ("a photo of a {}, a type of pet.",)),
    "stanford_cars": Layout("stanford_cars", "", "split_zhou_StanfordCars.json"),
    "sun397": Layout("sun397", "SUN397", "split_zhou_SUN397.json"),
    "ucf101": Layout("ucf101", "UCF-101-midframes", "split_zhou_UCF101.json", ("a photo of a person doing {}.",)),
    "imagenet": Layout("imagenet", "images", "classnames.txt", IMAGENET_TEMPLATES),
}


def find(name: str, root: str | os.PathLike) -> Source:
    """The files of "folder:/path", "csv:/path/file.csv", "hf:org/name" or one of LAYOUTS under `root`.

    Raises FileNotFoundError for what is not there, ValueError for a list that cannot be right: both name the file; ImportError
    for "hf:" without `datasets`.
    """
    kind, _, where = name.partition(":")
    if kind == "folder":
        return _folder(Path(where))
    if kind == "csv":
        return _csv(Path(where))
    if kind == "hf":
        return _hf(where)
    if name not in LAYOUTS:
        others = "folder:/path, csv:/path/file.csv and hf:org/name"
        raise ValueError(f"{name!r} is not made of files; {', '.join(LAYOUTS)}, {others} are")
    layout = LAYOUTS[name]
    folder = Path(root) / layout.folder
    if missing := missing_parts(name, root):
        raise FileNotFoundError(
            f"{name} is not whole: no {', '.join(str(path) for path in missing)}; data/README.md says how to get it and how it "
            "must lie"
        )
    special = {"fgvc_aircraft": _fgvc, "imagenet": _imagenet}
    return special.get(name, _coop)(name, folder, layout)


def short_name(name: str) -> str:
    """What a data set is called in results: "folder:/my/cats" is cats, "csv:/my/list.csv" list, "hf:org/cats:big" cats-big."""
    kind, _, where = name.partition(":")
    if kind == "folder" or (kind == "hf" and huggingface.is_local(where)):
        return Path(where).resolve().name
    if kind == "hf":
        return where.rpartition("/")[2].replace(":", "-")
    return Path(where).stem if kind == "csv" else where or kind


def missing_parts(name: str, root: str | os.PathLike) -> list[Path]:
    """The files and folders of a data set of LAYOUTS that are not under `root`."""
    layout = LAYOUTS[name]
    parts = [layout.split, layout.images]
    if name == "fgvc_aircraft":
        parts += ["images_variant_train.txt", "images_variant_test.txt"]
    if name == "imagenet":
        parts += ["images/train", "images/val"]
    return [path for part in parts if part and not (path := Path(root) / layout.folder / part).exists()]


def _coop(name: str, folder: Path, layout: Layout) -> Source:
    """{"train": [[path, label, class name], ...], "val": ..., "test": ...}; "val" is not used."""
    file = folder / layout.split
    split = read_json(file, "fetch it again")
    try:
        rows = {part: [(str(path), int(label), str(word)) for path, label, word in split[part]] for part in ("train", "test")}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no split file of CoOp ({error!r}); fetch it again") from error
    words = {}
    for _, label, word in rows["train"] + rows["test"]:
        if words.setdefault(label, word) != word:
            raise ValueError(f"{file} calls label {label} both {words[label]!r} and {word!r}; fetch it again")
    if sorted(words) != list(range(len(words))):
        raise ValueError(f"{file} has labels {sorted(words)[:5]}...; 0 to {len(words) - 1} are needed; fetch it again")
    parts = [
        ([_inside(folder / layout.images, path, file) for path, _, _ in r], [label for _, label, _ in r]) for r in rows.values()
    ]
    return Source(name, *parts, [_words(words[i]) for i in range(len(words))], layout.templates)


def _fgvc(name: str, folder: Path, layout: Layout) -> Source:
    """variants.txt: a class a line; images_variant_train.txt and _test.txt: "number class" a line."""
    classnames = (folder / layout.split).read_text(encoding="utf-8").splitlines()
    label = {word.strip(): i for i, word in enumerate(classnames)}
    parts = []
    for part in ("train", "test"):
        file = folder / f"images_variant_{part}.txt"
        rows = [line.split(" ", 1) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        if unknown := sorted({row[-1].strip() for row in rows} - set(label)):
            raise ValueError(f"{file} names classes that {layout.split} does not: {unknown[:5]}; fetch both again")
        paths = [_inside(folder / layout.images, f"{number}.jpg", file) for number, _ in rows]
        parts.append((paths, [label[word.strip()] for _, word in rows]))
    return Source(name, *parts, [word.strip() for word in classnames], layout.templates)


def _imagenet(name: str, folder: Path, layout: Layout) -> Source:
    """classnames.txt: "n01440764 tench" a line; images/train and images/val: a folder for each number."""
    lines = (folder / layout.split).read_text(encoding="utf-8").splitlines()
    numbers, words = zip(*(line.strip().split(" ", 1) for line in lines if line.strip()), strict=True)
    parts = [_tree(folder / layout.images / part, numbers) for part in ("train", "val")]
    return Source(name, *parts, _distinct(words), layout.templates)


def _folder(path: Path) -> Source:
    """A folder for each class, or `train` and `test` (or `val`) with these in them; without `test` a fifth of each class, drawn
    with seed 0, is held out."""
    if not path.is_dir():
        raise FileNotFoundError(f"no folder {path}; give folder:/path/to/images with a folder for each class in it")
    parts = {part: path / part for part in ("train", "test", "val") if _folders(path / part)}  # else they are classes
    test, pool = parts.get("test", parts.get("val")), parts.get("train", path)
    classes = [name for name in _folders(pool) if pool != path or name not in parts]
    files, labels = _tree(pool, classes)
    if len(classes) < 2 or not files:
        raise ValueError(f"{pool} has {len(classes)} class folders and {len(files)} images; at least two classes are needed")
    if test:
        if strange := [name for name in _folders(test) if name not in classes]:
            raise ValueError(f"{test} has classes that {pool} has not: {', '.join(strange[:5])}")
        if not _tree(test, classes)[0]:
            raise ValueError(f"{test} holds no image; fill it, or remove it and some of {pool} are held out")
        return Source(short_name(f"folder:{path}"), (files, labels), _tree(test, classes), [_words(c) for c in classes])
    parts = _held_out(files, labels, classes, path)
    return Source(short_name(f"folder:{path}"), *parts, [_words(c) for c in classes])


def _held_out(files: Sequence[File], labels: Sequence[int], classes: Sequence[str], where: object) -> list[tuple[list, list]]:
    """Pool and test part: a fifth of each class, drawn with seed 0, becomes the test. What has no label stays in the pool."""
    labels = np.array(labels)
    known = np.flatnonzero(labels >= 0)
    if small := [c for c, n in zip(classes, np.bincount(labels[known], minlength=len(classes)), strict=True) if n < 2]:
        raise ValueError(f"{where} has no test part, and fewer than 2 images, to hold one out, of: {', '.join(small)}")
    count = max(len(classes), round(len(known) / 5))
    _, held = train_test_split(known, test_size=count, random_state=0, stratify=labels[known])
    kept = np.setdiff1d(np.arange(len(files)), held)
    return [([files[i] for i in part], labels[part].tolist()) for part in (kept, np.sort(held))]


def _folders(path: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones, and those of no folder, are none."""
    return sorted(d.name for d in path.iterdir() if d.is_dir() and not d.name.startswith(".")) if path.is_dir() else []


def _csv(file: Path) -> Source:
    """Columns path, label, split. Paths lie inside the file's folder; a label is a class name, or blank where nobody knows it;
    a split is train (or blank) or test.

    White space around a value is no part of it, and a row that is there twice counts once. Raises ValueError for an image with
    two labels or in both splits.
    """
    table = _csv_table(file)
    _check_csv(table, file)
    classes = sorted(set(table["label"]) - {""})
    label = {c: i for i, c in enumerate(classes)} | {"": -1}
    parts = []
    for part in ("train", "test"):
        rows = table[table["split"] == part]
        parts.append((list(rows["file"]), [label[c] for c in rows["label"]]))
    if len(classes) < 2 or not parts[0][0] or not parts[1][0]:
        raise ValueError(
            f"{file} has {len(classes)} classes, {len(parts[0][0])} train and {len(parts[1][0])} test images; two classes and "
            "an image of each split are needed at least"
        )
    return Source(file.stem, *parts, [_words(c) for c in classes])


def _csv_table(file: Path) -> pd.DataFrame:
    """Columns path, label, split, and `file`: where each image is. The index counts rows as in the file, its header being 1."""
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}; give csv:/path/to/file.csv with columns path, label, split")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row longer than the header would be cut
            table = pd.read_csv(
                file, dtype=str, keep_default_na=False, index_col=False, skipinitialspace=True, skip_blank_lines=False
            )
    except (ValueError, pd.errors.ParserWarning) as error:  # no columns, rows of different lengths, bytes that are no UTF-8
        raise ValueError(f"{file} cannot be read as CSV in UTF-8: {error}") from error
    table.columns = table.columns.str.strip()
    if missing := {"path", "label", "split"} - set(table.columns):
        raise ValueError(f"{file} has columns {', '.join(table.columns)}; {', '.join(sorted(missing))} missing")
    if table.columns.has_duplicates:
        raise ValueError(f"{file} has columns {', '.join(table.columns)}: one of them twice")
    table = table[["path", "label", "split"]].fillna("").apply(lambda column: column.str.strip())
    table.index += 2
    table = table[(table != "").any(axis=1)].copy()  # without blank lines
    table["split"] = table["split"].replace("", "train")
    table["file"] = [_inside(file.parent, path, file) for path in table["path"]]
    return table.drop_duplicates(["file", "label", "split"])


def _check_csv(table: pd.DataFrame, file: Path) -> None:
    if wrong := sorted(set(table["split"]) - {"train", "test"}):
        raise ValueError(f"{file} has splits {wrong}; 'train' (or blank) and 'test' are known")
    if (blank := (table["split"] == "test") & (table["label"] == "")).any():
        raise ValueError(f"{file} has {int(blank.sum())} test images without a label; accuracy cannot be measured on them")
    again = table[table.duplicated("file", keep=False)]
    if len(again):
        rows = again[again["file"] == again["file"].iloc[0]]
        what = "splits" if rows["split"].nunique() > 1 else "labels"
        shown = ", ".join(f"row {row}: {value!r}" for row, value in rows[what[:-1]].items())
        raise ValueError(
            f"{file} names {again['file'].nunique()} images twice and differently, first {rows['path'].iloc[0]!r} with two "
            f"{what} ({shown}; the header is row 1); keep one row of each image"
        )


def _hf(where: str) -> Source:
    """Split `train` is the pool; `test`, or else `validation`, the test, or else a fifth of each class, drawn with seed 0."""
    splits = huggingface.splits_of(where)
    if "train" not in splits:
        raise ValueError(f"hf:{where} has splits {', '.join(splits)}; one called 'train' is needed, for the pool")
    test = next((part for part in ("test", "validation", "valid", "val") if part in splits), None)
    image, label = huggingface.columns_of(splits["train"].features, where)
    words = {part: huggingface.words_in(splits[part], label) for part in ("train", test) if part}
    names = getattr(splits["train"].features[label], "names", None)
    classes = names or sorted({word for word in words["train"] if word})
    if strange := sorted({word for part in words.values() for word in part if word} - set(classes)):
        raise ValueError(f"hf:{where}: split {test!r} has classes that 'train' has not: {', '.join(strange[:5])}")
    number = {word: i for i, word in enumerate(classes)}
    parts = [
        (huggingface.files_in(splits[part], image, f"{where} {part}"), [number.get(word, -1) for word in words[part]])
        for part in words
    ]
    if len(classes) < 2 or not all(files for files, _ in parts):
        sizes = ", ".join(f"{len(splits[part])} images in {part!r}" for part in words)
        raise ValueError(f"hf:{where} has {len(classes)} classes, {sizes}; at least two and an image in each are needed")
    if test and (blank := parts[1][1].count(-1)):
        raise ValueError(
            f"hf:{where} has {blank} images without a label in split {test!r}; accuracy cannot be measured on them. "
            + huggingface.way_out("that split, or rows,")
        )
    parts = parts if test else _held_out(*parts[0], classes, f"hf:{where}")
    return Source(short_name(f"hf:{where}"), *parts, [_words(c) for c in classes])


def _tree(folder: Path, classes: Sequence[str]) -> tuple[list[Path], list[int]]:
    """Image files of the class folders, in order of class and name, and their labels. Hidden ones are left out."""

    def images(top: Path) -> list[Path]:
        inside = (p for p in top.rglob("*") if p.suffix.lower() in SUFFIXES and not p.is_dir())
        return sorted(p for p in inside if not any(part.startswith(".") for part in p.relative_to(top).parts))

    found = [images(folder / c) for c in classes]
    return [path for paths in found for path in paths], [label for label, paths in enumerate(found) for _ in paths]


def _inside(folder: Path, path: str, file: Path) -> Path:
    """folder / path, or a ValueError for a path that leads out of the folder."""
    inner = os.path.normpath(path)
    if os.path.isabs(path) or inner in (".", "..") or inner.startswith(".." + os.sep):
        raise ValueError(f"{file} names {path!r}, which lies outside {folder}; paths have to stay inside it")
    return folder / inner


def _words(name: str) -> str:
    return name.replace("_", " ")


def _distinct(words: Sequence[str]) -> list[str]:
    """Class names have to differ; a later one of the same name gets its number."""
    seen = {}
    return [word if seen.setdefault(word, i) == i else f"{word} {i}" for i, word in enumerate(words)]
