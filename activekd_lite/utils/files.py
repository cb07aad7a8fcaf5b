"""Files that are whole or absent, folders in which one works at a time, and the weights that come with the project."""

import contextlib
import functools
import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

PACKAGE = Path(__file__).resolve().parent.parent
DEEPEST = 100  # levels of JSON; a parser of brackets recurses
_AT_WORK: dict[
    Path, tuple[int, int]
] = {}  # folder -> process and thread that have it for themselves


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` in one step: a reader, or a crash, sees the old file or the new one, never half of it; and
    after a power loss none that is older than a file written before it.

    Raises OSError with the folder named when it is read-only or the disk is full; what was there before stays.
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
        raise OSError(error.errno, f"cannot write {path.name} ({error.strerror}); free space or choose another folder than",
                      str(path.parent)) from error  # fmt: skip


def _sync_folder(folder: Path) -> None:
    """Names that changed there are on the disk when this returns; Windows does that by itself, some file systems cannot."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_partials(folder: Path, *names: str) -> None:
    """Delete what killed processes left of files that they were writing. names: of the files, "*" for anything; only for who
    has the folder for himself."""
    for name in names:
        for path in folder.glob(f".{name}.*.partial"):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Wait, and say so, until nobody else works in the folder, and keep others waiting; freed when the process dies.

    Raises RuntimeError where the thread that would wait is the one to be waited for.
    """
    place, me = folder.resolve(), (os.getpid(), threading.get_ident())
    there = _AT_WORK.get(place, (0, 0))
    if there == me:
        raise RuntimeError(
            f"what works in {folder} cannot begin there a second time before it is over; take another folder"
        )
    lock = FileLock(place / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        other = "another thread of this process" if there[0] == me[0] else "another process"
        tqdm.write(f"{other} works in {folder}: waiting for it", file=sys.stderr)
        lock.acquire()
    _AT_WORK[place] = me
    try:
        yield
    finally:
        del _AT_WORK[place]
        lock.release()


def make_folder(path: str | os.PathLike) -> Path:
    """The folder, made if it is not there. Raises OSError naming it when that is refused or it cannot be written to."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot make the folder ({error.strerror}); choose another than",
            str(folder),
        ) from error
    if not os.access(folder, os.W_OK):
        raise PermissionError(13, "the folder is read-only; choose another than", str(folder))
    return folder


def parse_json(text: str | bytes) -> object:
    """The value of JSON text. Raises ValueError for anything else, and for more than DEEPEST levels of brackets."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"more than {DEEPEST} levels of brackets") from error
    nested = [value]
    for _ in range(DEEPEST):
        nested = [inner for outer in nested for inner in _values(outer)]
    if any(isinstance(inner, dict | list) for inner in nested):
        raise ValueError(f"more than {DEEPEST} levels of brackets")
    return value


def _values(item: object) -> Iterable[object]:
    return item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()


def read_json(path: Path, remedy: str) -> object:
    """The value in a JSON file. Raises ValueError naming the file and the remedy where it holds none, OSError for no file."""
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:  # also what JSON and UTF-8 decoders raise
        raise ValueError(f"{path} is no JSON ({error}); {remedy}") from error


def digest(content: object) -> str:
    """sha256 of what is written as JSON, however it is spaced and ordered there."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def with_checksum(content: dict) -> dict:
    """`content` with its own digest as `sha256`: for `checksum_matches`, once it was written as JSON and read again."""
    return content | {"sha256": digest(content)}


def checksum_matches(content: object) -> bool:
    """Is it what was with_checksum?"""
    return isinstance(content, dict) and content.get("sha256") == digest(
        {k: v for k, v in content.items() if k != "sha256"}
    )


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def embedded_folder(name: str) -> Path:
    """Where something that comes with the project lies: in an installed wheel, or in a clone."""
    folders = [PACKAGE / "data" / name, PACKAGE.parent / "data" / name]
    return next((folder for folder in folders if folder.is_dir()), folders[-1])


def embedded_model(name: str) -> tuple[Path, dict]:
    """Folder and manifest of an embedded model, after a check of every file against its sha256.

    A configuration is compared by content, so line endings do not matter.
    Raises FileNotFoundError for a missing file, ValueError for a damaged or edited one; both name it and the remedy.
    """
    folder = embedded_folder(name)
    remedy = f"restore it with `git checkout -- data/{name}`, or remake it with `python data/{name}/pretrain.py`"
    described = _present(folder / "manifest.json", remedy)
    manifest = read_json(described, remedy)
    if not checksum_matches(manifest):
        raise ValueError(f"{described} is damaged, or was edited: its checksum differs; {remedy}")
    weights = _present(folder / "weights.safetensors", remedy)
    _check_sha256(weights, sha256_of(weights), manifest["weights_sha256"], remedy)
    if "config_sha256" in manifest:
        config = _present(folder / f"{name}.json", remedy)
        _check_sha256(config, digest(read_json(config, remedy)), manifest["config_sha256"], remedy)
    return folder, manifest


def _present(path: Path, remedy: str) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {remedy}")
    return path


def _check_sha256(path: Path, found: str, expected: str, remedy: str) -> None:
    if found != expected:
        raise ValueError(
            f"{path} is damaged: its sha256 is {found[:12]}..., the manifest says {expected[:12]}...; {remedy}"
        )


def name_of(function: object) -> str:
    """A callable of any kind, as written into a configuration: two that differ have to have different names."""
    if isinstance(function, functools.partial):
        settings = [
            *map(repr, function.args),
            *(f"{k}={v!r}" for k, v in sorted(function.keywords.items())),
        ]
        return f"{name_of(function.func)}({', '.join(settings)})"
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def require_same(found: dict, expected: dict, what: str, remedy: str) -> None:
    """Raises ValueError naming every (nested) field in which `found` differs from `expected`, both values and the remedy."""
    found, expected = _flat(found), _flat(expected)
    if differing := sorted(
        k for k in found.keys() | expected.keys() if found.get(k) != expected.get(k)
    ):
        shown = "; ".join(
            f"{k}: {_short(found.get(k))} there, {_short(expected.get(k))} asked for"
            for k in differing
        )
        raise ValueError(f"{what} was made with other settings or inputs ({shown}); {remedy}")


def _flat(nested: dict, prefix: str = "") -> dict:
    """{"a": {"b": 1}} -> {"a.b": 1}; tuples become lists, as in JSON."""
    flat = {}
    for key, value in nested.items():
        inner = (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else {f"{prefix}{key}": value}
        )
        flat.update(inner)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in flat.items()}


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
