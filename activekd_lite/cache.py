"""The teacher's image features, computed once per (model, weights, images, views).

Prompts are not part of it: text weights are cheap, and another prompt must not cost a new encoding.
On disk: see `utils/store.py`.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from activekd_lite.pool import Dataset, Pool
from activekd_lite.utils.device import resolve_device, send
from activekd_lite.utils.files import (
    digest,
    folder_lock,
    make_folder,
    remove_partials,
    require_same,
)
from activekd_lite.utils.hashing import tensor_sha256
from activekd_lite.utils.images import stream_views
from activekd_lite.utils.store import FORMAT, OWN_FILES, REMEDY, FeatureStore, info, prune, verify
from activekd_lite.utils.views import Augmentation, Views, all_views
from activekd_lite.vlm import VLM

__all__ = ["FrozenFeatures", "TeacherCache", "fingerprint_of", "info", "prune", "verify"]

CPU = torch.device("cpu")


@dataclass(frozen=True)
class TeacherCache:
    """Features (V, N, D) float16 of unit norm, the views they show, and what they are valid for.

    device: where `gather` delivers; features that do not fit there stay on the host.
    """

    features: Tensor
    views: Views
    fingerprint: dict
    path: Path | None = None
    device: torch.device = CPU

    @classmethod
    def build(
        cls,
        vlm: VLM,
        pool: Pool,
        views: Views | int = 1,
        root: str | os.PathLike = ".cache",
        batch_size: int = 256,
        progress: bool = True,
        device: str | torch.device | None = None,
    ) -> "TeacherCache":
        """Encode every view of every image under `root`, or open a finished cache.

        An interrupted build resumes. If two processes build the same cache, the second one waits.

        views: how many, with the pool's own augmentation, or a `Views`. batch_size: views encoded
        at once. device: where to move the VLM and encode; None leaves it where it is.
        Raises ValueError for non-finite features, OSError for a full or read-only disk.
        """
        if device is not None:
            vlm.model.to(resolve_device(device))
        views = Views(views, augmentation=pool.augmentation) if isinstance(views, int) else views
        fingerprint = fingerprint_of(vlm, pool, views)
        folder = Path(root) / f"{_safe(vlm.name)}-{digest(fingerprint)[:12]}"
        if FeatureStore.resume(folder, fingerprint, views.count, len(pool)).missing:
            make_folder(folder)
            with folder_lock(folder):
                remove_partials(folder, *OWN_FILES)
                store = FeatureStore.resume(folder, fingerprint, views.count, len(pool))
                _fill(store, vlm, pool, views, batch_size, progress)
        return cls._opened(folder, fingerprint)

    @classmethod
    def build_test(
        cls, vlm: VLM, data: Dataset, root: str | os.PathLike = ".cache", progress: bool = True
    ) -> "TeacherCache":
        """Encode the centre crops of the test images, or open a finished cache; see `build`."""
        images = Pool(data.test.images, data.classnames, data.pool.augmentation)
        return cls.build(vlm, images, 1, root, progress=progress)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike,
        *,
        vlm: VLM | None = None,
        pool: Pool | None = None,
        verify: bool = True,
    ) -> "TeacherCache":
        """Open a finished cache, and check that it was made from `vlm` and `pool`, if given.

        verify: compare all bytes with their checksums. Raises FileNotFoundError if there is no
        cache or it is unfinished, ValueError if weights, images, views or bytes differ.
        """
        expected = {"vlm": vlm.fingerprint()} if vlm else {}
        return cls._opened(Path(path), expected | (pool.identity() if pool else {}), verify)

    @classmethod
    def _opened(cls, folder: Path, expected: dict, verify: bool = True) -> "TeacherCache":
        store = FeatureStore.read(folder)
        name = f"the teacher cache {folder}"
        require_same(store.fingerprint, store.fingerprint | expected, name, REMEDY)
        features = store.open(verify)
        store.mark_used()
        return cls(features, _views_from(store.fingerprint["views"]), store.fingerprint, folder)

    @property
    def logit_scale(self) -> float:
        """The factor on cosine similarities that the VLM was trained with."""
        return self.fingerprint["vlm"]["logit_scale"]

    @property
    def dim(self) -> int:
        return self.features.shape[2]

    def __len__(self) -> int:
        return self.features.shape[1]

    def gather(self, indices: Tensor, view: Tensor | int = 0) -> Tensor:
        """Return features (B, D) float32, on `device`, of images (B,) in views (B,) or in one."""
        indices = send(torch.as_tensor(indices), self.features.device)
        view = view if isinstance(view, int) else send(view, self.features.device)
        return send(self.features[view, indices], self.device).float()

    def to(self, device: str | torch.device, budget_bytes: int | None = None) -> "TeacherCache":
        """Return the cache for use on `device`.

        The features move there if they fit `budget_bytes` (None: half of the GPU's free memory);
        else `gather` copies what is needed through pinned memory.
        """
        device = resolve_device(device)
        if budget_bytes is None and device.type == "cuda":
            budget_bytes = torch.cuda.mem_get_info(device)[0] // 2
        if budget_bytes is not None and self.features.nbytes > budget_bytes:
            return replace(self, features=self.features.cpu(), device=device)
        return replace(self, features=self.features.to(device), device=device)


@dataclass(frozen=True)
class FrozenFeatures:
    """The VLM's features, from which the students `linear` and `mlp` learn instead of pixels.

    pool: a cache of the pool. test: (M, D) float16, of the test images' centre crops.
    """

    pool: TeacherCache
    test: Tensor

    @classmethod
    def build(
        cls,
        vlm: VLM,
        data: Dataset,
        views: Views | int = 1,
        root: str | os.PathLike = ".cache",
        progress: bool = True,
    ) -> "FrozenFeatures":
        """Encode pool and test set, or open what is there; see `TeacherCache.build`."""
        test = TeacherCache.build_test(vlm, data, root, progress).features[0]
        return cls(TeacherCache.build(vlm, data.pool, views, root, progress=progress), test)

    def fingerprint(self) -> dict:
        return {"cache": self.pool.fingerprint, "test": tensor_sha256(self.test)}


def fingerprint_of(vlm: VLM, pool: Pool, views: Views) -> dict:
    """Return all that the features depend on, JSON-ready."""
    model = {"format": FORMAT, "vlm": vlm.fingerprint()}
    return model | pool.identity() | {"views": views.fingerprint()}


def _fill(
    store: FeatureStore, vlm: VLM, pool: Pool, views: Views, batch_size: int, progress: bool
) -> None:
    """Encode the missing shards.

    A batch holds all views of some images, so a file is decoded once; workers prepare the next
    batch while this one is encoded. A GPU is only waited for at the end of a shard.
    """
    step = max(1, batch_size // views.count)
    todo = [(start, torch.arange(start, stop).split(step)) for start, stop in store.missing]
    pairs = [all_views(ids, views.count) for _, batches in todo for ids in batches]
    size, mode = vlm.input_size, vlm.interpolation
    rendered = stream_views(pool.images, pairs, views, size, mode, vlm.device, reduced=False)
    total = sum(len(ids) for ids, _ in pairs)
    title = f"encoding with {vlm.name}"
    with tqdm(total=total, unit="view", desc=title, disable=not progress) as bar:
        for start, batches in todo:
            parts = []
            for ids in batches:
                parts.append(_encode(vlm, next(rendered), views.count))  # (V, b, D)
                bar.update(views.count * len(ids))
            features = torch.cat(parts, dim=1).cpu()
            _check_finite(features, start, vlm.name)
            store.write(features, start)


def _encode(vlm: VLM, pixels: Tensor, count: int) -> Tensor:
    """Encode `count` views of b images, (V * b, 3, S, S), to (V, b, D) float16 of unit norm."""
    return vlm.encode_images(pixels).half().unflatten(0, (count, -1))


def _check_finite(features: Tensor, start: int, name: str) -> None:
    if not torch.isfinite(features).all():
        bad = start + int((~torch.isfinite(features)).any(dim=2).any(dim=0).float().argmax())
        raise ValueError(
            f"{name} gives NaN or infinite features for image {bad}; its weights or the image are "
            "damaged"
        )


def _views_from(fields: dict) -> Views:
    """Return the `Views` of a fingerprint that was read from JSON."""
    rest: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Views(rest.pop("count"), rest.pop("seed"), Augmentation(**rest))


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
