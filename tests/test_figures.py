"""Figures show their input, have a table and an alternative text, and need no network."""

import base64
import io
import json

import IPython.display
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest
import torch
from PIL import Image

from activekd_lite import kcenter, plots
from activekd_lite.analysis import metrics, statistics
from activekd_lite.plots import base as figures
from activekd_lite.plots.maps import CORNERS, GROUND, SIDE
from activekd_lite.utils.images import ImageFiles

NAMES = ["cat", "dog", "<script>alert(1)</script>", "eel"]


@pytest.fixture(scope="module")
def probs():
    return torch.from_numpy(np.random.default_rng(0).dirichlet([0.3] * 4, 60))


@pytest.fixture(scope="module")
def xy():
    return np.random.default_rng(1).normal(size=(60, 2))


@pytest.fixture(scope="module")
def images():
    return torch.randint(
        0, 256, (60, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.fixture(scope="module")
def comparisons():
    a = np.arange(1.0, 9.0)
    values = pd.DataFrame({"a": a, "b": a - [1, 0.9, 1.1, 0.95, 1.1, 1, 1, 0.95], "c": a})
    values["c"] += [0, 0.5, -1, 0, 0.5, 0, 1, -0.5]
    return metrics.paired_comparisons(values)


@pytest.fixture(scope="module")
def every_figure(probs, xy, images, comparisons):
    labels = probs.argmax(dim=1)
    matrix = torch.tensor([[5, 1, 0, 0], [2, 2, 0, 0], [0, 0, 0, 0], [0, 0, 1, 3]])
    dots = pd.DataFrame(
        {
            "group": ["a", "b"],
            "series": "x",
            "mean": [1.0, 2.0],
            "half_width": [0.1, np.nan],
            "n": [5, 1],
        }
    )
    leads = pd.DataFrame(
        {
            "dataset": ["digits", "digits?classes=5", "shapes"],
            "lead": [-2.0, 0.0, 3.0],
            "half_width": [1.0, np.nan, 1.0],
            "n": [3, 1, 3],
            "gap_points": [-10.0, 2.0, 30.0],
        }
    )
    parts = metrics.ball_shrinkage(probs, probs.flip(0), torch.arange(60) % 4, least=2)
    return {
        "ball_shrinkage": plots.ball_shrinkage(parts, NAMES),
        "simplex": plots.simplex(
            probs, [0, "dog", "rest"], NAMES, images=images, picks={"first": [0, 1]}
        ),
        "maps": plots.maps({"a": xy, "b": -xy}, labels, NAMES, images=images, picks={"first": [3]}),
        "picks_on_map": plots.picks_on_map(xy, {"p": [5, 3], "q": [1, 2]}, labeled=[0]),
        "pick_by_pick": plots.pick_by_pick(xy, probs, [0], [5, 3]),
        "image_rows": plots.image_rows({"row": [3, 1]}, images, NAMES * 15),
        "inheritance": plots.inheritance(
            probs, probs.flip(0), labels, [0, 1], [5, 3], NAMES, images=images, balls=True
        ),
        "selected_probabilities": plots.selected_probabilities(
            {"labelled": [0, 1], "pcoreset": torch.tensor([5, 3, 4])}, probs, NAMES
        ),
        "confusions": plots.confusions({"teacher": matrix}, NAMES),
        "interval_dots": plots.interval_dots(dots, x_title="points"),
        "win_tie_loss": plots.win_tie_loss(comparisons),
        "critical_differences": plots.critical_differences(
            statistics.Ranking(pd.DataFrame({"a": [1, 1], "b": [2, 2]}), "settings", 0)
        ),
        "first_counts": plots.first_counts(
            pd.DataFrame({"strategy": ["a"], "first": [2], "tied": [0], "of": [3]})
        ),
        "reliability_diagram": plots.reliability_diagram({"model": probs}, labels),
        "task_leads": plots.task_leads(leads, x="gap_points", x_title="gap (points)"),
    }


def test_every_figure_has_a_table_an_alternative_text_and_the_template(every_figure):
    runs = {
        "Figure",
        "curves_frame",
        "learning_curves",
        "aulc_intervals",
        "diagnostics",
        "gain_intervals",
        "query_montage",
        "loop_picture",
        "report",
    }  # these need runs: see test_sweep_plots_cli.py and test_statistics.py
    assert set(every_figure) == set(plots.__all__) - runs
    for name, figure in every_figure.items():
        assert len(figure.table), name
        assert len(figure.alt) > 20, name
        assert figure.layout.template.layout.font.size >= 16, name
        colours = {
            t.marker.color
            for t in figure.data
            if t.type == "scatter" and isinstance(t.marker.color, str)
        }
        assert colours <= {*figures.COLOURS, figures.INK, figures.PALE}, name


def test_a_page_is_live_described_and_needs_no_network(every_figure, tmp_path):
    for name, figure in every_figure.items():
        part = figures.html_of(figure)
        assert "plotly-graph-div" in figures.html_of(json.loads(figure.to_json()))
        assert "<script>alert" not in part, name
        assert not [link for link in ("src=", "href=", "https://", "http://") if link in part], name
        assert 'aria-label="' in part
        assert part.count("<tr") == len(figure.table) + 1, name
    every_figure["maps"].update_layout(title="a <b> title").write_page(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "a &lt;b&gt; title</title>" in page
    assert len(page) > 1_000_000  # plotly.js is inside


def test_in_a_notebook_the_alternative_text_is_the_plain_text(every_figure, monkeypatch):
    shown = {}
    monkeypatch.setattr(IPython.display, "display", lambda bundle, **rest: shown.update(bundle))
    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")
    every_figure["maps"]._ipython_display_()
    assert shown["text/plain"] == every_figure["maps"].alt
    assert shown["application/vnd.plotly.v1+json"]["layout"]["meta"]["alt"] == shown["text/plain"]


def test_a_figure_of_plotly_express_keeps_its_data_and_takes_the_template():
    table = pd.DataFrame({"x": range(300), "y": range(300)})
    figure = plots.Figure(go.Figure(go.Scatter(x=[1], y=[2])), table=table, alt="One point.")
    assert figure.layout.template.layout.colorway == figures.COLOURS
    assert len(figure.table) == 300
    assert "table" not in figure.layout.meta  # too long for a page
    assert list(figure.data[0].x) == [1]


def test_fewer_colours_look_the_same():
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:20], picture[20:, :30] = (255, 0, 0), (10, 200, 30)
    smaller = figures.fewer_colours(figures.data_uri(picture).split(",")[1])
    again = np.asarray(Image.open(io.BytesIO(base64.b64decode(smaller))).convert("RGB"))
    assert np.abs(again.astype(int) - picture).max() <= 8


def test_tiles_go_row_by_row():
    pictures = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 2, 2)
    sheet = figures.tiled(pictures, 3)
    assert sheet.shape == (4, 6, 3)
    assert sheet[::2, ::2, 0].tolist() == [[0, 1, 2], [3, 4, 255]]


@pytest.mark.parametrize("count", [1, 60, 150])
def test_a_sheet_holds_every_step_th_picture_within_its_budget(images, count):
    many = images.repeat(3, 1, 1, 1)[:count]
    sheet = figures.picture_sheet(many, most=50)
    assert sheet["step"] == -(-count // 50)
    shown = -(-count // sheet["step"])
    picture = Image.open(io.BytesIO(base64.b64decode(sheet["sheet"].split(",")[1])))
    assert picture.size[0] == sheet["columns"] * sheet["side"]
    assert sheet["columns"] * picture.size[1] // sheet["side"] >= shown
    large = torch.randint(0, 256, (100, 3, 64, 64), dtype=torch.uint8)
    small = figures.picture_sheet(large, budget_bytes=20_000)
    assert small["side"] < 48
    assert len(small["sheet"]) <= 20_000
    with pytest.raises(ValueError, match="no images"):
        figures.picture_sheet(large[:0])


def test_pictures_of_files_are_those_of_tensors(tmp_path):
    paths = []
    for i in range(3):
        Image.new("RGB", (20, 20), (80 * i, 10, 200)).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    small = figures.squares(ImageFiles(paths, 16), [2, 0], 8)
    assert small.shape == (2, 3, 8, 8)
    assert small[:, :, 4, 4].tolist() == [[160, 10, 200], [0, 10, 200]]


def test_certain_predictions_lie_in_the_corners_of_the_simplex():
    probs = torch.tensor(
        [
            [1.0, 0, 0, 0],
            [0, 1, 0, 0],
            [0, 0, 1, 0],
            [0, 0, 0, 1],
            [0.3, 0.3, 0.3, 0.1],
            [0.2, 0.2, 0, 0.6],
        ]
    )
    figure = plots.simplex(probs, ["eel", "cat", "dog"], NAMES, picks={"p": [0, 2]})
    at = figure.table.set_index("index")
    assert set(at.index) == {0, 1, 3, 4, 5}  # image 2 has no probability on the three classes
    reach = 0.0151 * SIDE
    for image, corner in ((3, 0), (0, 1), (1, 2)):
        assert np.hypot(*(at.loc[image, ["x", "y"]].to_numpy(float) - CORNERS[corner])) <= reach
    expected = CORNERS.T @ np.array([0.1, 0.3, 0.3]) / 0.7
    assert np.hypot(*(at.loc[4, ["x", "y"]].to_numpy(float) - expected)) <= reach
    picks = next(t for t in figure.data if t.name == "p")
    assert picks.customdata.flatten().tolist() == [0]  # image 2 is not shown
    hover = next(t for t in figure.data if t.name == "predicted eel")
    assert hover.customdata.tolist() == [[3, 100, 0, 0], [5, 60, 20, 20]]
    rest = plots.simplex(probs, ["cat", "rest", "dog"], NAMES)
    assert len(rest.table) == 6
    assert np.hypot(*(rest.table.loc[2, ["x", "y"]].to_numpy(float) - CORNERS[1])) <= reach


def test_balls_are_circles_at_their_place_in_the_triangle(probs):
    three = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    balls = torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5]]), torch.tensor([0.1, 2**0.5 / 2])
    figure = plots.simplex(three, ["c", "a", "b"], list("abc"), balls=balls)
    small, large = figure.layout.shapes
    assert (small.x0 + small.x1) / 2 == pytest.approx(CORNERS[1, 0])
    assert (small.x1 - small.x0) / 2 == pytest.approx(SIDE * 0.1 / 2**0.5)
    # b and c have the corners 2 and 0; from the middle between them to either is half a side.
    middle = (CORNERS[0] + CORNERS[2]) / 2
    centre = [(large.x0 + large.x1) / 2, (large.y0 + large.y1) / 2]
    np.testing.assert_allclose(centre, middle)
    assert (large.x1 - large.x0) / 2 == pytest.approx(SIDE / 2)
    with pytest.raises(ValueError, match="probabilities of three classes"):
        plots.simplex(probs, NAMES[:3], NAMES, balls=(probs[:2], torch.ones(2)))
    with pytest.raises(ValueError, match="each with a corner"):
        plots.simplex(three, ["a", "b", "rest"], list("abc"), balls=balls)


