"""Teachers turn cached image features, or outputs of your own, into logits.

Nothing here runs the vision-language model. Teachers that learn, and controlled ones: `teachers/`.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from activekd_lite.cache import TeacherCache
from activekd_lite.pool import LabelState
from activekd_lite.utils.checks import as_tensor
from activekd_lite.utils.device import resolve_device
from activekd_lite.utils.files import name_of
from activekd_lite.utils.hashing import tensor_sha256
from activekd_lite.utils.views import Views

CHUNK = 8192  # images whose probabilities are computed at once

Logits = np.ndarray | Tensor
Refit = Callable[[LabelState], Logits | tuple[Logits, Logits]]


class Teacher(Protocol):
    """What a run needs from a teacher of N pool images.

    views: the views that it was made from; None if its outputs are the same for all views.
    """

    num_classes: int
    views: Views | None

    def __len__(self) -> int:
        """Return N."""
        ...

    def logits(self, indices: Tensor, view: Tensor | int = 0) -> Tensor:
        """Return logits (B, C) float32 of some images, each in its view."""
        ...

    def probs(self, view: int = 0) -> Tensor:
        """Return class probabilities (N, C) of the whole pool."""
        ...

    def features(self, view: int = 0) -> Tensor:
        """Return features (N, D) of the whole pool."""
        ...

    def test_probs(self) -> Tensor | None:
        """Return class probabilities (M, C) of the test images, or None if they are unknown.

        They are measured in each round, never trained on.
        """
        ...

    def fitted(self, state: LabelState, seed: int) -> "Teacher":
        """Return the teacher that has learned from what is labelled; called before each round."""
        ...

    def to(self, device: str | torch.device) -> "Teacher":
        """Return the teacher with its tensors on the device."""
        ...

    def fingerprint(self) -> dict:
        """Return what decides the logits, except for the labels, JSON-ready."""
        ...


def test_answers(teacher: Teacher | None) -> Tensor | None:
    """Return the teacher's probabilities (M, C) for the test images, or None if it has none."""
    return getattr(teacher, "test_probs", lambda: None)()


def test_count(teacher: Teacher) -> int | None:
    """Return the number of test images it predicts, or None if there are none."""
    test = getattr(teacher, "test", None)
    answers = test_answers(teacher) if test is None else test
    return None if answers is None else len(answers)


def test_pool_of(teacher: Teacher) -> str | None:
    """Return the fingerprint of the test images it predicts, or None if unknown."""
    test = getattr(teacher, "test", None)
    return test.fingerprint["pool"] if isinstance(test, TeacherCache) else None


class ZeroShotTeacher:
    """The VLM as it is: logits = logit_scale * f . W (CLIP, arXiv:2103.00020).

    cache: features (V, N, D). text_weights: (D, C) from `VLM.text_weights`. logit_scale: default
    the VLM's own. test: `TeacherCache.build_test(vlm, data)`, to record the test accuracy.
    Raises ValueError if D differs, the weights are not finite or not of unit norm, or `test` was
    made by another VLM.
    """

    def __init__(
        self,
        cache: TeacherCache,
        text_weights: Tensor,
        logit_scale: float | None = None,
        test: TeacherCache | None = None,
    ):
        check_text_weights(cache, text_weights)
        _check_test(cache, test)
        if ((norms := text_weights.norm(dim=0)) - 1).abs().max() > 1e-2:
            raise ValueError(
                f"columns of the text weights have norms {norms.min():.3g} to {norms.max():.3g}, "
                "not 1; `VLM.text_weights` gives unit ones (unit=False is for ClapTeacher); a "
                "factor belongs in logit_scale"
            )
        self.cache, self.test, self.views = cache, test, cache.views
        self.text_weights = text_weights.float().to(cache.device)
        self.num_classes = text_weights.shape[1]
        self.logit_scale = cache.logit_scale if logit_scale is None else float(logit_scale)

    def __len__(self) -> int:
        return len(self.cache)

    def logits(self, indices: Tensor, view: Tensor | int = 0) -> Tensor:
        """Return logits (B, C) float32 of images (B,) in views (B,), or all in one view."""
        return self.logit_scale * self.cache.gather(indices, view) @ self.text_weights

    def probs(self, view: int = 0) -> Tensor:
        """Return class probabilities (N, C) of the whole pool in one view."""
        return pool_probs(self, view)

    def features(self, view: int = 0) -> Tensor:
        """Return features (N, D) float32 of the whole pool in one view."""
        return self.cache.features[view].to(self.cache.device).float()

    def test_probs(self) -> Tensor | None:
        """Return class probabilities (M, C) of the test images, or None without `test`."""
        if self.test is None:
            return None
        return ZeroShotTeacher(self.test, self.text_weights, self.logit_scale).probs()

    def fitted(self, state: LabelState, seed: int) -> "ZeroShotTeacher":
        """Return itself: it learns nothing from labels."""
        return self

    def to(self, device: str | torch.device) -> "ZeroShotTeacher":
        cache, test = self.cache.to(device), self.test and self.test.to(device)
        return ZeroShotTeacher(cache, self.text_weights, self.logit_scale, test)

    def fingerprint(self) -> dict:
        return {
            "kind": "zero-shot",
            "cache": self.cache.fingerprint,
            "text_weights": tensor_sha256(self.text_weights.half()),  # the prompts
            "logit_scale": self.logit_scale,
        }


