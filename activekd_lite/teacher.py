"""Teachers: cached image features, or outputs of any kind -> logits. Nothing here runs the vision-language model.

A teacher has `num_classes`, `views` (None: any), `logits(indices, view)`, `probs()`, `features()`, `fitted(state, seed)`,
`to` and `fingerprint`. `fitted` is asked before each round: a few-shot teacher learns from the labels, others stay.
It may have `test_probs()`, its answers to the test images (M, C) or None: measured in each round, never trained on.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.cache import TeacherCache
from activekd_lite.checks import as_tensor, check_whole_valued
from activekd_lite.device import resolve_device
from activekd_lite.files import name_of
from activekd_lite.pool import LabelState
from activekd_lite.schedules import check_schedule, lr_factor
from activekd_lite.seeding import generator
from activekd_lite.views import Views

CHUNK = 8192  # images whose probabilities are computed at once


class ZeroShotTeacher:
    """The VLM as it comes: logits = logit_scale * f . W (CLIP, arXiv:2103.00020).

    cache: features (V, N, D); text_weights: (D, C) from `VLM.text_weights`; logit_scale: the VLM's own when None.
    test: `TeacherCache.build_test(vlm, data)`; with it a run records the teacher's test accuracy in each round.
    Raises ValueError when D differs, the weights are not finite or not of unit norm, or `test` was made by another VLM.
    """

    def __init__(
        self, cache: TeacherCache, text_weights: Tensor, logit_scale: float | None = None, test: TeacherCache | None = None
    ):
        _check_weights(cache, text_weights)
        _check_test(cache, test)
        if ((norms := text_weights.norm(dim=0)) - 1).abs().max() > 1e-2:
            raise ValueError(
                f"columns of the text weights have norms {norms.min():.3g} to {norms.max():.3g}, not 1; "
                "`VLM.text_weights` gives unit ones (unit=False is for ClapTeacher), and logit_scale is the place for a factor"
            )
        self.cache, self.test = cache, test
        self.text_weights = text_weights.float().to(cache.device)
        self.logit_scale = cache.logit_scale if logit_scale is None else float(logit_scale)

    @property
    def num_classes(self) -> int:
        return self.text_weights.shape[1]

    @property
    def views(self) -> Views:
        return self.cache.views

    def __len__(self) -> int:
        return len(self.cache)

    def logits(self, indices: Tensor, view: Tensor | int = 0) -> Tensor:
        """Logits (B, C) float32 of the images `indices` (B,) in the views `view` (B,), or all in one view."""
        return self.logit_scale * self.cache.gather(indices, view) @ self.text_weights

    def probs(self, view: int = 0) -> Tensor:
        """Class probabilities (N, C) of the whole pool in one view."""
        return _probs(self, view)

    def features(self, view: int = 0) -> Tensor:
        """(N, D) float32 of the whole pool in one view."""
        return self.cache.features[view].to(self.cache.device).float()

    def test_probs(self) -> Tensor | None:
        """Class probabilities (M, C) of the test images; None without `test`."""
        return None if self.test is None else ZeroShotTeacher(self.test, self.text_weights, self.logit_scale).probs()

    def fitted(self, state: LabelState, seed: int) -> "ZeroShotTeacher":
        """Itself: it learns nothing from labels."""
        return self

    def to(self, device: str | torch.device) -> "ZeroShotTeacher":
        return ZeroShotTeacher(self.cache.to(device), self.text_weights, self.logit_scale, self.test and self.test.to(device))

    def fingerprint(self) -> dict:
        """What decides the logits, JSON-ready: the cache, the prompts (as text weights) and the scale."""
        return {"kind": "zero-shot", "cache": self.cache.fingerprint, "text_weights": _sha256(self.text_weights.half()),
                "logit_scale": self.logit_scale}  # fmt: skip


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
            raise ValueError(f"sampling = {self.sampling!r}; choose 'pass', 'chained' or 'replacement'")
        check_schedule(self.schedule, self.warmup)
        if self.constraint < 0 or self.lag not in (0, 1):
            raise ValueError(f"constraint = {self.constraint} must not be negative, and lag = {self.lag} is 0 or 1")

    def steps_for(self, labeled_count: int) -> int:
        """SGD steps on so many labels."""
        draws = self.passes * labeled_count
        if self.sampling == "pass":
            return self.passes * math.ceil(labeled_count / self.batch_size)
        return math.ceil(draws / self.batch_size) if self.sampling == "chained" else max(1, draws // self.batch_size)

    def batches(self, labeled_count: int, g: torch.Generator) -> Iterator[Tensor]:
        """The positions (B,) of the labelled images in each step's batch; drawn as they are asked for."""
        size = self.batch_size
        if self.sampling == "pass":
            for _ in range(self.passes):
                yield from torch.randperm(labeled_count, generator=g).split(size)
        elif self.sampling == "chained":
            yield from torch.cat([torch.randperm(labeled_count, generator=g) for _ in range(self.passes)]).split(size)
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
        _check_weights(cache, text_weights)
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
            return ClapTeacher(self.cache, self.start, self.logit_scale, self.config, test=self.test)
        prototypes = self._fit(index, state.labels[index], generator(seed, "few-shot teacher"))
        return ClapTeacher(self.cache, self.start, self.logit_scale, self.config, prototypes, self.test)

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
            logits = self.logit_scale * self.cache.gather(index[part], view) @ F.normalize(prototypes, dim=0)
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
        right = self.zero_shot.logits(index).softmax(dim=1).gather(1, labels[:, None]).flatten()  # (L,)
        total, count = (torch.zeros(self.num_classes, device=right.device) for _ in range(2))
        total, count = total.index_add(0, labels, right), count.index_add(0, labels, torch.ones_like(right))
        return total / count.clamp(min=1)

    def to(self, device: str | torch.device) -> "ClapTeacher":
        test = self.test and self.test.to(device)
        return ClapTeacher(self.cache.to(device), self.start, self.logit_scale, self.config, self.prototypes, test)

    def fingerprint(self) -> dict:
        """What decides the logits but the labels, JSON-ready."""
        return {"kind": "clap", "cache": self.cache.fingerprint, "text_weights": _sha256(self.start),
                "logit_scale": self.logit_scale, **asdict(self.config)}  # fmt: skip


