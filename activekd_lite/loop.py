"""The loop: train a student, predict the pool, choose, ask the oracle, again.

A round depends on (what is labelled, seed, round) alone: every random draw is derived from the seed and its purpose. So a
run that was interrupted goes on after its last whole round and gives the records of an undisturbed one.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from pathlib import Path

import pandas as pd
import psutil
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from activekd_lite.cache import FrozenFeatures
from activekd_lite.datasets import Dataset
from activekd_lite.device import resolve_device
from activekd_lite.files import make_folder, name_of, require_same, write_atomic
from activekd_lite.images import ImageFiles
from activekd_lite.metrics import accuracy_pct, aulc_pct, calibration_error_pct, covering_radius
from activekd_lite.pool import LabelState, Predictions
from activekd_lite.seeding import derive_seed, generator
from activekd_lite.strategies import Strategy, get_strategy, pcoreset_teacher
from activekd_lite.students import DualHeadStudent, build_student, weights_sha256
from activekd_lite.teacher import Teacher
from activekd_lite.training import FeatureBank, TrainConfig, ViewBank, check_features, make_bank, predict, train_student
from activekd_lite.views import FRESH, Views


@dataclass(frozen=True)
class RoundRecord:
    """One round: its student was trained on `labeled_count` labels; then `query_indices` were asked for.

    accuracy_pct and calibration_error_pct are of the test set; covering_radius is the largest distance, in probability
    space, from an unlabelled image to its nearest labelled one; seconds are per stage. The last round asks for nothing.
    loss_curve: "ce" (cross-entropy) and "kd" (distillation), each the mean over up to 20 equal parts of the training's steps.
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

    def outcome(self) -> dict:
        """What must be equal when a run is repeated: everything but time and memory."""
        return {k: v for k, v in asdict(self).items() if k not in ("seconds", "peak_memory_bytes")}


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
        train = TrainConfig(**self.config["train"])
        mixing = train.mixing(self.config["teacher"] is not None, evaluation=True)
        return predict(self.student, images, **mixing, precision=train.precision)

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
    """A run as a tidy table, a row a round: dataset, vlm, teacher ("none", "zero-shot", "clap", "logits"), student, strategy,
    distill, query_size, shots, and the fields of `RoundRecord`."""
    teacher, features = config["teacher"] or {}, config["features"] or {}
    encoder = (teacher or features).get("cache", {}).get("vlm", {})  # outputs that were brought have none
    settings = {"dataset": config["dataset"], "vlm": encoder.get("name"), "teacher": teacher.get("kind", "none")}
    settings |= {k: config[k] for k in ("student", "strategy")} | {"distill": bool(teacher)}
    settings |= {k: config[k] for k in ("query_size", "shots")}
    return pd.DataFrame([settings | asdict(r) for r in records])


