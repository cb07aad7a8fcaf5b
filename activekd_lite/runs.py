"""What a run leaves: its records, and a folder that keeps them with the labels and the students, each with its checksum.

In the folder `rounds.jsonl` decides: a round counts once its line is there, and the line has the sha256 of all that belongs
to it. So what a killed process left half-done is known and done again, and a byte that changed is found.
"""

import contextlib
import hashlib
import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load, save
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.scores import aulc_pct, class_imbalance, imbalance_ratio
from activekd_lite.students import DualHeadStudent, build_student
from activekd_lite.training import TrainConfig, predict
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


@dataclass(frozen=True)
class RoundRecord:
    """One round: its student was trained on `labeled_count` labels; then `query_indices` were asked for.

    accuracy_pct and calibration_error_pct are of the test set; covering_radius is the largest distance, in probability
    space, from an unlabelled image to its nearest labelled one; seconds are per stage. The last round asks for nothing.
    loss_curve: "ce" (cross-entropy) and "kd" (distillation), each the mean over up to 20 equal parts of the training's steps.
    device: where it was computed, "cpu, 2 threads, AVX2" or a GPU's name.

    teacher_accuracy_pct: the teacher's own test accuracy in this round; None without a teacher, or where it has no answers to
    the test images. ce_accuracy_pct, kd_accuracy_pct: each head's test accuracy; kd None without a teacher.
    label_class_counts: (C,) of the labels that the student was trained on; query_class_counts: (C,) of the oracle's answers.
    *_imbalance, *_imbalance_ratio: see `metrics.class_imbalance` and `metrics.imbalance_ratio`.
    Records of version 0.1 lack these: None, or empty lists.
    """

    round: int
    labeled_count: int
    accuracy_pct: float
    calibration_error_pct: float
    covering_radius: float
    query_indices: list[int]
    seed: int
    loss_curve: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    device: str = ""
    teacher_accuracy_pct: float | None = None
    ce_accuracy_pct: float | None = None
    kd_accuracy_pct: float | None = None
    label_class_counts: list[int] = field(default_factory=list)
    label_imbalance: float | None = None
    label_imbalance_ratio: float | None = None
    query_class_counts: list[int] = field(default_factory=list)
    query_imbalance: float | None = None
    query_imbalance_ratio: float | None = None

    def outcome(self) -> dict:
        """What must be equal when a run is repeated: everything but time, memory and the device's name."""
        return {
            k: v
            for k, v in asdict(self).items()
            if k not in ("seconds", "peak_memory_bytes", "device")
        }


SUMS = (
    "config_sha256",
    "labels_sha256",
    "student_sha256",
    "sha256",
)  # in a line of rounds.jsonl, beside the record
FIELDS = {*(f.name for f in fields(RoundRecord)), *SUMS}
OPTIONAL = [
    f.name for f in fields(RoundRecord) if f.type == float | None
]  # NaN in a table where they are None
NEW_FIELDS = {
    *OPTIONAL,
    "label_class_counts",
    "query_class_counts",
}  # not in the lines of version 0.1
ADDED_SETTINGS = {
    "selection_source": "mixed",
    "train": asdict(TrainConfig()),
}  # what runs did before a setting was added


def class_balance(part: str, labels: Tensor, num_classes: int) -> dict:
    """The fields of a record that tell how the classes of labels (L,) are balanced; part: "label" or "query"."""
    counts = torch.bincount(labels, minlength=num_classes).tolist()
    return {
        f"{part}_class_counts": counts,
        f"{part}_imbalance": class_imbalance(counts),
        f"{part}_imbalance_ratio": imbalance_ratio(counts),
    }


@dataclass(frozen=True)
class RunResult:
    """What a run leaves: its configuration, a record for each round, what is labelled, and the last student."""

    config: dict
    records: list[RoundRecord]
    state: LabelState
    student: DualHeadStudent

    def predict(self, images: Tensor) -> Predictions:
        """The last student's answer for images (M, 3, H, W) uint8 (for a student of features: those, (M, D)), its two heads
        mixed as when it was evaluated."""
        train, distilled = TrainConfig(**self.config["train"]), self.config["teacher"] is not None
        mixing = train.mixing(distilled, evaluation=True)
        return predict(
            self.student, images, **mixing, precision=train.precision, distilled=distilled
        )

    @property
    def aulc_pct(self) -> float:
        """Mean test accuracy over the rounds, in percent."""
        return aulc_pct([r.accuracy_pct for r in self.records])

    @property
    def name(self) -> str:
        return f"{self.config['strategy']} {'with' if self.config['teacher'] else 'without'} distillation"

    def to_frame(self) -> pd.DataFrame:
        """A row a round, the run's settings beside its records; see `tidy`."""
        return tidy(self.config, self.records)