@pytest.mark.parametrize("corners", [["cat", "dog"], ["cat", "cat", "dog"], ["cat", "dog", "cow"]])
def test_bad_corners_are_rejected(probs, corners):
    with pytest.raises(ValueError, match="three different names of cat, dog"):
        plots.simplex(probs, corners, NAMES)


def test_panels_show_the_same_points_in_the_same_order(xy, probs):
    groups = probs.argmax(dim=1)
    groups[:10] = -1
    figure = plots.maps({"a": xy, "b": xy * 3 + 5}, groups, NAMES, picks={"p": [3]})
    half = figure.layout.meta["linked"]
    assert half * 2 == len(figure.data)
    for left, right in zip(figure.data[:half], figure.data[half:], strict=True):
        assert left.name == right.name
        assert left.customdata.tolist() == right.customdata.tolist()
        np.testing.assert_allclose(left.x, right.x, atol=1)  # moved and scaled to the same steps
    assert figure.data[0].name == "others"
    assert figure.data[0].marker.color == figures.PALE
    assert sorted(i for t in figure.data[: half - 1] for (i,) in t.customdata.tolist()) == list(
        range(60)
    )
    with pytest.raises(ValueError, match="a: 60, b: 59 points"):
        plots.maps({"a": xy, "b": xy[:59]}, groups, NAMES)


