"""The loop: train a student, predict the pool, choose, ask the oracle, again.

A round depends on (what is labelled, seed, round) alone: every random draw is derived from the seed and its purpose. So a
run that was interrupted goes on after its last whole round and gives the records of an undisturbed one.
"""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from numbers import Integral

import psutil
import torch
from torch import Tensor
from tqdm import tqdm

from activekd_lite.cache import FrozenFeatures
from activekd_lite.checks import whole_number
from activekd_lite.datasets import Dataset
from activekd_lite.device import device_name, resolve_device
from activekd_lite.files import name_of
from activekd_lite.images import ImageFiles
from activekd_lite.metrics import accuracy_pct, calibration_error_pct, covering_radius
from activekd_lite.pool import LabelState, Predictions, check_indices
from activekd_lite.runs import RoundRecord, RunFolder, RunResult, class_balance, finished_rounds, load_run, tidy
from activekd_lite.seeding import derive_seed, generator
from activekd_lite.strategies import Strategy, get_strategy, pcoreset_teacher
from activekd_lite.students import DualHeadStudent, weights_sha256
from activekd_lite.teacher import Teacher
from activekd_lite.training import FeatureBank, TrainConfig, ViewBank, check_features, make_bank, predict, train_student
from activekd_lite.views import FRESH, Views

__all__ = [
    "SELECTION_SOURCES", "RoundRecord", "RunResult", "check_labels", "check_selection_source", "finished_rounds", "load_run",
    "run_active_learning", "tidy",
]  # fmt: skip

SELECTION_SOURCES = ("mixed", "ce", "kd", "teacher")  # whose probabilities a strategy selects by


def run_active_learning(
    data: Dataset,
    teacher: Teacher | None = None,
    *,
    strategy: str | Strategy = "pcoreset",
    rounds: int = 8,
    query_size: int = 10,
    seed: int = 0,
    shots: int = 1,
    selection_source: str = "mixed",
    student: str | None = None,
    train: TrainConfig = TrainConfig(),
    views: Views | None = None,
    features: FrozenFeatures | None = None,
    out: str | os.PathLike | None = None,
    keep_students: bool = False,
    device: str | torch.device = "auto",
    progress: bool = True,
    on_round: Callable[[RoundRecord], None] | None = None,
) -> RunResult:
    """ActiveKD (arXiv:2506.00910), or plain active learning when there is no teacher.

    `rounds` queries of `query_size` labels, after an initial set of `shots` images a class: rounds + 1 trainings. shots = 0 is
    a cold start: the strategy chooses the first `query_size` images too, by the teacher's probabilities and features. A teacher
    that learns is fitted to the labels of each round first. views: those of the teacher or the features, else a fresh crop at
    every step. features: what the students "linear" and "mlp" learn from. on_round: called with each new record.

    selection_source: the probabilities that a strategy sees as `predictions.probs`: "mixed" (both heads, as in the paper), "ce"
    or "kd" (one head alone), or "teacher"; the last two need a teacher. The features are the student's in any case, and
    `covering_radius` is measured in the mixed probabilities, so that runs with different sources can be compared.

    With `out` every whole round is kept there, see `runs.RunFolder`; calling again goes on where it stopped, whatever stopped
    it, and where another process works there waits for it first. keep_students: those of all rounds, else of the last. The
    records are those of an undisturbed run bit for bit on the same device with as many threads; on another one last digits may
    differ, and with them a pick and what follows from it. `RoundRecord.device` says where each was computed.

    Raises ValueError for settings that cannot work, for a teacher of other images, for an `out` that holds a run with other
    settings or data, and for files there that were damaged; OSError for an `out` that cannot be written.
    """
    device, choose, student = resolve_device(device), get_strategy(strategy), student or data.student
    shots, seed = whole_number("shots", shots), whole_number("seed", seed)
    check_labels(data, rounds, query_size, shots)
    rounds, query_size = int(rounds), int(query_size)  # of numpy, too: they go into JSON
    views = views or _views_of(teacher, features) or Views(FRESH, augmentation=data.pool.augmentation)
    pool = data.pool.fingerprint()  # reads all of it: once
    check_selection_source(selection_source, teacher is not None)
    _check(data, pool, teacher, views, choose, query_size, shots)
    check_features(data.pool, student, views, features)
    config = {
        "dataset": data.name, "pool": pool, "pool_size": len(data.pool),
        "labels": data.oracle.fingerprint(), "test": data.test.fingerprint(),
        "classnames": list(data.classnames), "strategy": _strategy_name(strategy), "rounds": rounds,
        "query_size": query_size, "seed": seed, "shots": shots, "student": student, "train": asdict(train),
        "views": views.fingerprint(), "teacher": teacher.fingerprint() if teacher else None,
        "features": features.fingerprint() | {"dim": features.pool.dim} if features else None,
        "student_weights": weights_sha256(train.pretrained), "selection_source": selection_source,
    }  # fmt: skip
    _check_test_answers(data, config["test"]["images"], teacher)
    folder = RunFolder(out)
    if finished := _finished(folder, config, device):  # needs no lock: it may lie where nothing can be written
        return finished
    with folder.alone():
        if finished := _finished(folder, config, device):  # by the process that was waited for
            return finished
        _, records, state = folder.read(config)
        folder.clean(keep_students)
        if not records:
            initial = _initial_indices(data, teacher, choose, query_size, shots, seed)
            state = state.with_labels(initial, data.oracle.label(initial), round=0)
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
                    source=selection_source, student=student, train=train, seed=seed, round=round, progress=progress,
                )  # fmt: skip
                if record.query_indices:
                    query = torch.tensor(record.query_indices)
                    labels = data.oracle.label(query)
                    record = replace(record, **class_balance("query", labels, data.pool.num_classes))
                    state = state.with_labels(query, labels, round=round + 1)
                records.append(record)
                folder.write(config, record, state, net, keep_students)
                bar.set_postfix(labels=record.labeled_count, accuracy=f"{record.accuracy_pct:.1f} %", refresh=False)
                bar.update()
                if on_round:
                    on_round(record)
        return RunResult(config, records, state, net)


