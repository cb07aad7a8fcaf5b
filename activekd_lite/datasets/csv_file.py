"""A CSV file with the columns path, label and split."""

import warnings
from pathlib import Path

import pandas as pd

from activekd_lite.datasets.source import Source, path_inside, spoken


def from_csv(where: str) -> Source:
    """Columns path, label, split. Paths lie inside the file's folder; a label is a class name, or blank where nobody knows it;
    a split is train (or blank) or test.

    White space around a value is no part of it, and a row that is there twice counts once. Raises ValueError for an image with
    two labels or in both splits.
    """
    file = Path(where)
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
    return Source(file.stem, *parts, [spoken(c) for c in classes])


def _csv_table(file: Path) -> pd.DataFrame:
    """Columns path, label, split, and `file`: where each image is. The index counts rows as in the file, its header being 1."""
    if not file.is_file():
        raise FileNotFoundError(
            f"no file {file}; give csv:/path/to/file.csv with columns path, label, split"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error", pd.errors.ParserWarning
            )  # a row longer than the header would be cut
            table = pd.read_csv(
                file,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                skipinitialspace=True,
                skip_blank_lines=False,
            )
    except (
        ValueError,
        pd.errors.ParserWarning,
    ) as error:  # no columns, rows of different lengths, bytes that are no UTF-8
        raise ValueError(f"{file} cannot be read as CSV in UTF-8: {error}") from error
    table.columns = table.columns.str.strip()
    if missing := {"path", "label", "split"} - set(table.columns):
        raise ValueError(
            f"{file} has columns {', '.join(table.columns)}; {', '.join(sorted(missing))} missing"
        )
    if table.columns.has_duplicates:
        raise ValueError(f"{file} has columns {', '.join(table.columns)}: one of them twice")
    table = table[["path", "label", "split"]].fillna("").apply(lambda column: column.str.strip())
    table.index += 2
    table = table[(table != "").any(axis=1)].copy()  # without blank lines
    table["split"] = table["split"].replace("", "train")
    table["file"] = [path_inside(file.parent, path, file) for path in table["path"]]
    return table.drop_duplicates(["file", "label", "split"])


def _check_csv(table: pd.DataFrame, file: Path) -> None:
    if wrong := sorted(set(table["split"]) - {"train", "test"}):
        raise ValueError(f"{file} has splits {wrong}; 'train' (or blank) and 'test' are known")
    if (blank := (table["split"] == "test") & (table["label"] == "")).any():
        raise ValueError(
            f"{file} has {int(blank.sum())} test images without a label; accuracy cannot be measured on them"
        )
    again = table[table.duplicated("file", keep=False)]
    if len(again):
        rows = again[again["file"] == again["file"].iloc[0]]
        what = "splits" if rows["split"].nunique() > 1 else "labels"
        shown = ", ".join(f"row {row}: {value!r}" for row, value in rows[what[:-1]].items())
        raise ValueError(
            f"{file} names {again['file'].nunique()} images twice and differently, first {rows['path'].iloc[0]!r} with two "
            f"{what} ({shown}; the header is row 1); keep one row of each image"
        )


def name_of_csv(where: str) -> str:
    """Return the file's name without its ending."""
    return Path(where).stem
