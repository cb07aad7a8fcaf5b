"""What the few-shot teachers on cached features share; each adapter is a file of its own."""

from dataclasses import asdict
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from activekd_lite.cache import TeacherCache
from activekd_lite.pool import LabelState
from activekd_lite.teacher import CHUNK, ZeroShotTeacher
from activekd_lite.utils.hashing import tensor_sha256
from activekd_lite.utils.seeding import generator

Fitted = dict[str, Tensor]


class Labeled(NamedTuple):
    """What an adapter is fitted to.

    features: (V, L, D), every cached view of the L labelled images. labels: (L,).
    text_weights: (D, C) of unit norm. logit_scale: the VLM's factor on cosine similarities.
    """

    features: Tensor
    labels: Tensor
    text_weights: Tensor
    logit_scale: float

    def one_hot(self) -> Tensor:
        """Return the labels as (L, C) float32."""
        one_hot = torch.nn.functional.one_hot(self.labels, self.text_weights.shape[1])
        return one_hot.to(self.features.dtype)


class Adapter(Protocol):
    """A few-shot classifier on unit-norm features: a frozen dataclass of its settings."""

    kind: ClassVar[str]

    def fit(self, labeled: Labeled, g: torch.Generator) -> Fitted:
        """Return the tensors that were learned from the labels."""
        ...

    def logits(self, features: Tensor, zero_shot: Tensor, fitted: Fitted) -> Tensor:
        """Return logits (B, C) from features (B, D) and the zero-shot logits (B, C)."""
        ...


class FewShotTeacher:
    """The VLM with an adapter that is fitted to all labels so far, anew in each round.

    Until there are labels it predicts what the zero-shot teacher predicts.

    cache, text_weights, logit_scale, test: see `ZeroShotTeacher`.
    adapter: `TipAdapter()`, `LpPlusPlus()` or `Rla()`.
    """

    def __init__(
        self,
        cache: TeacherCache,
        text_weights: Tensor,
        adapter: Adapter,
        logit_scale: float | None = None,
        test: TeacherCache | None = None,
        learned: Fitted | None = None,
    ):
        self.zero_shot = ZeroShotTeacher(cache, text_weights, logit_scale, test)
        self.adapter = adapter
        self.learned = {k: v.to(cache.device) for k, v in (learned or {}).items()}
        self.cache, self.test, self.views = cache, test, cache.views
        self.num_classes, self.features = self.zero_shot.num_classes, self.zero_shot.features

    def __len__(self) -> int:
        return len(self.cache)

    def logits(self, indices: Tensor, view: Tensor | int = 0) -> Tensor:
        """Return logits (B, C) float32 of images (B,) in views (B,), or all in one view."""
        return self._classify(self.cache.gather(indices, view))

    def probs(self, view: int = 0) -> Tensor:
        """Return class probabilities (N, C) of the whole pool in one view."""
        return self._all_probs(self.cache, view)

    def test_probs(self) -> Tensor | None:
        """Return class probabilities (M, C) of the test images, or None without `test`."""
        return None if self.test is None else self._all_probs(self.test, 0)

    def fitted(self, state: LabelState, seed: int) -> "FewShotTeacher":
        """Fit anew to the labels of `state`, in every cached view of the images."""
        index = torch.nonzero(state.labels >= 0).flatten()
        if not len(index):
            return self._with({})
        features = torch.stack([self.cache.gather(index, v) for v in range(self.views.count)])
        labels = state.labels[index].to(features.device)
        labeled = Labeled(features, labels, self.zero_shot.text_weights, self.zero_shot.logit_scale)
        return self._with(self.adapter.fit(labeled, generator(seed, "few-shot teacher")))

    def to(self, device: str | torch.device) -> "FewShotTeacher":
        cache, test = self.cache.to(device), self.test and self.test.to(device)
        zero_shot = self.zero_shot
        names = (zero_shot.text_weights, self.adapter, zero_shot.logit_scale)
        return FewShotTeacher(cache, *names, test, self.learned)

    def fingerprint(self) -> dict:
        """Return what decides the logits, except for the labels, JSON-ready."""
        settings: Any = self.adapter
        return {
            "kind": self.adapter.kind,
            "cache": self.cache.fingerprint,
            "text_weights": tensor_sha256(self.zero_shot.text_weights.half()),
            "logit_scale": self.zero_shot.logit_scale,
            **asdict(settings),
        }

    def _with(self, learned: Fitted) -> "FewShotTeacher":
        weights, scale = self.zero_shot.text_weights, self.zero_shot.logit_scale
        return FewShotTeacher(self.cache, weights, self.adapter, scale, self.test, learned)

    def _classify(self, features: Tensor) -> Tensor:
        zero_shot = self.zero_shot.logit_scale * features @ self.zero_shot.text_weights
        if not self.learned:
            return zero_shot
        return self.adapter.logits(features, zero_shot, self.learned)

    def _all_probs(self, cache: TeacherCache, view: int) -> Tensor:
        parts = torch.arange(len(cache)).split(CHUNK)
        return torch.cat([self._classify(cache.gather(p, view)).softmax(dim=1) for p in parts])
