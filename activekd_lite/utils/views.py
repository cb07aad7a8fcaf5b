"""The seeded augmented views of an image: what teacher and student share.

A view is a crop box and a flip, drawn from hash(seed, image, view). The teacher encodes it once at its own input size
(`cache.py`), the student is trained on it at the student's size (`training.py`): both see the same cut of the same
image, though the teacher never runs during training. View 0 is the evaluation view: resize the shorter side, centre crop.

Two kinds of images have views. Photographs, each with a size of its own, are cut one by one: `crop` draws as torchvision's
RandomResizedCrop does, `photos.py` renders. Equal-sized images in one tensor are cut as a batch on its device (`pixels`).
"""

import math
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.utils.device import send
from activekd_lite.utils.seeding import uniforms


@dataclass(frozen=True)
class Augmentation:
    """RandomResizedCrop (`scale`: share of the area, `ratio`: width / height) and horizontal flip (a probability).

    A box that does not fit: of a photograph it is drawn again, at most 10 times, and then central, as in torchvision. Of
    equal-sized images in a tensor it is clamped, so that a whole batch is drawn at once; such images are mostly squares, which
    boxes seldom exceed (never with `scale` up to 3/4 and the default `ratio`).
    """

    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __post_init__(self):
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"augmentation scale {self.scale} must satisfy 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"augmentation ratio {self.ratio} must satisfy 0 < low <= high")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"augmentation flip {self.flip} is a probability: between 0 and 1")


FRESH = 2**20  # views of an image: the most that are told apart, so that hardly any is drawn twice


@dataclass(frozen=True)
class Views:
    """`count` views of every image; view 0 is the centre crop, the others follow `augmentation`.

    One is enough where a teacher is learnt from (`benchmarks/RESULTS.md`); without a teacher FRESH costs nothing and is better.
    """

    count: int = 1
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self):
        if not 1 <= self.count <= FRESH:
            raise ValueError(f"views = {self.count}: 1 (the centre crop) to {FRESH} are possible")

    def fingerprint(self) -> dict:
        """What decides the pixels of every view of a pool, JSON-ready."""
        return {"count": self.count, "seed": self.seed, **asdict(self.augmentation)}


def check_view(views: Views, view: Tensor) -> Tensor:
    """`view` (B,) as a tensor. Raises ValueError for one outside [0, views.count)."""
    view = torch.as_tensor(view)
    if view.numel() and not (0 <= int(view.min()) and int(view.max()) < views.count):
        raise ValueError(
            f"view {int(view.min())}..{int(view.max())} asked for, but there are views 0..{views.count - 1}"
        )
    return view


ATTEMPTS = 10  # of torchvision's RandomResizedCrop to find a box that fits


def crop(
    views: Views, image: int, view: int, width: int, height: int
) -> tuple[int, int, int, int, bool] | None:
    """The crop of one view of a photograph, distributed as torchvision's RandomResizedCrop: top, left, height, width, flip.

    width, height: pixels of the whole photograph. Returns None for view 0, the centre view.
    """
    if view == 0:
        return None
    aug = views.augmentation
    flip, *u = uniforms(views.seed, np.array([image * FRESH + view]), 1 + 4 * ATTEMPTS)[0].tolist()
    for area, ratio, top, left in zip(*(u[k::4] for k in range(4)), strict=True):
        area = height * width * (aug.scale[0] + (aug.scale[1] - aug.scale[0]) * area)
        ratio = aug.ratio[0] * (aug.ratio[1] / aug.ratio[0]) ** ratio
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(top * (height - h + 1)), int(left * (width - w + 1)), h, w, flip < aug.flip
    w = min(width, max(1, round(height * aug.ratio[1])))
    h = min(height, max(1, round(width / aug.ratio[0])))
    return (height - h) // 2, (width - w) // 2, h, w, flip < aug.flip


