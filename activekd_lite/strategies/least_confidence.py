"""Least-confidence sampling (Lewis and Gale 1994)."""

import torch
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import highest, unlabeled_indices


def least_confidence(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose the images whose predicted class has the smallest probability."""
    unlabeled = unlabeled_indices(predictions, state, query_size)
    return highest(-predictions.probs.amax(dim=1), unlabeled, query_size)
