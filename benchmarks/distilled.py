"""Students of a random selection, trained round by round and kept: `ball_shrinkage` and `switches`
share them.

What `random` chooses does not depend on the student, so a round can be trained without the rounds
before it, with the same result as in a run.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

import activekd_lite as akd
from activekd_lite.banks import make_bank
from activekd_lite.utils.seeding import derive_seed, generator

STUDENTS = ("linear", "tiny-cnn")
AFTERWARDS = ("kd_weight", "beta", "eval_kd_weight", "eval_beta", "calibrate")  # not of training


@lru_cache(maxsize=2)
def load(dataset: str, student: str, cache: str):
    """Return the inputs of a run, and the bank that its students are trained on."""
    config = akd.RunConfig(dataset, student=student)
    inputs = config.load(cache_root=cache, device="cpu", progress=False)
    views, device = inputs.teacher.views, torch.device("cpu")
    return inputs, make_bank(inputs.data.pool, student, views, device, inputs.features)


def random_state(data: akd.Dataset, seed: int, rounds: int) -> akd.LabelState:
    """Return what a run with strategy `random` has labelled after these rounds."""
    size, classes = len(data.pool), data.pool.num_classes
    first = data.oracle.initial_indices(1, generator(seed, "initial set"))
    state = akd.LabelState.empty(size).with_labels(first, data.oracle.label(first), round=0)
    unseen = akd.Predictions(*2 * [torch.full((size, classes), 1 / classes)])
    for r in range(rounds):
        draw = generator(seed, "selection", r)
        query = akd.STRATEGIES["random"](unseen, state, classes, generator=draw)
        state = state.with_labels(query, data.oracle.label(query), round=r + 1)
    return state


@dataclass(frozen=True)
class Heads:
    """The logits (N, C) of a student's two heads on the pool and (M, C) on the test set."""

    pool_ce: Tensor
    pool_kd: Tensor
    test_ce: Tensor
    test_kd: Tensor

    def probs(self, part: str, kd_weight: float = 0.5) -> Tensor:
        """Return the mixed probabilities of "pool" or "test"."""
        heads = getattr(self, f"{part}_ce"), getattr(self, f"{part}_kd")
        return akd.mix_heads(*heads, kd_weight)


def train(dataset, student, seed, rounds, config, cache, taught=True) -> Heads:
    """Train the student of the last of these rounds, or read it if it was trained before."""
    settings = {k: v for k, v in asdict(config).items() if k not in AFTERWARDS}
    words = json.dumps([dataset, student, seed, rounds, taught, settings])
    name = f"{dataset}-{student}-{seed}-{rounds}-{hashlib.sha256(words.encode()).hexdigest()[:16]}"
    path = Path(cache) / "distilled" / f"{name}.pt"
    if path.exists():
        return Heads(*torch.load(path))
    inputs, bank = load(dataset, student, cache)
    state = random_state(inputs.data, seed, rounds)
    net = akd.train_student(
        inputs.data.pool,
        state,
        inputs.teacher if taught else None,
        student=student,
        config=config,
        bank=bank,
        seed=derive_seed(seed, "training", rounds),
        device="cpu",
    )
    tests = inputs.data.test.images if bank.dim is None else inputs.features.test
    found = []
    for images in (bank.centers(), tests):
        features = akd.predict(net, images, kd_weight=0).features
        with torch.inference_mode():
            found += [net.ce_head(features), net.kd_head(features)]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(found, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    return Heads(*found)
