"""The table of data sources that are made of files: by prefix, or by the name of one of the paper's.

To add a source: write a function that returns a `Source` in a file of its own, and add it to KINDS.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from activekd_lite.datasets import csv_file, folder, huggingface
from activekd_lite.datasets.paper import LAYOUTS, from_layout
from activekd_lite.datasets.source import Source


@dataclass(frozen=True)
class Kind:
    """A source "prefix:where".

    find(where): its files. name(where): what the data set is called in results.
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

    Raises FileNotFoundError for missing files and ValueError for a list that cannot be right; both
    name the file. Raises ImportError for "hf:" without `datasets`.
    """
    kind, _, where = name.partition(":")
    if kind in KINDS:
        return KINDS[kind].find(where)
    if name not in LAYOUTS:
        others = ", ".join(kind.example for kind in KINDS.values())
        raise ValueError(f"{name!r} is not made of files; {', '.join(LAYOUTS)}, {others} are")
    return from_layout(name, Path(root))


def short_name(name: str) -> str:
    """Return what a data set is called in results, such as cats for "folder:/my/cats"."""
    kind, _, where = name.partition(":")
    return KINDS[kind].name(where) if kind in KINDS else where or kind
