"""Python side of the explorers: results, refused arguments, clean-up. Page: test_browser_*.py."""

import html

import nbconvert
import nbformat
import numpy as np
import pytest
import torch
from ipywidgets.widgets.widget import _instances
from nbformat.v4 import new_code_cell, new_notebook, new_output

import activekd_lite as akd
from activekd_lite.course import pages
from activekd_lite.plots.base import PLOTLY, SHOWN_ROWS
from activekd_lite.widgets.base import is_interactive
from activekd_lite.widgets.page import groups, indices_of, mask_of, points

WIDGETS = akd.widgets
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def probs(small):
    chance = torch.Generator().manual_seed(0)
    return torch.rand(len(small.pool), 10, generator=chance).softmax(dim=1)


@pytest.fixture
def layout(small):
    return np.arange(2.0 * len(small.pool)).reshape(-1, 2)


@pytest.fixture
def predictions(probs):
    return akd.Predictions(probs, probs, probs)


@pytest.fixture
def state(small):
    labeled = small.oracle.initial_indices(1, akd.seeding.generator(0, "initial set"))
    return akd.LabelState.empty(len(small.pool)).with_labels(
        labeled, small.oracle.label(labeled), round=0
    )


@pytest.fixture
def explorers(small, probs, layout, predictions, state):
    simplex, stepper = WIDGETS.SimplexExplorer, WIDGETS.PCoreSetStepper
    layouts = {"line": layout}
    return {
        "simplex": lambda **more: simplex(small, probs, layouts=layouts, state=state, **more),
        "stepper": lambda **more: stepper(small, predictions, state, budget=6, **more),
    }


def send(explorer, kind, **fields):
    """What the page would send."""
    explorer._on_message(explorer.widget, {"kind": kind} | fields, [])


@pytest.mark.parametrize("name", ["simplex", "stepper"])
def test_opened_and_closed_nothing_is_left(explorers, name):
    alive, selection = len(_instances), WIDGETS.Selection()
    explorer = explorers[name](**({"selection": selection} if name == "simplex" else {}))
    assert len(_instances) == alive, "nothing is built before it is shown"
    for _ in range(2):  # it can be opened again
        assert explorer.widget is explorer.widget
        assert len(_instances) > alive
        explorer.close()
        assert len(_instances) == alive
    assert not selection._trait_notifiers.get("indices", {}).get("change")


@pytest.mark.parametrize("name", ["simplex", "stepper"])
def test_without_a_front_end_the_figure_is_shown(explorers, name, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda value, **_: shown.append(value))
    explorer = explorers[name]()
    explorer._ipython_display_()
    assert isinstance(shown[0], akd.plots.Figure)
    assert len(shown[0].table) > 0
    assert len(shown[0].alt) > 40
    monkeypatch.setattr("activekd_lite.widgets.base.is_interactive", lambda: True)
    explorer._ipython_display_()
    view, line, twin = shown[1:]
    assert view[VIEW]["model_id"] == explorer.widget.model_id
    assert not view["text/plain"] + view["text/html"], (
        "where widgets cannot run, the twin alone is seen"
    )
    assert f"activekd-live-{explorer.widget.model_id}" in explorer.widget._dom_classes
    assert explorer.widget.model_id in line["text/html"]
    assert twin[PLOTLY]["layout"]["meta"]["alt"] == twin["text/plain"] == shown[0].alt
    assert "<table" in twin["text/html"] or len(shown[0].table) > SHOWN_ROWS
    explorer.close()


@pytest.mark.parametrize("name", ["simplex", "stepper"])
def test_nbconvert_shows_the_twin_of_a_live_explorer(explorers, name, monkeypatch, tmp_path):
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, **_: bundles.append(bundle))
    monkeypatch.setattr("activekd_lite.widgets.base.is_interactive", lambda: True)
    explorer = explorers[name]()
    explorer._ipython_display_()
    cell = new_code_cell(
        "explorer", outputs=[new_output("display_data", bundle) for bundle in bundles]
    )
    notebook = nbformat.from_dict(new_notebook(cells=[cell]))
    pages.page(notebook, tmp_path / "page.html")
    plain, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    words = html.escape(explorer.figure().alt)
    for page in (plain, (tmp_path / "page.html").read_text()):
        assert "VBox(" not in page
        assert "Run this cell to use the explorer." in page
        assert words in page
    assert "Plotly.newPlot" in page
    explorer.close()


