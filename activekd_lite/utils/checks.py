"""What several parts of the kit check about what they are given: whole numbers, labels, prompt templates."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor


def is_whole(value: object) -> bool:
    """Python's and numpy's whole numbers, not bools."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def whole_number(name: str, value: object, least: int | None = None) -> int:
    """`value` as an int. Raises ValueError for anything but a whole number (`is_whole`), and for one under `least`."""
    if not is_whole(value) or (least is not None and value < least):
        raise ValueError(
            f"{name} = {value!r}: a whole number{'' if least is None else f' of at least {least}'} is needed"
        )
    return int(value)


def check_whole_valued(config: object, *names: str) -> None:
    """Raises ValueError for a field of `config` that is no whole number; 150.0 is one."""
    for name in names:
        if (value := getattr(config, name)) != int(value):
            raise ValueError(f"{name} = {value}: a whole number is needed")


def as_tensor(values: object, what: str, needed: str) -> Tensor:
    """`values` as a tensor. Raises ValueError that says what they are and what is needed."""
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{what} are no numbers ({error}); {needed}") from error


def class_numbers(labels: Tensor | np.ndarray | Sequence[int]) -> Tensor:
    """Labels (N,) as int64; floats are welcome if they are whole.

    Raises ValueError for any other shape (such as one-hot) and for values that are not whole numbers.
    """
    labels = as_tensor(
        labels, "labels", "give each image its position in the class names, 0, 1, ..."
    )
    if labels.ndim != 1:
        hint = (
            "one-hot labels become such with .argmax(1)"
            if labels.ndim == 2
            else "give a list of them"
        )
        raise ValueError(
            f"labels are {tuple(labels.shape)}; one class number per image, (N,), is needed: {hint}"
        )
    if labels.dtype == torch.bool or labels.is_complex():
        raise ValueError(
            f"labels are {labels.dtype}; class numbers are needed: convert them to int"
        )
    if len(
        broken := torch.nonzero(labels != labels.round()).flatten()
        if labels.is_floating_point()
        else ()
    ):
        first = int(broken[0])
        raise ValueError(
            f"label {labels[first].item():g} of image {first} is no whole number; class numbers 0, 1, ... are needed"
        )
    return labels.to(torch.int64)


def check_templates(templates: Sequence[str]) -> None:
    """Raises ValueError for a template that does not hold {} exactly once, and for other braces."""
    if flat := [t for t in templates if t.count("{}") != 1 or set("{}") & set(t.replace("{}", ""))]:
        raise ValueError(
            f"templates {flat} do not hold {{}} once and no other braces; write {{}} where the class name goes, as in "
            "'a photo of a {}.'"
        )
