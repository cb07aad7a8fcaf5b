"""Train a student on labels and cached teacher features, and let it predict."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from activekd_lite.cache import FrozenFeatures
from activekd_lite.device import autocast, resolve_device, resolve_precision
from activekd_lite.images import Batch, ImageFiles, stream_centers, stream_views
from activekd_lite.losses import dual_head_loss
from activekd_lite.pool import LabelState, Pool, Predictions
from activekd_lite.seeding import derive_seed, generator
from activekd_lite.students import DualHeadStudent, build_student, find_backbone, mix_heads
from activekd_lite.teacher import Teacher
from activekd_lite.views import FRESH, Views, all_views


@dataclass(frozen=True)
class TrainConfig:
    """How a student is trained. The optimiser is AdamW with linear warm-up, then linear decay to 0 (or cosine).

    batch_size: images of a labelled batch; with a teacher an unlabelled batch of the same size goes with it. passes: of the
    labelled images, instead of a number of steps. warmup: share of the steps. temperature: of the distillation loss. kd_weight
    and beta: see `students.mix_heads`; eval_kd_weight and eval_beta: the same for the test set, where they differ from those
    used for selection. pretrained: see `students.build_student`. precision of the student: "float32", "bfloat16", "float16",
    or "auto": bfloat16 on CUDA, else float32. compile: by torch.compile, which needs a C++ compiler and pays on long rounds.
    """

    steps: int = 150
    passes: float | None = None
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: str = "linear"
    temperature: float = 2.0
    kd_weight: float = 0.5
    beta: float = 1.0
    eval_kd_weight: float | None = None
    eval_beta: float | None = None
    pretrained: bool | str = True
    precision: str = "auto"
    compile: bool = False

    def __post_init__(self):
        for name in ("steps", "batch_size"):
            if getattr(self, name) != int(getattr(self, name)):
                raise ValueError(f"{name} = {getattr(self, name)}: a whole number is needed")
        for name in ("steps", "passes", "batch_size", "lr", "temperature", "beta", "eval_beta"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} = {value} must be larger than 0")
        for name in ("warmup", "kd_weight", "eval_kd_weight"):
            if (value := getattr(self, name)) is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} = {value} must lie between 0 and 1")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay = {self.weight_decay} must not be negative")
        if self.schedule not in ("linear", "cosine"):
            raise ValueError(f"schedule = {self.schedule!r}; 'linear' and 'cosine' are known")
        resolve_precision(self.precision, torch.device("cpu"), "bfloat16")
        if not isinstance(self.pretrained, bool):
            object.__setattr__(self, "pretrained", str(self.pretrained))  # a Path cannot be written as JSON

    def steps_for(self, labeled_count: int) -> int:
        """Training steps of a round with so many labels."""
        return self.steps if self.passes is None else math.ceil(self.passes * labeled_count / self.batch_size)

    def lr_factor(self, step: int, steps: int) -> float:
        """The share of `lr` used at a step of `steps`: rises over the warm-up, then falls to 0 at the last step."""
        warm = max(1, round(self.warmup * steps))
        if step < warm:
            return (step + 1) / warm
        left = (steps - step) / max(1, steps - warm)
        return left if self.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))

    def mixing(self, distilled: bool, evaluation: bool = False) -> dict[str, float]:
        """kd_weight and beta for `predict`: of the selection, or of the evaluation; without distillation kd_weight is 0."""
        kd_weight, beta = self.kd_weight, self.beta
        if evaluation:
            kd_weight = kd_weight if self.eval_kd_weight is None else self.eval_kd_weight
            beta = beta if self.eval_beta is None else self.eval_beta
        return {"kd_weight": kd_weight if distilled else 0.0, "beta": beta}


class ViewBank:
    """Pixels of any (image, view) at the student's size: rendered once and kept as uint8 if they fit, else on demand.

    `bank(indices (B,), view (B,))` -> (B, 3, S, S) float in [0, 1] on `device`; the same numbers either way.
    """

    dim = None  # of features: these are pixels

    def __init__(self, pool: Pool, views: Views, size: int, device: torch.device, budget_bytes: int = 2**30):
        self.pool, self.views, self.size, self.device = pool, views, size, device
        everything = views.count * len(pool) * 3 * size * size
        self.kept = None
        if everything <= budget_bytes:
            kept = torch.empty(views.count, len(pool), 3, size, size, dtype=torch.uint8, device=device)
            parts = torch.arange(len(pool)).split(max(1, 256 // views.count))
            batches = [all_views(ids, views.count) for ids in parts]  # files are decoded once for all views
            for (index, view), rendered in zip(batches, self._render(batches), strict=True):
                kept[view, index] = rendered
            self.kept = kept

    def __call__(self, indices: Tensor, view: Tensor) -> Tensor:
        return next(self.stream([(indices, view)]))

    def stream(self, batches: Sequence[Batch]) -> Iterator[Tensor]:
        """The pixels of each batch, in order; files are decoded ahead."""
        kept = None if self.kept is None else (self.kept[view, index] for index, view in batches)
        for rendered in kept or self._render(batches):
            yield (rendered.float() / 255).contiguous(memory_format=torch.channels_last)

    def centers(self) -> Tensor | ImageFiles:
        """What `predict` is given for the whole pool."""
        return self.pool.images

    def _render(self, batches: Sequence[Batch]) -> Iterator[Tensor]:
        for x in stream_views(self.pool.images, batches, self.views, self.size, device=self.device):
            yield (x * 255).round().to(torch.uint8)


class FeatureBank:
    """A ViewBank's place taken by cached features (B, D): for students that learn from these instead of pixels."""

    def __init__(self, features: FrozenFeatures, device: torch.device):
        self.cache, self.views, self.device = features.pool.to(device), features.pool.views, device
        self.dim = self.cache.dim

    def stream(self, batches: Sequence[Batch]) -> Iterator[Tensor]:
        return (self.cache.gather(index, view) for index, view in batches)

    def centers(self) -> Tensor:
        return self.cache.features[0]