@pytest.mark.parametrize(
    ("parent", "there"),
    [
        ({"header": {"msg_type": "execute_request"}, "metadata": {"cellId": "a"}}, True),
        ({"header": {"msg_type": "comm_msg"}, "metadata": {}}, True),
        ({"header": {"msg_type": "execute_request"}, "metadata": {}}, False),
        ({}, False),
    ],
)
def test_who_asked_decides(monkeypatch, parent, there):
    class Shell:
        class kernel:
            get_parent = staticmethod(lambda: parent)

    import IPython

    monkeypatch.setattr(IPython, "get_ipython", lambda: Shell)
    assert is_interactive() is there


def test_the_corners_are_what_is_mixed_up_most(small):
    probs = torch.full((len(small.pool), 10), 0.001)
    probs[:, 7], probs[:, 2], probs[:, 4] = 0.5, 0.4, 0.1
    assert set(WIDGETS.SimplexExplorer(small, probs).corners) == {"7", "2", "4"}


def test_points_out_of_the_triangle_are_not_shown_there(small, layout):
    probs = torch.zeros(len(small.pool), 10)
    probs[:, 0] = 1
    probs[10, 0], probs[10, 5] = 0.4, 0.6
    explorer = WIDGETS.SimplexExplorer(
        small, probs, corners=["0", "1", "2"], layouts={"line": layout}
    )
    xy, shown = explorer._in_triangle()
    assert np.isnan(xy[10]).all()
    assert 10 not in shown
    assert len(shown) == len(small.pool) - 1
    explorer.corners = ["0", "1", "rest"]
    assert len(explorer._in_triangle()[1]) == len(small.pool)


def test_a_umap_takes_the_place_of_the_main_components(small, probs, monkeypatch):
    xy, started = np.random.default_rng(0).normal(size=(len(small.pool), 2)).astype(np.float32), []
    monkeypatch.setattr(WIDGETS.SimplexExplorer, "_umap", lambda self: xy)
    monkeypatch.setattr(
        "activekd_lite.widgets.simplex.threading.Thread",
        lambda target, daemon: started.append(target) or Waiting,
    )
    explorer = WIDGETS.SimplexExplorer(small, probs)
    _ = explorer.widget
    page = explorer.widget
    assert (page.view["layout"], page.view["progress"]) == ("main components", "UMAP")
    started[0]()
    assert (page.view["layout"], page.view["progress"]) == ("UMAP", None)
    drawn = np.frombuffer(page.map, "<f4").reshape(-1, 2)
    assert np.corrcoef(drawn[:, 0], xy[:, 0])[0, 1] > 0.999
    explorer.close()
    started[0]()  # one that is ready after the explorer was closed finds nothing to draw on
    assert explorer._widget is None


class Waiting:
    start = staticmethod(lambda: None)


def test_a_class_has_one_colour_on_both_sides_of_the_figure(small, layout):
    probs = torch.eye(10)[torch.arange(len(small.pool)) % 10]
    figure = WIDGETS.SimplexExplorer(
        small, probs, corners=["5", "6", "7"], layouts={"line": layout}
    ).figure()
    looks = {}
    for trace in figure.data:
        if trace.customdata is not None:
            looks.setdefault(trace.name, set()).add((trace.marker.color, trace.marker.symbol))
    assert len(looks) == 10
    assert all(len(found) == 1 for found in looks.values())
    assert len({next(iter(found)) for found in looks.values()}) == 10


def test_a_selection_is_shared(small, probs, layout):
    selection = WIDGETS.Selection()
    first, second = (
        WIDGETS.SimplexExplorer(small, probs, layouts={"line": layout}, selection=selection)
        for _ in range(2)
    )
    pages = first.widget, second.widget
    pages[0].select([5, 3], 150)
    assert second.selected.tolist() == [3, 5] == pages[1].selected.tolist()
    assert pages[1].view["selected"] == 2
    send(second, "typed", text="149, 7 1000")  # there is no image 1000
    assert first.selected.tolist() == [7, 149] == pages[0].selected.tolist()
    first.close()
    pages[1].select([1], 150)
    assert selection.indices == (1,)
    second.close()