def test_fifty_thousand_points_are_drawn_by_webgl_and_stay_small():
    rng = np.random.default_rng(0)
    xy, probs = rng.normal(size=(50_000, 2)), rng.dirichlet([0.1] * 10, 50_000)
    names = [str(c) for c in range(10)]
    for figure, points in (
        (plots.maps({"a": xy, "b": xy}, probs.argmax(axis=1), names), 2),
        (plots.simplex(probs, [0, 1, "rest"], names), 1),
    ):
        dense = [t for t in figure.data if t.customdata is not None]
        assert {t.type for t in dense} == {"scattergl"}
        assert sum(len(t.x) for t in dense) == points * 50_000
        assert len(figure.to_json()) < 25 * points * 50_000  # bytes per point
        assert "table" not in figure.layout.meta


def test_pick_by_pick_shows_distances_and_radii(xy, probs):
    labeled = [0, 1]
    picks, radii = kcenter.k_center_greedy(probs, probs[labeled], 5)
    figure = plots.pick_by_pick(xy, probs, labeled, picks)
    np.testing.assert_allclose(figure.table["covering_radius"][:5], radii, atol=1e-12)
    assert figure.table["next"].tolist()[:5] == picks.tolist()
    for t, frame in enumerate(figure.frames):
        nearest = torch.cdist(probs, probs[labeled + picks[:t].tolist()]).amin(dim=1)
        np.testing.assert_allclose(frame.data[0].marker.color, nearest * 250 / radii[0], atol=0.5)
        assert len(frame.data[1].x) == 2 + t  # centres
        assert len(frame.data[2].x) == (1 if t < 5 else 0)  # the next pick


