"""PCoreSet+R: nearest first, the counterfactual of PCoreSet (Kang et al. 2025, arXiv:2506.00910).

    repeat Q times: pick argmin_i min_{c in centres} ||p_i - p_c||, and add it to the centres

O((L + Q) N C) time and O(N) memory beyond the probabilities. Checked at the source: only the idea;
whether picks become centres there, too, was not, and was decided here in analogy to PCoreSet.
"""

import torch
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import labeled_indices, needs, unlabeled_indices
from activekd_lite.utils.distances import nearest_distances


@needs(labels=True)
def pcoreset_reversed(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose the image whose probabilities are nearest to a labelled or chosen one; repeat.

    predictions.probs: (N, C); Euclidean distance. It shows what covering the space is worth: it
    covers as little as possible. Raises ValueError if nothing is labelled.
    """
    unlabeled = unlabeled_indices(predictions, state, query_size)
    labeled, points = labeled_indices(state), predictions.probs.double()
    candidates = points[unlabeled]
    nearest = nearest_distances(candidates, points[labeled])
    picks: list[int] = []
    while len(picks) < query_size:
        pick = int(nearest.argmin())
        picks.append(pick)
        nearest = torch.minimum(nearest, (candidates - candidates[pick]).norm(dim=1))
        nearest[picks] = torch.inf  # never again
    return unlabeled[picks]
