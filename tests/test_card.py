"""The card of a task."""

import json
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch

import activekd_lite as akd
from activekd_lite import cli
from activekd_lite.analysis import card as cards
from activekd_lite.analysis.advice import similar_tasks, unlike_the_study


def one_hot(answers, num_classes):
    return torch.nn.functional.one_hot(torch.tensor(answers), num_classes).float()


def test_errors_of_one_pair_are_more_concentrated_than_chance():
    labels = torch.arange(4).repeat_interleave(25)
    answers = labels.clone()
    answers[labels == 0] = 1  # every error of a class is the same wrong answer
    answers[labels == 2] = 3
    found = cards.error_concentration(one_hot(answers.tolist(), 4), labels)
    assert found["error_choices"] == pytest.approx(1)
    assert found["error_choices_by_chance"] == pytest.approx(2, abs=0.1)  # 1 or 3, as often
    assert found["error_concentration"] == pytest.approx(2, abs=0.1)


def test_errors_at_random_are_as_concentrated_as_chance():
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(5).repeat_interleave(200)
    answers = (labels + torch.randint(1, 5, (1000,), generator=g)) % 5
    found = cards.error_concentration(one_hot(answers.tolist(), 5), labels)
    assert found["error_concentration"] == pytest.approx(1, abs=0.02)


def test_a_teacher_without_errors_has_no_concentration():
    found = cards.error_concentration(one_hot([0, 1, 2], 3), torch.tensor([0, 1, 2]))
    assert set(found.values()) == {None}


@pytest.fixture(scope="module")
def answers(small):
    """Logits for the pool and the test images of `small`, right for 8 of 10 classes."""
    truth = small.oracle.label(torch.arange(len(small.pool))), small.test.labels
    return [4.0 * one_hot((labels % 8).tolist(), 10) for labels in truth]


def test_a_card_is_measured_on_the_first_student_and_its_teacher(small, answers, quick):
    teacher = akd.teacher.from_logits(answers[0], test=answers[1])
    card = akd.task_card(small, teacher, train=quick, device="cpu")
    run = akd.run_active_learning(
        small, teacher, rounds=0, train=quick, device="cpu", progress=False
    )
    first, right = run.records[0], (small.test.labels < 8).double().mean().item() * 100
    assert card.teacher_accuracy_pct == pytest.approx(right)
    assert card.student_accuracy_pct == first.accuracy_pct
    assert card.gap_points == pytest.approx(right - first.accuracy_pct)
    assert card.copy_gap_points == pytest.approx(right - first.kd_accuracy_pct)
    counts = torch.bincount(small.oracle.label(torch.arange(150)))
    assert card.imbalance_ratio == pytest.approx(int(counts.max()) / int(counts.min()))
    assert (card.dataset, card.classes, card.pool_size) == ("small", 10, 150)
    assert card.cluster_purity_pct < 100
    assert json.loads(json.dumps(card.to_dict())) == card.to_dict()
    assert [*card.to_dict()] == [field.name for field in fields(card)]


def test_a_card_needs_a_teacher_of_the_test_images(small, answers, quick):
    with pytest.raises(ValueError, match="no predictions of the test images"):
        akd.task_card(small, akd.teacher.from_logits(answers[0]), train=quick)


@pytest.mark.slow
def test_a_card_is_printed_for_any_spelling_of_a_task(shared_cache, capsys):
    options = ["--cache", str(shared_cache), "--device", "cpu", "--student", "linear"]
    name = "digits?pool=90&imbalance=1.0&classes=3&noise=0.10"
    assert cli.main(["card", "--dataset", name, *options, "--steps", "5"]) == 0
    out = capsys.readouterr().out
    assert "dataset                  digits?classes=3&noise=0.1&pool=90\n" in out
    assert "student                  linear\n" in out
    assert cli.main(["card", "--dataset", "digits?by=figure"]) == 2
    assert "digits has no setting 'by'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def studied(small, answers, quick):
    teacher = akd.teacher.from_logits(answers[0], test=answers[1])
    card = akd.task_card(small, teacher, train=quick, student="tiny-cnn", device="cpu")
    cells = {"few": (5, 10.0), "some": (10, 20.0), "many": (20, 30.0)}
    rows = [
        card.to_dict() | {"dataset": name, "classes": classes, "gap_points": gap}
        for name, (classes, gap) in cells.items()
    ]
    return card, pd.DataFrame(rows)


def test_the_most_similar_task_comes_first(studied):
    card, table = studied
    near = replace(card, classes=18, gap_points=29.0)
    found = similar_tasks(near, table)
    assert found["dataset"].tolist() == ["many", "some", "few"]
    assert similar_tasks(replace(card, classes=20, gap_points=30.0), table)["distance"].min() == 0
    # In one of two numbers that differ, one standard deviation (of the logarithms) away
    step = np.exp(np.std(np.log([5, 10, 20])))
    off = similar_tasks(replace(card, classes=10 * step, gap_points=20.0), table)
    assert off.set_index("dataset")["distance"]["some"] == pytest.approx(np.sqrt(1 / 2))


def test_unknown_numbers_are_left_out_of_the_comparison(studied):
    card, table = studied
    table = table.assign(imbalance_ratio=[1.0, 2.0, None])
    unknown = replace(card, classes=10, gap_points=20.0, imbalance_ratio=None)
    found = similar_tasks(unknown, table)
    assert found["dataset"].iloc[0] == "some"
    assert found["distance"].iloc[0] == 0
    with pytest.raises(ValueError, match="1 tasks were studied"):
        similar_tasks(card, table[:1])


def test_a_task_beyond_the_study_is_named_by_its_numbers(studied):
    card, table = studied
    inside = replace(card, classes=10, gap_points=20.0)
    assert unlike_the_study(inside, table) == {}
    assert unlike_the_study(replace(inside, classes=40), table) == {"classes": (40, 5, 20)}
