"""Vision-language models through open_clip: the embedded `tiny-clip`, or any other name that open_clip can load.

Both take the same path: `open_clip.create_model` with a name and a weights tag or file, its tokenizer, its preprocessing.
"""

import functools
import hashlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError

import open_clip
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from activekd_lite.checks import check_templates
from activekd_lite.device import autocast, resolve_device, resolve_precision
from activekd_lite.files import embedded_model
from activekd_lite.views import render_center


@dataclass(frozen=True)
class VLM:
    """A loaded model with all that is needed to encode images and words."""

    name: str
    pretrained: str
    model: nn.Module
    tokenizer: object
    input_size: int  # pixels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    known_words: frozenset[str] | None  # None: not known, ask anything
    precision: str = "float32"  # what the image tower computes in, by autocast

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def logit_scale(self) -> float:
        return self.model.logit_scale.exp().item()

    def fingerprint(self) -> dict:
        """What decides the image features, JSON-ready; `weights` is the sha256 of the image tower."""
        digest = hashlib.sha256()
        for key, value in sorted(self.model.visual.state_dict().items()):
            digest.update(key.encode() + value.detach().cpu().float().contiguous().numpy().tobytes())
        return {
            "name": self.name, "pretrained": self.pretrained, "weights": digest.hexdigest(), "input_size": self.input_size,
            "mean": list(self.mean), "std": list(self.std), "interpolation": self.interpolation,
            "logit_scale": round(self.logit_scale, 6), "precision": self.precision,
        }  # fmt: skip

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """pixels: (B, 3, S, S) float in [0, 1], S = input_size. Returns unit-norm features (B, D) float32."""
        mean, std = (_per_channel(v, self.device) for v in (self.mean, self.std))
        x = ((pixels.to(self.device) - mean) / std).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.precision):
            features = self.model.encode_image(x)
        return F.normalize(features.float(), dim=1)

    @torch.inference_mode()
    def encode_text(self, sentences: Sequence[str]) -> Tensor:
        """Unit-norm features (S, D) float32 of S sentences."""
        tokens = self.tokenizer(list(sentences)).to(self.device)
        return F.normalize(self.model.encode_text(tokens).float(), dim=1)

    def unknown_words(self, sentences: Sequence[str]) -> list[str]:
        """The words, sorted, that the model never saw; none where that is not known."""
        if self.known_words is None:
            return []
        return sorted({w for s in sentences for w in re.findall(r"[^\W_]+", s.lower())} - self.known_words)

    def zero_shot_probs(self, images: Tensor, text_weights: Tensor, batch: int = 256) -> Tensor:
        """Class probabilities (N, C) for the centre crop of images (N, 3, H, W) uint8; text_weights: (D, C)."""
        crops = (render_center(x.to(self.device), self.input_size, self.interpolation) for x in images.split(batch))
        return torch.cat([(self.logit_scale * self.encode_images(x) @ text_weights).softmax(dim=1) for x in crops])

    def text_weights(
        self, classnames: Sequence[str], templates: Sequence[str] = ("a photo of a {}.",), average: str = "normalized",
        unit: bool = True,
    ) -> Tensor:  # fmt: skip
        """The zero-shot classifier of some class names: (D, C) float32, columns of unit norm, or with unit=False the means
        as they are, where the prototypes of `ClapTeacher` start.

        A class is the mean of its templates' text features: `average="normalized"` normalises each first (CLIP,
        arXiv:2103.00020, and open_clip), "raw" does not (the ten-dataset script of arXiv:2506.00910).
        Warns of words that the model never saw, where that is known. Raises ValueError for no names, no templates or a
        template that does not hold {} exactly once.
        """
        classnames, templates = list(classnames), list(templates)
        if not classnames or not templates:
            raise ValueError(f"{len(classnames)} class names and {len(templates)} templates: at least one of each is needed")
        check_templates(templates)
        if average not in ("normalized", "raw"):
            raise ValueError(f"average = {average!r}; 'normalized' and 'raw' are known")
        self._warn_of_unknown_words([t.format(c) for c in classnames for t in templates])
        with torch.inference_mode():
            columns = [self._class_weight(c, templates, average == "normalized") for c in classnames]
        weights = torch.stack(columns, dim=1).float()
        return F.normalize(weights, dim=0) if unit else weights

    def _class_weight(self, classname: str, templates: list[str], normalize: bool) -> Tensor:
        tokens = self.tokenizer([t.format(classname) for t in templates]).to(self.device)
        return self.model.encode_text(tokens, normalize=normalize).mean(dim=0)  # (D,)

    def _warn_of_unknown_words(self, sentences: list[str]) -> None:
        if unknown := self.unknown_words(sentences):
            warnings.warn(
                f"{self.name} never saw the words {unknown}: what it says of them means nothing. It knows "
                f"{len(self.known_words)} words, listed in data/{self.name}/manifest.json.",
                stacklevel=3,
            )


