"""Train tiny-clip or one of its siblings from scratch, on generated image-caption pairs.

    python data/tiny-clip/pretrain.py       # about 25 minutes on 2 cores, seeded; writes here
    python data/tiny-clip/pretrain.py --model tiny-clip-small       # about 5 minutes (estimated)
    python data/tiny-clip/pretrain.py --model tiny-clip-wide        # about 42 minutes (estimated)

Each model has a folder beside this one, with its configuration, where its weights are written.

Model, loss and tokenizer are open_clip's. The images are digits, drawn from fonts and then
distorted, and figures of the easy `PRETRAINING` domain. The script never reads images or labels of
the targets (scikit-learn's digits, the `TARGET` domain of shapes).
"""

import itertools
import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import open_clip
import torch
from torch import Tensor
from tqdm import trange

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import glyphs
import pretraining

from activekd_lite.datasets import shapes
from activekd_lite.utils import files, views


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: its number of steps, pairs per step, and largest learning rate."""

    steps: int
    batch: int
    lr: float


RECIPES = {
    "tiny-clip": Recipe(steps=2200, batch=128, lr=1.5e-3),
    "tiny-clip-small": Recipe(steps=1400, batch=64, lr=1.5e-3),
    "tiny-clip-wide": Recipe(steps=2400, batch=128, lr=1.5e-3),
}
NUMERALS = "0123456789"
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT_CAPTIONS = (
    "{}",
    "the digit {}",
    "the number {}",
    "a digit {}",
    "a photo of a {}.",
    'a photo of the number: "{}".',
    "a handwritten {}",
    "a handwritten digit {}",
    "a handwritten number {}",
    "a picture of the digit {}.",
)
FIGURE_CAPTIONS = (
    "{}",
    "a {}",
    "a {} shape",
    "a photo of a {}.",
    "a picture of a {}.",
    "a drawing of a {}.",
    "an image of a {}.",
    "this is a {}.",
)
SIZES = (("small", 0.0), ("", 0.62), ("big", 0.78))  # word, smallest radius
CROPS = {
    "digits": views.Augmentation((0.7, 1.0), (0.85, 1.18), 0.0),
    "shapes": views.Augmentation((0.5, 1.0)),
}


def known_words() -> list[str]:
    """Every word that a caption can contain."""
    sizes = [word for word, _ in SIZES]
    names = (NUMERALS, DIGIT_WORDS, shapes.FIGURES, shapes.PATTERNS, shapes.COLOURS, sizes)
    marks = str.maketrans('":.', "   ")
    captions = [c.format("").translate(marks).split() for c in DIGIT_CAPTIONS + FIGURE_CAPTIONS]
    return sorted({word for word in itertools.chain(*names, *captions) if word})


Pairs = tuple[Tensor, list[str], Tensor]


def choose(options, g: torch.Generator):
    return options[int(torch.randint(len(options), (1,), generator=g))]


def chance(probability: float, g: torch.Generator) -> bool:
    return float(torch.rand(1, generator=g)) < probability


def digit_pairs(bank: tuple[Tensor, Tensor], count: int, g: torch.Generator) -> Pairs:
    """Draw `count` digits: images (count, 3, 8, 8) uint8, captions, digits (count,)."""
    masks, digits = bank
    # shuffled, as `pixels` treats even and odd positions differently
    wanted = torch.arange(count)[torch.randperm(count, generator=g)] % 10
    picks = torch.stack([choose(torch.nonzero(digits == d)[:, 0], g) for d in wanted])
    images = glyphs.box_and_count(glyphs.deform(masks[picks], g), g)
    names = [NUMERALS[d] if chance(0.5, g) else DIGIT_WORDS[d] for d in wanted]
    captions = [choose(DIGIT_CAPTIONS, g).format(name) for name in names]
    return images[:, None].expand(-1, 3, -1, -1), captions, wanted


def figure_pairs(count: int, g: torch.Generator) -> Pairs:
    """Draw `count` figures of the pre-training domain: images (count, 3, 32, 32) uint8, captions,
    labels (count,). Captions mention size, colour and pattern at random."""
    labels = torch.randint(len(shapes.CLASSNAMES), (count,), generator=g)
    figure, pattern = labels // len(shapes.PATTERNS), labels % len(shapes.PATTERNS)
    images, drawn = shapes.draw(figure, pattern, shapes.PRETRAINING, g)
    captions = []
    for i in range(count):
        size = [word for word, least in SIZES if drawn["radius"][i] >= least][-1]
        size = size if chance(0.25, g) else ""
        colour = list(shapes.COLOURS)[drawn["colour"][i]] if chance(0.4, g) else ""
        kind = shapes.PATTERNS[pattern[i]] if chance(0.8, g) else ""
        name = shapes.FIGURES[figure[i]] if chance(0.92, g) else ("" if colour or kind else "shape")
        phrase = " ".join(word for word in (size, colour, kind, name) if word)
        captions.append(choose(FIGURE_CAPTIONS, g).format(phrase))
    return images, captions, labels


def pixels(images: Tensor, kind: str, step: int, size: int) -> Tensor:
    """Normalised pixels (B, 3, size, size): centre crops at even positions, random views at odd."""
    count, (height, width) = len(images), images.shape[-2:]
    spec = views.Views(count=2, seed=0, augmentation=CROPS[kind])
    ids = torch.arange(count) + step * count
    half = views.boxes(spec, ids, torch.arange(count) % 2, height, width)
    rendered = views.render(images, half, size)
    rendered[::2] = views.render_center(images[::2], size, "bicubic")
    mean, std = map(torch.tensor, (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    normalised = (rendered - mean[:, None, None]) / std[:, None, None]
    return normalised.contiguous(memory_format=torch.channels_last)


def adamw(model, steps: int, lr: float):
    """AdamW with weight decay on matrices only, and its schedule: warm-up, then cosine."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=lr)
    warmup = 100

    def factor(step):
        return min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def config_path(name: str) -> Path:
    """Return where the open_clip configuration of a model is."""
    return HERE.parent / name / f"{name}.json"


