"""CLAP (arXiv:2312.12730): class prototypes that start at the text weights and learn."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.cache import TeacherCache
from activekd_lite.pool import LabelState
from activekd_lite.teacher import ZeroShotTeacher, check_text_weights
from activekd_lite.utils.checks import check_whole_valued
from activekd_lite.utils.hashing import tensor_sha256
from activekd_lite.utils.schedules import check_schedule, lr_factor
from activekd_lite.utils.seeding import generator

CLAP_SAMPLING = ("pass", "chained", "replacement")


@dataclass(frozen=True)
class ClapConfig:
    """How the prototypes are fitted to L labelled images, by SGD with momentum.

    passes, batch_size
        Passes over the labelled images, and images per step.
    sampling
        "pass": each pass is shuffled and cut into ceil(L / batch_size) batches. "chained": the
        passes are joined first, and cut into ceil(passes * L / batch_size). "replacement":
        floor(passes * L / batch_size) whole batches are drawn with replacement.
    schedule, warmup
        See `schedules.lr_factor`.
    constraint
        Weight of the penalty that holds each prototype near its start; 0 for none.
    lag
        1 leaves out the labels of the newest round, so the student learns from a teacher that is
        one round old. The first teacher is always fitted to the initial labels.

    The code of arXiv:2506.00910 uses "replacement" and lag 1 on ten data sets, "chained" and lag 0
    on ImageNet.
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
        if self.sampling not in CLAP_SAMPLING:
            choices = "'pass', 'chained' or 'replacement'"
            raise ValueError(f"sampling = {self.sampling!r}; choose {choices}")
        check_schedule(self.schedule, self.warmup)
        if self.constraint < 0:
            raise ValueError(f"constraint = {self.constraint} must not be negative")
        if self.lag not in (0, 1):
            raise ValueError(f"lag = {self.lag}; it is 0 or 1")

    def steps_for(self, labeled_count: int) -> int:
        """Return the SGD steps for that many labels."""
        draws = self.passes * labeled_count
        if self.sampling == "pass":
            return self.passes * math.ceil(labeled_count / self.batch_size)
        if self.sampling == "chained":
            return math.ceil(draws / self.batch_size)
        return max(1, draws // self.batch_size)

    def batches(self, labeled_count: int, g: torch.Generator) -> Iterator[Tensor]:
        """Yield positions (B,) of labelled images for each step; they are drawn as needed."""
        size = self.batch_size
        if self.sampling == "replacement":
            for _ in range(self.steps_for(labeled_count)):
                yield torch.randint(labeled_count, (size,), generator=g)
            return
        passes = (torch.randperm(labeled_count, generator=g) for _ in range(self.passes))
        if self.sampling == "chained":
            yield from torch.cat(list(passes)).split(size)
        else:
            for order in passes:
                yield from order.split(size)


class ClapTeacher:
    """The few-shot teacher CLAP (Silva-Rodriguez et al. 2024, arXiv:2312.12730).

    Class prototypes P (D, C) start at the text weights W and learn from labels;
    logits = logit_scale * f . normalise(P). It minimises CE + mean_c lambda_c |P_c - W_c|^2, where
    lambda_c is the mean zero-shot probability of the right class over the labelled images of class
    c (0 if there are none): classes that the VLM already knows stay near their start.

    text_weights: (D, C) from `VLM.text_weights(..., unit=False)`; the longer they are, the less a
    step turns a prototype. test: see `ZeroShotTeacher`.

    Until it is fitted, it predicts what the zero-shot teacher predicts. It is fitted on the cached
    views; the paper's crops, 8 to 100 % of the area, vary more.
    """

    def __init__(
        self,
        cache: TeacherCache,
        text_weights: Tensor,
        logit_scale: float | None = None,
        config: ClapConfig = ClapConfig(),
        prototypes: Tensor | None = None,
        test: TeacherCache | None = None,
    ):
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
        """Fit anew, from the start, to the labels of `state`; see `ClapConfig.lag`."""
        newest = max(0, int(state.labeled_round.max()) - self.config.lag)
        index = torch.nonzero((state.labels >= 0) & (state.labeled_round <= newest)).flatten()
        prototypes = None
        if len(index):
            draw = generator(seed, "few-shot teacher")
            prototypes = self._fit(index, state.labels[index], draw)
        return ClapTeacher(
            self.cache, self.start, self.logit_scale, self.config, prototypes, self.test
        )

    def _fit(self, index: Tensor, labels: Tensor, g: torch.Generator) -> Tensor:
        """Return prototypes (D, C), using a random view of each labelled image (L,) per pass."""
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
            features = self.cache.gather(index[part], view)
            logits = self.logit_scale * features @ F.normalize(prototypes, dim=0)
            penalty = (held * (prototypes - self.start).square().sum(dim=0)).sum()
            loss = F.cross_entropy(logits, labels[part].to(device)) + penalty
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        return prototypes.detach()

    def _confidence(self, index: Tensor, labels: Tensor) -> Tensor:
        """Return lambda (C,) from the labelled images `index` (L,)."""
        labels = labels.to(self.cache.device)
        probs = self.zero_shot.logits(index).softmax(dim=1)
        right = probs.gather(1, labels[:, None]).flatten()  # (L,)
        nothing = torch.zeros(self.num_classes, device=right.device)
        total = nothing.index_add(0, labels, right)
        count = nothing.index_add(0, labels, torch.ones_like(right))
        return total / count.clamp(min=1)

    def to(self, device: str | torch.device) -> "ClapTeacher":
        cache, test = self.cache.to(device), self.test and self.test.to(device)
        return ClapTeacher(cache, self.start, self.logit_scale, self.config, self.prototypes, test)

    def fingerprint(self) -> dict:
        """Return what decides the logits, except for the labels, JSON-ready."""
        return {
            "kind": "clap",
            "cache": self.cache.fingerprint,
            "text_weights": tensor_sha256(self.start),
            "logit_scale": self.logit_scale,
            **asdict(self.config),
        }
