"""From cached image features to the teacher's logits. Nothing here runs the vision-language model."""

import hashlib

import torch
from torch import Tensor

from activekd_lite.cache import TeacherCache


class ZeroShotTeacher:
    """The VLM as it comes: logits = logit_scale * f . W (CLIP, arXiv:2103.00020).

    cache: features (V, N, D); text_weights: (D, C) from `VLM.text_weights`; logit_scale: the VLM's own when None.
    Raises ValueError when D differs or the weights are not finite.
    """

    def __init__(self, cache: TeacherCache, text_weights: Tensor, logit_scale: float | None = None):
        dim = cache.features.shape[-1]
        if text_weights.ndim != 2 or text_weights.shape[0] != dim:
            raise ValueError(
                f"text weights are {tuple(text_weights.shape)}, but the cached features have {dim} numbers; (D, C) = "
                f"({dim}, classes) is needed: take them from the VLM that made the cache"
            )
        if not torch.isfinite(text_weights).all():
            raise ValueError("text weights hold NaN or infinite numbers; the text tower's weights are damaged")
        self.cache = cache
        self.text_weights = text_weights.float().to(cache.features.device)
        self.logit_scale = cache.logit_scale if logit_scale is None else float(logit_scale)

    @property
    def num_classes(self) -> int:
        return self.text_weights.shape[1]

    def logits(self, indices: Tensor, view: Tensor | int = 0) -> Tensor:
        """Logits (B, C) float32 of the images `indices` (B,) in the views `view` (B,), or all in one view."""
        device = self.cache.features.device
        view = torch.as_tensor(view, device=device)
        features = self.cache.features[view, torch.as_tensor(indices, device=device)]  # (B, D)
        return self.logit_scale * features.float() @ self.text_weights

    def probs(self, view: int = 0) -> Tensor:
        """Class probabilities (N, C) of the whole pool in one view."""
        return torch.cat([self.logits(i, view).softmax(dim=1) for i in torch.arange(self.cache.features.shape[1]).split(8192)])

    def to(self, device: str | torch.device) -> "ZeroShotTeacher":
        return ZeroShotTeacher(self.cache.to(device), self.text_weights, self.logit_scale)

    def fingerprint(self) -> dict:
        """What decides the logits, JSON-ready: the cache, the prompts (as text weights) and the scale."""
        weights = self.text_weights.cpu().half().contiguous().numpy().tobytes()
        return {"cache": self.cache.fingerprint, "text_weights": hashlib.sha256(weights).hexdigest(),
                "logit_scale": self.logit_scale}  # fmt: skip
