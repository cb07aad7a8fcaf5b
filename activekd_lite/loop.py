"""Active learning with knowledge distillation (ActiveKD, arXiv:2506.00910, Algorithm 1).

Each round fits the teacher, trains a student from scratch, lets it predict the pool, chooses images
and asks the oracle for their labels.

A round depends only on (what is labelled, seed, round): each random draw is derived from the seed
and its purpose. So an interrupted run goes on after its last whole round, with the same records.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from activekd_lite.banks import FeatureBank, ViewBank, check_features, make_bank
from activekd_lite.cache import FrozenFeatures
from activekd_lite.pool import Dataset, LabelState, Predictions
from activekd_lite.preflight import (
    check_labels,
    check_query,
    check_run,
    check_selection_source,
    strategy_name,
)
from activekd_lite.runs import RoundRecord, RunFolder, RunResult, class_balance
from activekd_lite.scores import accuracy_pct, calibration_error_pct, covering_radius
from activekd_lite.strategies import get_strategy
from activekd_lite.strategies.contract import Strategy
from activekd_lite.students import DualHeadStudent
from activekd_lite.teacher import Teacher, pool_of, test_answers
from activekd_lite.training import TrainConfig, predict, train_student
from activekd_lite.utils.backbones import weights_sha256
from activekd_lite.utils.checks import whole_number
from activekd_lite.utils.device import device_name, resolve_device
from activekd_lite.utils.images import ImageFiles
from activekd_lite.utils.measure import Clock, peak_memory_bytes
from activekd_lite.utils.seeding import derive_seed, generator
from activekd_lite.utils.views import FRESH, Views


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
    """Run ActiveKD, or plain active learning if there is no teacher.

    Parameters
    ----------
    strategy
        A name of `STRATEGIES`, "skactiveml:Name", or a callable of the same contract.
    rounds, query_size
        Number of queries, and labels per query; there are rounds + 1 trainings.
    seed
        Everything random is derived from it.
    shots
        Labelled images per class at the start. 0 is a cold start: the strategy also chooses the
        first `query_size` images, by the teacher's probabilities and features.
    selection_source
        Whose probabilities a strategy sees as `predictions.probs`: "mixed" (both heads, as in the
        paper), "ce" or "kd" (one head), or "teacher". The features are always the student's, and
        `covering_radius` is always measured in the mixed probabilities.
    student, train
        The student's name (default: the one that suits the data), and how it is trained.
    views
        Default: those of the teacher or the features; without either a fresh crop at each step.
    features
        What the students "linear" and "mlp" learn from.
    out
        Folder to keep each whole round in, see `runs.RunFolder`. Calling again goes on where the
        run stopped; if another process works there, it waits for that one first.
    keep_students
        Keep the students of all rounds, not only the last.
    on_round
        Called with each new record.

    Returns
    -------
    RunResult
        The same on the same device with as many threads, interrupted or not. Elsewhere the last
        digits may differ, and with them a pick; `RoundRecord.device` says where it was computed.

    Raises
    ------
    ValueError
        For settings that cannot work, a teacher of other images, an `out` that holds a run with
        other settings or data, and damaged files there.
    OSError
        If `out` cannot be written.
    """
    device, choose, student = (
        resolve_device(device),
        get_strategy(strategy),
        student or data.student,
    )
    shots, seed = whole_number("shots", shots), whole_number("seed", seed)
    check_labels(data, rounds, query_size, shots)
    rounds, query_size = int(rounds), int(query_size)  # numpy's, too: they are written as JSON
    views = (
        views or _views_of(teacher, features) or Views(FRESH, augmentation=data.pool.augmentation)
    )
    check_selection_source(selection_source, teacher is not None)
    check_features(data.pool, student, views, features)
    config = _config(data, teacher, student, train, views, features) | {
        "strategy": strategy_name(strategy),
        "rounds": rounds,
        "query_size": query_size,
        "seed": seed,
        "shots": shots,
        "selection_source": selection_source,
    }
    check_run(data, config, teacher, views, choose)
    folder = RunFolder(out)
    if finished := _finished(folder, config, device):  # without the lock: `out` may be read-only
        return finished
    with folder.lock():
        if finished := _finished(folder, config, device):  # by the process that was waited for
            return finished
        _, records, state = folder.read(config)
        folder.clean(keep_students)
        if not records:
            state = _initial(data, teacher, choose, query_size, shots, seed)
        run = _prepare(data, teacher, choose, config, train, views, features, device, progress)
        with _bar(config, len(records), progress) as bar:
            for round in range(len(records), rounds + 1):
                record, net, state = _one_round(run, state, round)
                records.append(record)
                folder.write(config, record, state, net, keep_students)
                accuracy = f"{record.accuracy_pct:.1f} %"
                bar.set_postfix(labels=record.labeled_count, accuracy=accuracy, refresh=False)
                bar.update()
                if on_round:
                    on_round(record)
        return RunResult(config, records, state, net)


@dataclass(frozen=True)
class _Run:
    """What stays the same in all rounds of a run."""

    data: Dataset
    teacher: Teacher | None
    choose: Strategy
    config: dict
    train: TrainConfig
    bank: ViewBank | FeatureBank
    test_inputs: Tensor | ImageFiles
    progress: bool


def _one_round(
    run: _Run, state: LabelState, round: int
) -> tuple[RoundRecord, DualHeadStudent, LabelState]:
    """Train on `state`, measure, and ask for the next labels, except in the last round."""
    seed, last = run.config["seed"], round == run.config["rounds"]
    clock = Clock(run.bank.device)

    # Fit the teacher.
    teacher = run.teacher and run.teacher.fitted(state, derive_seed(seed, "teacher", round))
    clock.lap("teacher")

    # Train a student from scratch on the labels and, by distillation, on the whole pool.
    net = train_student(
        run.data.pool,
        state,
        teacher,
        student=run.config["student"],
        config=run.train,
        bank=run.bank,
        seed=derive_seed(seed, "training", round),
        last_round=last,
        device=run.bank.device,
        progress=run.progress,
    )
    clock.lap("train")

    # Predict the pool and the test set.
    distilled = teacher is not None
    how = {"precision": run.train.precision, "distilled": distilled}
    predictions = predict(net, run.bank.centers(), **run.train.mixing(distilled), **how)
    mixing = run.train.mixing(distilled, evaluation=True)
    tested = predict(net, run.test_inputs, **mixing, **how)
    taught = test_answers(teacher)
    clock.lap("predict")

    # Choose the next images.
    query = torch.empty(0, dtype=torch.int64)
    if not last:
        seen = _seen(predictions, teacher, run.config["selection_source"])
        query = _choose(
            run.choose, seen, state, run.config["query_size"], (seed, "selection", round)
        )
    clock.lap("select")

    # Measure, ask the oracle, and record.
    labels, test_labels = state.labels[state.labeled_indices], run.data.test.labels
    unlabeled = predictions.probs[state.unlabeled_indices]
    record = RoundRecord(
        round=round,
        labeled_count=len(labels),
        accuracy_pct=accuracy_pct(tested.probs, test_labels),
        calibration_error_pct=calibration_error_pct(tested.probs, test_labels),
        covering_radius=covering_radius(unlabeled, predictions.probs[state.labeled_indices]),
        query_indices=query.tolist(),
        seed=seed,
        loss_curve=_shortened(net.loss_curve, distilled),
        seconds=clock.seconds,
        peak_memory_bytes=peak_memory_bytes(run.bank.device),
        device=device_name(run.bank.device),
        teacher_accuracy_pct=None if taught is None else accuracy_pct(taught, test_labels),
        ce_accuracy_pct=accuracy_pct(tested.ce_probs, test_labels),
        kd_accuracy_pct=accuracy_pct(tested.kd_probs, test_labels) if distilled else None,
        **class_balance("label", labels, run.data.pool.num_classes),
    )
    if len(query):
        answers = run.data.oracle.label(query)
        record = replace(record, **class_balance("query", answers, run.data.pool.num_classes))
        state = state.with_labels(query, answers, round=round + 1)
    return record, net, state


def _config(
    data: Dataset,
    teacher: Teacher | None,
    student: str,
    train: TrainConfig,
    views: Views,
    features: FrozenFeatures | None,
) -> dict:
    """Return what the data, the teacher and the student contribute to a run's configuration."""
    return {
        "dataset": data.name,
        "pool": data.pool.fingerprint(),
        "pool_size": len(data.pool),
        "labels": data.oracle.fingerprint(),
        "test": data.test.fingerprint(),
        "classnames": list(data.classnames),
        "student": student,
        "train": asdict(train),
        "views": views.fingerprint(),
        "teacher": teacher.fingerprint() if teacher else None,
        "features": features.fingerprint() | {"dim": features.pool.dim} if features else None,
        "student_weights": weights_sha256(train.pretrained),
    }


