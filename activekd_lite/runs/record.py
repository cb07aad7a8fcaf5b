"""A run's records and its result."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from activekd_lite.calibration import tempered
from activekd_lite.pool import LabelState, Predictions
from activekd_lite.scores import aulc_pct, class_imbalance, imbalance_ratio
from activekd_lite.students import DualHeadStudent
from activekd_lite.train_config import TrainConfig
from activekd_lite.training import predict

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RoundRecord:
    """One round: its student was trained on `labeled_count` labels, then chose `query_indices`.

    accuracy_pct, calibration_error_pct
        Of the student on the test set.
    covering_radius
        Largest distance, in probability space, of an unlabelled image to its nearest labelled one.
    query_indices
        Empty in the last round.
    loss_curve
        "ce" (cross-entropy) and "kd" (distillation): means over up to 20 equal parts of the steps.
    seconds
        Of each stage.
    peak_memory_bytes
        The largest so far.
    device
        A GPU's name, or for example "cpu, 2 threads, AVX2".
    teacher_accuracy_pct, ce_accuracy_pct, kd_accuracy_pct
        Of the teacher and of each head on the test set; None without a teacher, except for ce.
    label_class_counts, query_class_counts
        (C,) of the labels trained on, and of the oracle's answers. *_imbalance and
        *_imbalance_ratio: see `scores.class_imbalance` and `scores.imbalance_ratio`.
    mean_nearest_distance, nearest_neighbor_loss_pct, cluster_purity_pct, query_*
        See `scores`. The distance is that of the unlabelled images to the labelled ones; loss and
        purity are measured on the test set; those of the query are None in the last round.

    calibration_temperature
        That of the test probabilities; None unless they are calibrated.

    Older records lack the fields of the last three groups, which are then None or empty.
    """

    round: int
    labeled_count: int
    accuracy_pct: float
    calibration_error_pct: float
    covering_radius: float
    query_indices: list[int]
    seed: int
    loss_curve: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    device: str = ""
    teacher_accuracy_pct: float | None = None
    ce_accuracy_pct: float | None = None
    kd_accuracy_pct: float | None = None
    label_class_counts: list[int] = field(default_factory=list)
    label_imbalance: float | None = None
    label_imbalance_ratio: float | None = None
    query_class_counts: list[int] = field(default_factory=list)
    query_imbalance: float | None = None
    query_imbalance_ratio: float | None = None
    calibration_temperature: float | None = None
    mean_nearest_distance: float | None = None
    nearest_neighbor_loss_pct: float | None = None
    cluster_purity_pct: float | None = None
    query_uncertainty: float | None = None
    query_feature_diversity: float | None = None
    query_probability_diversity: float | None = None

    def outcome(self) -> dict:
        """Return what repeats exactly: everything except times, memory and the device name."""
        varying = ("seconds", "peak_memory_bytes", "device")
        return {k: v for k, v in asdict(self).items() if k not in varying}


OPTIONAL = [f.name for f in fields(RoundRecord) if f.type == float | None]  # NaN in tables


def class_balance(part: str, labels: Tensor, num_classes: int) -> dict:
    """Return a record's fields on the balance of labels (L,); part: "label" or "query"."""
    counts = torch.bincount(labels, minlength=num_classes).tolist()
    return {
        f"{part}_class_counts": counts,
        f"{part}_imbalance": class_imbalance(counts),
        f"{part}_imbalance_ratio": imbalance_ratio(counts),
    }


@dataclass(frozen=True)
class RunResult:
    """A run's configuration, a record per round, what is labelled, and the last student."""

    config: dict
    records: list[RoundRecord]
    state: LabelState
    student: DualHeadStudent

    def predict(self, images: Tensor) -> Predictions:
        """Predict images (M, 3, H, W) uint8, or features (M, D), with the last student.

        The heads are mixed, and the result is calibrated, as on the test set.
        """
        train, distilled = TrainConfig(**self.config["train"]), self.config["teacher"] is not None
        how = train.mixing(distilled, evaluation=True) | {"precision": train.precision}
        found = predict(self.student, images, **how)
        temperature = self.records[-1].calibration_temperature
        return replace(found, probs=tempered(found.probs, temperature)) if temperature else found

    @property
    def aulc_pct(self) -> float:
        """Mean test accuracy over the rounds, in percent."""
        return aulc_pct([r.accuracy_pct for r in self.records])

    @property
    def name(self) -> str:
        with_or_without = "with" if self.config["teacher"] else "without"
        return f"{self.config['strategy']} {with_or_without} distillation"

    def to_frame(self) -> "pd.DataFrame":
        """Return a row per round, settings beside records; see `tidy`."""
        return tidy(self.config, self.records)


def tidy(config: dict, records: Sequence[RoundRecord]) -> "pd.DataFrame":
    """Return a run as a tidy table, one row per round.

    Columns: dataset, vlm, teacher ("none", "logits", or a name), student, strategy,
    distill, selection_source, query_size, shots; the fields of `RoundRecord`; and the seconds of
    each stage (seconds_teacher, seconds_train, seconds_predict, seconds_select).
    """
    import pandas as pd

    teacher, features = config["teacher"] or {}, config["features"] or {}
    encoder = (teacher or features).get("cache", {}).get("vlm", {})  # logits have none
    settings = {
        "dataset": config["dataset"],
        "vlm": encoder.get("name"),
        "teacher": teacher.get("kind", "none"),
        "student": config["student"],
        "strategy": config["strategy"],
        "distill": bool(teacher),
        "selection_source": config["selection_source"],
        "query_size": config["query_size"],
        "shots": config["shots"],
    }
    stages = [{f"seconds_{stage}": s for stage, s in r.seconds.items()} for r in records]
    rows = [settings | asdict(r) | seconds for r, seconds in zip(records, stages, strict=True)]
    return pd.DataFrame(rows).astype(dict.fromkeys(OPTIONAL, float))
