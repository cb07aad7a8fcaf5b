"""Atomic writes, folder locks, checksums, and the models that ship with the project."""

import contextlib
import functools
import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

PACKAGE = Path(__file__).resolve().parent.parent
MAX_DEPTH = 100  # levels of JSON; Python's parser recurses once per level
_HOLDERS: dict[Path, tuple[int, int]] = {}  # locked folder -> process and thread that hold it


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace the file `path` in one step, and flush it to disk.

    After a crash or a power loss the file is the old one or the new one, never a part of either.
    Raises OSError naming the folder if it is read-only or the disk is full; the old file stays.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        reason = f"cannot write {path.name} ({error.strerror}); free space or choose another folder"
        raise OSError(error.errno, f"{reason} instead of", str(path.parent)) from error


def _sync_folder(folder: Path) -> None:
    """Flush the folder's file names to disk, where the system can (Windows does so by itself)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_partials(folder: Path, *names: str) -> None:
    """Delete the unfinished files of killed processes; call only while holding the folder lock.

    names: of the files that were being written; "*" matches any.
    """
    for name in names:
        for path in folder.glob(f".{name}.*.partial"):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; if another thread or process has it, say so and wait.

    The lock is freed when its process dies.
    Raises RuntimeError if this thread already holds it.
    """
    place, me = folder.resolve(), (os.getpid(), threading.get_ident())
    holder = _HOLDERS.get(place, (0, 0))
    if holder == me:
        raise RuntimeError(
            f"this thread already works in {folder}: finish that first, or choose another folder"
        )
    lock = FileLock(place / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        other = "another thread of this process" if holder[0] == me[0] else "another process"
        tqdm.write(f"{other} is using {folder}: waiting for it to finish", file=sys.stderr)
        lock.acquire()
    _HOLDERS[place] = me
    try:
        yield
    finally:
        del _HOLDERS[place]
        lock.release()


def make_folder(path: str | os.PathLike) -> Path:
    """Return the folder, created if missing. Raises OSError naming it if it is not writable."""
    folder, way_out = Path(path), "choose another folder instead of"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"cannot create the folder ({error.strerror}); {way_out}"
        raise OSError(error.errno, reason, str(folder)) from error
    if not os.access(folder, os.W_OK):
        raise PermissionError(13, f"the folder is read-only; {way_out}", str(folder))
    return folder


def parse_json(text: str | bytes) -> Any:
    """Parse JSON. Raises ValueError for invalid text and for nesting deeper than MAX_DEPTH."""
    too_deep = f"nested deeper than {MAX_DEPTH} levels"
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(too_deep) from error
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _values(outer)]
    if any(isinstance(inner, dict | list) for inner in level):
        raise ValueError(too_deep)
    return value


def _values(item: object) -> Iterable[object]:
    return item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()


def read_json(path: Path, remedy: str) -> Any:
    """Read a JSON file. Raises ValueError naming the file and the remedy if it is not JSON."""
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:  # also what JSON and UTF-8 decoders raise
        raise ValueError(f"{path} is not valid JSON ({error}); {remedy}") from error


def digest(content: object) -> str:
    """sha256 of `content` as JSON, independent of spacing and key order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def with_checksum(content: dict) -> dict:
    """`content` plus its digest under the key `sha256`; `checksum_matches` checks it."""
    return content | {"sha256": digest(content)}


def checksum_matches(content: object) -> bool:
    """Whether `content`, read from JSON, is unchanged since `with_checksum`."""
    if not isinstance(content, dict):
        return False
    return content.get("sha256") == digest({k: v for k, v in content.items() if k != "sha256"})


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def embedded_folder(name: str) -> Path:
    """The folder of embedded data or of an embedded model, in an installed wheel or in a clone."""
    folders = [PACKAGE / "data" / name, PACKAGE.parent / "data" / name]
    return next((folder for folder in folders if folder.is_dir()), folders[-1])


def embedded_clips() -> tuple[str, ...]:
    """Names of the embedded vision-language models: folders with weights or their manifest."""
    folders = sorted(embedded_folder("tiny-clip").parent.glob("tiny-clip*"))
    kept = ("weights.safetensors", "manifest.json")
    return tuple(f.name for f in folders if any((f / name).is_file() for name in kept))


def embedded_model(name: str) -> tuple[Path, dict]:
    """Folder and manifest of an embedded model, once every file matches its sha256.

    A configuration is compared by content, so line endings do not matter.
    Raises FileNotFoundError for a missing file, ValueError for a damaged or edited one.
    """
    folder = embedded_folder(name)
    script = f"data/{name}/pretrain.py"
    if name.startswith("tiny-clip-"):
        script = f"data/tiny-clip/pretrain.py --model {name}"
    remedy = f"restore it with `git checkout -- data/{name}`, or run `python {script}`"
    manifest_path = _existing(folder / "manifest.json", remedy)
    manifest = read_json(manifest_path, remedy)
    if not checksum_matches(manifest):
        raise ValueError(f"{manifest_path} is damaged or edited: its checksum differs; {remedy}")
    weights = _existing(folder / "weights.safetensors", remedy)
    _check_sha256(weights, sha256_of(weights), manifest["weights_sha256"], remedy)
    if "config_sha256" in manifest:
        config = _existing(folder / f"{name}.json", remedy)
        _check_sha256(config, digest(read_json(config, remedy)), manifest["config_sha256"], remedy)
    return folder, manifest


def _existing(path: Path, remedy: str) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {remedy}")
    return path


def _check_sha256(path: Path, found: str, expected: str, remedy: str) -> None:
    if found != expected:
        raise ValueError(
            f"{path} is damaged: its sha256 is {found[:12]}..., "
            f"but the manifest says {expected[:12]}...; {remedy}"
        )


def name_of(function: object) -> str:
    """The name of a callable in a configuration, with the arguments of a `functools.partial`."""
    if isinstance(function, functools.partial):
        keywords = [f"{k}={v!r}" for k, v in sorted(function.keywords.items())]
        return f"{name_of(function.func)}({', '.join([*map(repr, function.args), *keywords])})"
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def require_same(found: dict, expected: dict, subject: str, remedy: str) -> None:
    """Raise ValueError if `found` differs from `expected`.

    The message names every (nested) field that differs, both values, the subject and the remedy.
    """
    found, expected = _flat(found), _flat(expected)
    fields = sorted(k for k in found.keys() | expected.keys() if found.get(k) != expected.get(k))
    if fields:
        shown = "; ".join(
            f"{k}: {_short(found.get(k))} stored, {_short(expected.get(k))} requested"
            for k in fields
        )
        raise ValueError(f"{subject} was made with other settings or inputs ({shown}); {remedy}")


def _flat(nested: dict, prefix: str = "") -> dict:
    """{"a": {"b": 1}} -> {"a.b": 1}; tuples become lists, as in JSON."""
    flat = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
