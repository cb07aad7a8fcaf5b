"""The structure of predictions: which errors, which clusters, and what chance alone would give."""

from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Count how many images of class i were predicted as class j: (C, C) int64, rows true classes.

    labels, predicted: (N,) class indices 0..C-1.
    Any two sets of answers can be compared this way, such as a teacher's first and second choice.
    """
    cells = labels.cpu() * num_classes + predicted.cpu()
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


def without_diagonal(counts: Tensor) -> Tensor:
    """The errors of a confusion matrix (C, C): its diagonal set to 0."""
    return counts - counts.diagonal().diag()


def perplexity(counts: Tensor) -> float:
    """The effective number of choices, exp(entropy in nats).

    k equally frequent choices give k; rare choices add little.
    counts: (B,); or (A, B), where the rows' entropies are averaged, weighted by the row sums.
    Returns NaN if all counts are 0.
    """
    counts = counts.double().reshape(-1, counts.shape[-1])
    rows = counts.sum(dim=1, keepdim=True)
    entropy = -torch.xlogy(counts, counts / rows.clamp(min=1)).sum() / rows.sum()
    return float(entropy.exp())


def pairs_for_share(errors: Tensor, share: float = 2 / 3) -> int:
    """The fewest entries of `errors` (C, C) that together hold `share` of all errors.

    For example, `pairs_for_share(errors, 0.5)` is 1 if one confusion makes up half of all errors.
    Returns 0 if there are no errors.
    """
    held = errors.flatten().sort(descending=True).values.cumsum(0)
    return int((held < share * held[-1] - 1e-9).sum()) + 1 if held[-1] else 0


def chance_errors(errors: Tensor, generator: torch.Generator) -> Tensor:
    """Redraw the errors (C, C) as if the wrong answer did not depend on the true class.

    Each row keeps its number of errors; they are drawn from the wrong classes in proportion to
    how often each class is a wrong answer overall.
    """
    weights = errors.double().sum(dim=0).expand(len(errors), -1).clone().fill_diagonal_(0)
    redrawn = torch.zeros_like(errors)
    for row, (count, weight) in enumerate(zip(errors.sum(dim=1).tolist(), weights, strict=True)):
        if count:
            drawn = torch.multinomial(weight, count, replacement=True, generator=generator)
            redrawn[row] = torch.bincount(drawn, minlength=len(errors))
    return redrawn


def permuted_classes(probs: Tensor, generator: torch.Generator) -> Tensor:
    """Permute each class's probabilities over the images, then rescale rows to sum to 1.

    Each class keeps its distribution, up to the rescaling; dependence between classes is removed.
    probs: (N, C); returns (N, C).
    """
    order = torch.rand(probs.shape, generator=generator).argsort(dim=0)
    permuted = probs.cpu().double().gather(0, order)
    return (permuted / permuted.sum(dim=1, keepdim=True)).to(probs.dtype)


def shuffled_doubt(probs: Tensor, generator: torch.Generator) -> Tensor:
    """Shuffle each row's probabilities, except for the largest one, which stays in place.

    The result gives the same answers with the same confidence, but spreads the rest at random.
    probs: (N, C); returns (N, C).
    """
    probs, top = probs.cpu(), probs.cpu().argmax(dim=1, keepdim=True)
    rest = torch.ones_like(probs, dtype=torch.bool).scatter_(1, top, False)
    doubt = probs[rest].view(len(probs), -1)  # (N, C - 1)
    order = torch.rand(doubt.shape, generator=generator).argsort(dim=1)
    return probs.masked_scatter(rest, doubt.gather(1, order))


def balls(points: Tensor, groups: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
    """Describe each group as a ball: its mean, and the radius that holds `share` of its members.

    points: (N, C); groups: (N,) integers.
    Returns centers (K, C) and radii (K,); row k belongs to the k-th smallest value in `groups`.
    """
    centers, rows = _means(points, groups)
    distances = (points.cpu().double() - centers[rows]).norm(dim=1)
    members = (distances[rows == k] for k in range(len(centers)))
    radii = [distance.quantile(share, interpolation="higher") for distance in members]
    return centers, torch.stack(radii)


def explained_share(points: Tensor, groups: Tensor) -> float:
    """The share of variance that the groups explain: 1 - within-group / total variance, 0 to 1.

    points: (N, C); groups: (N,) integers.
    K random groups already explain about (K - 1) / (N - 1), and k-means, which optimises this
    share, far more: compare with the same k on points without the structure.
    Raises ValueError if all points are equal.
    """
    centers, rows = _means(points, groups)
    points = points.cpu().double()
    total = (points - points.mean(dim=0)).square().sum()
    if total == 0:
        raise ValueError("all points are equal: there is no variance to explain")
    return 1 - float((points - centers[rows]).square().sum() / total)


def _means(points: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of each group (K, C) float64, and the row (N,) in it of each point's group."""
    values, rows = groups.cpu().unique(return_inverse=True)
    sums = torch.zeros(len(values), points.shape[1], dtype=torch.float64)
    sums.index_add_(0, rows, points.cpu().double())
    return sums / torch.bincount(rows)[:, None], rows


