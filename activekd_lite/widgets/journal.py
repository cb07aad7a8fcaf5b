"""A person's answers on disk, and the oracle that waits for them.

A journal is a file of JSON lines: a head that names the pool, then answers, undos and skips in
order, each written before the next image is shown. Lines are only appended, so a killed process
loses at most the line it was writing, and the time spent on undone answers still counts.
"""

import json
import math
import os
import threading
import weakref
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm import tqdm

from activekd_lite.pool import Oracle, Pool
from activekd_lite.utils import files

FORMAT = 1
EVENTS = ("answer", "undo", "skip")
TORN = b'{"event": "torn"}'  # marks the line before it as cut off
_OPEN = weakref.WeakValueDictionary()  # path -> the newest journal in this process


class Stopped(RuntimeError):
    """The journal was closed, so no more answers will come."""


class Journal:
    """The answers about the images of `pool` in the file `path`, which is created if missing.

    Within a process, opening a journal again closes the earlier one.

    Attributes
    ----------
    events : dicts with `event` ("answer", "undo" or "skip"), `index` (pool index), `seconds` (since
        the image was shown), `time` (UTC), `label` (class name, answers only) and `sha256` of these
    changed : condition that is notified of each event
    note : a remark about a cut-off last line, which is ignored; otherwise ""

    Raises
    ------
    ValueError : the journal belongs to other images or classes, or a line is damaged
    RuntimeError : another process has the journal open
    """

    def __init__(self, path: str | os.PathLike, pool: Pool):
        self.path, self.classnames, self.size = Path(path).absolute(), pool.classnames, len(pool)
        self.events, self.changed, self.closed, self.note = [], threading.Condition(), "", ""
        self._separator = b""  # to be written before the next line
        files.make_folder(self.path.parent)
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), thread_local=False)
        if earlier := _OPEN.get(self.path):
            earlier.close("this journal was opened again in another cell; continue there")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RuntimeError(
                f"another process has {self.path} open: shut down its kernel, "
                "wait for it to finish, or choose another `out`"
            ) from None
        try:
            self._read(pool)
        except BaseException:
            self._lock.release()
            raise
        _OPEN[self.path] = self

    def _read(self, pool: Pool) -> None:
        names = list(pool.classnames)
        expected = {"journal": FORMAT, "pool": pool.fingerprint(), "classnames": names}
        content = self.path.read_bytes() if self.path.is_file() else b""
        if not content:
            files.write_atomic(self.path, json.dumps(expected) + "\n")
            return
        head, *lines, last = content.split(b"\n") if b"\n" in content else (content, b"")
        remedy = "choose another `out`, or delete that file"
        files.require_same(self._parse(head, 1), expected, f"the journal {self.path}", remedy)
        for number, (line, following) in enumerate(zip(lines, [*lines[1:], b""], strict=False), 2):
            if TORN not in (line, following):
                self.events.append(self._parse(line, number))
        if last:
            self._read_unfinished(last, len(lines) + 2)

    def _read_unfinished(self, line: bytes, number: int) -> None:
        """Read a last line without a line break; if it is not complete, ignore it and say so."""
        try:
            self.events.append(self._parse(line, number))
            self._separator = b"\n"
        except ValueError:
            self._separator = b"\n" + TORN + b"\n"
            self.note = (
                f"the last line of {self.path.name} was cut off while it was written and is "
                f"ignored; the {len(self.events)} events before it are complete"
            )
            tqdm.write(self.note)

    def _parse(self, line: bytes, number: int) -> dict:
        """A line as a dict. Raises ValueError with the line's number and content."""
        try:
            event = files.parse_json(line)
            if "sha256" in event and not files.checksum_matches(event):  # older versions wrote none
                raise ValueError("its checksum differs")
            kind = event["journal"] and "head" if number == 1 else event["event"]
            if kind in EVENTS:
                label = event["label"] if kind == "answer" else None
                self._check(event["index"], event["seconds"], label)
            elif kind != "head":
                raise ValueError(f"unknown event {kind!r}")
            return event
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"line {number} of {self.path} is damaged ({error!r}): {line[:80]!r}; "
                "repair or delete that line"
            ) from error

    def _check(self, index: int, seconds: float, label: str | None) -> None:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < self.size:
            raise ValueError(f"index {index!r} is not one of the {self.size} images of the pool")
        if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise ValueError(f"seconds = {seconds!r}, but must be a finite number >= 0")
        if label is not None and label not in self.classnames:
            raise ValueError(f"label {label!r} is not one of the {len(self.classnames)} classes")

    def answer(self, index: int, label: int, seconds: float) -> None:
        """Record the class position `label` for the image `index`; it is on disk on return.

        seconds: time spent on the image.
        """
        self._append("answer", index, seconds, label=self.classnames[label])

    def undo(self, index: int, seconds: float) -> None:
        """Withdraw the answer for `index`. Raises ValueError if there is none."""
        if index not in self.labels:
            raise ValueError(f"image {index} has no answer to undo")
        self._append("undo", index, seconds)

    def skip(self, index: int, seconds: float) -> None:
        """Record that `index` was looked at and postponed."""
        self._append("skip", index, seconds)

    def _append(self, kind: str, index: int, seconds: float, **label: str) -> None:
        """Write an event to disk.

        Raises Stopped if the journal is closed, OSError if the disk is full (nothing is written).
        """
        index, seconds = int(index), round(float(seconds), 3)
        self._check(index, seconds, label.get("label"))
        time = datetime.now(UTC).isoformat(timespec="seconds")
        event = {"event": kind, "index": index, **label, "seconds": seconds, "time": time}
        event = files.with_checksum(event)
        with self.changed:
            if self.closed:
                raise Stopped(self.closed)
            self._write(json.dumps(event).encode() + b"\n")
            self.events.append(event)
            self.changed.notify_all()

    def _write(self, line: bytes) -> None:
        with open(self.path, "ab", buffering=0) as file:
            end = file.tell()
            try:
                file.write(self._separator + line)
                os.fsync(file.fileno())
            except OSError as error:
                file.truncate(end)
                reason = (
                    f"cannot write the answer ({error.strerror}); free some space and "
                    "answer again; all earlier answers are saved"
                )
                raise OSError(error.errno, reason, str(self.path)) from error
        self._separator = b""

    @property
    def labels(self) -> dict[int, int]:
        """Pool index -> class position of all answers not undone, in the order they were given."""
        labels = {}
        for event in self.events:
            if event["event"] != "skip":
                labels.pop(event["index"], None)
            if event["event"] == "answer":
                labels[event["index"]] = self.classnames.index(event["label"])
        return labels

    @property
    def seconds(self) -> float:
        """Total time spent, including images that were skipped or undone."""
        return sum(event["seconds"] for event in self.events)

    def seconds_until(self, indices: Collection[int]) -> float:
        """Time spent until the last of these images had its final answer.

        Raises ValueError if one of them has no answer.
        """
        wanted = {int(i) for i in indices}
        if missing := sorted(wanted - self.labels.keys()):
            raise ValueError(
                f"{len(missing)} of {len(indices)} images have no answer in {self.path}, "
                f"first {missing[0]}"
            )
        count = 0  # events up to the last answer
        for number, event in enumerate(self.events, 1):
            if event["event"] == "answer" and event["index"] in wanted:
                count = number
        return sum(event["seconds"] for event in self.events[:count])

    def close(self, reason: str = "the journal was closed") -> None:
        """Release the file and stop oracles that wait for answers. What was read stays readable."""
        with self.changed:
            if not self.closed:
                self.closed = reason
                self._lock.release()
            self.changed.notify_all()


