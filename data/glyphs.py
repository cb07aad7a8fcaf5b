"""Characters as 64 x 64 masks for the two pre-training scripts: drawn from fonts, then distorted.

The fonts come with matplotlib. No image or label of a target data set is read, and no handwriting:
the models never see what fonts do not show (a plain stroke for 1, a crossed 7). This explains
tiny-clip's errors on real handwriting.
"""

from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

BOX = 64
FONTS = """
DejaVuSans DejaVuSans-Bold DejaVuSans-Oblique DejaVuSans-BoldOblique DejaVuSansMono
DejaVuSansMono-Oblique DejaVuSerif DejaVuSerif-Bold DejaVuSerif-Italic STIXGeneral
STIXGeneralBol STIXGeneralItalic STIXGeneralBolIta cmr10 cmb10 cmss10 cmtt10
""".split()


def font_glyphs(characters: str) -> tuple[Tensor, Tensor]:
    """Draw every character in every font.

    Returns masks (G, 64, 64), float in [0, 1], and positions (G,) in `characters`.
    """
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    masks = [_glyph(c, folder / f"{font}.ttf") for font in FONTS for c in characters]
    return torch.stack(masks), torch.arange(len(characters)).repeat(len(FONTS))


def deform(
    masks: Tensor, g: torch.Generator, turn_deg: float = 14, shear: float = 0.4, elastic: float = 9
) -> Tensor:
    """Apply a random turn, slant, stretch, strong elastic displacement and stroke width.

    (B, 64, 64) -> (B, 64, 64) binary float. elastic: standard deviation in pixels.
    """
    count = len(masks)
    turn = torch.deg2rad(turn_deg * torch.randn(count, generator=g)) / 1.5
    slant = shear * (
        1.4 * torch.rand(count, generator=g) - 0.4
    )  # mostly to the right, as in handwriting
    stretch = torch.exp(0.2 * torch.randn(count, 2, generator=g)) * 1.15
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = turn.cos() * stretch[:, 0]
    theta[:, 0, 1] = (slant - turn.sin()) * stretch[:, 0]
    theta[:, 1, 0], theta[:, 1, 1] = turn.sin() * stretch[:, 1], turn.cos() * stretch[:, 1]
    grid = F.affine_grid(theta, [count, 1, BOX, BOX], align_corners=False)
    for cells, part in ((4, 1.0), (7, 0.5)):  # bends of low and of high frequency
        amplitude = elastic * 2 / BOX * torch.rand(count, 1, 1, 1, generator=g) * part
        knots = torch.randn(count, 2, cells, cells, generator=g) * amplitude
        bend = F.interpolate(knots, BOX, mode="bicubic", align_corners=True)
        grid = grid + bend.permute(0, 2, 3, 1)
    bent = F.grid_sample(masks[:, None], grid, align_corners=False)
    soft = F.avg_pool2d(F.avg_pool2d(bent, 3, 1, 1), 3, 1, 1)
    level = 0.12 + 0.35 * torch.rand(count, 1, 1, 1, generator=g)
    peak = soft.amax(dim=(1, 2, 3), keepdim=True)
    return (soft > level * peak).float()[:, 0]


def box_and_count(masks: Tensor, g: torch.Generator) -> Tensor:
    """Prepare masks as the UCI digits were: crop to 32 x 32, then count pixels in 4 x 4 blocks.

    masks: (B, 64, 64) binary. Returns (B, 8, 8) uint8, counts 0..16 scaled to 0..255.
    """
    count = len(masks)
    spans = []
    for axis in (1, 2):
        used = masks.amax(dim=axis) > 0  # (B, 64)
        first, last = used.float().argmax(dim=1), BOX - used.flip(1).float().argmax(dim=1)
        spans.append((first.float(), last.float().clamp(min=1)))
    (left, right), (top, bottom) = spans
    height, width = bottom - top, right - left
    widen = torch.exp(0.15 * torch.randn(count, generator=g))
    theta = torch.zeros(count, 2, 3)
    theta[:, 1, 1] = height / BOX
    # a digit that is wider than high is squeezed
    theta[:, 0, 0] = torch.maximum(height / BOX / widen, width / BOX)
    theta[:, 0, 2], theta[:, 1, 2] = (left + right) / BOX - 1, (top + bottom) / BOX - 1
    grid = F.affine_grid(theta, [count, 1, 32, 32], align_corners=False)
    bitmap = (F.grid_sample(masks[:, None], grid, align_corners=False) > 0.5).float()
    return (F.avg_pool2d(bitmap, 4)[:, 0] * 255).round().to(torch.uint8)


def _glyph(character: str, font: Path) -> Tensor:
    image = Image.new("L", (160, 160))
    font = ImageFont.truetype(str(font), 100)
    ImageDraw.Draw(image).text((30, 10), character, fill=255, font=font)
    return _fit(image)


def _fit(image: Image.Image) -> Tensor:
    """Centre the drawn part in a 64 x 64 box; its longer side becomes 46 pixels."""
    cut = image.crop(image.getbbox())
    scale = 46 / max(cut.size)
    size = (max(1, round(cut.width * scale)), max(1, round(cut.height * scale)))
    cut = cut.resize(size, Image.Resampling.BOX)
    box = Image.new("L", (BOX, BOX))
    box.paste(cut, ((BOX - cut.width) // 2, (BOX - cut.height) // 2))
    return torch.from_numpy(np.array(box)).float() / 255
