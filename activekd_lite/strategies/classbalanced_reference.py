"""Class balancing as the code of arXiv:2506.00910 allocates it, for comparison only."""

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import unlabeled_indices


def classbalanced_reference(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Give each predicted class its share, see `reference_shares`, at random within a class.

    If a class has too few images, the rest is drawn from all others. Unlike with the other
    strategies, a smaller query is not a prefix of a larger one.
    """
    unlabeled = unlabeled_indices(predictions, state, query_size)
    predicted = predictions.probs.argmax(dim=1).cpu()[unlabeled]
    present = predicted.unique()
    num_classes = predictions.probs.shape[1]
    labeled = torch.bincount(state.labels[state.labeled_indices], minlength=num_classes)
    shares = reference_shares(labeled[present].tolist(), query_size)
    order = torch.randperm(len(unlabeled), generator=generator)
    members = [
        order[predicted[order] == c][:share]
        for c, share in zip(present.tolist(), shares, strict=True)
    ]
    picks = torch.cat(members)
    rest = order[~torch.isin(order, picks)]
    return unlabeled[torch.cat([picks, rest])[:query_size]]


def reference_shares(labeled_counts: Sequence[int], query_size: int) -> list[int]:
    """Return how many of `query_size` labels each class gets, from its count of labels so far.

    A class with n labels has weight 1 / (max(n, 1) + 1). Shares are rounded down; then the classes
    with the largest weights get one more each until the query is full.

    >>> reference_shares([1, 2, 3, 4], 10)
    [4, 3, 2, 1]
    """
    weights = [Fraction(1, max(count, 1) + 1) for count in labeled_counts]
    total = sum(weights)
    shares = [int(query_size * weight / total) for weight in weights]
    largest = sorted(range(len(weights)), key=lambda c: -weights[c])  # ties: the lowest class
    for c in largest[: query_size - sum(shares)]:
        shares[c] += 1
    return shares