class LogitsTeacher:
    """Any teacher's outputs; made by `from_logits`."""

    def __init__(self, array: Tensor, views: Views | None, refit: "Refit | None" = None, test: Tensor | None = None):
        self.array, self.views, self.refit, self.test = array, views, refit, test
        self.num_classes = array.shape[2]

    def __len__(self) -> int:
        return self.array.shape[1]

    def logits(self, indices: Tensor, view: Tensor | int = 0) -> Tensor:
        """Logits (B, C) float32; with one answer an image the same in every view."""
        indices, view = (torch.as_tensor(x, device=self.array.device) for x in (indices, view))
        return self.array[view if self.views else 0, indices].float()

    def probs(self, view: int = 0) -> Tensor:
        """Class probabilities (N, C) of the whole pool in one view."""
        return _probs(self, view)

    def features(self, view: int = 0) -> Tensor:
        """(N, C): there is nothing but the logits."""
        return self.array[view if self.views else 0].float()

    def test_probs(self) -> Tensor | None:
        """Class probabilities (M, C) of the test images; None where their logits were not given."""
        return None if self.test is None else self.test.float().softmax(dim=1)

    def fitted(self, state: LabelState, seed: int) -> "LogitsTeacher":
        """With `refit`, its answer to what is labelled now; else itself."""
        if self.refit is None:
            return self
        new = self.refit(state)
        array, test = new if isinstance(new, tuple) else (new, None)
        again = from_logits(array, self.views, self.refit, test)
        if again.array.shape != self.array.shape:
            raise ValueError(
                f"refit gave logits {tuple(again.array.shape)}, {tuple(self.array.shape)} are needed, as at the start"
            )
        return again.to(self.array.device)

    def to(self, device: str | torch.device) -> "LogitsTeacher":
        device = resolve_device(device)
        return LogitsTeacher(self.array.to(device), self.views, self.refit, None if self.test is None else self.test.to(device))

    def fingerprint(self) -> dict:
        return {"kind": "logits", "logits": _sha256(self.array), "refit": name_of(self.refit) if self.refit else None}


