"""A teacher without a cache: the VLM encodes, at every step, the crops that the student sees."""

import functools

import torch
from torch import Tensor

from activekd_lite.pool import LabelState, Pool
from activekd_lite.utils.images import stream_views
from activekd_lite.utils.views import Views
from activekd_lite.vlm import VLM


class OnlineTeacher:
    """A `Teacher` (see `teacher.py`) at full cost. text_weights: (D, C)."""

    def __init__(self, vlm: VLM, pool: Pool, text_weights: Tensor, views: Views, batch: int = 256):
        self.vlm, self.pool, self.text_weights = vlm, pool, text_weights
        self.views, self.batch = views, batch
        self.num_classes = text_weights.shape[1]

    def __len__(self) -> int:
        return len(self.pool)

    def logits(self, indices: Tensor, view: Tensor | int = 0) -> Tensor:
        vlm, batch = self.vlm, (indices, torch.as_tensor(view).expand(len(indices)))
        how = (self.views, vlm.input_size, vlm.interpolation, vlm.device)
        crops = next(stream_views(self.pool.images, [batch], *how, reduced=False))
        return vlm.logit_scale * vlm.encode_images(crops) @ self.text_weights

    @functools.cache  # noqa: B019 - computed once for the pool, as a real run would do
    def probs(self, view: int = 0) -> Tensor:
        parts = torch.arange(len(self)).split(self.batch)
        return torch.cat([self.logits(part, view).softmax(dim=1) for part in parts])

    def fitted(self, state: LabelState, seed: int) -> "OnlineTeacher":
        return self

    def to(self, device: str | torch.device) -> "OnlineTeacher":
        return self

    def fingerprint(self) -> dict:
        return {"kind": "online", "vlm": self.vlm.fingerprint(), "views": self.views.fingerprint()}
