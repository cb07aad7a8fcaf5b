"""Few-shot teachers: text weights that learn from the labels. CLAP (arXiv:2312.12730)."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.cache import TeacherCache
from activekd_lite.pool import LabelState
from activekd_lite.teacher import ZeroShotTeacher, check_text_weights, sha256_of
from activekd_lite.utils.checks import check_whole_valued
from activekd_lite.utils.schedules import check_schedule, lr_factor
from activekd_lite.utils.seeding import generator


@dataclass(frozen=True)
class ClapConfig:
    """How the prototypes are fitted: by SGD with momentum, for `passes` passes over the L labelled images.

    sampling: how these become batches. "pass" cuts each pass into ceil(L / batch_size) batches, "chained" all passes together
    into ceil(passes * L / batch_size), and "replacement" draws floor(passes * L / batch_size) whole batches with replacement
    (its loader is given passes * L draws of the L images and drops the last, smaller batch).
    schedule, warmup: see `schedules.lr_factor`. constraint: factor of the penalty that holds each prototype to where it
    started (0: none). lag: 1 leaves out the newest round's labels, so that the student learns from a teacher one round old;
    the first teacher is fitted on the initial labels either way. The code of arXiv:2506.00910 takes "replacement" and lag 1 on
    ten data sets, "chained" and lag 0 on ImageNet.
    """

    passes: int = 300
    batch_size: int = 256
    sampling: str = "pass"
    lr: float = 0.01
    momentum: float = 0.9
    schedule: str = "linear"
    warmup: float = 0.1
    constraint: float = 1.0
    lag: int = 0

    def __post_init__(self):
        check_whole_valued(self, "passes", "batch_size")
        for name in ("passes", "batch_size", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be larger than 0")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum = {self.momentum} must lie in [0, 1)")
        if self.sampling not in ("pass", "chained", "replacement"):
            raise ValueError(
                f"sampling = {self.sampling!r}; choose 'pass', 'chained' or 'replacement'"
            )
        check_schedule(self.schedule, self.warmup)
        if self.constraint < 0 or self.lag not in (0, 1):
            raise ValueError(
                f"constraint = {self.constraint} must not be negative, and lag = {self.lag} is 0 or 1"
            )

    def steps_for(self, labeled_count: int) -> int:
        """SGD steps on so many labels."""
        draws = self.passes * labeled_count
        if self.sampling == "pass":
            return self.passes * math.ceil(labeled_count / self.batch_size)
        return (
            math.ceil(draws / self.batch_size)
            if self.sampling == "chained"
            else max(1, draws // self.batch_size)
        )

    def batches(self, labeled_count: int, g: torch.Generator) -> Iterator[Tensor]:
        """The positions (B,) of the labelled images in each step's batch; drawn as they are asked for."""
        size = self.batch_size
        if self.sampling == "pass":
            for _ in range(self.passes):
                yield from torch.randperm(labeled_count, generator=g).split(size)
        elif self.sampling == "chained":
            yield from torch.cat(
                [torch.randperm(labeled_count, generator=g) for _ in range(self.passes)]
            ).split(size)
        else:
            for _ in range(self.steps_for(labeled_count)):
                yield torch.randint(labeled_count, (size,), generator=g)


