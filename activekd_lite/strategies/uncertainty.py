"""Uncertainty sampling by entropy (Settles 2009)."""

import torch
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import highest, unlabeled_indices


def uncertainty(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose the images whose class probabilities have the largest entropy."""
    unlabeled = unlabeled_indices(predictions, state, query_size)
    return highest(entropy(predictions.probs), unlabeled, query_size)


def entropy(probs: Tensor) -> Tensor:
    """-sum p log p in nats, with 0 log 0 = 0: (N, C) -> (N,)."""
    return -torch.xlogy(probs, probs).sum(dim=1)
