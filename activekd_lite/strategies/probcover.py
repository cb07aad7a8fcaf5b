"""ProbCover: cover the feature space with balls (Yehuda et al. 2022, arXiv:2205.11320).

The balls have the largest radius at which 95 % of them hold images of one predicted class only (the
paper uses clusters of k-means as classes). O(N^2 F) time, O(N) memory beyond the features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import unlabeled_indices

CHUNK_NUMBERS = 2**20  # similarities held at a time


def probcover(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose the image whose ball holds the most uncovered images; repeat.

    Ties go to the image nearest to all others; those between copies of one image are decided by
    rounding. Once everything is covered, all images count as uncovered again.
    """
    unlabeled_indices(predictions, state, query_size)
    x = F.normalize(predictions.features.float(), dim=1)
    balls = _Balls(x, predictions.probs.argmax(dim=1))
    closeness = x @ x.mean(dim=0)
    free = state.labels.to(x.device) < 0
    uncovered = balls.count(state.labeled_indices.to(x.device)) == 0
    degree = balls.count(torch.nonzero(uncovered).flatten())
    picks: list[int] = []
    while len(picks) < query_size:
        if degree[free].max() == 0:
            uncovered = torch.ones_like(free)
            degree = balls.count(torch.nonzero(uncovered).flatten())
        best = free & (degree == degree[free].max())
        pick = int(closeness.where(best, -torch.inf).argmax())
        covers = balls.of(torch.tensor([pick], device=x.device))[0] & uncovered
        degree = degree - balls.count(torch.nonzero(covers).flatten())
        uncovered, free[pick] = uncovered & ~covers, False
        picks.append(pick)
    return torch.tensor(picks)


class _Balls:
    """Which of the points x (N, F) of norm 1 lie in each other's ball, computed in chunks."""

    def __init__(self, x: Tensor, classes: Tensor, purity: float = 0.95):
        self.x, self.step = x, max(1, CHUNK_NUMBERS // len(x))
        nearest_other = torch.cat(
            [
                (x[i] @ x.T).masked_fill(classes[i, None] == classes, -2).amax(dim=1)
                for i in torch.arange(len(x)).split(self.step)
            ]
        )
        at_purity = nearest_other.sort(descending=True).values[int((1 - purity) * len(x))]
        self.similarity = min(float(at_purity), 1 - 1e-6)

    def of(self, rows: Tensor) -> Tensor:
        """Return which points are in the balls around the points `rows` (n,): (n, N)."""
        return self.x[rows] @ self.x.T > self.similarity

    def count(self, rows: Tensor) -> Tensor:
        """Return in how many of the balls around the points `rows` (n,) each point lies: (N,)."""
        count = torch.zeros(len(self.x), dtype=torch.int64, device=self.x.device)
        for part in rows.split(self.step):
            count += self.of(part).sum(dim=0)
        return count