class ClapTeacher:
    """The few-shot teacher CLAP (Silva-Rodriguez et al. 2024, arXiv:2312.12730): class prototypes P (D, C) that start at the
    text weights W and learn from labels; logits = logit_scale * f . normalise(P).

    Minimises CE + mean_c lambda_c |P_c - W_c|^2, lambda_c the mean zero-shot probability of the right class over the labelled
    images of class c, 0 where there is none: what the VLM knows already is held. text_weights: (D, C) as
    `VLM.text_weights(..., unit=False)` gives them; the longer they are, the less a step turns a prototype. It is fitted on the
    cached views (the paper augments more, with crops of 8 to 100 % of the area). Until `fitted` it is the zero-shot teacher.
    test: see `ZeroShotTeacher`.
    """

    def __init__(
        self, cache: TeacherCache, text_weights: Tensor, logit_scale: float | None = None, config: ClapConfig = ClapConfig(),
        prototypes: Tensor | None = None, test: TeacherCache | None = None,
    ):  # fmt: skip
        check_text_weights(cache, text_weights)
        self.start = text_weights.float().to(cache.device)
        self.prototypes = self.start if prototypes is None else prototypes.to(cache.device)
        self.zero_shot = ZeroShotTeacher(cache, F.normalize(self.start, dim=0), logit_scale, test)
        self.now = ZeroShotTeacher(cache, F.normalize(self.prototypes, dim=0), logit_scale, test)
        self.cache, self.config, self.logit_scale = cache, config, self.now.logit_scale
        self.num_classes, self.views = self.now.num_classes, self.now.views
        self.logits, self.probs, self.features = self.now.logits, self.now.probs, self.now.features
        self.test, self.test_probs = test, self.now.test_probs

    def __len__(self) -> int:
        return len(self.cache)

    def fitted(self, state: LabelState, seed: int) -> "ClapTeacher":
        """Fitted from the start on the labels of `state` (less the newest round's where `lag` is 1, but for the first)."""
        newest = max(0, int(state.labeled_round.max()) - self.config.lag)
        index = torch.nonzero((state.labels >= 0) & (state.labeled_round <= newest)).flatten()
        if len(index) == 0:
            return ClapTeacher(
                self.cache, self.start, self.logit_scale, self.config, test=self.test
            )
        prototypes = self._fit(index, state.labels[index], generator(seed, "few-shot teacher"))
        return ClapTeacher(
            self.cache, self.start, self.logit_scale, self.config, prototypes, self.test
        )

    def _fit(self, index: Tensor, labels: Tensor, g: torch.Generator) -> Tensor:
        """Prototypes (D, C) from the labelled images `index` (L,), a random view of each in every pass."""
        config, device = self.config, self.cache.device
        held = config.constraint * self._confidence(index, labels) / self.num_classes  # (C,)
        prototypes = self.start.clone().requires_grad_()
        optimiser = torch.optim.SGD([prototypes], lr=config.lr, momentum=config.momentum)
        steps = config.steps_for(len(index))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: lr_factor(config.schedule, step, steps, config.warmup)
        )
        for part in config.batches(len(index), g):
            view = torch.randint(self.views.count, (len(part),), generator=g)
            logits = (
                self.logit_scale
                * self.cache.gather(index[part], view)
                @ F.normalize(prototypes, dim=0)
            )
            penalty = (held * (prototypes - self.start).square().sum(dim=0)).sum()
            loss = F.cross_entropy(logits, labels[part].to(device)) + penalty
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        return prototypes.detach()

    def _confidence(self, index: Tensor, labels: Tensor) -> Tensor:
        """lambda (C,): the mean zero-shot probability of the right class over the labelled images of each class."""
        labels = labels.to(self.cache.device)
        right = (
            self.zero_shot.logits(index).softmax(dim=1).gather(1, labels[:, None]).flatten()
        )  # (L,)
        total, count = (torch.zeros(self.num_classes, device=right.device) for _ in range(2))
        total, count = (
            total.index_add(0, labels, right),
            count.index_add(0, labels, torch.ones_like(right)),
        )
        return total / count.clamp(min=1)

    def to(self, device: str | torch.device) -> "ClapTeacher":
        test = self.test and self.test.to(device)
        return ClapTeacher(
            self.cache.to(device), self.start, self.logit_scale, self.config, self.prototypes, test
        )

    def fingerprint(self) -> dict:
        """What decides the logits but the labels, JSON-ready."""
        return {"kind": "clap", "cache": self.cache.fingerprint, "text_weights": sha256_of(self.start),
                "logit_scale": self.logit_scale, **asdict(self.config)}  # fmt: skip
