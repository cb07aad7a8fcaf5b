import functools
import json
import os
import re
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import activekd_lite as akd
from activekd_lite import loop
from activekd_lite.experiments import cluster
from activekd_lite.experiments.config import zero_shot_accuracy_pct
from activekd_lite.runs import folder as runs
from activekd_lite.runs.preflight import SELECTION_SOURCES
from activekd_lite.utils import files


def run(data, teacher, quick, **kwargs):
    defaults = dict(
        strategy="pcoreset", rounds=3, query_size=5, train=quick, progress=False, device="cpu"
    )
    return akd.run_active_learning(data, teacher, **defaults | kwargs)


def outcomes(result):
    return [record.outcome() for record in result.records]


def test_r_rounds_of_queries_are_r_plus_1_trainings(small, teacher, quick, monkeypatch):
    trainings = []
    original = loop.train_student
    monkeypatch.setattr(
        loop, "train_student", lambda *a, **k: trainings.append(1) or original(*a, **k)
    )
    result = run(small, teacher, quick)
    assert len(trainings) == len(result.records) == 4
    assert [r.labeled_count for r in result.records] == [10, 15, 20, 25]
    assert [len(r.query_indices) for r in result.records] == [5, 5, 5, 0]
    for r in result.records[:-1]:
        assert (result.state.labeled_round[r.query_indices] == r.round + 1).all()
    assert torch.equal(
        result.state.labels[result.state.labeled_indices],
        small.oracle.label(result.state.labeled_indices),
    )


def test_a_round_records_the_structure_of_its_probabilities_and_its_query(small, teacher, quick):
    result = run(small, teacher, quick, rounds=1)
    first, last = result.records
    for name in ("nearest_neighbor_loss_pct", "cluster_purity_pct"):
        assert 0 <= getattr(first, name) <= 100
    assert 0 < first.mean_nearest_distance < first.covering_radius
    assert 0 < first.query_uncertainty < 1
    assert first.query_probability_diversity > 0
    assert last.query_uncertainty is last.query_feature_diversity is None
    tested = result.predict(small.test.images)
    purity = akd.metrics.cluster_purity_pct(tested.probs, small.test.labels)
    assert last.cluster_purity_pct == pytest.approx(purity)


def test_zero_rounds_train_once_and_ask_nothing(small, teacher, quick):
    result = run(small, teacher, quick, rounds=0)
    assert [r.query_indices for r in result.records] == [[]]


@pytest.mark.parametrize("strategy", akd.STRATEGIES)
def test_same_seed_same_records(small, teacher, quick, strategy):
    first, second = (run(small, teacher, quick, strategy=strategy) for _ in range(2))
    assert outcomes(first) == outcomes(second)


def test_round_0_is_the_same_for_every_strategy_but_not_for_every_seed(small, teacher, quick):
    first = {
        s: run(small, teacher, quick, strategy=s, rounds=1).records[0].accuracy_pct
        for s in akd.STRATEGIES
    }
    assert len(set(first.values())) == 1
    a, b = run(small, teacher, quick, rounds=0), run(small, teacher, quick, rounds=0, seed=1)
    assert not torch.equal(a.state.labels, b.state.labels)


def test_plain_active_learning_has_the_same_start_and_views(small, teacher, quick):
    with_teacher = run(small, teacher, quick, rounds=0)
    plain = run(small, None, quick, rounds=0, views=teacher.cache.views)
    assert torch.equal(with_teacher.state.labels, plain.state.labels)
    assert with_teacher.config["views"] == plain.config["views"]
    assert plain.config["teacher"] is None


