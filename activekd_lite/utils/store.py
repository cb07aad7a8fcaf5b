"""Image features on disk: written shard by shard with checksums, opened as a memory map.

A cache is a folder with `features.f16`, raw float16 (V, N, D), and `manifest.json`, which holds
the fingerprint of everything the features depend on, and the sha256 of every finished shard. A
shard holds all views of some images. A killed build resumes at the first shard that is not listed.
"""

import contextlib
import hashlib
import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm import tqdm

from activekd_lite.utils import files

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 3  # since 3, the fingerprint tells whether the VLM uses QuickGELU
OWN_FILES = ("features.f16", "manifest.json")
SHARD = 4096  # views in a shard: at most this many are lost when a build is killed
REMEDY = "delete the folder (`activekd-lite cache prune` finds it) and build the cache again"


@dataclass
class FeatureStore:
    """One cache folder: `views` views of `images` images, `dim` numbers each."""

    folder: Path
    fingerprint: dict
    views: int
    images: int
    dim: int | None = None  # None before the first shard
    shards: dict[str, str] = field(default_factory=dict)  # "start-stop" -> sha256

    @classmethod
    def read(cls, folder: Path) -> "FeatureStore":
        """Read the manifest.

        Raises FileNotFoundError if there is none, ValueError if it is damaged or too old.
        """
        path = folder / "manifest.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"no teacher cache at {folder}; make one with TeacherCache.build(vlm, pool)"
            )
        try:
            return cls._from_manifest(folder, files.parse_json(path.read_bytes()))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged or of an older version ({error!r}); {REMEDY}"
            ) from error

    @classmethod
    def _from_manifest(cls, folder: Path, manifest: dict) -> "FeatureStore":
        # manifests of older versions have no checksum: their format is reported instead
        if "sha256" in manifest and not files.checksum_matches(manifest):
            raise ValueError("its checksum differs")
        views, images, dim = (int(x) for x in manifest["shape"])
        fingerprint = manifest["fingerprint"]
        if min(views, images, dim) < 1 or fingerprint["format"] != FORMAT:
            raise ValueError(f"shape {views} x {images} x {dim}, format {fingerprint['format']}")
        return cls(folder, fingerprint, views, images, dim, dict(manifest["shards"]))

    @classmethod
    def resume(cls, folder: Path, fingerprint: dict, views: int, images: int) -> "FeatureStore":
        """The store of an earlier build, or an empty one.

        Raises ValueError if the earlier build had another fingerprint.
        """
        if not (folder / "manifest.json").is_file():
            return cls(folder, fingerprint, views, images)
        found = cls.read(folder)
        files.require_same(found.fingerprint, fingerprint, f"the teacher cache {folder}", REMEDY)
        return found

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """(start, stop) of the images of every shard."""
        step = max(1, SHARD // self.views)
        return [(start, min(start + step, self.images)) for start in range(0, self.images, step)]

    @property
    def missing(self) -> list[tuple[int, int]]:
        """(start, stop) of every unfinished shard."""
        return [(a, b) for a, b in self.ranges if f"{a}-{b}" not in self.shards]

    def write(self, features: Tensor, start: int) -> None:
        """Write the shard (V, n, D) from image `start` on, then list it in the manifest.

        The order ensures that a listed shard is complete. Raises OSError if the disk is full.
        """
        block = features.contiguous().numpy()
        self.dim = block.shape[2]
        try:
            self._write_rows(block, start)
        except OSError as error:
            reason = (
                f"cannot write the teacher cache ({error.strerror}); free space or choose another "
                "`root`; finished shards are kept"
            )
            raise OSError(error.errno, reason, str(self.folder)) from error
        self.shards[f"{start}-{start + block.shape[1]}"] = hashlib.sha256(block).hexdigest()
        shape = [self.views, self.images, self.dim]
        manifest = {"fingerprint": self.fingerprint, "shape": shape, "shards": self.shards}
        text = json.dumps(files.with_checksum(manifest), indent=1) + "\n"
        files.write_atomic(self.folder / "manifest.json", text)

    def _write_rows(self, block: np.ndarray, start: int) -> None:
        path = self.folder / "features.f16"
        with open(path, "r+b" if path.exists() else "w+b") as file:
            for view, rows in enumerate(block):
                file.seek((view * self.images + start) * self.dim * block.itemsize)
                file.write(rows)
            file.flush()
            os.fsync(file.fileno())

    def open(self, verify: bool = True) -> Tensor:
        """The features (V, N, D) float16 as a memory map, read from disk on access.

        verify: compare all checksums, which takes about a second per gigabyte.
        Raises FileNotFoundError for an unfinished cache, ValueError for a damaged one.
        """
        if missing := self.missing:
            raise FileNotFoundError(
                f"the teacher cache {self.folder} is unfinished: {len(missing)} of "
                f"{len(self.ranges)} shards are missing; TeacherCache.build resumes it"
            )
        path, shape = self.folder / "features.f16", (self.views, self.images, self.dim)
        length = path.stat().st_size if path.is_file() else 0
        if length != 2 * np.prod(shape):
            expected = " x ".join(map(str, shape))
            raise ValueError(f"{path} has {length // 2} numbers, not {expected}; {REMEDY}")
        # copy-on-write, since torch warns about read-only arrays
        features = np.memmap(path, dtype=np.float16, mode="c", shape=shape)
        if verify and (bad := self.damaged(features)):
            raise ValueError(
                f"{path} is damaged in {len(bad)} shards, first images {bad[0]}; {REMEDY}"
            )
        return torch.from_numpy(features)

    def mark_used(self) -> None:
        """Set the manifest's time to now, for `prune`, unless the folder is read-only."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / "manifest.json")

    def damaged(self, features: np.ndarray) -> list[str]:
        """The shards ("start-stop") whose bytes do not match their checksum."""
        bad = []
        for start, stop in self.ranges:
            digest = hashlib.sha256()
            for rows in features:  # (N, D)
                digest.update(rows[start:stop])
            if digest.hexdigest() != self.shards[f"{start}-{stop}"]:
                bad.append(f"{start}-{stop}")
        return bad


COLUMNS = "folder vlm pretrained views images dim mib state unused_days".split()


def info(root: str | os.PathLike = ".cache") -> "pd.DataFrame":
    """One row per cache under `root`, with the columns COLUMNS.

    state: "whole", "unfinished", or "damaged" (its manifest cannot be read).
    """
    import pandas as pd  # slow

    table = pd.DataFrame([_describe(folder) for folder in _folders(root)], columns=COLUMNS)
    return table.astype({name: "Int64" for name in ("views", "images", "dim")})


def _describe(folder: Path) -> dict:
    """A row of `info`."""
    stats = [file.lstat() for file in folder.iterdir()]
    row = {"folder": str(folder), "mib": sum(s.st_size for s in stats) / 2**20, "state": "damaged"}
    row["unused_days"] = (time.time() - max(s.st_mtime for s in stats)) / 86400
    with contextlib.suppress(ValueError, OSError, KeyError, TypeError):
        store = FeatureStore.read(folder)
        vlm = store.fingerprint["vlm"]
        row |= {"vlm": vlm["name"], "pretrained": vlm["pretrained"]}
        row |= {"views": store.views, "images": store.images, "dim": store.dim}
        row["state"] = "unfinished" if store.missing else "whole"
    return row


def verify(root: str | os.PathLike = ".cache") -> dict[Path, str]:
    """Compare the checksums of each cache under `root`, or of `root` if it is a cache.

    Returns {folder: error}, where the error is "" if every checksum matches.
    """
    errors = {}
    for folder in tqdm(_folders(root), unit="cache", desc="comparing checksums", delay=2):
        try:
            FeatureStore.read(folder).open()
            errors[folder] = ""
        except (ValueError, OSError) as error:
            errors[folder] = str(error)
    return errors


def prune(
    root: str | os.PathLike = ".cache", unused_days: float | None = None, *, delete: bool = False
) -> dict[Path, str]:
    """Find the caches under `root` that are unfinished, damaged or of an older version.

    unused_days: also find those that were not used for this many days.
    delete: delete what is found.
    A cache that is being built is skipped. Returns {folder: reason}.
    """
    found = {}
    for folder in _folders(root):
        if reason := _prune_reason(folder, unused_days):
            with contextlib.suppress(Timeout), FileLock(folder / ".lock", timeout=0):
                found[folder] = reason
                for file in folder.iterdir() if delete else ():
                    if file.name != ".lock":
                        file.unlink()
            if delete and folder in found:
                (folder / ".lock").unlink(missing_ok=True)
                folder.rmdir()
    return found


def _prune_reason(folder: Path, unused_days: float | None) -> str:
    row = _describe(folder)
    if row["state"] != "whole":
        return row["state"]
    if unused_days is not None and row["unused_days"] >= unused_days:
        return f"not used for {row['unused_days']:.0f} days"
    return verify(folder)[folder]


def _folders(root: str | os.PathLike) -> list[Path]:
    """The caches under `root`, including `root` itself. Raises FileNotFoundError for no folder."""
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"no folder {root} with teacher caches; TeacherCache.build and `activekd-lite cache "
            "build` make one"
        )
    return [path for path in (root, *sorted(root.iterdir())) if _is_cache(path)]


def _is_cache(path: Path) -> bool:
    """Whether name and content are a cache's, so that no other folder is ever deleted."""
    if not path.is_dir() or path.is_symlink():
        return False
    if not re.search(r"-[0-9a-f]{12}$", path.resolve().name):
        return False
    found = {file.name for file in path.iterdir() if not file.name.endswith(".partial")}
    return bool(found) and found <= {*OWN_FILES, ".lock"}
