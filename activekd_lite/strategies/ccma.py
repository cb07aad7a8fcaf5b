"""CCMA: conformal cross-modal acquisition (Nguyen et al. 2026, arXiv:2603.23159).

    S_i = {c: s_ic >= q_s}, T_i = {c: t_ic >= q_t}    q_s, q_t: mean sizes of 5 and 3 classes
    score_i = w_i JS(s_i on S_i + T_i, t_i on S_i + T_i) + (1 - w_i) H(s_i)
    w_i = max t_i / (max t_i + max s_i)

s is the student, t the teacher, S_i + T_i the union of the prediction sets, on which both are
scaled to sum 1. Of the 20 Q images of highest score, k-means in feature space takes Q.
O(N C log(N C)) time, O(Q^2 F) per step of k-means, and O(N C) memory.

Checked in the authors' code: all of the above, and that the thresholds are solved on the unlabelled
images themselves, so that no label is needed. Different here: their k-means runs among the VLM's
image features, of which a strategy sees none after the first round, so it runs among the student's;
the teacher keeps its own temperature (theirs is reset to 0.03); and there is no subpool, which they
draw where a pool has more than 10,000 images.
"""

import torch
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import (
    draw_seed,
    highest,
    needs,
    representatives,
    teacher_probs,
    unlabeled_indices,
)
from activekd_lite.strategies.uncertainty import entropy

STUDENT_SET, TEACHER_SET = 5, 3  # mean number of classes in a prediction set
OVERSAMPLING = 20  # candidates per pick


@needs(teacher=True)
def ccma(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose images on which student and teacher differ or the student is in doubt, spread out.

    Unlike with most strategies, a smaller query is not a prefix of a larger one.
    Raises ValueError if there are no teacher_probs.
    """
    unlabeled = unlabeled_indices(predictions, state, query_size)
    taught = teacher_probs(predictions, "ccma")[unlabeled].double()
    score = conformal_score(predictions.probs[unlabeled].double(), taught)
    every = torch.arange(len(unlabeled))
    best = highest(score, every, min(len(every), OVERSAMPLING * query_size))
    seed = draw_seed(generator)
    return unlabeled[best[representatives(predictions.features[unlabeled[best]], query_size, seed)]]


def conformal_score(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the score (U,) of student and teacher probabilities (U, C)."""
    union = prediction_sets(student, STUDENT_SET) | prediction_sets(teacher, TEACHER_SET)
    s, t = (p * union / (p * union).sum(dim=1, keepdim=True) for p in (student, teacher))
    divergence = entropy((s + t) / 2) - (entropy(s) + entropy(t)) / 2  # Jensen-Shannon, in nats
    sure_s, sure_t = student.amax(dim=1), teacher.amax(dim=1)
    weight = sure_t / (sure_t + sure_s)
    return weight * divergence + (1 - weight) * entropy(student)


def prediction_sets(probs: Tensor, mean_size: int) -> Tensor:
    """Return the classes (U, C) bool above one threshold: `mean_size` on average, none empty."""
    count = min(mean_size * len(probs), probs.numel())
    threshold = probs.flatten().sort(descending=True).values[count - 1]
    return probs >= torch.minimum(threshold, probs.amax(dim=1).min())
