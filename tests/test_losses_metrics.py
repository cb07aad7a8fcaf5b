from itertools import product

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.cluster import KMeans

from activekd_lite import calibration, losses
from activekd_lite.analysis import metrics


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_tempered_kl_is_the_definition(temperature):
    g = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 4, generator=g, dtype=torch.float64)
    p, q = (teacher / temperature).softmax(1), (student / temperature).softmax(1)
    by_hand = temperature**2 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(losses.tempered_kl(student, teacher, temperature), by_hand)
    assert losses.tempered_kl(teacher, teacher, temperature) == pytest.approx(0, abs=1e-12)


def test_distillation_is_the_sum_over_the_images_it_is_on():
    g = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 10, 4, generator=g)
    labeled, unlabeled = (
        losses.tempered_kl(student[rows], teacher[rows], 3.0) for rows in (slice(6), slice(6, 10))
    )
    expected = {"both": labeled + unlabeled, "labeled": labeled, "unlabeled": unlabeled}
    for on in losses.DISTILL_ON:
        found = losses.kd_loss(student, teacher, 6, on=on, temperature=3.0)
        torch.testing.assert_close(found, expected[on])


def test_standardized_logits_forget_shift_and_size():
    g = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 4, generator=g, dtype=torch.float64)
    z = losses.standardized(teacher)
    torch.testing.assert_close(z.numpy(), stats.zscore(teacher.numpy(), axis=1))
    assert losses.standardized(torch.ones(2, 3)).eq(0).all()  # no division by 0
    loss, moved, raw = (
        losses.kd_loss(s, teacher, 3, standardize=on)
        for s, on in ((student, True), (7 * student - 2, True), (student, False))
    )
    torch.testing.assert_close(loss, moved)
    assert not torch.isclose(loss, raw)
    by_hand = sum(
        losses.tempered_kl(losses.standardized(student[p]), z[p]) for p in (slice(3), slice(3, 6))
    )
    torch.testing.assert_close(loss, by_hand)


@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 2.5])
def test_a_temperature_is_found_again(true_temperature):
    g = torch.Generator().manual_seed(0)
    probs = torch.randn(20_000, 5, generator=g).mul(1.5).softmax(dim=1).double()
    drawn = calibration.tempered(probs, true_temperature)
    labels = torch.multinomial(drawn, 1, generator=g).flatten()
    assert calibration.fit_temperature(probs, labels) == pytest.approx(true_temperature, rel=0.05)
    assert torch.equal(drawn.argsort(dim=1), probs.argsort(dim=1))
    torch.testing.assert_close(drawn.sum(dim=1), torch.ones(20_000).double())


def test_labels_that_are_all_right_do_not_make_a_student_certain():
    probs = torch.tensor([[0.9, 0.06, 0.04]]).repeat(9, 1)
    labels = torch.zeros(9, dtype=torch.int64)
    found = calibration.tempered(probs, calibration.fit_temperature(probs, labels))
    assert found[0, 0] == pytest.approx(9.5 / 10, abs=0.01)  # Jeffreys: (9 + 1/2) / (9 + 1)


def test_accuracy_and_calibration_by_hand():
    probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    labels = torch.tensor([0, 1, 1, 1])
    assert metrics.accuracy_pct(probs, labels) == 75.0
    # bins of 0.2: 0.6 and 0.7 share one, |0.6 + 0.7 - 2|; so do 0.9 and 0.8, |0.9 + 0.8 - 1|
    assert metrics.calibration_error_pct(probs, labels, bins=5) == pytest.approx(
        100 * (0.7 + 0.7) / 4, abs=1e-4
    )


def test_a_calibrated_predictor_has_no_calibration_error():
    g = torch.Generator().manual_seed(0)
    confidence = 0.5 + 0.5 * torch.rand(200_000, generator=g)
    labels = (torch.rand(200_000, generator=g) > confidence).long()
    assert metrics.calibration_error_pct(torch.stack([confidence, 1 - confidence], 1), labels) < 0.5


@given(st.lists(st.integers(0, 50), min_size=2, max_size=30).filter(any))
def test_class_imbalance_is_1_minus_the_normalised_entropy(counts):
    found = metrics.class_imbalance(counts)
    assert found == pytest.approx(1 - stats.entropy(counts, base=len(counts)), abs=1e-9)
    assert 0 <= found <= 1
    assert (found == 0) == (len(set(counts)) == 1)


