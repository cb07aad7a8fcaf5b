"""The table of data sources that consist of files: by prefix, or one of the paper's by name.

To add a source: write a function that returns a `Source` in a file of its own, and add it to KINDS.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from activekd_lite.datasets import csv_file, folder, huggingface
from activekd_lite.datasets.paper import LAYOUTS, from_layout
from activekd_lite.datasets.source import Source
from activekd_lite.datasets.spec import canonical_name


@dataclass(frozen=True)
class Kind:
    """One kind of source, written "prefix:where".

    find(where): returns the files. name(where): returns the data set's name in results.
    """

    find: Callable[[str], Source]
    name: Callable[[str], str]
    example: str


KINDS = {
    "folder": Kind(folder.from_folder, folder.name_of_folder, "folder:/path/to/images"),
    "csv": Kind(csv_file.from_csv, csv_file.name_of_csv, "csv:/path/to/file.csv"),
    "hf": Kind(huggingface.from_hub, huggingface.name_on_hub, "hf:org/name"),
}


def find(name: str, root: str | os.PathLike) -> Source:
    """Return the files of a source of KINDS, or of one of the paper's LAYOUTS under `root`.

    Raises FileNotFoundError for missing files, ValueError for unusable ones (both name the file),
    and ImportError for "hf:" without the package `datasets`.
    """
    prefix, _, where = name.partition(":")
    if prefix in KINDS:
        return KINDS[prefix].find(where)
    if name not in LAYOUTS:
        known = ", ".join([*LAYOUTS, *(kind.example for kind in KINDS.values())])
        raise ValueError(f"{name!r} does not consist of files; give one of {known}")
    return from_layout(name, Path(root))


def short_name(name: str) -> str:
    """Return a data set's name in results, such as "cats" for "folder:/my/cats"."""
    prefix, _, where = name.partition(":")
    return KINDS[prefix].name(where) if prefix in KINDS else canonical_name(where or prefix)
