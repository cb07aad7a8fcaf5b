"""Train a student on labels and cached teacher features, and let it predict."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.device import resolve_device
from activekd_lite.losses import dual_head_loss
from activekd_lite.pool import LabelState, Pool, Predictions
from activekd_lite.seeding import generator
from activekd_lite.students import DualHeadStudent, build_student, mix_heads
from activekd_lite.teacher import ZeroShotTeacher
from activekd_lite.views import Views, pixels, render_center


@dataclass(frozen=True)
class TrainConfig:
    """How a student is trained. The optimiser is AdamW with linear warm-up, then linear decay to 0 (or cosine).

    batch_size: images of a labelled batch; with a teacher an unlabelled batch of the same size goes with it.
    temperature: of the distillation loss; kd_weight and beta: see `students.mix_heads`; warmup: share of the steps.
    """

    steps: int = 150
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: str = "linear"
    temperature: float = 2.0
    kd_weight: float = 0.5
    beta: float = 1.0

    def __post_init__(self):
        for name in ("steps", "batch_size", "lr", "temperature", "beta"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be larger than 0")
        for name in ("warmup", "kd_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)} must lie between 0 and 1")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay = {self.weight_decay} must not be negative")
        if self.schedule not in ("linear", "cosine"):
            raise ValueError(f"schedule = {self.schedule!r}; 'linear' and 'cosine' are known")

    def lr_factor(self, step: int) -> float:
        """The share of `lr` used at a step: rises over the warm-up, then falls to 0 at the last step."""
        warm = max(1, round(self.warmup * self.steps))
        if step < warm:
            return (step + 1) / warm
        left = (self.steps - step) / max(1, self.steps - warm)
        return left if self.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


class ViewBank:
    """Pixels of any (image, view) at the student's size: rendered once and kept as uint8 if they fit, else on demand.

    `bank(indices (B,), view (B,))` -> (B, 3, S, S) float in [0, 1] on `device`; the same numbers either way.
    """

    def __init__(self, pool: Pool, views: Views, size: int, device: torch.device, budget_bytes: int = 2**30):
        self.pool, self.views, self.size, self.device = pool, views, size, device
        everything = views.count * len(pool) * 3 * size * size
        self.kept = None
        if everything <= budget_bytes:
            ids = torch.arange(len(pool)).split(1024)
            rows = [torch.cat([self._render(i, torch.full_like(i, view)) for i in ids]) for view in range(views.count)]
            self.kept = torch.stack(rows)  # (V, N, 3, S, S) uint8

    def __call__(self, indices: Tensor, view: Tensor) -> Tensor:
        rendered = self._render(indices, view) if self.kept is None else self.kept[view, indices]
        return (rendered.float() / 255).contiguous(memory_format=torch.channels_last)

    def _render(self, indices: Tensor, view: Tensor) -> Tensor:
        images = self.pool.images[indices.to(self.pool.images.device)].to(self.device)
        return (pixels(self.views, images, indices, view, self.size) * 255).round().to(torch.uint8)


def train_student(
    pool: Pool,
    state: LabelState,
    teacher: ZeroShotTeacher | None = None,
    *,
    student: str = "tiny-cnn",
    config: TrainConfig = TrainConfig(),
    bank: ViewBank | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> DualHeadStudent:
    """A fresh student, trained on what is labelled and, with a teacher, distilled on the whole pool (eq. of `losses`).

    Student and batches depend on `seed` alone: the labelled batches are the same with and without a teacher. bank: the
    rendered views, to share them between rounds. Raises ValueError when nothing is labelled or the pools differ.
    """
    device = resolve_device(device)
    if len(state.labeled_indices) == 0:
        raise ValueError("nothing is labelled: label an initial set first, see Oracle.initial_indices")
    if teacher and teacher.num_classes != pool.num_classes:
        raise ValueError(f"the teacher knows {teacher.num_classes} classes, the pool has {pool.num_classes}")
    net = build_student(student, pool.num_classes, seed=seed, device=device).train()
    if bank is None:
        views = teacher.cache.views if teacher else Views(augmentation=pool.augmentation)
        bank = ViewBank(pool, views, net.input_size, device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, config.lr_factor)
    labeled = _batches(state.labeled_indices, bank.views.count, config, generator(seed, "labelled batches"))
    unlabeled = state.unlabeled_indices if len(state.unlabeled_indices) else state.labeled_indices
    unlabeled = _batches(unlabeled, bank.views.count, config, generator(seed, "unlabelled batches"))
    for (index, view), (other, other_view) in zip(labeled, unlabeled, strict=True):
        labels = state.labels[index].to(device)
        if teacher is None:
            loss = F.cross_entropy(net(bank(index, view))[0], labels)
        else:
            both, both_views = torch.cat([index, other]), torch.cat([view, other_view])
            ce, kd = net(bank(both, both_views))
            known, unknown = teacher.logits(both, both_views).to(device).chunk(2)
            kd_labeled, kd_unlabeled = kd.chunk(2)
            loss = dual_head_loss(ce[: len(index)], labels, kd_labeled, known, kd_unlabeled, unknown, config.temperature)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.eval()


@torch.inference_mode()
def predict(student: DualHeadStudent, images: Tensor, *, kd_weight: float, beta: float = 1.0, batch: int = 1024) -> Predictions:
    """The student's answer for the centre crop of every image, in order, on the student's device (MPS: on the CPU, since
    selection counts in float64).

    images: (N, 3, H, W) uint8; kd_weight: 0 for a student trained without a teacher. Raises ValueError for NaN.
    """
    device = next(student.parameters()).device
    student.eval()
    probs, features = [], []
    for part in images.split(batch):
        x = render_center(part.to(device), student.input_size).contiguous(memory_format=torch.channels_last)
        features.append(student.features(x))
        probs.append(mix_heads(student.ce_head(features[-1]), student.kd_head(features[-1]), kd_weight, beta))
    home = torch.device("cpu") if device.type == "mps" else device
    return Predictions(torch.cat(probs).to(home), torch.cat(features).to(home))


def _batches(candidates: Tensor, view_count: int, config: TrainConfig, g: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """For every step the pool indices (B,), drawn with replacement, and the view of each (B,)."""
    shape = (config.steps, config.batch_size)
    picks = candidates[torch.randint(len(candidates), shape, generator=g)]
    return list(zip(picks, torch.randint(view_count, shape, generator=g), strict=True))
