"""`InheritanceExplorer` and `plots.inheritance`: numbers, refused arguments, what the page is sent.

Page: test_browser_inheritance.py.
"""

import numpy as np
import pytest
import torch
from ipywidgets.widgets.widget import _instances

import activekd_lite as akd
from activekd_lite.datasets import only_classes
from activekd_lite.kcenter import k_center_greedy
from activekd_lite.plots.inheritance import UNIT, corners_of, field_picture
from activekd_lite.plots.maps import CORNERS

CLASSES = ("1", "3", "7")
Explorer = akd.widgets.InheritanceExplorer


def labels_of(data):
    return data.oracle.label(torch.arange(len(data.pool)))


# Parts.


def test_only_classes_keeps_images_labels_and_order(small):
    part, kept = only_classes(small, ["7", 1])
    assert part.classnames == ("7", "1")
    assert torch.equal(part.pool.images, small.pool.images[kept])
    given = labels_of(small)[kept].tolist()
    assert [int(part.classnames[k]) for k in labels_of(part)] == given
    assert set(given) == {1, 7}
    assert len(part.test) == int(torch.isin(small.test.labels, torch.tensor([1, 7])).sum())
    assert torch.equal(only_classes(small, range(10))[0].pool.images, small.pool.images)


def test_only_classes_leaves_out_unknown_labels(small):
    labels = labels_of(small)
    labels[::2] = -1
    data = akd.make_dataset(
        "half", small.pool.images, labels, small.test.images, small.test.labels, small.classnames
    )
    _, kept = only_classes(data, CLASSES)
    assert len(kept)
    assert (kept % 2 == 1).all()


@pytest.mark.parametrize("classes", [["1", "1"], ["1", "cat"], []])
def test_only_classes_refuses_unknown_and_repeated_names(small, classes):
    with pytest.raises(ValueError, match="expected different names of 0, 1"):
        only_classes(small, classes)


def test_copied_errors_by_hand():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, -1])
    teacher = torch.tensor([0, 1, 1, 1, 1, 1, 1])
    student = torch.tensor([0, 1, 0, 2, 1, 0, 0])
    counts = akd.metrics.copied_errors(teacher, student, labels)
    wanted = {"images": 6, "errors": 3, "copied": 1, "corrected": 1, "changed": 1, "new": 1}
    assert counts == wanted


def test_the_balls_of_an_ideal_student_are_those_of_the_proposition():
    chance = torch.Generator().manual_seed(0)
    teacher = torch.rand(400, 3, generator=chance).double().softmax(dim=1)
    labels = torch.randint(0, 3, (400,), generator=chance)
    onehot = torch.nn.functional.one_hot(labels, 3).double()
    student = 0.3 * teacher + 0.7 * onehot
    found = akd.metrics.split_balls(teacher, student, labels)
    assert len(found) == 9
    assert sum(ball.images for ball in found) == 400
    for ball in found:
        center, radius = ball.proposed(0.3)
        assert torch.allclose(ball.student_center, center)
        assert ball.student_radius == pytest.approx(radius)
        assert ball.ratio == pytest.approx(0.3)
    labels[ball.images :] = -1
    assert sum(b.images for b in akd.metrics.split_balls(teacher, student, labels)) <= ball.images


@pytest.mark.parametrize("classes", [3, 4, 10])
def test_distances_on_paper_are_true_for_three_classes_and_never_larger(classes):
    probs = torch.rand(60, classes, generator=torch.Generator().manual_seed(0)).double()
    probs = (5 * probs).softmax(dim=1)
    xy = torch.from_numpy(probs.numpy() @ corners_of(probs)) / UNIT
    true, paper = torch.cdist(probs, probs), torch.cdist(xy, xy)
    assert (paper <= true + 1e-6).all()
    assert torch.allclose(paper, true, atol=1e-6) == (classes == 3)


