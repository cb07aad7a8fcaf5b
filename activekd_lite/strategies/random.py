"""Random choice: the baseline that every other strategy has to beat."""

import torch
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import unlabeled_indices


def random(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose uniformly at random."""
    unlabeled = unlabeled_indices(predictions, state, query_size)
    return unlabeled[torch.randperm(len(unlabeled), generator=generator)[:query_size]]
