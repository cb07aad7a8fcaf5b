"""PromptExplorer: the teacher asked in other words."""

import warnings

import ipywidgets
import numpy as np
import pytest
import torch

import activekd_lite as akd
from activekd_lite.datasets import shapes
from activekd_lite.datasets.embedded import colours_of_shapes
from activekd_lite.widgets.prompts import PromptExplorer, tasks_of

STATE = ("classnames", "templates", "probs", "corners")


@pytest.fixture(scope="module")
def figures(tmp_path_factory, vlm):
    """150 images of `shapes`' pool, as a data set, and their cache."""
    images, labels = shapes.make_shapes(150, seed=3)
    data = akd.make_dataset("shapes", images, labels, images[:9], labels[:9], shapes.CLASSNAMES)
    return data, akd.TeacherCache.build(
        vlm, data.pool, root=tmp_path_factory.mktemp("cache"), progress=False
    )


@pytest.fixture
def explorer(figures, vlm):
    explorer = PromptExplorer(figures[0], vlm, figures[1])
    yield explorer
    explorer.close()


def typed(explorer, names=None, templates=None):
    """Type names, templates or both into the fields of the page."""
    page = explorer.widget
    names = "\n".join(explorer.classnames) if names is None else names
    templates = "\n".join(explorer.templates) if templates is None else templates
    message = {"kind": "typed", "classnames": names, "templates": templates}
    explorer._on_message(page, message, [])
    return page.view


def drawn(explorer):
    return np.frombuffer(explorer.widget.xy, "<f4").reshape(-1, 2)


def test_answers_are_the_zero_shot_teachers(explorer, figures, vlm):
    data, cache = figures
    for names, templates in (
        (data.classnames, data.templates),
        (("circle", "square"), ("a {}", "a photo of a {}.")),
    ):
        explorer.ask(names, templates)
        expected = akd.ZeroShotTeacher(cache, vlm.text_weights(names, templates)).probs()
        torch.testing.assert_close(explorer.probs, expected, rtol=1e-4, atol=1e-5)
    assert explorer.accuracy_pct is None  # two names, 36 classes
    explorer.choose("shapes")
    assert explorer.accuracy_pct == akd.metrics.accuracy_pct(
        explorer.probs, data.oracle.label(torch.arange(150))
    )


def test_neither_an_image_nor_a_known_sentence_is_encoded_again(explorer, vlm, monkeypatch):
    monkeypatch.setattr(
        vlm.model, "encode_image", lambda *a, **k: pytest.fail("an image was encoded")
    )
    asked = []
    true = type(vlm).encode_text
    monkeypatch.setattr(
        type(vlm), "encode_text", lambda self, s: asked.append(list(s)) or true(self, s)
    )
    explorer.ask(["circle", "square"], ["a {}"])
    explorer.ask(["circle", "square", "ring"], ["a {}"])
    explorer.ask(["square", "circle"], ["a {}"])
    assert asked == [["a circle", "a square"], ["a ring"]]


def test_typing_moves_all_that_is_shown(explorer):
    page = explorer.widget
    before = drawn(explorer)
    explorer._on_message(page, {"kind": "task", "name": "by pattern"}, [])
    assert page.view["written"][0] == "solid\nstriped\ndotted"
    assert page.view["scores"].startswith("accuracy")
    assert len(page.shares) == 9
    assert page.view["titles"][0] == "all 150 images"
    assert not np.array_equal(drawn(explorer), before)
    assert {e["name"] for e in page.view["legend"]} == {f"true: {c}" for c in shapes.PATTERNS}
    before, shares, written = drawn(explorer), page.shares, page.view["written"]
    typed(explorer, templates="a {} star\na {} ring")
    assert explorer.templates == ["a {} star", "a {} ring"]
    assert not np.array_equal(drawn(explorer), before)
    assert page.shares != shares
    assert page.view["written"] == written, "what is typed is not written over"
    assert explorer.probs.shape == (150, 3)


def test_words_it_never_saw_are_named_and_nothing_is_warned_of(explorer, vlm):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        view = typed(explorer, "circle\nelephant <b>")
    assert explorer.unknown_words == ["b", "elephant"]
    assert "never saw: b, elephant." in view["warning"]
    assert "elephant <b>" in view["columns"]
    assert vlm.unknown_words(["a red circle", "a Zebra."]) == ["zebra"]


