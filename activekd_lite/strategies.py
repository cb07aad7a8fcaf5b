"""Which images a person labels next. A strategy is a function

    strategy(predictions, state, query_size, *, generator) -> (query_size,) int64 pool indices, in pick order

of the student's predictions over the pool and of what is labelled; no strategy sees a hidden label. All of them pick
unlabelled images only, never one twice, and the first q of q + 1 picks are the q picks.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.kcenter import k_center_greedy
from activekd_lite.pool import LabelState, Predictions

Strategy = Callable[..., Tensor]


def random(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """Uniformly at random: what every other strategy has to beat."""
    unlabeled = _unlabeled(predictions, state, query_size)
    return unlabeled[torch.randperm(len(unlabeled), generator=generator)[:query_size]]


def uncertainty(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """Largest entropy of the predicted class (Settles 2009). Ties: the lowest pool index."""
    unlabeled = _unlabeled(predictions, state, query_size)
    order = entropy(predictions.probs[unlabeled]).argsort(descending=True, stable=True)
    return unlabeled[order[:query_size].cpu()]


def coreset(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """Greedy k-center in feature space, cosine distance (Sener and Savarese 2018, arXiv:1708.00489).

    predictions.features: (N, F); labelled images are the initial centres. Raises ValueError if nothing is labelled.
    """
    return _k_center(predictions.features, state, _unlabeled(predictions, state, query_size), query_size, "cosine")


def badge(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """k-means++ on gradient embeddings (Ash et al. 2020, arXiv:1906.03671).

    The embedding of an image is (onehot(argmax p) - p) outer its features, (C * F) numbers that are never built:
    <a x u, b x v> = <a, b><u, v>. The first pick has the largest norm, as in the authors' code.
    """
    unlabeled = _unlabeled(predictions, state, query_size)
    probs, x = predictions.probs[unlabeled].double(), predictions.features[unlabeled].double()  # (U, C), (U, F)
    a = F.one_hot(probs.argmax(dim=1), probs.shape[1]) - probs
    norms = a.square().sum(dim=1) * x.square().sum(dim=1)  # (U,) squared norms of the embeddings
    picks = [int(norms.argmax())]
    nearest = torch.full_like(norms, float("inf"))
    for draw in torch.rand(query_size - 1, generator=generator, dtype=torch.float64):
        last = picks[-1]
        inner = (a @ a[last]) * (x @ x[last])
        nearest = torch.minimum(nearest, (norms + norms[last] - 2 * inner).clamp(min=0))
        nearest[picks] = 0
        picks.append(_draw(nearest, float(draw), picks))
    return unlabeled[picks]


def classbalanced(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """Spread the query over the predicted classes by inverse labelled frequency, at random inside a class.

    The shares are handed out one by one (Jefferson's divisor method), so a smaller query is a prefix of a larger one.
    """
    unlabeled = _unlabeled(predictions, state, query_size)
    unlabeled = unlabeled[torch.randperm(len(unlabeled), generator=generator)]
    num_classes = predictions.probs.shape[1]
    predicted = predictions.probs.argmax(dim=1).cpu()[unlabeled]
    members = [unlabeled[predicted == c].tolist() for c in range(num_classes)]
    labeled = torch.bincount(state.labels[state.labeled_indices], minlength=num_classes)
    weight = 1 / labeled.double().clamp(min=0.5)
    taken = torch.zeros(num_classes, dtype=torch.float64)
    picks = []
    while len(picks) < query_size:
        left = torch.tensor([len(m) > 0 for m in members])
        c = int(torch.where(left, weight / (taken + 1), -1.0).argmax())
        picks.append(members[c].pop())
        taken[c] += 1
    return torch.tensor(picks)


def pcoreset(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """Greedy k-center in class-probability space (Kang et al. 2025, arXiv:2506.00910, Alg. 1).

    predictions.probs: (N, C), rows sum to 1; Euclidean distance; labelled images are the initial centres. Ties: the
    lowest pool index. Raises ValueError if nothing is labelled.
    """
    return _k_center(predictions.probs, state, _unlabeled(predictions, state, query_size), query_size, "euclidean")


STRATEGIES: dict[str, Strategy] = {
    "random": random,
    "uncertainty": uncertainty,
    "coreset": coreset,
    "badge": badge,
    "classbalanced": classbalanced,
    "pcoreset": pcoreset,
}


def get_strategy(strategy: str | Strategy) -> Strategy:
    """A strategy by name, or the callable itself. Raises ValueError for an unknown name: never another in its place."""
    if callable(strategy):
        return strategy
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; known are {', '.join(STRATEGIES)}, and any callable of the contract")
    return STRATEGIES[strategy]


def entropy(probs: Tensor) -> Tensor:
    """-sum p log p in nats, with 0 log 0 = 0: (N, C) -> (N,)."""
    return -torch.xlogy(probs, probs).sum(dim=1)


def _unlabeled(predictions: Predictions, state: LabelState, query_size: int) -> Tensor:
    """The unlabelled pool indices (U,), ascending, once the request is known to make sense."""
    unlabeled = state.unlabeled_indices
    if len(predictions.probs) != len(state.labels):
        raise ValueError(f"predictions for {len(predictions.probs)} images, but the pool has {len(state.labels)}")
    if not 1 <= query_size <= len(unlabeled):
        raise ValueError(
            f"query_size = {query_size}, but {len(unlabeled)} of {len(state.labels)} images are unlabelled; "
            f"ask for 1 to {len(unlabeled)}"
        )
    return unlabeled


def _k_center(space: Tensor, state: LabelState, unlabeled: Tensor, query_size: int, metric: str) -> Tensor:
    labeled = state.labeled_indices
    if len(labeled) == 0:
        raise ValueError("k-center needs a labelled image to start from; begin with 'random' or an initial labelled set")
    picks, _ = k_center_greedy(space[unlabeled], space[labeled], query_size, metric=metric)
    return unlabeled[picks.cpu()]


def _draw(weight: Tensor, u: float, taken: list[int]) -> int:
    """An index with probability proportional to weight (U,), by inversion of u in [0, 1); where all weights are 0, the
    lowest index not yet taken."""
    total = weight.cumsum(dim=0)
    if float(total[-1]) > 0:
        place = int(torch.searchsorted(total, u * total[-1], right=True))
        if place < len(weight) and weight[place] > 0:
            return place
        return int(weight.argmax())
    free = torch.ones(len(weight), dtype=torch.bool)
    free[taken] = False
    return int(free.float().argmax())
