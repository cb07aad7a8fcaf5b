"""Data sets of Hugging Face `datasets` (optional extra `hf`), from its cache or from a folder.

Nothing is downloaded, and no code of a data set is run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activekd_lite.datasets.source import Part, Source, hold_out_test, readable
from activekd_lite.utils.photos import File

# What `datasets` raises for a folder that is damaged, empty, or needs code to be run.
UNREADABLE = OSError, ValueError, RuntimeError, IndexError


def from_hub(where: str) -> Source:
    """Read a data set: split `train` is the pool, `test` or else `validation` the test set.

    Without either, a fifth of each class is held out (`hold_out_test`).
    where: "org/name", "org/name:config", or a folder, absolute or starting with "." or "~".
    Raises FileNotFoundError if it is missing, ValueError if it cannot be used, ImportError without
    `datasets`.
    """
    splits = _load_splits(where)
    if "train" not in splits:
        raise ValueError(
            f"hf:{where} has splits {', '.join(splits)}; one called 'train' is needed for the pool"
        )
    test = next((part for part in ("test", "validation", "valid", "val") if part in splits), None)
    used = {part: splits[part] for part in ("train", test) if part}
    image, label = _columns(splits["train"].features, where)
    names = {part: _class_names(split, label) for part, split in used.items()}
    classes = getattr(splits["train"].features[label], "names", None)
    classes = classes or sorted({name for name in names["train"] if name})
    if unknown := sorted({name for part in names.values() for name in part if name} - {*classes}):
        raise ValueError(
            f"hf:{where}: split {test!r} has classes that 'train' does not have: "
            f"{', '.join(unknown[:5])}; {_remedy('those rows, or the split,')}"
        )
    number = {name: i for i, name in enumerate(classes)}
    parts = [
        (_files(split, image, f"{where} {part}"), [number.get(name, -1) for name in names[part]])
        for part, split in used.items()
    ]
    _check_parts(dict(zip(used, parts, strict=True)), classes, where)
    both = parts if test else hold_out_test(parts[0], classes, f"hf:{where}")
    return Source(name_on_hub(where), *both, [readable(c) for c in classes])


def _check_parts(parts: dict[str, Part], classes: list[str], where: str) -> None:
    """Raise ValueError for too few classes, an empty split, or unlabelled test images."""
    if len(classes) < 2 or not all(files for files, _ in parts.values()):
        sizes = ", ".join(
            f"{len(files)} images in {split!r}" for split, (files, _) in parts.items()
        )
        raise ValueError(
            f"hf:{where} has {len(classes)} classes, {sizes}; at least two classes and one image "
            "in each split are needed"
        )
    for split, (_, labels) in parts.items():
        if split != "train" and (count := labels.count(-1)):
            raise ValueError(
                f"hf:{where} has {count} images without a label in split {split!r}, so accuracy "
                f"cannot be measured on them. {_remedy('those rows, or the split,')}"
            )


def _load_splits(where: str) -> dict[str, Any]:
    """Return the splits of a folder, or of a data set in the cache of `datasets`."""
    try:
        import datasets  # optional
    except ImportError as error:
        raise ImportError(
            f"hf:{where} needs Hugging Face `datasets`; install it with `pip install -e '.[hf]'`"
        ) from error
    found = _from_disk(where) if _is_local(where) else _from_cache(where)
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}


def _from_disk(where: str) -> Any:
    import datasets  # optional

    folder = Path(where).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}; give hf:/path to parquet files, or to what `save_to_disk` wrote"
        )
    saved = any((folder / file).is_file() for file in ("dataset_dict.json", "state.json"))
    try:
        return datasets.load_from_disk(folder) if saved else datasets.load_dataset(str(folder))
    except (datasets.exceptions.DatasetsError, *UNREADABLE) as error:
        raise ValueError(
            f"{folder} cannot be read as a data set: {error}; give a folder of parquet files or of "
            "images, or one that `save_to_disk` wrote"
        ) from error


def _from_cache(where: str) -> Any:
    # The class that `datasets.load_dataset` uses offline; called directly, it never downloads.
    from datasets.packaged_modules.cache.cache import Cache

    name, _, config = where.partition(":")
    version = {"config_name": config or None, "version": "auto", "hash": "auto"}
    try:
        return Cache(repo_id=name, dataset_name=name.split("/")[-1], **version).as_dataset()
    except ValueError as error:
        options = ", ".join(repr(option) for option in (name, config) if option)
        raise FileNotFoundError(
            f"hf:{where} was not found in the cache of `datasets` ({error}); download it once: "
            f"`datasets.load_dataset({options})`; if it has several configurations, name one: "
            "hf:org/name:config"
        ) from error


def _columns(features: dict[str, Any], where: str) -> tuple[str, str]:
    """Return the column of images, and that of labels: a ClassLabel, or else text named "label"."""
    from datasets import ClassLabel, Image  # optional

    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    if not labels and getattr(features.get("label"), "dtype", None) in ("string", "large_string"):
        labels = ["label"]
    if len(images) != 1 or len(labels) != 1:
        raise ValueError(
            f"hf:{where} has image columns: {', '.join(images) or 'none'}; label columns "
            f"(ClassLabel, or text named 'label'): {', '.join(labels) or 'none'}; exactly one of "
            f"each is needed. {_remedy('the others')}"
        )
    return images[0], labels[0]


def _remedy(what: str) -> str:
    return (
        f"Remove {what} with `datasets`, save the rest with `save_to_disk('my_folder')`, and give "
        "hf:./my_folder"
    )


def _class_names(split: Any, column: str) -> list[str | None]:
    """Return the class name of each row; None or "" if it is unknown."""
    values = _arrow(split, column).to_pylist()
    names = getattr(split.features[column], "names", None)
    return values if names is None else [None if i is None or i < 0 else names[i] for i in values]


@dataclass(frozen=True, eq=False, slots=True)
class Row:
    """An encoded image in a table of `datasets`, with the methods of a file.

    table: one column of encoded images. place: data set and split, for messages.
    """

    table: Any
    index: int
    place: str

    @property
    def name(self) -> str:
        return f"{self.place}[{self.index}]"

    def __str__(self) -> str:
        return self.name

    def is_file(self) -> bool:
        return True

    def read_bytes(self) -> bytes:
        """Return the encoded image. Raises ValueError if the row has none."""
        (image,) = self.table[self.index].values()
        if image is None or image["bytes"] is None:
            raise ValueError("the row contains no image")
        return image["bytes"]


def _files(split: Any, column: str, place: str) -> list[File]:
    """Return a Row for each image stored in the table, and a Path for each that it refers to."""
    import pyarrow.compute  # slow
    from datasets import Image

    table = split.select_columns([column]).cast_column(column, Image(decode=False))
    cells = _arrow(table, column)
    stored = pyarrow.compute.struct_field(cells, "bytes").is_valid().to_pylist()
    paths = pyarrow.compute.struct_field(cells, "path").to_pylist()
    return [
        Row(table, i, place) if inside or path is None else Path(path)
        for i, (inside, path) in enumerate(zip(stored, paths, strict=True))
    ]


def _arrow(split: Any, column: str) -> Any:
    """Return a column as an Arrow array; no image is decoded."""
    return split.select_columns([column]).with_format("arrow")[:][column]


def _is_local(where: str) -> bool:
    """Return True for a folder, False for the name of a data set on the hub."""
    return where.startswith((".", "~")) or Path(where).is_absolute()


def name_on_hub(where: str) -> str:
    """Return the last part of the name, with the configuration: cats-big for org/cats:big."""
    if _is_local(where):
        return Path(where).resolve().name
    return where.rpartition("/")[2].replace(":", "-")
