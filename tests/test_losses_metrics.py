import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from activekd_lite import losses, metrics


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_tempered_kl_is_the_definition(temperature):
    g = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 4, generator=g, dtype=torch.float64)
    p, q = (teacher / temperature).softmax(1), (student / temperature).softmax(1)
    by_hand = temperature**2 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(losses.tempered_kl(student, teacher, temperature), by_hand)
    assert losses.tempered_kl(teacher, teacher, temperature) == pytest.approx(0, abs=1e-12)


def test_dual_head_loss_weighs_its_three_parts():
    g = torch.Generator().manual_seed(0)
    ce, kl, tl, ku, tu = torch.randn(5, 6, 4, generator=g)
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    parts = 0.5 * F.cross_entropy(ce, y) + 0.5 * (losses.tempered_kl(kl, tl, 3.0) + losses.tempered_kl(ku, tu, 3.0))
    torch.testing.assert_close(losses.dual_head_loss(ce, y, kl, tl, ku, tu, 3.0), parts)


def test_accuracy_and_calibration_by_hand():
    probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    labels = torch.tensor([0, 1, 1, 1])
    assert metrics.accuracy_pct(probs, labels) == 75.0
    # five bins: 0.6 and 0.7 share [0.6, 0.8): |0.6 + 0.7 - 2|; 0.9 and 0.8 share [0.8, 1]: |0.9 + 0.8 - 1|
    assert metrics.calibration_error_pct(probs, labels, bins=5) == pytest.approx(100 * (0.7 + 0.7) / 4, abs=1e-4)


def test_a_calibrated_predictor_has_no_calibration_error():
    g = torch.Generator().manual_seed(0)
    confidence = 0.5 + 0.5 * torch.rand(200_000, generator=g)
    labels = (torch.rand(200_000, generator=g) > confidence).long()
    assert metrics.calibration_error_pct(torch.stack([confidence, 1 - confidence], 1), labels) < 0.5


def test_covering_radius_by_hand():
    points, centers = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert metrics.covering_radius(points, centers) == pytest.approx(13**0.5)
    assert metrics.covering_radius(points[:0], centers) == 0
    with pytest.raises(ValueError, match="no centres"):
        metrics.covering_radius(points, centers[:0])


def test_intervals_are_students():
    values = [70.1, 72.3, 71.0, 69.9, 73.2]
    mean, half = metrics.mean_interval(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert np.isnan(metrics.mean_interval([70.0])[1])


def test_area_under_the_curve_is_the_mean_over_rounds():
    assert metrics.aulc_pct([50.0, 60.0, 80.0]) == pytest.approx(190 / 3)
    with pytest.raises(ValueError, match="no rounds"):
        metrics.aulc_pct([])


def test_paired_comparisons_are_scipys_test_and_counts_by_hand():
    values = pd.DataFrame({"a": [3.0, 4.0, 5.0, 7.0], "b": [2.0, 4.0, 4.5, 7.5], "c": [1.0, 2.0, 3.0, None]})
    table = metrics.paired_comparisons(values).set_index(["a", "b"])
    assert table["n"].tolist() == [3, 3, 3]  # the row without c is left out
    row = table.loc[("a", "b")]
    assert (row["wins"], row["ties"], row["losses"]) == (2, 1, 0)
    assert row["difference"] == pytest.approx(0.5)
    assert row["p"] == pytest.approx(stats.ttest_rel([3, 4, 5], [2, 4, 4.5]).pvalue)
    low, high = stats.ttest_rel([3, 4, 5], [2, 4, 4.5]).confidence_interval(0.95)
    assert row["half_width"] == pytest.approx((high - low) / 2)
    assert table.loc[("a", "c"), "p"] == 0  # always the same difference
    single = metrics.paired_comparisons(values[["a", "b"]].head(1))
    assert single[["p", "p_holm"]].isna().all(axis=None)
    with pytest.raises(ValueError, match="1 methods in 4 whole paired runs"):
        metrics.paired_comparisons(values[["a"]])


def test_holm_by_hand():
    np.testing.assert_allclose(metrics.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(metrics.holm([0.6, np.nan, 0.5]), [1.0, np.nan, 1.0])
    assert len(metrics.holm([])) == 0


def test_no_difference_at_all_is_no_finding():
    same = pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.0]})
    assert metrics.paired_comparisons(same)["p"].tolist() == [1.0]


def test_the_verdict_names_the_best_and_what_can_be_luck():
    rng = np.random.default_rng(0)
    luck = rng.normal(size=(8, 1)) + 0.1 * rng.normal(size=(8, 3))
    values = pd.DataFrame(luck + np.array([80, 85, 85.05]), columns=["random", "coreset", "pcoreset"])
    said = metrics.verdict(values)
    assert said.startswith("Over 8 paired runs pcoreset has the highest mean")
    assert "ahead of random by more than luck explains" in said
    assert "its lead over coreset can be luck" in said
    assert "says nothing about luck" in metrics.verdict(values.head(1))