@pytest.mark.parametrize(
    ("names", "templates", "said"),
    [
        ("circle\nsquare", "a photo", "do not hold {} once"),
        ("circle\nsquare", "a {} {}", "do not hold {} once"),
        ("circle\nsquare", "a {} {", "do not hold {} once"),
        ("", "a {}", "0 class names"),
        ("circle\n\n ", "a {}", "1 class names"),
        ("circle\nring\ncircle ", "a {}", "occur more than once"),
        ("circle\nring", "", "0 templates"),
    ],
)
def test_bad_input_is_said_and_changes_nothing(explorer, names, templates, said):
    typed(explorer, "star\nheart\ncross", "a {}")
    before = [getattr(explorer, name) for name in STATE]
    with pytest.raises(ValueError, match=said):
        explorer.ask(
            [n.strip() for n in names.split("\n") if n.strip()], [t for t in [templates] if t]
        )
    view = typed(explorer, names, templates)
    assert said in view["refused"]
    assert all(
        a is b for a, b in zip(before, [getattr(explorer, name) for name in STATE], strict=True)
    )
    view = typed(explorer, "star\nheart", "the {}")
    assert not view["refused"]
    assert explorer.classnames == ["star", "heart"]


def test_reset_brings_the_tasks_own_prompts(explorer):
    typed(explorer, "circle\nsquare")
    explorer._on_message(explorer.widget, {"kind": "own"}, [])
    assert explorer.widget.view["written"][0] == "\n".join(shapes.CLASSNAMES)
    assert tuple(explorer.classnames) == shapes.CLASSNAMES


def test_corners_stay_by_name_or_place_and_change_places(explorer):
    explorer.choose("by figure", ["circle", "rest", "ring"])
    explorer.ask(["disc", *shapes.FIGURES[1:]], ["a {}"])
    assert explorer.corners == ["disc", "rest", "ring"]
    page = explorer.widget
    explorer._on_message(page, {"kind": "corner", "place": 0, "name": "ring"}, [])
    assert explorer.corners == page.view["corners"] == ["ring", "rest", "disc"]
    explorer._on_message(page, {"kind": "corner", "place": 0, "name": "moon"}, [])
    assert "corners" in page.view["error"]
    assert explorer.corners == page.view["corners"] == ["ring", "rest", "disc"]
    explorer._on_message(page, {"kind": "pair", "true": "star", "predicted": "rest"}, [])
    assert explorer.corners == ["star", "rest", "ring"]
    explorer.ask(["star", "heart"], ["a {}"])
    assert sorted(explorer.corners) == ["heart", "rest", "star"]
    with pytest.raises(ValueError, match="corners"):
        explorer.ask(["star", "heart"], ["a {}"], ["star", "heart", "moon"])
    assert sorted(explorer.corners) == ["heart", "rest", "star"]


def test_prompts_are_noted_when_typing_rests_and_can_be_brought_back(explorer):
    explorer.choose("by figure")
    page, keep = explorer.widget, {"kind": "keep"}
    own = list(explorer.classnames)
    for name in ("d", "di", "dis", "disc"):
        typed(explorer, "\n".join([name, *own[1:]]))
    assert len(page.view["history"]) == 1, "not one entry per key stroke"
    for _ in range(2):
        explorer._on_message(page, keep, [])
    assert [e["words"] for e in page.view["history"]] == ["the task's own prompts", "circle → disc"]
    accuracies = [e["accuracy_pct"] for e in page.view["history"]]
    assert accuracies[1] == explorer.accuracy_pct
    assert accuracies[0] == explorer._own_accuracy_pct
    assert page.view["history"][1]["confidence"] == pytest.approx(
        float(explorer.probs.amax(dim=1).mean())
    )
    typed(explorer, "disc\ndisc")  # refused: nothing new to note
    typed(explorer, "disc")
    explorer._on_message(page, keep, [])
    assert len(page.view["history"]) == 2
    place = page.view["history"][0]["place"]
    explorer._on_message(page, {"kind": "again", "place": place}, [])
    assert explorer.classnames == own
    assert page.view["written"][0] == "\n".join(own)
    assert [e["now"] for e in page.view["history"]] == [True, False]
    explorer.choose("by pattern")
    assert len(page.view["history"]) == 1, "the history is the task's"
    assert explorer.history["task"].tolist() == ["shapes", "by figure", "by figure", "by pattern"]


