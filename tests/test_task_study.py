"""Statistics over tasks against worked examples, and advice for a new task."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_statistics import PLAIN, SETTING, run, table

from activekd_lite import cli
from activekd_lite.analysis import tasks
from activekd_lite.analysis.advice import advise
from activekd_lite.analysis.card import TaskCard


def leads_of(*per_task):
    rows = [
        (f"task {i}", "zero-shot", seed, lead)
        for i, leads in enumerate(per_task)
        for seed, lead in enumerate(leads)
    ]
    return pd.DataFrame(rows, columns=["dataset", "teacher", "seed", "lead"])


def test_leads_are_paired_by_seed_within_each_task_and_teacher():
    shapes, shuffled = SETTING | {"dataset": "shapes"}, SETTING | {"teacher": "zero-shot+shuffled"}
    results = table(
        *(run("random", seed, [50, 60 + seed]) for seed in (0, 1)),
        *(run("pcoreset", seed, [50, 64 + 3 * seed]) for seed in (0, 1)),
        run("coreset", 0, [50, 70]),
        *(run("random", seed, [10, 20], shapes) for seed in (0, 1)),
        run("pcoreset", 0, [10, 18], shapes),  # seed 1 is missing
        run("random", 0, [50, 60], shuffled),
        run("pcoreset", 0, [50, 60], shuffled),
        run("random", 0, [40, 40], PLAIN),
        run("pcoreset", 0, [40, 44], PLAIN),
    )
    leads = tasks.paired_leads(results)
    assert leads.values.tolist() == [
        ["digits", "zero-shot", 0, 2.0],
        ["digits", "zero-shot", 1, 3.0],
        ["digits", "zero-shot+shuffled", 0, 0.0],
        ["shapes", "zero-shot", 0, -1.0],
    ]
    assert tasks.paired_leads(results, distill=False).values.tolist() == [
        ["digits", "none", 0, 2.0]  # once, although two teachers share it
    ]
    over_coreset = tasks.paired_leads(results, against="coreset")
    assert over_coreset.values.tolist() == [["digits", "zero-shot", 0, -3.0]]
    with pytest.raises(ValueError, match="'pcoreset' and 'badge'"):
        tasks.paired_leads(results, against="badge")


def test_the_lead_of_a_task_is_the_mean_of_its_seeds():
    found = tasks.task_leads(leads_of([1, 3], [5]))
    assert found["lead"].tolist() == [2, 5]
    assert found["n"].tolist() == [2, 1]
    assert found["half_width"][0] == pytest.approx(stats.t.ppf(0.975, 1) * 1)
    assert np.isnan(found["half_width"][1])


def test_the_interval_over_tasks_covers_the_spread_of_tasks_and_seeds():
    rng = np.random.default_rng(0)
    true = rng.normal(2, 1, 40)
    mean, low, high = tasks.mean_over_tasks(leads_of(*(t + rng.normal(0, 0.5, 5) for t in true)))
    error = np.hypot(true.std() / 40**0.5, 0)  # the seeds' share is small
    assert mean == pytest.approx(true.mean(), abs=0.15)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    # Tasks that agree: only the seeds vary.
    _, low, high = tasks.mean_over_tasks(leads_of(*([[1.0, 3.0]] * 30)))
    assert (high - low) / 2 == pytest.approx(1.96 * (1 / 2**0.5) / 30**0.5, rel=0.15)
    with pytest.raises(ValueError, match="1 tasks"):
        tasks.mean_over_tasks(leads_of([1, 2]))


def test_the_intervals_of_a_regression_cover_the_true_slopes():
    rng, covered = np.random.default_rng(1), []
    for _ in range(200):
        x = rng.normal(size=(25, 2))
        cards = pd.DataFrame(x * [10, 0.5] + [40, 2], columns=["gap", "classes"])
        true = [3 * x[:, 0].std(ddof=1), 0]  # per standard deviation; classes play no part
        found = tasks.regress(3 * x[:, 0] + rng.normal(0, 0.5, 25), cards)
        assert found["predictor"].tolist() == ["gap", "classes"]
        assert set(found["n"]) == {25}
        covered.append(abs(found["slope"] - true) < found["half_width"])
    assert 0.9 < np.mean(covered) < 0.995


def test_the_jackknife_of_one_predictor_is_that_of_the_textbook():
    x, y = np.array([0.0, 1, 2, 3, 5]), np.array([0.0, 2, 1, 4, 6])
    spread = x.std(ddof=1)
    without = [stats.linregress(np.delete(x, i), np.delete(y, i)).slope * spread for i in range(5)]
    error = np.sqrt(4 / 5 * ((np.array(without) - np.mean(without)) ** 2).sum())
    found = tasks.regress(y, pd.DataFrame({"x": x})).iloc[0]
    assert found["slope"] == pytest.approx(stats.linregress(x, y).slope * spread)
    assert found["half_width"] == pytest.approx(stats.t.ppf(0.975, 3) * error)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": [1, 1, 1, 1]}, "differ"),
        ({"x": [1, 2, 3, np.nan]}, "known for all"),
        ({"x": [1, 2, 3]}, "4 values and 3 tasks"),
        ({"x": [1, 2, 3, 4], "y": [1, 0, 1, 0], "z": [0, 0, 1, 1]}, "at least 5"),
    ],
)
def test_a_regression_needs_enough_tasks_that_differ(columns, message):
    with pytest.raises(ValueError, match=message):
        tasks.regress([1.0, 2, 3, 4], pd.DataFrame(columns))


CARD = TaskCard(
    dataset="new",
    classes=10,
    pool_size=1000,
    imbalance_ratio=1.0,
    teacher="zero-shot",
    teacher_accuracy_pct=70.0,
    student="tiny-cnn",
    shots=1,
    seed=0,
    student_accuracy_pct=50.0,
    copy_accuracy_pct=40.0,
    gap_points=19.0,
    copy_gap_points=30.0,
    error_choices=2.0,
    error_choices_by_chance=4.0,
    error_concentration=2.0,
    cluster_purity_pct=70.0,
)


@pytest.fixture
def studied():
    """Three tasks of 5, 10 and 20 classes; PCoreSet's lead over random is 1, 2 and 4 points."""
    rows = {"few": (5, 10.0, 1), "some": (10, 20.0, 2), "many": (20, 30.0, 4)}
    cards = pd.DataFrame(
        [
            CARD.to_dict() | {"dataset": name, "classes": classes, "gap_points": gap}
            for name, (classes, gap, _) in rows.items()
        ]
    )
    runs = [
        run(strategy, 0, [50, 50 + 2 * lead], SETTING | {"dataset": name})
        for name, (*_, pcoreset) in rows.items()
        for strategy, lead in (("random", 0), ("coreset", 3), ("pcoreset", pcoreset))
    ]
    return cards, table(*runs)