@pytest.mark.parametrize(
    "colour", ["true label", "prediction", "confidence", "cluster", "round labelled"]
)
def test_every_colour_gives_each_image_a_look(explorers, colour, small, probs, state):
    explorer = explorers["simplex"]()
    _ = explorer.widget
    send(explorer, "choose", colour=colour)
    page = explorer.widget
    of, looks = np.frombuffer(page.groups, "<i2"), page.view["looks"]
    legend = {entry["key"]: entry["count"] for entry in page.view["legend"]}
    assert legend == {g: of.tolist().count(g) for g in set(of.tolist()) - {-1}}
    assert len(of) == len(small.pool)
    assert of.max() < len(looks)
    if colour == "true label":
        assert of.tolist() == small.oracle.label(torch.arange(len(small.pool))).tolist()
    if colour == "prediction":
        assert of.tolist() == probs.argmax(dim=1).tolist()
    if colour == "round labelled":
        assert of.tolist() == state.labeled_round.tolist()
    if colour not in ("confidence", "round labelled"):
        assert len({tuple(looks[g]) for g in set(of.tolist())}) == len(set(of.tolist()))
    explorer.close()


def test_true_labels_are_no_colour_where_some_are_unknown(small, probs):
    data = akd.make_dataset(
        "half",
        small.pool.images[:20],
        [-1] * 10 + [0] * 10,
        small.test.images[:5],
        small.test.labels[:5],
        small.classnames,
    )
    assert "true label" not in WIDGETS.SimplexExplorer(data, probs[:20])._colourings


def test_the_stepper_is_pcoreset_with_its_radii(small, predictions, state):
    stepper = WIDGETS.PCoreSetStepper(small, predictions, state, budget=6, beside="uncertainty")
    chance = akd.seeding.generator(0, "selection", 0)
    expected = akd.STRATEGIES["pcoreset"](predictions, state, 6, generator=chance)
    assert stepper.picks["pcoreset"] == expected.tolist()
    for made in range(7):
        centers = torch.cat([state.labeled_indices, expected[:made]])
        radius = akd.metrics.covering_radius(predictions.probs, predictions.probs[centers])
        assert stepper.radii["pcoreset"][made] == pytest.approx(radius, abs=1e-6)
        if made < 6:  # the next pick is the image that the radius comes from
            assert (
                stepper.distances["pcoreset"][made, expected[made]]
                == stepper.radii["pcoreset"][made]
            )
    assert (
        stepper.radii["pcoreset"] <= 2 * stepper.radii["uncertainty"]
    ).all()  # what greedy k-center guarantees


@pytest.fixture
def stepper(small, predictions, state):
    stepper = WIDGETS.PCoreSetStepper(small, predictions, state, budget=3)
    yield stepper
    stepper.close()


def test_stepping_moves_picks_and_words(stepper, state):
    page, picks = stepper.widget, stepper.picks["pcoreset"]
    assert page.view["start"] == state.labeled_indices.tolist()
    assert page.view["paths"]["pcoreset"]["picks"] == picks
    stepper._on_message(page, {"kind": "step", "to": 2}, [])
    assert stepper.at == page.view["at"] == 2
    assert page.view["status"].startswith("2 of 3 picks")
    stepper._on_message(page, {"kind": "step", "to": 30}, [])
    assert stepper.at == 3
    stepper._on_message(page, {"kind": "beside", "name": "badge"}, [])
    assert page.view["beside"] == "badge"
    assert list(stepper.radii) == ["pcoreset", "badge"]
    drawn = np.frombuffer(page.other, "<i2").reshape(4, -1) / 10_000
    np.testing.assert_allclose(drawn, stepper.distances["badge"], atol=1e-4)
    stepper._on_message(page, {"kind": "beside", "name": "luck"}, [])
    assert "unknown strategy 'luck'" in page.view["error"]
    assert stepper.beside == page.view["beside"] == "badge"


def test_a_sentence_says_why_an_image_is_picked(stepper, predictions, state):
    centres = state.labeled_indices.tolist()
    for made, pick in enumerate(stepper.picks["pcoreset"]):
        distances = (predictions.probs[centres] - predictions.probs[pick]).double().norm(dim=1)
        near = centres[int(distances.argmin())]
        said = stepper.why("pcoreset", made)
        assert said.startswith(f"image {pick} is {distances.min():.2f} from its nearest")
        assert f"(image {near}" in said
        assert said.endswith("farther than any other.")
        centres.append(pick)
    farthest = int(stepper.distances["random"][0].argmax())
    assert stepper.picks["random"][0] != farthest
    assert f"the farthest, image {farthest}, is" in stepper.why("random", 0)