@functools.cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(3, 1, 1), sent to the device once."""
    return torch.tensor(values, device=device)[:, None, None]


def load_vlm(
    name: str = "tiny-clip", pretrained: str | None = None, device: str | torch.device = "auto", precision: str = "auto"
) -> VLM:
    """The embedded `tiny-clip`, or any open_clip model: `load_vlm("RN50", pretrained="openai")`.

    pretrained: a tag of `open_clip.list_pretrained()` or a weights file. precision of the image tower: "float32", "float16",
    "bfloat16", or "auto": float16 on CUDA, else float32 (bfloat16 keeps 8 bits, and changes the answer on about one image in a
    hundred). Raises ValueError for a name that open_clip does not know or weights that do not fit, FileNotFoundError where
    weights or tokenizer cannot be had.
    """
    where, known_words = resolve_device(device), None
    precision = resolve_precision(precision, where, "float16")
    if name == "tiny-clip":
        folder, manifest = embedded_model(name)
        open_clip.add_model_config(folder / "tiny-clip.json")
        known_words = frozenset(manifest["words"])
        source, pretrained = str(pretrained or folder / "weights.safetensors"), pretrained or "embedded"
    else:
        source = pretrained = _checked_source(name, pretrained)
    tokenizer = _tokenizer(name)
    try:
        model = open_clip.create_model(name, pretrained=source, device=where)
    except UnpicklingError as error:  # torch's text advises to unpickle all the same
        raise ValueError(f"the weights {source!r} of {name} hold more than tensors; nothing else is unpickled") from error
    except (SafetensorError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"the weights {source!r} of {name} cannot be read: {error}; fetch the file again") from error
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"no weights for {name!r} from {source!r}: {error}. Fetch them once where there is a network with "
            f"`open_clip.create_model({name!r}, pretrained={source!r})`, or give a local file as `pretrained`"
        ) from error
    cfg = open_clip.get_model_preprocess_cfg(model)
    size = cfg["size"][0] if isinstance(cfg["size"], (tuple, list)) else cfg["size"]
    model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return VLM(
        name, Path(pretrained).name if Path(pretrained).is_file() else str(pretrained), model, tokenizer, size,
        tuple(cfg["mean"]), tuple(cfg["std"]), cfg["interpolation"], known_words, precision,
    )  # fmt: skip


def _tokenizer(name: str) -> object:
    """open_clip's tokenizer of a model; some (SigLIP) are files of their own, fetched from the hub."""
    try:
        return open_clip.get_tokenizer(name)
    except Exception as error:  # the hub's, transformers' and open_clip's own kinds: all say that it cannot be had
        raise FileNotFoundError(
            f"no tokenizer for {name!r}: {error}. Fetch it once where there is a network, with `pip install transformers` and "
            f"`open_clip.get_tokenizer({name!r})`"
        ) from error


def _checked_source(name: str, pretrained: str | None) -> str:
    """The weights tag or file, or a ValueError that lists what there is instead."""
    known = ["tiny-clip", *open_clip.list_models()]
    if name not in known and not name.startswith(("hf-hub:", "local-dir:")):
        near = get_close_matches(name, known, 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ";"
        raise ValueError(f"unknown model {name!r}{hint} known are {', '.join(known)}, and hf-hub:organisation/name")
    if name.startswith(("hf-hub:", "local-dir:")):
        return pretrained or ""
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None:
        raise ValueError(f"{name} needs pretrained=: one of {', '.join(tags) or 'no tag is known'}, or a weights file")
    if pretrained not in tags and not Path(pretrained).is_file():
        raise FileNotFoundError(f"{name} has no weights {pretrained!r}: not a file, and not one of {', '.join(tags)}")
    return pretrained