def _finished(folder: RunFolder, config: dict, device: torch.device) -> RunResult | None:
    """The run of this configuration that the folder holds, where none of its rounds is missing."""
    _, records, state = folder.read(config)
    if len(records) <= config["rounds"]:
        return None
    return RunResult(config, records, state, folder.student(config, config["rounds"], device))


def _one_round(
    data: Dataset, teacher: Teacher | None, state: LabelState, bank: ViewBank | FeatureBank, test_inputs: Tensor,
    choose: Strategy, query_size: int, *, source: str, student: str, train: TrainConfig, seed: int, round: int, progress: bool,
) -> tuple[RoundRecord, DualHeadStudent]:  # fmt: skip
    """Fit the teacher and train on `state`, measure, choose `query_size` images (0: none)."""
    clock = _Clock(bank.device)
    teacher = teacher and teacher.fitted(state, derive_seed(seed, "teacher", round))
    clock.lap("teacher")
    net = train_student(
        data.pool, state, teacher, student=student, config=train, bank=bank,
        seed=derive_seed(seed, "training", round), last_round=not query_size, device=bank.device, progress=progress,
    )  # fmt: skip
    clock.lap("train")
    distilled = teacher is not None
    how = {"precision": train.precision, "distilled": distilled}
    predictions = predict(net, bank.centers(), **train.mixing(distilled), **how)
    tested = predict(net, test_inputs, **train.mixing(distilled, evaluation=True), **how)
    taught = _test_probs(teacher)
    clock.lap("predict")
    query = torch.empty(0, dtype=torch.int64)
    if query_size:
        seen = _seen(predictions, teacher, source)
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
        device=device_name(bank.device),
        teacher_accuracy_pct=None if taught is None else accuracy_pct(taught, data.test.labels),
        ce_accuracy_pct=accuracy_pct(tested.ce_probs, data.test.labels),
        kd_accuracy_pct=accuracy_pct(tested.kd_probs, data.test.labels) if distilled else None,
        **class_balance("label", state.labels[state.labeled_indices], data.pool.num_classes),
    )
    return record, net


def _seen(predictions: Predictions, teacher: Teacher | None, source: str) -> Predictions:
    """What a strategy is shown: the probabilities of SELECTION_SOURCES as `probs`, and the teacher's."""
    taught = teacher.probs() if teacher else None
    probs = {"mixed": predictions.probs, "ce": predictions.ce_probs, "kd": predictions.kd_probs, "teacher": taught}[source]
    return replace(predictions, probs=probs, teacher_probs=taught)


def _test_probs(teacher: Teacher | None) -> Tensor | None:
    """The teacher's answers to the test images; None where there is no teacher, or one without them."""
    return teacher.test_probs() if hasattr(teacher, "test_probs") else None


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


def check_selection_source(source: str, distilled: bool) -> None:
    """Raises ValueError for an unknown source, and for one that needs a teacher where there is none."""
    if source not in SELECTION_SOURCES:
        raise ValueError(f"selection_source = {source!r}; {', '.join(map(repr, SELECTION_SOURCES))} are known")
    if source in ("kd", "teacher") and not distilled:
        raise ValueError(
            f"selection_source = {source!r} selects by what only a teacher gives: run with a teacher, or take 'mixed' or 'ce'"
        )


def _check_test_answers(data: Dataset, images: str, teacher: Teacher | None) -> None:
    """Refuse a teacher whose test answers are of other images. images: the test images' fingerprint."""
    test = getattr(teacher, "test", None)
    if test is None:
        return
    made_from = images if isinstance(test, Tensor) else test.fingerprint["pool"]  # logits that were brought do not tell
    if len(test) != len(data.test) or made_from != images:
        raise ValueError(
            f"the teacher's test answers ({len(test)} images) are of other images than {data.name}'s test set "
            f"({len(data.test)}); build them with TeacherCache.build_test(vlm, data)"
        )


def _check(
    data: Dataset, pool: str, teacher: Teacher | None, views: Views, choose: Strategy, query_size: int, shots: int
) -> None:  # fmt: skip
    """Refuse what cannot work before anything is trained. pool: its fingerprint."""
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
    if len(teacher) != len(data.pool) or (cache and cache.fingerprint["pool"] != pool):
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
    check_indices(query, len(state.labels), f"{_strategy_name(choose)} chose")
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