def _prepare(
    data: Dataset,
    teacher: Teacher | None,
    choose: Strategy,
    config: dict,
    train: TrainConfig,
    views: Views,
    features: FrozenFeatures | None,
    device: torch.device,
    progress: bool,
) -> _Run:
    """Move data and teacher to the device, and render what the student is trained on."""
    images = data.pool.images
    if (
        isinstance(images, ImageFiles)
        and features is None
        and (not teacher or not pool_of(teacher))
    ):
        images.check()  # nothing has decoded them all yet
    data = replace(data, pool=replace(data.pool, images=images.to(device)))
    bank = make_bank(data.pool, config["student"], views, device, features)
    test_inputs = data.test.images if bank.dim is None else features.test
    teacher = teacher and teacher.to(device)
    return _Run(data, teacher, choose, config, train, bank, test_inputs, progress)


def _bar(config: dict, done: int, progress: bool) -> tqdm:
    distillation = "" if config["teacher"] else ", no distillation"
    title = f"{config['dataset']}, {config['strategy']}{distillation}, seed {config['seed']}"
    total = config["rounds"] + 1
    return tqdm(total=total, initial=done, unit="round", disable=not progress, desc=title)


def _finished(folder: RunFolder, config: dict, device: torch.device) -> RunResult | None:
    """Return the run of this configuration that the folder holds, if none of its rounds is missing."""
    _, records, state = folder.read(config)
    if len(records) <= config["rounds"]:
        return None
    return RunResult(config, records, state, folder.student(config, config["rounds"], device))


