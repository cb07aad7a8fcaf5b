"""The teacher's image features, once per (model, weights, images, views): a run never encodes an image twice.

On disk a cache is a folder with `features.f16`, raw float16 (V, N, D), and `manifest.json`: the fingerprint of all that the
features depend on, and the sha256 of every finished shard. A killed build goes on at the first shard that is not listed.
Prompts are no part of it: text weights are cheap, and another prompt must not cost a new encode.
"""

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from activekd_lite.device import resolve_device
from activekd_lite.files import make_folder, require_same, write_atomic
from activekd_lite.pool import Pool
from activekd_lite.views import Augmentation, Views, pixels
from activekd_lite.vlm import VLM

FORMAT = 1
SHARD = 2048  # images; also the step in which a build can be resumed


@dataclass(frozen=True)
class TeacherCache:
    """features: (V, N, D) float16, unit norm; `views` says which views; `fingerprint` what they are valid for."""

    features: Tensor
    views: Views
    fingerprint: dict
    path: Path | None = None

    @classmethod
    def build(
        cls, vlm: VLM, pool: Pool, views: Views | int = 5, root: str | os.PathLike = ".cache", batch_size: int = 256,
        progress: bool = True, device: str | torch.device | None = None,
    ) -> "TeacherCache":  # fmt: skip
        """Encode every view of every image under `root`, or open what is there. An interrupted build resumes.

        views: how many, with the pool's own augmentation, or a `Views`. device: where to encode, and where the
        VLM is moved; None leaves it where it is. Raises ValueError for non-finite features, OSError for a folder that
        cannot be written or a full disk.
        """
        if device is not None:
            vlm.model.to(resolve_device(device))
        views = Views(views, augmentation=pool.augmentation) if isinstance(views, int) else views
        fingerprint = fingerprint_of(vlm, pool, views)
        digest = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:12]
        folder = make_folder(Path(root) / f"{_safe(vlm.name)}-{digest}")
        manifest = _read_manifest(folder, fingerprint)
        todo = [s for s in _shards(views.count, len(pool)) if _key(*s) not in manifest["shards"]]
        if todo:
            with tqdm(total=sum(stop - start for _, start, stop in todo), unit="image", disable=not progress,
                      desc=f"encoding with {vlm.name}") as bar:  # fmt: skip
                images, first = None, None
                for view, start, stop in todo:
                    if start != first:  # all views of a shard follow each other: its files are decoded once
                        images, first = pool.images[start:stop], start
                    features = _encode(vlm, images, views, view, start, batch_size)
                    _store(folder, manifest, features, view, start, len(pool))
                    bar.update(stop - start)
        return cls.open(folder, vlm=vlm, pool=pool)

    @classmethod
    def open(cls, path: str | os.PathLike, *, vlm: VLM | None = None, pool: Pool | None = None) -> "TeacherCache":
        """Open a finished cache; with `vlm` or `pool`, check that it was made from them.

        Raises FileNotFoundError for no or an unfinished cache, ValueError for one of other weights, images or views, or
        with bytes that differ from its checksums.
        """
        folder = Path(path)
        if not (folder / "manifest.json").is_file():
            raise FileNotFoundError(f"no teacher cache at {folder}; make one with TeacherCache.build(vlm, pool)")
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        count, size, dim = manifest["shape"]
        views = _views_from(manifest["fingerprint"]["views"])
        expected = dict(manifest["fingerprint"])
        expected.update({"vlm": vlm.fingerprint()} if vlm else {}, **({"pool": pool.fingerprint()} if pool else {}))
        require_same(manifest["fingerprint"], expected, f"the teacher cache {folder}", _REMEDY)
        if missing := [s for s in _shards(count, size) if _key(*s) not in manifest["shards"]]:
            raise FileNotFoundError(
                f"the teacher cache {folder} is unfinished: {len(missing)} shards are missing; TeacherCache.build resumes it"
            )
        raw = np.fromfile(folder / "features.f16", dtype=np.float16)
        if raw.size != count * size * dim:
            raise ValueError(f"{folder / 'features.f16'} has {raw.size} numbers, not {count} x {size} x {dim}; {_REMEDY}")
        features = raw.reshape(count, size, dim)
        for view, start, stop in _shards(count, size):
            if _sha256(features[view, start:stop]) != manifest["shards"][_key(view, start, stop)]:
                raise ValueError(f"{folder / 'features.f16'} is damaged at view {view}, images {start}..{stop - 1}; {_REMEDY}")
        return cls(torch.from_numpy(features), views, manifest["fingerprint"], folder)

    @property
    def logit_scale(self) -> float:
        """The temperature the VLM was trained with: what its cosine similarities are multiplied by."""
        return self.fingerprint["vlm"]["logit_scale"]

    def to(self, device: str | torch.device) -> "TeacherCache":
        """The same cache with its features in the memory of `device`."""
        return TeacherCache(self.features.to(resolve_device(device)), self.views, self.fingerprint, self.path)


