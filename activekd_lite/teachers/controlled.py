"""Teachers made from another one that change one property of its answers and keep the others.

noise           keeps answers and clusters; breaks confidence (all move to the uniform)
overconfident   keeps answers and the order of the classes; breaks confidence (temperature < 1)
shuffled        keeps answers and confidence; breaks which other classes get the rest
biased          keeps each image's confidence; breaks the answer for one class

What is random depends on the image alone, not on its view, the batch or the round.
"""

import math

import torch
from torch import Tensor

from activekd_lite.pool import LabelState
from activekd_lite.teacher import Teacher, pool_probs
from activekd_lite.utils.seeding import uniforms

# The usual amount of each control; None if it takes none.
CONTROLS: dict[str, float | None] = {
    "noise": 0.5,
    "shuffled": None,
    "biased": 1.0,
    "overconfident": 0.5,
}


class ControlledTeacher:
    """A teacher whose answers are those of `base`, changed in one respect.

    control: a name in CONTROLS
        "noise": mixed with the uniform distribution, of which they hold a share of `amount`.
        "shuffled": the answer and its confidence stay; the rest of the probability is permuted
        among the other classes, differently for each image.
        "biased": the first class of `pair` is taken for the second one, by exchanging their
        probabilities, in a share of `amount` of the images with that answer.
        "overconfident": softmax with the temperature `amount`.
    Raises ValueError for an unknown control, and an amount that is not allowed.
    """

    def __init__(
        self,
        base: Teacher,
        control: str,
        amount: float | None = None,
        pair: tuple[int, int] = (0, 1),
        seed: int = 0,
    ):
        self.base, self.control, self.pair, self.seed = base, control, pair, seed
        self.amount = check_control(control, amount)
        self.num_classes, self.views = base.num_classes, base.views
        self.test = getattr(base, "test", None)  # what `base` predicts the test images from
        if len(set(pair)) < 2 or not all(0 <= c < self.num_classes for c in pair):
            raise ValueError(f"pair = {pair}: two of the {self.num_classes} classes are needed")

    def __len__(self) -> int:
        return len(self.base)

    def logits(self, indices: Tensor, view: Tensor | int = 0) -> Tensor:
        """Return logits (B, C) float32 of images (B,) in views (B,), or all in one view."""
        return self._change(self.base.logits(indices, view), torch.as_tensor(indices))

    def probs(self, view: int = 0) -> Tensor:
        """Return class probabilities (N, C) of the whole pool in one view."""
        return pool_probs(self, view)

    def features(self, view: int = 0) -> Tensor:
        """Return the features of `base`."""
        return self.base.features(view)

    def test_probs(self) -> Tensor | None:
        """Return class probabilities (M, C) of the test images, or None if `base` has none."""
        probs = self.base.test_probs()
        if probs is None:
            return None
        images = len(self) + torch.arange(len(probs))  # never those of the pool
        return self._change(probs.clamp(min=1e-30).log(), images).softmax(dim=1)

    def fitted(self, state: LabelState, seed: int) -> "ControlledTeacher":
        """Return the same control of what `base` is after learning."""
        return self._with(self.base.fitted(state, seed))

    def to(self, device: str | torch.device) -> "ControlledTeacher":
        return self._with(self.base.to(device))

    def fingerprint(self) -> dict:
        """Return what decides the logits, except for the labels, JSON-ready."""
        base = self.base.fingerprint()
        control = {"name": self.control, "amount": self.amount, "seed": self.seed}
        return base | {
            "kind": f"{base['kind']}+{with_amount(self.control, self.amount)}",
            "control": control | {"pair": list(self.pair)},
        }

    def _with(self, base: Teacher) -> "ControlledTeacher":
        return ControlledTeacher(base, self.control, self.amount, self.pair, self.seed)

    def _change(self, logits: Tensor, images: Tensor) -> Tensor:
        if self.control == "overconfident":
            return logits / self.amount
        if self.control == "noise":
            return noisy(logits, self.amount)
        if self.control == "shuffled":
            return shuffled(logits, self._draws(images, self.num_classes - 1).to(logits.device))
        chosen = self._draws(images, 1)[:, 0] < self.amount
        return biased(logits, self.pair, chosen.to(logits.device))

    def _draws(self, images: Tensor, count: int) -> Tensor:
        """Return numbers in [0, 1), (B, count), that depend on seed and image alone."""
        return torch.from_numpy(uniforms(self.seed, images.cpu().numpy(), count))


def noisy(logits: Tensor, share: float) -> Tensor:
    """Return the log-probabilities (B, C) with a share of the uniform distribution."""
    own = logits.log_softmax(dim=1) + math.log(1 - share)
    return torch.logaddexp(own, torch.full_like(own, math.log(share / logits.shape[1])))


def shuffled(logits: Tensor, keys: Tensor) -> Tensor:
    """Permute each row of logits (B, C), except for its largest, by its keys (B, C - 1)."""
    rest = torch.ones_like(logits, dtype=torch.bool)
    rest.scatter_(1, logits.argmax(dim=1, keepdim=True), False)
    others = logits[rest].view(keys.shape)
    return logits.masked_scatter(rest, others.gather(1, keys.argsort(dim=1)))


def biased(logits: Tensor, pair: tuple[int, int], chosen: Tensor) -> Tensor:
    """Exchange the logits of two classes in the chosen rows (B,) whose answer is the first one."""
    rows = chosen & (logits.argmax(dim=1) == pair[0])
    changed = logits.clone()
    changed[rows, pair[0]], changed[rows, pair[1]] = logits[rows, pair[1]], logits[rows, pair[0]]
    return changed


def check_control(control: str, amount: float | None) -> float | None:
    """Return the amount of a control, its usual one if None. Raises ValueError, see the class."""
    if control not in CONTROLS:
        raise ValueError(f"control = {control!r}; choose one of {', '.join(CONTROLS)}")
    usual = CONTROLS[control]
    if amount is None or usual is None:
        if amount is not None:
            raise ValueError(f"{control} takes no amount, but got {amount}")
        return usual
    if not 0 < amount <= 1 or (amount == 1 and control != "biased"):
        raise ValueError(
            f"{control}={amount:g}: a number between 0 and 1 is needed, such as {usual:g}"
        )
    return float(amount)


def with_amount(control: str, amount: float | None) -> str:
    """Return how a control is written in a teacher's name: noise, or noise=0.3."""
    return control if amount in (None, CONTROLS[control]) else f"{control}={amount:g}"