def test_the_field_is_pale_at_a_centre_dark_far_from_it_and_clear_outside():
    picture = field_picture(CORNERS[:1].astype(float), far=1.0, width=100).astype(int)
    assert picture[0, 0, 3] == 0  # above the left edge
    bottom = picture[-2]
    light = bottom[:, :3].sum(axis=1)
    assert light[2] > light[40] > light[69]
    assert (bottom[3:-3, 3] == 255).all()


# The figure.


def test_the_figure_says_what_it_shows(inheritance):
    figure, task = inheritance.figure(), inheritance.task
    counts = akd.metrics.copied_errors(
        task.teacher_probs.argmax(dim=1), inheritance.probs.argmax(dim=1), task.labels
    )
    assert f"copies {counts['copied']} of the {counts['errors']} mistakes" in figure.alt
    assert figure.table["images"].sum() == counts["images"]
    wrong = figure.table["true class"] != figure.table["teacher"]
    assert figure.table["student agrees"][wrong].sum() == counts["copied"]
    assert figure.table["student is right"][wrong].sum() == counts["corrected"]
    inheritance.balls = True
    with_balls = inheritance.figure()
    assert "the proposition says 0.50" in with_balls.alt
    assert "ratio" in with_balls.table


def test_the_figure_has_a_panel_for_the_strategy_beside(inheritance):
    assert "xaxis4" not in inheritance.figure().to_plotly_json()["layout"]
    inheritance.beside = "random"
    figure = inheritance.figure()
    assert "xaxis4" in figure.to_plotly_json()["layout"]
    assert "picks of random" in figure.alt


def test_a_larger_task_is_called_a_projection(small, teacher):
    probs = teacher.probs()
    figure = akd.plots.inheritance(
        probs, probs.roll(1, 0), labels_of(small), [0, 1], list(range(2, 14)), small.classnames
    )
    assert "a projection" in figure.alt
    assert "a projection" in figure.layout.title.text


def test_the_figure_refuses_two_classes():
    with pytest.raises(ValueError, match="at least three classes"):
        akd.plots.inheritance(torch.ones(4, 2) / 2, torch.ones(4, 2) / 2, [0] * 4, [0], [1], "ab")


# The explorer.


def test_pcoreset_picks_by_the_mixed_heads(inheritance):
    predictions, state = inheritance.student
    for weight in (0.0, 0.37, 1.0):
        inheritance.kd_weight, inheritance.count = weight, 5
        mixed = (1 - weight) * predictions.ce_probs.double()
        mixed = mixed + weight * predictions.kd_probs.double()
        assert torch.equal(inheritance.probs, mixed)
        rest = state.unlabeled_indices
        rows, _ = k_center_greedy(mixed[rest], mixed[state.labeled_indices], 5)
        assert inheritance.picks == {"pcoreset": inheritance.task.indices[rest[rows]].tolist()}


def test_picks_are_pool_indices_of_the_chosen_classes(inheritance, small):
    inheritance.beside = "uncertainty"
    picks = inheritance.picks["pcoreset"] + inheritance.picks["uncertainty"]
    names = {small.classnames[c] for c in labels_of(small)[picks]}
    assert names <= set(CLASSES)


@pytest.mark.parametrize("name", [name for name in akd.STRATEGIES if name != "pcoreset"])
def test_any_strategy_can_stand_beside(inheritance, name):
    inheritance.beside = name
    assert len(set(inheritance.picks[name])) == 3


def test_the_student_sees_the_teacher_of_three_classes_alone(inheritance, teacher):
    logits = teacher.logits(inheritance.task.indices)[:, [1, 3, 7]]
    assert torch.allclose(inheritance.task.teacher_probs, logits.softmax(dim=1), atol=1e-6)
    assert inheritance.task.teacher.views.count == 1


