"""BADGE: k-means++ on gradient embeddings (Ash et al. 2020, arXiv:1906.03671).

The embedding of an image is the outer product of (onehot(argmax p) - p) and its features. These
C * F numbers are never stored, since <a x u, b x v> = <a, b><u, v>.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import unlabeled_indices


def badge(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose by k-means++; the first pick has the largest norm, as in the authors' code."""
    unlabeled = unlabeled_indices(predictions, state, query_size)
    a, x = gradient_factors(predictions, unlabeled)
    norms = a.square().sum(dim=1) * x.square().sum(dim=1)  # (U,) squared norms of the embeddings
    picks = [int(norms.argmax())]
    nearest = torch.full_like(norms, float("inf"))
    for draw in torch.rand(query_size - 1, generator=generator, dtype=torch.float64):
        last = picks[-1]
        inner = (a @ a[last]) * (x @ x[last])
        nearest = torch.minimum(nearest, (norms + norms[last] - 2 * inner).clamp(min=0))
        nearest[picks] = 0
        picks.append(_draw(nearest, float(draw), picks))
    return unlabeled[picks]


def gradient_factors(predictions: Predictions, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factors of the embeddings: onehot(argmax p) - p (n, C), and features (n, F)."""
    probs = predictions.probs[rows].double()
    predicted = F.one_hot(probs.argmax(dim=1), probs.shape[1])
    return predicted - probs, predictions.features[rows].double()


def _draw(weight: Tensor, u: float, taken: list[int]) -> int:
    """Return an index with probability proportional to weight (U,), by inversion of u in [0, 1).

    If all weights are 0, it is the lowest index not yet taken.
    """
    total = weight.cumsum(dim=0)
    if float(total[-1]) > 0:
        place = int(torch.searchsorted(total, u * total[-1], right=True))
        if place < len(weight) and weight[place] > 0:
            return place
        return int(weight.argmax())
    free = torch.ones(len(weight), dtype=torch.bool)
    free[taken] = False
    return int(free.float().argmax())