@pytest.mark.parametrize("strategy", akd.STRATEGIES)
def test_hidden_labels_do_not_leak_into_the_first_query(small, teacher, quick, strategy):
    """Shuffle every label but the initial set's: the first query stays the same."""
    labels = small.oracle.label(torch.arange(150))
    first = run(small, teacher, quick, rounds=1, strategy=strategy)
    initial = torch.nonzero(first.state.labeled_round == 0).flatten()
    hidden = torch.nonzero(first.state.labeled_round != 0).flatten()

    class Shuffled(akd.Oracle):
        def initial_indices(self, shots, generator):
            return small.oracle.initial_indices(shots, generator)

    other = labels.clone()
    other[hidden] = (labels[hidden] + 1) % 10
    assert torch.equal(other[initial], labels[initial])
    second = run(
        replace(small, oracle=Shuffled(other, 10)), teacher, quick, rounds=1, strategy=strategy
    )
    assert second.records[0].query_indices == first.records[0].query_indices


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "stage", ["train_student", "predict", "labels.csv", "student-", "rounds.jsonl"]
)
@pytest.mark.parametrize("round", [0, 1, 3])
def test_killed_anywhere_and_resumed_gives_the_same_records(
    small, teacher, quick, tmp_path, monkeypatch, stage, round
):
    whole = outcomes(run(small, teacher, quick))
    calls = {"count": 0}
    module, name = (loop, stage) if hasattr(loop, stage) else (runs, "write_atomic")
    original = getattr(module, name)

    def dies(*args, **kwargs):
        if module is loop or args[0].name.startswith(stage):
            calls["count"] += 1
        if calls["count"] == (2 * round + 1 if stage == "predict" else round + 1):
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, dies)
    with pytest.raises(Killed):
        run(small, teacher, quick, out=tmp_path / "run")
    monkeypatch.setattr(module, name, original)
    resumed = run(small, teacher, quick, out=tmp_path / "run")
    assert outcomes(resumed) == whole
    assert outcomes(akd.load_run(tmp_path / "run", device="cpu")) == whole


def test_a_finished_run_is_read_not_repeated(small, teacher, quick, tmp_path, monkeypatch):
    first = run(small, teacher, quick, out=tmp_path)
    monkeypatch.setattr(loop, "train_student", lambda *a, **k: pytest.fail("trained again"))
    again = run(small, teacher, quick, out=tmp_path)
    assert again.records == first.records
    assert torch.equal(again.state.labels, first.state.labels)
    torch.testing.assert_close(
        again.predict(small.test.images).probs, first.predict(small.test.images).probs
    )


def test_without_a_teacher_every_step_draws_a_fresh_crop_unless_told(small, teacher, quick):
    assert run(small, None, quick, rounds=0).config["views"]["count"] == akd.views.FRESH
    assert run(small, None, quick, rounds=0, views=teacher.views).config["views"]["count"] == 3
    assert run(small, teacher, quick, rounds=0).config["views"]["count"] == 3


def test_numpy_numbers_and_any_callable_can_be_recorded(small, teacher, quick, tmp_path):
    class Firsts:
        def __call__(self, predictions, state, query_size, *, generator, start=0):
            return state.unlabeled_indices[start : start + query_size]

    numbers = {"rounds": np.int32(1)}
    numbers |= {"seed": np.int64(1), "query_size": np.int64(3), "shots": np.int64(1)}
    strategies = [Firsts(), *(functools.partial(Firsts(), start=i) for i in (2, 3))]
    results = [
        run(small, teacher, quick, strategy=strategy, out=tmp_path / str(i), **numbers)
        for i, strategy in enumerate(strategies)
    ]
    names = [result.config["strategy"] for result in results]
    assert len(set(names)) == 3
    assert all("Firsts" in name for name in names)


