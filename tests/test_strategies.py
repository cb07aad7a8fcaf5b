"""The contract that every strategy keeps; then the properties of each one."""

import importlib
import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

import activekd_lite as akd
from activekd_lite import strategies
from activekd_lite.strategies import STRATEGIES
from activekd_lite.utils.seeding import generator

DRAWN = (
    "random",
    "badge",
    "classbalanced",
    "classbalanced_reference",
    "typiclust",
    "pcb",
    "calibrated_entropy",
    "ccma",
)
# these allocate, or cluster, differently for each query size
NO_PREFIX = ("classbalanced_reference", "calibrated_entropy", "ccma")
# badge_reference starts at the lowest index, so a permutation changes its picks
DETERMINISTIC = tuple(name for name in STRATEGIES if name not in (*DRAWN, "badge_reference"))


def situation(n=60, classes=5, dim=8, labeled=7, seed=0):
    g = generator(seed, "situation")
    probs, features, teacher_probs = (
        torch.randn(n, width, generator=g) for width in (classes, dim, classes)
    )
    predictions = akd.Predictions((2 * probs).softmax(1), features, (2 * teacher_probs).softmax(1))
    index = torch.randperm(n, generator=g)[:labeled]
    state = akd.LabelState.empty(n).with_labels(
        index, torch.randint(classes, (labeled,), generator=g), round=0
    )
    return predictions, state


def pick(name, predictions, state, q, seed=0):
    return STRATEGIES[name](predictions, state, q, generator=generator(seed, "pick"))


@pytest.mark.parametrize("name", STRATEGIES)
class TestContract:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("q", [1, 2, 10, 53])
    def test_picks_are_new_unlabelled_and_as_many_as_asked(self, name, q, seed):
        predictions, state = situation(seed=seed)
        picks = pick(name, predictions, state, q)
        assert picks.shape == (q,)
        assert picks.dtype == torch.int64
        assert len(picks.unique()) == q
        assert (state.labels[picks] < 0).all()

    def test_picks_depend_only_on_the_seed(self, name):
        predictions, state = situation()
        first = pick(name, predictions, state, 10)
        torch.manual_seed(123)
        np.random.seed(123)  # noqa: NPY002 - the global states must not matter
        assert torch.equal(first, pick(name, predictions, state, 10))

    def test_degenerate_predictions(self, name):
        _, state = situation()
        for probs in (torch.full((60, 5), 0.2), torch.eye(5)[torch.zeros(60, dtype=torch.long)]):
            same = akd.Predictions(probs, torch.ones(60, 8), probs)
            expectation = warnings.catch_warnings(action="error")
            if name in ("coreset", "pcoreset", "pcoreset_teacher"):
                expectation = pytest.warns(UserWarning, match="pool exhausted")
            with expectation:
                picks = pick(name, same, state, 20)
            assert len(picks.unique()) == 20
            assert (state.labels[picks] < 0).all()

    def test_impossible_requests_are_refused_by_value(self, name):
        predictions, state = situation()
        with pytest.raises(
            ValueError, match="query_size = 0, but 53 of 60 images are unlabelled; ask for 1 to 53"
        ):
            pick(name, predictions, state, 0)
        with pytest.raises(ValueError, match="query_size = 54"):
            pick(name, predictions, state, 54)
        with pytest.raises(ValueError, match="predictions cover 60 images, but the pool has 61"):
            pick(name, predictions, akd.LabelState.empty(61), 5)

    def test_float16_features_whose_squares_overflow(self, name):
        """1000 squared is infinite in float16, yet the picks equal those in float64."""
        predictions, state = situation()
        p = predictions
        numbers = [x.half() for x in (p.probs, 1000 * p.features, p.teacher_probs)]
        half, double = akd.Predictions(*numbers), akd.Predictions(*(x.double() for x in numbers))
        assert torch.equal(pick(name, half, state, 20), pick(name, double, state, 20))


@pytest.mark.parametrize("q", [1, 4, 20])
@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in NO_PREFIX])
def test_the_first_q_of_q_plus_1_picks_are_the_q_picks(name, q):
    predictions, state = situation()
    assert torch.equal(pick(name, predictions, state, q + 1)[:q], pick(name, predictions, state, q))


