"""Seeded augmented views of an image, shared by teacher and student.

A view is a crop box and a flip, drawn from hash(seed, image, view). The teacher encodes it once, at
its own input size (`cache.py`); the student is trained on the same box at the student's size
(`training.py`), so the teacher never runs during training. View 0 is the evaluation view: resize
the shorter side, then crop the centre.

Photographs of any size are cut one by one: `crop` draws boxes as torchvision's RandomResizedCrop
does, and `photos.py` renders them. Equal-sized images in a tensor are cut as a batch on the
tensor's device, by `pixels`.
"""

import math
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.utils.device import send
from activekd_lite.utils.seeding import uniforms

FRESH = 2**20  # the largest number of views per image: hardly any is drawn twice
ATTEMPTS = 10  # of torchvision's RandomResizedCrop to draw a box that fits


@dataclass(frozen=True)
class Augmentation:
    """A random resized crop and a horizontal flip.

    scale: range of the crop's area, as a fraction of the image.
    ratio: range of its width / height.
    flip: probability.

    A box that does not fit a photograph is drawn again; after ATTEMPTS tries the crop is central,
    as in torchvision. For images in a tensor the box is clamped instead, so that a whole batch is
    drawn at once. Boxes seldom exceed a square image (with `scale` up to 3/4 and the default
    `ratio` they never do).
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
            raise ValueError(f"augmentation flip {self.flip} must be a probability, from 0 to 1")


@dataclass(frozen=True)
class Views:
    """`count` views of every image: view 0 is the centre crop, the others are augmented.

    With a teacher, one view is enough (`benchmarks/RESULTS.md`). Without a teacher, FRESH views
    cost nothing, and they are better on `digits`.
    """

    count: int = 1
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self):
        if not 1 <= self.count <= FRESH:
            raise ValueError(f"views = {self.count}: 1 (the centre crop) to {FRESH} are allowed")

    def fingerprint(self) -> dict:
        """Everything that determines the views' boxes, ready for JSON."""
        return {"count": self.count, "seed": self.seed, **asdict(self.augmentation)}


def check_view(views: Views, view: Tensor) -> Tensor:
    """`view` (B,) as a tensor. Raises ValueError for a view outside [0, views.count)."""
    view = torch.as_tensor(view)
    if view.numel() and not (0 <= int(view.min()) and int(view.max()) < views.count):
        raise ValueError(
            f"views {int(view.min())}..{int(view.max())} requested; "
            f"there are views 0..{views.count - 1}"
        )
    return view


def crop(
    views: Views, image: int, view: int, width: int, height: int
) -> tuple[int, int, int, int, bool] | None:
    """The crop of one view of a photograph, distributed as torchvision's RandomResizedCrop.

    width, height: of the whole photograph, in pixels.
    Returns top, left, height, width and flip, or None for view 0, the centre view.
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
    """Crop boxes and flips of (image, view) pairs of equal-sized images.

    image_ids, view: (B,) integers. height, width: of the images, in pixels.
    Returns (B, 5) float32: top, left, height and width as fractions of the image, and flip (0, 1).
    Raises ValueError for a view outside [0, views.count).
    """
    image_ids, view = torch.as_tensor(image_ids), check_view(views, view)
    aug = views.augmentation
    image, number = (x.cpu().numpy().astype(np.uint64) for x in (image_ids, view))
    ids = image * np.uint64(FRESH) + number
    u = uniforms(views.seed, ids, 5)  # (B, 5)
    area = aug.scale[0] + (aug.scale[1] - aug.scale[0]) * u[:, 0]
    ratio = np.exp(np.log(aug.ratio[0]) + np.log(aug.ratio[1] / aug.ratio[0]) * u[:, 1])
    ratio = ratio * height / width  # width / height, in fractions of the image
    box_h = np.minimum(np.sqrt(area / ratio), 1.0)
    box_w = np.minimum(np.sqrt(area * ratio), 1.0)
    top, left = u[:, 2] * (1 - box_h), u[:, 3] * (1 - box_w)
    drawn = np.stack([top, left, box_h, box_w, u[:, 4] < aug.flip], axis=1)
    drawn = torch.from_numpy(drawn).float()
    return torch.where((view == 0).cpu()[:, None], center_box(height, width), drawn)


def all_views(ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(image, view) pairs, (count * b,) each: all views of the images `ids` (b,), view by view."""
    return ids.repeat(count), torch.arange(count).repeat_interleave(len(ids))


def center_box(height: int, width: int) -> Tensor:
    """The box (1, 5) of view 0: the centre square, not flipped."""
    side = min(height, width)
    box_h, box_w = side / height, side / width
    return torch.tensor([[(1 - box_h) / 2, (1 - box_w) / 2, box_h, box_w, 0.0]])


def render(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut boxes out of images by bilinear sampling, on the images' device.

    images: (B, 3, H, W) uint8. boxes: (B, 5) from `boxes`.
    Returns (B, 3, size, size) float32 in [0, 1].
    There is no antialiasing, so images should have about the resolution of the views (a view of
    224 pixels from an image of 256 pixels is fine).
    """
    top, left, box_h, box_w, flip = send(boxes, images.device).unbind(dim=1)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = box_w * (1 - 2 * flip)
    theta[:, 1, 1] = box_h
    theta[:, 0, 2] = 2 * left + box_w - 1
    theta[:, 1, 2] = 2 * top + box_h - 1
    # (B, size, size, 2)
    grid = F.affine_grid(theta, [len(images), 3, size, size], align_corners=False)
    x = images.float() / 255
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def render_center(images: Tensor, size: int, mode: str = "bilinear") -> Tensor:
    """View 0, the usual evaluation transform: antialiased resize, then centre crop.

    images: (B, 3, H, W) uint8. mode: "bilinear" or "bicubic".
    Returns (B, 3, size, size) float32 in [0, 1].
    """
    height, width = images.shape[-2:]
    short = min(height, width)
    resized = (height * size // short, width * size // short)  # rounded down, as in torchvision
    x = images.float() / 255
    pixels = F.interpolate(x, resized, mode=mode, antialias=True, align_corners=False)
    top, left = (round((side - size) / 2) for side in resized)
    return pixels[..., top : top + size, left : left + size].clamp(0, 1)


def pixels(
    views: Views, images: Tensor, image_ids: Tensor, view: Tensor, size: int, mode: str = "bilinear"
) -> Tensor:
    """The pixels of (image, view) pairs, as teacher and student get them.

    images: (B, 3, H, W) uint8, the images with the ids `image_ids` (B,). view: (B,).
    Returns (B, 3, size, size) float32 in [0, 1].
    """
    height, width = images.shape[-2:]
    out = render(images, boxes(views, image_ids, view, height, width), size)
    # nonzero runs on the CPU, where `view` is: on a GPU it would wait for the queue
    central = send(torch.nonzero(view == 0).flatten(), images.device)
    if len(central):
        out[central] = render_center(images[central], size, mode)
    return out
