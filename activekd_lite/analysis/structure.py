"""The structure of predictions: which errors, which clusters, and what chance alone would give."""

import torch
from torch import Tensor


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """How many images of class i were called j: (C, C) int64, a row a true class. labels, predicted: (N,) classes 0..C-1.

    Any two answers to the same images can be crossed so: the teacher's first and second choice, the teacher and a student.
    """
    labels, predicted = labels.cpu(), predicted.cpu()
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(
        num_classes, num_classes
    )


def without_diagonal(counts: Tensor) -> Tensor:
    """The errors of a confusion matrix (C, C): what is right set to 0."""
    return counts - counts.diagonal().diag()


def perplexity(counts: Tensor) -> float:
    """The effective number of choices, exp(entropy in nats): k equally frequent ones give k, ones that are rare add little.

    counts: (B,), or (A, B) for the choice within a row: the entropies' mean, rows weighted by their sums. NaN for no counts.
    """
    counts = counts.double().reshape(-1, counts.shape[-1])
    rows = counts.sum(dim=1, keepdim=True)
    entropy = -torch.xlogy(counts, counts / rows.clamp(min=1)).sum() / rows.sum()
    return float(entropy.exp())


def pairs_for_share(errors: Tensor, share: float = 2 / 3) -> int:
    """The fewest entries of `errors` (C, C) counts that hold `share` of their sum: `pairs_for_share(errors, 0.5)` = 1 when one
    confusion is half of all. 0 where there are no errors."""
    held = errors.flatten().sort(descending=True).values.cumsum(0)
    return int((held < share * held[-1] - 1e-9).sum()) + 1 if held[-1] else 0


def chance_errors(errors: Tensor, generator: torch.Generator) -> Tensor:
    """As many errors in each row of `errors` (C, C), each dealt anew to a wrong class by how often that class is a wrong answer
    at all: what would be left if the wrong answer did not depend on the true class."""
    weights = errors.double().sum(dim=0).expand(len(errors), -1).clone().fill_diagonal_(0)
    dealt = torch.zeros_like(errors)
    for row, (count, weight) in enumerate(zip(errors.sum(dim=1).tolist(), weights, strict=True)):
        if count:
            drawn = torch.multinomial(weight, count, replacement=True, generator=generator)
            dealt[row] = torch.bincount(drawn, minlength=len(errors))
    return dealt


def permuted_classes(probs: Tensor, generator: torch.Generator) -> Tensor:
    """Each class's probabilities dealt anew to the images, then rows scaled to sum 1: probs (N, C) -> (N, C).

    Every class keeps its distribution, up to the scaling; what a row has in two classes at once becomes chance.
    """
    order = torch.rand(probs.shape, generator=generator).argsort(dim=0)
    dealt = probs.cpu().double().gather(0, order)
    return (dealt / dealt.sum(dim=1, keepdim=True)).to(probs.dtype)


def shuffled_doubt(probs: Tensor, generator: torch.Generator) -> Tensor:
    """Each row keeps its largest probability where it is, and the others change places: probs (N, C) -> (N, C).

    A classifier with the same answers, as sure of each, that doubts at random.
    """
    probs = probs.cpu()
    rest = torch.ones_like(probs, dtype=torch.bool).scatter_(
        1, probs.argmax(dim=1, keepdim=True), False
    )
    doubt = probs[rest].view(len(probs), -1)  # (N, C - 1)
    order = torch.rand(doubt.shape, generator=generator).argsort(dim=1)
    return probs.masked_scatter(rest, doubt.gather(1, order))


def balls(points: Tensor, groups: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
    """Each group as a ball: centers (K, C), the means, and radii (K,), which hold `share` of the members (1: all of them).

    points: (N, C); groups: (N,) ints; row k is of the k-th smallest of the values that occur in `groups`.
    """
    centers, place = _means(points, groups)
    distances = (points.cpu().double() - centers[place]).norm(dim=1)
    radii = [
        distances[place == k].quantile(share, interpolation="higher") for k in range(len(centers))
    ]
    return centers, torch.stack(radii)


def explained_share(points: Tensor, groups: Tensor) -> float:
    """How far the groups explain the points: 1 - (variance within the groups) / (total variance), from 0 to 1.

    points: (N, C); groups: (N,) ints. K random groups already explain about (K - 1) / (N - 1), and k-means, which looks for the
    groups that explain most, far more: compare with the same k on points that lack the structure. Raises ValueError where all
    points are equal.
    """
    centers, place = _means(points, groups)
    points = points.cpu().double()
    total = (points - points.mean(dim=0)).square().sum()
    if total == 0:
        raise ValueError("all points are equal: there is no variance to explain")
    return 1 - float((points - centers[place]).square().sum() / total)


def _means(points: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of each group (K, C) float64, and the row of each point's own (N,)."""
    names, place = groups.cpu().unique(return_inverse=True)
    sums = torch.zeros(len(names), points.shape[1], dtype=torch.float64).index_add(
        0, place, points.cpu().double()
    )
    return sums / torch.bincount(place)[:, None], place


def same_error_pct(predicted: Tensor, other: Tensor, labels: Tensor) -> float:
    """Of the images that both get wrong, the percent with the same wrong answer; NaN where there is none.

    predicted, other, labels: (N,) classes. Wrong answers that have nothing to do with each other agree in about 100 / (C - 1).
    """
    predicted, other, labels = predicted.cpu(), other.cpu(), labels.cpu()
    both = (predicted != labels) & (other != labels)
    return 100.0 * (predicted == other)[both].double().mean().item()
