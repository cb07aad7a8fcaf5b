"""Tables of runs against hand-worked ones and scipy; incomplete runs are left out and listed."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from activekd_lite import plots
from activekd_lite.analysis import statistics

SETTING = {
    "dataset": "digits",
    "vlm": "tiny-clip",
    "teacher": "zero-shot",
    "student": "tiny-cnn",
    "query_size": 10,
    "shots": 1,
}
PLAIN = SETTING | {"vlm": None, "teacher": "none"}


def run(strategy, seed, accuracies, setting=SETTING, **other):
    """The rows of a run in the tidy table."""
    known = (
        setting
        | {"strategy": strategy, "distill": setting["teacher"] != "none", "seed": seed}
        | other
    )
    values = [(r, 10 * (r + 1), a, 100 - a) for r, a in enumerate(accuracies)]
    columns = ["round", "labeled_count", "accuracy_pct", "calibration_error_pct"]
    return pd.DataFrame([known | dict(zip(columns, row, strict=True)) for row in values])


def table(*runs):
    return pd.concat(runs, ignore_index=True)


@pytest.fixture
def two_seeds():
    """Two strategies, two seeds, with the teacher and without, three rounds."""
    return table(
        run("random", 0, [60.0, 70, 80]), run("random", 1, [62.0, 70, 84]),
        run("pcoreset", 0, [60.0, 76, 80]), run("pcoreset", 1, [62.0, 74, 86]),
        run("random", 0, [30.0, 50, 70], PLAIN), run("random", 1, [30.0, 54, 72], PLAIN),
        run("pcoreset", 0, [30.0, 60, 84], PLAIN), run("pcoreset", 1, [30.0, 60, 90], PLAIN),
    )  # fmt: skip


def test_areas_and_gains_by_hand(two_seeds):
    runs = statistics.aulc(two_seeds).set_index(["strategy", "distill", "seed"])
    assert runs.loc[
        ("random", True, 0), ["aulc_pct", "first_pct", "last_pct", "rounds"]
    ].tolist() == [70, 60, 80, 3]
    assert runs.loc[("pcoreset", False, 1), "aulc_pct"] == 60
    assert runs["whole"].all()
    gain = statistics.gains(two_seeds).set_index(["setting", "strategy", "value"])
    assert gain.loc[("digits", "random", "first_pct"), ["mean", "n", "left_out"]].tolist() == [
        31,
        2,
        0,
    ]  # 30 and 32
    assert gain.loc[("digits", "random", "first_pct"), "half_width"] == pytest.approx(
        stats.t.ppf(0.975, 1)
    )
    assert (
        gain.loc[("digits", "pcoreset", "last_pct"), "mean"] == -4
    )  # the teacher costs points: 80 - 84, 86 - 90
    assert gain.loc[("digits", "random", "aulc_pct"), "mean"] == pytest.approx((20 + 20) / 2)
    shown = statistics.summary(two_seeds)
    assert shown["strategy"].tolist() == ["random", "pcoreset"]
    assert shown["gain"][0] == "+20.0 ± 0.0"
    assert shown["with"][0] == f"71.0 ± {stats.t.ppf(0.975, 1):.1f}"  # 70 and 72
    assert statistics.summary(two_seeds, "last_pct")["gain"][1] == "-4.0 ± 0.0"
    assert statistics.summary(two_seeds[two_seeds["seed"] == 0])["gain"][0] == "+20.0"


def test_curves_are_means_over_seeds(two_seeds):
    curves = statistics.curves_frame(two_seeds).set_index(["strategy", "distill", "labeled_count"])
    assert curves.loc[("random", True, 30), ["mean", "n"]].tolist() == [82, 2]
    assert curves.loc[("random", True, 30), "half_width"] == pytest.approx(
        2 * stats.t.ppf(0.975, 1)
    )
    assert statistics.curves_frame(two_seeds, "calibration_error_pct")["mean"][0] == pytest.approx(
        39
    )


def test_the_order_of_the_rows_changes_nothing(two_seeds):
    mixed = two_seeds.sample(frac=1, random_state=0)
    for function in (statistics.summary, statistics.gains, statistics.firsts):
        pd.testing.assert_frame_equal(function(two_seeds), function(mixed))


def test_parquet_and_pickled_missing_names_are_the_same(two_seeds, tmp_path):
    pytest.importorskip("pyarrow")
    two_seeds.to_parquet(tmp_path / "runs.parquet")
    pd.testing.assert_frame_equal(
        statistics.gains(pd.read_parquet(tmp_path / "runs.parquet")), statistics.gains(two_seeds)
    )


def test_a_run_without_teacher_belongs_to_each_teacher_of_its_data_and_student(two_seeds):
    clap, other = SETTING | {"teacher": "clap"}, PLAIN | {"student": "linear", "vlm": "RN50"}
    more = table(
        two_seeds,
        run("random", 0, [66.0, 70, 86], clap),
        run("random", 0, [50.0, 50, 50], SETTING | {"student": "linear"}),
        run("random", 0, [0.0, 0, 0], other),
        run("random", 0, [1.0, 1, 1], PLAIN | {"dataset": "shapes"}),
    )
    found = statistics.settings(more)
    assert list(found) == [
        "digits, zero-shot, tiny-clip, tiny-cnn",
        "digits, clap, tiny-clip, tiny-cnn",
        "digits, zero-shot, tiny-clip, linear",
        "digits, no teacher, RN50, linear",
        "shapes",
    ]
    assert [of["distill"].mean() for of in found.values()] == [12 / 24, 3 / 15, 1, 0, 0]
    gain = statistics.gains(more).set_index(["setting", "strategy", "value"])["mean"]
    assert gain["digits, clap, tiny-clip, tiny-cnn", "random", "last_pct"] == 86 - 70
    assert not any(
        "linear" in name for name, *_ in gain.index
    )  # its run without teacher used the features of another model
    with pytest.raises(ValueError, match="5 settings .digits, zero-shot.* cannot be combined"):
        plots.learning_curves(more)
    with pytest.raises(ValueError, match="cannot be combined"):
        plots.aulc_intervals(more)


def test_incomplete_seeds_are_left_out_and_listed(two_seeds):
    cut = two_seeds.query("not (strategy == 'pcoreset' and distill and seed == 1 and round == 2)")
    gone = cut.query("not (strategy == 'random' and not distill and seed == 0)")
    lacking = statistics.missing(gone).set_index(["strategy", "distill", "seed"])
    assert lacking[["rounds", "of"]].to_dict("index") == {
        ("pcoreset", True, 1): {"rounds": 2, "of": 3},
        ("random", False, 0): {"rounds": 0, "of": 3},
    }
    values = statistics.paired(gone)
    assert values["pcoreset"].isna().tolist() == [False, True]
    gain = statistics.gains(gone).set_index(["strategy", "value"])
    assert gain.loc[("pcoreset", "aulc_pct"), ["mean", "n", "left_out"]].tolist() == [
        14,
        1,
        1,
    ]  # 72 - 58; seed 1 has no pair
    assert gain.loc[("random", "aulc_pct"), ["n", "left_out"]].tolist() == [1, 1]
    found = statistics.ranking(gone, "seed")
    assert (len(found.ranks), found.left_out) == (1, 1)
    assert statistics.leads(gone).query("strategy == 'pcoreset'")["lead"].tolist() == [
        6,
        0,
    ]  # seed 0 only
    assert statistics.missing(two_seeds).empty


def test_duplicate_runs_and_other_tables_are_rejected(two_seeds):
    with pytest.raises(
        ValueError, match="two runs of dataset digits, .*strategy random, distill True, seed 0"
    ):
        statistics.aulc(table(two_seeds, run("random", 0, [1.0, 2, 3])))
    with pytest.raises(ValueError, match="without seed, round"):
        statistics.aulc(two_seeds.drop(columns=["seed", "round"]))
    with pytest.raises(ValueError, match="a table of no runs"):
        statistics.aulc([])
    with pytest.raises(
        ValueError, match="value = 'accuracy': expected one of first_pct, aulc_pct, last_pct"
    ):
        statistics.paired(two_seeds, "accuracy")
    with pytest.raises(ValueError, match="value = 'accuracy'"):
        statistics.summary(two_seeds, "accuracy")
    with pytest.raises(ValueError, match="no run without distillation"):
        statistics.paired(two_seeds[two_seeds["distill"]], distill=False)
    with pytest.raises(
        ValueError, match="blocks = 'round': expected one of dataset, setting, seed"
    ):
        statistics.ranking(two_seeds, "round")
    with pytest.raises(ValueError, match="1 strategies in 2 seeds"):
        statistics.ranking(two_seeds[two_seeds["strategy"] == "random"], "seed")


def grid(strategies, settings, seeds, accuracy):
    """Runs of one round each; accuracy(strategy, setting, seed) in percent."""
    cells = [(s, i, seed) for s in strategies for i in range(len(settings)) for seed in seeds]
    return table(*(run(s, seed, [accuracy(s, i, seed)], settings[i]) for s, i, seed in cells))


def test_ranks_by_hand():
    scores = {
        ("random", 0): [50, 60],
        ("coreset", 0): [70, 60],
        ("pcoreset", 0): [60, 90],
        ("random", 1): [10, 10],
        ("coreset", 1): [10, 30],
        ("pcoreset", 1): [40, 0],
    }
    settings = [SETTING, SETTING | {"dataset": "shapes"}]
    runs = grid(
        ["random", "coreset", "pcoreset"],
        settings,
        [0, 1],
        lambda s, i, seed: float(scores[s, i][seed]),
    )
    seeds = statistics.ranking(runs, "seed")
    assert seeds.ranks.to_numpy().tolist() == [[3, 1, 2], [2.5, 2.5, 1], [2.5, 2.5, 1], [2, 1, 3]]
    assert seeds.table["strategy"].tolist() == ["coreset", "pcoreset", "random"]
    assert seeds.table["mean_rank"].tolist() == [1.75, 1.75, 2.5]
    means = statistics.ranking(runs)  # means over the seeds: 55, 65, 75 and 10, 20, 20
    assert means.ranks.to_numpy().tolist() == [[3, 2, 1], [3, 1.5, 1.5]]
    assert (means.blocks, means.left_out) == ("settings", 0)
    clap = grid(
        ["random", "coreset", "pcoreset"],
        [SETTING | {"teacher": "clap"}],
        [0],
        lambda s, *_: 90.0 if s == "random" else 0,
    )
    together = statistics.ranking(
        table(runs, clap), "dataset"
    )  # digits: (55 + 90) / 2, 65 / 2, 75 / 2
    assert together.ranks.loc["digits"].tolist() == [1, 3, 2]
    assert len(statistics.ranking(table(runs, clap)).ranks) == 3


def test_friedman_is_scipys_and_handles_ties():
    rng = np.random.default_rng(0)
    names = ["random", "coreset", "badge", "pcoreset"]
    scores = {(s, seed): rng.normal(names.index(s)) for s in names for seed in range(8)}
    runs = grid(names, [SETTING], range(8), lambda s, i, seed: scores[s, seed])
    found = statistics.ranking(runs, "seed")
    pivot = runs.pivot(index="seed", columns="strategy", values="accuracy_pct")
    assert found.friedman_p == pytest.approx(stats.friedmanchisquare(*pivot.to_numpy().T).pvalue)
    same = statistics.ranking(grid(names, [SETTING], range(3), lambda *_: 50.0), "seed")
    assert same.friedman_p == 1
    assert same.groups == [["random", "coreset", "badge", "pcoreset"]]
    assert np.isnan(
        statistics.ranking(
            grid(names[:2], [SETTING], range(3), lambda s, *_: len(s)), "seed"
        ).friedman_p
    )


def test_the_critical_difference_is_demsars():
    """Table 5 (a) and the example of section 3.2.2 in Demsar 2006: 4 classifiers, 14 data sets."""
    for strategies, q in ((2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (10, 3.164)):
        expected = q * (strategies * (strategies + 1) / (6 * 30)) ** 0.5
        assert statistics.nemenyi_critical_difference(strategies, 30) == pytest.approx(
            expected, rel=5e-4
        )
    assert statistics.nemenyi_critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert statistics.nemenyi_critical_difference(4, 14, level=0.9) == pytest.approx(
        1.12, abs=0.005
    )


def test_groups_are_the_largest_sets_within_the_critical_difference():
    def groups(*mean_ranks, blocks=30):
        ranks = pd.DataFrame([mean_ranks] * blocks, columns=list("abcde")[: len(mean_ranks)])
        return statistics.Ranking(ranks, "data sets", 0).groups

    assert statistics.nemenyi_critical_difference(5, 30) == pytest.approx(1.114, abs=0.001)
    assert groups(1.0, 2.0, 3.0, 4.0, 5.0) == [["a", "b"], ["b", "c"], ["c", "d"], ["d", "e"]]
    assert groups(1.0, 1.5, 2.0, 4.0, 5.2) == [["a", "b", "c"]]
    assert groups(3.0, 1.0, 2.9, 3.1, 5.0) == [["c", "a", "d"]]
    assert groups(1.0, 2.0, blocks=30) == []
    assert groups(1.0, 2.0, blocks=3) == [["a", "b"]]


def test_firsts_by_hand():
    shapes = SETTING | {"dataset": "shapes"}
    runs = table(
        run("random", 0, [90.0, 70, 70, 70, 70]), run("random", 1, [90.0, 70, 70, 70, 70]),
        run("coreset", 0, [10.0, 71, 60, 80, 69]), run("coreset", 1, [10.0, 71, 80, 60, 69]),
        run("pcoreset", 0, [10.0, 72, 60, 60, 80]), run("pcoreset", 1, [10.0, 68, 60, 60, 80]),
        run("random", 0, [0.0, 9, 9, 9, 9], shapes),
        run("pcoreset", 0, [0.0, 8, 10, 12, 14], shapes),
        run("coreset", 0, [99.0, 99, 99, 99, 99], PLAIN),
    )  # fmt: skip
    lead = statistics.leads(runs).set_index(["dataset", "strategy", "round"])["lead"].sort_index()
    assert lead["digits", "coreset"].to_dict() == {1: 1, 2: 0, 3: 0, 4: -11}
    assert lead["shapes", "pcoreset"].tolist() == [-1, 1, 3, 5]
    count = statistics.firsts(runs).set_index("strategy")
    assert count.loc["pcoreset", ["first", "tied", "of", "after_2", "of_after_2"]].tolist() == [
        4,
        0,
        8,
        3,
        4,
    ]
    assert count.loc["coreset", ["first", "tied", "of", "after_2", "of_after_2"]].tolist() == [
        1,
        2,
        4,
        0,
        2,
    ]  # digits only
    assert count.loc["random", ["first", "tied", "of"]].tolist() == [1, 2, 8]
    assert count.loc["coreset", "mean_lead"] == pytest.approx(-10 / 4)
    assert count.index[0] == "pcoreset"
    assert statistics.firsts(runs, distill=False).empty  # a single strategy


def test_gain_figures_show_the_gains(two_seeds):
    figure = plots.gain_intervals(two_seeds)
    assert [t.name for t in figure.data] == ["first round", "mean of the rounds", "last round"]
    assert [list(t.x) for t in figure.data] == [[31, 31], [20, 14], [11, -4]]
    with pytest.raises(ValueError, match="no gain to show"):
        plots.gain_intervals(two_seeds[two_seeds["distill"]])


def test_figures_take_the_tidy_table(two_seeds):
    figure = plots.learning_curves(two_seeds)
    assert figure.data[0].name == "random"
    assert list(figure.data[0].y) == [61, 70, 82]
    assert list(plots.learning_curves(two_seeds, value="calibration_error_pct").data[0].y) == [
        39,
        30,
        18,
    ]
    assert list(plots.aulc_intervals(two_seeds).data[0].x) == [pytest.approx(71), pytest.approx(73)]


def with_queries(strategy, seed, uncertainty, imbalance, **setting):
    """A run of three rounds whose last one has no query; diversity equals uncertainty."""
    values = [uncertainty, uncertainty, np.nan]
    columns = {"query_uncertainty": values, "query_imbalance": [imbalance, imbalance, np.nan]}
    columns |= dict.fromkeys(("query_feature_diversity", "query_probability_diversity"), values)
    purity = {"cluster_purity_pct": [0.0, 10 * uncertainty, 30 * uncertainty]}
    return run(strategy, seed, [50.0, 60, 70], **setting).assign(**columns, **purity)


def test_queries_are_ranked_by_hand():
    runs = table(
        with_queries("random", 0, 0.2, 0.1), with_queries("random", 1, 0.4, 0.1),
        with_queries("pcoreset", 0, 0.8, 0.3), with_queries("pcoreset", 1, 0.8, 0.3),
        with_queries("badge", 0, 0.9, 0.2),
    )  # fmt: skip
    means = statistics.paired_means(runs, "cluster_purity_pct")
    assert means["pcoreset"].tolist() == [16, 16]  # of 8 and 24: round 0 is left out
    assert np.isnan(means.loc[1, "badge"])
    assert statistics.paired_means(
        runs.drop(columns="cluster_purity_pct"), "cluster_purity_pct"
    ).empty
    both = runs[runs["strategy"] != "badge"]
    found = statistics.query_diagnostics(both).set_index(["diagnostic", "strategy"])
    assert found.loc[("uncertainty", "random"), ["mean", "n", "rank"]].tolist() == pytest.approx(
        [0.3, 2, 2]
    )
    assert found.loc[("class balance", "random"), "mean"] == pytest.approx(0.9)
    assert found.loc[("class balance", "random"), "rank"] == 1
    figure = plots.diagnostics(both)
    assert "class balance: random (0.90)" in figure.alt
    assert figure.data[0].z.tolist() == [[2, 1, 2, 2], [1, 2, 1, 1]]
    with pytest.raises(ValueError, match="did not record what their queries look like"):
        plots.diagnostics(both.drop(columns=list(statistics.DIAGNOSTICS.values())))
