"""Image features on disk: shards with checksums, written by one process at a time, opened by memory map.

A cache is a folder with `features.f16`, raw float16 (V, N, D), and `manifest.json`: the fingerprint of all that the features
depend on, and the sha256 of every finished shard, which holds all views of some images. A killed build goes on at the first
shard that is not listed.
"""

import contextlib
import hashlib
import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm import tqdm

from activekd_lite.utils.files import (
    checksum_matches,
    parse_json,
    require_same,
    with_checksum,
    write_atomic,
)

FORMAT = 3  # since 3 the fingerprint says whether the VLM has QuickGELU
OWN_FILES = ("features.f16", "manifest.json")
SHARD = (
    4096  # features of a shard, all views of an image together: what a killed build loses at most
)
REMEDY = "delete the folder (`activekd-lite cache prune` finds it) and build the cache again"


@dataclass
class FeatureStore:
    """The folder of one cache: V views of N images, D numbers each (None before the first shard)."""

    folder: Path
    fingerprint: dict
    count: int
    size: int
    dim: int | None = None
    shards: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "FeatureStore":
        """What the manifest says. Raises FileNotFoundError where there is none, ValueError for one that makes no sense."""
        path = folder / "manifest.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"no teacher cache at {folder}; make one with TeacherCache.build(vlm, pool)"
            )
        try:
            manifest = parse_json(path.read_bytes())
            if "sha256" in manifest and not checksum_matches(
                manifest
            ):  # those of older versions have none of their own
                raise ValueError("its checksum differs")
            count, size, dim = (int(x) for x in manifest["shape"])
            if min(count, size, dim) < 1 or manifest["fingerprint"]["format"] != FORMAT:
                raise ValueError(
                    f"shape {count} x {size} x {dim}, format {manifest['fingerprint']['format']}"
                )
            return cls(folder, manifest["fingerprint"], count, size, dim, dict(manifest["shards"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged or of an older version ({error!r}); {REMEDY}"
            ) from error

    @classmethod
    def resume(cls, folder: Path, fingerprint: dict, count: int, size: int) -> "FeatureStore":
        """What an earlier build left there, or an empty one. Raises ValueError where it was made from something else."""
        if not (folder / "manifest.json").is_file():
            return cls(folder, fingerprint, count, size)
        found = cls.read(folder)
        require_same(found.fingerprint, fingerprint, f"the teacher cache {folder}", REMEDY)
        return found

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """First and last + 1 image of every shard."""
        step = max(1, SHARD // self.count)
        return [(start, min(start + step, self.size)) for start in range(0, self.size, step)]

    @property
    def missing(self) -> list[tuple[int, int]]:
        return [
            (start, stop) for start, stop in self.ranges if f"{start}-{stop}" not in self.shards
        ]

    def write(self, features: Tensor, start: int) -> None:
        """Write a shard (V, n, D), then list it: a shard that is listed is whole. Raises OSError for a full disk."""
        block = features.contiguous().numpy()
        self.dim, path = block.shape[2], self.folder / "features.f16"
        try:
            with open(path, "r+b" if path.exists() else "w+b") as file:
                for view, rows in enumerate(block):
                    file.seek((view * self.size + start) * self.dim * block.itemsize)
                    file.write(rows)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            reason = f"cannot write the teacher cache ({error.strerror}); free space or choose another `root`; what is encoded stays"
            raise OSError(error.errno, reason, str(self.folder)) from error
        self.shards[f"{start}-{start + block.shape[1]}"] = hashlib.sha256(block).hexdigest()
        manifest = {
            "fingerprint": self.fingerprint,
            "shape": [self.count, self.size, self.dim],
            "shards": self.shards,
        }
        write_atomic(
            self.folder / "manifest.json", json.dumps(with_checksum(manifest), indent=1) + "\n"
        )

    def open(self, verify: bool = True) -> Tensor:
        """The features (V, N, D) float16, mapped into memory: read from disk when they are looked at.

        verify: compare all with their checksums, about a second a gigabyte. Raises FileNotFoundError for an unfinished cache,
        ValueError for bytes that differ.
        """
        if missing := self.missing:
            raise FileNotFoundError(
                f"the teacher cache {self.folder} is unfinished: {len(missing)} of {len(self.ranges)} shards are missing; "
                "TeacherCache.build resumes it"
            )
        path, shape = self.folder / "features.f16", (self.count, self.size, self.dim)
        length = path.stat().st_size if path.is_file() else 0
        if length != 2 * np.prod(shape):
            raise ValueError(
                f"{path} has {length // 2} numbers, not {self.count} x {self.size} x {self.dim}; {REMEDY}"
            )
        features = np.memmap(
            path, dtype=np.float16, mode="c", shape=shape
        )  # "c": torch wants it writable, the file is not
        if verify and (bad := self.damaged(features)):
            raise ValueError(
                f"{path} is damaged in {len(bad)} shards, first images {bad[0]}; {REMEDY}"
            )
        return torch.from_numpy(features)

    def mark_used(self) -> None:
        """Now, for `prune`, as the manifest's time; a cache may lie where nothing can be written."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / "manifest.json")

    def damaged(self, features: np.ndarray) -> list[str]:
        """The shards whose bytes differ from their checksum."""
        bad = []
        for start, stop in self.ranges:
            digest = hashlib.sha256()
            for rows in features:  # (N, D)
                digest.update(rows[start:stop])
            if digest.hexdigest() != self.shards[f"{start}-{stop}"]:
                bad.append(f"{start}-{stop}")
        return bad


def info(root: str | os.PathLike = ".cache") -> pd.DataFrame:
    """A row for each cache under `root`: folder, vlm, pretrained, views, images, dim, mib, state ("whole", "unfinished",
    "damaged": no manifest that can be read) and unused_days."""
    rows = []
    for folder in _folders(root):
        row = {
            "folder": str(folder),
            "mib": sum(f.lstat().st_size for f in folder.iterdir()) / 2**20,
            "state": "damaged",
        }
        row["unused_days"] = (
            time.time() - max(f.lstat().st_mtime for f in folder.iterdir())
        ) / 86400
        with contextlib.suppress(ValueError, OSError, KeyError, TypeError):
            store = FeatureStore.read(folder)
            vlm = store.fingerprint["vlm"]
            row |= {
                "vlm": vlm["name"],
                "pretrained": vlm["pretrained"],
                "views": store.count,
                "images": store.size,
            }
            row |= {"dim": store.dim, "state": "unfinished" if store.missing else "whole"}
        rows.append(row)
    columns = [
        "folder",
        "vlm",
        "pretrained",
        "views",
        "images",
        "dim",
        "mib",
        "state",
        "unused_days",
    ]
    return pd.DataFrame(rows, columns=columns).astype(
        {c: "Int64" for c in ("views", "images", "dim")}
    )


def verify(root: str | os.PathLike = ".cache") -> dict[Path, str]:
    """What is wrong with each cache under `root` (or with the one that it is); "" where every checksum is right."""
    wrong = {}
    for folder in tqdm(_folders(root), unit="cache", desc="comparing checksums", delay=2):
        try:
            FeatureStore.read(folder).open()
            wrong[folder] = ""
        except (ValueError, OSError) as error:
            wrong[folder] = str(error)
    return wrong


def prune(
    root: str | os.PathLike = ".cache", unused_days: float | None = None, *, delete: bool = False
) -> dict[Path, str]:
    """Which caches under `root` can go, and why: unfinished, damaged or of an older version, or not used for `unused_days`.

    delete: delete them; one that is being built stays. Returns {folder: reason}.
    """
    going = {}
    for row in info(root).itertuples():
        folder = Path(row.folder)
        reason = "" if row.state == "whole" else row.state
        if row.state == "whole" and unused_days is not None and row.unused_days >= unused_days:
            reason = f"not used for {row.unused_days:.0f} days"
        elif row.state == "whole":
            reason = verify(folder)[folder]
        if reason:
            with contextlib.suppress(Timeout), FileLock(folder / ".lock", timeout=0):
                going[folder] = reason
                for file in folder.iterdir() if delete else ():
                    if file.name != ".lock":
                        file.unlink()
            if delete and folder in going:
                (folder / ".lock").unlink(missing_ok=True)
                folder.rmdir()
    return going


def _folders(root: str | os.PathLike) -> list[Path]:
    """The caches under `root`, itself if it is one: by their names and what is in them, so that nothing else is ever touched.
    Raises FileNotFoundError for no folder."""
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"no folder {root} with teacher caches in it; TeacherCache.build and `activekd-lite cache` make one"
        )
    return [path for path in (root, *sorted(root.iterdir())) if _is_cache(path)]


def _is_cache(path: Path) -> bool:
    if (
        not path.is_dir()
        or path.is_symlink()
        or not re.search(r"-[0-9a-f]{12}$", path.resolve().name)
    ):
        return False
    found = [file.name for file in path.iterdir() if not file.name.endswith(".partial")]
    return bool(found) and set(found) <= {*OWN_FILES, ".lock"}