def test_own_picks_have_a_radius_beside_pcoresets_and_randoms(stepper, predictions, state):
    page, labeled = stepper.widget, state.labeled_indices.tolist()
    mine = [i for i in range(150) if i not in labeled][:3]
    for made, index in enumerate(mine, 1):
        stepper._on_message(page, {"kind": "pick", "index": index}, [])
        centres = predictions.probs[labeled + mine[:made]]
        radius = akd.metrics.covering_radius(predictions.probs, centres)
        assert stepper.radii["you"][made] == pytest.approx(radius, abs=1e-6)
    assert stepper.picks["you"] == page.view["paths"]["you"]["picks"] == mine
    for name in ("you", "pcoreset", "random"):
        assert f"{name} {stepper.distances[name][3].max():.2f}" in page.view["score"]
    assert np.frombuffer(page.mine, "<i2")[mine].tolist() == [0, 0, 0]
    stepper._on_message(page, {"kind": "beside", "name": "badge"}, [])
    assert list(stepper.radii) == ["pcoreset", "badge", "you"]
    stepper.undo()
    assert stepper.picks["you"] == mine[:2]
    assert len(stepper.radii["you"]) == 3
    assert stepper.figure().table["you"].notna().sum() == 3
    stepper.pick(mine[2])
    assert stepper.picks["you"] == mine
    stepper.clear()
    assert "you" not in stepper.radii
    assert "you" not in page.view["paths"]
    assert np.frombuffer(page.mine, "<i2").max() == round(1e4 * stepper.radii["pcoreset"][0])


def test_an_own_pick_is_a_new_image_within_the_budget(stepper, state):
    labeled = int(state.labeled_indices[0])
    with pytest.raises(ValueError, match=f"image {labeled} is labelled already"):
        stepper.pick(labeled)
    with pytest.raises(ValueError, match="images 0 to 149"):
        stepper.pick(150)
    stepper._on_message(stepper.widget, {"kind": "pick", "index": labeled}, [])
    assert "labelled already" in stepper.widget.view["error"]
    free = [i for i in range(150) if i not in state.labeled_indices]
    stepper.pick(free[0])
    with pytest.raises(ValueError, match=f"image {free[0]} is picked already"):
        stepper.pick(free[0])
    stepper.pick(free[1])
    stepper.pick(free[2])
    with pytest.raises(ValueError, match="all 3 picks are made"):
        stepper.pick(free[3])
    assert stepper.picks["you"] == free[:3]


def test_the_still_stepper_has_the_radii_the_marks_and_the_reason(stepper):
    figure, picks = stepper.figure(), stepper.picks["pcoreset"]
    assert figure.table["next"].tolist()[:3] == picks
    assert figure.table["nearest"].tolist()[:3] == stepper.nearest["pcoreset"]
    np.testing.assert_allclose(figure.table["random"], stepper.radii["random"], atol=1e-3)
    assert stepper.why("pcoreset", 0) in figure.alt
    named = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert {"start", "picks", "pcoreset", "random"} <= set(named)


def test_what_does_not_fit_is_refused(small, probs, predictions, state):
    with pytest.raises(
        ValueError,
        match=r"probs 'predictions': shape \(20, 10\), but the pool of small needs \(150, 10\)",
    ):
        WIDGETS.SimplexExplorer(small, probs[:20])
    with pytest.raises(ValueError, match=r"layout 'map': shape \(3, 2\)"):
        WIDGETS.SimplexExplorer(small, probs, layouts={"map": np.zeros((3, 2))})
    with pytest.raises(ValueError, match="eleven"):
        WIDGETS.SimplexExplorer(small, probs, corners=["0", "1", "eleven"])
    with pytest.raises(ValueError, match="unknown strategy 'luck'"):
        WIDGETS.PCoreSetStepper(small, predictions, state, beside="luck")
    with pytest.raises(ValueError, match=r"layout is \(3, 2\)"):
        WIDGETS.PCoreSetStepper(small, predictions, state, layout=np.zeros((3, 2)))


def test_numbers_go_to_the_browser_in_little_endian():
    assert np.frombuffer(points(np.array([[1.5, np.nan]])), "<f4").tolist()[0] == 1.5
    assert np.frombuffer(groups(np.array([-1, 300])), "<i2").tolist() == [-1, 300]