class PersonOracle(Oracle):
    """An oracle whose `label` blocks until a person has answered all of its images in the journal.

    Parameters
    ----------
    truth : oracle that picks and labels the initial set; without it, shots must be 0 (cold start)
    on_change : called without arguments when a query opens and when it is complete

    Attributes
    ----------
    asked : pool indices of the open query
    questions : number of queries so far
    """

    def __init__(
        self,
        journal: Journal,
        truth: Oracle | None = None,
        on_change: Callable[[], None] = lambda: None,
    ):
        self.journal, self.truth, self.on_change = journal, truth, on_change
        self.asked: list[int] = []
        self.questions, self._initial = 0, set()

    unknown_count = 0  # every image can be labelled

    @property
    def num_classes(self) -> int:
        return len(self.journal.classnames)

    def initial_indices(self, shots: int, generator: torch.Generator) -> Tensor:
        if self.truth is None:
            raise ValueError(
                f"shots = {shots}, but there are no true labels to pick images of each class by; "
                "start with shots=0, a cold start"
            )
        indices = self.truth.initial_indices(shots, generator)
        self._initial = set(indices.tolist())
        return indices

    def label(self, indices: Tensor) -> Tensor:
        """Wait for the labels (Q,) int64 of the pool indices (Q,).

        Raises Stopped if the journal is closed meanwhile.
        """
        asked = torch.as_tensor(indices).tolist()
        if self._initial and self._initial.issuperset(asked):
            return self.truth.label(indices)
        self.asked, self.questions = asked, self.questions + 1
        self.on_change()
        with self.journal.changed:
            while self.current is not None:
                if self.journal.closed:
                    raise Stopped(self.journal.closed)
                self.journal.changed.wait()
            labels = self.journal.labels
        self.asked = []
        self.on_change()
        return torch.tensor([labels[i] for i in asked])

    @property
    def current(self) -> int | None:
        """The image to answer next: undone ones first, skipped ones last."""
        answered = self.journal.labels
        return min((i for i in self.asked if i not in answered), key=self._priority, default=None)

    @property
    def undoable(self) -> int | None:
        """The image answered last, if it belongs to the open query."""
        return next((i for i in reversed(self.journal.labels) if i in self.asked), None)

    def _priority(self, index: int) -> tuple[int, int]:
        for place, event in reversed(list(enumerate(self.journal.events))):
            if event["index"] == index:
                return (-1, -place) if event["event"] == "undo" else (1, place)
        return 0, self.asked.index(index)