def tidy(config: dict, records: Sequence[RoundRecord]) -> pd.DataFrame:
    """A run as a tidy table, one row per round.

    Columns: dataset, vlm, teacher ("none", "zero-shot", "clap", "logits"), student, strategy, distill, selection_source,
    query_size, shots; the fields of `RoundRecord`; and the seconds of each stage (seconds_teacher, seconds_train,
    seconds_predict, seconds_select).
    """
    teacher, features = config["teacher"] or {}, config["features"] or {}
    encoder = (
        (teacher or features).get("cache", {}).get("vlm", {})
    )  # outputs that were brought have none
    settings = {
        "dataset": config["dataset"],
        "vlm": encoder.get("name"),
        "teacher": teacher.get("kind", "none"),
    }
    settings |= {k: config[k] for k in ("student", "strategy")} | {"distill": bool(teacher)}
    settings |= {k: config[k] for k in ("selection_source", "query_size", "shots")}
    rows = [
        settings | asdict(r) | {f"seconds_{stage}": s for stage, s in r.seconds.items()}
        for r in records
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(OPTIONAL, float))


def load_run(
    out: str | os.PathLike, device: str | torch.device = "auto", *, round: int | None = None
) -> RunResult:
    """Read the whole rounds that a run left in `out`, also while it goes on. round: as it was when that round was over, with
    the student of then; of runs with `keep_students` any, else the last.

    Raises FileNotFoundError when there is no run or its student is missing, ValueError for a file that was damaged or edited,
    and for a `round` without a student, naming those that have one.
    """
    folder = RunFolder(out)
    config, records, state = folder.read()
    if not records:
        raise FileNotFoundError(
            f"no run in {out}, or none that finished a round; make one with `activekd-lite run --out {out}`"
        )
    try:
        student = folder.student(config, len(records) - 1 if round is None else round, device)
    except FileNotFoundError as error:
        if round is None and len(finished_rounds(out)) > len(
            records
        ):  # it went on, and its last student is another
            return load_run(out, device)
        if round is None:
            raise
        raise ValueError(
            f"round = {round}, but in {out} there are students of the rounds {folder.kept()} only; a run with "
            "`keep_students=True` has those of all its rounds"
        ) from error
    if round is not None:
        known = state.labeled_round <= round + 1
        state = LabelState(*(x.where(known, -1) for x in (state.labeled_round, state.labels)))
        records = records[: round + 1]
    return RunResult(config, records, state, student)


def finished_rounds(out: str | os.PathLike | None) -> list[RoundRecord]:
    """The records of the whole rounds that a run left in `out`; none where there is no run. ValueError for damaged ones."""
    return [] if out is None else [_record(line) for line in RunFolder(out).read_lines()]


