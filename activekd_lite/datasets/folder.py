"""Images sorted into one folder per class."""

from pathlib import Path

from activekd_lite.datasets.source import (
    Source,
    hold_out_test,
    images_in_classes,
    readable,
    subfolders,
)


def from_folder(where: str) -> Source:
    """Read a folder that contains class folders, or `train` and `test` (or `val`) with them.

    Without a test folder, a fifth of each class is held out (`hold_out_test`).
    Raises FileNotFoundError if there is no such folder, ValueError if it cannot be used.
    """
    path = Path(where)
    if not path.is_dir():
        raise FileNotFoundError(
            f"no folder {path}; give folder:/path/to/images, with one folder per class in it"
        )
    # A folder without subfolders holds images: it is a class, even if it is called "train".
    parts = {part: path / part for part in ("train", "test", "val") if subfolders(path / part)}
    pool, test = parts.get("train", path), parts.get("test", parts.get("val"))
    classes = [name for name in subfolders(pool) if pool != path or name not in parts]
    images = images_in_classes(pool, classes)
    if len(classes) < 2 or not images[0]:
        raise ValueError(
            f"{pool} has {len(classes)} class folders and {len(images[0])} images; at least two "
            "classes with images are needed"
        )
    if test is None:
        both = hold_out_test(images, classes, path)
    else:
        _check_test(test, pool, classes)
        both = images, images_in_classes(test, classes)
    return Source(name_of_folder(where), *both, [readable(c) for c in classes])


def _check_test(test: Path, pool: Path, classes: list[str]) -> None:
    """Raise ValueError for a test folder without images, or with classes that the pool lacks."""
    if unknown := [name for name in subfolders(test) if name not in classes]:
        raise ValueError(
            f"{test} has classes that {pool} does not have: {', '.join(unknown[:5])}; remove them, "
            f"or add training images of them to {pool}"
        )
    if not images_in_classes(test, classes)[0]:
        raise ValueError(
            f"{test} contains no images; add some, or remove the folder to hold out a fifth of "
            f"{pool}"
        )


def name_of_folder(where: str) -> str:
    """Return the folder's own name."""
    return Path(where).resolve().name