def test_imbalance_by_hand():
    assert metrics.class_imbalance([7, 7, 7]) == 0
    assert metrics.class_imbalance([0, 9, 0]) == 1
    assert metrics.class_imbalance([5, 0, 5, 0]) == pytest.approx(0.5)
    assert metrics.class_imbalance([4]) == 0
    assert metrics.class_imbalance([0, 0]) is None
    assert metrics.imbalance_ratio([2, 8, 4]) == 4
    assert metrics.imbalance_ratio([0, 3]) is None
    assert metrics.imbalance_ratio([0, 0]) is None


def test_covering_radius_by_hand():
    points, centers = (
        torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]]),
        torch.tensor([[0.0, 0.0], [1.0, 1.0]]),
    )
    assert metrics.covering_radius(points, centers) == pytest.approx(13**0.5)
    assert metrics.covering_radius(points[:0], centers) == 0
    with pytest.raises(ValueError, match="no centres"):
        metrics.covering_radius(points, centers[:0])


def test_structure_of_probabilities_by_hand():
    probs = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    corners, classes = torch.eye(2), torch.tensor([0, 1])
    loss = metrics.nearest_neighbor_loss_pct(probs, torch.tensor([0, 1, 1]), corners, classes)
    assert loss == pytest.approx(100 / 3)  # the last one is nearest to the first corner
    swapped = metrics.nearest_neighbor_loss_pct(
        probs, torch.tensor([0, 1, 1]), corners, 1 - classes
    )
    assert swapped == pytest.approx(200 / 3)
    points = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert metrics.mean_nearest_distance(points, torch.zeros(1, 2)) == pytest.approx(3)
    assert metrics.mean_nearest_distance(points[:0], torch.zeros(1, 2)) == 0
    probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.45, 0.55]])
    assert metrics.cluster_purity_pct(probs, torch.tensor([0, 0, 1, 1, 0])) == 80
    assert metrics.cluster_purity_pct(probs, torch.tensor([1, 1, 0, 0, 0])) == 100
    # the mean of the first cluster moves away from the last image, which changes its cluster
    # means 0.85 and 0.3 of the first coordinate: 0.55 is nearer to the second
    probs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.3, 0.7], [0.3, 0.7], [0.55, 0.45]])
    assert metrics.cluster_purity_pct(probs, torch.tensor([0, 0, 1, 1, 1])) == 100
    one_class = torch.tensor([[0.9, 0.1], [0.6, 0.4]])
    assert metrics.cluster_purity_pct(one_class, torch.tensor([0, 1])) == 50


def test_scores_of_a_query_by_hand():
    probs = torch.tensor([[1.0, 0], [0, 1], [0.5, 0.5], [0.5, 0.5]])
    features = torch.tensor([[2.0, 0], [0, 3], [0, 1], [1, 0]])
    found = metrics.query_scores(probs, features, torch.tensor([0, 1, 2]))
    assert found["query_uncertainty"] == pytest.approx(1 / 3)  # entropies 0, 0 and log 2
    # all are sqrt(0.5) from the nearest; so are two random images in the root mean square
    assert found["query_probability_diversity"] == pytest.approx(1)
    # as unit vectors: sqrt(2), 0 and 0; root mean square distance 1
    assert found["query_feature_diversity"] == pytest.approx(2**0.5 / 3)
    single = metrics.query_scores(probs, features, torch.tensor([2]))
    assert single == {
        "query_uncertainty": pytest.approx(1),
        "query_feature_diversity": None,
        "query_probability_diversity": None,
    }
    nothing = metrics.query_scores(probs, features, torch.tensor([], dtype=torch.int64))
    assert nothing == dict.fromkeys(single)


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
    values = pd.DataFrame(
        {"a": [3.0, 4.0, 5.0, 7.0], "b": [2.0, 4.0, 4.5, 7.5], "c": [1.0, 2.0, 3.0, None]}
    )
    table = metrics.paired_comparisons(values).set_index(["a", "b"])
    assert table["n"].tolist() == [3, 3, 3]  # the row without c is left out
    row = table.loc[("a", "b")]
    assert (row["wins"], row["ties"], row["losses"]) == (2, 1, 0)
    assert row["difference"] == pytest.approx(0.5)
    assert row["p"] == pytest.approx(
        4 / 8
    )  # differences 1, 0, 0.5: two of the four sign patterns are as extreme
    low, high = stats.ttest_rel([3, 4, 5], [2, 4, 4.5]).confidence_interval(0.95)
    assert row["half_width"] == pytest.approx((high - low) / 2)
    assert table.loc[("a", "c"), "p"] == pytest.approx(
        2 / 8
    )  # 2, 2, 2: only equal signs are as extreme
    assert table["least"].tolist() == [3 * 2 / 8] * 3
    single = metrics.paired_comparisons(values[["a", "b"]].head(1))
    assert single[["p", "p_holm"]].isna().all(axis=None)
    with pytest.raises(ValueError, match="1 methods in 4 complete paired runs"):
        metrics.paired_comparisons(values[["a"]])


