import functools
import json
import os
import re
import stat
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import activekd_lite as akd
from activekd_lite import cluster, loop, runs


def run(data, teacher, quick, **kwargs):
    defaults = dict(strategy="pcoreset", rounds=3, query_size=5, train=quick, progress=False, device="cpu")
    return akd.run_active_learning(data, teacher, **defaults | kwargs)


def outcomes(result):
    return [record.outcome() for record in result.records]


def test_r_query_rounds_are_r_plus_1_trainings(small, teacher, quick, monkeypatch):
    trainings = []
    original = loop.train_student
    monkeypatch.setattr(loop, "train_student", lambda *a, **k: trainings.append(1) or original(*a, **k))
    result = run(small, teacher, quick)
    assert len(trainings) == len(result.records) == 4
    assert [r.labeled_count for r in result.records] == [10, 15, 20, 25]
    assert [len(r.query_indices) for r in result.records] == [5, 5, 5, 0]
    for r in result.records[:-1]:
        assert (result.state.labeled_round[r.query_indices] == r.round + 1).all()
    assert torch.equal(result.state.labels[result.state.labeled_indices], small.oracle.label(result.state.labeled_indices))


def test_zero_rounds_train_once_and_ask_nothing(small, teacher, quick):
    result = run(small, teacher, quick, rounds=0)
    assert [r.query_indices for r in result.records] == [[]]


@pytest.mark.parametrize("strategy", akd.STRATEGIES)
def test_same_seed_same_records(small, teacher, quick, strategy):
    assert outcomes(run(small, teacher, quick, strategy=strategy)) == outcomes(run(small, teacher, quick, strategy=strategy))


def test_round_0_is_the_same_for_every_strategy_but_not_for_every_seed(small, teacher, quick):
    first = {s: run(small, teacher, quick, strategy=s, rounds=1).records[0].accuracy_pct for s in akd.STRATEGIES}
    assert len(set(first.values())) == 1
    a, b = run(small, teacher, quick, rounds=0), run(small, teacher, quick, rounds=0, seed=1)
    assert not torch.equal(a.state.labels, b.state.labels)


def test_plain_active_learning_has_the_same_start_and_views(small, teacher, quick):
    with_teacher, plain = (
        run(small, teacher, quick, rounds=0),
        run(small, None, quick, rounds=0, views=teacher.cache.views),
    )
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
    second = run(replace(small, oracle=Shuffled(other, 10)), teacher, quick, rounds=1, strategy=strategy)
    assert second.records[0].query_indices == first.records[0].query_indices


class Killed(BaseException):
    pass


@pytest.mark.parametrize("stage", ["train_student", "predict", "labels.csv", "student-", "rounds.jsonl"])
@pytest.mark.parametrize("round", [0, 1, 3])
def test_killed_anywhere_and_resumed_gives_the_same_records(small, teacher, quick, tmp_path, monkeypatch, stage, round):
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
    torch.testing.assert_close(again.predict(small.test.images).probs, first.predict(small.test.images).probs)


def test_without_a_teacher_every_step_draws_a_fresh_crop_unless_told(small, teacher, quick):
    assert run(small, None, quick, rounds=0).config["views"]["count"] == akd.views.FRESH
    assert run(small, None, quick, rounds=0, views=teacher.views).config["views"]["count"] == 3
    assert run(small, teacher, quick, rounds=0).config["views"]["count"] == 3


def test_numbers_of_numpy_and_callables_of_any_kind_are_written_down(small, teacher, quick, tmp_path):
    class Firsts:
        def __call__(self, predictions, state, query_size, *, generator, start=0):
            return state.unlabeled_indices[start : start + query_size]

    numbers = {"seed": np.int64(1), "rounds": np.int32(1), "query_size": np.int64(3), "shots": np.int64(1)}
    strategies = [Firsts(), functools.partial(Firsts(), start=2), functools.partial(Firsts(), start=3)]
    names = [
        run(small, teacher, quick, strategy=strategy, out=tmp_path / str(i), **numbers).config["strategy"]
        for i, strategy in enumerate(strategies)
    ]
    assert len(set(names)) == 3
    assert all("Firsts" in name for name in names)


def test_what_a_run_writes(small, teacher, quick, tmp_path):
    result = run(small, teacher, quick, out=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".lock",
        "config.json",
        "labels.csv",
        "rounds.jsonl",
        "student-03.safetensors",
    ]
    lines = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    assert [akd.RoundRecord(**{k: v for k, v in line.items() if k not in runs.SUMS}) for line in lines] == result.records
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


@pytest.mark.parametrize(("field", "change"), [
    ("strategy", {"strategy": "random"}), ("seed", {"seed": 1}), ("query_size", {"query_size": 4}),
    ("rounds", {"rounds": 2}), ("shots", {"shots": 2}), ("student", {"student": "tiny-resnet"}),
    (r"train\.lr", {"train": akd.TrainConfig(steps=8, batch_size=8, lr=1e-4)}),
])  # fmt: skip
def test_an_out_with_another_configuration_is_refused(small, teacher, quick, tmp_path, field, change):
    run(small, teacher, quick, out=tmp_path)
    before = (tmp_path / "rounds.jsonl").read_text()
    with pytest.raises(ValueError, match=rf"{field}: .*; take another `out`"):
        run(small, teacher, quick, out=tmp_path, **change)
    assert (tmp_path / "rounds.jsonl").read_text() == before