def test_what_a_run_writes(small, teacher, quick, tmp_path):
    result = run(small, teacher, quick, out=tmp_path)
    written = {".lock", "config.json", "labels.csv", "rounds.jsonl", "student-03.safetensors"}
    assert {p.name for p in tmp_path.iterdir()} == written
    lines = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    assert [
        akd.RoundRecord(**{k: v for k, v in line.items() if k not in runs.SUMS}) for line in lines
    ] == result.records
    assert pd.read_json(tmp_path / "rounds.jsonl", lines=True)["accuracy_pct"].tolist() == [
        r.accuracy_pct for r in result.records
    ]
    assert re.fullmatch(r"cpu, \d+ threads?, \w+", lines[0]["device"])
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == quick.steps
    assert set(lines[0]["seconds"]) == {"teacher", "train", "predict", "select"}
    assert lines[0]["peak_memory_bytes"] > 1e8
    rows = (tmp_path / "labels.csv").read_text().splitlines()
    assert rows[0] == "round,index,label"
    assert len(rows) == 1 + 25


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("strategy", {"strategy": "random"}),
        ("seed", {"seed": 1}),
        ("query_size", {"query_size": 4}),
        ("selection_source", {"selection_source": "ce"}),
        ("rounds", {"rounds": 2}),
        ("shots", {"shots": 2}),
        ("student", {"student": "tiny-resnet"}),
        (r"train\.lr", {"train": akd.TrainConfig(steps=8, batch_size=8, lr=1e-4)}),
    ],
)
def test_an_out_with_another_configuration_is_refused(
    small, teacher, quick, tmp_path, field, change
):
    run(small, teacher, quick, out=tmp_path)
    before = (tmp_path / "rounds.jsonl").read_text()
    with pytest.raises(ValueError, match=rf"{field}: .*; choose another `out`"):
        run(small, teacher, quick, out=tmp_path, **change)
    assert (tmp_path / "rounds.jsonl").read_text() == before


def test_an_out_with_other_prompts_data_or_no_teacher_is_refused(
    small, vlm, teacher, quick, tmp_path
):
    run(small, teacher, quick, out=tmp_path)
    weights = vlm.text_weights(small.classnames, ["the digit {}"])
    prompts = akd.ZeroShotTeacher(teacher.cache, weights)
    with pytest.raises(ValueError, match=r"teacher\.text_weights"):
        run(small, prompts, quick, out=tmp_path)
    with pytest.raises(ValueError, match="teacher"):
        run(small, None, quick, out=tmp_path, views=teacher.cache.views)
    names = replace(small, pool=replace(small.pool, classnames=tuple("abcdefghij")))
    with pytest.raises(ValueError, match="classnames"):
        run(names, teacher, quick, out=tmp_path)


def test_requests_that_cannot_work_are_refused_before_training(
    small, digits, teacher, quick, monkeypatch
):
    monkeypatch.setattr(loop, "train_student", lambda *a, **k: pytest.fail("trained"))
    with pytest.raises(ValueError, match="query_size = 0"):
        run(small, teacher, quick, query_size=0)
    with pytest.raises(
        ValueError,
        match="10 labels to start with and 30 rounds of 5 make 160 labels, but the pool has 150",
    ):
        run(small, teacher, quick, rounds=30)
    with pytest.raises(ValueError, match="shots = 0.*a cold start, needs a teacher"):
        run(small, None, quick, shots=0)
    with pytest.raises(ValueError, match="pcoreset_teacher chooses by the teacher's probabilities"):
        run(small, None, quick, strategy="pcoreset_teacher")
    for source in ("kd", "teacher"):
        with pytest.raises(ValueError, match=f"selection_source = '{source}' .* run with one"):
            run(small, None, quick, selection_source=source)
    with pytest.raises(
        ValueError, match="selection_source = 'both'; choose one of 'mixed', 'ce', 'kd', 'teacher'"
    ):
        run(small, teacher, quick, selection_source="both")
    with pytest.raises(ValueError, match="nothing is labelled.*pcoreset_teacher"):
        run(small, teacher, quick, shots=0, strategy="pcoreset")
    with pytest.raises(ValueError, match="unknown strategy 'best'"):
        run(small, teacher, quick, strategy="best")
    with pytest.raises(ValueError, match="unknown student 'big'"):
        run(small, teacher, quick, student="big")
    with pytest.raises(ValueError, match="made from other images than digits's pool"):
        run(digits, teacher, quick)
    with pytest.raises(ValueError, match="views .* were asked for"):
        run(small, teacher, quick, views=akd.Views(4))
    with pytest.raises(ValueError, match="text weights for 3 classes, small has 10"):
        run(small, akd.ZeroShotTeacher(teacher.cache, torch.eye(128)[:, :3]), quick)