@pytest.mark.parametrize("name", STRATEGIES)
def test_memory_stays_near_that_of_the_predictions(name, largest_allocation):
    """No strategy builds all pairs (144 MB here) or full gradient embeddings (154 MB).

    The predictions themselves take 5 MB.
    """
    predictions, state = situation(n=6000, classes=50, dim=64, labeled=20)
    with largest_allocation as seen:
        pick(name, predictions, state, 10)
    assert seen.bytes < 20 * 2**20


@pytest.mark.slow
def test_another_process_makes_the_same_choice():
    """Hashes, and so the order of sets, differ between processes; selections must not."""
    program = """
import json, sys
sys.path.insert(0, "tests")
from test_strategies import STRATEGIES, pick, situation
print(json.dumps({name: pick(name, *situation(), 12).tolist() for name in STRATEGIES}))
"""
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    options = {"env": os.environ | {"PYTHONHASHSEED": seed}, "text": True, "check": True}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, **options)
    expected = {name: pick(name, *situation(), 12).tolist() for name in STRATEGIES}
    assert json.loads(run.stdout) == expected


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_permuting_the_pool_permutes_the_picks(name):
    predictions, state = situation()
    order = torch.randperm(60, generator=generator(1, "permute"))
    permuted = akd.Predictions(
        predictions.probs[order], predictions.features[order], predictions.teacher_probs[order]
    )
    moved = akd.LabelState(state.labeled_round[order], state.labels[order])
    assert torch.equal(order[pick(name, permuted, moved, 10)], pick(name, predictions, state, 10))


def test_uncertainty_takes_the_largest_entropies():
    probs = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.9, 0.1], [0.6, 0.4], [0.5, 0.5]])
    state = akd.LabelState.empty(5).with_labels(torch.tensor([0]), torch.tensor([0]), 0)
    predictions = akd.Predictions(probs, torch.zeros(5, 2))
    assert pick("uncertainty", predictions, state, 3).tolist() == [1, 4, 3]
    assert strategies.entropy(torch.tensor([[1.0, 0.0]])).item() == 0


def test_margin_and_least_confidence_look_at_the_largest_probabilities():
    probs = torch.tensor([[0.50, 0.49, 0.01], [0.4, 0.3, 0.3], [0.9, 0.1, 0.0], [0.6, 0.2, 0.2]])
    predictions, nothing = akd.Predictions(probs, torch.zeros(4, 2)), akd.LabelState.empty(4)
    assert pick("margin", predictions, nothing, 4).tolist() == [0, 1, 3, 2]
    assert pick("least_confidence", predictions, nothing, 4).tolist() == [1, 0, 3, 2]


def blobs(sizes, spread=0.05, seed=0):
    """Clusters around the axes, of these sizes: predictions of the axis, and the axis (N,)."""
    g = generator(seed, "blobs")
    axis = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    eye = torch.eye(len(sizes))[axis]
    features = eye + spread * torch.randn(len(axis), len(sizes), generator=g)
    return akd.Predictions((4 * eye).softmax(1), features), axis


def test_typiclust_picks_the_middle_of_the_largest_unlabelled_cluster():
    predictions, axis = blobs([20, 50, 30, 10])
    # all in the blob of 50: with the first pick there are as many clusters as blobs
    known = torch.tensor([25, 40, 60])
    state = akd.LabelState.empty(110).with_labels(known, torch.ones(3, dtype=torch.int64), 0)
    picks = pick("typiclust", predictions, state, 3)
    assert axis[picks].tolist() == [2, 0, 3]
    x = torch.nn.functional.normalize(predictions.features, dim=1)
    for p in picks[:2]:
        blob = x[axis == axis[p]]
        typical = torch.cdist(blob, blob).sort(dim=1).values[:, 1:21].mean(dim=1)
        own = torch.cdist(x[p, None], blob).sort().values[0, 1:21].mean()
        assert own <= typical.min() + 1e-6


