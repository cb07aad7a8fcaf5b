"""Data sets of Hugging Face `datasets` (optional extra `hf`), from its cache or a folder: splits, columns, images as files.
Nothing is downloaded, and no code of a data set is run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activekd_lite.datasets.source import Source, held_out, spoken
from activekd_lite.utils.photos import File


@dataclass(frozen=True, eq=False, slots=True)
class Row:
    """An image that lies in a table of Hugging Face `datasets` (one column of encoded images), read as a file is."""

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
        """Raises ValueError for a row without an image."""
        (image,) = self.table[self.index].values()
        if image is None or image["bytes"] is None:
            raise ValueError("the row holds no image")
        return image["bytes"]


def splits_of(where: str) -> dict[str, Any]:
    """The splits of a folder, or of what `datasets` has in its cache. Never downloads, so no code and no data comes unasked."""
    try:
        import datasets
        from datasets.packaged_modules.cache.cache import (
            Cache,
        )  # what load_dataset falls back to without a network
    except ImportError as error:
        raise ImportError(
            f"hf:{where} needs Hugging Face `datasets`; get it by `pip install -e '.[hf]'`"
        ) from error
    folder, (name, _, config) = Path(where).expanduser(), where.partition(":")
    if is_local(where):
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no folder {folder}; give hf:/path to parquet files, or to what `save_to_disk` wrote"
            )
        saved = any((folder / file).is_file() for file in ("dataset_dict.json", "state.json"))
        try:
            found = datasets.load_from_disk(folder) if saved else datasets.load_dataset(str(folder))
        except (
            datasets.exceptions.DatasetsError,
            OSError,
            ValueError,
            RuntimeError,
            IndexError,
        ) as error:  # torn, empty, code
            raise ValueError(f"{folder} cannot be read as a data set: {error}") from error
    else:
        try:
            cached = Cache(
                repo_id=name,
                dataset_name=name.split("/")[-1],
                config_name=config or None,
                version="auto",
                hash="auto",
            )
        except ValueError as error:
            options = ", ".join(repr(option) for option in (name, config) if option)
            raise FileNotFoundError(
                f"hf:{where} is not to be had from the cache of `datasets` ({error}); fetch it once where there is a network: "
                f"`datasets.load_dataset({options})`, and where it has several configurations name one: hf:org/name:config"
            ) from error
        found = cached.as_dataset()
    return dict(found) if isinstance(found, dict) else {"train": found}


def columns_of(features: dict[str, Any], where: str) -> tuple[str, str]:
    """The column of images, and the one of labels: a ClassLabel, or else text called "label"."""
    from datasets import ClassLabel, Image

    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    if not labels and getattr(features.get("label"), "dtype", None) in ("string", "large_string"):
        labels = ["label"]
    if len(images) != 1 or len(labels) != 1:
        raise ValueError(
            f"hf:{where} has columns of images: {', '.join(images) or 'none'}; of labels (ClassLabel, or text called 'label'): "
            f"{', '.join(labels) or 'none'}; one of each is needed. " + way_out("the others")
        )
    return images[0], labels[0]


def way_out(what: str) -> str:
    return f"Remove {what} with `datasets`, write the rest by `save_to_disk('my_folder')`, and give hf:./my_folder"


def words_in(split: Any, column: str) -> list[str | None]:
    """The class name of each row; None (or blank) where nobody knows it."""
    values = _arrow(split, column).to_pylist()
    names = getattr(split.features[column], "names", None)
    return values if names is None else [None if i is None or i < 0 else names[i] for i in values]


def files_in(split: Any, column: str, place: str) -> list[File]:
    """A Row for each image that lies in the table, a Path for each that the table only names."""
    import pyarrow.compute
    from datasets import Image

    table = split.select_columns([column]).cast_column(column, Image(decode=False))
    inside = pyarrow.compute.struct_field(_arrow(table, column), "bytes").is_valid().to_pylist()
    paths = pyarrow.compute.struct_field(_arrow(table, column), "path").to_pylist()
    return [
        Row(table, i, place) if within or path is None else Path(path)
        for i, (within, path) in enumerate(zip(inside, paths, strict=True))
    ]


def _arrow(split: Any, column: str) -> Any:
    """A column as Arrow has it; nothing is read or decoded."""
    return split.select_columns([column]).with_format("arrow")[:][column]


def is_local(where: str) -> bool:
    """Of "hf:": a folder here, not the name of a data set of the hub."""
    return where.startswith((".", "~")) or Path(where).is_absolute()


def from_hub(where: str) -> Source:
    """Split `train` is the pool; `test`, or else `validation`, the test, or else a fifth of each class, drawn with seed 0."""
    splits = splits_of(where)
    if "train" not in splits:
        raise ValueError(
            f"hf:{where} has splits {', '.join(splits)}; one called 'train' is needed, for the pool"
        )
    test = next((part for part in ("test", "validation", "valid", "val") if part in splits), None)
    image, label = columns_of(splits["train"].features, where)
    words = {part: words_in(splits[part], label) for part in ("train", test) if part}
    names = getattr(splits["train"].features[label], "names", None)
    classes = names or sorted({word for word in words["train"] if word})
    if strange := sorted({word for part in words.values() for word in part if word} - set(classes)):
        raise ValueError(
            f"hf:{where}: split {test!r} has classes that 'train' has not: {', '.join(strange[:5])}"
        )
    number = {word: i for i, word in enumerate(classes)}
    parts = [
        (
            files_in(splits[part], image, f"{where} {part}"),
            [number.get(word, -1) for word in words[part]],
        )
        for part in words
    ]
    if len(classes) < 2 or not all(files for files, _ in parts):
        sizes = ", ".join(f"{len(splits[part])} images in {part!r}" for part in words)
        raise ValueError(
            f"hf:{where} has {len(classes)} classes, {sizes}; at least two and an image in each are needed"
        )
    if test and (blank := parts[1][1].count(-1)):
        raise ValueError(
            f"hf:{where} has {blank} images without a label in split {test!r}; accuracy cannot be measured on them. "
            + way_out("that split, or rows,")
        )
    parts = parts if test else held_out(*parts[0], classes, f"hf:{where}")
    return Source(name_on_hub(where), *parts, [spoken(c) for c in classes])


def name_on_hub(where: str) -> str:
    """Return the last part of the name, and the configuration: cats-big for org/cats:big."""
    return (
        Path(where).resolve().name
        if is_local(where)
        else where.rpartition("/")[2].replace(":", "-")
    )
