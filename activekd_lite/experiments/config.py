"""One run described by names, and the protocol of the paper as a preset.

config = RunConfig.paper("caltech101")  # or RunConfig("folder:/my/images", vlm="RN50")
result = config.run("runs/caltech101")
"""

import os
from dataclasses import dataclass, field, replace

import torch

from activekd_lite.cache import FrozenFeatures, TeacherCache
from activekd_lite.datasets.loading import load_dataset
from activekd_lite.datasets.spec import canonical_name
from activekd_lite.loop import run_active_learning
from activekd_lite.pool import Dataset
from activekd_lite.runs.preflight import check_labels, check_selection_source
from activekd_lite.runs.record import RunResult
from activekd_lite.scores import accuracy_pct
from activekd_lite.strategies import get_strategy
from activekd_lite.teacher import Teacher, ZeroShotTeacher
from activekd_lite.teachers import (
    ADAPTERS,
    ClapConfig,
    ClapTeacher,
    ControlledTeacher,
    FewShotTeacher,
    parse_name,
)
from activekd_lite.train_config import TrainConfig
from activekd_lite.utils.backbones import ON_FEATURES, find_backbone, weights_sha256
from activekd_lite.utils.checks import whole_number
from activekd_lite.utils.views import Views
from activekd_lite.vlm import VLM, load_vlm