def test_the_permutation_test_is_the_enumeration_of_all_signs():
    rng = np.random.default_rng(0)
    for gap in (
        [0.3, -0.1, 0.2],
        [1.0, 1.0, -1.0, 2.0, 0.0],
        rng.normal(0.5, size=6),
        [0.7, -0.8, 0.8, 0.1, -0.8],
    ):
        means = [
            abs(np.mean(np.multiply(gap, signs))) for signs in product([1, -1], repeat=len(gap))
        ]
        expected = np.mean([mean >= abs(np.mean(gap)) - 1e-9 for mean in means])
        assert metrics.permutation_p(gap) == pytest.approx(expected)
        assert metrics.permutation_p(np.multiply(gap, -1e-12)) == pytest.approx(
            expected
        )  # independent of sign and unit
    assert metrics.permutation_p([0.0, 0.0]) == 1
    assert np.isnan(metrics.permutation_p([1.0]))


def test_the_permutation_test_agrees_with_scipys_t_test_on_a_bell_curve():
    gap = np.random.default_rng(1).normal(0.35, size=40)
    p = metrics.permutation_p(gap)
    assert p == pytest.approx(stats.ttest_1samp(gap, 0).pvalue, abs=0.01)
    assert 0.001 < p < 0.2
    assert metrics.permutation_p(gap) == p  # seeded


def test_the_smallest_p_value_depends_on_the_number_of_runs():
    for n in (2, 5, 9, 14):
        assert (
            metrics.permutation_p(np.arange(1.0, n + 1))
            == pytest.approx(metrics.smallest_p_holm(n, 1))
            == 2 / 2**n
        )
    assert metrics.permutation_p(np.ones(40)) == pytest.approx(metrics.smallest_p_holm(40, 1))
    values = pd.DataFrame(
        {"a": np.arange(6) * 2.0, "b": np.arange(6) * 1.0 - 1, "c": -np.arange(6) * 3.0 - 9}
    )
    table = metrics.paired_comparisons(values)
    assert (table["p_holm"] == table["least"]).all()  # the smallest that six runs allow
    assert table["least"][0] == pytest.approx(3 * 2 / 64)
    assert [metrics.runs_needed(m) for m in (1, 3, 15)] == [6, 7, 10]
    for m in (1, 3, 15):
        n = metrics.runs_needed(m)
        assert metrics.smallest_p_holm(n, m) < 0.05 <= metrics.smallest_p_holm(n - 1, m)


def test_holm_by_hand():
    np.testing.assert_allclose(metrics.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(metrics.holm([0.6, np.nan, 0.5]), [1.0, np.nan, 1.0])
    assert len(metrics.holm([])) == 0


def test_equal_methods_have_a_p_value_of_1():
    same = pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.0]})
    assert metrics.paired_comparisons(same)["p"].tolist() == [1.0]


def test_the_verdict_names_the_best_and_which_leads_are_significant():
    rng = np.random.default_rng(0)
    luck = rng.normal(size=(8, 1)) + 0.1 * rng.normal(size=(8, 3))
    values = pd.DataFrame(
        luck + np.array([80, 85, 85.05]), columns=["random", "coreset", "pcoreset"]
    )
    assert metrics.verdict(values) == (
        "pcoreset has the highest mean over 8 paired runs (85.4): "
        "significantly ahead of random; not significantly ahead of coreset."
    )
    assert "a single run per method" in metrics.verdict(values.head(1))
    few = metrics.verdict(values.head(5))
    assert "5 paired runs are too few" in few
    assert "for 3 comparisons is 0.19); at least 7 are needed" in few
    assert "ahead of" not in few


