"""Which images a person labels next. A strategy is a function

    strategy(predictions, state, query_size, *, generator) -> (query_size,) int64 pool indices, in pick order

of the student's predictions over the pool and of what is labelled; no strategy sees a hidden label. All of them pick
unlabelled images only, never one twice, and, except for classbalanced_reference, the first q of q + 1 picks are the q picks.
Equal scores go to the lowest pool index (but for typiclust and probcover, where rounding tells copies of one image apart). All
raise ValueError for a query that the pool cannot give.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from activekd_lite.kcenter import k_center_in_pool, zero_rows
from activekd_lite.pool import LabelState, Predictions

Strategy = Callable[..., Tensor]
CHUNK_NUMBERS = 2**20  # similarities held at a time by probcover


def random(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """Uniformly at random: what every other strategy has to beat."""
    unlabeled = _unlabeled(predictions, state, query_size)
    return unlabeled[torch.randperm(len(unlabeled), generator=generator)[:query_size]]


def uncertainty(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """Largest entropy of the predicted class (Settles 2009)."""
    return _highest(entropy(predictions.probs), _unlabeled(predictions, state, query_size), query_size)


def margin(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """Smallest difference between the two largest probabilities (Scheffer et al. 2001)."""
    best = predictions.probs.topk(min(2, predictions.probs.shape[1]), dim=1).values
    return _highest(best[:, -1] - best[:, 0], _unlabeled(predictions, state, query_size), query_size)


def least_confidence(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """Smallest probability of the predicted class (Lewis and Gale 1994)."""
    return _highest(-predictions.probs.amax(dim=1), _unlabeled(predictions, state, query_size), query_size)


def coreset(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """Greedy k-center in feature space, cosine distance (Sener and Savarese 2018, arXiv:1708.00489).

    predictions.features: (N, F); labelled images are the initial centres. Raises ValueError if nothing is labelled.
    """
    _unlabeled(predictions, state, query_size)
    try:
        return _k_center(predictions.features, state, query_size, "cosine")
    except ValueError as error:  # the engine looks for rows of zeros in any case: they are named only then
        if len(dead := zero_rows(predictions.features)) == 0:
            raise
        raise ValueError(
            f"the features of {len(dead)} images are all 0, first at pool index {int(dead[0])}: no direction for a cosine; "
            "choose pcoreset, or train with a lower lr"
        ) from error


def badge(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """k-means++ on gradient embeddings (Ash et al. 2020, arXiv:1906.03671).

    The embedding of an image is (onehot(argmax p) - p) outer its features, (C * F) numbers that are never built:
    <a x u, b x v> = <a, b><u, v>. The first pick has the largest norm, as in the authors' code.
    """
    unlabeled = _unlabeled(predictions, state, query_size)
    a, x = _gradient_factors(predictions, unlabeled)
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


def badge_reference(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """What the code of arXiv:2506.00910 calls BADGE, for comparisons only: embeddings of norm 1, farthest first instead of
    drawn, from the lowest unlabelled index (all norms being 1, none is the largest)."""
    unlabeled = _unlabeled(predictions, state, query_size)
    a, x = (F.normalize(factor, dim=1) for factor in _gradient_factors(predictions, unlabeled))
    picks, nearest = [0], torch.full((len(a),), float("inf"), dtype=torch.float64, device=a.device)
    while len(picks) < query_size:
        last = picks[-1]
        nearest = torch.minimum(nearest, 1 - (a @ a[last]) * (x @ x[last]))
        nearest[picks] = -float("inf")
        picks.append(int(nearest.argmax()))
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


def classbalanced_reference(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Class balancing as the code of arXiv:2506.00910 allocates it, for comparisons only.

    Class c of those predicted has weight 1 / (n_c + 1), n_c its labels, counted as 1 where there are none. Of the query it
    gets the whole part of its share; what is left goes one each to the largest weights. At random inside a class; where a
    class has too few images, and for what is left after that, from all others. Unlike with the other strategies a smaller
    query is no prefix of a larger one.
    """
    unlabeled = _unlabeled(predictions, state, query_size)
    predicted = predictions.probs.argmax(dim=1).cpu()[unlabeled]
    present = predicted.unique()
    labeled = torch.bincount(state.labels[state.labeled_indices], minlength=predictions.probs.shape[1])
    shares = reference_shares(labeled[present].tolist(), query_size)
    order = torch.randperm(len(unlabeled), generator=generator)
    members = [order[predicted[order] == c][:share] for c, share in zip(present.tolist(), shares, strict=True)]
    picks = torch.cat(members)
    rest = order[~torch.isin(order, picks)]
    return unlabeled[torch.cat([picks, rest])[:query_size]]