def test_picks_are_numbered_in_their_order(every_figure):
    dots = [t for t in every_figure["picks_on_map"].data if t.mode == "markers+text"]
    assert [list(t.customdata) for t in dots] == [[5, 3], [1, 2]]
    assert [list(t.text) for t in dots] == [["1", "2"], ["1", "2"]]


def test_only_errors_are_coloured(every_figure):
    heat = every_figure["confusions"].data[0]
    assert np.isnan(np.diag(heat.z)).all()
    assert heat.z[0][1] == pytest.approx(16.7)
    assert heat.z[1][0] == 50
    assert every_figure["confusions"].table.iloc[0].tolist() == ["teacher", "dog", "cat", 2]


def test_rows_of_pictures_show_the_pictures_they_name(every_figure, images):
    picture, dots = every_figure["image_rows"].data
    canvas = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.source.split(",")[1]))))
    np.testing.assert_array_equal(canvas[2, [2, 53]], images[3, :, 0, [0, 7]].T)
    assert list(dots.text) == ["image 3: eel", "image 1: dog"]
    with pytest.raises(ValueError, match="every row is empty"):
        plots.image_rows({"none": []}, images)


def test_the_matrix_counts_wins_and_stars_significant_differences(every_figure, comparisons):
    heat = every_figure["win_tie_loss"].data[0]
    assert list(heat.x) == ["a", "b", "c"]
    assert heat.text[0][1] == "+1.0 *<br>8/0/0"  # a beats b by about 1 in every seed
    assert heat.text[1][0] == "-1.0 *<br>0/0/8"
    assert "*" not in heat.text[0][2]
    assert heat.text[0][2].endswith("2/3/3")
    assert "a over b" in every_figure["win_tie_loss"].alt
    np.testing.assert_allclose(heat.z[0][1], comparisons["difference"][0].round(1))
    six = metrics.paired_comparisons(
        pd.DataFrame({"a": range(6), "b": range(-1, 5), "c": range(-2, 4)})
    )
    assert (six["p"] < 0.05).all()
    assert "*" not in "".join(
        plots.win_tie_loss(six).data[0].text.ravel()
    )  # not significant after Holm's correction
    few = plots.win_tie_loss(
        metrics.paired_comparisons(pd.DataFrame({"a": [2.0, 3, 4, 5], "b": [1.0, 1, 1, 1]}))
    )
    assert (
        few.layout.title.subtitle.text
        == "4 paired runs are too few for a star; at least 6 are needed"
    )
    assert "4 paired runs are too few" in few.alt


