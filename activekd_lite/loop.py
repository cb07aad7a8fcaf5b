"""Active learning with knowledge distillation (ActiveKD, arXiv:2506.00910, Algorithm 1).

Each round fits the teacher, trains a student from scratch, lets it predict the pool, chooses images
and asks the oracle for their labels.

A round depends only on (what is labelled, seed, round): each random draw is derived from the seed
and its purpose. So an interrupted run resumes after its last complete round, with the same records.
"""

import os
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from activekd_lite.cache import FrozenFeatures
from activekd_lite.calibration import fit_temperature, tempered
from activekd_lite.pool import Dataset, LabelState, Predictions
from activekd_lite.runs.folder import RunFolder
from activekd_lite.runs.preflight import check_query
from activekd_lite.runs.record import RoundRecord, RunResult, class_balance
from activekd_lite.runs.setup import Run, configure, default_views, prepare, progress_bar
from activekd_lite.scores import (
    accuracy_pct,
    calibration_error_pct,
    cluster_purity_pct,
    covering_distances,
    nearest_neighbor_loss_pct,
    query_scores,
)
from activekd_lite.strategies import get_strategy
from activekd_lite.strategies.contract import Strategy
from activekd_lite.students import DualHeadStudent
from activekd_lite.teacher import Teacher, test_answers
from activekd_lite.train_config import TrainConfig
from activekd_lite.training import predict, train_student
from activekd_lite.utils.device import device_name, resolve_device
from activekd_lite.utils.measure import Clock, peak_memory_bytes
from activekd_lite.utils.seeding import derive_seed, generator
from activekd_lite.utils.views import Views


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
    on_student: Callable[[RoundRecord], None] | None = None,
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
        Default: those of the teacher or the features; without either, each step uses fresh crops.
    features
        What the students "linear" and "mlp" learn from.
    out
        Folder that keeps each complete round, see `runs.RunFolder`. A repeated call resumes the
        run; if another process is using the folder, the call waits for it.
    keep_students
        Keep the students of all rounds, not only the last.
    on_round
        Called with each new record.
    on_student
        Called before each query is asked, with the record as far as it is known by then: of use
        where the oracle is a person.

    Returns
    -------
    RunResult
        Identical on the same device with the same number of threads, whether or not the run was
        interrupted. On another machine the last digits may differ, and occasionally a pick.

    Raises
    ------
    ValueError
        For settings that cannot work, a teacher made from other images, an `out` that holds a run
        with other settings or data, and damaged files there.
    OSError
        If `out` cannot be written.
    """
    views = views or default_views(data, teacher, features)
    config = configure(
        data,
        teacher,
        strategy=strategy,
        rounds=rounds,
        query_size=query_size,
        seed=seed,
        shots=shots,
        selection_source=selection_source,
        student=student or data.student,
        train=train,
        views=views,
        features=features,
    )
    device, folder = resolve_device(device), RunFolder(out)
    if finished := folder.finished(config, device):  # without the lock: `out` may be read-only
        return finished
    with folder.lock():
        _, records, state = folder.read(config)
        if finished := folder.result(config, records, state, device):  # by another process
            return finished
        folder.clean(keep_students)
        choose = get_strategy(strategy)
        if not records:
            state = _initial(data, teacher, choose, config)
        run = prepare(data, teacher, choose, config, train, views, features, device, progress)
        with progress_bar(config, len(records), progress) as bar:
            for round in range(len(records), config["rounds"] + 1):
                record, net, state = _one_round(run, state, round, on_student)
                records.append(record)
                folder.write(config, record, state, net, keep_students)
                accuracy = f"{record.accuracy_pct:.1f} %"
                bar.set_postfix(labels=record.labeled_count, accuracy=accuracy, refresh=False)
                bar.update()
                if on_round:
                    on_round(record)
        return RunResult(config, records, state, net)


def _one_round(
    run: Run,
    state: LabelState,
    round: int,
    on_student: Callable[[RoundRecord], None] | None = None,
) -> tuple[RoundRecord, DualHeadStudent, LabelState]:
    """One pass through the loop of Algorithm 1; the last round asks for no labels."""
    seed, last = run.config["seed"], round == run.config["rounds"]
    clock = Clock(run.bank.device)

    # Fit the teacher to what is labelled (a zero-shot teacher stays as it is).
    teacher = run.teacher and run.teacher.fitted(state, derive_seed(seed, "teacher", round))
    clock.lap("teacher")

    # Train a student from scratch, on the labels and by distillation on the whole pool.
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
    predictions, tested, temperature = _predict(run, net, state)
    clock.lap("predict")

    # Choose the next images.
    query = torch.empty(0, dtype=torch.int64)
    if not last:
        seen = _seen(predictions, teacher, run.config["selection_source"])
        query = _choose(
            run.choose, seen, state, run.config["query_size"], (seed, "selection", round)
        )
    clock.lap("select")

    # Record the round, and ask the oracle.
    record = RoundRecord(
        round=round,
        labeled_count=len(state.labeled_indices),
        query_indices=query.tolist(),
        seed=seed,
        loss_curve=_shortened(net.loss_curve, teacher is not None),
        seconds=clock.seconds,
        peak_memory_bytes=peak_memory_bytes(run.bank.device),
        device=device_name(run.bank.device),
        calibration_temperature=temperature,
        **_scores(run, state, predictions, tested, teacher),
        **query_scores(predictions.probs, predictions.features, query),
    )
    if on_student:
        on_student(record)
    if not last:
        answers = run.data.oracle.label(query)
        record = replace(record, **class_balance("query", answers, run.data.pool.num_classes))
        state = state.with_labels(query, answers, round=round + 1)
    return record, net, state


def _predict(
    run: Run, net: DualHeadStudent, state: LabelState
) -> tuple[Predictions, Predictions, float | None]:
    """Return the predictions for the pool and for the test set, and the latter's temperature."""
    distilled, precision = run.teacher is not None, run.train.precision
    centers, mixing = run.bank.centers(), run.train.mixing(distilled)
    pool = predict(net, centers, precision=precision, **mixing)
    tested_mixing = run.train.mixing(distilled, evaluation=True)
    tested = predict(net, run.test_inputs, precision=precision, **tested_mixing)
    if not run.train.calibrate:
        return pool, tested, None
    seen = (
        pool
        if mixing == tested_mixing
        else predict(net, centers, precision=precision, **tested_mixing)
    )
    labeled = state.labeled_indices
    temperature = fit_temperature(seen.probs[labeled], state.labels[labeled])
    return pool, replace(tested, probs=tempered(tested.probs, temperature)), temperature