def test_a_cold_start_begins_with_the_strategys_choice_by_the_teacher(
    small, teacher, quick, tmp_path
):
    cold = {"shots": 0, "strategy": "pcoreset_teacher", "rounds": 1, "out": tmp_path}
    result = run(small, teacher, quick, **cold)
    first = torch.nonzero(result.state.labeled_round == 0).flatten()
    probs, nothing = teacher.probs(), akd.LabelState.empty(len(small.pool))
    by_hand = akd.Predictions(probs, probs, probs)
    expected = akd.STRATEGIES["pcoreset_teacher"](by_hand, nothing, 5, generator=torch.Generator())
    assert sorted(expected.tolist()) == first.tolist()
    assert [r.labeled_count for r in result.records] == [5, 10]
    assert outcomes(run(small, teacher, quick, **cold)) == outcomes(result)


def test_any_callable_is_a_strategy_and_must_keep_the_contract(small, teacher, quick):
    def lowest(predictions, state, query_size, *, generator):
        return state.unlabeled_indices[:query_size]

    result = run(small, teacher, quick, strategy=lowest, rounds=1)
    assert result.config["strategy"].endswith("lowest")

    def refuse(choose, message):
        with pytest.raises(ValueError, match=message):
            run(small, teacher, quick, rounds=1, strategy=lambda p, s, q, generator: choose(s, q))

    refuse(lambda s, q: s.labeled_indices[:q], "twice or one that is labelled already")
    needed = r"pool indices are needed, a torch tensor \(5,\)"
    refuse(lambda s, q: s.unlabeled_indices[:2], rf"returned \(2,\) torch.int64; {needed}")
    refuse(
        lambda s, q: s.unlabeled_indices[:q].numpy(), r"returned ndarray; .* torch tensor \(5,\)"
    )
    with pytest.raises(ValueError, match="None is not a strategy"):
        run(small, teacher, quick, strategy=None)


@pytest.mark.parametrize(("index", "shots"), [(-1, 1), (150, 1), (-1, 0)])
def test_an_index_outside_the_pool_is_refused_before_the_oracle_is_asked(
    small, teacher, quick, tmp_path, index, shots
):
    class Asked(akd.Oracle):
        def label(self, indices):
            asked.append(torch.as_tensor(indices).tolist())
            return super().label(indices)

    def lost(predictions, state, query_size, *, generator):
        return torch.cat([state.unlabeled_indices[: query_size - 1], torch.tensor([index])])

    asked, data = [], replace(small, oracle=Asked(small.oracle.label(torch.arange(150)), 10))
    message = f"lost chose {index}, which is not a pool index: the pool has 150 images, 0 to 149"
    with pytest.raises(ValueError, match=message):
        run(data, teacher, quick, strategy=lost, rounds=1, shots=shots, out=tmp_path)
    assert [len(indices) for indices in asked] == [10] * shots  # the initial set alone
    assert not list(tmp_path.glob("*.csv"))
    assert len(run(data, teacher, quick, rounds=0, out=tmp_path).records) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_a_record_says_how_many_threads_computed_it(small, quick, threads):
    with cluster.torch_threads(threads):
        result = run(small, None, quick, rounds=0)
    assert re.match(r"cpu, (\d+) threads?, ", result.records[0].device)[1] == str(threads)


@pytest.mark.parametrize("name", ["config.json", "labels.csv", "student-01.safetensors"])
def test_files_that_no_run_wrote_are_not_replaced(small, teacher, quick, tmp_path, name):
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=rf"{name} was not written by a run, .*another `out`"):
        run(small, teacher, quick, rounds=1, out=tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, '{"mine": 1}')]


def test_a_refused_run_leaves_no_lock(small, teacher, quick, tmp_path):
    with pytest.raises(ValueError, match="fewer than shots = 14"):
        run(small, teacher, quick, shots=14, rounds=0, out=tmp_path)
    assert len(run(small, teacher, quick, rounds=0, out=tmp_path).records) == 1


