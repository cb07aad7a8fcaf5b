"""Vision-language models through open_clip: the embedded `tiny-clip`, or any other name that open_clip can load.

Both take the same path: `open_clip.create_model` with a name and a weights tag or file, its tokenizer, its preprocessing.
The activation belongs to the weights: open_clip builds GELU for `RN50`, also for a tag trained with QuickGELU, unless told.
"""

import functools
import hashlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from activekd_lite.utils.checks import check_templates
from activekd_lite.utils.device import autocast, resolve_device, resolve_precision
from activekd_lite.utils.images import ImageFiles, stream_centers
from activekd_lite.utils.open_clip_models import (
    check_source,
    load_model,
    load_tokenizer,
    needs_quick_gelu,
    tiny_clip,
)


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

    @property
    def quick_gelu(self) -> bool:
        """Whether the model computes x * sigmoid(1.702 x), as OpenAI's CLIP does, in place of GELU."""
        return any(type(module).__name__.startswith("QuickGELU") for module in self.model.modules())

    def fingerprint(self) -> dict:
        """What decides the image features, JSON-ready; `weights` is the sha256 of the image tower."""
        digest = hashlib.sha256()
        for key, value in sorted(self.model.visual.state_dict().items()):
            digest.update(
                key.encode() + value.detach().cpu().float().contiguous().numpy().tobytes()
            )
        return {
            "name": self.name, "pretrained": self.pretrained, "weights": digest.hexdigest(), "input_size": self.input_size,
            "mean": list(self.mean), "std": list(self.std), "interpolation": self.interpolation,
            "logit_scale": round(self.logit_scale, 6), "precision": self.precision, "quick_gelu": self.quick_gelu,
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
        return sorted(
            {w for s in sentences for w in re.findall(r"[^\W_]+", s.lower())} - self.known_words
        )

    def zero_shot_probs(
        self, images: Tensor | ImageFiles, text_weights: Tensor, batch: int = 256
    ) -> Tensor:
        """Class probabilities (N, C) for the centre crop of images (N, 3, H, W) uint8, or of files; text_weights: (D, C)."""
        crops = stream_centers(
            images, batch, self.input_size, self.interpolation, self.device, reduced=False
        )
        return torch.cat(
            [
                (self.logit_scale * self.encode_images(x) @ text_weights).softmax(dim=1)
                for x in crops
            ]
        )

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
            raise ValueError(
                f"{len(classnames)} class names and {len(templates)} templates: at least one of each is needed"
            )
        check_templates(templates)
        if average not in ("normalized", "raw"):
            raise ValueError(f"average = {average!r}; 'normalized' and 'raw' are known")
        self._warn_of_unknown_words([t.format(c) for c in classnames for t in templates])
        with torch.inference_mode():
            columns = [
                self._class_weight(c, templates, average == "normalized") for c in classnames
            ]
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
    name: str = "tiny-clip", pretrained: str | None = None, device: str | torch.device = "auto", precision: str = "auto",
    quick_gelu: bool | None = None,
) -> VLM:  # fmt: skip
    """The embedded `tiny-clip`, or any open_clip model: `load_vlm("RN50", pretrained="openai")`.

    pretrained: a tag of `open_clip.list_pretrained()` or a weights file.
    precision of the image tower: "float32", "float16", "bfloat16", or "auto": float16 on CUDA, else float32 (bfloat16 keeps 8
    bits, and changes the answer on about one image in a hundred).
    quick_gelu: whether a weights file was trained with QuickGELU, see `needs_quick_gelu`; of a tag it is known.
    Raises ValueError for an unknown name, weights that do not fit, and an activation that is unknown or contradicts the tag;
    FileNotFoundError where weights or tokenizer are missing.
    """
    where = resolve_device(device)
    precision = resolve_precision(precision, where, "float16")
    embedded, known_words = tiny_clip() if name == "tiny-clip" else (None, None)
    check_source(name, pretrained or embedded)
    activation = needs_quick_gelu(name, pretrained, quick_gelu)
    tokenizer = load_tokenizer(name)
    model = load_model(name, pretrained or embedded, activation)
    model = model.eval().requires_grad_(False).to(where, memory_format=torch.channels_last)
    cfg = open_clip.get_model_preprocess_cfg(model)
    size = cfg["size"][0] if isinstance(cfg["size"], (tuple, list)) else cfg["size"]
    shown = str(pretrained or ("embedded" if embedded else ""))
    vlm = VLM(
        name, Path(shown).name if Path(shown).is_file() else shown, model, tokenizer, size,
        tuple(cfg["mean"]), tuple(cfg["std"]), cfg["interpolation"], known_words, precision,
    )  # fmt: skip
    if quick_gelu not in (None, vlm.quick_gelu):
        raise ValueError(
            f"quick_gelu = {quick_gelu}, but the configuration of {name} says {vlm.quick_gelu}; leave it out"
        )
    return vlm