PAPER_SEEDS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run, by name.

    Parameters
    ----------
    dataset, pool_size
        See `load_dataset`.
    vlm, pretrained, quick_gelu
        See `load_vlm`.
    teacher
        None for plain active learning, or "zero-shot", or one that learns from the labels ("clap",
        "tip-adapter", "lp-plus-plus", "rla"); "+" and a control changes its answers, as in
        "zero-shot+shuffled" or "clap+noise=0.3" (see `ControlledTeacher`).
    average
        How prompts are averaged, see `VLM.text_weights`. None is "raw" for CLAP and "normalized"
        for the other teachers. CLAP's prototypes start as long as the text features.
    templates
        Prompts with {} for the class name. None uses those of the data set.
    views
        Cached views per image. None is 1, or without a teacher a fresh crop at every step.
    student
        See `build_student`. None uses the one that suits the data set.
    strategy
        A name in `STRATEGIES`, or "skactiveml:" and the name of one of scikit-activeml.
    selection_source
        The probabilities that strategies select by, see `run_active_learning`.
    rounds, query_size
        Number of rounds, and of labels per round; a query_size of None is the number of classes.
    shots
        Labelled images per class before the first round.
    pool_per_seed
        Draw the subset of `pool_size` images anew for each seed, in addition to the `shots`
        images per class.
    train, clap
        Training of the student, and of the few-shot teacher.
    """

    dataset: str = "digits"
    vlm: str = "tiny-clip"
    pretrained: str | None = None
    quick_gelu: bool | None = None
    teacher: str | None = "zero-shot"
    average: str | None = None
    templates: tuple[str, ...] | None = None
    views: int | None = None
    student: str | None = None
    strategy: str = "pcoreset"
    selection_source: str = "mixed"
    rounds: int = 8
    query_size: int | None = None
    shots: int = 1
    seed: int = 0
    pool_size: int | None = None
    pool_per_seed: bool = False
    train: TrainConfig = field(default_factory=TrainConfig)
    clap: ClapConfig = field(default_factory=ClapConfig)

    def __post_init__(self):
        object.__setattr__(self, "dataset", canonical_name(self.dataset))
        if self.teacher is not None:
            parse_name(self.teacher)
        for name in ("seed", "shots"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        get_strategy(self.strategy)
        distilled = self.teacher is not None
        check_selection_source(self.selection_source, distilled, self.train.heads)
        if self.student:
            find_backbone(self.student)

    @classmethod
    def paper(cls, dataset: str, **changes: object) -> "RunConfig":
        """Return the protocol of arXiv:2506.00910 as its code runs it.

        There is one protocol for ImageNet and one for the other ten data sets.
        changes: other values for any field. Of the pairs of teacher and student in the paper, the
        preset takes that of its code: RN50 with ResNet-18, or on ImageNet with DINO's ResNet-50.
        `PAPER_SEEDS` are the paper's seeds, `paper_strategies` its strategies.

        What still differs from the reference code, and why:
        - The student sees 10 fixed crops of each image instead of a fresh one at every step: the
          teacher's features of these crops are cached, which makes a run affordable.
        - The teacher's crops are cut from the file and resized bicubically, as in CLIP. The
          student's crops are cut from the image reduced to a shorter side of 384 pixels, which fits
          in memory, and resized bilinearly. In the reference code both see the same pixels, resized
          bilinearly (bicubically in training on ImageNet).
        - CLAP is fitted on the cached crops, which cover 50 to 100 % of the image. On the ten data
          sets the reference code's crops cover 8 to 100 %, a range too wide for a few cached views.
          CLAP's lambda is computed from zero-shot predictions with raw-averaged prompts; on
          ImageNet the reference code averages normalised ones for it.
        - On ImageNet, strategies see predictions on centre crops (in the reference code on
          augmented ones, which only adds noise); BatchNorm sees 256 + 256 images in one process (in
          the reference code 64 + 64 on each of four GPUs); the last batch of a pass is filled up.
        - The same seed draws other random numbers than in the reference code.
        """
        teacher = changes.get("teacher", "zero-shot")
        few_shot = bool(teacher) and parse_name(teacher).kind != "zero-shot"
        preset = _paper_imagenet(few_shot) if dataset == "imagenet" else _paper_ten()
        preset |= {"vlm": "RN50", "pretrained": "openai", "shots": 1, "seed": PAPER_SEEDS[0]}
        preset["views"] = 10 if teacher else None
        if changes.get("vlm", preset["vlm"]) != preset["vlm"]:
            preset["pretrained"] = None  # "openai" belongs to RN50
        return cls(**preset | {"dataset": dataset} | changes)

    def load(
        self,
        *,
        cache_root: str | os.PathLike = ".cache",
        data_root: str | os.PathLike = "data",
        device: str | torch.device = "auto",
        progress: bool = True,
    ) -> "Inputs":
        """Load the data, the teacher and the features of the run; encode images not yet cached."""
        subset = {"pool_seed": self.seed, "pool_shots": self.shots} if self.pool_per_seed else {}
        subset |= {"pool_size": self.pool_size}
        data = load_dataset(self.dataset, data_root, cache_root=cache_root, **subset)
        data = replace(data, templates=tuple(self.templates or data.templates))
        # Whatever would stop the run is checked before the images are encoded.
        check_labels(data, self.rounds, self.labels_per_round(data), self.shots)
        weights_sha256(self.train.pretrained)
        views = Views(self.views or 1, augmentation=data.pool.augmentation)
        vlm = features = teacher = None
        if self.teacher or self.student in ON_FEATURES:
            vlm = load_vlm(self.vlm, self.pretrained, device, quick_gelu=self.quick_gelu)
        if self.student in ON_FEATURES:
            features = FrozenFeatures.build(vlm, data, views, cache_root, progress)
        if self.teacher:
            how = (self.average, self.clap, progress)
            teacher = make_teacher(self.teacher, vlm, data, views, cache_root, *how)
        return Inputs(data, vlm, teacher, features)

    def labels_per_round(self, data: Dataset) -> int:
        """Return query_size, or the number of classes if it is None."""
        return data.pool.num_classes if self.query_size is None else self.query_size

    def run(
        self,
        out: str | os.PathLike | None = None,
        *,
        cache_root: str | os.PathLike = ".cache",
        data_root: str | os.PathLike = "data",
        device: str | torch.device = "auto",
        progress: bool = True,
        inputs: "Inputs | None" = None,
        keep_students: bool = False,
    ) -> RunResult:
        """Load what the run needs, and run it.

        out, keep_students: see `run_active_learning`.
        inputs: what `load` returned, if several runs share it.
        """
        if inputs is None:
            roots = {"cache_root": cache_root, "data_root": data_root}
            inputs = self.load(**roots, device=device, progress=progress)
        augmentation = inputs.data.pool.augmentation
        names = ("strategy", "selection_source", "rounds", "shots", "seed", "student", "train")
        return run_active_learning(
            inputs.data,
            inputs.teacher,
            query_size=self.labels_per_round(inputs.data),
            views=Views(self.views, augmentation=augmentation) if self.views else None,
            features=inputs.features,
            out=out,
            device=device,
            progress=progress,
            keep_students=keep_students,
            **{name: getattr(self, name) for name in names},
        )


PAPER_TRAIN = {"lr": 1e-3, "temperature": 2.0, "kd_weight": 0.5, "beta": 1.0}
PAPER_TRAIN |= {"precision": "float32", "unlabeled_sampling": "passes"}
PAPER_CLAP = {"passes": 300, "batch_size": 64, "lr": 0.01, "momentum": 0.9}
PAPER_CLAP |= {"schedule": "linear_from_zero", "warmup": 0.1}


def _paper_ten() -> dict:
    """Return the fields for the ten data sets: 200 * ceil(L / 64) steps per round with L labels."""
    batches = {"passes": 200, "padded": True, "batch_size": 64, "separate_batches": True}
    train = TrainConfig(warmup=0.1, schedule="linear_from_zero", **batches, **PAPER_TRAIN)
    clap = ClapConfig(sampling="replacement", lag=1, **PAPER_CLAP)
    names = {"average": "raw", "student": "resnet18"}
    return names | {"rounds": 15, "query_size": None, "train": train, "clap": clap}


def _paper_imagenet(few_shot: bool) -> dict:
    """Return the fields for ImageNet: passes over a pool of 100,000, drawn anew for each seed."""
    batches = {"pool_passes": 20, "last_round_pool_passes": 50, "batch_size": 256}
    batches |= {"labeled_sampling": "passes", "warmup": 0.0, "schedule": "cosine"}
    evaluation = {"eval_kd_weight": 0.8 if few_shot else 0.6, "eval_beta": 0.5}
    train = TrainConfig(**batches, **evaluation, **PAPER_TRAIN)
    clap = ClapConfig(sampling="chained", **PAPER_CLAP)
    names = {"average": "raw" if few_shot else "normalized", "student": "dino_resnet50"}
    pool = {"pool_size": 100_000, "pool_per_seed": True}
    return names | pool | {"rounds": 7, "query_size": 1000, "train": train, "clap": clap}


def paper_strategies(dataset: str) -> tuple[str, ...]:
    """Return the strategies of arXiv:2506.00910 as its code implements them.

    BADGE is left out on ImageNet, where it did not fit in the authors' memory.
    """
    badge = () if dataset == "imagenet" else ("badge_reference",)
    return "random", "uncertainty", "coreset", *badge, "classbalanced_reference", "pcoreset"


@dataclass(frozen=True)
class Inputs:
    """What runs that differ only in strategy, training or seed share."""

    data: Dataset
    vlm: VLM | None
    teacher: Teacher | None
    features: FrozenFeatures | None


def make_teacher(
    name: str,
    vlm: VLM,
    data: Dataset,
    views: Views | int = 1,
    cache_root: str | os.PathLike = ".cache",
    average: str | None = None,
    clap: ClapConfig = ClapConfig(),
    progress: bool = True,
) -> Teacher:
    """Return a teacher with the data set's class names and prompts.

    name: as in `RunConfig.teacher`.
    The VLM's features of the pool and the test set are built, or opened if they are cached.
    """
    kind, control, amount = parse_name(name)
    cache = TeacherCache.build(vlm, data.pool, views, cache_root, progress=progress)
    test = TeacherCache.build_test(vlm, data, cache_root, progress)
    prompts = data.classnames, data.templates
    average = average or ("raw" if kind == "clap" else "normalized")
    weights = vlm.text_weights(*prompts, average, unit=kind != "clap")
    if kind == "clap":
        teacher: Teacher = ClapTeacher(cache, weights, config=clap, test=test)
    elif kind in ADAPTERS:
        teacher = FewShotTeacher(cache, weights, ADAPTERS[kind](), test=test)
    else:
        teacher = ZeroShotTeacher(cache, weights, test=test)
    return ControlledTeacher(teacher, control, amount) if control else teacher


def zero_shot_accuracy_pct(vlm: VLM, data: Dataset, average: str | None = None) -> float:
    """Return the VLM's accuracy on the test images, in percent, given the class names alone."""
    weights = vlm.text_weights(data.classnames, data.templates, average or "normalized")
    return accuracy_pct(vlm.zero_shot_probs(data.test.images, weights), data.test.labels)