def run_active_learning(
    data: Dataset,
    teacher: Teacher | None = None,
    *,
    strategy: str | Strategy = "pcoreset",
    rounds: int = 8,
    query_size: int = 10,
    seed: int = 0,
    shots: int = 1,
    student: str | None = None,
    train: TrainConfig = TrainConfig(),
    views: Views | None = None,
    features: FrozenFeatures | None = None,
    out: str | os.PathLike | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
    on_round: Callable[[RoundRecord], None] | None = None,
) -> RunResult:
    """ActiveKD (arXiv:2506.00910), or plain active learning when there is no teacher.

    `rounds` queries of `query_size` labels, after an initial set of `shots` images a class: rounds + 1 trainings. shots = 0 is
    a cold start: the strategy chooses the first `query_size` images too, by the teacher's probabilities and features. A teacher
    that learns is fitted to the labels of each round first. views: those of the teacher or the features, else a fresh crop at
    every step. features: what the students "linear" and "mlp" learn from. With
    `out` every whole round is kept there (`config.json`, `rounds.jsonl`, `labels.csv`, the last student), and calling
    again goes on where it stopped. on_round: called with each new record.

    Raises ValueError for settings that cannot work, for a teacher of other images, and for an `out` that holds a run with
    other settings; OSError for an `out` that cannot be written.
    """
    device, choose, student = resolve_device(device), get_strategy(strategy), student or data.student
    check_labels(data, rounds, query_size, shots)
    rounds, query_size, shots, seed = (int(x) for x in (rounds, query_size, shots, seed))  # of numpy, too: they go into JSON
    views = views or _views_of(teacher, features) or Views(FRESH, augmentation=data.pool.augmentation)
    _check(data, teacher, views, choose, query_size, shots)
    check_features(data.pool, student, views, features)
    config = {
        "dataset": data.name, "pool": data.pool.fingerprint(), "pool_size": len(data.pool),
        "classnames": list(data.classnames), "strategy": _strategy_name(strategy), "rounds": rounds,
        "query_size": query_size, "seed": seed, "shots": shots, "student": student, "train": asdict(train),
        "views": views.fingerprint(), "teacher": teacher.fingerprint() if teacher else None,
        "features": features.fingerprint() | {"dim": features.pool.dim} if features else None,
        "student_weights": weights_sha256(train.pretrained),
    }  # fmt: skip
    folder = RunFolder(out, config)
    records, state = folder.read()
    if not records:
        initial = _initial_indices(data, teacher, choose, query_size, shots, seed)
        state = state.with_labels(initial, data.oracle.label(initial), round=0)
    if len(records) == rounds + 1:
        return RunResult(config, records, state, folder.student(device))

    if isinstance(data.pool.images, ImageFiles) and features is None and not hasattr(teacher, "cache"):
        data.pool.images.check()  # nobody has decoded them all yet
    images = data.pool.images.to(device)
    data, teacher = replace(data, pool=replace(data.pool, images=images)), teacher and teacher.to(device)
    bank = make_bank(data.pool, student, views, device, features)
    test_inputs = data.test.images if bank.dim is None else features.test
    title = f"{data.name}, {config['strategy']}{'' if teacher else ', no distillation'}, seed {seed}"
    with tqdm(total=rounds + 1, initial=len(records), unit="round", disable=not progress, desc=title) as bar:
        for round in range(len(records), rounds + 1):
            record, net = _one_round(
                data, teacher, state, bank, test_inputs, choose, query_size if round < rounds else 0,
                student=student, train=train, seed=seed, round=round, progress=progress,
            )  # fmt: skip
            if record.query_indices:
                query = torch.tensor(record.query_indices)
                state = state.with_labels(query, data.oracle.label(query), round=round + 1)
            records.append(record)
            folder.write(records, state, net)
            bar.set_postfix(labels=record.labeled_count, accuracy=f"{record.accuracy_pct:.1f} %", refresh=False)
            bar.update()
            if on_round:
                on_round(record)
    return RunResult(config, records, state, net)


def _one_round(
    data: Dataset, teacher: Teacher | None, state: LabelState, bank: ViewBank | FeatureBank, test_inputs: Tensor,
    choose: Strategy, query_size: int, *, student: str, train: TrainConfig, seed: int, round: int, progress: bool,
) -> tuple[RoundRecord, DualHeadStudent]:  # fmt: skip
    """Fit the teacher and train on `state`, measure, choose `query_size` images (0: none)."""
    clock = _Clock(bank.device)
    teacher = teacher and teacher.fitted(state, derive_seed(seed, "teacher", round))
    clock.lap("teacher")
    net = train_student(
        data.pool, state, teacher, student=student, config=train, bank=bank,
        seed=derive_seed(seed, "training", round), device=bank.device, progress=progress,
    )  # fmt: skip
    clock.lap("train")
    distilled = teacher is not None
    predictions = predict(net, bank.centers(), **train.mixing(distilled), precision=train.precision)
    tested = predict(net, test_inputs, **train.mixing(distilled, evaluation=True), precision=train.precision)
    clock.lap("predict")
    query = torch.empty(0, dtype=torch.int64)
    if query_size:
        seen = replace(predictions, teacher_probs=teacher.probs() if teacher else None)
        query = choose(seen, state, query_size, generator=generator(seed, "selection", round))
        _check_query(query, state, query_size, choose)
    clock.lap("select")
    record = RoundRecord(
        round=round,
        labeled_count=len(state.labeled_indices),
        accuracy_pct=accuracy_pct(tested.probs, data.test.labels),
        calibration_error_pct=calibration_error_pct(tested.probs, data.test.labels),
        covering_radius=covering_radius(predictions.probs[state.unlabeled_indices], predictions.probs[state.labeled_indices]),
        query_indices=query.tolist(),
        seed=seed,
        loss_curve=_shortened(net.loss_curve, distilled),
        seconds=clock.seconds,
        peak_memory_bytes=_peak_memory_bytes(bank.device),
    )
    return record, net