def same_error_pct(predicted: Tensor, other: Tensor, labels: Tensor) -> float:
    """Of the images that both classifiers get wrong, the percentage with the same wrong answer.

    predicted, other, labels: (N,) class indices. Unrelated errors agree in about 100 / (C - 1) %.
    Returns NaN if no image is wrong for both.
    """
    predicted, other, labels = predicted.cpu(), other.cpu(), labels.cpu()
    both_wrong = (predicted != labels) & (other != labels)
    return 100.0 * (predicted == other)[both_wrong].double().mean().item()


def copied_errors(teacher: Tensor, student: Tensor, labels: Tensor) -> dict[str, int]:
    """Count what a student does with its teacher's errors.

    teacher, student, labels: (N,) class indices; images without a label (-1) are left out.

    Returns
    -------
    dict
        - "images"; "errors" of the teacher, each of which is one of the next three:
        - "copied" (the student gives the same wrong answer), "corrected", "changed" (another
          wrong answer)
        - "new": errors of the student where the teacher is right
    """
    teacher, student, labels = teacher.cpu(), student.cpu(), labels.cpu()
    known, right = labels >= 0, student == labels
    wrong = known & (teacher != labels)
    masks = {
        "images": known,
        "errors": wrong,
        "copied": wrong & (student == teacher),
        "corrected": wrong & right,
        "changed": wrong & ~right & (student != teacher),
        "new": known & ~wrong & ~right,
    }
    return {name: int(mask.sum()) for name, mask in masks.items()}


class SplitBall(NamedTuple):
    """The images of one true class that get the same answer from the teacher, as two balls.

    center: (C,), the mean of their probabilities; radius: see `balls`.
    """

    answer: int
    label: int
    images: int
    teacher_center: Tensor
    teacher_radius: float
    student_center: Tensor
    student_radius: float

    @property
    def ratio(self) -> float:
        """The student's radius divided by the teacher's."""
        return self.student_radius / max(self.teacher_radius, 1e-12)

    @property
    def shift(self) -> float:
        """How far the centre moved from the teacher's (0) to the corner of the label (1)."""
        way = -self.teacher_center
        way[self.label] += 1
        moved = self.student_center - self.teacher_center
        return float(moved @ way / (way @ way).clamp(min=1e-12))

    def proposed(self, kd_weight: float) -> tuple[Tensor, float]:
        """Return centre and radius of the student's ball if its answers were ideal mixtures.

        That is p = kd_weight * teacher + (1 - kd_weight) * onehot(label) for every image (the
        proposition of arXiv:2506.00910, with lambda = 1 - kd_weight).
        """
        center = kd_weight * self.teacher_center
        center[self.label] += 1 - kd_weight
        return center, kd_weight * self.teacher_radius