def naive_probcover(predictions, state, q):
    """The definition with the whole (N, N) matrix."""
    x = torch.nn.functional.normalize(predictions.features, dim=1)
    similarity, classes = x @ x.T, predictions.probs.argmax(1)
    other = similarity.masked_fill(classes[:, None] == classes, -2).amax(1)
    # the widest ball that is pure
    radius = next(r for r in sorted(other.tolist()) if (other > r).float().mean() <= 0.05)
    ball = similarity > radius
    uncovered, picks = ~ball[state.labeled_indices].any(0), []
    while len(picks) < q:
        degree = (ball & uncovered).sum(1)
        degree[state.labeled_indices] = degree[picks] = -1
        best = degree.max()
        assert best > 0, "the case is too small: everything is covered"
        tied = torch.nonzero(degree == best).flatten().tolist()
        picks.append(max(tied, key=lambda i: float(x[i] @ x.mean(0))))
        uncovered &= ~ball[picks[-1]]
    return picks


@pytest.mark.parametrize("seed", range(4))
def test_probcover_equals_the_matrix_of_all_balls(seed, monkeypatch):
    predictions, state = situation(n=300, labeled=3, seed=seed)
    features = predictions.features
    near = akd.Predictions(features[:, :5].softmax(1), features)  # classes follow the features
    expected = naive_probcover(near, state, 12)
    assert pick("probcover", near, state, 12).tolist() == expected
    monkeypatch.setattr(sys.modules["activekd_lite.strategies.probcover"], "CHUNK_NUMBERS", 1000)
    assert pick("probcover", near, state, 12).tolist() == expected


def test_coreset_names_images_whose_features_are_zero():
    predictions, state = situation()
    predictions.features[41] = 0
    with pytest.raises(
        ValueError, match="features of 1 images are all 0, first at pool index 41.*choose pcoreset"
    ):
        pick("coreset", predictions, state, 5)


def test_probcover_starts_again_once_everything_is_covered():
    predictions, axis = blobs([20, 50, 30])
    picks = pick("probcover", predictions, akd.LabelState.empty(100), 6)
    assert axis[picks].tolist() == [1, 2, 0, 1, 2, 0]


def test_pcoreset_teacher_is_pcoreset_in_the_teachers_space():
    predictions, state = situation()
    as_student = akd.Predictions(predictions.teacher_probs, predictions.features)
    assert torch.equal(
        pick("pcoreset_teacher", predictions, state, 10), pick("pcoreset", as_student, state, 10)
    )
    cold = pick("pcoreset_teacher", predictions, akd.LabelState.empty(60), 10)
    p = predictions.teacher_probs.double()
    assert cold[0] == (p - p.mean(0)).norm(dim=1).argmin()
    started = akd.LabelState.empty(60).with_labels(cold[:1], torch.tensor([0]), 0)
    assert torch.equal(cold[1:], pick("pcoreset_teacher", predictions, started, 9))
    with pytest.raises(ValueError, match="run with a teacher"):
        pick("pcoreset_teacher", as_student, state, 10)


def test_badge_reference_is_farthest_first_among_embeddings_of_norm_1():
    predictions, state = situation()
    unlabeled = state.unlabeled_indices
    p, x = predictions.probs[unlabeled].double(), predictions.features[unlabeled].double()
    embedding = torch.einsum(
        "nc,nf->ncf", torch.nn.functional.one_hot(p.argmax(1), 5) - p, x
    ).flatten(1)
    embedding /= embedding.norm(dim=1, keepdim=True)
    picks = [0]
    while len(picks) < 12:
        picks.append(int(torch.cdist(embedding, embedding[picks]).amin(dim=1).argmax()))
    assert torch.equal(pick("badge_reference", predictions, state, 12), unlabeled[picks])


def test_pcoreset_by_hand():
    """Five points of the 3-class simplex, the first labelled; squared distances by hand."""
    probs = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0.5, 0.5, 0], [0, 0.4, 0.6], [0.9, 0.1, 0]])
    state = akd.LabelState.empty(5).with_labels(torch.tensor([0]), torch.tensor([0]), 0)
    # to p0: p1 2.00, p2 0.50, p3 1.52, p4 0.02, so p1
    # to {p0, p1}: p2 0.50, p3 0.72, p4 0.02, so p3; then p2
    predictions = akd.Predictions(probs, torch.zeros(5, 2))
    assert pick("pcoreset", predictions, state, 4).tolist() == [1, 3, 2, 4]