def check_features(pool: Pool, student: str, views: Views, features: FrozenFeatures | None) -> None:
    """Raises ValueError for a student that needs features where there are none, or those of other images or views."""
    if find_backbone(student):
        return
    if features is None:
        raise ValueError(f"student {student!r} learns from cached features: pass features=akd.FrozenFeatures.build(vlm, data)")
    if features.pool.fingerprint["pool"] != pool.fingerprint() or features.pool.views != views:
        raise ValueError(
            "these features were made from other images or views than the run's; build them with its data and views"
        )


def make_bank(
    pool: Pool, student: str, views: Views, device: torch.device, features: FrozenFeatures | None = None
) -> ViewBank | FeatureBank:
    """What a student of that name is trained on: pixels, or the features; see `check_features`."""
    backbone = find_backbone(student)
    return ViewBank(pool, views, backbone.input_size, device) if backbone else FeatureBank(features, device)


def train_student(
    pool: Pool,
    state: LabelState,
    teacher: Teacher | None = None,
    *,
    student: str = "tiny-cnn",
    config: TrainConfig = TrainConfig(),
    bank: ViewBank | FeatureBank | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> DualHeadStudent:
    """A fresh student, trained on what is labelled and, with a teacher, distilled on the whole pool (eq. of `losses`).

    Student and batches depend on `seed` alone: the labelled batches are the same with and without a teacher. bank: what
    `make_bank` rendered, to share it between rounds. `student.loss_curve` tells how it went. Raises ValueError when nothing is
    labelled or the pools differ.
    """
    device = resolve_device(device)
    if len(state.labeled_indices) == 0:
        raise ValueError("nothing is labelled: label an initial set first, see Oracle.initial_indices")
    if teacher and teacher.num_classes != pool.num_classes:
        raise ValueError(f"the teacher knows {teacher.num_classes} classes, the pool has {pool.num_classes}")
    if bank is None:
        views = (teacher.views if teacher else None) or Views(FRESH, augmentation=pool.augmentation)
        check_features(pool, student, views, None)
        bank = make_bank(pool, student, views, device)
    net = build_student(
        student, pool.num_classes, seed=seed, pretrained=config.pretrained, device=device, input_dim=bank.dim
    ).train()
    plan = _plan(state, bank.views.count, config, seed, with_unlabeled=teacher is not None)
    random_state = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=random_state):  # dropout and the like draw from the global state
        torch.manual_seed(derive_seed(seed, "dropout"))
        net.loss_curve = _train(net, plan, bank, state, teacher, config, progress)
    return net.eval()