def test_a_read_only_folder_is_named(small, teacher, quick, tmp_path, monkeypatch):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    try:
        with pytest.raises(PermissionError, match="read-only"):
            run(small, teacher, quick, out=tmp_path)
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_a_full_disk_loses_no_finished_round(small, teacher, quick, tmp_path, full_disk):
    whole = outcomes(run(small, teacher, quick))
    with (
        full_disk(writes=8),
        pytest.raises(
            OSError, match="No space left on device.*free space or choose another folder"
        ),
    ):
        run(small, teacher, quick, out=tmp_path)
    assert not list(tmp_path.glob("*.partial"))  # no half-written file stays
    assert len(akd.load_run(tmp_path, device="cpu").records) == 2
    assert outcomes(run(small, teacher, quick, out=tmp_path)) == whole


@pytest.fixture(scope="module")
def held_out(vlm, small, tmp_path_factory):
    return akd.TeacherCache.build_test(vlm, small, tmp_path_factory.mktemp("test"), progress=False)


def test_a_zero_shot_teachers_accuracy_is_recorded_and_changes_nothing_else(
    small, vlm, teacher, held_out, quick, tmp_path
):
    measured = akd.ZeroShotTeacher(teacher.cache, teacher.text_weights, test=held_out)
    assert measured.fingerprint() == teacher.fingerprint()
    first, second = run(small, teacher, quick, out=tmp_path / "a"), run(small, measured, quick)
    found = {r.teacher_accuracy_pct for r in second.records}
    assert found == {zero_shot_accuracy_pct(vlm, small)}
    assert {r.teacher_accuracy_pct for r in first.records} == {None}
    assert outcomes(first) == [r | {"teacher_accuracy_pct": None} for r in outcomes(second)]
    assert run(small, measured, quick, out=tmp_path / "a").records == first.records  # the same run


def test_the_accuracy_of_a_learning_teacher_is_that_of_its_prototypes(
    small, vlm, teacher, held_out, quick
):
    weights = vlm.text_weights(small.classnames, small.templates, "raw", unit=False)
    config = akd.ClapConfig(passes=30, lr=0.5, constraint=0)
    clap = akd.ClapTeacher(teacher.cache, weights, config=config, test=held_out)
    result, features = run(small, clap, quick, query_size=20), held_out.features[0].float()
    for record in result.records:
        known = result.state.labeled_round.le(record.round) & result.state.labeled_round.ge(0)
        rounds, labels = result.state.labeled_round, result.state.labels
        state = akd.LabelState(rounds.where(known, -1), labels.where(known, -1))
        fitted = clap.fitted(state, akd.seeding.derive_seed(0, "teacher", record.round))
        directions = torch.nn.functional.normalize(fitted.prototypes, dim=0)
        right = (features @ directions).argmax(dim=1) == small.test.labels
        assert record.teacher_accuracy_pct == pytest.approx(100 * right.double().mean().item())
    assert len({r.teacher_accuracy_pct for r in result.records}) > 1


def test_given_logits_may_include_those_of_the_test_images(small, quick):
    names, wrong = torch.eye(10), (small.test.labels + 1) % 10
    half = torch.where(torch.arange(100) < 50, small.test.labels, wrong)
    pool = names[small.oracle.label(torch.arange(150))]

    def refit(state):
        return (pool, names[half]) if len(state.labeled_indices) == 10 else pool

    fixed = akd.teacher.from_logits(pool, test=names[half])
    learning = akd.teacher.from_logits(pool, refit=refit, test=names[wrong])
    for one, expected in ((fixed, [50, 50]), (learning, [50, None])):  # no stale answers
        records = run(small, one, quick, rounds=1).records
        assert [r.teacher_accuracy_pct for r in records] == expected
    with pytest.raises(ValueError, match=r"test logits are \(100, 9\); finite numbers \(M, 10\)"):
        akd.teacher.from_logits(pool, test=names[half][:, :9])
    message = r"test predictions \(7 images\) are of other images than small's test set \(100\)"
    with pytest.raises(ValueError, match=message):
        run(small, akd.teacher.from_logits(pool, test=names[:7]), quick)