def test_pcoreset_reversed_by_hand():
    """The points of the test above; squared distances by hand."""
    probs = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0.5, 0.5, 0], [0, 0.4, 0.6], [0.9, 0.1, 0]])
    state = akd.LabelState.empty(5).with_labels(torch.tensor([0]), torch.tensor([0]), 0)
    # to p0: p1 2.00, p2 0.50, p3 1.52, p4 0.02, so p4
    # to {p0, p4}: p1 1.62, p2 0.32, p3 1.26, so p2; then p1 0.50, p3 0.62, so p1
    predictions = akd.Predictions(probs, torch.zeros(5, 2))
    assert pick("pcoreset_reversed", predictions, state, 4).tolist() == [4, 2, 1, 3]


def test_pcb_balances_predicted_classes_among_the_most_uncertain():
    """Of 40 images, the last 4 have the largest entropy; image 0 is labelled as class 0."""
    top = 0.5 + 0.01 * (39 - torch.arange(40))
    answers = torch.zeros(40, dtype=torch.int64)
    answers[[20, 38]] = 1  # 20 is not uncertain enough
    predictions = akd.Predictions(
        torch.stack([top, 1 - top], dim=1), torch.zeros(40, 2), torch.eye(2)[answers]
    )
    state = akd.LabelState.empty(40).with_labels(torch.tensor([0]), torch.tensor([0]), 0)
    found = [pick("pcb", predictions, state, 6, seed).tolist() for seed in range(10)]
    assert {picks[0] for picks in found} == {38}  # class 1 has no label
    assert {picks[1] for picks in found} == {36, 37, 39}  # class 0 at random; nothing else is left
    assert all(set(picks[:4]) == {36, 37, 38, 39} for picks in found)
    assert all(picks[4:] == [35, 34] for picks in found)  # then by entropy


def naive_uherding(predictions, state, q):
    """The definition with the whole kernel matrix."""
    x = torch.nn.functional.normalize(predictions.features.double(), dim=1)
    best = predictions.probs.double().sort(dim=1, descending=True).values
    weight, known = 1 - best[:, 0] + best[:, 1], state.labeled_indices.tolist()
    weight[known] = 0
    sigma = torch.cdist(x[known], x[known])[torch.ones(len(known), len(known)).triu(1) == 1].min()
    kernel = (-(torch.cdist(x, x) ** 2) / sigma**2).exp()
    picks = []
    while len(picks) < q:
        covered = kernel[known + picks].amax(dim=0)
        gain = ((kernel - covered).clamp(min=0) * weight).sum(dim=1)
        gain[known + picks] = -1
        picks.append(int(gain.argmax()))
    return picks


@pytest.mark.parametrize("seed", range(4))
def test_uherding_equals_the_whole_kernel_matrix(seed):
    predictions, state = situation(seed=seed)
    assert pick("uherding", predictions, state, 15).tolist() == naive_uherding(
        predictions, state, 15
    )


def test_uherding_by_hand():
    """Unit features by their angle; two labelled at 0 and 90 degrees, so sigma^2 is 2."""
    angles = torch.deg2rad(torch.tensor([0.0, 90, 45, 180, 170]))
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    probs = torch.tensor([[1.0, 0], [1, 0], [0.5, 0.5], [0.75, 0.25], [1, 0]])
    state = akd.LabelState.empty(5).with_labels(torch.tensor([0, 1]), torch.tensor([0, 1]), 0)
    # k is exp(cos - 1). Covered: 45 degrees 0.746, 180 degrees 0.368; uncertainty 1, 0.5 and 0
    # gains: 45 degrees 0.254, 180 degrees 0.5 * 0.632 = 0.316, 170 degrees 0.5 * 0.617 = 0.308
    # after 180 degrees there is nothing left for 170 degrees
    picks = pick("uherding", akd.Predictions(probs, features), state, 3)
    assert picks.tolist() == [3, 2, 4]


