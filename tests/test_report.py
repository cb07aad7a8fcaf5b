"""The report states what the tables show and what they cannot; its page needs no network."""

import re

import numpy as np
import pandas as pd
import pytest
from test_statistics import PLAIN, SETTING, run, table

from activekd_lite.analysis import metrics, statistics
from activekd_lite.plots import comparisons, report


def gain_rows(*rows, value="aulc_pct"):
    columns = ["setting", "strategy", "value", "mean", "half_width", "n", "left_out"]
    rows = [("digits", strategy, value, mean, half, 5, 0) for strategy, mean, half in rows]
    return pd.DataFrame(rows, columns=columns)


def test_the_gain_names_strategies_that_lose_and_those_that_are_unclear():
    gains = gain_rows(("random", 4.0, 1.0), ("badge", -2.0, 0.5), ("coreset", 1.0, 1.5))
    text = report.describe_gain(gains, ["aulc_pct"])
    assert text.startswith("Mean of the rounds:")
    assert "+1.0 points on average" in text
    assert "above 0 for 1 of 3 strategies" in text
    assert "without a teacher is better for badge (-2.0 ± 0.5);" in text
    assert "includes 0 for coreset." in text
    gains = gain_rows(("random", 4.0, np.nan), value="last_pct")
    single = report.describe_gain(gains, ["last_pct"])
    assert single.startswith("Last round:")
    assert "+4.0 points, but a single seed" in single


def test_significant_pairs_are_listed_with_the_better_strategy_first():
    a = np.arange(10.0)
    noise = np.array([1, -1, 1, -1, 1, -1, 1, -1, 1, -1]) / 10

    def describe(**columns):
        return report.describe_pairs(metrics.paired_comparisons(pd.DataFrame(columns)))

    clear = describe(a=a, b=a + 2 + noise, c=a + noise)
    assert "(10 paired seeds): 2 of 3: b over a (+2.0); b over c (+2.0)." in clear
    assert "(10 paired seeds): none of 1." in describe(a=a, b=a + noise)
    assert describe(a=a[:5], b=a[:5] + 9).startswith("5 paired runs are too few")
    assert "Only one seed" in describe(a=a[:1], b=a[:1])


def test_ranks_state_their_blocks_and_whether_they_are_too_few():
    def describe(ranks, blocks):
        frame = pd.DataFrame(ranks, columns=list("abcd"))
        return report.describe_ranks(statistics.Ranking(frame, blocks, 1))

    clear = describe([[1, 2, 3, 4]] * 10, "paired seeds")
    assert "a has the best mean rank by AULC (1.00) over 10 paired seeds" in clear
    assert "Significantly lower: c, d (critical difference 1.48" in clear
    assert "lack a strategy: 1." in clear
    assert "nothing about other data" in clear
    few = describe([[1, 2, 3, 4]] * 2, "settings")
    assert "2 settings are too few to distinguish 4 strategies" in few
    assert "assumes independent settings" in few
    even = describe([[1, 2, 3, 4], [4, 3, 2, 1]] * 5, "paired seeds")
    assert "do not differ significantly (Friedman's test, p = 1)" in even