def test_confusions_by_hand():
    labels, predicted = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 0, 0])
    matrix = metrics.confusion_matrix(labels, predicted, 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [2, 0, 0]]
    assert metrics.without_diagonal(matrix).tolist() == [[0, 1, 0], [0, 0, 0], [2, 0, 0]]


def test_confusions_are_scikit_learns():
    g = torch.Generator().manual_seed(0)
    labels, predicted = torch.randint(5, (2, 200), generator=g)
    expected = sklearn.metrics.confusion_matrix(
        labels, predicted, labels=range(6)
    )  # class 5 never occurs
    assert metrics.confusion_matrix(labels, predicted, 6).tolist() == expected.tolist()


def test_perplexity_by_hand():
    assert metrics.perplexity(torch.tensor([7, 7, 0, 7])) == pytest.approx(3)
    assert metrics.perplexity(torch.tensor([9, 0])) == pytest.approx(1)
    assert metrics.perplexity(torch.tensor([[2, 2], [4, 0]])) == pytest.approx(
        2**0.5
    )  # half of the images have an entropy of 1 bit
    assert metrics.perplexity(torch.tensor([[1, 1], [6, 0], [0, 0]])) == pytest.approx(
        2**0.25
    )  # rows are weighted by their sums
    assert np.isnan(metrics.perplexity(torch.zeros(2, 2)))


def test_few_confusions_hold_most_errors_by_hand():
    errors = torch.tensor([[0, 6, 1], [2, 0, 0], [1, 0, 0]])
    found = [metrics.pairs_for_share(errors, share) for share in (0.1, 0.6, 0.61, 2 / 3, 0.9, 1.0)]
    assert found == [1, 1, 2, 2, 3, 4]
    assert metrics.pairs_for_share(torch.zeros(3, 3)) == 0


def test_chance_errors_keep_what_is_missed_and_forget_the_true_class():
    errors = torch.tensor([[0, 9000, 0, 0], [0, 0, 3000, 0], [0, 0, 0, 0], [0, 0, 3000, 0]])
    dealt = metrics.chance_errors(errors, torch.Generator().manual_seed(0))
    assert torch.equal(dealt.sum(dim=1), errors.sum(dim=1))
    assert dealt.diagonal().sum() == 0
    # class 1 is a wrong answer 9000 times, class 2 6000 times: 60 % and 40 % if both are possible
    assert dealt[0].tolist() == pytest.approx([0, 5400, 3600, 0], abs=150)
    assert dealt[1].tolist() == [0, 0, 3000, 0]
    assert dealt[3].tolist() == pytest.approx([0, 1800, 1200, 0], abs=100)
    assert torch.equal(dealt, metrics.chance_errors(errors, torch.Generator().manual_seed(0)))


def test_permuted_classes_keep_each_class_and_break_what_goes_together():
    g = torch.Generator().manual_seed(0)
    twin = (
        torch.rand(4000, 1, generator=g) / 4
    )  # two classes that always go together, and a constant third
    probs = torch.cat(
        [twin, twin, torch.full_like(twin, 1e6)], dim=1
    )  # the constant dominates: scaling changes nothing
    dealt = 1e6 * metrics.permuted_classes(probs, torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        dealt.sort(dim=0).values, probs.sort(dim=0).values, rtol=1e-4, atol=1e-6
    )
    assert abs(torch.corrcoef(dealt[:, :2].T)[0, 1]) < 0.1
    probs = torch.rand(50, 4, generator=g).softmax(1)
    torch.testing.assert_close(metrics.permuted_classes(probs, g).sum(dim=1), torch.ones(50))


def test_shuffled_doubt_keeps_answer_and_confidence():
    probs = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4]]).repeat_interleave(
        3000, dim=0
    )
    dealt = metrics.shuffled_doubt(probs, torch.Generator().manual_seed(0))
    torch.testing.assert_close(dealt.max(dim=1), probs.max(dim=1))
    torch.testing.assert_close(dealt.sort(dim=1).values, probs.sort(dim=1).values)
    second = metrics.confusion_matrix(dealt.argmax(dim=1), dealt.topk(2).indices[:, 1], 4)
    assert second[0].tolist() == pytest.approx([0, 1000, 1000, 1000], abs=100)
    assert second[3].tolist() == pytest.approx([1000, 1000, 1000, 0], abs=100)


