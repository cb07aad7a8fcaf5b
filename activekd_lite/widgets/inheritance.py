"""Explore what a student inherits: the teacher's space, the student's, and where PCoreSet asks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from activekd_lite.datasets.subset import only_classes
from activekd_lite.plots.base import Figure
from activekd_lite.plots.inheritance import FIELD, class_look, corners_of, inheritance
from activekd_lite.plots.maps import SIDE, most_mixed_up
from activekd_lite.pool import Dataset, LabelState, Predictions
from activekd_lite.strategies import STRATEGIES, get_strategy
from activekd_lite.teacher import Teacher, from_logits
from activekd_lite.train_config import TrainConfig
from activekd_lite.utils.seeding import generator
from activekd_lite.utils.views import Views
from activekd_lite.widgets.base import Explorer
from activekd_lite.widgets.page import Page, groups

OURS, NOTHING = "pcoreset", "nothing"
DIGITS = ("1", "3", "7")  # the course's three classes
MOST_PICKS = 20
TITLES = {OURS: "PCoreSet"}


@dataclass(frozen=True)
class Task:
    """The images of the chosen classes.

    indices: (n,) their pool indices. teacher_probs: (n, C). teacher: of these images alone.
    labels: (n,) true classes, -1 for unknown, for inspection only.
    """

    data: Dataset
    indices: Tensor
    teacher_probs: Tensor
    labels: Tensor
    teacher: Teacher | None = None


class InheritanceExplorer(Explorer):
    """`InheritanceExplorer()`: teacher, student and picks in probability space, on three classes.

    Three panels show the teacher's answers; the student's, with an arrow for each of the teacher's
    mistakes; and the student's space, coloured by the distance to the nearest labelled answer,
    with the picks of PCoreSet. The sliders set kd_weight, which mixes the student's two heads, and
    the number of picks; `explorer.picks` are pool indices.

    A student is trained on the first display, and again when other classes are chosen.

    Parameters
    ----------
    data : by default, `digits`
    teacher : used as it is, in its centre views; by default, the embedded VLM, zero-shot
    predictions, state : of a student that was trained on `data`, with both heads; shows all classes
    classes : names or positions, at least three; by default three, which the teacher mixes up most
        (1, 3 and 7 of `digits`). With more than three, the panels are a projection.
    kd_weight : by default, that of `config`
    picks : their number
    beside : a strategy to show beside PCoreSet
    balls : whether to draw the balls and the paper's proposition
    config, seed : of the training; the seed also draws the initial label of each class

    Raises
    ------
    ValueError : fewer than three classes, an unknown class or strategy, predictions without both
        heads, or arrays that do not fit the pool
    """

    def __init__(
        self,
        data: Dataset | None = None,
        teacher: Teacher | None = None,
        predictions: Predictions | None = None,
        state: LabelState | None = None,
        *,
        classes: Sequence[str | int] | None = None,
        kd_weight: float | None = None,
        picks: int = 3,
        beside: str | None = None,
        balls: bool = False,
        config: TrainConfig = TrainConfig(),
        seed: int = 0,
    ):
        super().__init__()
        self.data = data or _digits()
        self.teacher = teacher or _embedded_teacher(self.data)
        self.config, self.seed, self.balls = config, seed, balls
        self.kd_weight = config.kd_weight if kd_weight is None else float(kd_weight)
        self.count, self.beside = picks, beside or NOTHING
        self.trainable = predictions is None
        self._check(predictions, state, classes)
        self._student = None if predictions is None else (_on_cpu(predictions), state)
        self.task = self._task_of(classes if classes is not None else self._default_classes())

    def _check(self, predictions: Predictions | None, state: LabelState | None, classes) -> None:
        size = len(self.data.pool)
        if len(self.teacher) != size:
            raise ValueError(f"the teacher knows {len(self.teacher)} images, the pool has {size}")
        if self.beside != NOTHING:
            get_strategy(self.beside)
        if predictions is None:
            return
        if predictions.kd_probs is None or predictions.ce_probs is None:
            raise ValueError(
                "predictions lack ce_probs or kd_probs, the two heads that kd_weight mixes; take "
                "those of a student that was trained with a teacher"
            )
        if state is None or len(state.labels) != size or len(predictions.probs) != size:
            raise ValueError(f"predictions and state of all {size} pool images are needed")
        if classes is not None:
            raise ValueError(
                "classes are chosen before training: leave out predictions, or classes"
            )

    def _default_classes(self) -> list[str]:
        names = list(self.data.classnames)
        if not self.trainable or len(names) <= 3:
            return names
        if self.data.name == "digits" and {*DIGITS} <= {*names}:
            return list(DIGITS)
        return [names[c] for c in most_mixed_up(self.teacher.probs().cpu())]

    # The task and its student.

    def _task_of(self, classes: Sequence[str | int]) -> Task:
        if len(classes) < 3:
            raise ValueError(f"classes {list(classes)}: at least three are needed")
        if not self.trainable:
            known, indices = self.data.oracle.known, torch.arange(len(self.data.pool))
            labels = torch.full((len(indices),), -1)
            labels[known] = self.data.oracle.label(indices[known])
            return Task(self.data, indices, self.teacher.probs().cpu(), labels)
        part, indices = only_classes(self.data, classes)
        columns = [self.data.classnames.index(name) for name in part.classnames]
        logits = self.teacher.logits(indices)[:, columns].cpu()
        views = Views(1, augmentation=part.pool.augmentation) if self.teacher.views else None
        teacher = from_logits(logits[None] if views else logits, views)
        labels = part.oracle.label(torch.arange(len(indices)))
        return Task(part, indices, teacher.probs(), labels, teacher)

    @property
    def student(self) -> tuple[Predictions, LabelState]:
        """The student's predictions for the task, and what it learned from; trained if needed."""
        if self._student is None:
            self._student = self._train()
            if self._widget is not None:
                self._show()
        return self._student

    def _train(self) -> tuple[Predictions, LabelState]:
        from activekd_lite.training import predict, train_student

        part = self.task.data
        draw = generator(self.seed, "initial set")
        start = part.oracle.initial_indices(1, draw)
        state = LabelState.empty(len(part.pool)).with_labels(start, part.oracle.label(start), 0)
        how = dict(student=part.student, config=self.config, seed=self.seed)
        net = train_student(part.pool, state, self.task.teacher, **how)
        how = dict(kd_weight=0.5, beta=self.config.beta, distilled=True)  # gives both heads
        return _on_cpu(predict(net, part.pool.images, **how)), state

    @property
    def probs(self) -> Tensor:
        """The student's probabilities (n, C) of the task's images at the current kd_weight."""
        predictions, _ = self.student
        ce, kd = predictions.ce_probs.double(), predictions.kd_probs.double()
        return (1 - self.kd_weight) * ce + self.kd_weight * kd

    @property
    def picks(self) -> dict[str, list[int]]:
        """Strategy -> pool indices in pick order: PCoreSet's, and those of the strategy beside."""
        names = dict.fromkeys(name for name in (OURS, self.beside) if name != NOTHING)
        return {name: self.task.indices[self._rows(name)].tolist() for name in names}

    def _rows(self, strategy: str) -> Tensor:
        """Rows of the task that a strategy picks."""
        predictions, state = self.student
        seen = replace(predictions, probs=self.probs, teacher_probs=self.task.teacher_probs)
        draw = generator(self.seed, "selection", 0)
        count = min(self.count, len(state.unlabeled_indices))
        if count == 0:
            return torch.empty(0, dtype=torch.int64)
        return get_strategy(strategy)(seen, state, count, generator=draw).cpu()

    def figure(self) -> Figure:
        _, state = self.student
        rows = {TITLES.get(name, name): self._rows(name) for name in self.picks}
        return inheritance(
            self.task.teacher_probs,
            self.probs,
            self.task.labels,
            state.labeled_indices,
            rows,
            self.task.data.classnames,
            images=self.task.data.pool.images,
            balls=self.balls,
            kd_weight=self.kd_weight,
        )

    # The page. Its arrays have a row for each pool image, NaN for those of other classes.

    def _build(self) -> Page:
        arrays = dict.fromkeys(("teacher", "ce", "kd", "labels"), b"")
        view = dict(
            size=len(self.data.pool),
            classnames=list(self.data.classnames),
            trainable=self.trainable and len(self.data.classnames) > 3,
            strategies=[NOTHING, *(name for name in STRATEGIES if name != OURS)],
            start=dict(
                kd_weight=self.kd_weight, picks=self.count, beside=self.beside, balls=self.balls
            ),
            most=MOST_PICKS,
            field=list(FIELD),
            unit=SIDE / 2**0.5,
            beside=self.beside,
            balls=self.balls,
        )
        page = self._page_of("inheritance", self.data.pool.images, arrays=arrays, view=view)
        self._show()
        return page

    def _show(self) -> None:
        """Send the task to the page, and the student if it is trained."""
        page, task, trained = self._page, self.task, self._student is not None
        names = task.data.classnames
        heads = dict(teacher=task.teacher_probs)
        if trained:
            heads |= dict(ce=self._student[0].ce_probs, kd=self._student[0].kd_probs)
        labels = torch.full((len(self.data.pool),), -1)
        labels[task.indices] = task.labels
        start = self._student[1].labeled_indices if trained else torch.empty(0, dtype=torch.int64)
        with page.hold_sync():
            for name in ("teacher", "ce", "kd"):
                setattr(page, name, self._filled(heads[name]) if name in heads else b"")
            page.labels = groups(labels.numpy())
            page.update(
                classes=list(names),
                corners=corners_of(task.teacher_probs).tolist(),
                looks=[class_look(place) for place in range(len(names))],
                labeled=task.indices[start].tolist(),
                trained=trained,
                progress=None if trained else f"training a student on {', '.join(names[:4])}",
                beside_picks=self._beside_picks() if trained else [],
            )

    def _filled(self, probs: Tensor) -> bytes:
        rows = np.full((len(self.data.pool), probs.shape[1]), np.nan, dtype="<f4")
        rows[self.task.indices.numpy()] = probs.detach().cpu().numpy()
        return rows.tobytes()

    def _beside_picks(self) -> list[int]:
        return self.picks[self.beside] if self.beside != NOTHING else []

    def _on_ready(self) -> None:
        """Train for a page that is shown without the explorer's figure."""
        _ = self.student

    def _on_set(self, kd_weight: float, picks: int, beside: str, balls: bool) -> None:
        """Follow the controls of the page, and send the picks of the strategy beside."""
        if beside not in self._page.view["strategies"]:
            raise ValueError(f"strategy {beside!r} is unknown")
        self.kd_weight = min(1.0, max(0.0, float(kd_weight)))
        self.count = min(MOST_PICKS, max(0, int(picks)))
        self.beside, self.balls = beside, bool(balls)
        self._page.update(beside_picks=self._beside_picks())

    def _on_classes(self, names: Sequence[str]) -> None:
        """Train a student on other classes."""
        if not self.trainable:
            raise ValueError("the student is given, and so are its classes")
        task = self._task_of(names)
        self.task, self._student = task, None
        self._show()
        _ = self.student
        self._update_twin()


def _on_cpu(predictions: Predictions) -> Predictions:
    parts = {name: part for name, part in vars(predictions).items() if part is not None}
    return Predictions(**{name: part.detach().cpu() for name, part in parts.items()})


def _digits() -> Dataset:
    from activekd_lite.datasets import load_dataset

    return load_dataset("digits")


def _embedded_teacher(data: Dataset) -> Teacher:
    from activekd_lite.cache import TeacherCache
    from activekd_lite.teacher import ZeroShotTeacher
    from activekd_lite.vlm import load_vlm

    vlm = load_vlm()
    cache = TeacherCache.build(vlm, data.pool, progress=False)
    return ZeroShotTeacher(cache, vlm.text_weights(data.classnames, data.templates))
