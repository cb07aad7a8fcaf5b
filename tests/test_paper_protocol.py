"""The reference protocol in numbers, data set by data set.

The tables come from arXiv:2506.00910 and from reading its code. They are written out here, so that
nothing in them is computed by the code under test.
"""

import math
import random
from dataclasses import asdict

import pytest
import torch
import transformers

import activekd_lite as akd
from activekd_lite.datasets.paper import LAYOUTS
from activekd_lite.experiments import config as protocol
from activekd_lite.strategies.classbalanced_reference import reference_shares
from activekd_lite.utils.schedules import lr_factor

# Number of classes: as many labels to start with, and as many per round.
TEN = {
    "caltech101": 100, "dtd": 47, "eurosat": 10, "fgvc_aircraft": 100, "food101": 101,
    "flowers102": 102, "oxford_pets": 37, "stanford_cars": 196, "sun397": 397, "ucf101": 101,
}  # fmt: skip
# Steps of the first round, from the notes on the method.
FIRST_ROUND = {"caltech101": 400, "dtd": 200, "eurosat": 200, "oxford_pets": 200, "sun397": 1400}
FIELDS = {  # field: (the ten, ImageNet)
    "vlm": ("RN50", "RN50"), "pretrained": ("openai", "openai"),
    "teacher": ("zero-shot", "zero-shot"), "student": ("resnet18", "dino_resnet50"),
    "average": ("raw", "normalized"), "shots": (1, 1), "rounds": (15, 7),
    "query_size": (None, 1000), "pool_size": (None, 100_000), "pool_per_seed": (False, True),
    "seed": (1, 1), "views": (10, 10),
    "train.lr": (1e-3, 1e-3), "train.weight_decay": (0.01, 0.01), "train.batch_size": (64, 256),
    "train.temperature": (2.0, 2.0),
    "train.passes": (200, None), "train.padded": (True, False), "train.pool_passes": (None, 20),
    "train.last_round_pool_passes": (None, 50), "train.warmup": (0.1, 0.0),
    "train.schedule": ("linear_from_zero", "cosine"),
    "train.labeled_sampling": ("replacement", "passes"),
    "train.unlabeled_sampling": ("passes", "passes"), "train.separate_batches": (True, False),
    "train.kd_weight": (0.5, 0.5), "train.beta": (1.0, 1.0), "train.eval_kd_weight": (None, 0.6),
    "train.eval_beta": (None, 0.5), "train.precision": ("float32", "float32"),
    "train.pretrained": (True, True),
    "clap.passes": (300, 300), "clap.batch_size": (64, 64),
    "clap.sampling": ("replacement", "chained"), "clap.lr": (0.01, 0.01),
    "clap.momentum": (0.9, 0.9), "clap.schedule": ("linear_from_zero", "linear_from_zero"),
    "clap.warmup": (0.1, 0.1),
    "clap.constraint": (1.0, 1.0), "clap.lag": (1, 0),
}  # fmt: skip


def test_all_eleven_data_sets_are_there():
    assert {*TEN, "imagenet"} == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_field_of_the_preset(name):
    found = asdict(akd.RunConfig.paper(name))
    found |= {f"{part}.{k}": v for part in ("train", "clap") for k, v in found[part].items()}
    assert found["dataset"] == name
    assert {field: found[field] for field in FIELDS} == {
        field: both[name == "imagenet"] for field, both in FIELDS.items()
    }


def test_the_few_shot_teacher_changes_only_imagenet():
    config = akd.RunConfig.paper("imagenet", teacher="clap")
    assert (config.average, config.train.eval_kd_weight) == ("raw", 0.8)
    assert akd.RunConfig.paper("dtd", teacher="clap").train == akd.RunConfig.paper("dtd").train


def test_seeds_strategies_and_prompts():
    assert protocol.PAPER_SEEDS == (1, 2, 3, 4, 5)
    assert len(protocol.paper_strategies("dtd")) == 6
    assert set(protocol.paper_strategies("dtd")) - set(protocol.paper_strategies("imagenet")) == {
        "badge_reference"
    }
    assert {name: len(layout.templates) for name, layout in LAYOUTS.items()} == {
        **dict.fromkeys(TEN, 1),
        "imagenet": 7,
    }
    assert akd.Augmentation() == akd.Augmentation(scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)
    for student in ("resnet18", "mobilenet_v2", "tinyvit", "dino_resnet50"):
        assert akd.students.find_backbone(student).input_size == 224


