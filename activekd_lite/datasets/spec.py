"""Specs: the name of an embedded data set, and how its task differs from the usual one.

    shapes?by=figure&classes=8&imbalance=20

Two spellings of one task have one `TaskSpec.name`, in a fixed order and without what is usual.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from activekd_lite.datasets import shapes
from activekd_lite.datasets.alterations import LEAST_PER_CLASS, class_sizes
from activekd_lite.utils.checks import choices

KEYS = {
    "shapes": ("by", "classes", "imbalance", "shift", "noise", "duplicates", "pool"),
    "digits": ("classes", "imbalance", "noise", "duplicates", "pool"),
}
POOL = {"shapes": 4000, "digits": 1100}
DIGITS_PER_CLASS = 107  # every class of the pool of `digits` has at least as many images
LARGEST = {"imbalance": 1000, "pool": 50_000}
EXAMPLE = "shapes?by=figure&classes=8"
NUMBER = re.compile(r"\d{1,6}(\.\d{1,4})?", re.ASCII)


@dataclass(frozen=True)
class TaskSpec:
    """A task made from an embedded data set; docs/tasks.md has a table of the settings.

    Parameters
    ----------
    family
        "shapes" or "digits".
    by
        The attributes of a figure that make up its class, of `shapes.ATTRIBUTES`.
    classes
        How many classes, drawn at random; fewer are a subset of more. None: all.
    imbalance
        Images of the most frequent class of the pool per image of the rarest.
    shift
        How far the images are from those that tiny-clip learned from, of `shapes.SHIFTS`.
    noise
        Share of the pool for which the oracle gives a wrong label.
    duplicates
        Share of the pool that are near copies of other images in it.
    pool
        Images in the pool. None: 4,000 of `shapes`; of `digits` as many as there are.

    Raises ValueError for a value that is not allowed, and for settings that no pool can have.
    """

    family: str
    by: tuple[str, ...] = ("figure", "pattern")
    classes: int | None = None
    imbalance: float = 1.0
    shift: str = "today"
    noise: float = 0.0
    duplicates: float = 0.0
    pool: int | None = None

    def __post_init__(self):
        self._check_names()
        self._check_ranges()
        self._normalise()
        self._check_sizes()

    @property
    def all_classes(self) -> int:
        """Number of classes to choose from."""
        if self.family == "digits":
            return 10
        return math.prod(len(shapes.ATTRIBUTES[name]) for name in self.by)

    @property
    def num_classes(self) -> int:
        return self.classes or self.all_classes

    @property
    def class_sizes(self) -> list[int] | None:
        """Pool images per class, largest first; None for all that `digits` has of each class."""
        total = self.pool
        if self.family == "shapes":
            total = total or POOL["shapes"]
        elif total is None and self.imbalance > 1:
            return _largest_digits(self.num_classes, self.imbalance)
        return total and class_sizes(total, self.num_classes, self.imbalance)

    @property
    def name(self) -> str:
        """The shortest spelling: "shapes?by=figure&classes=8", or "shapes" for the usual task."""
        usual = {field.name: field.default for field in fields(self)}
        changed = [key for key in KEYS[self.family] if getattr(self, key) != usual[key]]
        settings = "&".join(f"{key}={_text(getattr(self, key))}" for key in changed)
        return f"{self.family}?{settings}" if settings else self.family

    def _check_names(self) -> None:
        if self.family not in KEYS:
            raise ValueError(f"family = {self.family!r}; choose {' or '.join(KEYS)}")
        for field in fields(self)[1:]:
            if field.name not in KEYS[self.family] and getattr(self, field.name) != field.default:
                known = ", ".join(KEYS[self.family])
                raise ValueError(
                    f"{self.family} has no setting {field.name!r}; choose from {known}"
                )
        for name in self.by:
            if name not in shapes.ATTRIBUTES:
                raise ValueError(f"by = {name!r}{choices(name, [*shapes.ATTRIBUTES])}")
        if not self.by or len({*self.by}) < len(self.by):
            raise ValueError(
                f"by = {'+'.join(self.by)!r}: name one attribute or several different ones of "
                f"{', '.join(shapes.ATTRIBUTES)}, such as figure+pattern"
            )
        if self.shift not in shapes.SHIFTS:
            raise ValueError(f"shift = {self.shift!r}{choices(self.shift, [*shapes.SHIFTS])}")

    def _check_ranges(self) -> None:
        if self.classes is not None and not 2 <= self.classes <= self.all_classes:
            source = f"by {' and '.join(self.by)}" if self.family == "shapes" else "of digits"
            raise ValueError(
                f"classes = {self.classes}: there are {self.all_classes} {source}; choose 2 to "
                f"{self.all_classes}"
            )
        if not 1 <= self.imbalance <= LARGEST["imbalance"]:
            raise ValueError(
                f"imbalance = {self.imbalance:g}: it is the size of the largest class divided by "
                f"that of the smallest; choose 1 to {LARGEST['imbalance']}"
            )
        for key in ("noise", "duplicates"):
            if not 0 <= (share := getattr(self, key)) < 1:
                raise ValueError(
                    f"{key} = {share:g} is not a share of the pool; choose 0 to 0.99, such as 0.1"
                )
        most = LARGEST["pool"] if self.family == "shapes" else POOL["digits"]
        if self.pool is not None and not 1 <= self.pool <= most:
            raise ValueError(
                f"pool = {self.pool}: {self.family} has 1 to {most} images; choose one of these, "
                f"or leave it out for {POOL[self.family]}"
            )

    def _normalise(self) -> None:
        ordered = tuple(name for name in shapes.ATTRIBUTES if name in self.by)
        object.__setattr__(self, "by", ordered)
        for key in ("imbalance", "noise", "duplicates"):
            object.__setattr__(self, key, float(getattr(self, key)))
        if self.classes == self.all_classes:
            object.__setattr__(self, "classes", None)
        if self.pool == self._usual_pool():
            object.__setattr__(self, "pool", None)

    def _usual_pool(self) -> int | None:
        """Return the size of the pool if none is given; None if `digits` does not say."""
        if self.family == "digits" and self.imbalance > 1:
            return sum(_largest_digits(self.num_classes, self.imbalance))
        return POOL[self.family] if self.family == "shapes" or self.classes is None else None

    def _check_sizes(self) -> None:
        sizes = self.class_sizes or [DIGITS_PER_CLASS] * self.num_classes
        asked = f"{self.num_classes} classes, imbalance = {self.imbalance:g}"
        asked += f" and a pool of {sum(sizes)}"
        if min(sizes) < LEAST_PER_CLASS:
            raise ValueError(
                f"{asked} give the rarest class {min(sizes)} images; at least {LEAST_PER_CLASS} "
                "are needed: choose a larger pool, fewer classes or a smaller imbalance"
            )
        if self.family == "digits" and max(sizes) > DIGITS_PER_CLASS:
            most = sum(_largest_digits(self.num_classes, self.imbalance))
            raise ValueError(
                f"{asked} give the most frequent class {max(sizes)} images, but digits has "
                f"{DIGITS_PER_CLASS} of each; choose a pool of {most} at most, or leave it out"
            )
        originals = sum(sizes) - round(self.duplicates * sum(sizes))
        if originals < self.num_classes:
            raise ValueError(
                f"duplicates = {self.duplicates:g} leaves {originals} originals for "
                f"{self.num_classes} classes in a pool of {sum(sizes)}; each class needs one: "
                "choose a smaller share or a larger pool"
            )


def parse(name: str) -> TaskSpec | None:
    """Read the name of an embedded data set, with or without settings; None for any other name.

    Raises ValueError for settings that are misspelt, or that `TaskSpec` refuses.
    """
    family, mark, settings = name.partition("?")
    if family not in KEYS:
        return None
    try:
        return TaskSpec(family, **_settings(family, settings) if mark else {})
    except ValueError as error:
        raise ValueError(f"data set {name!r}: {error}") from None


def canonical_name(name: str) -> str:
    """Return `TaskSpec.name` if `name` is of an embedded data set, else `name` as it is."""
    spec = parse(name)
    return spec.name if spec else name


def _settings(family: str, text: str) -> dict[str, Any]:
    """Read "key=value&key=value"."""
    found: dict[str, Any] = {}
    for part in text.split("&"):
        key, _, value = part.partition("=")
        if not value:
            raise ValueError(
                f"{part!r} is not a setting; write key=value, joined by &, as in {EXAMPLE!r}"
            )
        if key not in KEYS[family]:
            raise ValueError(f"{family} has no setting {key!r}{choices(key, KEYS[family])}")
        if key in found:
            raise ValueError(f"{key} is given twice; give it once")
        found[key] = READERS[key](key, value)
    return found


def _whole(key: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text, re.ASCII):
        raise ValueError(f"{key} = {text!r}: a whole number is needed, such as {key}=8")
    return int(text)


def _number(key: str, text: str) -> float:
    if not NUMBER.fullmatch(text):
        example = 20 if key == "imbalance" else 0.1
        raise ValueError(
            f"{key} = {text!r}: a number with at most four decimals is needed, such as "
            f"{key}={example}"
        )
    return float(text)


READERS: dict[str, Callable[[str, str], Any]] = {
    "by": lambda key, text: tuple(text.split("+")),
    "shift": lambda key, text: text,
    **dict.fromkeys(("classes", "pool"), _whole),
    **dict.fromkeys(("imbalance", "noise", "duplicates"), _number),
}


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "+".join(value)
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)


def _largest_digits(num_classes: int, imbalance: float) -> list[int]:
    """Return the sizes of the largest pool of `digits` with this imbalance."""
    shape = class_sizes(10**6, num_classes, imbalance)
    return class_sizes(DIGITS_PER_CLASS * sum(shape) // max(shape), num_classes, imbalance)
