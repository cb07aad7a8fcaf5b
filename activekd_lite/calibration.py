"""Calibrate a trained student: one temperature, fitted on the labelled images (Guo et al. 2017,
arXiv:1706.04599), here for the mixed probabilities of both heads."""

import torch
from torch import Tensor

SHARPEST, FLATTEST = 0.05, 20.0  # temperatures


def tempered(probs: Tensor, temperature: float) -> Tensor:
    """Return probs (N, C) to the power of 1 / temperature, rescaled to sum to 1.

    The order within a row stays the same, so accuracy does not change.
    """
    logits = probs.double().clamp(min=1e-12).log() / temperature
    return logits.softmax(dim=1).to(probs.dtype)


def fit_temperature(probs: Tensor, labels: Tensor) -> float:
    """Return the temperature that makes labels (L,) most likely under `tempered` probs (L, C).

    The student was trained on these images and gets nearly all of them right, however unsure it is
    elsewhere; the most likely temperature would then be 0. So a label counts as right with
    probability (L + 1/2) / (L + 1), Jeffreys' estimate after L successes of L, and the other
    classes share the rest.
    """
    from scipy.optimize import minimize_scalar

    probs, labels = probs.cpu(), labels.cpu()
    right = (len(labels) + 0.5) / (len(labels) + 1)
    targets = torch.full(probs.shape, (1 - right) / max(1, probs.shape[1] - 1)).double()
    targets.scatter_(1, labels[:, None], right)
    logits = probs.double().clamp(min=1e-12).log()

    def loss(sharpness: float) -> float:
        return -float((targets * (logits * sharpness).log_softmax(dim=1)).sum())

    found = minimize_scalar(loss, bounds=(1 / FLATTEST, 1 / SHARPEST), method="bounded")
    return 1 / float(found.x)