def _shortened(losses: Tensor, distilled: bool) -> dict[str, list[float]]:
    """losses (S, 2) -> the means of up to 20 equal parts; without distillation of the cross-entropy alone."""
    means = torch.stack([part.mean(dim=0) for part in losses.tensor_split(min(20, len(losses)))])
    return {name: [round(x, 4) for x in means[:, i].tolist()] for i, name in enumerate(["ce", "kd"][: 1 + distilled])}


def _views_of(teacher: Teacher | None, features: FrozenFeatures | None) -> Views | None:
    """The views that the teacher or the features were made on; None where any will do."""
    return (teacher.views if teacher else None) or (features.pool.views if features else None)


def _initial_indices(
    data: Dataset, teacher: Teacher | None, choose: Strategy, query_size: int, shots: int, seed: int
) -> Tensor:
    """The images that are labelled before the first student is trained."""
    if shots:
        return data.oracle.initial_indices(shots, generator(seed, "initial set"))
    state, probs = LabelState.empty(len(data.pool)), teacher.probs()
    predictions = Predictions(probs, teacher.features(), probs)
    query = choose(predictions, state, query_size, generator=generator(seed, "initial set"))
    _check_query(query, state, query_size, choose)
    return query


def load_run(out: str | os.PathLike, device: str | torch.device = "auto") -> RunResult:
    """Read the whole rounds that a run left in `out`. Raises FileNotFoundError when there are none."""
    path = Path(out) / "config.json"
    if not path.with_name("rounds.jsonl").is_file():
        raise FileNotFoundError(
            f"no run in {out}, or none that finished a round; make one with `activekd-lite run --out {out}`"
        )
    folder = RunFolder(out, json.loads(path.read_text(encoding="utf-8")))
    return RunResult(folder.config, *folder.read(), folder.student(device))


class RunFolder:
    """The files of a run: `config.json`, `labels.csv` (round,index,label), `rounds.jsonl`, `student.safetensors`.

    Each is replaced as a whole. Labels go before records: a round counts once its record is there. With `out` None
    nothing is kept. Raises ValueError when `out` holds a run with another configuration.
    """

    def __init__(self, out: str | os.PathLike | None, config: dict):
        self.config, self.path = config, None
        if out is None:
            return
        self.path = make_folder(out)
        if (self.path / "rounds.jsonl").is_file():  # else there is no whole round, and nothing to be kept
            found = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
            require_same(found, config, f"the run in {out}", "take another `out`, or delete that run")

    def read(self) -> tuple[list[RoundRecord], LabelState]:
        """The records of the whole rounds, and what was labelled by then."""
        state = LabelState.empty(self.config["pool_size"])
        if self.path is None or not (self.path / "rounds.jsonl").is_file():
            return [], state
        lines = (self.path / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
        records = [RoundRecord(**json.loads(line)) for line in lines]
        labels = pd.read_csv(self.path / "labels.csv")
        for round, rows in labels[labels["round"] <= len(records)].groupby("round"):
            state = state.with_labels(torch.tensor(rows["index"].values), torch.tensor(rows["label"].values), int(round))
        for record in records:
            asked = torch.nonzero(state.labeled_round == record.round + 1).flatten().tolist()
            if sorted(record.query_indices) != asked:
                raise ValueError(f"labels.csv and rounds.jsonl in {self.path} disagree on round {record.round}; one was edited")
        return records, state

    def student(self, device: str | torch.device = "auto") -> DualHeadStudent:
        """The student of the last whole round."""
        net = build_student(
            self.config["student"], len(self.config["classnames"]), pretrained=False, device=device,
            input_dim=(self.config["features"] or {}).get("dim"),
        )  # fmt: skip
        path = self.path / "student.safetensors"
        try:
            net.load_state_dict(load_file(path))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"the student {path} cannot be read: {error}; delete {self.path} and run again") from error
        return net.eval()

    def write(self, records: list[RoundRecord], state: LabelState, student: DualHeadStudent) -> None:
        if self.path is None:
            return
        if not (self.path / "rounds.jsonl").is_file():
            write_atomic(self.path / "config.json", json.dumps(self.config, indent=1) + "\n")
        order = state.labeled_indices[state.labeled_round[state.labeled_indices].argsort(stable=True)]
        columns = {"round": state.labeled_round[order], "index": order, "label": state.labels[order]}
        write_atomic(self.path / "labels.csv", pd.DataFrame(columns).to_csv(index=False))
        weights = {k: v.cpu().contiguous() for k, v in student.state_dict().items()}
        write_atomic(self.path / "student.safetensors", save(weights))
        write_atomic(self.path / "rounds.jsonl", "".join(json.dumps(asdict(r)) + "\n" for r in records))


