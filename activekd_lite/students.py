"""Students: a backbone and two linear heads, one for labels and one for the teacher (DHO,
arXiv:2505.07675).

A student's name is one of STUDENTS, or that of any timm model. "@size" sets its input size:
"resnet18@64".
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from activekd_lite.utils.backbones import (
    ON_FEATURES,
    STUDENTS,
    Backbone,
    find_backbone,
    read_weights,
    weights_sha256,
    with_weights,
)
from activekd_lite.utils.device import resolve_device
from activekd_lite.utils.seeding import derive_seed, global_seed

__all__ = [
    "ON_FEATURES",
    "STUDENTS",
    "Backbone",
    "DualHeadStudent",
    "build_student",
    "find_backbone",
    "mix_heads",
    "weights_sha256",
]


class DualHeadStudent(nn.Module):
    """Backbone -> features (F) -> `ce_head` and `kd_head` (C each).

    Takes pixels (B, 3, input_size, input_size) float in [0, 1], or unit-norm features (B, D) if
    input_size is None. loss_curve: (S, 2), cross-entropy and distillation loss of each step.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        num_classes: int,
        input_size: int | None,
        mean: Tensor | float = 0.5,
        std: Tensor | float = 0.25,
    ):
        super().__init__()
        self.backbone, self.input_size, self.loss_curve = backbone, input_size, torch.empty(0, 2)
        self.ce_head = nn.Linear(feature_dim, num_classes)
        self.kd_head = nn.Linear(feature_dim, num_classes)
        self.register_buffer("mean", torch.as_tensor(mean), persistent=False)
        self.register_buffer("std", torch.as_tensor(std), persistent=False)

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, F)."""
        return self.backbone((pixels - self.mean) / self.std)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) -> logits of ce_head and of kd_head, (B, C) each."""
        features = self.features(pixels)
        return self.ce_head(features), self.kd_head(features)


def mix_heads(
    ce_logits: Tensor, kd_logits: Tensor, kd_weight: float = 0.5, beta: float = 1.0
) -> Tensor:
    """Return (1 - kd_weight) softmax(ce) + kd_weight softmax(kd / beta), (B, C).

    kd_weight is 0 for a student without distillation, whose kd_head was never trained.
    """
    ce = ce_logits.softmax(dim=1)
    if kd_weight == 0:
        return ce
    return (1 - kd_weight) * ce + kd_weight * (kd_logits / beta).softmax(dim=1)


def build_student(
    name: str,
    num_classes: int,
    *,
    seed: int = 0,
    pretrained: bool | str | Path = True,
    device: str | torch.device = "auto",
    input_dim: int | None = None,
) -> DualHeadStudent:
    """Return a new student: random heads on a backbone, which is pretrained if it has weights.

    seed: the same one gives the same weights. pretrained: False for random weights, or a file of
    backbone weights (safetensors, or a checkpoint of tensors). input_dim: D, for ON_FEATURES.
    Raises ValueError for an unknown name or weights that do not fit, FileNotFoundError for weights
    that were not found.
    """
    backbone = find_backbone(name)
    with global_seed(derive_seed(seed, "student")):
        if backbone is None:
            student = _feature_student(name, num_classes, input_dim, pretrained)
        else:
            student = _image_student(backbone, num_classes, name, pretrained)
    return student.to(resolve_device(device)).to(memory_format=torch.channels_last)


def _image_student(
    backbone: Backbone, num_classes: int, name: str, pretrained: bool | str | Path
) -> DualHeadStudent:
    net = backbone.make(pretrained is True)
    if isinstance(pretrained, (str, Path)):
        net = with_weights(net, read_weights(Path(pretrained)), str(pretrained))
    size = backbone.input_size
    try:
        with torch.no_grad():
            shape = net.eval()(torch.zeros(1, 3, size, size)).shape
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"student {name!r} cannot take images of {size} pixels: {error}; leave out the @, or "
            "see timm for the sizes it accepts"
        ) from error
    if len(shape) != 2:
        raise ValueError(
            f"the backbone of student {name!r} gives {tuple(shape)} for one image; features (1, F) "
            "are needed"
        )
    mean, std = (torch.tensor(v)[:, None, None] for v in (backbone.mean, backbone.std))
    return DualHeadStudent(net.train(), shape[1], num_classes, size, mean, std)


def _feature_student(
    name: str, num_classes: int, dim: int | None, pretrained: bool | str | Path
) -> DualHeadStudent:
    if not isinstance(pretrained, bool):
        raise ValueError(
            f"student {name!r} has no backbone to load weights {str(pretrained)!r} into; leave "
            "them out"
        )
    if dim is None:
        raise ValueError(
            f"student {name!r} learns from cached features: give their size, input_dim"
        )
    hidden = [] if name == "linear" else [nn.Linear(dim, dim), nn.GELU()]
    to_unit_variance = dim**-0.5  # features have unit norm
    return DualHeadStudent(nn.Sequential(*hidden), dim, num_classes, None, 0.0, to_unit_variance)
