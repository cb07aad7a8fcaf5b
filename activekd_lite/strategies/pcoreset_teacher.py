"""PCoreSet in the teacher's probability space: a variant that needs no student."""

import torch
from torch import Tensor

from activekd_lite.kcenter import k_center_in_pool
from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import needs, unlabeled_indices


@needs(teacher=True)
def pcoreset_teacher(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose as `pcoreset` does, by predictions.teacher_probs (N, C).

    If nothing is labelled, the image nearest to the mean comes first.
    Raises ValueError if there are no teacher_probs.
    """
    probs, labeled = predictions.teacher_probs, state.labeled_indices
    if probs is None:
        raise ValueError(
            "pcoreset_teacher needs Predictions.teacher_probs: run with a teacher, or set them"
        )
    unlabeled_indices(predictions, state, query_size)
    if len(labeled):
        return k_center_in_pool(probs, labeled, query_size)
    first = (probs.double() - probs.double().mean(dim=0)).square().sum(dim=1).argmin().cpu()[None]
    return torch.cat([first, k_center_in_pool(probs, first, query_size - 1)])
