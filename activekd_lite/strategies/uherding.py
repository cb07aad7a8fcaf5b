"""UHerding: uncertainty herding (Bae, Oliveira and Sutherland 2025, arXiv:2412.20644).

    u_i = 1 - (largest p_i - second largest p_i),  k(i, j) = exp(-||x_i - x_j||^2 / sigma^2)
    repeat Q times: pick argmax_j mean_i u_i max(0, k(i, j) - m_i); then m_i = max(m_i, k(i, pick))

x are features of norm 1, sigma is the smallest distance between two labelled images, m_i the
largest kernel value of image i with a labelled or chosen one. O(N^2 F) time for the first pick; for
each further one O(A N F), where A images are nearer to the last pick than to all before. O(N F)
memory.

Checked in the authors' code: all of the above. Different here: they fit a temperature on held-out
labelled images of a second model, and a strategy has no such model, so the temperature is 1; they
draw 35,000 candidates from larger pools, here all are candidates. With fewer than two labelled
images sigma is 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import unlabeled_indices

CHUNK_NUMBERS = 2**18  # kernel values held at a time


def uherding(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose the image that covers the most uncertainty not yet covered; repeat.

    predictions.probs: (N, C) gives the uncertainty, predictions.features: (N, F) the coverage.
    """
    unlabeled = unlabeled_indices(predictions, state, query_size)
    x, known = (
        F.normalize(predictions.features[rows].double(), dim=1)
        for rows in (unlabeled, state.labeled_indices)
    )
    weight, sigma = margin_uncertainty(predictions.probs[unlabeled].double()), radius(known)
    step = max(1, CHUNK_NUMBERS // len(x))
    covered = torch.zeros_like(weight)
    for part in known.split(step) if len(known) else ():
        covered = torch.maximum(covered, kernel(part, x, sigma).amax(dim=0))
    gains = torch.cat([_gains(part, x, weight, covered, sigma) for part in x.split(step)])
    picks: list[int] = []
    while len(picks) < query_size:
        picks.append(int(gains.argmax()))
        reached = kernel(x[picks[-1:]], x, sigma)[0]
        changed = torch.nonzero((reached > covered) & (weight > 0)).flatten()
        for rows in changed.split(step):
            similar = kernel(x[rows], x, sigma)
            before, after = ((similar - m[rows, None]).clamp(min=0) for m in (covered, reached))
            gains -= weight[rows] @ (before - after) / len(x)
        covered = torch.maximum(covered, reached)
        gains[picks] = -torch.inf  # never again
    return unlabeled[picks]


def margin_uncertainty(probs: Tensor) -> Tensor:
    """Return 1 minus the lead of the most likely class: (N, C) -> (N,)."""
    best = probs.topk(min(2, probs.shape[1]), dim=1).values
    return 1 - (best[:, 0] - best[:, -1])


def radius(known: Tensor) -> float:
    """Return the smallest distance above 0 between two rows of known (L, F), or 1 without any."""
    if len(known) < 2:
        return 1.0
    distances = F.pdist(known)
    distances = distances[distances > 1e-6]
    return distances.min().item() if len(distances) else 1.0


def kernel(a: Tensor, b: Tensor, sigma: float) -> Tensor:
    """Return exp(-||a - b||^2 / sigma^2) for rows of norm 1: (n, F), (m, F) -> (n, m)."""
    return ((2 * (a @ b.T) - 2).clamp(max=0) / sigma**2).exp()


def _gains(rows: Tensor, x: Tensor, weight: Tensor, covered: Tensor, sigma: float) -> Tensor:
    """Return how much weight each of `rows` (n, F) would cover in addition: (n,)."""
    return (kernel(rows, x, sigma) - covered).clamp(min=0) @ weight / len(x)
