"""PCB: pseudo-class balance (Bang, Ahn and Lee 2024, arXiv:2311.11178).

    B = the 10 % of the pool that an ordinary strategy likes best
    repeat Q times: c = argmin_c n_c; pick from {i in B: argmax_c teacher_i = c} at random; n_c += 1

n_c counts the labels of class c so far. O(N (C + log N) + Q C) time, O(N) memory beyond the
probabilities.

Checked in the authors' code: the 10 %, the counts, random choice within a class, and entropy as one
of the strategies that choose B (coreset and badge are the others; they would need 0.1 N picks).
Different here: the authors' learner is the VLM itself; here the pseudo-labels are the teacher's
and the entropy is the student's. Where no image of B is predicted as class c, they draw from B at
random and leave n_c as it is, so all further picks are random; here the next class with images
takes its turn. Beyond B, the query goes on with the next images by entropy.
"""

import torch
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import highest, needs, teacher_probs, unlabeled_indices
from activekd_lite.strategies.uncertainty import entropy

SHARE = 0.1  # of the pool, among which classes are balanced


@needs(teacher=True)
def pcb(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Balance the classes that the teacher predicts, among the images of largest entropy.

    predictions.probs: the student's (N, C); predictions.teacher_probs: (N, C).
    Raises ValueError if there are no teacher_probs.
    """
    unlabeled = unlabeled_indices(predictions, state, query_size)
    predicted = teacher_probs(predictions, "pcb").argmax(dim=1).cpu()
    ordered = highest(entropy(predictions.probs.double()), unlabeled, len(unlabeled))
    count = min(len(ordered), -(-len(state.labels) // round(1 / SHARE)))
    candidates = ordered[:count][torch.randperm(count, generator=generator)]
    num_classes = predictions.probs.shape[1]
    members = [candidates[predicted[candidates] == c].tolist() for c in range(num_classes)]
    labels = torch.bincount(state.labels[state.labeled_indices], minlength=num_classes)
    picks: list[int] = []
    while len(picks) < min(query_size, count):
        left = torch.tensor([len(m) > 0 for m in members])
        c = int(labels.where(left, labels.max() + 1).argmin())
        picks.append(members[c].pop())
        labels[c] += 1
    return torch.cat([torch.tensor(picks), ordered[count : count + query_size - len(picks)]])
