"""`activekd-lite doctor`."""

from typing import Annotated

from cyclopts import Parameter

from activekd_lite.cli.options import FLAT, ON_DISK, Folders
from activekd_lite.datasets.loading import load_dataset
from activekd_lite.datasets.sources import find
from activekd_lite.doctor import environment
from activekd_lite.experiments.config import zero_shot_accuracy_pct
from activekd_lite.utils.images import damaged
from activekd_lite.vlm import load_vlm

DATA = f"List the images that cannot be read: {ON_DISK}."


def command(
    *,
    data: Annotated[str | None, Parameter(help=DATA)] = None,
    folders: Annotated[Folders, FLAT] = Folders(),
) -> int:
    """Check the installation, or the images of a data set."""
    return _check_images(data, folders.root) if data else _check_installation()


def _check_images(dataset: str, root: str) -> int:
    """Decode every image and list those that cannot be read."""
    source = find(dataset, root)
    paths = source.pool[0] + source.test[0]
    bad = damaged(paths)
    for path, reason in bad.items():
        print(f"{path}: {reason}")
    print(f"{len(bad)} of {len(paths)} images of {source.name} cannot be read")
    return 1 if bad else 0


def _check_installation() -> int:
    facts = environment()
    for name, found in facts["found"].items():
        print(f"{name:15} {found}")
    missing = facts.index[~facts["ok"]].tolist()
    try:
        digits = load_dataset("digits")
        accuracy = zero_shot_accuracy_pct(load_vlm(), digits)
        print(f"tiny-clip       accuracy {accuracy:.1f} % on ", end="")
        print(f"{len(digits.test)} handwritten digits that it has not seen")
    except (ValueError, OSError) as error:
        missing.append("tiny-clip")
        print(f"tiny-clip       BROKEN: {error}")
    print(f"\nmissing: {', '.join(missing)}" if missing else "\neverything needed is installed")
    return 1 if missing else 0