def test_the_conformal_score_by_hand():
    from activekd_lite.strategies.ccma import conformal_score, prediction_sets

    half, sure = torch.tensor([[0.5, 0.5]]).double(), torch.tensor([[1.0, 0.0]]).double()
    mixed = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    score = (2 / 3) * (mixed - np.log(2) / 2) + (1 / 3) * np.log(2)  # w = 1 / (1 + 0.5)
    assert conformal_score(half, sure).item() == pytest.approx(score)
    assert conformal_score(sure, sure).item() == 0
    probs = torch.tensor([[0.7, 0.2, 0.08, 0.02], [0.4, 0.3, 0.19, 0.11]])
    assert prediction_sets(probs, 2).tolist() == [[True, True, False, False]] * 2
    unsure = torch.tensor([[0.6, 0.4, 0.0], [0.65, 0.35, 0.0], [0.34, 0.33, 0.33]])
    sets = prediction_sets(unsure, 1)  # the third largest is 0.4, but no set may be empty
    assert sets.tolist() == [[True, True, False], [True, True, False], [True, False, False]]


def two_blobs():
    """Six images in two directions of feature space, each with one in the middle: 0 and 3."""
    return torch.tensor([[1.0, 0], [1, 0.2], [1, -0.2], [0, 1.0], [0.2, 1], [-0.2, 1]])


def test_ccma_takes_one_of_each_cluster_of_the_highest_scores():
    """25 images of one direction on which all agree are no candidates: 40 of 46 are."""
    agreed = torch.tensor([[-1.0, 0.0]]).expand(25, 2)
    features = torch.cat([agreed, two_blobs().repeat(7, 1)[:42]])
    student = torch.cat([torch.eye(2)[:1].expand(25, 2), torch.full((42, 2), 0.5)])
    teacher = torch.eye(2)[:1].expand(67, 2)
    predictions = akd.Predictions(student, features, teacher)
    picks = pick("ccma", predictions, akd.LabelState.empty(67), 2)
    assert sorted((picks - 25).remainder(6).tolist()) == [0, 3]


def test_calibrated_entropy_by_hand():
    from activekd_lite.strategies.calibrated_entropy import calibrated, neighbors_mean
    from activekd_lite.strategies.contract import representatives

    probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]]).double()
    a, b = 0.6 / 0.85, 0.4 / 0.55  # means of the two largest: 0.9, 0.8 and 0.7, 0.4
    torch.testing.assert_close(calibrated(probs)[2], torch.tensor([a, b]).double() / (a + b))
    values, x = torch.tensor([1.0, 2, 4]).double(), torch.tensor([[1.0, 0], [1, 0.1], [1, 1]])
    assert neighbors_mean(values, x, neighbors=1).tolist() == [2, 1, 2]
    near, far = 1 / 1.01**0.5, 0.5**0.5  # cosines of image 0 with the others
    expected = (2 * near + 4 * far) / (near + far)
    assert neighbors_mean(values, x, neighbors=2)[0].item() == pytest.approx(expected)
    blobs = two_blobs()
    assert sorted(representatives(blobs, 2, seed=0).tolist()) == [0, 3]
    heavy = torch.tensor([1.0, 1, 100, 1, 1, 1])
    assert sorted(representatives(blobs, 2, 0, heavy).tolist()) == [2, 3]
    assert representatives(torch.ones(4, 2), 3, seed=0).tolist() == [0, 1, 2]
    everything = akd.Predictions(torch.full((6, 2), 0.5), blobs, torch.full((6, 2), 0.5))
    nothing = akd.LabelState.empty(6)
    assert sorted(pick("calibrated_entropy", everything, nothing, 2).tolist()) == [0, 3]


def test_coreset_compares_features_by_angle_and_pcoreset_probabilities():
    predictions, state = situation()
    scaled = akd.Predictions(predictions.probs, predictions.features * torch.rand(60, 1).add(0.5))
    assert torch.equal(pick("coreset", scaled, state, 10), pick("coreset", predictions, state, 10))
    other = akd.Predictions(predictions.probs, predictions.features.flip(0))
    assert torch.equal(pick("pcoreset", other, state, 10), pick("pcoreset", predictions, state, 10))
    assert not torch.equal(
        pick("coreset", other, state, 10), pick("coreset", predictions, state, 10)
    )


def naive_badge(predictions, state, q, g):
    """The same sampling on embeddings that are built in full, (U, C * F)."""
    unlabeled = state.unlabeled_indices
    p, x = predictions.probs[unlabeled].double(), predictions.features[unlabeled].double()
    a = torch.nn.functional.one_hot(p.argmax(1), p.shape[1]) - p
    embedding = torch.einsum("nc,nf->ncf", a, x).flatten(1)
    picks = [int(embedding.norm(dim=1).argmax())]
    for draw in torch.rand(q - 1, generator=g, dtype=torch.float64):
        weight = torch.cdist(embedding, embedding[picks]).amin(dim=1).square()
        weight[picks] = 0
        picks.append(int(torch.searchsorted(weight.cumsum(0), draw * weight.sum())))
    return unlabeled[picks]