def reference_shares(labeled_counts: Sequence[int], query_size: int) -> list[int]:
    """How many of `query_size` labels each class gets in `classbalanced_reference`, by its count of labels so far.

    >>> reference_shares([1, 2, 3, 4], 10)
    [4, 3, 2, 1]
    """
    weights = [Fraction(1, max(count, 1) + 1) for count in labeled_counts]
    total = sum(weights)
    shares = [int(query_size * weight / total) for weight in weights]
    largest = sorted(range(len(weights)), key=lambda c: -weights[c])  # of equal weights the lowest class
    for c in largest[: query_size - sum(shares)]:
        shares[c] += 1
    return shares


def typiclust(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """The most typical image of the largest cluster without a label, again and again (Hacohen et al. 2022, arXiv:2202.02794).

    Clusters of the unit-norm features, one more than there are labels and picks; typical: the smallest mean distance to the 20
    nearest of the cluster. The paper clusters once a query, by k-means into labels + query_size clusters; here the cluster of
    largest inertia is split in two at each pick (bisecting k-means), so that the first picks do not depend on query_size.
    """
    taken = len(state.labels) - len(_unlabeled(predictions, state, query_size))
    x = F.normalize(predictions.features.double(), dim=1).cpu().numpy()
    free, seed = state.labels.numpy() < 0, int(torch.randint(2**31, (1,), generator=generator))
    clusters, picks = [(_inertia(x), np.arange(len(x)))], []
    while len(picks) < query_size:
        while len(clusters) <= taken + len(picks) and _split(clusters, x, seed):
            pass
        open_clusters = (members for _, members in clusters if free[members].any())
        cluster = min(open_clusters, key=lambda members: ((~free[members]).sum(), -len(members)))
        candidates = np.flatnonzero(free[cluster])
        picks.append(int(cluster[candidates[_mean_distance(x[cluster])[candidates].argmin()]]))
        free[picks[-1]] = False
    return torch.tensor(picks)


def _split(clusters: list[tuple[float, np.ndarray]], x: np.ndarray, seed: int) -> bool:
    """Split the cluster (inertia, members) of largest inertia in two, in place; False where all are copies of one point."""
    inertia, members = max(clusters, key=lambda cluster: cluster[0])
    if inertia < 1e-9:
        return False
    side = KMeans(2, n_init=1, random_state=seed).fit_predict(x[members]) == 1
    clusters[:] = [cluster for cluster in clusters if cluster[1] is not members]
    clusters += [(_inertia(x[part]), part) for part in (members[side], members[~side])]
    return True


def _inertia(x: np.ndarray) -> float:
    return float(((x - x.mean(axis=0)) ** 2).sum())


def _mean_distance(x: np.ndarray, neighbors: int = 20) -> np.ndarray:
    """The mean distance (n,) of the points x (n, F) to their nearest neighbours among them."""
    if len(x) == 1:
        return np.zeros(1)
    return NearestNeighbors(n_neighbors=min(neighbors, len(x) - 1)).fit(x).kneighbors()[0].mean(axis=1)


def probcover(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """The image whose ball holds the most uncovered images, again and again (Yehuda et al. 2022, arXiv:2205.11320).

    Balls of unit-norm features, of the largest radius at which 95 % hold images of one predicted class only (the paper takes
    clusters of k-means for classes). Equal counts: the image nearest to all others. Once all is covered, a next layer of balls
    begins. O(N^2 F) time, O(N) memory beyond the features.
    """
    _unlabeled(predictions, state, query_size)
    x = F.normalize(predictions.features.float(), dim=1)
    balls = _Balls(x, predictions.probs.argmax(dim=1))
    closeness = x @ x.mean(dim=0)
    free = state.labels.to(x.device) < 0
    uncovered = balls.count(state.labeled_indices.to(x.device)) == 0
    degree = balls.count(torch.nonzero(uncovered).flatten())
    picks = []
    while len(picks) < query_size:
        if degree[free].max() == 0:
            uncovered = torch.ones_like(free)
            degree = balls.count(torch.nonzero(uncovered).flatten())
        best = free & (degree == degree[free].max())
        pick = int(closeness.where(best, -torch.inf).argmax())
        covers = (balls.of(torch.tensor([pick], device=x.device))[0]) & uncovered
        degree = degree - balls.count(torch.nonzero(covers).flatten())
        uncovered, free[pick] = uncovered & ~covers, False
        picks.append(pick)
    return torch.tensor(picks)


class _Balls:
    """Which of the points x (N, F) of norm 1 lie in each other's ball, as pure as said in `probcover`, in chunks."""

    def __init__(self, x: Tensor, classes: Tensor, purity: float = 0.95):
        self.x, self.step = x, max(1, CHUNK_NUMBERS // len(x))
        nearest_other = [
            (x[i] @ x.T).masked_fill(classes[i, None] == classes, -2).amax(dim=1) for i in torch.arange(len(x)).split(self.step)
        ]
        nearest_other = torch.cat(nearest_other).sort(descending=True).values
        self.similarity = min(float(nearest_other[int((1 - purity) * len(x))]), 1 - 1e-6)

    def of(self, rows: Tensor) -> Tensor:
        """(n, N): which points are in the balls around the points `rows` (n,)."""
        return self.x[rows] @ self.x.T > self.similarity

    def count(self, rows: Tensor) -> Tensor:
        """(N,): in how many of the balls around the points `rows` (n,) each point lies."""
        count = torch.zeros(len(self.x), dtype=torch.int64, device=self.x.device)
        for part in rows.split(self.step):
            count += self.of(part).sum(dim=0)
        return count


def pcoreset(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """Greedy k-center in class-probability space (Kang et al. 2025, arXiv:2506.00910, Alg. 1).

    predictions.probs: (N, C), rows sum to 1; Euclidean distance; labelled images are the initial centres. Raises ValueError
    if nothing is labelled.
    """
    _unlabeled(predictions, state, query_size)
    return _k_center(predictions.probs, state, query_size, "euclidean")


def pcoreset_teacher(predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator) -> Tensor:
    """`pcoreset` in the teacher's probabilities: needs no student, and nothing labelled, where it starts with the image nearest
    to the mean. Raises ValueError if the predictions carry no teacher_probs (N, C)."""
    if predictions.teacher_probs is None:
        raise ValueError("pcoreset_teacher needs Predictions.teacher_probs: run with a teacher, or give its probabilities")
    _unlabeled(predictions, state, query_size)
    probs = predictions.teacher_probs
    if len(state.labeled_indices):
        return _k_center(probs, state, query_size, "euclidean")
    first = (probs.double() - probs.double().mean(dim=0)).square().sum(dim=1).argmin().cpu()
    started = state.with_labels(first[None], torch.zeros(1, dtype=torch.int64), round=0)  # any label: only where it is counts
    return torch.cat([first[None], _k_center(probs, started, query_size - 1, "euclidean")])


STRATEGIES: dict[str, Strategy] = {
    f.__name__: f
    for f in (
        random, uncertainty, margin, least_confidence, coreset, badge, classbalanced, typiclust, probcover, pcoreset,
        pcoreset_teacher, badge_reference, classbalanced_reference,
    )
}  # fmt: skip
PAPER_STRATEGIES = ("random", "uncertainty", "coreset", "badge", "classbalanced", "pcoreset")  # those arXiv:2506.00910 compares
COLD_START = tuple(name for name in STRATEGIES if name not in ("coreset", "pcoreset"))  # those that need no label


def get_strategy(strategy: str | Strategy) -> Strategy:
    """A strategy by name, one of scikit-activeml as "skactiveml:TypiClust", or the callable itself.

    Raises ValueError for an unknown name: never another in its place; ImportError where scikit-activeml is not installed.
    """
    if callable(strategy):
        return strategy
    if not isinstance(strategy, str):
        raise ValueError(f"{strategy!r} is no strategy: give a name, or a callable of the contract")
    if strategy.startswith("skactiveml:"):
        from activekd_lite.scikit_activeml import adapt  # an optional extra, and slow to import

        return adapt(strategy.removeprefix("skactiveml:"))
    if strategy not in STRATEGIES:
        raise ValueError(
            f"unknown strategy {strategy!r}; known are {', '.join(STRATEGIES)}, those of scikit-activeml as "
            "'skactiveml:TypiClust', and any callable of the contract"
        )
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


def _highest(score: Tensor, unlabeled: Tensor, query_size: int) -> Tensor:
    """The unlabelled images of largest score (N,)."""
    return unlabeled[score[unlabeled].argsort(descending=True, stable=True)[:query_size].cpu()]


def _gradient_factors(predictions: Predictions, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient embedding of the last layer, as factors: onehot(argmax p) - p (n, C), and features (n, F)."""
    probs = predictions.probs[rows].double()
    return F.one_hot(probs.argmax(dim=1), probs.shape[1]) - probs, predictions.features[rows].double()


def _k_center(space: Tensor, state: LabelState, query_size: int, metric: str) -> Tensor:
    labeled = state.labeled_indices
    if len(labeled) == 0:
        raise ValueError(
            "nothing is labelled, and coreset and pcoreset start from labelled images; these start without: "
            + ", ".join(COLD_START)
        )
    return k_center_in_pool(space, labeled, query_size, metric=metric)


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
