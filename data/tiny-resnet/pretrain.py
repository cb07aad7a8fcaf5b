"""Train the backbone of the `tiny-resnet` student: classify letters, textures and colours.

    python data/tiny-resnet/pretrain.py     # about 3 minutes on 2 cores, seeded; writes here

The classification heads are then discarded. The paper's students start from ImageNet weights; this
is the small counterpart. No label is a class of a target data set: figures are letters (not the 12
figures of `shapes`), textures are `checked`, `shaded` and `crossed` (not its patterns).
"""

import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import glyphs
import pretraining

from activekd_lite.datasets import shapes
from activekd_lite.utils.backbones import tiny_resnet_backbone

FEATURES = 96  # of the backbone
LETTERS = "ABDEFGHJKLMNPRSTUWYZ"
TEXTURES = ("checked", "shaded", "crossed")


def batch_of(bank: tuple[Tensor, Tensor], count: int, g: torch.Generator):
    """Draw `count` images (count, 3, 32, 32) uint8; their letter, texture and colour, (count,)."""
    masks, letters = bank
    picks = torch.randint(len(masks), (count,), generator=g)
    texture = torch.randint(len(TEXTURES), (count,), generator=g)
    u, v, radius = shapes.frames(count, shapes.TARGET, g)
    grid = torch.stack([u, v], dim=-1) * 0.72
    glyph = F.grid_sample(masks[picks][:, None], grid, align_corners=False)[:, 0] > 0.5
    share = texture_of(texture, u * radius, v * radius, g)
    images, colour = shapes.paint(glyph, share, shapes.TARGET, g)
    return images, [letters[picks], texture, colour]


def texture_of(kind: Tensor, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
    """Share of the first colour in each pixel, (B, S, S).

    kind: (B,); x, y: (B, S, S), in units of half an image.
    """
    turn = math.pi * torch.rand(len(kind), 1, 1, generator=g)
    period = 0.3 + 0.15 * torch.rand(len(kind), 1, 1, generator=g)
    along, across = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    a, b = (2 * math.pi * along / period).cos(), (2 * math.pi * across / period).cos()
    checked, shaded = (a * b > 0).float(), (0.5 + along).clamp(0, 1)
    textures = torch.stack([checked, shaded, (torch.maximum(a, b) > 0.7).float()])
    return textures[kind, torch.arange(len(kind))]


def train(steps: int, batch: int, lr: float, seed: int):
    """Returns the net, its three heads, the glyphs and the generator in its final state."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    net = tiny_resnet_backbone().to(memory_format=torch.channels_last)
    counts = (len(LETTERS), len(TEXTURES), len(shapes.COLOURS))
    heads = nn.ModuleList(nn.Linear(FEATURES, n) for n in counts)
    bank = glyphs.font_glyphs(LETTERS)
    optimiser = torch.optim.AdamW([*net.parameters(), *heads.parameters()], lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, steps, pct_start=0.1)
    for _ in (bar := trange(steps, desc="tiny-resnet", mininterval=5)):
        images, labels = batch_of(bank, batch, g)
        features = net(_normalised(images))
        pairs = zip(heads, labels, strict=True)
        loss = sum(F.cross_entropy(head(features), y) for head, y in pairs)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.2f}", refresh=False)
    return net.eval(), heads, bank, g


@torch.no_grad()
def report(net, heads, bank, g) -> None:
    """Print the accuracy of each head on newly generated images."""
    images, labels = batch_of(bank, 2000, g)
    features = net(_normalised(images))
    for name, head, y in zip(("letter", "texture", "colour"), heads, labels, strict=True):
        accuracy = (head(features).argmax(dim=1) == y).float().mean()
        print(f"{name} accuracy on new images: {100 * accuracy:.1f} %")


def _normalised(images: Tensor) -> Tensor:
    return ((images.float() / 255 - 0.5) * 4).contiguous(memory_format=torch.channels_last)


def main():
    args = pretraining.parser(__doc__, out=HERE, steps=1500, batch=96, lr=3e-3).parse_args()
    net, *rest = train(args.steps, args.batch, args.lr, args.seed)
    report(net, *rest)
    pretraining.save(net, args.out)


if __name__ == "__main__":
    main()