def _plan(state: LabelState, view_count: int, config: TrainConfig, seed: int, with_unlabeled: bool) -> list[Batch]:
    """For every step the images and views: a labelled batch, and behind it an unlabelled one of the same size."""
    steps = config.steps_for(len(state.labeled_indices))
    labeled = _batches(state.labeled_indices, view_count, steps, config.batch_size, generator(seed, "labelled batches"))
    if not with_unlabeled:
        return labeled
    rest = state.unlabeled_indices if len(state.unlabeled_indices) else state.labeled_indices
    unlabeled = _batches(rest, view_count, steps, config.batch_size, generator(seed, "unlabelled batches"))
    return [tuple(torch.cat(pair) for pair in zip(*both, strict=True)) for both in zip(labeled, unlabeled, strict=True)]


def _train(
    net: DualHeadStudent, plan: Sequence[Batch], bank: ViewBank | FeatureBank, state: LabelState, teacher: Teacher | None,
    config: TrainConfig, progress: bool,
) -> Tensor:  # fmt: skip
    """Train in place; returns the losses (S, 2) of the steps: cross-entropy, and distillation (0 without a teacher)."""
    device, labeled = bank.device, config.batch_size
    precision = resolve_precision(config.precision, device, "bfloat16")
    forward = torch.compile(net) if config.compile else net
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: config.lr_factor(step, len(plan)))
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
    losses = torch.zeros(len(plan), 2, device=device)
    bar = tqdm(bank.stream(plan), total=len(plan), unit="step", desc="training", leave=False, delay=15, disable=not progress)
    for step, (x, (index, view)) in enumerate(zip(bar, plan, strict=True)):
        labels = state.labels[index[:labeled]].to(device, non_blocking=True)
        with autocast(device, precision):
            ce, kd = (head.float() for head in forward(x))
        if teacher is None:
            loss = supervised = F.cross_entropy(ce, labels)
        else:
            known, unknown = teacher.logits(index, view).to(device).split(labeled)
            of_labeled, of_unlabeled = kd.split(labeled)
            loss = dual_head_loss(ce[:labeled], labels, of_labeled, known, of_unlabeled, unknown, config.temperature)
            supervised = F.cross_entropy(ce[:labeled].detach(), labels)
            losses[step, 1] = 2 * loss.detach() - supervised  # loss = (supervised + distilled) / 2
        losses[step, 0] = supervised.detach()
        optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        schedule.step()
    return losses.cpu()


@torch.inference_mode()
def predict(
    student: DualHeadStudent, images: Tensor | ImageFiles, *, kd_weight: float, beta: float = 1.0, batch: int | None = None,
    precision: str = "float32",
) -> Predictions:  # fmt: skip
    """The student's answer for the centre crop of every image, in order, on the student's device (MPS: on the CPU, since
    selection counts in float64).

    images: (N, 3, H, W) uint8, or files, or unit-norm features (N, D) for a student of features.
    kd_weight: 0 for a student trained without a teacher; batch: images at once, None for fewer the larger they are.
    Raises ValueError for NaN.
    """
    device = next(student.parameters()).device
    student.eval()
    batch = batch or min(1024, max(64, 2**22 // (student.input_size or 1) ** 2))
    probs, features = [], []
    if student.input_size is None:
        inputs = (part.to(device).float() for part in images.split(batch))
    else:
        centers = stream_centers(images, batch, student.input_size, device=device)
        inputs = (x.contiguous(memory_format=torch.channels_last) for x in centers)
    for x in inputs:
        with autocast(device, resolve_precision(precision, device, "bfloat16")):
            features.append(student.features(x).float())
        probs.append(mix_heads(student.ce_head(features[-1]), student.kd_head(features[-1]), kd_weight, beta))
    home = torch.device("cpu") if device.type == "mps" else device
    return Predictions(torch.cat(probs).to(home), torch.cat(features).to(home))


def _batches(candidates: Tensor, view_count: int, steps: int, batch_size: int, g: torch.Generator) -> list[Batch]:
    """For every step the pool indices (B,), drawn with replacement, and the view of each (B,)."""
    picks = candidates[torch.randint(len(candidates), (steps, batch_size), generator=g)]
    return list(zip(picks, torch.randint(view_count, (steps, batch_size), generator=g), strict=True))