class _Clock:
    """Seconds per stage; on a GPU the queue is emptied before the clock is read."""

    def __init__(self, device: torch.device):
        self.device, self.seconds, self.last = device, {}, time.perf_counter()

    def lap(self, stage: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[stage], self.last = round(now - self.last, 4), now


def check_labels(data: Dataset, rounds: int, query_size: int, shots: int) -> None:
    """Raises ValueError for more labels than there are images, or numbers that make no sense: before anything is encoded."""
    if not isinstance(rounds, Integral) or not isinstance(query_size, Integral) or rounds < 0 or (rounds and query_size < 1):
        raise ValueError(
            f"rounds = {rounds!r} and query_size = {query_size!r}: whole numbers are needed, at least 0 rounds of 1 label"
        )
    if rounds and data.oracle.unknown_count:
        raise ValueError(
            f"{data.oracle.unknown_count} images of the pool have no label, and a strategy may ask for any: label them, or "
            "leave them out (`rounds=0` trains on what is labelled)"
        )
    start = shots * data.pool.num_classes or query_size
    needed = start + rounds * query_size
    if needed > len(data.pool):
        raise ValueError(
            f"{start} labels to start with and {rounds} rounds of {query_size} make {needed} labels, but the pool has "
            f"{len(data.pool)} images; ask for fewer rounds or a smaller query"
        )


def _check(data: Dataset, teacher: Teacher | None, views: Views, choose: Strategy, query_size: int, shots: int) -> None:
    """Refuse what cannot work before anything is trained."""
    if shots < 0 or (shots == 0 and (teacher is None or query_size < 1)):
        raise ValueError(
            f"shots = {shots}: at least 1 labelled image of each class is needed to start; 0, a cold start, needs a teacher "
            "and a query_size of at least 1"
        )
    if choose is pcoreset_teacher and teacher is None:
        raise ValueError("pcoreset_teacher chooses by the teacher's probabilities: run with a teacher, or choose pcoreset")
    if teacher is None:
        return
    if teacher.num_classes != data.pool.num_classes:
        raise ValueError(
            f"the teacher has text weights for {teacher.num_classes} classes, {data.name} has {data.pool.num_classes}"
        )
    cache = getattr(teacher, "cache", None)  # outputs that were brought have none
    if len(teacher) != len(data.pool) or (cache and cache.fingerprint["pool"] != data.pool.fingerprint()):
        raise ValueError(
            f"the teacher's cache or outputs ({len(teacher)} images) were made from other images than {data.name}'s pool "
            f"({len(data.pool)}); build a cache of it with TeacherCache.build"
        )
    if teacher.views not in (None, views):
        raise ValueError(f"views {views} were asked for, but the teacher's cache holds {teacher.views}")


def _check_query(query: torch.Tensor, state: LabelState, query_size: int, choose: Strategy) -> None:
    """Hold a strategy, also a reader's own, to its contract."""
    if not isinstance(query, Tensor) or query.shape != (query_size,) or query.dtype != torch.int64:
        found = f"{tuple(query.shape)} {query.dtype}" if isinstance(query, Tensor) else type(query).__name__
        raise ValueError(
            f"{_strategy_name(choose)} returned {found}; pool indices are needed, a torch tensor ({query_size},) torch.int64"
        )
    if len(query.unique()) < query_size or (state.labels[query] >= 0).any():
        raise ValueError(f"{_strategy_name(choose)} chose an image twice or one that is labelled already: {query.tolist()}")


def _strategy_name(strategy: str | Strategy) -> str:
    return strategy if isinstance(strategy, str) else name_of(strategy)


def _peak_memory_bytes(device: torch.device) -> int:
    """The largest memory so far: of the GPU where the run is on one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    usage = psutil.Process().memory_info()
    return getattr(usage, "peak_wset", None) or _unix_peak_bytes()


def _unix_peak_bytes() -> int:
    import resource  # there is none on Windows
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