def test_advice_counts_who_won_on_the_most_similar_tasks(studied):
    found = advise(CARD, *studied, count=2)
    assert found.nearest["dataset"].tolist() == ["some", "few"]  # by classes and gap
    assert found.nearest["over random"].tolist() == [2, 1]
    assert found.nearest["over coreset"].tolist() == [-1, -2]
    assert found.nearest["best"].tolist() == ["coreset", "coreset"]
    assert found.mean_ranks.to_dict() == {"coreset": 1, "pcoreset": 2, "random": 3}
    mean, half_width = found.lead("random")
    assert (mean, half_width) == (1.5, pytest.approx(stats.t.ppf(0.975, 1) * 0.5))
    assert found.outside == {}


def test_advice_uses_only_tasks_with_runs_that_have_a_teacher(studied):
    cards, results = studied
    results = results[results["dataset"] != "some"]
    plain = table(*(run(s, 0, [1, 2], PLAIN | {"dataset": "some"}) for s in ("random", "pcoreset")))
    assert set(advise(CARD, cards, table(results, plain)).nearest["dataset"]) == {"few", "many"}


def test_advice_for_a_task_beyond_the_study_says_so(studied, monkeypatch, capsys):
    monkeypatch.setattr("activekd_lite.cli.advise.load_study", lambda: studied)
    huge = replace(CARD, classes=1000)
    monkeypatch.setattr("activekd_lite.cli.card.compute", lambda *_: huge)
    assert cli.main(["advise"]) == 0
    out = capsys.readouterr().out
    assert "Unlike anything studied" in out
    assert "classes is 1000; in the study 5 to 20" in out
    monkeypatch.setattr("activekd_lite.cli.card.compute", lambda *_: CARD)
    assert cli.main(["advise"]) == 0
    out = capsys.readouterr().out
    assert "Unlike" not in out
    assert "pcoreset is ahead of random by +2.3 ± " in out
