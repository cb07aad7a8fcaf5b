"""What several parts of the kit check about what they are given: whole numbers, labels, prompt templates."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor


def whole_number(name: str, value: object, least: int | None = None) -> int:
    """`value` as an int: Python's and numpy's whole numbers, not bools.

    Raises ValueError for anything else, and for one under `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or (least is not None and value < least):
        raise ValueError(f"{name} = {value!r}: a whole number{'' if least is None else f' of at least {least}'} is needed")
    return int(value)


def class_numbers(labels: Tensor | np.ndarray | Sequence[int]) -> Tensor:
    """Labels (N,) as int64; floats are welcome if they are whole.

    Raises ValueError for any other shape (such as one-hot) and for values that are not whole numbers.
    """
    try:
        labels = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"labels are no numbers ({error}); give each image its position in the class names, 0, 1, ..."
        ) from error
    if labels.ndim != 1:
        hint = "one-hot labels become such with .argmax(1)" if labels.ndim == 2 else "give a list of them"
        raise ValueError(f"labels are {tuple(labels.shape)}; one class number per image, (N,), is needed: {hint}")
    if labels.dtype == torch.bool or labels.is_complex():
        raise ValueError(f"labels are {labels.dtype}; class numbers are needed: convert them to int")
    if len(broken := torch.nonzero(labels != labels.round()).flatten() if labels.is_floating_point() else ()):
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