def test_test_answers_of_other_images_or_another_model_are_refused(small, teacher, held_out, quick):
    other = akd.ZeroShotTeacher(teacher.cache, teacher.text_weights, test=held_out)
    dark = replace(small, test=replace(small.test, images=small.test.images // 2))
    with pytest.raises(ValueError, match=r"test predictions \(100 images\) are of other images"):
        run(dark, other, quick)
    foreign = replace(held_out, fingerprint=held_out.fingerprint | {"vlm": {"name": "other"}})
    with pytest.raises(ValueError, match="made by another VLM than the pool's"):
        akd.ZeroShotTeacher(teacher.cache, teacher.text_weights, test=foreign)


def test_both_heads_accuracy_is_that_of_the_kept_students(small, teacher, quick, tmp_path):
    run(small, teacher, quick, rounds=1, out=tmp_path / "a", keep_students=True)
    run(small, None, quick, rounds=0, out=tmp_path / "b")
    for round in (0, 1):
        result = akd.load_run(tmp_path / "a", "cpu", round=round)
        features, record = result.predict(small.test.images).features, result.records[round]
        for head, found in (
            (result.student.ce_head, record.ce_accuracy_pct),
            (result.student.kd_head, record.kd_accuracy_pct),
        ):
            with torch.inference_mode():
                right = head(features).argmax(dim=1) == small.test.labels
            assert found == pytest.approx(100 * right.double().mean().item())
    plain = akd.load_run(tmp_path / "b", "cpu").records[0]
    assert (plain.ce_accuracy_pct, plain.kd_accuracy_pct) == (plain.accuracy_pct, None)


def test_class_counts_are_those_of_the_labels(small, teacher, quick):
    result = run(small, teacher, quick, strategy="random")
    labels, since = result.state.labels, result.state.labeled_round
    for record in result.records:
        known = labels[(since >= 0) & (since <= record.round)]
        asked = labels[since == record.round + 1]
        assert record.label_class_counts == np.bincount(known, minlength=10).tolist()
        assert sum(record.label_class_counts) == record.labeled_count
        counts = np.bincount(asked, minlength=10).tolist() if len(asked) else []
        assert record.query_class_counts == counts
    first, last = result.records[0], result.records[-1]
    assert (first.label_imbalance, first.label_imbalance_ratio) == (0, 1)  # one image of each class
    assert 0 < last.label_imbalance < 1
    assert last.label_imbalance_ratio == max(last.label_class_counts) / min(last.label_class_counts)
    assert first.query_imbalance_ratio is None  # 5 labels of 10 classes
    assert last.query_imbalance is None  # nothing was asked
    assert json.loads(json.dumps(last.outcome(), allow_nan=False)) == last.outcome()
    frame = result.to_frame()
    assert frame["label_imbalance"].tolist() == [r.label_imbalance for r in result.records]
    assert frame["query_imbalance_ratio"].dtype == float
    assert set(frame["selection_source"]) == {"mixed"}


def test_a_strategy_sees_the_probabilities_of_the_selection_source(small, teacher, quick, tmp_path):
    seen = {}

    def spy(predictions, state, query_size, *, generator):
        seen[source] = predictions
        return state.unlabeled_indices[:query_size]

    for source in SELECTION_SOURCES:
        run(small, teacher, quick, rounds=1, strategy=spy, selection_source=source)
    mixed = seen["mixed"]
    expected = {
        "ce": mixed.ce_probs,
        "kd": mixed.kd_probs,
        "teacher": teacher.probs(),
        "mixed": (mixed.ce_probs + mixed.kd_probs) / 2,
    }
    for source, probs in expected.items():
        torch.testing.assert_close(seen[source].probs, probs)
        assert torch.equal(seen[source].features, mixed.features)

    def picks(**changes):
        return tuple(run(small, teacher, quick, rounds=1, **changes).records[0].query_indices)

    assert len({picks(selection_source=source) for source in SELECTION_SOURCES}) == 4
    assert picks(selection_source="teacher") == picks(strategy="pcoreset_teacher")
    cold = {"shots": 0, "rounds": 1, "strategy": "pcoreset_teacher", "selection_source": "kd"}
    assert [r.labeled_count for r in run(small, teacher, quick, **cold).records] == [5, 10]
    radius = {
        run(small, teacher, quick, rounds=0, selection_source=s).records[0].covering_radius
        for s in ("mixed", "ce")
    }
    assert len(radius) == 1


def old_inputs():
    """The inputs of the run in fixtures/run-0.1: every machine computes the same numbers."""
    pool = torch.arange(24, dtype=torch.uint8).view(24, 1, 1, 1).expand(24, 3, 8, 8).contiguous()
    labels, units = torch.arange(24) % 3, torch.eye(24).half()
    data = akd.make_dataset("old", pool, labels, pool[:9] + 100, labels[:9], ["a", "b", "c"])
    views = akd.Views(1, augmentation=data.pool.augmentation)
    fingerprint = {"pool": data.pool.fingerprint(), "vlm": {"name": "by-hand"}}
    cache = akd.TeacherCache(units[None], views, fingerprint)
    answers = (torch.arange(24) + torch.arange(24) // 12) % 3
    teacher = akd.teacher.from_logits(3 * torch.eye(3)[answers])
    return data, teacher, akd.FrozenFeatures(cache, units[:9])


@pytest.fixture
def old(tmp_path):
    """A run of version 0.1 that was stopped after two of its three rounds."""
    shutil.copytree(Path(__file__).parent / "fixtures/run-0.1", tmp_path / "old")
    return tmp_path / "old"


def resume(old, **changes):
    data, teacher, features = old_inputs()
    train = akd.TrainConfig(steps=4, batch_size=4)
    settings = {"rounds": 2, "query_size": 2, "student": "linear", "features": features}
    settings["train"] = train
    return run(data, teacher, None, out=old, **settings | changes)


def test_a_run_of_version_0_1_is_read(old):
    result = akd.load_run(old, "cpu")
    assert [r.labeled_count for r in result.records] == [3, 5]
    assert result.records == runs.finished_rounds(old)
    assert result.config["selection_source"] == "mixed"
    for record in result.records:
        added = ("teacher_accuracy_pct", "ce_accuracy_pct", "label_imbalance")
        for absent in (*added, "cluster_purity_pct", "query_uncertainty"):
            assert getattr(record, absent) is None
        assert record.label_class_counts == record.query_class_counts == []
    assert result.predict(torch.eye(24)).probs.shape == (24, 3)
    assert result.to_frame()["label_imbalance"].isna().all()


def test_a_run_of_version_0_1_is_resumed(old):
    before = akd.load_run(old, "cpu").records
    result = resume(old)
    assert result.records[:2] == before
    assert result.records[2].labeled_count == sum(result.records[2].label_class_counts) == 7
    again = akd.load_run(old, "cpu")
    assert again.records == result.records == resume(old).records
    assert again.config == json.loads(json.dumps(result.config))


def test_a_run_of_version_0_1_is_refused_for_other_settings_and_damage(old):
    with pytest.raises(
        ValueError, match='selection_source: "mixed" stored, "kd" requested.*; choose another `out`'
    ):
        resume(old, selection_source="kd")
    text = (old / "rounds.jsonl").read_text()
    (old / "rounds.jsonl").write_text(text.replace('"labeled_count": 5', '"labeled_count": 6'))
    with pytest.raises(ValueError, match="line 2 of .* is damaged, or was edited"):
        akd.load_run(old, "cpu")
    first = {k: v for k, v in json.loads(text.splitlines()[0]).items() if k != "sha256"}
    for change in ({"from_the_future": 1}, {"accuracy_pct": ...}):
        line = {k: v for k, v in (first | change).items() if v is not ...}
        (old / "rounds.jsonl").write_text(json.dumps(files.with_checksum(line)) + "\n")
        with pytest.raises(ValueError, match="was written by another version of activekd-lite"):
            akd.load_run(old, "cpu")