def _views_of(teacher: Teacher | None, features: FrozenFeatures | None) -> Views | None:
    """Return the views that the teacher or the features were made from, or None if any will do."""
    return (teacher.views if teacher else None) or (features.pool.views if features else None)


def _initial(
    data: Dataset,
    teacher: Teacher | None,
    choose: Strategy,
    query_size: int,
    shots: int,
    seed: int,
) -> LabelState:
    """Return what is labelled before the first student is trained."""
    state, draw = LabelState.empty(len(data.pool)), (seed, "initial set")
    if shots:
        first = data.oracle.initial_indices(shots, generator(*draw))
    else:
        probs = teacher.probs()
        seen = Predictions(probs, teacher.features(), probs)
        first = _choose(choose, seen, state, query_size, draw)
    return state.with_labels(first, data.oracle.label(first), round=0)


def _choose(
    choose: Strategy, seen: Predictions, state: LabelState, query_size: int, draw: tuple
) -> Tensor:
    query = choose(seen, state, query_size, generator=generator(*draw))
    check_query(query, state, query_size, choose)
    return query


def _seen(predictions: Predictions, teacher: Teacher | None, source: str) -> Predictions:
    """Return what a strategy is shown: the probabilities of `source` as `probs`, and the teacher's."""
    taught = teacher.probs() if teacher else None
    probs = {
        "mixed": predictions.probs,
        "ce": predictions.ce_probs,
        "kd": predictions.kd_probs,
        "teacher": taught,
    }[source]
    return replace(predictions, probs=probs, teacher_probs=taught)


def _shortened(losses: Tensor, distilled: bool) -> dict[str, list[float]]:
    """Return the means of up to 20 equal parts of losses (S, 2), without kd if not distilled."""
    parts = losses.tensor_split(min(20, len(losses)))
    means = torch.stack([part.mean(dim=0) for part in parts])
    names = ["ce", "kd"][: 1 + distilled]
    return {name: [round(x, 4) for x in means[:, i].tolist()] for i, name in enumerate(names)}
