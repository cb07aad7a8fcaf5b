"""What the code of arXiv:2506.00910 calls BADGE, for comparison only."""

import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import unlabeled_indices


def badge_reference(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose farthest first among embeddings scaled to norm 1; nothing is drawn at random.

    The first pick is the lowest unlabelled index, since all norms are equal.
    """
    unlabeled = unlabeled_indices(predictions, state, query_size)
    a, x = (F.normalize(factor, dim=1) for factor in gradient_factors(predictions, unlabeled))
    picks = [0]
    nearest = torch.full((len(a),), float("inf"), dtype=torch.float64, device=a.device)
    while len(picks) < query_size:
        last = picks[-1]
        nearest = torch.minimum(nearest, 1 - (a @ a[last]) * (x @ x[last]))
        nearest[picks] = -float("inf")
        picks.append(int(nearest.argmax()))
    return unlabeled[picks]


def gradient_factors(predictions: Predictions, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factors of the embeddings: onehot(argmax p) - p (n, C), and features (n, F)."""
    probs = predictions.probs[rows].double()
    predicted = F.one_hot(probs.argmax(dim=1), probs.shape[1])
    return predicted - probs, predictions.features[rows].double()