def train(name: str, recipe: Recipe, seed: int, report_every: int | None = None):
    """Train a model of RECIPES; print its accuracy after every `report_every` steps."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    steps, batch = recipe.steps, recipe.batch
    open_clip.add_model_config(config_path(name))
    model = open_clip.create_model(name).train().to(memory_format=torch.channels_last)
    tokenizer, loss_of = open_clip.get_tokenizer(name), open_clip.ClipLoss()
    bank = glyphs.font_glyphs(NUMERALS)
    optimiser, schedule = adamw(model, steps, recipe.lr)
    size = model.visual.image_size
    for step in (bar := trange(steps, desc=name, mininterval=10)):
        digits, digit_captions, _ = digit_pairs(bank, batch // 2, g)
        figures, figure_captions, _ = figure_pairs(batch - batch // 2, g)
        x = torch.cat([pixels(digits, "digits", step, size), pixels(figures, "shapes", step, size)])
        image, text, scale = model(x, tokenizer(digit_captions + figure_captions))
        loss = loss_of(image, text, scale)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}", scale=f"{scale.item():.0f}")
        if report_every and (step + 1) % report_every == 0:
            report(model.eval(), tokenizer, seed + 1, f"after {step + 1} steps, ")
            model.train()
    return model.eval(), tokenizer


@torch.no_grad()
def own_domain_accuracy_pct(model, tokenizer, seed: int) -> dict[str, float]:
    """Zero-shot accuracy on newly generated images of the pre-training domain."""
    g = torch.Generator().manual_seed(seed)
    digits, _, digit_labels = digit_pairs(glyphs.font_glyphs(NUMERALS), 1000, g)
    figures, _, figure_labels = figure_pairs(1800, g)
    numbers = [f'a photo of the number: "{n}".' for n in NUMERALS]
    names = [f"a photo of a {n}." for n in shapes.CLASSNAMES]

    def accuracy_pct(kind, images, labels, prompts):
        text = model.encode_text(tokenizer(prompts), normalize=True)  # (C, D)
        parts = [pixels(x, kind, 0, model.visual.image_size)[::2] for x in images.split(200)]
        image = torch.cat([model.encode_image(x) for x in parts])
        return 100 * (image @ text.T).argmax(dim=1).eq(labels[::2]).float().mean().item()

    return {
        "digits": accuracy_pct("digits", digits, digit_labels, numbers),
        "shapes": accuracy_pct("shapes", figures, figure_labels, names),
    }


def report(model, tokenizer, seed: int, prefix: str = "") -> None:
    for kind, accuracy in own_domain_accuracy_pct(model, tokenizer, seed).items():
        print(f"{prefix}zero-shot accuracy on newly generated {kind}: {accuracy:.1f} %", flush=True)


def main():
    parser = pretraining.parser(__doc__)
    parser.add_argument("--model", choices=RECIPES, default="tiny-clip")
    parser.add_argument("--report-every", type=int, metavar="STEPS", help="also print accuracies")
    args = parser.parse_args()
    given = {k: v for k, v in vars(args).items() if k in ("steps", "batch", "lr") and v is not None}
    recipe = replace(RECIPES[args.model], **given)
    model, tokenizer = train(args.model, recipe, args.seed, args.report_every)
    report(model, tokenizer, args.seed + 1)
    path = config_path(args.model)
    config = files.digest(json.loads(path.read_text()))
    pretraining.save(model, args.out or path.parent, config_sha256=config, words=known_words())


if __name__ == "__main__":
    main()
