"""Backbones: the embedded nets, torchvision's, any of timm's, and where their weights come from."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from activekd_lite.utils.files import embedded_model, sha256_of

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


DINO_RESNET50 = (
    "https://dl.fbaipublicfiles.com/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth"
)


@dataclass(frozen=True)
class Backbone:
    """How a student sees. A backbone of your own: `STUDENTS["mine"] = Backbone(lambda pretrained: MyNet(), input_size=64)`.

    make(pretrained): a module, normalised pixels (B, 3, S, S) -> features (B, F), with its pre-trained weights or random ones.
    input_size: S; mean, std: of the pixels in [0, 1].
    """

    make: Callable[[bool], nn.Module]
    input_size: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)


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


def tiny_cnn_backbone(pretrained: bool = False) -> nn.Module:
    """Three convolutions for 16 x 16 pictures of digits; 128 features; 93,000 parameters; no pre-training."""

    def layer(inside, outside, stride):
        return [
            nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
        ]

    return nn.Sequential(*layer(3, 32, 2), *layer(32, 64, 2), *layer(64, 128, 1), GlobalMaxPool())


def tiny_resnet_backbone(pretrained: bool = False) -> nn.Module:
    """A strided residual net for 32 x 32 pictures; 96 features; 0.15 M parameters."""
    stem = [nn.Conv2d(3, 24, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    net = nn.Sequential(*stem, ResidualBlock(24, 48, 2), ResidualBlock(48, 96, 2), GlobalMaxPool())
    if pretrained:
        weights = load_file(embedded_model("tiny-resnet")[0] / "weights.safetensors")
        net.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
        )
    return net


def _torchvision(name: str, classifier: str, url: str, model: str | None = None) -> Backbone:
    """A model of torchvision without its last layer, with the weights at `url`."""

    def make(pretrained: bool) -> nn.Module:
        net = torchvision.models.get_model(model or name)
        setattr(net, classifier, nn.Identity())
        if not pretrained:
            return net
        with _weights_at_hand(name):
            weights = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
        return with_weights(net, weights, url)

    return Backbone(make, 224, IMAGENET_MEAN, IMAGENET_STD)


def _timm(name: str, input_size: int | None = None) -> Backbone:
    """A model of timm without its last layer."""

    def make(pretrained: bool) -> nn.Module:
        with _weights_at_hand(name):
            return timm.create_model(name, pretrained=pretrained, num_classes=0)

    cfg = timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    return Backbone(make, input_size or cfg.input_size[-1], tuple(cfg.mean), tuple(cfg.std))


STUDENTS: dict[str, Backbone] = {
    "tiny-cnn": Backbone(tiny_cnn_backbone, 16),
    "tiny-resnet": Backbone(tiny_resnet_backbone, 32),
    "resnet18": _torchvision(
        "resnet18", "fc", torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    ),
    "mobilenet_v2": _torchvision(
        "mobilenet_v2", "classifier", torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.url
    ),
    "tinyvit": _timm("tiny_vit_21m_384.dist_in22k_ft_in1k", 224),
    "dino_resnet50": _torchvision("dino_resnet50", "fc", DINO_RESNET50, "resnet50"),
}


ON_FEATURES = (
    "linear",
    "mlp",
)  # students of cached features (`cache.FrozenFeatures`): rounds in a second


def find_backbone(name: str) -> Backbone | None:
    """The backbone of a student's name; None for those ON_FEATURES. Raises ValueError for an unknown name or size."""
    if name in ON_FEATURES:
        return None
    base, _, size = name.partition("@")
    if size and not (size.isdecimal() and int(size) > 0):
        raise ValueError(
            f"student {name!r}: behind the @ stands the side of its images in pixels, as in 'resnet18@64'"
        )
    if base in STUDENTS:
        found = STUDENTS[base]
    elif timm.is_model(plain := base.removeprefix("timm:")):
        try:
            found = _timm(plain)
        except RuntimeError as error:
            raise ValueError(
                f"unknown student {name!r}: {error}; see timm.list_pretrained({plain.split('.')[0]!r})"
            ) from error
    else:
        near = get_close_matches(base, [*STUDENTS, *ON_FEATURES, *timm.list_models()], 3)
        raise ValueError(
            f"unknown student {name!r}; known are {', '.join([*STUDENTS, *ON_FEATURES])} and every model of timm"
            + (f": did you mean {' or '.join(near)}?" if near else ", see timm.list_models()")
        )
    return Backbone(found.make, int(size), found.mean, found.std) if size else found


@contextlib.contextmanager
def _weights_at_hand(name: str):
    """Where weights are fetched: what fails there is said as a missing file."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"no weights for student {name!r}: {error}. Fetch them once where there is a network with "
            f"`akd.build_student({name!r}, 2)`, give a file (pretrained='weights.safetensors'), or start from random ones "
            "(pretrained=False)"
        ) from error


def weights_sha256(pretrained: bool | str | Path) -> str | None:
    """Of a file of weights; None for the student's own or random ones. Raises FileNotFoundError where there is no such file."""
    if isinstance(pretrained, bool):
        return None
    if not Path(pretrained).is_file():
        raise FileNotFoundError(
            f"no weights file {pretrained} for the student; give a file, True or False as `pretrained`"
        )
    return sha256_of(Path(pretrained))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, of a safetensors file or a checkpoint; nothing else in it is unpickled."""
    weights_sha256(path)  # it has to be there
    try:
        content = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # safetensors', pickle's and zip's own kinds; torch's text advises to unpickle all the same
        raise ValueError(
            f"the weights {path} cannot be read ({type(error).__name__}): tensors by name are needed, nothing else is unpickled"
        ) from error
    for inner in ("state_dict", "model"):
        content = (
            content[inner]
            if isinstance(content, Mapping) and isinstance(content.get(inner), Mapping)
            else content
        )
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"the weights {path} are no tensors by name; save `net.state_dict()`")
    return dict(content)


def with_weights(
    net: nn.Module, weights: Mapping[str, Tensor], source: str = "the checkpoint"
) -> nn.Module:
    """The module with all its weights from `weights`; what they have beside (a classifier) is left out."""
    weights = {k.removeprefix("module.").removeprefix("backbone."): v for k, v in weights.items()}
    own = net.state_dict()
    missing = [k for k in own if k not in weights and not k.endswith("num_batches_tracked")]
    wrong = [k for k, v in own.items() if k in weights and weights[k].shape != v.shape]
    if missing or wrong:
        raise ValueError(
            f"{source} does not fit: {len(missing)} weights are missing ({', '.join(missing[:3])}), {len(wrong)} have "
            f"another shape ({', '.join(wrong[:3])}); it has {', '.join(list(weights)[:3])}"
        )
    net.load_state_dict({k: weights[k] for k in own if k in weights}, strict=False)
    return net
