"""Checks of image tensors, pool indices and probabilities, with errors that say what to do."""

import torch
from torch import Tensor

from activekd_lite.utils.images import ImageFiles


def check_images(images: Tensor | ImageFiles, part: str) -> None:
    """Raise ValueError for anything but (N, 3, H, W) torch.uint8; the error names `part`."""
    if not isinstance(images, Tensor | ImageFiles):
        raise ValueError(
            f"{part} images are a {type(images).__name__}; one tensor or array (N, 3, H, W) of "
            "uint8 is needed: torch.stack or np.stack makes one from a list"
        )
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        recipe = "0 to 255, channels first"
        if images.shape[-1] == 3:
            recipe = "images.permute(0, 3, 1, 2) puts channels first"
        raise ValueError(
            f"{part} images are {tuple(images.shape)} {images.dtype}; (N, 3, H, W) torch.uint8 is "
            f"needed: {recipe}"
        )


def check_indices(indices: Tensor, size: int, what: str) -> None:
    """Raise ValueError for anything but pool indices, integers from 0 to size - 1.

    torch would count negative ones from the end. what: start of the error, such as "badge chose".
    """
    if indices.is_floating_point() or indices.dtype in (torch.bool, torch.uint8):  # uint8: a mask
        raise ValueError(
            f"{what} {indices.dtype} numbers; pool indices are needed, integers from 0 to "
            f"{size - 1}"
        )
    if wrong := indices[(indices < 0) | (indices >= size)].tolist():
        raise ValueError(
            f"{what} {wrong[0]}, which is not a pool index: the pool has {size} images, 0 to "
            f"{size - 1}"
        )


def check_finite(name: str, values: Tensor) -> None:
    """Raise ValueError if values (N, ...) hold NaN or infinity, naming the first image."""
    if values.numel() == 0 or all(torch.isfinite(extreme) for extreme in values.aminmax()):
        return
    bad = ~torch.isfinite(values).all(dim=1)
    raise ValueError(
        f"{name} of {int(bad.sum())} images are NaN or infinite, first at pool index "
        f"{int(bad.float().argmax())}; the training diverged (lower lr) or an image is damaged"
    )


def check_probabilities(name: str, probs: Tensor) -> None:
    """Raise ValueError if finite probs (N, C) are negative or do not sum to 1.

    The tolerance allows for float16 and bfloat16.
    """
    sums = probs.sum(dim=1, dtype=torch.promote_types(probs.dtype, torch.float32))
    bad = (sums - 1).abs() > 0.01
    if len(probs) and probs.min() < 0:
        bad |= (probs < 0).any(dim=1)
    if bad.any():
        first = int(bad.float().argmax())
        raise ValueError(
            f"{name} of {int(bad.sum())} images are not probabilities, first at pool index "
            f"{first}: they sum to {float(sums[first]):.4g} and the smallest is "
            f"{float(probs[first].min()):.3g}; apply .softmax(dim=1) to logits"
        )
