"""Class balancing: more labels for the classes that have few."""

import torch
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import unlabeled_indices


def classbalanced(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Spread the query over the predicted classes by inverse label count, at random within a class.

    Shares are handed out one at a time (Jefferson's divisor method), so a smaller query is a prefix
    of a larger one.
    """
    unlabeled = unlabeled_indices(predictions, state, query_size)
    unlabeled = unlabeled[torch.randperm(len(unlabeled), generator=generator)]
    predicted = predictions.probs.argmax(dim=1).cpu()[unlabeled]
    num_classes = predictions.probs.shape[1]
    members = [unlabeled[predicted == c].tolist() for c in range(num_classes)]
    labeled = torch.bincount(state.labels[state.labeled_indices], minlength=num_classes)
    weight = 1 / labeled.double().clamp(min=0.5)
    taken = torch.zeros(num_classes, dtype=torch.float64)
    picks: list[int] = []
    while len(picks) < query_size:
        left = torch.tensor([len(m) > 0 for m in members])
        c = int(torch.where(left, weight / (taken + 1), -1.0).argmax())
        picks.append(members[c].pop())
        taken[c] += 1
    return torch.tensor(picks)
