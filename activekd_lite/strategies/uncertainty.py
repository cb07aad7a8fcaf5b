"""Uncertainty sampling by entropy (Settles 2009)."""

import torch
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import highest, unlabeled_indices

CHUNK = 2**16  # rows at a time


def uncertainty(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose the images whose class probabilities have the largest entropy."""
    unlabeled = unlabeled_indices(predictions, state, query_size)
    return highest(entropy(predictions.probs), unlabeled, query_size)


def entropy(probs: Tensor) -> Tensor:
    """-sum p log p in nats, with 0 log 0 = 0: (N, C) -> (N,)."""
    parts = probs.split(CHUNK)  # p log p is never stored in full
    return torch.cat([-torch.xlogy(part, part).sum(dim=1) for part in parts])