@pytest.mark.parametrize("seed", range(5))
def test_badge_equals_the_embeddings_built_in_full(seed):
    predictions, state = situation(seed=seed)
    expected = naive_badge(predictions, state, 15, generator(seed, "pick"))
    assert torch.equal(pick("badge", predictions, state, 15, seed), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_badge_leaves_out_only_images_that_are_not_nearer(dtype, monkeypatch):
    """Clustered predictions, for which most distances are never computed."""
    module = importlib.import_module("activekd_lite.strategies.badge")
    computed, exact = [], module._Embeddings.distances

    def counted(self, rows, center):
        computed.append(len(rows))
        return exact(self, rows, center)

    monkeypatch.setattr(module._Embeddings, "distances", counted)
    g = torch.Generator().manual_seed(0)
    classes = torch.randint(40, (800,), generator=g)
    means = 4 * torch.randn(40, 40, generator=g) + 8 * torch.eye(40)
    probs = (means[classes] + torch.randn(800, 40, generator=g)).softmax(dim=1).to(dtype)
    features = torch.randn(40, 12, generator=g)[classes] + torch.randn(800, 12, generator=g)
    predictions = akd.Predictions(probs, features)
    state = akd.LabelState.empty(800).with_labels(torch.arange(5), torch.zeros(5).long(), round=0)
    expected = naive_badge(predictions, state, 60, generator(0, "pick"))
    assert torch.equal(pick("badge", predictions, state, 60), expected)
    assert computed[0] == 795
    assert sum(computed[1:]) < 0.5 * 795 * len(computed[1:])


def test_entropy_of_many_rows_is_that_of_each(monkeypatch):
    module = importlib.import_module("activekd_lite.strategies.uncertainty")
    probs = torch.rand(10, 4).softmax(dim=1)
    whole = module.entropy(probs)
    monkeypatch.setattr(module, "CHUNK", 3)
    assert torch.equal(module.entropy(probs), whole)


def test_classbalanced_gives_shares_by_inverse_labelled_frequency():
    """Labelled 1, 2 and 4 times: 1/1 : 1/2 : 1/4 of 7 picks is 4 : 2 : 1."""
    n = 67
    predicted = torch.arange(n) % 3
    labels = torch.tensor([0, 1, 1, 2, 2, 2, 2])
    state = akd.LabelState.empty(n).with_labels(torch.arange(7), labels, 0)
    picks = pick(
        "classbalanced", akd.Predictions(torch.eye(3)[predicted], torch.zeros(n, 2)), state, 7
    )
    assert torch.bincount(predicted[picks]).tolist() == [4, 2, 1]


def test_random_is_uniform():
    predictions, state = situation()
    counts = torch.bincount(
        torch.cat([pick("random", predictions, state, 10, s) for s in range(2000)]), minlength=60
    )
    assert counts[state.labeled_indices].sum() == 0
    share = counts[state.unlabeled_indices] / 2000
    assert (share - 10 / 53).abs().max() < 5 * (10 / 53 * 43 / 53 / 2000) ** 0.5


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_cold_start_works_or_names_strategies_for_it(name):
    predictions, _ = situation()
    nothing = akd.LabelState.empty(60)
    if not strategies.needs_labels(STRATEGIES[name]):
        picks = pick(name, predictions, nothing, 5)
        assert len(picks.unique()) == 5
        assert name in NO_PREFIX or torch.equal(pick(name, predictions, nothing, 4), picks[:4])
    else:
        with pytest.raises(
            ValueError,
            match="nothing is labelled.*random, uncertainty, .*pcoreset_teacher, badge_reference",
        ):
            pick(name, predictions, nothing, 5)


def test_an_unknown_strategy_is_refused():
    with pytest.raises(
        ValueError,
        match="unknown strategy 'pcore'; known are random, uncertainty, margin, least_confidence",
    ):
        strategies.get_strategy("pcore")
