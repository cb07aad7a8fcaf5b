"""Margin sampling (Scheffer et al. 2001)."""

import torch
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import highest, unlabeled_indices


def margin(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose the images whose two largest probabilities differ least."""
    unlabeled = unlabeled_indices(predictions, state, query_size)
    best = predictions.probs.topk(min(2, predictions.probs.shape[1]), dim=1).values
    return highest(best[:, -1] - best[:, 0], unlabeled, query_size)
