"""Checks of arguments: whole numbers, class labels, prompt templates."""

from collections.abc import Sequence
from difflib import get_close_matches
from numbers import Integral

import numpy as np
import torch
from torch import Tensor


def is_whole(value: object) -> bool:
    """Whether `value` is an integer of Python or numpy; a bool is not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def whole_number(name: str, value: object, least: int | None = None) -> int:
    """`value` as an int. Raises ValueError unless it is an integer, of at least `least`."""
    if not is_whole(value) or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(f"{name} = {value!r}: a whole number{bound} is needed")
    return int(value)


def check_whole_valued(config: object, *names: str) -> None:
    """Raise ValueError if a field of `config` has a fractional value; 150.0 is accepted."""
    for name in names:
        if (value := getattr(config, name)) != int(value):
            raise ValueError(f"{name} = {value}: a whole number is needed")


def choices(wrong: object, known: Sequence[str]) -> str:
    """Return the end of a message about an unknown name: what is like it, and what is known."""
    near = get_close_matches(str(wrong), known, 1)
    hint = f", did you mean {near[0]}?" if near else ";"
    return f"{hint} choose from {', '.join(known)}"


def as_tensor(values: object, name: str, needed: str) -> Tensor:
    """`values` as a tensor. If they are not numbers, raises ValueError with `name` and `needed`."""
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} are not numbers ({error}); {needed}") from error


def class_numbers(labels: Tensor | np.ndarray | Sequence[int]) -> Tensor:
    """Labels (N,) as int64; floats are accepted if they are whole.

    Raises ValueError for any other shape (such as one-hot) and for values that are not whole.
    """
    needed = "give each image its position in the class names, 0, 1, ..."
    labels = as_tensor(labels, "labels", needed)
    if labels.ndim != 1:
        hint = "for one-hot labels, use .argmax(1)" if labels.ndim == 2 else "give a list of them"
        raise ValueError(
            f"labels are {tuple(labels.shape)}; one class number per image, (N,), is needed: {hint}"
        )
    if labels.dtype == torch.bool or labels.is_complex():
        raise ValueError(f"labels are {labels.dtype}; class numbers are needed: convert to int")
    if labels.is_floating_point() and (labels != labels.round()).any():
        first = int(torch.nonzero(labels != labels.round())[0])
        raise ValueError(
            f"label {labels[first].item():g} of image {first} is not a whole number; "
            "class numbers 0, 1, ... are needed"
        )
    return labels.to(torch.int64)


def check_templates(templates: Sequence[str]) -> None:
    """Raise ValueError for a template without exactly one {}, or with other braces."""
    if bad := [t for t in templates if t.count("{}") != 1 or set("{}") & set(t.replace("{}", ""))]:
        raise ValueError(
            f"templates {bad} do not hold {{}} once, or hold other braces; "
            "write {} where the class name goes, as in 'a photo of a {}.'"
        )
