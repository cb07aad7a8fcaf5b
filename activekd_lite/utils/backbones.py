"""Student backbones and their weights: the embedded nets, some of torchvision's, all of timm's."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from activekd_lite.utils.files import embedded_model, sha256_of

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESNET18 = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
MOBILENET_V2 = "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"
DINO = "https://dl.fbaipublicfiles.com/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth"


@dataclass(frozen=True)
class Backbone:
    """A backbone and its input. To add one: `STUDENTS["mine"] = Backbone(lambda _: MyNet(), 64)`.

    make(pretrained): a module with pre-trained or random weights, from normalised pixels
        (B, 3, S, S) to features (B, F).
    input_size: S.
    mean, std: per channel, of pixels in [0, 1].
    """

    make: Callable[[bool], nn.Module]
    input_size: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, the first strided, and a 1 x 1 shortcut."""

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
    """(B, F, H, W) -> (B, F); better than the mean for small shapes on a busy background."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=(2, 3))


def tiny_cnn_backbone(pretrained: bool = False) -> nn.Module:
    """Three convolutions for 16 x 16 images: 128 features, 93,000 parameters, no pre-training."""

    def layer(inside, outside, stride):
        conv = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(outside), nn.ReLU()]

    return nn.Sequential(*layer(3, 32, 2), *layer(32, 64, 2), *layer(64, 128, 1), GlobalMaxPool())


def tiny_resnet_backbone(pretrained: bool = False) -> nn.Module:
    """A strided residual net for 32 x 32 images: 96 features, 0.15 M parameters."""
    stem = [nn.Conv2d(3, 24, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    net = nn.Sequential(*stem, ResidualBlock(24, 48, 2), ResidualBlock(48, 96, 2), GlobalMaxPool())
    if pretrained:
        weights = load_file(embedded_model("tiny-resnet")[0] / "weights.safetensors")
        net.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
        )
    return net


def _torchvision(student: str, classifier: str, url: str, model: str | None = None) -> Backbone:
    """A torchvision model without its last layer `classifier`, with the weights at `url`."""

    def make(pretrained: bool) -> nn.Module:
        import torchvision  # slow

        net = torchvision.models.get_model(model or student)
        setattr(net, classifier, nn.Identity())
        if not pretrained:
            return net
        with _missing_weights(student):
            weights = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
        return with_weights(net, weights, url)

    return Backbone(make, 224, IMAGENET_MEAN, IMAGENET_STD)


def _make_timm(name: str) -> Callable[[bool], nn.Module]:
    """A function that builds a timm model without its last layer."""

    def make(pretrained: bool) -> nn.Module:
        import timm  # slow

        with _missing_weights(name):
            return timm.create_model(name, pretrained=pretrained, num_classes=0)

    return make


TINYVIT = _make_timm("tiny_vit_21m_384.dist_in22k_ft_in1k")

STUDENTS: dict[str, Backbone] = {
    "tiny-cnn": Backbone(tiny_cnn_backbone, 16),
    "tiny-resnet": Backbone(tiny_resnet_backbone, 32),
    "resnet18": _torchvision("resnet18", "fc", RESNET18),
    "mobilenet_v2": _torchvision("mobilenet_v2", "classifier", MOBILENET_V2),
    "tinyvit": Backbone(TINYVIT, 224, IMAGENET_MEAN, IMAGENET_STD),
    "dino_resnet50": _torchvision("dino_resnet50", "fc", DINO, "resnet50"),
}
ON_FEATURES = ("linear", "mlp")  # students of cached features, without a backbone: see `banks.py`


def find_backbone(name: str) -> Backbone | None:
    """The backbone of a student; None for those in ON_FEATURES.

    name: of STUDENTS or timm, with an optional image size, as in "resnet18@64".
    Raises ValueError for an unknown name or a size that is not a number.
    """
    if name in ON_FEATURES:
        return None
    base, _, size = name.partition("@")
    if size and not (size.isdecimal() and int(size) > 0):
        raise ValueError(
            f"student {name!r}: the part after @ must be the image size in pixels, "
            "as in 'resnet18@64'"
        )
    found = STUDENTS.get(base) or _timm_backbone(name, base.removeprefix("timm:"))
    return Backbone(found.make, int(size), found.mean, found.std) if size else found


def _timm_backbone(student: str, model: str) -> Backbone:
    import timm  # slow

    known = [*STUDENTS, *ON_FEATURES]
    if not timm.is_model(model):
        near = get_close_matches(model, [*known, *timm.list_models()], 3)
        hint = f": did you mean {' or '.join(near)}?" if near else ", see timm.list_models()"
        raise ValueError(
            f"unknown student {student!r}; known are {', '.join(known)} "
            f"and every model of timm{hint}"
        )
    try:
        cfg = timm.get_pretrained_cfg(model) or timm.models.PretrainedCfg()
    except RuntimeError as error:
        tags = f"timm.list_pretrained({model.split('.')[0]!r})"
        raise ValueError(f"unknown student {student!r}: {error}; see {tags}") from error
    return Backbone(_make_timm(model), cfg.input_size[-1], tuple(cfg.mean), tuple(cfg.std))


@contextlib.contextmanager
def _missing_weights(student: str):
    """Report a failed download as FileNotFoundError with the ways out."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"no weights for student {student!r}: {error}. Download them once with a network "
            f"connection by `akd.build_student({student!r}, 2)`, give a file "
            "(pretrained='weights.safetensors'), or start from random weights (pretrained=False)"
        ) from error


def weights_sha256(pretrained: bool | str | Path) -> str | None:
    """sha256 of a weights file; None for a bool. Raises FileNotFoundError for a missing file."""
    if isinstance(pretrained, bool):
        return None
    if not Path(pretrained).is_file():
        raise FileNotFoundError(
            f"no weights file {pretrained} for the student; pass a file, True or False"
        )
    return sha256_of(Path(pretrained))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, from safetensors or a checkpoint; nothing but tensors is unpickled.

    Raises FileNotFoundError for a missing file, ValueError for any other content.
    """
    weights_sha256(path)  # raises if the file is missing
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # many types; torch's message advises unsafe unpickling, so drop it
        raise ValueError(
            f"the weights {path} cannot be read ({type(error).__name__}): a dict of tensors is "
            "needed, and nothing else is unpickled"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"the weights {path} are not a dict of tensors; save `net.state_dict()`")
    return dict(content)


def with_weights(
    net: nn.Module, weights: Mapping[str, Tensor], source: str = "the checkpoint"
) -> nn.Module:
    """`net` with all its weights loaded from `weights`; extra ones (a classifier) are ignored.

    Raises ValueError if a weight is missing or has another shape.
    """
    weights = {k.removeprefix("module.").removeprefix("backbone."): v for k, v in weights.items()}
    own = net.state_dict()
    missing = [k for k in own if k not in weights and not k.endswith("num_batches_tracked")]
    wrong = [k for k, v in own.items() if k in weights and weights[k].shape != v.shape]
    if missing or wrong:
        raise ValueError(
            f"{source} does not fit: {len(missing)} weights are missing ({', '.join(missing[:3])}),"
            f" {len(wrong)} have another shape ({', '.join(wrong[:3])}); "
            f"it holds {', '.join(list(weights)[:3])}, ..."
        )
    net.load_state_dict({k: weights[k] for k in own if k in weights}, strict=False)
    return net
