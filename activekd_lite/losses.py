"""The loss of the dual-head student (DHO, arXiv:2505.07675), weighted as in ActiveKD
(arXiv:2506.00910)."""

import torch
import torch.nn.functional as F
from torch import Tensor

DISTILL_ON = ("both", "labeled", "unlabeled")  # the images whose teacher's answers are learned


def standardized(logits: Tensor) -> Tensor:
    """Shift and scale each row of logits (B, C) to mean 0 and standard deviation 1."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / centred.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-6)


def tempered_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 2.0) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), averaged over the batch.

    Both (B, C). T^2 makes the size of the gradient independent of T (Hinton et al. 2015).
    """
    log_p = F.log_softmax(student_logits / temperature, dim=1)
    log_q = F.log_softmax(teacher_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labeled_count: int,
    *,
    on: str = "both",
    temperature: float = 2.0,
    standardize: bool = False,
) -> Tensor:
    """KL_T on the labelled images + KL_T on the unlabelled ones, or one of the two.

    Both logits (B, C), the `labeled_count` labelled images first. on: see DISTILL_ON.
    standardize: compare `standardized` logits (arXiv:2403.01427): the student learns the order and
    the relative gaps of the teacher's logits, not their size.
    """
    if standardize:
        student_logits, teacher_logits = standardized(student_logits), standardized(teacher_logits)
    student, teacher = student_logits.split(labeled_count), teacher_logits.split(labeled_count)
    pairs = list(zip(student, teacher, strict=True))  # of labelled images, of unlabelled ones
    used = {"both": pairs, "labeled": pairs[:1], "unlabeled": pairs[1:]}[on]
    return torch.stack([tempered_kl(s, t, temperature) for s, t in used]).sum()
