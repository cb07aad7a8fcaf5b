"""What a student is trained on: the pixels of any (image, view), or cached features instead."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from activekd_lite.cache import FrozenFeatures
from activekd_lite.pool import Pool
from activekd_lite.utils.backbones import find_backbone
from activekd_lite.utils.images import Batch, ImageFiles, stream_views
from activekd_lite.utils.views import Views, all_views


class ViewBank:
    """Pixels at the student's size: rendered once and kept as uint8 if they fit, else on demand.

    `bank(indices (B,), view (B,))` gives (B, 3, S, S) float in [0, 1] on `device`, the same numbers
    either way.
    """

    dim = None  # it has pixels, not features

    def __init__(
        self, pool: Pool, views: Views, size: int, device: torch.device, budget_bytes: int = 2**30
    ):
        self.pool, self.views, self.size, self.device = pool, views, size, device
        shape = (views.count, len(pool), 3, size, size)
        self.kept = None
        if torch.Size(shape).numel() <= budget_bytes:
            kept = torch.empty(shape, dtype=torch.uint8, device=device)
            parts = torch.arange(len(pool)).split(max(1, 256 // views.count))
            batches = [all_views(ids, views.count) for ids in parts]  # a file is decoded only once
            for (index, view), rendered in zip(batches, self._render(batches), strict=True):
                kept[view, index] = rendered
            self.kept = kept

    def __call__(self, indices: Tensor, view: Tensor) -> Tensor:
        return next(self.stream([(indices, view)]))

    def stream(self, batches: Sequence[Batch]) -> Iterator[Tensor]:
        """Yield the pixels of each batch in order; files are decoded ahead."""
        kept = None if self.kept is None else (self.kept[view, index] for index, view in batches)
        for rendered in kept or self._render(batches):
            yield (rendered.float() / 255).contiguous(memory_format=torch.channels_last)

    def centers(self) -> Tensor | ImageFiles:
        """Return what `predict` needs for the whole pool."""
        return self.pool.images

    def _render(self, batches: Sequence[Batch]) -> Iterator[Tensor]:
        for x in stream_views(self.pool.images, batches, self.views, self.size, device=self.device):
            yield (x * 255).round().to(torch.uint8)


class FeatureBank:
    """Cached features (B, D) instead of pixels, for students that learn from features."""

    def __init__(self, features: FrozenFeatures, device: torch.device):
        self.cache, self.views, self.device = features.pool.to(device), features.pool.views, device
        self.dim = self.cache.dim

    def stream(self, batches: Sequence[Batch]) -> Iterator[Tensor]:
        return (self.cache.gather(index, view) for index, view in batches)

    def centers(self) -> Tensor:
        return self.cache.features[0]


def check_features(pool: Pool, student: str, views: Views, features: FrozenFeatures | None) -> None:
    """Raise ValueError for a student that needs features but has none, or those of other images."""
    if find_backbone(student):
        return
    if features is None:
        raise ValueError(
            f"student {student!r} learns from cached features: pass "
            "features=akd.FrozenFeatures.build(vlm, data)"
        )
    if features.pool.fingerprint["pool"] != pool.fingerprint() or features.pool.views != views:
        raise ValueError(
            "these features were made from other images or views than the run's; build them with "
            "its data and views"
        )


def make_bank(
    pool: Pool,
    student: str,
    views: Views,
    device: torch.device,
    features: FrozenFeatures | None = None,
) -> ViewBank | FeatureBank:
    """Return what a student of that name is trained on; see `check_features`."""
    if backbone := find_backbone(student):
        return ViewBank(pool, views, backbone.input_size, device)
    return FeatureBank(features, device)
