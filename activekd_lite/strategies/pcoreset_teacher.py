"""PCoreSet in the teacher's probability space: a variant that needs no student.

With labels it is `pcoreset` with `selection_source="teacher"`; it can also start without any.
"""

from dataclasses import replace

import torch
from torch import Tensor

from activekd_lite.kcenter import k_center_in_pool
from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import needs, teacher_probs, unlabeled_indices
from activekd_lite.strategies.pcoreset import pcoreset


@needs(teacher=True)
def pcoreset_teacher(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose as `pcoreset` does, by predictions.teacher_probs (N, C).

    If nothing is labelled, the image nearest to the mean comes first.
    Raises ValueError if there are no teacher_probs.
    """
    probs = teacher_probs(predictions, "pcoreset_teacher")
    if len(state.labeled_indices):
        seen = replace(predictions, probs=probs)
        return pcoreset(seen, state, query_size, generator=generator)
    unlabeled_indices(predictions, state, query_size)
    first = (probs.double() - probs.double().mean(dim=0)).square().sum(dim=1).argmin().cpu()[None]
    return torch.cat([first, k_center_in_pool(probs, first, query_size - 1)])