def _scores(
    run: Run,
    state: LabelState,
    predictions: Predictions,
    tested: Predictions,
    teacher: Teacher | None,
) -> dict:
    """Return the fields of a record that are measured before the next labels are known."""
    labels, taught, kd_probs = run.data.test.labels, test_answers(teacher), tested.kd_probs
    labeled = state.labeled_indices
    known, unknown = predictions.probs[labeled], predictions.probs[state.unlabeled_indices]
    return {
        "accuracy_pct": accuracy_pct(tested.probs, labels),
        "calibration_error_pct": calibration_error_pct(tested.probs, labels),
        **covering_distances(unknown, known),
        "nearest_neighbor_loss_pct": nearest_neighbor_loss_pct(
            tested.probs, labels, known, state.labels[labeled]
        ),
        "cluster_purity_pct": cluster_purity_pct(tested.probs, labels),
        "teacher_accuracy_pct": None if taught is None else accuracy_pct(taught, labels),
        "ce_accuracy_pct": accuracy_pct(tested.ce_probs, labels),
        "kd_accuracy_pct": None if kd_probs is None else accuracy_pct(kd_probs, labels),
        **class_balance("label", state.labels[labeled], run.data.pool.num_classes),
    }


def _initial(data: Dataset, teacher: Teacher | None, choose: Strategy, config: dict) -> LabelState:
    """Return what is labelled before the first student is trained."""
    state, draw = LabelState.empty(len(data.pool)), (config["seed"], "initial set")
    if config["shots"]:
        first = data.oracle.initial_indices(config["shots"], generator(*draw))
    else:
        probs = teacher.probs()
        seen = Predictions(probs, teacher.features(), probs)
        first = _choose(choose, seen, state, config["query_size"], draw)
    return state.with_labels(first, data.oracle.label(first), round=0)


def _choose(
    choose: Strategy, seen: Predictions, state: LabelState, query_size: int, draw: tuple
) -> Tensor:
    query = choose(seen, state, query_size, generator=generator(*draw))
    check_query(query, state, query_size, choose)
    return query


def _seen(predictions: Predictions, teacher: Teacher | None, source: str) -> Predictions:
    """Return what a strategy sees: the probabilities of `source`, and the teacher's."""
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