def test_a_selection_is_a_bit_mask():
    indices = [0, 7, 8, 1000]
    mask = mask_of(indices, 1001)
    assert len(mask) == 126
    assert indices_of(mask).tolist() == indices
    assert mask_of([], 1001) == b""
    assert not len(indices_of(b""))


def test_a_message_that_cannot_be_followed_is_an_error_on_the_page(explorers):
    explorer = explorers["simplex"]()
    page, before = explorer.widget, list(explorer.corners)
    send(explorer, "corner", place=0, name="eleven")
    assert "eleven" in page.view["error"]
    assert explorer.corners == before
    send(explorer, "no such thing")
    send(explorer, "choose", colour="confidence")
    assert page.view["error"] == ""
    explorer.close()


@pytest.mark.parametrize("message", ["text", None, {}, {"kind": "message"}, {"kind": ["step"]}])
def test_what_is_no_message_is_ignored(explorers, message):
    explorer = explorers["stepper"]()
    explorer._on_message(explorer.widget, message, [])
    assert not explorer.widget.view.get("error")
    explorer.close()


def test_what_is_not_in_the_pool_is_not_selected(explorers, probs):
    explorer = explorers["simplex"]()
    explorer.widget.chosen = mask_of([3, 500], 1000)
    assert explorer.selected.tolist() == [3]
    corners = explorer.corners
    send(explorer, "corner", place=-1, name="rest")
    assert explorer.corners == corners
    assert "corner -1" in explorer.widget.view["error"]
    explorer.close()


def test_reset_starts_again(explorers):
    simplex, stepper = explorers["simplex"](), explorers["stepper"]()
    corners = simplex.widget.view["corners"]
    send(simplex, "corner", place=0, name="rest")
    send(simplex, "choose", colour="confidence")
    send(simplex, "reset")
    view = simplex.widget.view
    assert (view["corners"], view["colour"]) == (corners, "true label")
    assert stepper.widget.view["beside"] == "random"
    send(stepper, "beside", name="uncertainty")
    send(stepper, "yours", shown=True)
    send(stepper, "pick", index=stepper.picks["pcoreset"][0])
    assert stepper.picks["you"]
    send(stepper, "reset")
    view = stepper.widget.view
    assert (view["beside"], view["yours"], view["at"]) == ("random", False, 0)
    assert "you" not in stepper.picks
    simplex.close()
    stepper.close()


def test_a_large_stepper_sends_the_step_that_is_shown(small, predictions, state, monkeypatch):
    whole = WIDGETS.PCoreSetStepper(small, predictions, state, budget=4)
    assert whole.widget  # built before the limit falls
    monkeypatch.setattr("activekd_lite.widgets.stepper.SENT", 500)
    part = WIDGETS.PCoreSetStepper(small, predictions, state, budget=4)
    for at in (0, 3):
        send(part, "step", to=at)
        for name in ("ours", "other"):
            table = np.frombuffer(getattr(whole.widget, name), "<i2").reshape(5, len(small.pool))
            assert np.array_equal(np.frombuffer(getattr(part.widget, name), "<i2"), table[at])
    whole.close()
    part.close()


def test_a_stepper_needs_an_image_to_start_from_and_one_to_pick(small):
    images, labels = small.pool.images[:1], torch.zeros(1, dtype=torch.int64)
    data = akd.make_dataset("one", images, labels, images, labels, ["a", "b"])
    probs, state = torch.tensor([[0.5, 0.5]]), akd.LabelState.empty(1)
    predictions = akd.Predictions(probs, probs, probs)
    for given in (state, state.with_labels(torch.tensor([0]), labels, 0)):
        with pytest.raises(ValueError, match=r"[01] of 1 images of one are labelled.*to pick"):
            WIDGETS.PCoreSetStepper(data, predictions, given)


def test_two_classes_and_few_unlabelled_images(small):
    images, labels = small.pool.images[:6], torch.arange(6) % 2
    data = akd.make_dataset("two", images, labels, images, labels, ["a", "b"])
    probs = torch.rand(6, 2, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    assert WIDGETS.SimplexExplorer(data, probs).corners == ["a", "b", "rest"]
    known = torch.arange(5)
    state = akd.LabelState.empty(6).with_labels(known, labels[known], 0)
    stepper = WIDGETS.PCoreSetStepper(data, akd.Predictions(probs, probs, probs), state)
    assert stepper.budget == 1
