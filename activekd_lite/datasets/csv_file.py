"""A CSV file with the columns path, label and split."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from activekd_lite.datasets.source import Source, path_inside, readable

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["path", "label", "split"]


def from_csv(where: str) -> Source:
    """Read a list of images from a CSV file in UTF-8.

    path: relative to the file's folder, and inside it.
    label: a class name; blank if unknown (pool only).
    split: "train" (or blank) or "test".
    Surrounding spaces are removed, and identical rows count once.
    Raises FileNotFoundError if there is no such file, ValueError if it cannot be used, for
    example if an image has two labels or is in both splits.
    """
    file = Path(where)
    table = _read_table(file)
    _check_table(table, file)
    classes = sorted(set(table["label"]) - {""})
    number = {name: i for i, name in enumerate(classes)} | {"": -1}
    splits = [table[table["split"] == split] for split in ("train", "test")]
    pool, test = ((list(rows["file"]), [number[c] for c in rows["label"]]) for rows in splits)
    if len(classes) < 2 or not pool[0] or not test[0]:
        raise ValueError(
            f"{file} has {len(classes)} classes, {len(pool[0])} train and {len(test[0])} test "
            "images; at least two classes and one image of each split are needed"
        )
    return Source(file.stem, pool, test, [readable(c) for c in classes])


def _read_table(file: Path) -> "pd.DataFrame":
    """Return the columns path, label and split, and `file`, the full path of each image.

    The index is the row number in the file; the header is row 1.
    """
    table = _parse(file)
    table.columns = table.columns.str.strip()
    found = ", ".join(table.columns)
    if missing := set(COLUMNS) - set(table.columns):
        raise ValueError(f"{file} has columns {found}; {', '.join(sorted(missing))} missing")
    if table.columns.has_duplicates:
        raise ValueError(f"{file} has columns {found}; give each column a name of its own")
    table = table[COLUMNS].fillna("").apply(lambda column: column.str.strip())
    table.index += 2
    table = table[(table != "").any(axis=1)].copy()  # drops blank lines
    table["split"] = table["split"].replace("", "train")
    table["file"] = [path_inside(file.parent, path, file) for path in table["path"]]
    return table.drop_duplicates(["file", "label", "split"])


def _parse(file: Path) -> "pd.DataFrame":
    import pandas as pd  # slow

    if not file.is_file():
        raise FileNotFoundError(
            f"no file {file}; give csv:/path/to/file.csv with columns path, label, split"
        )
    text = {"dtype": str, "keep_default_na": False}
    spaces = {"skipinitialspace": True, "skip_blank_lines": False}
    try:
        with warnings.catch_warnings():
            # pandas cuts a row that is longer than the header, and only warns.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(file, index_col=False, **text, **spaces)
    except (ValueError, pd.errors.ParserWarning) as error:  # also an empty file, or not UTF-8
        raise ValueError(f"{file} cannot be read as CSV in UTF-8: {error}") from error


def _check_table(table: "pd.DataFrame", file: Path) -> None:
    """Raise ValueError for unknown splits, unlabelled test images and contradictory rows."""
    if wrong := sorted(set(table["split"]) - {"train", "test"}):
        raise ValueError(f"{file} has splits {wrong}; use 'train' (or blank) and 'test'")
    if count := int(((table["split"] == "test") & (table["label"] == "")).sum()):
        raise ValueError(
            f"{file} has {count} test images without a label, so accuracy cannot be measured on "
            "them; label them, or leave them out"
        )
    repeated = table[table.duplicated("file", keep=False)]
    if len(repeated):
        rows = repeated[repeated["file"] == repeated["file"].iloc[0]]
        column = "split" if rows["split"].nunique() > 1 else "label"
        shown = ", ".join(f"row {row}: {value!r}" for row, value in rows[column].items())
        raise ValueError(
            f"{file} lists {repeated['file'].nunique()} images more than once, and the rows "
            f"disagree; first {rows['path'].iloc[0]!r} with two {column}s ({shown}; the header is "
            "row 1); keep one row per image"
        )


def name_of_csv(where: str) -> str:
    """Return the file's name without its extension."""
    return Path(where).stem
