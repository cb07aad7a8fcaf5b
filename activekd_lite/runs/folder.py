"""The folder of a run: its configuration, records, labels and students.

A round is complete once it has a line in `rounds.jsonl`, with the sha256 of everything that
belongs to the round. A round that a killed process left half-done is therefore recognised and
repeated, and a changed byte is detected.
"""

import contextlib
import hashlib
import io
import json
import os
import re
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors.torch import load, save

from activekd_lite.pool import LabelState
from activekd_lite.runs.record import OPTIONAL, RoundRecord, RunResult
from activekd_lite.students import DualHeadStudent, build_student
from activekd_lite.train_config import TrainConfig
from activekd_lite.utils.files import (
    checksum_matches,
    digest,
    folder_lock,
    make_folder,
    parse_json,
    remove_partials,
    require_same,
    with_checksum,
    write_atomic,
)

SUMS = ("config_sha256", "labels_sha256", "student_sha256", "sha256")  # beside each record
FIELDS = {*(f.name for f in fields(RoundRecord)), *SUMS}
NEW_FIELDS = {*OPTIONAL, "label_class_counts", "query_class_counts"}  # not in older records
# Settings that version 0.1 did not record, and what they were.
ADDED_SETTINGS = {"selection_source": "mixed", "train": asdict(TrainConfig())}


def load_run(
    out: str | os.PathLike, device: str | torch.device = "auto", *, round: int | None = None
) -> RunResult:
    """Read the finished rounds of a run, which may still be running.

    round: return the run as it was after this round, with that round's student. Without
    `keep_students` only the last round has one.
    Raises FileNotFoundError if there is no run or its student is missing, ValueError for a damaged
    file and for a `round` without a student, naming those that have one.
    """
    folder = RunFolder(out)
    config, records, state = folder.read()
    if not records:
        raise FileNotFoundError(
            f"no run in {out}, or none that finished a round; make one with "
            f"`activekd-lite run --out {out}`"
        )
    try:
        student = folder.student(config, len(records) - 1 if round is None else round, device)
    except FileNotFoundError as error:
        if round is None and len(finished_rounds(out)) > len(records):  # another round was finished
            return load_run(out, device)
        if round is None:
            raise
        raise ValueError(
            f"round = {round}, but {out} holds students of the rounds {folder.kept()} only; a run "
            "with `keep_students=True` has those of all its rounds"
        ) from error
    if round is not None:
        known = state.labeled_round <= round + 1
        state = LabelState(*(x.where(known, -1) for x in (state.labeled_round, state.labels)))
        records = records[: round + 1]
    return RunResult(config, records, state, student)


def finished_rounds(out: str | os.PathLike | None) -> list[RoundRecord]:
    """Return the records of the finished rounds in `out`. Raises ValueError for damaged ones."""
    return [] if out is None else [_record(line) for line in RunFolder(out).read_lines()]


