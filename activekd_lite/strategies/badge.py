"""BADGE: k-means++ on gradient embeddings (Ash et al. 2020, arXiv:1906.03671).

The embedding of an image is the outer product of a = onehot(argmax p) - p and its features x. These
C * F numbers are never stored, since <a x u, b x v> = <a, b><u, v>.

A new centre matters to the images that are nearer to it than to all earlier ones. For most of the
others a bound shows that they are not, and nothing else is computed: <a, b> is exact over the
COLUMNS where the centre's b is largest, and at most the product of the norms over the others
(Cauchy-Schwarz); <u, v> is at most |u||v|. The bounds are computed in float32 from probabilities in
float16, and widened by more than their rounding errors. Distances are float64, so the picks are
those of k-means++ in full.
"""

import torch
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import unlabeled_indices

COLUMNS = 16
CHUNK_NUMBERS = 2**22  # numbers in a buffer
HALF = 2**-11  # relative rounding error of float16; absolute below its normal range


def badge(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose by k-means++; the first pick has the largest norm, as in the authors' code.

    Memory beside the predictions: 2 bytes for each of the N * C probabilities.
    """
    unlabeled = unlabeled_indices(predictions, state, query_size)
    embeddings = _Embeddings(predictions.probs, predictions.features, unlabeled)
    picks = [int(embeddings.norms.argmax())]
    nearest = torch.full_like(embeddings.norms, torch.inf)
    for draw in torch.rand(query_size - 1, generator=generator, dtype=torch.float64):
        last = picks[-1]
        rows = embeddings.may_be_nearer(last, nearest)
        nearest[rows] = torch.minimum(nearest[rows], embeddings.distances(rows, last))
        nearest[picks] = 0
        picks.append(_draw(nearest, float(draw), picks))
    return unlabeled[picks]


class _Embeddings:
    """The embeddings of the rows `unlabeled` (U,) of probs (N, C) and features (N, F).

    norms: (U,) squared. Squares of |a| and |x|, and the predicted class, are kept for each row.
    """

    def __init__(self, probs: Tensor, features: Tensor, unlabeled: Tensor):
        self.probs, self.features = probs, features
        self.rows = unlabeled.to(probs.device)
        count, num_classes = len(unlabeled), probs.shape[1]
        self.step = max(1, CHUNK_NUMBERS // max(num_classes, features.shape[1]))
        self.by_class = probs.new_empty((num_classes, count), dtype=torch.float16)
        self.predicted = torch.empty_like(self.rows)
        self.aa, self.xx = (probs.new_empty(count, dtype=torch.float64) for _ in range(2))
        for start in range(0, count, self.step):
            part = slice(start, start + self.step)
            p, x = probs[self.rows[part]], features[self.rows[part]].double()
            self.by_class[:, part] = p.T
            top, self.predicted[part] = p.double().max(dim=1)
            self.aa[part] = p.double().square().sum(dim=1) - 2 * top + 1
            self.xx[part] = x.square().sum(dim=1)
        self.aa = self.aa.clamp(min=0)
        self.norms = self.aa * self.xx

    def distances(self, rows: Tensor, center: int) -> Tensor:
        """Squared distances (n,) of `rows` (n,) to one of the embeddings."""
        p, x = (m[self.rows[center]].double() for m in (self.probs, self.features))
        y, inner = self.predicted[center], []
        for part in rows.split(self.step):
            q, z = (m[self.rows[part]].double() for m in (self.probs, self.features))
            same = (self.predicted[part] == y).double()
            inner.append((same - p[self.predicted[part]] - q[:, y] + q @ p) * (z @ x))
        norms = self.norms[rows] + self.norms[center]
        return (norms - 2 * torch.cat(inner)).clamp(min=0) if inner else norms

    def may_be_nearer(self, center: int, nearest: Tensor) -> Tensor:
        """Rows that may be nearer to `center` than `nearest` (U,), their squares so far."""
        a = -self.probs[self.rows[center]].double()
        a[self.predicted[center]] += 1
        columns = a.abs().topk(min(COLUMNS, len(a))).indices
        p = self.by_class[columns].float()
        p[(columns[:, None] == self.predicted).nonzero(as_tuple=True)] -= 1  # -a of the rows
        inner = (a[columns].float() @ p).abs_().double()
        others = (self.aa - p.square_().sum(dim=0) + 8 * HALF).clamp(min=0).sqrt()
        others *= (self.aa[center] - a[columns].square().sum()).clamp(min=0).sqrt()
        bound = inner + others + 4 * HALF * self.aa[center].sqrt()
        most = 2.001 * bound * (self.xx * self.xx[center]).sqrt()
        return torch.nonzero(most >= self.norms + self.norms[center] - nearest).flatten()


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