def test_accuracy_per_class_before_and_after(explorer):
    explorer.choose("by figure")
    before = explorer.per_class()
    assert (before["own_pct"] == before["now_pct"]).all()
    explorer.ask(["disc", *shapes.FIGURES[1:]], ["a {}"])
    table = explorer.per_class().set_index("class")
    assert table["own_pct"].tolist() == before["own_pct"].tolist()
    of_class = explorer.labels == 1
    right = explorer.probs[of_class].argmax(dim=1) == 1
    assert table.loc["square", "now_pct"] == pytest.approx(100 * right.double().mean().item())
    assert [c[0] for c in explorer.widget.view["classes"]] == explorer.classnames
    explorer.ask(["star", "heart"], ["a {}"])
    assert explorer.per_class() is None
    assert explorer.widget.view["classes"] == []


def test_the_static_twin_says_what_the_live_one_shows(explorer):
    explorer.choose("by pattern")
    figure = explorer.figure()
    assert "accuracy" in figure.alt
    assert set(figure.table.columns) == {"class", "predicted", "share_pct"}
    assert (figure.table["class"] != figure.table["predicted"]).all()
    shown = drawn(explorer)[:, 0]
    assert sorted(x for trace in figure.data[:4] for x in trace.x) == sorted(shown[shown == shown])
    assert explorer.widget.view["scores"] in figure.alt
    explorer.ask(["plain", "striped", "dotted"], ["a {} shape"])
    after = explorer.figure()
    assert explorer.per_class()["class"].tolist() == list(after.data[-1].y)


def test_confusions_are_shares_of_the_true_class(explorer):
    explorer.choose("by pattern")
    answers = explorer.probs.argmax(dim=1)
    table = explorer.confusions()
    dotted = explorer.labels == 2
    expected = 100 * ((answers == 0) & dotted).sum() / dotted.sum()
    assert table.loc["dotted", "solid"] == pytest.approx(float(expected))
    explorer.ask(["circle", "dotted"], ["a {}"])
    assert explorer.confusions().shape == (3, 2)


def test_tasks_of_ones_own_and_images_without_labels(figures, vlm):
    data, cache = figures
    some = torch.arange(150) % 2
    some[:100] = -1
    tasks = {
        "mine": (("star", "heart"), ("a {}",), some),
        "open": (("star", "heart"), ("a {}",), None),
    }
    explorer = PromptExplorer(data, vlm, cache, task="mine", tasks=tasks)
    assert explorer.accuracy_pct == akd.metrics.accuracy_pct(explorer.probs[100:], some[100:])
    explorer.choose("open")
    assert explorer.accuracy_pct is None
    assert "probability" in explorer.figure().layout.annotations[1].text
    with pytest.raises(ValueError, match="unknown task 'colour'; known tasks: shapes"):
        explorer.choose("colour")
    with pytest.raises(ValueError, match="task 'bad' has 3 labels from 0 to 2"):
        PromptExplorer(
            data, vlm, cache, task="bad", tasks={"bad": (("a", "b"), ("{}",), torch.arange(3))}
        )
    with pytest.raises(
        ValueError, match="150 images encoded by tiny-clip, but the pool of digits has 1100"
    ):
        PromptExplorer(akd.load_dataset("digits"), vlm, cache)


def test_colours_of_shapes_are_those_that_were_drawn(monkeypatch):
    drawn, labels, colours = shapes.make_coloured_shapes(80, seed=0)
    again, same_labels = shapes.make_shapes(80, seed=0)
    assert torch.equal(drawn, again)
    assert torch.equal(labels, same_labels)
    solid = labels % 3 == 0
    palette = torch.tensor(list(shapes.COLOURS.values())).float()
    distance = (drawn[solid][..., None].float() - palette.T[None, :, None, None]).norm(
        dim=1
    )  # (n, H, W, 10)
    near = (distance.argmin(dim=-1) == colours[solid][:, None, None]).float().mean(dim=(1, 2))
    assert near.median() > 0.15  # the figure's part of the picture
    monkeypatch.setattr("activekd_lite.datasets.embedded.SHAPES_PARTS", {"pool": (80, 0)})
    assert torch.equal(colours_of_shapes(drawn[[7, 3]]), colours[[7, 3]])
    assert colours_of_shapes(255 - drawn[:1]).tolist() == [-1]


def test_a_data_set_of_other_classes_has_its_own_task_alone(digits):
    assert list(tasks_of(digits)) == ["digits"]


def test_closing_leaves_no_widget(explorer):
    before = set(ipywidgets.widgets.widget._instances)
    typed(explorer, "circle\nsquare")
    assert len(ipywidgets.widgets.widget._instances) > len(before)
    explorer.close()
    assert set(ipywidgets.widgets.widget._instances) == before