def test_balls_by_hand():
    points, groups = (
        torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0], [1.0, 3.0]]),
        torch.tensor([3, 3, 7, 3]),
    )
    centers, radii = metrics.balls(points, groups)
    assert centers.tolist() == [[1, 1], [5, 5]]
    assert radii.tolist() == [2, 0]
    assert metrics.balls(points, groups, share=0.5)[1].tolist() == pytest.approx([2**0.5, 0])
    assert metrics.balls(points, groups, share=0.9)[1].tolist() == [
        2,
        0,
    ]  # 0.9 of three members is all of them


def test_explained_share_by_hand():
    points = torch.tensor(
        [[0.0], [2.0], [10.0], [12.0]]
    )  # 36 + 16 + 16 + 36 about 6; 1 + 1 + 1 + 1 about 1 and 11
    assert metrics.explained_share(points, torch.tensor([0, 0, 5, 5])) == pytest.approx(1 - 4 / 104)
    assert metrics.explained_share(points, torch.tensor([2, 2, 2, 2])) == pytest.approx(0)
    assert metrics.explained_share(points, torch.tensor([0, 1, 2, 3])) == pytest.approx(1)
    with pytest.raises(ValueError, match="all points are equal"):
        metrics.explained_share(torch.ones(3, 2), torch.tensor([0, 1, 1]))


def test_explained_share_is_what_k_means_reports():
    points = torch.rand(300, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = KMeans(7, n_init=1, random_state=0).fit(points.numpy())
    total = (points - points.mean(dim=0)).square().sum().item()
    share = metrics.explained_share(points, torch.from_numpy(found.labels_))
    assert share == pytest.approx(1 - found.inertia_ / total, abs=1e-4)


def test_same_errors_by_hand():
    labels, one, two = torch.tensor([[0, 0, 0, 1, 2, 2], [1, 1, 2, 1, 0, 1], [1, 2, 2, 0, 2, 1]])
    # both are wrong on images 0, 1, 2 and 5, and differ on one of them
    assert (
        metrics.same_error_pct(one, two, labels) == metrics.same_error_pct(two, one, labels) == 75
    )
    assert np.isnan(metrics.same_error_pct(one, labels, labels))


@pytest.fixture
def two_balls():
    """Answers 0 and 1 of a teacher, 12 images each, the first with labels 0 and 2: (24, 3)."""
    g = torch.Generator().manual_seed(0)
    noise = 0.05 * torch.rand(24, 3, generator=g, dtype=torch.float64)
    centers = torch.tensor([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2]]).double().repeat_interleave(12, dim=0)
    probs = centers + noise
    labels = torch.tensor([0] * 6 + [2] * 6 + [1] * 12)
    return probs / probs.sum(dim=1, keepdim=True), labels


@pytest.mark.parametrize("kd_weight", [0.2, 0.5, 0.8])
def test_an_ideal_student_shrinks_and_splits_the_balls(two_balls, kd_weight):
    teacher, labels = two_balls
    student = kd_weight * teacher + (1 - kd_weight) * F.one_hot(labels, 3)
    found = metrics.ball_shrinkage(teacher, student, labels, least=6)
    parts = found.parts
    kinds = parts[["answer", "label", "images"]].to_numpy().tolist()
    assert kinds == [[0, 0, 6], [0, 2, 6], [1, 1, 12]]
    assert found.ratio == pytest.approx(kd_weight)
    assert parts["ratio"].to_list() == pytest.approx([kd_weight] * 3)
    assert parts["implied_lambda"].to_list() == pytest.approx([1 - kd_weight] * 3)
    assert parts["shift"].to_list() == pytest.approx([1 - kd_weight] * 3)
    assert parts["student_apart"].to_list() == [None, True, None]
    assert (found.split_share, found.teacher_split_share) == (1, 0)


def test_a_copy_of_the_teacher_neither_shrinks_nor_splits(two_balls):
    teacher, labels = two_balls
    found = metrics.ball_shrinkage(teacher, teacher, labels, least=6)
    assert found.ratio == 1
    assert found.parts["shift"].abs().max() == 0
    assert found.split_share == found.teacher_split_share == 0
    nothing = metrics.ball_shrinkage(teacher, teacher, labels, least=13)
    assert len(nothing.parts) == 0
    assert np.isnan([nothing.ratio, nothing.split_share, nothing.teacher_split_share]).all()
