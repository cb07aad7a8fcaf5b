"""One contract, one test that every strategy passes; then what each one promises beyond it."""

import pytest
import torch

import activekd_lite as akd
from activekd_lite import strategies
from activekd_lite.seeding import generator
from activekd_lite.strategies import STRATEGIES

DETERMINISTIC = ("uncertainty", "coreset", "pcoreset")  # the others draw


def situation(n=60, classes=5, dim=8, labeled=7, seed=0):
    g = generator(seed, "situation")
    predictions = akd.Predictions((2 * torch.randn(n, classes, generator=g)).softmax(1), torch.randn(n, dim, generator=g))
    index = torch.randperm(n, generator=g)[:labeled]
    state = akd.LabelState.empty(n).with_labels(index, torch.randint(classes, (labeled,), generator=g), round=0)
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

    def test_the_seed_alone_decides(self, name):
        predictions, state = situation()
        first = pick(name, predictions, state, 10)
        torch.manual_seed(123)
        torch.rand(7)
        assert torch.equal(first, pick(name, predictions, state, 10))

    @pytest.mark.parametrize("q", [1, 4, 20])
    def test_the_first_q_of_q_plus_1_picks_are_the_q_picks(self, name, q):
        predictions, state = situation()
        assert torch.equal(pick(name, predictions, state, q + 1)[:q], pick(name, predictions, state, q))

    def test_degenerate_predictions(self, name):
        _, state = situation()
        for probs in (torch.full((60, 5), 0.2), torch.eye(5)[torch.zeros(60, dtype=torch.long)]):
            same = akd.Predictions(probs, torch.ones(60, 8))
            with pytest.warns(UserWarning, match="pool exhausted") if name in ("coreset", "pcoreset") else _silence():
                picks = pick(name, same, state, 20)
            assert len(picks.unique()) == 20
            assert (state.labels[picks] < 0).all()

    def test_impossible_requests_are_refused_by_value(self, name):
        predictions, state = situation()
        with pytest.raises(ValueError, match="query_size = 0, but 53 of 60 images are unlabelled; ask for 1 to 53"):
            pick(name, predictions, state, 0)
        with pytest.raises(ValueError, match="query_size = 54"):
            pick(name, predictions, state, 54)
        with pytest.raises(ValueError, match="predictions for 60 images, but the pool has 61"):
            pick(name, predictions, akd.LabelState.empty(61), 5)


def _silence():
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_permuting_the_pool_permutes_the_picks(name):
    predictions, state = situation()
    order = torch.randperm(60, generator=generator(1, "permute"))
    permuted = akd.Predictions(predictions.probs[order], predictions.features[order])
    moved = akd.LabelState(state.labeled_round[order], state.labels[order])
    assert torch.equal(order[pick(name, permuted, moved, 10)], pick(name, predictions, state, 10))


def test_uncertainty_takes_the_largest_entropies():
    probs = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.9, 0.1], [0.6, 0.4], [0.5, 0.5]])
    state = akd.LabelState.empty(5).with_labels(torch.tensor([0]), torch.tensor([0]), 0)
    assert pick("uncertainty", akd.Predictions(probs, torch.zeros(5, 2)), state, 3).tolist() == [1, 4, 3]
    assert strategies.entropy(torch.tensor([[1.0, 0.0]])).item() == 0


def test_pcoreset_by_hand():
    """Five points of the 3-class simplex, the first labelled; squared distances worked on paper."""
    probs = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0.5, 0.5, 0], [0, 0.4, 0.6], [0.9, 0.1, 0]])
    state = akd.LabelState.empty(5).with_labels(torch.tensor([0]), torch.tensor([0]), 0)
    # to p0: p1 2.00, p2 0.50, p3 1.52, p4 0.02 -> p1; to {p0, p1}: p2 0.50, p3 0.72, p4 0.02 -> p3; then p2 0.50
    assert pick("pcoreset", akd.Predictions(probs, torch.zeros(5, 2)), state, 4).tolist() == [1, 3, 2, 4]


def test_coreset_looks_at_features_by_angle_and_pcoreset_at_probabilities():
    predictions, state = situation()
    scaled = akd.Predictions(predictions.probs, predictions.features * torch.rand(60, 1).add(0.5))
    assert torch.equal(pick("coreset", scaled, state, 10), pick("coreset", predictions, state, 10))
    other = akd.Predictions(predictions.probs, predictions.features.flip(0))
    assert torch.equal(pick("pcoreset", other, state, 10), pick("pcoreset", predictions, state, 10))
    assert not torch.equal(pick("coreset", other, state, 10), pick("coreset", predictions, state, 10))


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


def test_classbalanced_gives_shares_by_inverse_labelled_frequency():
    """Labelled 1, 2 and 4 times: 1/1 : 1/2 : 1/4 of 7 picks is 4 : 2 : 1."""
    n = 67
    predicted = torch.arange(n) % 3
    labels = torch.tensor([0, 1, 1, 2, 2, 2, 2])
    state = akd.LabelState.empty(n).with_labels(torch.arange(7), labels, 0)
    picks = pick("classbalanced", akd.Predictions(torch.eye(3)[predicted], torch.zeros(n, 2)), state, 7)
    assert torch.bincount(predicted[picks]).tolist() == [4, 2, 1]


def test_random_is_uniform():
    predictions, state = situation()
    counts = torch.bincount(torch.cat([pick("random", predictions, state, 10, s) for s in range(2000)]), minlength=60)
    assert counts[state.labeled_indices].sum() == 0
    share = counts[state.unlabeled_indices] / 2000
    assert (share - 10 / 53).abs().max() < 5 * (10 / 53 * 43 / 53 / 2000) ** 0.5


@pytest.mark.parametrize("name", ["coreset", "pcoreset"])
def test_k_center_without_a_labelled_image_says_what_to_do(name):
    predictions, _ = situation()
    with pytest.raises(ValueError, match="begin with 'random'"):
        pick(name, predictions, akd.LabelState.empty(60), 5)


def test_an_unknown_strategy_never_becomes_another():
    with pytest.raises(ValueError, match="unknown strategy 'pcore'; known are random, uncertainty, coreset"):
        strategies.get_strategy("pcore")
