"""A person's answers on disk, one line each, written before the next image is shown; and the oracle that waits for them.

A journal is a file of JSON lines: what it belongs to, then answers, undos and skips, in their order. Nothing is ever
changed or taken away, so a killed process loses nothing but the line it was writing, and time that was spent stays spent.
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
from activekd_lite.utils.files import (
    checksum_matches,
    make_folder,
    parse_json,
    require_same,
    with_checksum,
    write_atomic,
)

FORMAT = 1
EVENTS = ("answer", "undo", "skip")
TORN = b'{"event": "torn"}'  # the line before this one was cut off
_OPEN = (
    weakref.WeakValueDictionary()
)  # the newest journal of each file: a cell that is run again takes over from itself


class Stopped(RuntimeError):
    """Nobody answers any more: the journal was closed."""


class Journal:
    """The answers in the file `path`, about the images of `pool`; made where there is none.

    events: dicts with `event` ("answer", "undo", "skip"), `index` (pool index), `seconds` (since the image was shown), `time`
    (UTC), of an answer `label` (a class name), and `sha256` of all this. changed: the condition that is notified of each. note:
    what was found odd when the file was read, else "".

    Raises ValueError for the journal of other images or classes and for a damaged line, RuntimeError while another process has
    it open. A last line that was cut off is ignored, and said. Within a process the newest has the file and closes the others.
    """

    def __init__(self, path: str | os.PathLike, pool: Pool):
        self.path, self.classnames, self.size = Path(path).absolute(), pool.classnames, len(pool)
        self.events, self.changed, self.closed, self.note = [], threading.Condition(), "", ""
        make_folder(self.path.parent)
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), thread_local=False)
        if earlier := _OPEN.get(self.path):
            earlier.close(
                "this journal was opened again, further down or by running the cell again; label there"
            )
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RuntimeError(
                f"another process has {self.path} open: shut down its kernel, or wait for it, or take another `out`"
            ) from None
        try:
            self._head = {
                "journal": FORMAT,
                "pool": pool.fingerprint(),
                "classnames": list(pool.classnames),
            }
            self._read()
        except BaseException:
            self._lock.release()
            raise
        _OPEN[self.path] = self

    def _read(self) -> None:
        content = self.path.read_bytes() if self.path.is_file() else b""
        self._rest = b""  # what the next line has to be kept apart from
        if not content:
            write_atomic(self.path, json.dumps(self._head) + "\n")
            return
        head, *lines, last = content.split(b"\n") if b"\n" in content else (content, b"")
        remedy = "take another `out`, or delete that file"
        require_same(self._parsed(head, 1), self._head, f"the journal {self.path}", remedy)
        for place, (line, following) in enumerate(zip(lines, [*lines[1:], b""], strict=False), 2):
            if TORN not in (line, following):
                self.events.append(self._parsed(line, place))
        if last:
            try:
                self.events.append(self._parsed(last, len(lines) + 2))  # whole but for its end
                self._rest = b"\n"
            except ValueError:
                self._rest = b"\n" + TORN + b"\n"
                self.note = (
                    f"the last line of {self.path.name} was cut off while it was written and is ignored; "
                    f"the {len(self.events)} before it are whole"
                )
                tqdm.write(self.note)

    def _parsed(self, line: bytes, place: int) -> dict:
        """A line as a dict. Raises ValueError naming it."""
        try:
            event = parse_json(line)
            # events of older versions have no checksum
            if "sha256" in event and not checksum_matches(event):
                raise ValueError("its checksum differs")
            kind = event["journal"] and "head" if place == 1 else event["event"]
            if kind in EVENTS:
                self._check(
                    event["index"], event["seconds"], event["label"] if kind == "answer" else None
                )
            elif kind != "head":
                raise ValueError(f"event {kind!r}")
            return event
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"line {place} of {self.path} is damaged ({error!r}): {line[:80]!r}; mend or delete that line"
            ) from error

    def _check(self, index: int, seconds: float, label: str | None) -> None:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < self.size:
            raise ValueError(f"index {index!r} is not one of the {self.size} images of the pool")
        if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise ValueError(f"seconds = {seconds!r}: a number of at least 0 is needed")
        if label is not None and label not in self.classnames:
            raise ValueError(f"label {label!r} is none of the {len(self.classnames)} class names")

    def answer(self, index: int, label: int, seconds: float) -> None:
        """The image `index` is of the class `label` (a position); `seconds` were spent on it. On disk when this returns."""
        self._append("answer", index, seconds, label=self.classnames[label])

    def undo(self, index: int, seconds: float) -> None:
        """Take back the answer to `index`. Raises ValueError where there is none."""
        if index not in self.labels:
            raise ValueError(f"image {index} has no answer that could be undone")
        self._append("undo", index, seconds)

    def skip(self, index: int, seconds: float) -> None:
        """`index` was looked at and put off."""
        self._append("skip", index, seconds)

    def _append(self, kind: str, index: int, seconds: float, **label: str) -> None:
        """Raises Stopped when the journal is closed, OSError for a full disk: then nothing was written."""
        index, seconds = int(index), round(float(seconds), 3)
        self._check(index, seconds, label.get("label"))
        event = {
            "event": kind,
            "index": index,
            **label,
            "seconds": seconds,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        event = with_checksum(event)
        line = json.dumps(event).encode() + b"\n"
        with self.changed:
            if self.closed:
                raise Stopped(self.closed)
            with open(self.path, "ab", buffering=0) as file:
                end = file.tell()
                try:
                    file.write(self._rest + line)
                    os.fsync(file.fileno())
                except OSError as error:
                    file.truncate(end)
                    reason = f"cannot write the answer ({error.strerror}); free space and answer again; all before is in"
                    raise OSError(error.errno, reason, str(self.path)) from error
            self._rest = b""
            self.events.append(event)
            self.changed.notify_all()

    @property
    def labels(self) -> dict[int, int]:
        """Pool index -> class position, of all answers that were not undone, in the order they were given."""
        labels = {}
        for event in self.events:
            if event["event"] != "skip":
                labels.pop(event["index"], None)
            if event["event"] == "answer":
                labels[event["index"]] = self.classnames.index(event["label"])
        return labels

    @property
    def seconds(self) -> float:
        """All the time spent, also on what was skipped or undone."""
        return sum(event["seconds"] for event in self.events)

    def seconds_until(self, indices: Collection[int]) -> float:
        """The time that was spent when the last of these images was answered for good. Raises ValueError for one without an
        answer."""
        if missing := sorted({int(i) for i in indices} - self.labels.keys()):
            raise ValueError(
                f"{len(missing)} of {len(indices)} images have no answer in {self.path}, first {missing[0]}"
            )
        ends = [
            n
            for n, event in enumerate(self.events, 1)
            if event["event"] == "answer" and event["index"] in set(indices)
        ]
        return sum(event["seconds"] for event in self.events[: max(ends, default=0)])

    def close(self, why: str = "the journal was closed") -> None:
        """Let others have the file; whoever waits for an answer is told that none will come. What was read stays readable."""
        with self.changed:
            if not self.closed:
                self.closed = why
                self._lock.release()
            self.changed.notify_all()


class PersonOracle(Oracle):
    """An oracle that waits for a person: `label` returns what is in the journal, and blocks until the rest is there too.

    truth: the oracle that picks the initial set, as a person would by hand, and labels it; without one only a cold start
    (shots=0) is possible. heard: called without arguments when something is asked and when all of it is answered. asked: the
    pool indices of the question that is open; questions: how many there have been.
    """

    def __init__(
        self,
        journal: Journal,
        truth: Oracle | None = None,
        heard: Callable[[], None] = lambda: None,
    ):
        self.journal, self.truth, self.heard = journal, truth, heard
        self.asked: list[int] = []
        self.questions, self._given = 0, set()

    unknown_count = 0  # whatever is asked is answered, some day

    @property
    def num_classes(self) -> int:
        return len(self.journal.classnames)

    def initial_indices(self, shots: int, generator: torch.Generator) -> Tensor:
        if self.truth is None:
            raise ValueError(
                f"shots = {shots}: nobody knows an image of each class yet; start with shots=0, a cold start"
            )
        indices = self.truth.initial_indices(shots, generator)
        self._given = set(indices.tolist())
        return indices

    def label(self, indices: Tensor) -> Tensor:
        """indices: (Q,) pool indices; returns their classes (Q,) int64, sooner or later. Raises Stopped when it was closed."""
        asked = torch.as_tensor(indices).tolist()
        if self._given and self._given.issuperset(asked):
            return self.truth.label(indices)
        self.asked, self.questions = asked, self.questions + 1
        self.heard()
        with self.journal.changed:
            while self.current is not None:
                if self.journal.closed:
                    raise Stopped(self.journal.closed)
                self.journal.changed.wait()
            labels = self.journal.labels
        self.asked = []
        self.heard()
        return torch.tensor([labels[i] for i in asked])

    @property
    def current(self) -> int | None:
        """The image to be answered next: one that was undone before all, one that was skipped after all others."""
        answered = self.journal.labels
        return min((i for i in self.asked if i not in answered), key=self._turn, default=None)

    @property
    def undoable(self) -> int | None:
        """The image that was answered last, if it is of the open question."""
        return next((i for i in reversed(self.journal.labels) if i in self.asked), None)

    def _turn(self, index: int) -> tuple[int, int]:
        for place, event in reversed(list(enumerate(self.journal.events))):
            if event["index"] == index:
                return (-1, -place) if event["event"] == "undo" else (1, place)
        return 0, self.asked.index(index)
