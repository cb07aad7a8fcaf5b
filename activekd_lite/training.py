"""Train a student on labels and cached teacher features, and let it predict."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from activekd_lite.banks import FeatureBank, ViewBank, check_features, make_bank
from activekd_lite.losses import kd_loss
from activekd_lite.pool import LabelState, Pool, Predictions
from activekd_lite.students import DualHeadStudent, build_student, mix_heads
from activekd_lite.teacher import Teacher
from activekd_lite.train_config import TrainConfig
from activekd_lite.utils.batches import draw_batches, fill_up
from activekd_lite.utils.device import autocast, resolve_device, resolve_precision
from activekd_lite.utils.images import Batch, ImageFiles, stream_centers
from activekd_lite.utils.seeding import derive_seed, generator, global_seed
from activekd_lite.utils.views import FRESH, Views

Bank = ViewBank | FeatureBank


def train_student(
    pool: Pool,
    state: LabelState,
    teacher: Teacher | None = None,
    *,
    student: str = "tiny-cnn",
    config: TrainConfig = TrainConfig(),
    bank: Bank | None = None,
    seed: int = 0,
    last_round: bool = False,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> DualHeadStudent:
    """Train a new student on the labels and, with a teacher, by distillation on the whole pool.

    bank: what `make_bank` rendered, to share it between rounds.
    seed: decides weights and batches; labelled batches are the same with and without a teacher.
    last_round: see `TrainConfig.last_round_pool_passes`.
    The losses are in `student.loss_curve`. Raises ValueError if nothing is labelled, or if
    teacher and pool have different numbers of classes.
    """
    device = resolve_device(device)
    if len(state.labeled_indices) == 0:
        raise ValueError("nothing is labelled: label an initial set, see Oracle.initial_indices")
    if teacher and teacher.num_classes != pool.num_classes:
        raise ValueError(
            f"the teacher knows {teacher.num_classes} classes, the pool has {pool.num_classes}"
        )
    bank = bank or _own_bank(pool, student, teacher, device)
    net = build_student(
        student,
        pool.num_classes,
        seed=seed,
        pretrained=config.pretrained,
        device=device,
        input_dim=bank.dim,
    ).train()
    plan = _plan(state, bank.views.count, config, seed, teacher is not None, last_round)
    cuda = [device] if device.type == "cuda" else []
    with global_seed(derive_seed(seed, "dropout"), cuda):
        net.loss_curve = _train(net, plan, bank, state, teacher, config, progress)
    return net.eval()


def _own_bank(pool: Pool, student: str, teacher: Teacher | None, device: torch.device) -> Bank:
    views = (teacher.views if teacher else None) or Views(FRESH, augmentation=pool.augmentation)
    check_features(pool, student, views, None)
    return make_bank(pool, student, views, device)


def _plan(
    state: LabelState,
    view_count: int,
    config: TrainConfig,
    seed: int,
    distilled: bool,
    last_round: bool = False,
) -> list[Batch]:
    """Draw a labelled batch for each step, followed by an unlabelled one if it is needed."""
    labeled, rest = state.labeled_indices, state.unlabeled_indices
    rest = rest if len(rest) else labeled
    steps, size = config.steps_for(len(labeled), len(rest), last_round), config.batch_size
    if config.padded:
        labeled = fill_up(state.in_labeling_order(), size)
    if config.labeled_sampling == "passes" and len(labeled) < len(rest):
        labeled = labeled[torch.arange(len(rest)) % len(labeled)]  # passes are over the pool
    draw = generator(seed, "labelled batches")
    batches = draw_batches(labeled, view_count, steps, size, config.labeled_sampling, draw)
    if not distilled or config.distill_on == "labeled":
        return batches
    draw = generator(seed, "unlabelled batches")
    unlabeled = draw_batches(rest, view_count, steps, size, config.unlabeled_sampling, draw)
    steps_of_both = zip(batches, unlabeled, strict=True)
    return [(torch.cat([i, j]), torch.cat([v, w])) for (i, v), (j, w) in steps_of_both]


def _train(
    net: DualHeadStudent,
    plan: Sequence[Batch],
    bank: Bank,
    state: LabelState,
    teacher: Teacher | None,
    config: TrainConfig,
    progress: bool,
) -> Tensor:
    """Train in place; return the losses (S, 2) of the steps, cross-entropy and distillation."""
    device, labeled = bank.device, config.batch_size
    precision = resolve_precision(config.precision, device, "bfloat16")
    forward = torch.compile(net) if config.compile else net
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: config.lr_factor(step, len(plan))
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
    losses = torch.zeros(len(plan), 2, device=device)
    for step, (x, (index, view)) in enumerate(zip(_bar(bank, plan, progress), plan, strict=True)):
        labels = state.labels[index[:labeled]].to(device, non_blocking=True)
        batches = x.split(labeled) if config.separate_batches else [x]
        with autocast(device, precision):
            parts = [forward(part) for part in batches]
        ce, kd = (torch.cat(heads).float() for heads in zip(*parts, strict=True))
        taught = None if teacher is None else teacher.logits(index, view).to(device)
        loss, losses[step] = _losses(ce, kd, labels, taught, config)
        optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        schedule.step()
    return losses.cpu()


def _losses(
    ce: Tensor, kd: Tensor, labels: Tensor, taught: Tensor | None, config: TrainConfig
) -> tuple[Tensor, Tensor]:
    """Return the loss of a step, and its parts (2,): cross-entropy and distillation.

    ce, kd, taught: logits (B, C) of the two heads and the teacher, the labelled images first.
    """
    supervised = F.cross_entropy(ce[: len(labels)], labels)
    if taught is None:
        return supervised, torch.stack([supervised.detach(), torch.zeros_like(supervised)])
    distilled = kd_loss(
        ce if config.heads == "single" else kd,
        taught,
        len(labels),
        on=config.distill_on,
        temperature=config.temperature,
        standardize=config.standardize_logits,
    )
    weight = config.kd_loss_weight
    loss = (1 - weight) * supervised + weight * distilled
    return loss, torch.stack([supervised, distilled]).detach()


def _bar(bank: Bank, plan: Sequence[Batch], progress: bool) -> tqdm:
    """Return the inputs of each step, under a progress bar if it takes long."""
    show = {"unit": "step", "desc": "training", "leave": False, "delay": 15}
    return tqdm(bank.stream(plan), total=len(plan), disable=not progress, **show)


@torch.inference_mode()
def predict(
    student: DualHeadStudent,
    images: Tensor | ImageFiles,
    *,
    kd_weight: float,
    beta: float = 1.0,
    batch: int | None = None,
    precision: str = "float32",
    distilled: bool | None = None,
) -> Predictions:
    """Predict the centre crop of each image, in order, on the student's device.

    (On MPS the result lies on the CPU, since selection computes in float64.)

    images: (N, 3, H, W) uint8, files, or unit-norm features (N, D) for a student of features.
    kd_weight: 0 for a student trained without a teacher. batch: images at once.
    distilled: whether the kd head was trained; only then is there `kd_probs`, softmax(kd / beta).
    None means that kd_weight decides. Raises ValueError for NaN.
    """
    device = next(student.parameters()).device
    student.eval()
    batch = batch or min(1024, max(64, 2**22 // (student.input_size or 1) ** 2))
    distilled = kd_weight > 0 if distilled is None else distilled
    answers, features = [], []
    for x in _inputs(student, images, batch, device):
        with autocast(device, resolve_precision(precision, device, "bfloat16")):
            features.append(student.features(x).float())
        answers.append(_answers(student, features[-1], kd_weight, beta, distilled))
    home = torch.device("cpu") if device.type == "mps" else device
    joined = {name: torch.cat([part[name] for part in answers]).to(home) for name in answers[0]}
    joined.setdefault("ce_probs", joined["probs"])
    return Predictions(features=torch.cat(features).to(home), **joined)


def _inputs(
    student: DualHeadStudent, images: Tensor | ImageFiles, batch: int, device: torch.device
) -> Iterator[Tensor]:
    if student.input_size is None:
        return (part.to(device).float() for part in images.split(batch))
    centers = stream_centers(images, batch, student.input_size, device=device)
    return (x.contiguous(memory_format=torch.channels_last) for x in centers)


def _answers(
    student: DualHeadStudent, features: Tensor, kd_weight: float, beta: float, distilled: bool
) -> dict[str, Tensor]:
    """Return class probabilities (B, C); ce_probs only if they differ from probs."""
    ce, kd = student.ce_head(features), student.kd_head(features)
    found = {"probs": mix_heads(ce, kd, kd_weight, beta)}
    if kd_weight:
        found["ce_probs"] = ce.softmax(dim=1)
    if distilled:
        found["kd_probs"] = (kd / beta).softmax(dim=1)
    return found
