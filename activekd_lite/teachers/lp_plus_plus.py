"""LP++ (Huang et al. 2024, arXiv:2404.02285): a linear probe blended with the text weights.

    logits of class k = f . (w_k + a_k t_k) + b_k        minimising  CE

w_k (D,) and b_k are the probe, t_k the text weights and a_k (C,) their learned factors. The step
sizes come from the features F (L, D), by the Lipschitz constants of the loss: 4 L / (largest
eigenvalue of F^T F) for the probe, L / (4 max_k sum_i (f_i . t_k)^2) for the factors.

Gradient descent with momentum on full batches, the factors in every tenth step, as in the authors'
code (FereshteShakeri/FewShot-CLIP-Strong-Baseline), whose start for the probe (the features of the
class: here their mean) and number of steps are kept, too. Differences: the authors keep the step
that is best on a validation set, here it is the last; their factors start at 250 times the mean
similarity of image and text, which fits the cosines of OpenAI's CLIP, here they start at the VLM's
own logit scale, so that fitting starts near the zero-shot teacher. The paper's propositions were
not checked against the code's formulas.

As with any probe, a class without labels is hardly ever predicted: start with at least one each.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.teachers.few_shot import Fitted, Labeled
from activekd_lite.utils.checks import check_whole_valued


@dataclass(frozen=True)
class LpPlusPlus:
    """How long the probe is fitted: steps, and the momentum of gradient descent."""

    kind: ClassVar[str] = "lp-plus-plus"
    steps: int = 300
    momentum: float = 0.9

    def __post_init__(self):
        check_whole_valued(self, "steps")
        if self.steps < 1:
            raise ValueError(f"steps = {self.steps} must be larger than 0")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum = {self.momentum} must lie in [0, 1)")

    def fit(self, labeled: Labeled, g: torch.Generator) -> Fitted:
        """Return weights (D, C), the sum of both parts, and bias (C,)."""
        features = labeled.features.flatten(0, 1)  # (V * L, D): views are further images
        labels = labeled.labels.repeat(len(labeled.features))
        text = labeled.text_weights
        one_hot = labeled.one_hot().repeat(len(labeled.features), 1)
        means = features.T @ one_hot / one_hot.sum(dim=0).clamp(min=1)  # (D, C)
        probe = means.clone().requires_grad_()
        bias = torch.zeros(text.shape[1], device=text.device, requires_grad=True)
        factors = torch.full_like(bias, labeled.logit_scale).requires_grad_()
        probe_lr, factor_lr = step_sizes(features, text)
        optimiser = torch.optim.SGD([probe, bias], probe_lr, momentum=self.momentum)
        for step in range(1, self.steps + 1):
            logits = features @ (probe + factors * text) + bias
            loss = F.cross_entropy(logits, labels)
            *grads, factor_grad = torch.autograd.grad(loss, [probe, bias, factors])
            probe.grad, bias.grad = grads
            optimiser.step()
            if step % 10 == 0:
                with torch.no_grad():
                    factors -= factor_lr * factor_grad
        return {"weights": (probe + factors * text).detach(), "bias": bias.detach()}

    def logits(self, features: Tensor, zero_shot: Tensor, fitted: Fitted) -> Tensor:
        return features @ fitted["weights"] + fitted["bias"]


def step_sizes(features: Tensor, text_weights: Tensor) -> tuple[float, float]:
    """Return the step sizes of probe and factors for features (L, D) and text weights (D, C)."""
    largest = torch.linalg.eigvalsh((features.T @ features).double())[-1]
    similar = (features @ text_weights).square().sum(dim=0).max()
    return 4 * len(features) / float(largest), len(features) / (4 * float(similar))
