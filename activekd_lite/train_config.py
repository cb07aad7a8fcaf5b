"""How a student is trained."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from activekd_lite.losses import DISTILL_ON
from activekd_lite.utils.checks import check_whole_valued
from activekd_lite.utils.device import resolve_precision
from activekd_lite.utils.schedules import check_schedule, lr_factor

LENGTHS = ("steps", "passes", "pool_passes")  # one of them sets the length of a round
SAMPLING = ("replacement", "passes")
CHOICES = {
    "labeled_sampling": SAMPLING,
    "unlabeled_sampling": SAMPLING,
    "heads": ("dual", "single"),
    "distill_on": DISTILL_ON,
}
MIXING = ("kd_weight", "beta", "eval_kd_weight", "eval_beta")  # how two heads are mixed
POSITIVE = (*LENGTHS, "last_round_pool_passes", "batch_size", "lr", "temperature", "beta")


@dataclass(frozen=True)
class TrainConfig:
    """How a student is trained, with AdamW.

    Length of a round
        Set by one of steps, passes (over the labelled images) and pool_passes (over the unlabelled
        images; last_round_pool_passes in the last round). padded: before passes are counted, repeat
        the first labelled images until they make whole batches.
    Batches
        batch_size: labelled images per step; with a teacher, as many unlabelled ones go with them.
        labeled_sampling, unlabeled_sampling: "replacement" draws from all images at each step,
        "passes" shuffles them once per pass. separate_batches: labelled and unlabelled images go
        through the student separately, so BatchNorm does not mix them.
    Optimisation
        lr: the largest learning rate. warmup: share of the steps. schedule: see `lr_factor`.
    Distillation
        heads: "dual", one head for labels and one for the teacher, or "single", one for both.
        distill_on: the images whose teacher's answers are learned. "labeled" alone leaves the
        others out of the batches. kd_loss_weight: of the distillation loss; cross-entropy has the
        rest of 1. temperature, standardize_logits: see `losses.kd_loss`. kd_weight, beta:
        see `students.mix_heads`. eval_kd_weight, eval_beta: the same on the test set, if they
        differ. These four need two heads.
    Calibration
        calibrate: temper the probabilities of the test set, see `calibration.fit_temperature`.
        Training, selection and accuracy stay the same.
    Student
        pretrained: see `students.build_student`. precision: "float32", "bfloat16", "float16", or
        "auto" (bfloat16 on CUDA, else float32). compile: use torch.compile; needs a C++ compiler
        and pays off in long rounds.
    """

    steps: int = 150
    passes: float | None = None
    pool_passes: float | None = None
    last_round_pool_passes: float | None = None
    padded: bool = False
    batch_size: int = 32
    labeled_sampling: str = "replacement"
    unlabeled_sampling: str = "replacement"
    separate_batches: bool = False
    lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: str = "linear"
    heads: str = "dual"
    distill_on: str = "both"
    kd_loss_weight: float = 0.5
    temperature: float = 2.0
    standardize_logits: bool = False
    kd_weight: float = 0.5
    beta: float = 1.0
    eval_kd_weight: float | None = None
    eval_beta: float | None = None
    calibrate: bool = False
    pretrained: bool | str = True
    precision: str = "auto"
    compile: bool = False

    def __post_init__(self):
        check_whole_valued(self, "steps", "batch_size")
        self._check_ranges()
        self._check_lengths()
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name} = {value!r}; choose {' or '.join(map(repr, allowed))}")
        self._check_distillation()
        check_schedule(self.schedule, self.warmup)
        resolve_precision(self.precision, torch.device("cpu"), "bfloat16")
        if not isinstance(self.pretrained, bool):
            object.__setattr__(self, "pretrained", str(self.pretrained))  # JSON has no Path

    def _check_ranges(self) -> None:
        for name in (*POSITIVE, "eval_beta"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} = {value} must be larger than 0")
        for name in ("kd_weight", "eval_kd_weight"):
            if (value := getattr(self, name)) is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} = {value} must lie between 0 and 1")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay = {self.weight_decay} must not be negative")

    def _check_distillation(self) -> None:
        if not 0 < self.kd_loss_weight < 1:
            raise ValueError(
                f"kd_loss_weight = {self.kd_loss_weight} must lie between 0 and 1, both excluded; "
                "to train without distillation, run without a teacher"
            )
        defaults = {name: type(self).__dataclass_fields__[name].default for name in MIXING}
        changed = {k: v for k in MIXING if (v := getattr(self, k)) != defaults[k]}
        if self.heads == "single" and changed:
            name, value = next(iter(changed.items()))
            raise ValueError(
                f"{name} = {value} mixes two heads, but heads = 'single' has one; leave {name} at "
                f"{defaults[name]}, or choose heads = 'dual'"
            )

    def _check_lengths(self) -> None:
        if self.passes is not None and self.pool_passes is not None:
            raise ValueError(
                f"passes = {self.passes} and pool_passes = {self.pool_passes}: give one of them"
            )
        if self.last_round_pool_passes is not None and self.pool_passes is None:
            raise ValueError(
                f"last_round_pool_passes = {self.last_round_pool_passes} needs pool_passes for the "
                "other rounds"
            )

    def steps_for(
        self, labeled_count: int, unlabeled_count: int | None = None, last_round: bool = False
    ) -> int:
        """Return the steps of a round; pool_passes need `unlabeled_count`."""
        if self.pool_passes is not None:
            passes = (last_round and self.last_round_pool_passes) or self.pool_passes
            return math.ceil(passes * math.ceil(unlabeled_count / self.batch_size))
        if self.passes is None:
            return self.steps
        if self.padded:
            return math.ceil(self.passes * math.ceil(labeled_count / self.batch_size))
        return math.ceil(self.passes * labeled_count / self.batch_size)

    def lr_factor(self, step: int, steps: int) -> float:
        """Return the fraction of `lr` that is used at `step` of `steps`."""
        return lr_factor(self.schedule, step, steps, self.warmup)

    def mixing(self, distilled: bool, evaluation: bool = False) -> dict[str, Any]:
        """Return how `predict` mixes the heads; kd_weight is 0 without a trained kd head."""
        kd_weight, beta = self.kd_weight, self.beta
        distilled = distilled and self.heads == "dual"
        if evaluation:
            kd_weight = kd_weight if self.eval_kd_weight is None else self.eval_kd_weight
            beta = beta if self.eval_beta is None else self.eval_beta
        return {
            "kd_weight": kd_weight if distilled else 0.0,
            "beta": beta,
            "distilled": distilled,
        }


def with_length(changes: Mapping) -> dict:
    """Return `changes` to a `TrainConfig`; if they set a length, it replaces the old one."""
    if not any(changes.get(name) is not None for name in LENGTHS):
        return dict(changes)
    return {"passes": None, "pool_passes": None, "last_round_pool_passes": None} | dict(changes)
