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


def type_names(explorer, *lines):
    assert explorer.widget
    explorer._names.value = "\n".join(lines)


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
    assert explorer.widget
    live, before = explorer._live, list(explorer._live.xys)
    explorer._tasks.value = "by pattern"
    assert explorer._names.value == "solid\nstriped\ndotted"
    assert "accuracy" in explorer._message.value
    assert explorer._heat.value.count("<td") == 9
    assert live.titles == ["all 150 images"]
    assert live.xys != before
    assert np.frombuffer(live.xys[0], "<f4").reshape(150, 2).shape == (150, 2)
    assert {name for name, _ in live.legend} == {f"true: {c}" for c in shapes.PATTERNS}
    before, heat = list(live.xys), explorer._heat.value
    explorer._templates.value = "a {} star\na {} ring"
    assert explorer.templates == ["a {} star", "a {} ring"]
    assert live.xys != before
    assert explorer._heat.value != heat
    assert explorer.probs.shape == (150, 3)


def test_words_it_never_saw_are_named_and_nothing_is_warned_of(explorer, vlm):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        type_names(explorer, "circle", "elephant <b>")
    assert explorer.unknown_words == ["b", "elephant"]
    assert "never saw: <b>b, elephant</b>" in explorer._message.value
    assert "elephant &lt;b&gt;" in explorer._heat.value
    assert "<b>" not in explorer._heat.value
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
    assert explorer.widget
    explorer._names.value, explorer._templates.value = "star\nheart\ncross", "a {}"
    before = [getattr(explorer, name) for name in STATE]
    with pytest.raises(ValueError, match=said):
        explorer.ask(
            [n.strip() for n in names.split("\n") if n.strip()], [t for t in [templates] if t]
        )
    assert all(
        a is b for a, b in zip(before, [getattr(explorer, name) for name in STATE], strict=True)
    )
    explorer._templates.value = templates
    explorer._names.value = names
    assert said in explorer._message.value
    if templates == "a {}":
        assert all(
            a is b for a, b in zip(before, [getattr(explorer, name) for name in STATE], strict=True)
        )
    explorer._names.value, explorer._templates.value = "star\nheart", "the {}"
    assert "Not applied" not in explorer._message.value
    assert explorer.classnames == ["star", "heart"]


def test_reset_brings_the_tasks_own_prompts(explorer):
    type_names(explorer, "circle", "square")
    reset = explorer.widget.children[0].children[1]
    reset.click()
    assert explorer._names.value == "\n".join(shapes.CLASSNAMES)
    assert tuple(explorer.classnames) == shapes.CLASSNAMES


def test_corners_stay_by_name_or_place_and_change_places(explorer):
    explorer.choose("by figure", ["circle", "rest", "ring"])
    explorer.ask(["disc", *shapes.FIGURES[1:]], ["a {}"])
    assert explorer.corners == ["disc", "rest", "ring"]
    assert explorer.widget
    explorer._menus[0].value = "ring"
    assert explorer.corners == [m.value for m in explorer._menus] == ["ring", "rest", "disc"]
    explorer.ask(["star", "heart"], ["a {}"])
    assert sorted(explorer.corners) == ["heart", "rest", "star"]
    with pytest.raises(ValueError, match="corners"):
        explorer.ask(["star", "heart"], ["a {}"], ["star", "heart", "moon"])
    assert sorted(explorer.corners) == ["heart", "rest", "star"]


def test_the_static_twin_says_what_the_live_one_shows(explorer):
    explorer.choose("by pattern")
    figure = explorer.figure()
    assert "accuracy" in figure.alt
    assert set(figure.table.columns) == {"class", "predicted", "share_pct"}
    assert (figure.table["class"] != figure.table["predicted"]).all()
    assert explorer.widget
    shown = np.frombuffer(explorer._live.xys[0], "<f4")[::2]
    assert sorted(x for trace in figure.data[:4] for x in trace.x) == sorted(shown[shown == shown])
    assert explorer._live.alt == figure.alt


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
    type_names(explorer, "circle", "square")
    assert len(ipywidgets.widgets.widget._instances) > len(before)
    explorer.close()
    assert set(ipywidgets.widgets.widget._instances) == before
