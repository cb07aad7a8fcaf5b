"""Calibrated entropy with neighbours (Safaei and Patel 2025, arXiv:2410.22187).

    P_c = mean of t_ic over the images with the largest t_ic,  h_i = H(t_i / P, scaled to sum 1)
    u_i = h_i + beta sum_j w_ij h_j / sum_j w_ij    j: the k nearest neighbours of i, w_ij: cosine

t is the teacher. Dividing by P_c takes away the classes that it favours, and the neighbours lower
the score of outliers. Weighted by u, k-means in feature space takes Q images. O(N^2 F) time for the
neighbours and O(N Q F) per step of k-means; O(N F) memory.

Checked in the abstract: calibration, own and neighbours' uncertainty. The formulas are those of a
summary by others, since the paper's text was not at hand; k = 10, beta = 1 and N / C images per
class for P_c were decided here. Theirs are the VLM's image features; here they are the student's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import (
    draw_seed,
    needs,
    representatives,
    teacher_probs,
    unlabeled_indices,
)
from activekd_lite.strategies.uncertainty import entropy

NEIGHBORS, BETA = 10, 1.0
CHUNK_NUMBERS = 2**18  # similarities held at a time


@needs(teacher=True)
def calibrated_entropy(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose where the teacher is in doubt around an image, too, spread over the feature space.

    Unlike with most strategies, a smaller query is not a prefix of a larger one.
    Raises ValueError if there are no teacher_probs.
    """
    unlabeled = unlabeled_indices(predictions, state, query_size)
    doubt = entropy(calibrated(teacher_probs(predictions, "calibrated_entropy").double()))
    score = doubt + BETA * neighbors_mean(doubt, predictions.features)
    seed = draw_seed(generator)
    features, weight = predictions.features[unlabeled], score[unlabeled].clamp(min=1e-9)
    return unlabeled[representatives(features, query_size, seed, weight)]


def calibrated(probs: Tensor) -> Tensor:
    """Divide each class of probs (N, C) by its mean over the N / C images most confident in it."""
    count = max(1, len(probs) // probs.shape[1])
    prior = probs.topk(count, dim=0).values.mean(dim=0)
    scaled = probs / prior.clamp(min=1e-12)
    return scaled / scaled.sum(dim=1, keepdim=True)


def neighbors_mean(values: Tensor, features: Tensor, neighbors: int = NEIGHBORS) -> Tensor:
    """Return the mean of values (N,) over each image's nearest others, weighted by the cosine."""
    x = F.normalize(features.double(), dim=1)
    count, rows = min(neighbors, len(x) - 1), torch.arange(len(x), device=x.device)
    means = []
    for part in rows.split(max(1, CHUNK_NUMBERS // len(x))):
        cosine = x[part] @ x.T
        cosine[torch.arange(len(part)), part] = -torch.inf  # not itself
        nearest, index = cosine.topk(count, dim=1)
        weight = nearest.clamp(min=1e-9)
        means.append((weight * values[index]).sum(dim=1) / weight.sum(dim=1))
    return torch.cat(means)
