"""A folder for each class."""

from pathlib import Path

from activekd_lite.datasets.source import Source, files_in_classes, folders_in, held_out, spoken


def from_folder(where: str) -> Source:
    """A folder for each class, or `train` and `test` (or `val`) with these in them; without `test` a fifth of each class, drawn
    with seed 0, is held out."""
    path = Path(where)
    if not path.is_dir():
        raise FileNotFoundError(
            f"no folder {path}; give folder:/path/to/images with a folder for each class in it"
        )
    parts = {
        part: path / part for part in ("train", "test", "val") if folders_in(path / part)
    }  # else they are classes
    test, pool = parts.get("test", parts.get("val")), parts.get("train", path)
    classes = [name for name in folders_in(pool) if pool != path or name not in parts]
    files, labels = files_in_classes(pool, classes)
    if len(classes) < 2 or not files:
        raise ValueError(
            f"{pool} has {len(classes)} class folders and {len(files)} images; at least two classes are needed"
        )
    if test:
        if strange := [name for name in folders_in(test) if name not in classes]:
            raise ValueError(f"{test} has classes that {pool} has not: {', '.join(strange[:5])}")
        if not files_in_classes(test, classes)[0]:
            raise ValueError(
                f"{test} holds no image; fill it, or remove it and some of {pool} are held out"
            )
        return Source(
            name_of_folder(where),
            (files, labels),
            files_in_classes(test, classes),
            [spoken(c) for c in classes],
        )
    parts = held_out(files, labels, classes, path)
    return Source(name_of_folder(where), *parts, [spoken(c) for c in classes])


def name_of_folder(where: str) -> str:
    """Return the folder's own name."""
    return Path(where).resolve().name