_REMEDY = "delete the folder and build the cache again"


def fingerprint_of(vlm: VLM, pool: Pool, views: Views) -> dict:
    """All that the features depend on, JSON-ready."""
    return {"format": FORMAT, "vlm": vlm.fingerprint(), "pool": pool.fingerprint(), "views": views.fingerprint()}


def _encode(vlm: VLM, images: Tensor, views: Views, view: int, start: int, batch_size: int) -> Tensor:
    """One view of the images (n, 3, H, W) of a shard, the first of which is pool image `start`: (n, D) float16, unit norm."""
    parts = []
    for ids in torch.arange(len(images)).split(batch_size):
        batch = images[ids].to(vlm.device)
        x = pixels(views, batch, start + ids, torch.full_like(ids, view), vlm.input_size, vlm.interpolation)
        parts.append(vlm.encode_images(x).cpu())
    features = torch.cat(parts)
    if not torch.isfinite(features).all():
        bad = start + int((~torch.isfinite(features)).any(dim=1).float().argmax())
        raise ValueError(f"{vlm.name} gives NaN or infinite features for image {bad}; its weights or the image are damaged")
    return features.half()


def _store(folder: Path, manifest: dict, features: Tensor, view: int, start: int, pool_size: int) -> None:
    """Write the shard, then list it: a shard that is listed is whole."""
    block = features.contiguous().numpy()
    dim = block.shape[1]
    path = folder / "features.f16"
    try:
        with open(path, "r+b" if path.exists() else "w+b") as file:
            file.seek((view * pool_size + start) * dim * block.itemsize)
            file.write(block.tobytes())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        remedy = "free space or choose another `root`; what is encoded stays"
        raise OSError(error.errno, f"cannot write the teacher cache ({error.strerror}); {remedy}", str(folder)) from error
    manifest["shape"] = [manifest["fingerprint"]["views"]["count"], pool_size, dim]
    manifest["shards"][_key(view, start, start + len(block))] = _sha256(block)
    write_atomic(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")


def _read_manifest(folder: Path, fingerprint: dict) -> dict:
    path = folder / "manifest.json"
    if not path.is_file():
        return {"fingerprint": fingerprint, "shards": {}}
    manifest = json.loads(path.read_text(encoding="utf-8"))
    require_same(manifest["fingerprint"], fingerprint, f"the teacher cache {folder}", _REMEDY)
    return manifest


def _shards(views: int, size: int) -> list[tuple[int, int, int]]:
    starts = [i * SHARD for i in range(math.ceil(size / SHARD))]
    return [(view, start, min(start + SHARD, size)) for start in starts for view in range(views)]


def _views_from(fields: dict) -> Views:
    rest = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items() if k not in ("count", "seed")}
    return Views(fields["count"], fields["seed"], Augmentation(**rest))


def _key(view: int, start: int, stop: int) -> str:
    return f"{view}:{start}-{stop}"


def _sha256(block: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(block)).hexdigest()


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