class RunFolder:
    """The files of a run; with `out` None nothing is kept.

    config.json             its configuration
    labels.csv              round,index,label, in the order of the rounds
    student-08.safetensors  the student of round 8, the last one
    rounds.jsonl            a line a round: its record; the sha256 of the configuration, of labels.csv up to what was asked for
                            in this round, of its student, and of the line itself

    Each is replaced as a whole, rounds.jsonl last. Nothing here waits for another process but what is done under `lock`.
    """

    def __init__(self, out: str | os.PathLike | None):
        self.path, self.lines = None if out is None else Path(out), []
        self.config = None  # what config.json holds

    def lock(self) -> contextlib.AbstractContextManager:
        """Hold the folder lock, see `files.folder_lock`. Raises OSError for a read-only folder."""
        return folder_lock(make_folder(self.path)) if self.path else contextlib.nullcontext()

    def read(self, asked: dict | None = None) -> tuple[dict, list[RoundRecord], LabelState]:
        """Configuration, records of the whole rounds, and what was labelled by then. asked: the configuration to go on with.

        Raises ValueError for another one, showing the difference, and for a file that was damaged or edited, with the way out.
        """
        self.lines = [] if self.path is None else self.read_lines()
        if not self.lines:
            if asked:
                self._refuse_others_files()
            return asked or {}, [], LabelState.empty(asked["pool_size"] if asked else 0)
        self.config = self._config(asked)
        config = (
            ADDED_SETTINGS | self.config | {"train": ADDED_SETTINGS["train"] | self.config["train"]}
        )
        if asked:
            require_same(
                config, asked, f"the run in {self.path}", "take another `out`, or delete that run"
            )
        return config, [_record(line) for line in self.lines], self._state(config["pool_size"])

    def _refuse_others_files(self) -> None:
        """Raises ValueError where the first round would replace or remove a file that no run has written."""
        if self.path is None:
            return
        config, labels = self.path / "config.json", self.path / "labels.csv"
        there = {path: path.is_file() for path in (config, labels)}
        foreign = (
            [config] if there[config] and b'"student_weights"' not in config.read_bytes() else []
        )
        foreign += (
            [labels]
            if there[labels] and not labels.read_bytes().startswith(b"round,index,label\n")
            else []
        )
        foreign += [] if there[config] else self.path.glob("student-*.safetensors")
        if foreign:
            raise ValueError(
                f"{foreign[0]} is no file of a run, and a run would replace or remove it; take another `out`"
            )

    def read_lines(self) -> list[dict]:
        """The lines of rounds.jsonl, each compared with its checksum; none where there is no such file."""
        path, lines = self.path / "rounds.jsonl", []
        content = path.read_bytes() if path.is_file() else b""
        for place, text in enumerate(filter(bytes.strip, content.split(b"\n"))):
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
            lines.append(line)
        return lines

    def remedy(self, whole: int) -> str:
        """What to do where the first `whole` rounds are as they were written, and others are not."""
        anew = f"delete {self.path} to begin anew, or take another `out`"
        if not whole:
            return anew
        return f"keep the first {whole} lines of rounds.jsonl, and the same command does the other rounds again; or {anew}"

    def _config(self, asked: dict | None) -> dict:
        """What config.json says. One that is damaged is written anew where `asked` is what it said."""
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
            f"{path} is missing, damaged, or was edited; the command that made the run writes it anew. Else {self.remedy(0)}"
        )

    def _state(self, pool_size: int) -> LabelState:
        path = self.path / "labels.csv"
        rows = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        for whole, line in enumerate(self.lines):
            known = rows[: 1 + line["labeled_count"] + len(line["query_indices"])]
            if hashlib.sha256(b"".join(known)).hexdigest() != line["labels_sha256"]:
                raise ValueError(f"{path} is missing, damaged, or was edited; {self.remedy(whole)}")
        state, table = LabelState.empty(pool_size), pd.read_csv(io.BytesIO(b"".join(known)))
        for round, given in table.groupby("round"):
            state = state.with_labels(
                torch.tensor(given["index"].values), torch.tensor(given["label"].values), int(round)
            )
        return state

    def kept(self) -> list[int]:
        """The rounds whose students are there."""
        found = (
            re.fullmatch(r"student-(\d+)\.safetensors", path.name) for path in self.path.iterdir()
        )
        return sorted(int(match[1]) for match in found if match)

    def student_path(self, round: int) -> Path:
        return self.path / f"student-{round:02d}.safetensors"

    def student(
        self, config: dict, round: int, device: str | torch.device = "auto"
    ) -> DualHeadStudent:
        """The student of a whole round. Raises FileNotFoundError where there is none, ValueError where it is damaged."""
        path = self.student_path(round)
        if not (0 <= round < len(self.lines) and path.is_file()):
            raise FileNotFoundError(f"{path} is missing; {self.remedy(round)}")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.lines[round]["student_sha256"]:
            raise ValueError(f"{path} is damaged, or was exchanged; {self.remedy(round)}")
        net = build_student(
            config["student"], len(config["classnames"]), pretrained=False, device=device,
            input_dim=(config["features"] or {}).get("dim"),
        )  # fmt: skip
        try:
            net.load_state_dict(load(content))
        except RuntimeError as error:
            raise ValueError(
                f"{path} does not fit what {config['student']!r} is here and now: {error}"
            ) from error
        return net.eval()

    def clean(self, keep_students: bool) -> None:
        """Remove what a killed process left: half-written files, the student of a round without a line, and where they are not
        kept the one before the last."""
        if self.path is None:
            return
        remove_partials(
            self.path, "config.json", "labels.csv", "rounds.jsonl", "student-*.safetensors"
        )
        for round in self.kept():
            if round >= len(self.lines) or (round == len(self.lines) - 2 and not keep_students):
                self.student_path(round).unlink(missing_ok=True)

    def write(
        self,
        config: dict,
        record: RoundRecord,
        state: LabelState,
        student: DualHeadStudent,
        keep_students: bool,
    ) -> None:
        """Put one more round there; where they are not kept, its student takes the place of the one before."""
        if self.path is None:
            return
        if not self.lines:
            write_atomic(self.path / "config.json", _as_text(config))
            self.config = config
        order = state.in_labeling_order()
        columns = {
            "round": state.labeled_round[order],
            "index": order,
            "label": state.labels[order],
        }
        labels = pd.DataFrame(columns).to_csv(index=False, lineterminator="\n").encode()
        weights = save({k: v.cpu().contiguous() for k, v in student.state_dict().items()})
        write_atomic(self.path / "labels.csv", labels)
        write_atomic(self.student_path(record.round), weights)
        sums = (
            digest(self.config),
            hashlib.sha256(labels).hexdigest(),
            hashlib.sha256(weights).hexdigest(),
        )
        lines = [*self.lines, with_checksum(asdict(record) | dict(zip(SUMS, sums, strict=False)))]
        write_atomic(self.path / "rounds.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        self.lines = lines
        if record.round and not keep_students:
            self.student_path(record.round - 1).unlink(missing_ok=True)


def _record(line: dict) -> RoundRecord:
    return RoundRecord(**{k: v for k, v in line.items() if k not in SUMS})


def _as_text(config: dict) -> str:
    return json.dumps(config, indent=1) + "\n"