@pytest.mark.parametrize("name", TEN)
def test_steps_and_rates_of_the_ten(name):
    """200 * ceil(L / 64) steps; the rate rises from 0 for a tenth of them and falls back to 0."""
    train = akd.RunConfig.paper(name).train
    for round in range(16):
        labels = TEN[name] * (round + 1)
        steps = 200 * -(-labels // 64)
        assert train.steps_for(labels, 5000, last_round=round == 15) == steps
        rates = [train.lr_factor(step, steps) for step in (0, steps // 10, steps // 2, steps - 1)]
        assert rates == pytest.approx([0, 1, 5 / 9, 10 / (9 * steps)])
    assert train.steps_for(TEN[name]) == FIRST_ROUND.get(name, train.steps_for(TEN[name]))


def test_steps_and_rates_of_imagenet():
    """20 passes over the unlabelled images in batches of 256, 50 in the last of 8 trainings."""
    config = akd.RunConfig.paper("imagenet")
    for round, batches in enumerate([391, 387, 383, 379, 375, 372, 368, 364]):
        labels, rest = 1000 * (round + 1), 100_000 - 1000 * round
        steps = batches * (50 if round == 7 else 20)
        assert config.train.steps_for(labels, rest, last_round=round == config.rounds) == steps
        rates = [
            config.train.lr_factor(step, steps) for step in (0, steps // 10, steps // 2, steps - 1)
        ]
        cosine = [
            0.5 * (1 + math.cos(math.pi * step / steps))
            for step in (0, steps // 10, steps // 2, steps - 1)
        ]
        assert rates == pytest.approx(cosine)
    assert labels == 8000


@pytest.mark.parametrize(
    ("labels", "ten", "imagenet"),
    [(10, 46, 47), (64, 300, 300), (100, 468, 469), (1000, 4687, 4688)],
)
def test_steps_of_the_few_shot_teacher(labels, ten, imagenet):
    """300 draws of each label; a last, smaller batch is dropped on the ten, kept on ImageNet."""
    for name, steps in (("dtd", ten), ("imagenet", imagenet)):
        clap = akd.RunConfig.paper(name, teacher="clap").clap
        batches = [*clap.batches(labels, torch.Generator().manual_seed(0))]
        assert clap.steps_for(labels) == len(batches) == steps
        assert sum(map(len, batches)) == (64 * steps if name == "dtd" else 300 * labels)
    assert torch.cat(batches).bincount().tolist() == [300] * labels  # of ImageNet's passes


@pytest.mark.parametrize("steps", [1, 7, 200, 1400])
def test_linear_from_zero_is_the_schedule_of_transformers(steps):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = transformers.get_linear_schedule_with_warmup(optimiser, 0.1 * steps, steps)
    for step in range(steps):
        assert lr_factor("linear_from_zero", step, steps, 0.1) == pytest.approx(
            theirs.get_last_lr()[0]
        )
        optimiser.step()
        theirs.step()


def allocation(counts, query_size):
    """Shares by weights 1 / (max(n, 1) + 1), rounded down; the largest weights get the rest."""
    inverse = [1 / ((n or 1) + 1) for n in counts]
    given = [math.floor(query_size * w / math.fsum(inverse) + 1e-9) for w in inverse]
    ranked = sorted(range(len(counts)), key=lambda c: (-inverse[c], c))
    left = query_size - sum(given)
    return [share + (ranked.index(c) < left) for c, share in enumerate(given)]


def test_shares_of_classbalanced_reference():
    assert reference_shares([1, 2, 3, 4], 10) == [4, 3, 2, 1]
    draw = random.Random(0)
    for _ in range(200):
        counts = [draw.randrange(20) for _ in range(draw.randrange(2, 120))]
        query_size = draw.randrange(1, 2 * len(counts))
        assert reference_shares(counts, query_size) == allocation(counts, query_size)


def test_classbalanced_reference_picks_its_shares():
    """Four classes with 1, 2, 3 and 4 labels; then a class with too few images for its share."""
    predicted = torch.arange(4).repeat_interleave(40)
    probs = torch.nn.functional.one_hot(predicted, 4).float()
    labeled = torch.cat([40 * c + torch.arange(c + 1) for c in range(4)])
    state = akd.LabelState.empty(160).with_labels(labeled, predicted[labeled], 0)
    choose = akd.STRATEGIES["classbalanced_reference"]
    picks = choose(akd.Predictions(probs, probs), state, 10, generator=torch.Generator())
    assert predicted[picks].bincount().tolist() == [4, 3, 2, 1]
    few = probs.clone()
    few[3:40] = torch.tensor([0.0, 1, 0, 0])  # of class 0 two images are left
    picks = choose(akd.Predictions(few, few), state, 10, generator=torch.Generator())
    assert few[picks].argmax(1).bincount(minlength=4)[0] == 2
    assert len(picks.unique()) == 10
