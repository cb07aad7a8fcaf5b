"""What makes a task harder than its images: rare classes, near copies, wrong labels.

Every function is deterministic, and each draws from a stream of its own: a pool with wrong labels
has the same images as the pool without them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.utils.seeding import generator

LEAST_PER_CLASS = 2  # pool images: one to start from, and one to ask for
COPY_SHIFT, COPY_NOISE = 0.03, 4.0  # of a near copy: fraction of a side; of 255 grey levels


def class_sizes(total: int, num_classes: int, imbalance: float = 1.0) -> list[int]:
    """Share `total` images among classes whose sizes fall geometrically, largest first.

    imbalance: the largest size divided by the smallest, up to rounding.
    """
    last = max(1, num_classes - 1)
    weights = [imbalance ** (-i / last) for i in range(num_classes)]
    exact = [total * weight / math.fsum(weights) for weight in weights]
    sizes = [int(value) for value in exact]
    by_remainder = sorted(range(num_classes), key=lambda i: sizes[i] - exact[i])
    for i in by_remainder[: total - sum(sizes)]:
        sizes[i] += 1
    return sizes


def shuffled_sizes(sizes: list[int]) -> list[int]:
    """Return the sizes in another order, so that the first classes are not the frequent ones."""
    order = torch.randperm(len(sizes), generator=generator(0, "rare classes"))
    return [sizes[i] for i in order.tolist()]


def draw_rows(labels: Tensor, sizes: list[int]) -> Tensor:
    """Draw sizes[c] images of each class c at random. Returns ascending rows (sum(sizes),)."""
    order = torch.randperm(len(labels), generator=generator(0, "part of each class"))
    rows = [order[labels[order] == c][:size] for c, size in enumerate(sizes)]
    return torch.cat(rows).sort().values


def with_near_copies(images: Tensor, labels: Tensor, share: float) -> Tensor:
    """Replace a share of the images by near copies of others of their class.

    images: (N, 3, H, W) uint8; labels: (N,). Labels and class sizes stay as they are, and so does
    one original or more per class.
    """
    g = generator(0, "near copies")
    order = torch.randperm(len(images), generator=g)
    first = {int(c): int(order[labels[order] == c][0]) for c in labels.unique()}
    free = order[~torch.isin(order, torch.tensor(list(first.values())))]
    copies = free[: round(share * len(images))]
    is_copy = torch.zeros(len(images), dtype=torch.bool)
    is_copy[copies] = True
    originals = torch.empty_like(copies)
    for c in labels[copies].unique():
        rows = labels[copies] == c
        choices = torch.nonzero((labels == c) & ~is_copy).flatten()
        originals[rows] = choices[torch.randint(len(choices), (int(rows.sum()),), generator=g)]
    altered = images.clone()
    altered[copies] = near_copies(images[originals], g)
    return altered


def near_copies(images: Tensor, g: torch.Generator) -> Tensor:
    """Shift images (B, 3, H, W) uint8 by a small part of a side, and add a little noise."""
    moves = COPY_SHIFT * (2 * torch.rand(len(images), 2, generator=g) - 1)
    theta = torch.eye(2, 3).repeat(len(images), 1, 1)
    theta[:, :, 2] = 2 * moves  # a side is 2 long
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    noise = COPY_NOISE * torch.randn(len(images), 1, *images.shape[2:], generator=g)
    return (moved + noise).clamp(0, 255).round().to(torch.uint8)


def with_wrong_labels(labels: Tensor, num_classes: int, share: float) -> Tensor:
    """Replace a share of the labels (N,) by other classes, each as likely as the next."""
    g = generator(0, "wrong labels")
    rows = torch.randperm(len(labels), generator=g)[: round(share * len(labels))]
    wrong = labels.clone()
    steps = torch.randint(1, num_classes, (len(rows),), generator=g)
    wrong[rows] = (labels[rows] + steps) % num_classes
    return wrong
