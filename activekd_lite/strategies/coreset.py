"""CoreSet: greedy k-center in feature space (Sener and Savarese 2018, arXiv:1708.00489)."""

import torch
from torch import Tensor

from activekd_lite.kcenter import k_center_in_pool
from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import labeled_indices, needs, unlabeled_indices


@needs(labels=True)
def coreset(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose the image farthest, by cosine distance, from all labelled and chosen ones; repeat.

    predictions.features: (N, F); labelled images are the initial centres.
    Raises ValueError if nothing is labelled, and for features that are all 0.
    """
    unlabeled_indices(predictions, state, query_size)
    labeled = labeled_indices(state)
    try:
        return k_center_in_pool(predictions.features, labeled, query_size, metric="cosine")
    except ValueError as error:
        _explain_zero_rows(predictions.features, error)
        raise


def _explain_zero_rows(features: Tensor, error: ValueError) -> None:
    """Raise a ValueError that names the images without a direction; return if there are none."""
    zero = torch.nonzero((features == 0).all(dim=1)).flatten()
    if len(zero):
        raise ValueError(
            f"the features of {len(zero)} images are all 0, first at pool index {int(zero[0])}: "
            "they have no direction for a cosine; choose pcoreset, or train with a lower lr"
        ) from error
