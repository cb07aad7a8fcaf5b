"""Train a student on labels and cached teacher features, and let it predict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from activekd_lite.banks import FeatureBank, ViewBank, check_features, make_bank
from activekd_lite.losses import dual_head_loss
from activekd_lite.pool import LabelState, Pool, Predictions
from activekd_lite.students import DualHeadStudent, build_student, mix_heads
from activekd_lite.teacher import Teacher
from activekd_lite.utils.checks import check_whole_valued
from activekd_lite.utils.device import autocast, resolve_device, resolve_precision
from activekd_lite.utils.images import Batch, ImageFiles, stream_centers
from activekd_lite.utils.schedules import check_schedule, lr_factor
from activekd_lite.utils.seeding import derive_seed, generator
from activekd_lite.utils.views import FRESH, Views

LENGTHS = ("steps", "passes", "pool_passes")  # a round is as long as one of them says
SAMPLING = ("replacement", "passes")


@dataclass(frozen=True)
class TrainConfig:
    """How a student is trained, by AdamW.

    Length of a round
        One of: steps; passes (over the labelled images); pool_passes (over the unlabelled ones, last_round_pool_passes in the
        last round). padded: fill the labelled set up to whole batches with its first images, before passes are counted and
        batches drawn.
    Batches
        batch_size: images of a labelled batch; with a teacher an unlabelled batch of the same size goes with it.
        labeled_sampling, unlabeled_sampling: "replacement" draws each batch from all images, "passes" shuffles them once a
        pass. separate_batches: the two batches go through the student one after the other, so that BatchNorm never mixes them.
    Optimisation
        lr: the largest learning rate. warmup: a share of the steps. schedule: see `schedules.lr_factor`.
    Distillation
        temperature: of the loss. kd_weight, beta: see `students.mix_heads`; eval_kd_weight, eval_beta: the same on the test
        set, where they differ from those of the selection.
    Student
        pretrained: see `students.build_student`. precision: "float32", "bfloat16", "float16", or "auto": bfloat16 on CUDA, else
        float32. compile: by torch.compile, which needs a C++ compiler and pays on long rounds.
    """

    steps: int = 150
    passes: float | None = None
    pool_passes: float | None = None
    last_round_pool_passes: float | None = None
    padded: bool = False
    batch_size: int = 32
    labeled_sampling: str = "replacement"
    unlabeled_sampling: str = "replacement"
    separate_batches: bool = False
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
        check_whole_valued(self, "steps", "batch_size")
        for name in (
            *LENGTHS,
            "last_round_pool_passes",
            "batch_size",
            "lr",
            "temperature",
            "beta",
            "eval_beta",
        ):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} = {value} must be larger than 0")
        for name in ("kd_weight", "eval_kd_weight"):
            if (value := getattr(self, name)) is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} = {value} must lie between 0 and 1")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay = {self.weight_decay} must not be negative")
        if self.passes is not None and self.pool_passes is not None:
            raise ValueError(
                f"passes = {self.passes} and pool_passes = {self.pool_passes}: give one of them"
            )
        if self.last_round_pool_passes is not None and self.pool_passes is None:
            raise ValueError(
                f"last_round_pool_passes = {self.last_round_pool_passes} needs pool_passes for the other rounds"
            )
        for name in ("labeled_sampling", "unlabeled_sampling"):
            if getattr(self, name) not in SAMPLING:
                raise ValueError(
                    f"{name} = {getattr(self, name)!r}; choose one of {', '.join(map(repr, SAMPLING))}"
                )
        check_schedule(self.schedule, self.warmup)
        resolve_precision(self.precision, torch.device("cpu"), "bfloat16")
        if not isinstance(self.pretrained, bool):
            object.__setattr__(
                self, "pretrained", str(self.pretrained)
            )  # a Path cannot be written as JSON

    def steps_for(
        self, labeled_count: int, unlabeled_count: int | None = None, last_round: bool = False
    ) -> int:
        """Training steps of a round with so many labels; unlabeled_count is needed where pool_passes are given."""
        if self.pool_passes is not None:
            passes = (last_round and self.last_round_pool_passes) or self.pool_passes
            return math.ceil(passes * math.ceil(unlabeled_count / self.batch_size))
        if self.passes is None:
            return self.steps
        if self.padded:
            return math.ceil(self.passes * math.ceil(labeled_count / self.batch_size))
        return math.ceil(self.passes * labeled_count / self.batch_size)

    def lr_factor(self, step: int, steps: int) -> float:
        """The share of `lr` used at a step of `steps`; see `schedules.lr_factor`."""
        return lr_factor(self.schedule, step, steps, self.warmup)

    def mixing(self, distilled: bool, evaluation: bool = False) -> dict[str, float]:
        """kd_weight and beta for `predict`: of the selection, or of the evaluation; without distillation kd_weight is 0."""
        kd_weight, beta = self.kd_weight, self.beta
        if evaluation:
            kd_weight = kd_weight if self.eval_kd_weight is None else self.eval_kd_weight
            beta = beta if self.eval_beta is None else self.eval_beta
        return {"kd_weight": kd_weight if distilled else 0.0, "beta": beta}


def with_length(changes: Mapping) -> dict:
    """Changes of a `TrainConfig`; a length that they name takes the place of the one it had."""
    if not any(changes.get(name) is not None for name in LENGTHS):
        return dict(changes)
    return {"passes": None, "pool_passes": None, "last_round_pool_passes": None} | dict(changes)


def train_student(
    pool: Pool,
    state: LabelState,
    teacher: Teacher | None = None,
    *,
    student: str = "tiny-cnn",
    config: TrainConfig = TrainConfig(),
    bank: ViewBank | FeatureBank | None = None,
    seed: int = 0,
    last_round: bool = False,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> DualHeadStudent:
    """A fresh student, trained on what is labelled and, with a teacher, distilled on the whole pool (eq. of `losses`).

    Student and batches depend on `seed` alone: the labelled batches are the same with and without a teacher. bank: what
    `make_bank` rendered, to share it between rounds. last_round: see `TrainConfig.last_round_pool_passes`.
    `student.loss_curve` tells how it went. Raises ValueError when nothing is labelled or the pools differ.
    """
    device = resolve_device(device)
    if len(state.labeled_indices) == 0:
        raise ValueError(
            "nothing is labelled: label an initial set first, see Oracle.initial_indices"
        )
    if teacher and teacher.num_classes != pool.num_classes:
        raise ValueError(
            f"the teacher knows {teacher.num_classes} classes, the pool has {pool.num_classes}"
        )
    if bank is None:
        views = (teacher.views if teacher else None) or Views(FRESH, augmentation=pool.augmentation)
        check_features(pool, student, views, None)
        bank = make_bank(pool, student, views, device)
    net = build_student(
        student,
        pool.num_classes,
        seed=seed,
        pretrained=config.pretrained,
        device=device,
        input_dim=bank.dim,
    ).train()
    plan = _plan(
        state,
        bank.views.count,
        config,
        seed,
        with_unlabeled=teacher is not None,
        last_round=last_round,
    )
    random_state = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(
        devices=random_state
    ):  # dropout and the like draw from the global state
        torch.manual_seed(derive_seed(seed, "dropout"))
        net.loss_curve = _train(net, plan, bank, state, teacher, config, progress)
    return net.eval()


def _plan(
    state: LabelState,
    view_count: int,
    config: TrainConfig,
    seed: int,
    *,
    with_unlabeled: bool,
    last_round: bool = False,
) -> list[Batch]:
    """For every step the images and views: a labelled batch, and behind it an unlabelled one of the same size."""
    rest = state.unlabeled_indices if len(state.unlabeled_indices) else state.labeled_indices
    steps = config.steps_for(len(state.labeled_indices), len(rest), last_round)
    labeled = state.labeled_indices
    if config.padded:
        labeled = _filled_up(state.in_labeling_order(), config.batch_size)
    if config.labeled_sampling == "passes" and len(labeled) < len(rest):
        labeled = labeled[
            torch.arange(len(rest)) % len(labeled)
        ]  # each as often as the others, in passes over the pool
    batches = _batches(
        labeled,
        view_count,
        steps,
        config.batch_size,
        config.labeled_sampling,
        generator(seed, "labelled batches"),
    )
    if not with_unlabeled:
        return batches
    unlabeled = _batches(
        rest,
        view_count,
        steps,
        config.batch_size,
        config.unlabeled_sampling,
        generator(seed, "unlabelled batches"),
    )
    return [
        tuple(torch.cat(pair) for pair in zip(*both, strict=True))
        for both in zip(batches, unlabeled, strict=True)
    ]


def _train(
    net: DualHeadStudent, plan: Sequence[Batch], bank: ViewBank | FeatureBank, state: LabelState, teacher: Teacher | None,
    config: TrainConfig, progress: bool,
) -> Tensor:  # fmt: skip
    """Train in place; returns the losses (S, 2) of the steps: cross-entropy, and distillation (0 without a teacher)."""
    device, labeled = bank.device, config.batch_size
    precision = resolve_precision(config.precision, device, "bfloat16")
    forward = torch.compile(net) if config.compile else net
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: config.lr_factor(step, len(plan))
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
    losses = torch.zeros(len(plan), 2, device=device)
    bar = tqdm(
        bank.stream(plan),
        total=len(plan),
        unit="step",
        desc="training",
        leave=False,
        delay=15,
        disable=not progress,
    )
    for step, (x, (index, view)) in enumerate(zip(bar, plan, strict=True)):
        labels = state.labels[index[:labeled]].to(device, non_blocking=True)
        with autocast(device, precision):
            parts = [
                forward(part) for part in (x.split(labeled) if config.separate_batches else [x])
            ]
        ce, kd = (torch.cat(heads).float() for heads in zip(*parts, strict=True))
        if teacher is None:
            loss = supervised = F.cross_entropy(ce, labels)
        else:
            known, unknown = teacher.logits(index, view).to(device).split(labeled)
            of_labeled, of_unlabeled = kd.split(labeled)
            loss = dual_head_loss(
                ce[:labeled], labels, of_labeled, known, of_unlabeled, unknown, config.temperature
            )
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
    precision: str = "float32", distilled: bool | None = None,
) -> Predictions:  # fmt: skip
    """The student's answer for the centre crop of every image, in order, on the student's device (MPS: on the CPU, since
    selection counts in float64).

    images: (N, 3, H, W) uint8, or files, or unit-norm features (N, D) for a student of features.
    kd_weight: 0 for a student trained without a teacher; batch: images at once, None for fewer the larger they are.
    distilled: whether the kd head was trained; only then is there `kd_probs`, softmax(kd / beta). None: where kd_weight > 0.
    Raises ValueError for NaN.
    """
    device = next(student.parameters()).device
    student.eval()
    batch = batch or min(1024, max(64, 2**22 // (student.input_size or 1) ** 2))
    distilled = kd_weight > 0 if distilled is None else distilled
    answers, features = [], []
    if student.input_size is None:
        inputs = (part.to(device).float() for part in images.split(batch))
    else:
        centers = stream_centers(images, batch, student.input_size, device=device)
        inputs = (x.contiguous(memory_format=torch.channels_last) for x in centers)
    for x in inputs:
        with autocast(device, resolve_precision(precision, device, "bfloat16")):
            features.append(student.features(x).float())
        answers.append(_answers(student, features[-1], kd_weight, beta, distilled))
    home = torch.device("cpu") if device.type == "mps" else device
    joined = {name: torch.cat([part[name] for part in answers]).to(home) for name in answers[0]}
    return Predictions(
        features=torch.cat(features).to(home), **{"ce_probs": joined["probs"]} | joined
    )


def _answers(
    student: DualHeadStudent, features: Tensor, kd_weight: float, beta: float, distilled: bool
) -> dict[str, Tensor]:
    """Class probabilities (B, C) by the names of `Predictions`; ce_probs only where it differs from probs."""
    ce, kd = student.ce_head(features), student.kd_head(features)
    found = {"probs": mix_heads(ce, kd, kd_weight, beta)}
    if kd_weight:
        found["ce_probs"] = ce.softmax(dim=1)
    if distilled:
        found["kd_probs"] = (kd / beta).softmax(dim=1)
    return found


def _batches(
    candidates: Tensor,
    view_count: int,
    steps: int,
    batch_size: int,
    sampling: str,
    g: torch.Generator,
) -> list[Batch]:
    """For every step the pool indices (B,), drawn from `candidates` as `sampling` says, and the view of each (B,)."""
    if sampling == "replacement":
        picks = candidates[torch.randint(len(candidates), (steps, batch_size), generator=g)]
    else:
        filled = _filled_up(candidates, batch_size)
        passes = math.ceil(steps * batch_size / len(filled))
        drawn = torch.cat([filled[torch.randperm(len(filled), generator=g)] for _ in range(passes)])
        picks = drawn[: steps * batch_size].view(steps, batch_size)
    return list(
        zip(picks, torch.randint(view_count, (steps, batch_size), generator=g), strict=True)
    )


def _filled_up(indices: Tensor, batch_size: int) -> Tensor:
    """`indices` (n,) to a whole number of batches, by repeating the first of them."""
    return indices[torch.arange(math.ceil(len(indices) / batch_size) * batch_size) % len(indices)]