def test_firsts_give_the_counts_and_a_caveat():
    columns = ["strategy", "first", "tied", "of", "after_2", "of_after_2", "mean_lead"]
    firsts = pd.DataFrame([("pcoreset", 9, 1, 15, 8, 12, -0.1)], columns=columns)
    text = report.describe_firsts(firsts)
    assert text.startswith("pcoreset is first most often")
    for fact in ("9 of 15 comparisons (60 %)", "tied for first in 1", "8 of 12", "-0.1 points"):
        assert fact in text
    assert "15 independent comparisons" in text


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two teachers, two data sets, an incomplete run, a failed one, a strategy with an odd name."""
    rng, runs = np.random.default_rng(0), []
    clap, shapes = SETTING | {"teacher": "clap"}, SETTING | {"dataset": "shapes"}
    for setting, level in ((SETTING, 80), (clap, 85), (PLAIN, 50), (shapes, 40)):
        for place, strategy in enumerate(("random", "<b>mine</b>")):
            for seed in range(6):
                rounds = 2 if (setting, place, seed) == (clap, 1, 5) else 4
                runs.append(run(strategy, seed, level + 5 * place + rng.random(rounds), setting))
    path = tmp_path_factory.mktemp("report") / "report.html"
    failed = {"shapes/random-plain/seed0": "RuntimeError: <out of memory>"}
    report.write(
        table(*runs), path, teacher_accuracy_pct={("digits", "zero-shot"): 71.234}, failed=failed
    )
    return path.read_text()


def test_the_page_has_each_setting_with_its_findings(page):
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "Summary",
        "digits, zero-shot",
        "digits, clap",
        "shapes",
        "All settings",
    ]
    assert "48 runs, 190 trainings." in page
    assert "stopped after 2 of 4 trainings" in page
    short = page[page.index("<h2>Summary") : page.index("<nav>")]
    assert "(6 paired seeds): 1 of 1: &lt;b&gt;mine&lt;/b&gt; over random (+" in short
    assert "5 paired runs are too few" in short  # clap: one seed is incomplete
    assert "in 9 of 9 comparisons (100 %)" in page  # three settings, three rounds after the first
    assert page.count("teacher alone 71.2") == 1  # given for one setting only


def test_the_page_needs_no_network_and_escapes_names(page):
    own = page[page.index("</head>") :]
    assert not [link for link in ("src=", "https://", "http://") if link in own]
    assert "<b>mine" not in own
    assert "<out of memory>" not in own
    assert len(page) > 1_000_000  # plotly.js is inside


def test_a_page_with_one_strategy_compares_nothing(tmp_path):
    runs = table(run("random", 0, [50.0, 60.0], PLAIN), run("random", 1, [50.0, 61.0], PLAIN))
    text = report.write(
        runs.drop(columns="calibration_error_pct"), tmp_path / "report.html"
    ).read_text()
    assert "only one strategy" in text
    assert "pairwise comparisons" not in text
    assert "What the teacher adds" not in text
    shapes = PLAIN | {"dataset": "shapes"}
    apart = [run(s, seed, [seed, 50.0]) for s in ("random", "badge") for seed in (0, 1)]
    apart += [
        run(s, seed, [seed, 50.0], SETTING | {"dataset": "shapes"})
        for s in ("random", "coreset")
        for seed in (0, 1)
    ]
    text = report.write(
        table(*apart, run("random", 0, [1.0, 2.0], shapes)), tmp_path / "apart.html"
    ).read_text()
    assert "No ranks over settings: 3 strategies in 0 seeds that have all of them" in text
    with pytest.raises(ValueError, match="a table of no runs"):
        report.write([], tmp_path / "none.html")


@pytest.fixture
def measured():
    """Two strategies, with a teacher that learns and without, three seeds, three rounds."""
    made = [
        run(strategy, seed, [50.0, 60.0, 70.0 + seed], setting)
        for setting in (SETTING | {"teacher": "clap"}, PLAIN)
        for strategy in ("random", "pcoreset")
        for seed in range(3)
    ]
    frame = table(*made)
    ahead = frame["strategy"] == "pcoreset"
    taught = 80.0 + frame["round"] + 2 * ahead * frame["round"]
    frame = frame.assign(
        teacher_accuracy_pct=taught.where(frame["distill"]),
        label_imbalance=0.1 * frame["round"] + 0.05 * ahead,
        device="cpu, 2 threads, AVX2",
        seconds_teacher=1.0 * frame["distill"],
        seconds_train=2.0 + ahead,
        seconds_predict=0.5,
        seconds_select=np.where(frame["round"] < 2, 0.25, 0),
        query_indices=[[1, 2] if r < 2 else [] for r in frame["round"]],
    )
    return frame.assign(seconds=frame.filter(like="seconds_").sum(axis=1))


def test_a_teacher_that_learns_has_a_curve_and_a_fixed_one_a_line(measured):
    figure = comparisons.learning_curves(measured)
    assert list(figure.data[-1].y) == [80, 82, 84]  # the mean over both strategies
    assert "teacher, mean over strategies: from 80 at 10 to 84 at 30" in figure.alt
    assert figure.table.query("strategy == 'teacher'")["mean"].tolist() == [80, 82, 84]
    assert not figure.layout.shapes
    still = measured.assign(
        teacher_accuracy_pct=measured["teacher_accuracy_pct"].where(
            measured["teacher_accuracy_pct"].isna(), 77.7
        )
    )
    figure = comparisons.learning_curves(
        still, teacher_accuracy_pct=60.0
    )  # the recorded value takes precedence
    assert len(figure.data) == 4
    assert [shape.y0 for shape in figure.layout.shapes] == pytest.approx([77.7])
    assert "teacher alone: 77.7" in figure.alt
    old = measured.drop(columns="teacher_accuracy_pct")
    assert [
        shape.y0
        for shape in comparisons.learning_curves(old, teacher_accuracy_pct=60.0).layout.shapes
    ] == [60]
    assert not comparisons.learning_curves(old).layout.shapes
    with pytest.raises(ValueError, match="these runs did not record teacher_accuracy_pct"):
        comparisons.learning_curves(old, value="teacher_accuracy_pct")


def test_seconds_by_strategy_stage_and_round(measured):
    stages = statistics.stage_seconds(measured).set_index(["strategy", "distill"])
    assert stages.loc[("pcoreset", True), [*statistics.STAGES, "rounds"]].tolist() == [
        1,
        3,
        0.5,
        0.25,
        9,
    ]
    assert stages.loc[("random", False), "round"] == pytest.approx((2.75 + 2.75 + 2.5) / 3)
    rounds = statistics.round_seconds(measured)
    assert rounds["labeled_count"].tolist() == [10, 20, 30]
    assert rounds["pcoreset"].tolist() == [4.75, 4.75, 4.5]
    assert rounds["random, no distillation"].tolist() == [2.75, 2.75, 2.5]
    of_runs = measured.assign(
        seconds=[{"train": s - 1, "select": 1} for s in measured["seconds"]]
    )  # as in RunResults
    assert statistics.round_seconds(of_runs).equals(rounds)
    assert statistics.stage_seconds(measured.drop(columns="seconds_train")).empty
    assert statistics.round_seconds(measured.drop(columns="seconds")).empty


def test_the_page_covers_teacher_class_balance_and_seconds(measured, tmp_path):
    text = report.write(measured, tmp_path / "new.html").read_text()
    assert "goes from 80.0 % at 10 labels to 84.0 % at 30" in text
    assert (
        "With the teacher, at 30 labels: random (0.200) is most balanced, pcoreset (0.250) least"
        in text
    )
    assert "Computed on: cpu, 2 threads, AVX2" in text
    assert "recorded" not in text[text.index("</head>") :]
    lacking = [
        "teacher_accuracy_pct",
        "label_imbalance",
        *(f"seconds_{stage}" for stage in statistics.STAGES),
    ]
    text = report.write(measured.drop(columns=lacking), tmp_path / "old.html").read_text()
    for sentence in (
        "test accuracy was not recorded",
        "Class counts were not recorded",
        "Seconds per stage were not recorded",
    ):
        assert text.count(sentence) == 1
    assert "Seconds of each round" in text
    assert (
        report.describe_seconds(measured.filter(regex="^(?!seconds)"))
        == "Time was not recorded in these runs."
    )


def test_a_selection_source_makes_a_setting_of_its_own(measured):
    both = table(
        measured.assign(selection_source=None),
        measured[measured["distill"]].assign(selection_source="kd"),
    )
    assert list(statistics.settings(both)) == [
        "digits, selected by mixed",
        "digits, selected by kd",
    ]
    assert [part["distill"].nunique() for part in statistics.settings(both).values()] == [
        2,
        2,
    ]  # each with the runs without a teacher
