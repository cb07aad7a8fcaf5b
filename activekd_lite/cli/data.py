"""`activekd-lite data`."""

from typing import Annotated, Literal

from cyclopts import Parameter

from activekd_lite.cli.options import FLAT, ON_DISK, Folders
from activekd_lite.datasets.paper import LAYOUTS, missing_parts
from activekd_lite.datasets.sources import find


def command(
    check: Literal["check"],
    dataset: Annotated[str, Parameter(name="NAME", help=f"{ON_DISK}.")],
    /,
    *,
    folders: Annotated[Folders, FLAT] = Folders(),
) -> int:
    """Look for the files of a data set.

    Parameters
    ----------
    check
        The only job: look for missing files.
    """
    if dataset in LAYOUTS and (missing := missing_parts(dataset, folders.root)):
        print(f"{dataset} is incomplete; data/README.md says how to get it. Missing:")
        print("\n".join(f"  {path}" for path in missing))
        return 1
    source = find(dataset, folders.root)
    gone = [path for path in source.pool[0] + source.test[0] if not path.is_file()]
    unknown = sum(label < 0 for label in source.pool[1])
    without = f" ({unknown} without a label)" if unknown else ""
    print(f"{source.name}: {len(source.classnames)} classes, ", end="")
    print(f"{len(source.pool[0])} images in the pool{without}, {len(source.test[0])} for the test")
    if gone:
        print(f"{len(gone)} of the images are missing:")
        print("\n".join(f"  {path}" for path in gone[:20]))
    if len(gone) > 20:
        print("  ...")
    return 1 if gone else 0