def test_the_page_gets_the_heads_and_answers_the_controls(inheritance, small):
    page = inheritance.widget
    rows = np.frombuffer(page.kd, "<f4").reshape(len(small.pool), 3)
    shown = np.flatnonzero(~np.isnan(rows[:, 0]))
    assert shown.tolist() == inheritance.task.indices.tolist()
    assert np.array_equal(rows[shown], inheritance.student[0].kd_probs.numpy())
    assert page.view["trained"]
    assert (
        page.view["labeled"]
        == inheritance.task.indices[inheritance.student[1].labeled_indices].tolist()
    )
    fields = dict(kd_weight=0.8, picks=4, beside="random", balls=True)
    inheritance._on_message(page, {"kind": "set", **fields}, [])
    assert page.view["beside_picks"] == inheritance.picks["random"]
    assert (inheritance.kd_weight, inheritance.count, inheritance.balls) == (0.8, 4, True)
    assert "picks of random" in inheritance.figure().alt
    inheritance._on_message(page, {"kind": "set", **fields, "beside": "cat"}, [])
    assert "'cat'" in page.view["error"]
    inheritance._on_message(page, {"kind": "set", **fields}, [])
    assert not page.view["error"]


def test_other_classes_train_another_student(small, teacher, quick):
    explorer = Explorer(small, teacher, classes=CLASSES, config=quick)
    page = explorer.widget
    assert not page.view["trained"]
    assert "1, 3, 7" in page.view["progress"]
    explorer._on_message(page, {"kind": "ready"}, [])
    assert page.view["trained"]
    assert page.view["progress"] is None
    explorer._on_message(page, {"kind": "classes", "names": ["2", "8", "9"]}, [])
    assert page.view["classes"] == ["2", "8", "9"]
    assert page.view["trained"]
    assert len(page.view["labeled"]) == 3
    given = {small.classnames[c] for c in labels_of(small)[page.view["labeled"]]}
    assert given == {"2", "8", "9"}
    explorer._on_message(page, {"kind": "classes", "names": ["2", "8", "cat"]}, [])
    assert "'cat'" in page.view["error"]
    assert page.view["classes"] == ["2", "8", "9"]
    explorer.close()


def test_a_trained_student_is_shown_with_all_classes(small, teacher, quick):
    probs = teacher.probs()
    start = small.oracle.initial_indices(1, akd.seeding.generator(0, "initial set"))
    state = akd.LabelState.empty(len(probs)).with_labels(start, small.oracle.label(start), 0)
    predictions = akd.Predictions(
        probs, probs, ce_probs=probs.roll(1, 0).contiguous(), kd_probs=probs
    )
    explorer = Explorer(small, teacher, predictions, state, kd_weight=1, beside="badge")
    assert torch.equal(explorer.probs, probs.double())
    assert explorer.task.data.classnames == small.classnames
    assert not explorer.widget.view["trainable"]
    explorer.close()
    with pytest.raises(ValueError, match="leave out predictions, or classes"):
        Explorer(small, teacher, predictions, state, classes=CLASSES)
    with pytest.raises(ValueError, match="lack ce_probs or kd_probs"):
        Explorer(small, teacher, akd.Predictions(probs, probs), state)
    with pytest.raises(ValueError, match="state of all 150"):
        Explorer(small, teacher, predictions)


def test_arguments_that_do_not_fit_are_refused(small, teacher):
    with pytest.raises(ValueError, match="at least three"):
        Explorer(small, teacher, classes=["1", "3"])
    with pytest.raises(ValueError, match="unknown strategy 'cat'"):
        Explorer(small, teacher, beside="cat")
    with pytest.raises(ValueError, match="the teacher knows 150 images, the pool has 52"):
        Explorer(only_classes(small, CLASSES)[0], teacher)


def test_without_classes_the_most_confused_are_shown(small, teacher):
    explorer = Explorer(small, teacher)
    assert len(explorer.task.data.classnames) == 3


def test_opened_and_closed_nothing_is_left(inheritance):
    alive = len(_instances)
    for _ in range(2):
        assert inheritance.widget is inheritance.widget
        assert len(_instances) > alive
        inheritance.close()
        assert len(_instances) == alive
