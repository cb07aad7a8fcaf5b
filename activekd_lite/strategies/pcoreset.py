"""PCoreSet: greedy k-center in class-probability space (Kang et al. 2025, arXiv:2506.00910)."""

import torch
from torch import Tensor

from activekd_lite.kcenter import k_center_in_pool
from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import labeled_indices, needs, unlabeled_indices


@needs(labels=True)
def pcoreset(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose the image whose probabilities are farthest from all labelled and chosen ones; repeat.

    predictions.probs: (N, C), rows sum to 1; Euclidean distance (Alg. 1 of the paper).
    Raises ValueError if nothing is labelled.
    """
    unlabeled_indices(predictions, state, query_size)
    return k_center_in_pool(predictions.probs, labeled_indices(state), query_size)
