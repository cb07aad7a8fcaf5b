"""Students: a backbone and two linear heads, one that learns labels and one that learns the teacher (DHO, arXiv:2505.07675)."""

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from activekd_lite.device import resolve_device
from activekd_lite.files import embedded_model
from activekd_lite.seeding import derive_seed


class DualHeadStudent(nn.Module):
    """Backbone -> features (F) -> `ce_head` and `kd_head` (C each).

    Takes pixels (B, 3, input_size, input_size) float in [0, 1].
    """

    def __init__(self, backbone: nn.Module, feature_dim: int, num_classes: int, input_size: int):
        super().__init__()
        self.backbone, self.input_size = backbone, input_size
        self.ce_head = nn.Linear(feature_dim, num_classes)
        self.kd_head = nn.Linear(feature_dim, num_classes)

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, F)."""
        return self.backbone((pixels - 0.5) * 4)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) -> logits of ce_head and of kd_head, (B, C) each."""
        features = self.features(pixels)
        return self.ce_head(features), self.kd_head(features)


def mix_heads(ce_logits: Tensor, kd_logits: Tensor, kd_weight: float = 0.5, beta: float = 1.0) -> Tensor:
    """The student's answer: (1 - kd_weight) softmax(ce) + kd_weight softmax(kd / beta), (B, C).

    kd_weight 0 is a student without distillation, whose kd_head was never trained.
    """
    if kd_weight == 0:
        return ce_logits.softmax(dim=1)
    return (1 - kd_weight) * ce_logits.softmax(dim=1) + kd_weight * (kd_logits / beta).softmax(dim=1)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, the first with a stride, beside a 1 x 1 shortcut."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class GlobalMaxPool(nn.Module):
    """(B, F, H, W) -> (B, F): is the pattern anywhere? Better than the mean for small figures on a busy background."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=(2, 3))


def tiny_cnn_backbone() -> nn.Module:
    """Three convolutions for 16 x 16 pictures of digits; 128 features; 93,000 parameters; no pre-training."""

    def layer(inside, outside, stride):
        return [nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]

    return nn.Sequential(*layer(3, 32, 2), *layer(32, 64, 2), *layer(64, 128, 1), GlobalMaxPool())


def tiny_resnet_backbone() -> nn.Module:
    """A strided residual net for 32 x 32 pictures; 96 features; 0.15 M parameters."""
    stem = [nn.Conv2d(3, 24, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    return nn.Sequential(*stem, ResidualBlock(24, 48, 2), ResidualBlock(48, 96, 2), GlobalMaxPool())


STUDENTS = {"tiny-cnn": (tiny_cnn_backbone, 128, 16), "tiny-resnet": (tiny_resnet_backbone, 96, 32)}
PRETRAINED = ("tiny-resnet",)


def build_student(
    name: str, num_classes: int, *, seed: int = 0, pretrained: bool = True, device: str | torch.device = "auto"
) -> DualHeadStudent:
    """A fresh student: random heads, and the backbone's pre-trained weights where it has some.

    The same seed gives the same weights, whatever was drawn before. Raises ValueError for an unknown name.
    """
    if name not in STUDENTS:
        raise ValueError(f"unknown student {name!r}; known are {', '.join(STUDENTS)}")
    backbone, feature_dim, input_size = STUDENTS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "student"))
        student = DualHeadStudent(backbone(), feature_dim, num_classes, input_size)
    if pretrained and name in PRETRAINED:
        folder, _ = embedded_model(name)
        weights = load_file(folder / "weights.safetensors")
        student.backbone.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    return student.to(resolve_device(device), memory_format=torch.channels_last)