class RunFolder:
    """The files of a run; if `out` is None, nothing is kept.

    config.json
        The configuration.
    labels.csv
        round,index,label, in the order of the rounds.
    student-08.safetensors
        The student of round 8, the last one.
    rounds.jsonl
        A line per round: its record, and the sha256 of the configuration, of labels.csv up to this
        round's answers, of its student, and of the line itself.

    Each file is replaced as a whole, rounds.jsonl last. Only `lock` waits for other processes.
    """

    def __init__(self, out: str | os.PathLike | None):
        self.path = None if out is None else Path(out)
        self.lines: list[dict] = []
        self.config: dict = {}  # what config.json holds

    def lock(self) -> contextlib.AbstractContextManager:
        """Hold the folder's lock. Raises OSError for a folder that cannot be written to."""
        return (
            contextlib.nullcontext() if self.path is None else folder_lock(make_folder(self.path))
        )

    def read(self, asked: dict | None = None) -> tuple[dict, list[RoundRecord], LabelState]:
        """Return configuration, records of the finished rounds, and what was labelled by then.

        asked: the configuration to continue with. Raises ValueError for a damaged file, and if the
        folder holds another configuration; the message shows the difference.
        """
        self.lines = [] if self.path is None else self.read_lines()
        if not self.lines:
            if asked:
                self._refuse_foreign_files()
            return asked or {}, [], LabelState.empty(asked["pool_size"] if asked else 0)
        self.config = self._config(asked)
        train = ADDED_SETTINGS["train"] | self.config["train"]
        config = ADDED_SETTINGS | self.config | {"train": train}
        if asked:
            remedy = "choose another `out`, or delete that run"
            require_same(config, asked, f"the run in {self.path}", remedy)
        records = [_record(line) for line in self.lines]
        return config, records, self._state(config["pool_size"])

    def finished(self, config: dict, device: torch.device) -> RunResult | None:
        """Return the run of this configuration, or None if some of its rounds are missing."""
        _, records, state = self.read(config)
        return self.result(config, records, state, device)

    def result(
        self, config: dict, records: list[RoundRecord], state: LabelState, device: torch.device
    ) -> RunResult | None:
        """Return what `read` found as a result, or None if some rounds are missing."""
        if len(records) <= config["rounds"]:
            return None
        return RunResult(config, records, state, self.student(config, config["rounds"], device))

    def _refuse_foreign_files(self) -> None:
        """Raise ValueError if the first round would replace a file that no run has written."""
        if self.path is None:
            return
        config, labels = self.path / "config.json", self.path / "labels.csv"
        there = {path: path.is_file() for path in (config, labels)}
        foreign = []
        if there[config] and b'"student_weights"' not in config.read_bytes():
            foreign.append(config)
        if there[labels] and not labels.read_bytes().startswith(b"round,index,label\n"):
            foreign.append(labels)
        if not there[config]:
            foreign += self.path.glob("student-*.safetensors")
        if foreign:
            raise ValueError(
                f"{foreign[0]} was not written by a run, and a run would replace or remove it; "
                "choose another `out`"
            )

    def read_lines(self) -> list[dict]:
        """Return the lines of rounds.jsonl, each compared with its checksum."""
        path = self.path / "rounds.jsonl"
        content = path.read_bytes() if path.is_file() else b""
        texts = filter(bytes.strip, content.split(b"\n"))
        return [self._line(path, place, text) for place, text in enumerate(texts)]

    def _line(self, path: Path, place: int, text: bytes) -> dict:
        try:
            line = parse_json(text)
        except ValueError:
            line = None
        if not checksum_matches(line) or line.get("round") != place:
            if isinstance(line, dict) and "accuracy_pct" in line and not line.keys() & SUMS:
                raise ValueError(
                    f"{path} was written by an older version of activekd-lite; {self.remedy(0)}"
                )
            raise ValueError(
                f"line {place + 1} of {path} is damaged, or was edited; {self.remedy(place)}"
            )
        if not FIELDS - NEW_FIELDS <= line.keys() <= FIELDS:
            raise ValueError(
                f"{path} was written by another version of activekd-lite; {self.remedy(0)}"
            )
        return line

    def remedy(self, whole: int) -> str:
        """Say what to do if only the first `whole` rounds are intact."""
        anew = f"delete {self.path} to start again, or choose another `out`"
        if not whole:
            return anew
        return (
            f"keep only the first {whole} lines of rounds.jsonl, and the same command repeats the "
            f"other rounds; or {anew}"
        )

    def _config(self, asked: dict | None) -> dict:
        """Return the content of config.json; if it is damaged but was `asked`, write it again."""
        path, expected = self.path / "config.json", {line["config_sha256"] for line in self.lines}
        try:
            config = parse_json(path.read_bytes())
        except (FileNotFoundError, ValueError):
            config = None
        if {digest(config)} == expected:
            return config
        if asked and {digest(asked)} == expected:
            write_atomic(path, _as_text(asked))
            return asked
        raise ValueError(
            f"{path} is missing, damaged, or was edited; the command that made the run writes it "
            f"again. Otherwise {self.remedy(0)}"
        )

    def _state(self, pool_size: int) -> LabelState:
        import pandas as pd

        path = self.path / "labels.csv"
        rows = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        for whole, line in enumerate(self.lines):
            known = rows[: 1 + line["labeled_count"] + len(line["query_indices"])]
            if hashlib.sha256(b"".join(known)).hexdigest() != line["labels_sha256"]:
                raise ValueError(f"{path} is missing, damaged, or was edited; {self.remedy(whole)}")
        state, table = LabelState.empty(pool_size), pd.read_csv(io.BytesIO(b"".join(known)))
        for round, given in table.groupby("round"):
            index, labels = (torch.tensor(given[name].values) for name in ("index", "label"))
            state = state.with_labels(index, labels, int(round))
        return state

    def kept(self) -> list[int]:
        """Return the rounds whose students are in the folder."""
        names = (path.name for path in self.path.iterdir())
        found = (re.fullmatch(r"student-(\d+)\.safetensors", name) for name in names)
        return sorted(int(match[1]) for match in found if match)

    def student_path(self, round: int) -> Path:
        return self.path / f"student-{round:02d}.safetensors"

    def student(
        self, config: dict, round: int, device: str | torch.device = "auto"
    ) -> DualHeadStudent:
        """Load the student of a finished round.

        Raises FileNotFoundError if there is none, ValueError if it is damaged.
        """
        path = self.student_path(round)
        if not (0 <= round < len(self.lines) and path.is_file()):
            raise FileNotFoundError(f"{path} is missing; {self.remedy(round)}")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.lines[round]["student_sha256"]:
            raise ValueError(f"{path} is damaged, or was replaced; {self.remedy(round)}")
        name, dim = config["student"], (config["features"] or {}).get("dim")
        num_classes = len(config["classnames"])
        net = build_student(name, num_classes, pretrained=False, device=device, input_dim=dim)
        try:
            net.load_state_dict(load(content))
        except RuntimeError as error:
            raise ValueError(f"{path} does not fit the student {name!r}: {error}") from error
        return net.eval()

    def clean(self, keep_students: bool) -> None:
        """Remove what a killed process left behind.

        This is half-written files, the student of a round without a line, and, unless students are
        kept, the student before the last.
        """
        if self.path is None:
            return
        parts = ("config.json", "labels.csv", "rounds.jsonl", "student-*.safetensors")
        remove_partials(self.path, *parts)
        for round in self.kept():
            replaced = round == len(self.lines) - 2 and not keep_students
            if round >= len(self.lines) or replaced:
                self.student_path(round).unlink(missing_ok=True)

    def write(
        self,
        config: dict,
        record: RoundRecord,
        state: LabelState,
        student: DualHeadStudent,
        keep_students: bool,
    ) -> None:
        """Add a round; its student replaces the one before, unless students are kept."""
        if self.path is None:
            return
        if not self.lines:
            write_atomic(self.path / "config.json", _as_text(config))
            self.config = config
        labels = _labels_csv(state)
        weights = save({k: v.cpu().contiguous() for k, v in student.state_dict().items()})
        write_atomic(self.path / "labels.csv", labels)
        write_atomic(self.student_path(record.round), weights)
        sums = {
            "config_sha256": digest(self.config),
            "labels_sha256": hashlib.sha256(labels).hexdigest(),
            "student_sha256": hashlib.sha256(weights).hexdigest(),
        }
        lines = [*self.lines, with_checksum(asdict(record) | sums)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_atomic(self.path / "rounds.jsonl", text)
        self.lines = lines
        if record.round and not keep_students:
            self.student_path(record.round - 1).unlink(missing_ok=True)


def _labels_csv(state: LabelState) -> bytes:
    import pandas as pd

    order = state.in_labeling_order()
    columns = {"round": state.labeled_round[order], "index": order, "label": state.labels[order]}
    return pd.DataFrame(columns).to_csv(index=False, lineterminator="\n").encode()


def _record(line: dict) -> RoundRecord:
    return RoundRecord(**{k: v for k, v in line.items() if k not in SUMS})


def _as_text(config: dict) -> str:
    return json.dumps(config, indent=1) + "\n"