class LogitsTeacher:
    """The outputs of any other model as a teacher; `from_logits` makes one."""

    def __init__(
        self,
        array: Tensor,
        views: Views | None,
        refit: Refit | None = None,
        test: Tensor | None = None,
    ):
        self.array, self.views, self.refit, self.test = array, views, refit, test
        self.num_classes = array.shape[2]

    def __len__(self) -> int:
        return self.array.shape[1]

    def logits(self, indices: Tensor, view: Tensor | int = 0) -> Tensor:
        """Return logits (B, C) float32; without `views` the same in every view."""
        indices, view = (torch.as_tensor(x, device=self.array.device) for x in (indices, view))
        return self.array[view if self.views else 0, indices].float()

    def probs(self, view: int = 0) -> Tensor:
        """Return class probabilities (N, C) of the whole pool in one view."""
        return pool_probs(self, view)

    def features(self, view: int = 0) -> Tensor:
        """Return the logits (N, C), since there is nothing else."""
        return self.array[view if self.views else 0].float()

    def test_probs(self) -> Tensor | None:
        """Return class probabilities (M, C) of the test images, or None without `test`."""
        return None if self.test is None else self.test.float().softmax(dim=1)

    def fitted(self, state: LabelState, seed: int) -> "LogitsTeacher":
        """Return what `refit` gives for the labels so far, or itself without `refit`."""
        if self.refit is None:
            return self
        new = self.refit(state)
        array, test = new if isinstance(new, tuple) else (new, None)
        again = from_logits(array, self.views, self.refit, test)
        if again.array.shape != self.array.shape:
            raise ValueError(
                f"refit gave logits {tuple(again.array.shape)}; {tuple(self.array.shape)} are "
                "needed, as at the start"
            )
        return again.to(self.array.device)

    def to(self, device: str | torch.device) -> "LogitsTeacher":
        device = resolve_device(device)
        test = None if self.test is None else self.test.to(device)
        return LogitsTeacher(self.array.to(device), self.views, self.refit, test)

    def fingerprint(self) -> dict:
        refit = name_of(self.refit) if self.refit else None
        return {"kind": "logits", "logits": tensor_sha256(self.array), "refit": refit}


def from_logits(
    array: Logits,
    views: Views | None = None,
    refit: Refit | None = None,
    test: Logits | None = None,
) -> LogitsTeacher:
    """Make a teacher from logits (or log-probabilities) of your own, in pool order.

    array: (N, C), used for every view, or (V, N, C), made from the pixels of `views`.
    refit: for a teacher that learns; called before each round with what is labelled, it returns the
    new array. test: (M, C), logits of the test images, to record the teacher's accuracy; a `refit`
    returns (array, test) to have it measured again.
    Raises ValueError for other shapes, numbers that are not finite, and (V, N, C) without views.
    """
    array = _floats(array)
    if array.ndim not in (2, 3) or not array.is_floating_point():
        raise ValueError(
            f"logits are {tuple(array.shape)} {array.dtype}; floats (N, C), or (V, N, C) with "
            "`views`, are needed"
        )
    if (array.ndim == 3) != (views is not None) or (views and views.count != len(array)):
        raise ValueError(
            f"logits {tuple(array.shape)} with views = {views}: give (N, C) alone, or (V, N, C) "
            "with the V Views that the teacher saw"
        )
    if not torch.isfinite(array).all():
        raise ValueError(
            "the logits hold NaN or infinite numbers; for probabilities, clamp them to at least "
            "1e-9 and take the logarithm"
        )
    if test is not None:
        test = _floats(test)
        if test.shape[1:] != array.shape[-1:] or not torch.isfinite(test).all():
            raise ValueError(
                f"test logits are {tuple(test.shape)}; finite numbers (M, {array.shape[-1]}) are "
                "needed, one row per test image"
            )
    return LogitsTeacher(array if array.ndim == 3 else array[None], views, refit, test)


def _floats(values: Logits) -> Tensor:
    name = f"logits = {str(values)[:60]!r}"
    values = as_tensor(values, name, "an array (N, C) of floats is needed")
    return values.float() if values.dtype == torch.bfloat16 else values  # numpy has no bfloat16


def pool_probs(teacher: Teacher, view: int) -> Tensor:
    """Return class probabilities (N, C) of the whole pool in one view, in parts."""
    parts = torch.arange(len(teacher)).split(CHUNK)
    return torch.cat([teacher.logits(part, view).softmax(dim=1) for part in parts])


def check_text_weights(cache: TeacherCache, text_weights: Tensor) -> None:
    """Raise ValueError for text weights that are not (D, C) or not finite."""
    if text_weights.ndim != 2 or text_weights.shape[0] != cache.dim:
        raise ValueError(
            f"text weights are {tuple(text_weights.shape)}, but the cached features have "
            f"{cache.dim} numbers; (D, C) = ({cache.dim}, classes) is needed: take them from the "
            "VLM that made the cache"
        )
    if not torch.isfinite(text_weights).all():
        raise ValueError("text weights are NaN or infinite; the text tower's weights are damaged")


def _check_test(cache: TeacherCache, test: TeacherCache | None) -> None:
    if test is not None and test.fingerprint.get("vlm") != cache.fingerprint.get("vlm"):
        raise ValueError(
            "the cache of the test images was made by another VLM than the pool's; build both with "
            "the same one: test=TeacherCache.build_test(vlm, data)"
        )