def test_critical_differences_join_strategies_that_do_not_differ():
    ranks = pd.DataFrame(
        [[1, 2, 3, 4]] * 5 + [[2, 1, 3, 4]] * 5, columns=list("abcd")
    )  # means 1.5, 1.5, 3, 4; difference 1.48
    figure = plots.critical_differences(statistics.Ranking(ranks, "data sets", 0))
    dots, bars = figure.data[:4], figure.data[4:]
    assert [(d.name, d.x[0]) for d in dots] == [("a", 1.5), ("b", 1.5), ("c", 3), ("d", 4)]
    assert len({(d.marker.color, d.marker.symbol) for d in dots}) == 4
    assert [[round(x) for x in bar.x] for bar in bars] == [[1, 2], [3, 4]]
    assert "Not significantly different: a, b; c, d." in figure.alt
    ruler = figure.layout.shapes[0]
    assert ruler.x1 - ruler.x0 == pytest.approx(statistics.nemenyi_critical_difference(4, 10))
    many = pd.DataFrame([range(1, 13)], columns=[f"s{i}" for i in range(12)])
    figure = plots.critical_differences(statistics.Ranking(many, "settings", 0))
    assert (
        "1 settings are too few to distinguish 12 strategies" in figure.layout.title.subtitle.text
    )
    assert len({(d.marker.color, d.marker.symbol) for d in figure.data[:12]}) == 12


def test_selected_probabilities_are_sorted_by_the_most_likely_class():
    probs = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [1.0, 0.0]])
    figure = plots.selected_probabilities({"a": [0, 1, 2], "b": [3]}, probs, ["cat", "dog"])
    assert figure.data[0].z.tolist() == pytest.approx(
        np.array([[0.8, 0.2], [0.1, 0.9], [0.3, 0.7]])
    )
    assert [heat.x for heat in figure.data] == [("cat", "dog")] * 2
    assert "Classes predicted, of 2: a: 2 in 3 images; b: 1 in 1 images." in figure.alt


def test_leads_are_drawn_by_family_and_counted(every_figure):
    figure = every_figure["task_leads"]
    assert [(t.name, list(t.x), list(t.y)) for t in figure.data] == [
        ("digits", [-10, 2], [-2, 0]),
        ("shapes", [30], [3]),
    ]
    assert "ahead of random on 1 of 3 tasks" in figure.alt
    assert "above 0 on 1 and below on 1" in figure.alt
    assert "Largest lead: shapes +3.0 ± 1.0; smallest: digits -2.0 ± 1.0" in figure.alt
    assert "gap (points): 1.00" in figure.alt  # the rank correlation


def test_first_counts_show_firsts_and_ties():
    table = pd.DataFrame({"strategy": ["a", "b"], "first": [3, 0], "tied": [1, 1], "of": [4, 4]})
    figure = plots.first_counts(table)
    assert [list(bar.x) for bar in figure.data] == [[3, 0], [1, 1]]
    assert figure.layout.shapes[0].x0 == 2  # 4 comparisons, 2 strategies
    assert "a 3 of 4, tied in 1" in figure.alt


def test_radii_lie_where_the_balls_were_measured(probs):
    labels = torch.arange(60) % 4
    found = metrics.ball_shrinkage(probs, probs.square(), labels, least=2)
    figure = plots.ball_shrinkage(found, NAMES, kd_weight=0.3)
    lines = [t for t in figure.data if t.mode == "lines"]
    assert [t.y[1] / t.x[1] for t in lines] == pytest.approx([1, 0.3])
    shown = [t for t in figure.data if t.mode == "markers"]
    places = sorted(xy for t in shown for xy in zip(t.x, t.y, strict=True))
    assert places == sorted(
        zip(found.parts.teacher_radius, found.parts.student_radius, strict=True)
    )
    assert f"{found.ratio:.2f}" in figure.alt
    with pytest.raises(ValueError, match="no ball has enough images"):
        plots.ball_shrinkage(metrics.ball_shrinkage(probs, probs, labels, least=99), NAMES)


def test_picks_lie_above_points_that_webgl_draws():
    xy, probs = np.random.default_rng(0).normal(size=(9000, 2)), np.full((9000, 3), 1 / 3)
    for figure in (
        plots.maps({"a": xy}, np.zeros(9000, int), ["all"], picks={"p": [0]}),
        plots.simplex(probs, [0, 1, 2], list("abc"), picks={"p": [0]}),
        plots.pick_by_pick(xy, probs + xy[:, :1], [0], [1]),
    ):
        kinds = [t.type for t in figure.data]
        assert kinds[-1] == "scattergl"  # SVG would lie below
        assert "scatter" not in kinds[kinds.index("scattergl") :]
    small = plots.picks_on_map(xy, {"p": [5], "q": [8999]}, labeled=[0])
    assert {t.type for t in small.data} == {"scatter"}
    assert len(small.data[0].x) <= GROUND
