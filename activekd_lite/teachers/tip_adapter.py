"""Tip-Adapter (Zhang et al. 2022, arXiv:2111.03930): the labelled features as a key-value memory.

    logits = zero-shot logits + alpha * exp(-beta (1 - f . k_i)) summed over the labels of a class

Nothing is trained. The keys k_i are the labelled images' features, averaged over the cached views
and normalised, as in the authors' code (gaopengcuhk/Tip-Adapter). Not implemented: the search for
alpha and beta on a validation set, and Tip-Adapter-F, which trains the keys.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.teachers.few_shot import Fitted, Labeled


@dataclass(frozen=True)
class TipAdapter:
    """How the memory is read.

    alpha, beta
        Weight of the memory, and how local it is. The defaults are where the authors' code starts
        its search on ImageNet (read in its configuration, not in the paper).
    balanced
        Weight classes equally, whatever their numbers of labels. The paper has equally many for
        each class, where this changes nothing; active learning does not.
    """

    kind: ClassVar[str] = "tip-adapter"
    alpha: float = 1.17
    beta: float = 1.0
    balanced: bool = True

    def __post_init__(self):
        for name in ("alpha", "beta"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be larger than 0")

    def fit(self, labeled: Labeled, g: torch.Generator) -> Fitted:
        """Return keys (L, D) and values (L, C)."""
        values = labeled.one_hot()
        if self.balanced:
            counts = values.sum(dim=0)  # (C,)
            values = values * counts[counts > 0].mean() / counts.clamp(min=1)
        return {"keys": F.normalize(labeled.features.mean(dim=0), dim=1), "values": values}

    def logits(self, features: Tensor, zero_shot: Tensor, fitted: Fitted) -> Tensor:
        affinity = (self.beta * (features @ fitted["keys"].T - 1)).exp()  # (B, L)
        return zero_shot + self.alpha * affinity @ fitted["values"]
