"""Which images and views make up each training step."""

import math

import torch
from torch import Tensor

from activekd_lite.utils.images import Batch


def draw_batches(
    candidates: Tensor,
    view_count: int,
    steps: int,
    batch_size: int,
    sampling: str,
    generator: torch.Generator,
) -> list[Batch]:
    """Draw pool indices (B,) from `candidates`, and the view (B,) of each, for every step.

    sampling: "replacement", or "passes", which shuffles the candidates once per pass.
    """
    if sampling == "replacement":
        drawn = torch.randint(len(candidates), (steps, batch_size), generator=generator)
        picks = candidates[drawn]
    else:
        filled = fill_up(candidates, batch_size)
        passes = math.ceil(steps * batch_size / len(filled))
        orders = [torch.randperm(len(filled), generator=generator) for _ in range(passes)]
        picks = filled[torch.cat(orders)[: steps * batch_size]].view(steps, batch_size)
    views = torch.randint(view_count, (steps, batch_size), generator=generator)
    return list(zip(picks, views, strict=True))


def fill_up(indices: Tensor, batch_size: int) -> Tensor:
    """Repeat the first of `indices` (n,) until they make whole batches."""
    whole = math.ceil(len(indices) / batch_size) * batch_size
    return indices[torch.arange(whole) % len(indices)]
