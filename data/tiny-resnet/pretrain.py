"""Remake the backbone of the `tiny-resnet` student: a classifier of letters, of textures and of colours, then cut off.

    python data/tiny-resnet/pretrain.py          # about 3 minutes on 2 cores, seeded; writes beside this file

The paper's students start from ImageNet weights; this is the small counterpart. No class of a target data set is a label
here: figures are letters (not the 12 figures of `shapes`), textures are `checked`, `shaded` and `crossed` (not its patterns).
"""

import argparse
import json
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import trange

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import glyphs

from activekd_lite.datasets import shapes
from activekd_lite.utils.backbones import tiny_resnet_backbone
from activekd_lite.utils import files

FEATURES = 96  # of the backbone
LETTERS = "ABDEFGHJKLMNPRSTUWYZ"
TEXTURES = ("checked", "shaded", "crossed")


def batch_of(
    bank: tuple[Tensor, Tensor], count: int, g: torch.Generator
) -> tuple[Tensor, list[Tensor]]:
    """`count` pictures (count, 3, 32, 32) uint8 and their letter, texture and colour, (count,) each."""
    masks, letters = bank
    picks = torch.randint(len(masks), (count,), generator=g)
    texture = torch.randint(len(TEXTURES), (count,), generator=g)
    u, v, radius = shapes.frames(count, shapes.TARGET, g)
    glyph = (
        F.grid_sample(
            masks[picks][:, None], torch.stack([u, v], dim=-1) * 0.72, align_corners=False
        )[:, 0]
        > 0.5
    )
    images, colour = shapes.paint(
        glyph, texture_of(texture, u * radius, v * radius, g), shapes.TARGET, g
    )
    return images, [letters[picks], texture, colour]


def texture_of(kind: Tensor, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
    """How much of the first colour each pixel takes: kind (B,), x, y (B, S, S) in half images -> (B, S, S)."""
    turn = math.pi * torch.rand(len(kind), 1, 1, generator=g)
    period = 0.3 + 0.15 * torch.rand(len(kind), 1, 1, generator=g)
    along, across = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    a, b = (2 * math.pi * along / period).cos(), (2 * math.pi * across / period).cos()
    textures = torch.stack(
        [(a * b > 0).float(), (0.5 + along).clamp(0, 1), (torch.maximum(a, b) > 0.7).float()]
    )
    return textures[kind, torch.arange(len(kind))]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    g = torch.Generator().manual_seed(args.seed)
    net = tiny_resnet_backbone().to(memory_format=torch.channels_last)
    heads = nn.ModuleList(
        nn.Linear(FEATURES, n) for n in (len(LETTERS), len(TEXTURES), len(shapes.COLOURS))
    )
    bank = glyphs.font_glyphs(LETTERS)
    parameters = [*net.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, args.lr, args.steps, pct_start=0.1)
    for _ in (bar := trange(args.steps, desc="tiny-resnet", mininterval=5)):
        images, labels = batch_of(bank, args.batch, g)
        features = net(_normalised(images))
        loss = sum(
            F.cross_entropy(head(features), y) for head, y in zip(heads, labels, strict=True)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.2f}", refresh=False)

    net.eval()
    with torch.no_grad():
        images, labels = batch_of(bank, 2000, g)
        features = net(_normalised(images))
        for name, head, y in zip(("letter", "texture", "colour"), heads, labels, strict=True):
            print(
                f"{name} of new pictures: {100 * (head(features).argmax(dim=1) == y).float().mean():.1f} % right"
            )
    args.out.mkdir(parents=True, exist_ok=True)
    weights = args.out / "weights.safetensors"
    save_file(
        {
            k: v.half().contiguous() if v.is_floating_point() else v
            for k, v in net.state_dict().items()
        },
        weights,
    )
    manifest = files.with_checksum({"weights_sha256": files.sha256_of(weights)})
    (args.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def _normalised(images: Tensor) -> Tensor:
    return ((images.float() / 255 - 0.5) * 4).contiguous(memory_format=torch.channels_last)


if __name__ == "__main__":
    main()
