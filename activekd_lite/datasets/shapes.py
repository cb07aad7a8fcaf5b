"""The generated data set `shapes`: 12 figures x 3 patterns = 36 classes of 32 x 32 colour images.

There are three domains: the one that tiny-clip was pre-trained on, a harder target domain with
more rotation, noise and clutter, so that the teacher's errors on the target are systematic, and
one that is harder still. Other classes can be made of the same images: their figures alone, say.
Every figure is an implicit function of coordinates (u, v) in its own frame, where it spans about
-1 to 1. Images are drawn at twice their size and averaged.

In shapes, B is the batch and S = SIZE * SUPERSAMPLE the side of the canvas.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

FIGURES = tuple(
    "circle square triangle diamond pentagon hexagon star heart cross crescent arrow ring".split()
)
PATTERNS = ("solid", "striped", "dotted")
CLASSNAMES = tuple(f"{pattern} {figure}" for figure in FIGURES for pattern in PATTERNS)
COLOURS = {
    "red": (210, 40, 45),
    "green": (40, 150, 60),
    "blue": (45, 85, 210),
    "yellow": (235, 205, 40),
    "orange": (240, 135, 30),
    "purple": (135, 60, 170),
    "pink": (245, 145, 185),
    "brown": (125, 80, 45),
    "black": (20, 20, 22),
    "white": (245, 245, 242),
}
SIZES = {"small": (0.0, 0.62), "big": (0.78, 1.0)}  # radii; those between have no word
# What a class can be made of, in the order of class numbers: the last one varies fastest.
ATTRIBUTES = {"size": tuple(SIZES), "colour": tuple(COLOURS), "figure": FIGURES}
ATTRIBUTES |= {"pattern": PATTERNS}
SPOKEN = ("size", "colour", "pattern", "figure")  # the order of words in a class name
SIZE, SUPERSAMPLE, CHUNK = 32, 2, 512


@dataclass(frozen=True)
class Domain:
    """How hard the images are.

    rotation_deg: largest rotation. noise: standard deviation, of 255 grey levels.
    clutter: number of small figures in the background.
    radius: smallest and largest figure, as a fraction of half the image.
    contrast: smallest distance between figure and background colour, as a fraction of the distance
    between black and white.
    """

    rotation_deg: float
    noise: float
    clutter: int
    radius: tuple[float, float]
    contrast: float


PRETRAINING = Domain(rotation_deg=20, noise=8, clutter=1, radius=(0.5, 0.9), contrast=0.25)
TARGET = Domain(rotation_deg=25, noise=11, clutter=2, radius=(0.45, 0.9), contrast=0.2)
HARD = Domain(rotation_deg=30, noise=14, clutter=3, radius=(0.43, 0.9), contrast=0.18)
SHIFTS = {"easy": PRETRAINING, "today": TARGET, "hard": HARD}


def make_shapes(count: int, seed: int, domain: Domain = TARGET) -> tuple[Tensor, Tensor]:
    """Draw `count` images in random order, with equally many per class (at most one more).

    Returns images (count, 3, 32, 32) uint8 and labels (count,) int64, positions in CLASSNAMES.
    """
    images, labels, _ = make_coloured_shapes(count, seed, domain)
    return images, labels


def make_coloured_shapes(
    count: int, seed: int, domain: Domain = TARGET
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the images and labels of `make_shapes` and the figures' colours.

    colours: (count,) int64 positions in COLOURS; for striped and dotted figures, the first of two.
    """
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(count)[torch.randperm(count, generator=g)] % len(CLASSNAMES)
    values = {"figure": labels // len(PATTERNS), "pattern": labels % len(PATTERNS)}
    images, colours = draw_all(values, domain, g)
    return images, labels, colours


def classes_by(by: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """Return the names of the classes that these attributes make, and their values.

    by: names of ATTRIBUTES, in their order. values: (C, len(by)) positions in each attribute.
    """
    spoken = sorted(range(len(by)), key=lambda i: SPOKEN.index(by[i]))
    values = list(product(*(range(len(ATTRIBUTES[name])) for name in by)))
    names = (" ".join(ATTRIBUTES[by[i]][row[i]] for i in spoken) for row in values)
    return tuple(names), torch.tensor(values)


def make_task(
    by: Sequence[str], chosen: Tensor, sizes: Sequence[int], seed: int, domain: Domain = TARGET
) -> tuple[Tensor, Tensor]:
    """Draw sizes[c] images of class chosen[c], of those by these attributes, in random order.

    The attributes that are not in `by` are drawn at random.
    Returns images (N, 3, 32, 32) uint8 and labels (N,) int64, positions in `chosen`.
    With figures, patterns and all classes, they are those of `make_shapes`.
    """
    g, count = torch.Generator().manual_seed(seed), sum(sizes)
    turn = torch.arange(count) - torch.repeat_interleave(_starts(sizes), torch.tensor(sizes))
    classes = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    in_turns = classes[(turn * len(sizes) + classes).argsort()]  # 0, 1, 2, 0, 1, 2, 0, 2
    labels = in_turns[torch.randperm(count, generator=g)]
    values = dict(zip(by, classes_by(by)[1][chosen[labels]].T, strict=True))
    images, _ = draw_all(values, domain, g)
    return images, labels


def _starts(sizes: Sequence[int]) -> Tensor:
    return torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)


def draw_all(
    values: dict[str, Tensor], domain: Domain, g: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw many images; values: (N,) positions for some ATTRIBUTES, the others are random.

    Returns images (N, 3, 32, 32) uint8 and colours (N,).
    """
    count = len(next(iter(values.values())))
    for name in ("figure", "pattern"):
        if name not in values:
            choices = len(ATTRIBUTES[name])
            values = values | {name: torch.randint(choices, (count,), generator=g)}
    chunks = torch.arange(count).split(CHUNK)
    parts = ({name: value[rows] for name, value in values.items()} for rows in chunks)
    drawn = [draw(domain=domain, g=g, **part) for part in parts]
    images = torch.cat([images for images, _ in drawn])
    return images, torch.cat([found["colour"] for _, found in drawn])


def draw(
    figure: Tensor,
    pattern: Tensor,
    domain: Domain,
    g: torch.Generator,
    *,
    colour: Tensor | None = None,
    size: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw one image for each pair of a figure and a pattern.

    figure, pattern: (B,) positions in FIGURES and PATTERNS. colour, size: (B,) positions in COLOURS
    and SIZES; None draws them at random.
    Returns images (B, 3, 32, 32) uint8 and the random values that captions mention: "colour" (B,),
    positions in COLOURS, and "radius" (B,).
    """
    u, v, radius = frames(len(figure), domain, g, size=size)
    mask = figure_mask(figure, u, v)  # (B, S, S) bool
    texture = texture_of(pattern, u * radius, v * radius, g)  # (B, S, S) in [0, 1]
    images, colour = paint(mask, texture, domain, g, colour)
    return images, {"colour": colour, "radius": radius.flatten()}


def frames(
    count: int,
    domain: Domain,
    g: torch.Generator,
    small: bool = False,
    size: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Place `count` figures at random.

    small: draw clutter, which may reach over the edge, instead of a main figure.
    size: (B,) positions in SIZES, whose radii are kept to; None allows all of the domain's.
    Returns each pixel's coordinates u, v (B, S, S) in the figure's frame, and its radius (B, 1, 1).
    """

    def uniform(low, high):
        return low + (high - low) * torch.rand(count, 1, 1, generator=g)

    radius = uniform(0.12, 0.25) if small else uniform(*_radii(domain, size))
    room = 0.9 if small else (1 - radius).clamp(min=0) * 0.9
    x0, y0 = uniform(-1, 1) * room, uniform(-1, 1) * room
    turn = uniform(-1, 1) * math.radians(domain.rotation_deg)
    stretch = torch.exp(uniform(-0.12, 0.12))
    axis = (torch.arange(SIZE * SUPERSAMPLE) + 0.5) / (SIZE * SUPERSAMPLE) * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    x, y = x[None] - x0, y[None] - y0
    u = (x * turn.cos() + y * turn.sin()) / (radius * stretch)
    v = (y * turn.cos() - x * turn.sin()) / radius * stretch
    return u, v, radius


def _radii(domain: Domain, size: Tensor | None) -> tuple:
    """Return the smallest and the largest radius, as numbers or (B, 1, 1)."""
    if size is None:
        return domain.radius
    low, high = torch.tensor([*SIZES.values()])[size].T[..., None, None]
    return low.clamp(min=domain.radius[0]), high.clamp(max=domain.radius[1])


def figure_mask(figure: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return which pixels are inside the figure.

    figure: (B,) positions in FIGURES; u, v: (B, S, S), v pointing down. Returns (B, S, S) bool.
    """
    mask = torch.zeros_like(u, dtype=torch.bool)
    for index, name in enumerate(FIGURES):
        rows = figure == index
        if rows.any():
            mask[rows] = _INSIDE[name](u[rows], v[rows])
    return mask


def _polygon(sides: int):
    def inside(u, v):
        apothem = math.cos(math.pi / sides)
        angles = [math.pi * (2 * i + 1) / sides - math.pi / 2 for i in range(sides)]
        half_planes = [u * math.cos(a) + v * math.sin(a) <= apothem for a in angles]
        return torch.stack(half_planes).all(dim=0)

    return inside


def _star(u, v):
    angle = (torch.atan2(u, -v) * 5 / (2 * math.pi)) % 1.0  # 0 at a tip, 0.5 between two tips
    return torch.hypot(u, v) <= 1.05 - 1.25 * torch.minimum(angle, 1 - angle)


def _heart(u, v):
    x, y = u * 1.15, -v * 1.2 + 0.1
    return (x * x + y * y - 1) ** 3 - x * x * y**3 <= 0


def _arrow(u, v):
    shaft = (v.abs() <= 0.28) & (u >= -1) & (u <= 0.1)
    return shaft | ((u >= 0) & (u + v.abs() <= 1))


_INSIDE = {
    "circle": lambda u, v: u * u + v * v <= 0.9,
    "square": lambda u, v: torch.maximum(u.abs(), v.abs()) <= 0.8,
    "triangle": _polygon(3),
    "diamond": lambda u, v: u.abs() / 0.6 + v.abs() <= 1,
    "pentagon": _polygon(5),
    "hexagon": _polygon(6),
    "star": _star,
    "heart": _heart,
    "cross": lambda u, v: (
        (torch.minimum(u.abs(), v.abs()) <= 0.3) & (torch.maximum(u.abs(), v.abs()) <= 0.95)
    ),
    "crescent": lambda u, v: (u * u + v * v <= 0.95) & ((u - 0.5) ** 2 + v * v > 0.55),
    "arrow": _arrow,
    "ring": lambda u, v: (u * u + v * v <= 0.95) & (u * u + v * v >= 0.3),
}


def texture_of(pattern: Tensor, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
    """Return the weight of the first colour at each pixel, (B, S, S) in [0, 1].

    pattern: (B,) positions in PATTERNS; x, y: (B, S, S) in units of half the image.
    """
    turn = math.pi * torch.rand(len(pattern), 1, 1, generator=g)
    period = 0.28 + 0.1 * torch.rand(len(pattern), 1, 1, generator=g)
    along, across = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    wave_a, wave_b = (2 * math.pi * along / period).cos(), (2 * math.pi * across / period).cos()
    kind = pattern[:, None, None]
    striped, dotted = (wave_a > 0).float(), (wave_a + wave_b > 0.4).float()
    return torch.where(kind == 0, torch.ones_like(x), torch.where(kind == 1, striped, dotted))


def paint(
    mask: Tensor,
    texture: Tensor,
    domain: Domain,
    g: torch.Generator,
    colour: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw background, clutter, the coloured figure and noise.

    mask, texture: (B, S, S). colour: (B,) positions in COLOURS; None draws them at random.
    Returns images (B, 3, 32, 32) uint8 and colours (B,).
    """
    count = len(mask)
    palette = torch.tensor(list(COLOURS.values())).float()  # (10, 3)
    if colour is None:
        colour = torch.randint(len(palette), (count,), generator=g)
    first = (palette[colour] + 14 * torch.randn(count, 3, generator=g)).clamp(0, 255)
    background, second = _far_from(first, 2, domain.contrast, g)
    canvas = background[:, :, None, None].expand(-1, -1, *mask.shape[1:]).clone()  # (B, 3, S, S)
    for _ in range(domain.clutter):
        u, v, _ = frames(count, domain, g, small=True)
        behind = figure_mask(torch.randint(len(FIGURES), (count,), generator=g), u, v)[:, None]
        tint = background + (255 * torch.rand(count, 3, generator=g) - background) * 0.6
        canvas = torch.where(behind, tint[:, :, None, None], canvas)
    inner = second[:, :, None, None] + (first - second)[:, :, None, None] * texture[:, None]
    canvas = torch.where(mask[:, None], inner, canvas)
    small = F.avg_pool2d(canvas, SUPERSAMPLE)
    noisy = small + domain.noise * torch.randn(small.shape, generator=g)
    return noisy.clamp(0, 255).round().to(torch.uint8), colour


def _far_from(colour: Tensor, count: int, contrast: float, g: torch.Generator) -> list[Tensor]:
    """Return `count` random colours (B, 3) that differ enough from `colour` (B, 3).

    contrast: see `Domain`.
    """
    candidates = 255 * torch.rand(len(colour), 24, 3, generator=g)
    far = (candidates - colour[:, None]).norm(dim=2) > contrast * 255 * math.sqrt(3)  # (B, 24)
    order = far.float().argsort(dim=1, descending=True, stable=True)[:, :count]
    return [candidates[torch.arange(len(colour)), order[:, i]] for i in range(count)]