def test_an_out_of_other_prompts_data_or_without_teacher_is_refused(small, vlm, teacher, quick, tmp_path):
    run(small, teacher, quick, out=tmp_path)
    prompts = akd.ZeroShotTeacher(teacher.cache, vlm.text_weights(small.classnames, ["the digit {}"]))
    with pytest.raises(ValueError, match=r"teacher\.text_weights"):
        run(small, prompts, quick, out=tmp_path)
    with pytest.raises(ValueError, match="teacher"):
        run(small, None, quick, out=tmp_path, views=teacher.cache.views)
    names = replace(small, pool=replace(small.pool, classnames=tuple("abcdefghij")))
    with pytest.raises(ValueError, match="classnames"):
        run(names, teacher, quick, out=tmp_path)


def test_requests_that_cannot_work_are_refused_before_training(small, digits, teacher, quick, monkeypatch):
    monkeypatch.setattr(loop, "train_student", lambda *a, **k: pytest.fail("trained"))
    with pytest.raises(ValueError, match="query_size = 0"):
        run(small, teacher, quick, query_size=0)
    with pytest.raises(ValueError, match="10 labels to start with and 30 rounds of 5 make 160 labels, but the pool has 150"):
        run(small, teacher, quick, rounds=30)
    with pytest.raises(ValueError, match="shots = 0.*a cold start, needs a teacher"):
        run(small, None, quick, shots=0)
    with pytest.raises(ValueError, match="pcoreset_teacher chooses by the teacher's probabilities"):
        run(small, None, quick, strategy="pcoreset_teacher")
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


def test_a_cold_start_begins_with_what_the_strategy_chooses_by_the_teacher(small, teacher, quick, tmp_path):
    cold = {"shots": 0, "strategy": "pcoreset_teacher", "rounds": 1, "out": tmp_path}
    result = run(small, teacher, quick, **cold)
    first = torch.nonzero(result.state.labeled_round == 0).flatten()
    probs, nothing = teacher.probs(), akd.LabelState.empty(len(small.pool))
    by_hand = akd.Predictions(probs, probs, probs)
    expected = akd.STRATEGIES["pcoreset_teacher"](by_hand, nothing, 5, generator=torch.Generator())
    assert sorted(expected.tolist()) == first.tolist()
    assert [r.labeled_count for r in result.records] == [5, 10]
    assert outcomes(run(small, teacher, quick, shots=0, strategy="pcoreset_teacher", rounds=1, out=tmp_path)) == outcomes(
        result
    )


def test_any_callable_is_a_strategy_and_is_held_to_the_contract(small, teacher, quick):
    def lowest(predictions, state, query_size, *, generator):
        return state.unlabeled_indices[:query_size]

    result = run(small, teacher, quick, strategy=lowest, rounds=1)
    assert result.config["strategy"].endswith("lowest")
    with pytest.raises(ValueError, match="twice or one that is labelled already"):
        run(small, teacher, quick, rounds=1, strategy=lambda p, s, q, *, generator: s.labeled_indices[:q])
    with pytest.raises(ValueError, match=r"returned \(2,\) torch.int64; pool indices are needed, a torch tensor \(5,\)"):
        run(small, teacher, quick, rounds=1, strategy=lambda p, s, q, *, generator: s.unlabeled_indices[:2])
    with pytest.raises(ValueError, match=r"returned ndarray; .* torch tensor \(5,\)"):
        run(small, teacher, quick, rounds=1, strategy=lambda p, s, q, *, generator: s.unlabeled_indices[:q].numpy())
    with pytest.raises(ValueError, match="None is no strategy"):
        run(small, teacher, quick, strategy=None)


@pytest.mark.parametrize(("index", "shots"), [(-1, 1), (150, 1), (-1, 0)])
def test_an_index_outside_the_pool_is_refused_before_the_oracle_is_asked_and_anything_is_written(
    small, teacher, quick, tmp_path, index, shots
):
    class Asked(akd.Oracle):
        def label(self, indices):
            asked.append(torch.as_tensor(indices).tolist())
            return super().label(indices)

    def lost(predictions, state, query_size, *, generator):
        return torch.cat([state.unlabeled_indices[: query_size - 1], torch.tensor([index])])

    asked, data = [], replace(small, oracle=Asked(small.oracle.label(torch.arange(150)), 10))
    with pytest.raises(ValueError, match=rf"lost chose {index}, which is no pool index: the pool has 150 images, 0 to 149"):
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
def test_files_that_no_run_has_written_are_not_replaced(small, teacher, quick, tmp_path, name):
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=rf"{name} is no file of a run, .* take another `out`"):
        run(small, teacher, quick, rounds=1, out=tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, '{"mine": 1}')]


def test_a_refused_run_leaves_its_folder_free(small, teacher, quick, tmp_path):
    with pytest.raises(ValueError, match="fewer than shots = 14"):
        run(small, teacher, quick, shots=14, rounds=0, out=tmp_path)
    assert len(run(small, teacher, quick, rounds=0, out=tmp_path).records) == 1


def test_a_read_only_folder_is_named(small, teacher, quick, tmp_path, monkeypatch):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere: say what others are told
    try:
        with pytest.raises(PermissionError, match="read-only"):
            run(small, teacher, quick, out=tmp_path)
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_a_full_disk_loses_no_finished_round(small, teacher, quick, tmp_path, full_disk):
    whole = outcomes(run(small, teacher, quick))
    with full_disk(writes=8), pytest.raises(OSError, match="No space left on device.*free space or choose another folder"):
        run(small, teacher, quick, out=tmp_path)
    assert not list(tmp_path.glob("*.partial"))  # no half-written file stays
    assert len(akd.load_run(tmp_path, device="cpu").records) == 2
    assert outcomes(run(small, teacher, quick, out=tmp_path)) == whole