Teacher = ZeroShotTeacher | ClapTeacher | LogitsTeacher
Logits = np.ndarray | Tensor
Refit = Callable[[LabelState], Logits | tuple[Logits, Logits]]


def from_logits(
    array: Logits, views: Views | None = None, refit: Refit | None = None, test: Logits | None = None
) -> LogitsTeacher:
    """A teacher from outputs that you bring: logits (or log-probabilities) in pool order.

    array: (N, C), one answer an image, taken for every view of it; or (V, N, C), made on the pixels of `views`. refit: for a
    teacher that learns, called before each round with what is labelled, returns the new array. test: (M, C), the same teacher's
    logits of the test images, for its accuracy in the records; a `refit` returns (array, test) to have it measured again.
    Raises ValueError for other shapes, numbers that are not finite, and (V, N, C) without its views.
    """
    array = _floats(array)
    if array.ndim not in (2, 3) or not array.is_floating_point():
        raise ValueError(f"logits are {tuple(array.shape)} {array.dtype}; floats (N, C), or (V, N, C) with `views`, are needed")
    if (array.ndim == 3) != (views is not None) or (views and views.count != len(array)):
        raise ValueError(
            f"logits {tuple(array.shape)} with views = {views}: give (N, C) alone, or (V, N, C) with the Views, V of them, "
            "that the teacher saw"
        )
    if not torch.isfinite(array).all():
        raise ValueError("the logits hold NaN or infinite numbers; of probabilities take the logarithm, of at least 1e-9")
    if test is not None:
        test = _floats(test)
        if test.shape[1:] != array.shape[-1:] or not torch.isfinite(test).all():
            raise ValueError(
                f"test logits are {tuple(test.shape)}; finite numbers (M, {array.shape[-1]}) are needed, one row per test image"
            )
    return LogitsTeacher(array if array.ndim == 3 else array[None], views, refit, test)


def _floats(values: Logits) -> Tensor:
    values = as_tensor(values, f"logits = {str(values)[:60]!r}", "an array (N, C) of floats is needed")
    return values.float() if values.dtype == torch.bfloat16 else values  # numpy has none, and it is hashed as numpy


def _probs(teacher: Teacher, view: int) -> Tensor:
    return torch.cat([teacher.logits(part, view).softmax(dim=1) for part in torch.arange(len(teacher)).split(CHUNK)])


def _check_weights(cache: TeacherCache, text_weights: Tensor) -> None:
    if text_weights.ndim != 2 or text_weights.shape[0] != cache.dim:
        raise ValueError(
            f"text weights are {tuple(text_weights.shape)}, but the cached features have {cache.dim} numbers; (D, C) = "
            f"({cache.dim}, classes) is needed: take them from the VLM that made the cache"
        )
    if not torch.isfinite(text_weights).all():
        raise ValueError("text weights hold NaN or infinite numbers; the text tower's weights are damaged")


def _check_test(cache: TeacherCache, test: TeacherCache | None) -> None:
    if test is not None and test.fingerprint.get("vlm") != cache.fingerprint.get("vlm"):
        raise ValueError(
            "the cache of the test images was made by another VLM than the pool's; build both with one: "
            "test=TeacherCache.build_test(vlm, data)"
        )


def _sha256(values: Tensor) -> str:
    return hashlib.sha256(values.cpu().contiguous().numpy()).hexdigest()
