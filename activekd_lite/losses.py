"""The loss of the dual-head student (DHO, arXiv:2505.07675), weighted as in ActiveKD
(arXiv:2506.00910)."""

import torch.nn.functional as F
from torch import Tensor


def tempered_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), averaged over the batch.

    Both (B, C). T^2 makes the size of the gradient independent of T (Hinton et al. 2015).
    """
    log_p = F.log_softmax(student_logits / temperature, dim=1)
    log_q = F.log_softmax(teacher_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def dual_head_loss(
    ce_logits: Tensor,
    labels: Tensor,
    kd_labeled: Tensor,
    teacher_labeled: Tensor,
    kd_unlabeled: Tensor,
    teacher_unlabeled: Tensor,
    temperature: float = 2.0,
) -> Tensor:
    """0.5 CE(ce_head, labels) + 0.5 [KL_T on the labelled batch + KL_T on the unlabelled batch].

    ce_logits: (B, C) of the labelled batch, labels: (B,); the four others (B, C).
    """
    on_labeled = tempered_kl(kd_labeled, teacher_labeled, temperature)
    on_unlabeled = tempered_kl(kd_unlabeled, teacher_unlabeled, temperature)
    return 0.5 * F.cross_entropy(ce_logits, labels) + 0.5 * (on_labeled + on_unlabeled)