def split_balls(
    teacher_probs: Tensor,
    student_probs: Tensor,
    labels: Tensor,
    *,
    share: float = 0.5,
    least: int = 10,
) -> list[SplitBall]:
    """Measure the teacher's clusters, split by true label, in both probability spaces.

    teacher_probs, student_probs: (N, C). labels: (N,), -1 for unknown. share: of the members that
    a radius holds. least: images that a ball needs to be measured.
    Returns the balls ordered by the teacher's answer, then by label.
    """
    labels, answers = labels.cpu(), teacher_probs.cpu().argmax(dim=1)
    groups = (answers * teacher_probs.shape[1] + labels).where(labels >= 0, -1)
    values, rows, counts = groups.unique(return_inverse=True, return_counts=True)
    large = (values >= 0) & (counts >= least)
    members = large[rows]
    if not members.any():
        return []
    both = (probs.cpu()[members] for probs in (teacher_probs, student_probs))
    (centers, radii), (new_centers, new_radii) = (balls(p, groups[members], share) for p in both)
    kinds = [divmod(value, teacher_probs.shape[1]) for value in values[large].tolist()]
    before = zip(centers, radii.tolist(), strict=True)
    after = zip(new_centers, new_radii.tolist(), strict=True)
    parts = zip(kinds, counts[large].tolist(), before, after, strict=True)
    return [SplitBall(*kind, size, *old, *new) for kind, size, old, new in parts]


@dataclass(frozen=True)
class BallShrinkage:
    """What became of a teacher's balls, see `ball_shrinkage`.

    parts: a row per ball and label. split_share: of the balls with several measured labels, the
    share that splits in the student's space; teacher_split_share: in the teacher's own. NaN if
    there are none.
    """

    parts: pd.DataFrame
    split_share: float
    teacher_split_share: float

    @property
    def ratio(self) -> float:
        """The median of the student's radius / the teacher's, NaN without any part."""
        return float(self.parts["ratio"].median())


def ball_shrinkage(
    teacher_probs: Tensor,
    student_probs: Tensor,
    labels: Tensor,
    *,
    share: float = 0.5,
    least: int = 10,
) -> BallShrinkage:
    """Test the proposition of arXiv:2506.00910: teacher balls split by label and shrink.

    A teacher ball holds the images that get the same answer (largest probability) from the teacher;
    `split_balls` measures it per true label. An ideal student, p = (1 - lambda) teacher + lambda
    onehot(label), shrinks every radius by 1 - lambda and shifts every centre by lambda.

    Parameters
    ----------
    teacher_probs, student_probs, labels, share, least
        See `split_balls`.

    Returns
    -------
    BallShrinkage
        Its `parts` have the columns

        - answer, label, images; teacher_radius, student_radius, ratio
        - implied_lambda: 1 - ratio; negative if the ball grew
        - shift: `SplitBall.shift`, the lambda that the centre implies
        - teacher_apart, student_apart: whether the part lies apart from the largest part of its
          ball, that is, farther away than the sum of both radii. None for the largest part.

        A ball splits if all of its parts lie apart from the largest.
    """
    found = split_balls(teacher_probs, student_probs, labels, share=share, least=least)
    by_answer = (list(parts) for _, parts in groupby(found, key=lambda ball: ball.answer))
    rows = [row for parts in by_answer for row in _part_rows(parts)]
    columns = ["answer", "label", "images", "teacher_radius", "student_radius", "ratio"]
    columns += ["implied_lambda", "shift", "teacher_apart", "student_apart"]
    table = pd.DataFrame(rows, columns=columns)
    splits = table.dropna(subset="student_apart").groupby("answer")
    shares = (float(splits[f"{whose}_apart"].all().mean()) for whose in ("student", "teacher"))
    return BallShrinkage(table, *shares)


def _part_rows(parts: list[SplitBall]) -> list[tuple]:
    """Return a row of `BallShrinkage.parts` for each part of one ball."""
    largest = max(parts, key=lambda ball: ball.images)
    rows = []
    for ball in parts:
        size = ball.images, ball.teacher_radius, ball.student_radius, ball.ratio
        apart = (None, None) if ball is largest else _apart(ball, largest)
        rows.append((ball.answer, ball.label, *size, 1 - ball.ratio, ball.shift, *apart))
    return rows


def _apart(ball: SplitBall, other: SplitBall) -> tuple[bool, bool]:
    """Return whether two balls are disjoint, in the teacher's space and in the student's."""
    before = (ball.teacher_center - other.teacher_center).norm()
    after = (ball.student_center - other.student_center).norm()
    return (
        bool(before > ball.teacher_radius + other.teacher_radius),
        bool(after > ball.student_radius + other.student_radius),
    )