def boxes(views: Views, image_ids: Tensor, view: Tensor, height: int, width: int) -> Tensor:
    """Crop boxes and flips of some (image, view) pairs of equal-sized images.

    image_ids, view: (B,) integers; height, width: pixels of the images. Returns (B, 5) float32: top, left, height and
    width as shares of the image, and flip (0 or 1). Raises ValueError for a view outside [0, views.count).
    """
    image_ids, view = torch.as_tensor(image_ids), check_view(views, view)
    aug = views.augmentation
    ids = image_ids.cpu().numpy().astype(np.uint64) * np.uint64(FRESH) + view.cpu().numpy().astype(
        np.uint64
    )
    u = uniforms(views.seed, ids, 5)  # (B, 5)
    area = aug.scale[0] + (aug.scale[1] - aug.scale[0]) * u[:, 0]
    ratio = np.exp(np.log(aug.ratio[0]) + np.log(aug.ratio[1] / aug.ratio[0]) * u[:, 1])
    ratio = ratio * height / width  # width / height, in shares of the image
    box_h = np.minimum(np.sqrt(area / ratio), 1.0)
    box_w = np.minimum(np.sqrt(area * ratio), 1.0)
    top, left = u[:, 2] * (1 - box_h), u[:, 3] * (1 - box_w)
    drawn = torch.from_numpy(
        np.stack([top, left, box_h, box_w, u[:, 4] < aug.flip], axis=1)
    ).float()
    return torch.where((view == 0).cpu()[:, None], center_box(height, width), drawn)


def all_views(ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`count` views of the images `ids` (b,) as (image, view) pairs, view by view: (count * b,) each."""
    return ids.repeat(count), torch.arange(count).repeat_interleave(len(ids))


def center_box(height: int, width: int) -> Tensor:
    """The (1, 5) box of view 0: the centred square on the shorter side, not flipped."""
    side = min(height, width)
    box_h, box_w = side / height, side / width
    return torch.tensor([[(1 - box_h) / 2, (1 - box_w) / 2, box_h, box_w, 0.0]])


def render(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut boxes out of images, on the images' device, by bilinear sampling.

    images: (B, 3, H, W) uint8; boxes: (B, 5) from `boxes`. Returns (B, 3, size, size) float32 in [0, 1]. There is no
    antialiasing: hold images at about the resolution of the views (a 224-pixel view from a 256-pixel image is fine).
    """
    top, left, box_h, box_w, flip = send(boxes, images.device).unbind(dim=1)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = box_w * (1 - 2 * flip)
    theta[:, 1, 1] = box_h
    theta[:, 0, 2] = 2 * left + box_w - 1
    theta[:, 1, 2] = 2 * top + box_h - 1
    grid = F.affine_grid(
        theta, [len(images), 3, size, size], align_corners=False
    )  # (B, size, size, 2)
    return F.grid_sample(
        images.float() / 255, grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def render_center(images: Tensor, size: int, mode: str = "bilinear") -> Tensor:
    """View 0 as the usual evaluation transform: resize the shorter side to `size` with antialiasing, centre crop.

    images: (B, 3, H, W) uint8; mode: "bilinear" or "bicubic". Returns (B, 3, size, size) float32 in [0, 1].
    """
    height, width = images.shape[-2:]
    short = min(height, width)
    resized = (height * size // short, width * size // short)  # torchvision cuts off, too
    pixels = F.interpolate(
        images.float() / 255, resized, mode=mode, antialias=True, align_corners=False
    )
    top, left = (round((side - size) / 2) for side in resized)
    return pixels[..., top : top + size, left : left + size].clamp(0, 1)


def pixels(
    views: Views, images: Tensor, image_ids: Tensor, view: Tensor, size: int, mode: str = "bilinear"
) -> Tensor:
    """Any mix of views of some images: what teacher and student are given.

    images: (B, 3, H, W) uint8, the images `image_ids` (B,) themselves; view: (B,). Returns (B, 3, size, size) in [0, 1].
    """
    height, width = images.shape[-2:]
    out = render(images, boxes(views, image_ids, view, height, width), size)
    central = send(
        torch.nonzero(view == 0).flatten(), images.device
    )  # found where `view` is: no waiting for a GPU
    if len(central):
        out[central] = render_center(images[central], size, mode)
    return out
