"""Vision-language models through open_clip: embedded ones (`tiny-clip`), or any other model.

Both are loaded in the same way; `utils/open_clip_models.py` knows names, tags and activations.
"""

import functools
import hashlib
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.utils.checks import check_templates
from activekd_lite.utils.device import autocast, resolve_device, resolve_precision
from activekd_lite.utils.files import embedded_clips
from activekd_lite.utils.images import ImageFiles, stream_centers
from activekd_lite.utils.open_clip_models import (
    check_source,
    embedded_clip,
    load_model,
    load_tokenizer,
    needs_quick_gelu,
)


@dataclass(frozen=True)
class VLM:
    """A loaded model with all that is needed to encode images and text."""

    name: str
    pretrained: str
    model: Any  # open_clip.CLIP or CoCa or ...
    tokenizer: Callable[..., Tensor]
    input_size: int  # pixels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    known_words: frozenset[str] | None  # None: unknown
    precision: str = "float32"  # of the image tower, by autocast

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def logit_scale(self) -> float:
        return self.model.logit_scale.exp().item()

    @property
    def quick_gelu(self) -> bool:
        """True if the model computes x * sigmoid(1.702 x), as OpenAI's CLIP does, and not GELU."""
        return any(type(module).__name__.startswith("QuickGELU") for module in self.model.modules())

    def fingerprint(self) -> dict:
        """Return what decides the image features, JSON-ready.

        `weights` is the sha256 of the image tower.
        """
        digest = hashlib.sha256()
        for key, value in sorted(self.model.visual.state_dict().items()):
            values = value.detach().cpu().float().contiguous().numpy()
            digest.update(key.encode() + values.tobytes())
        return {
            "name": self.name,
            "pretrained": self.pretrained,
            "weights": digest.hexdigest(),
            "input_size": self.input_size,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "logit_scale": round(self.logit_scale, 6),
            "precision": self.precision,
            "quick_gelu": self.quick_gelu,
        }

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode pixels (B, 3, input_size, input_size) in [0, 1] to (B, D) float32 of unit norm."""
        mean, std = (_per_channel(v, self.device) for v in (self.mean, self.std))
        x = ((pixels.to(self.device) - mean) / std).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.precision):
            features = self.model.encode_image(x)
        return F.normalize(features.float(), dim=1)

    @torch.inference_mode()
    def encode_text(self, sentences: Sequence[str]) -> Tensor:
        """Encode S sentences to (S, D) float32 of unit norm."""
        tokens = self.tokenizer(list(sentences)).to(self.device)
        return F.normalize(self.model.encode_text(tokens).float(), dim=1)

    def unknown_words(self, sentences: Sequence[str]) -> list[str]:
        """Return the words that the model never saw, sorted; [] if its vocabulary is unknown."""
        if self.known_words is None:
            return []
        words = {word for s in sentences for word in re.findall(r"[^\W_]+", s.lower())}
        return sorted(words - self.known_words)

    def zero_shot_probs(
        self, images: Tensor | ImageFiles, text_weights: Tensor, batch: int = 256
    ) -> Tensor:
        """Return class probabilities (N, C) for the centre crops.

        images: (N, 3, H, W) uint8, or files. text_weights: (D, C).
        """
        size, mode = self.input_size, self.interpolation
        crops = stream_centers(images, batch, size, mode, self.device, reduced=False)
        logits = (self.logit_scale * self.encode_images(x) @ text_weights for x in crops)
        return torch.cat([part.softmax(dim=1) for part in logits])

    def text_weights(
        self,
        classnames: Sequence[str],
        templates: Sequence[str] = ("a photo of a {}.",),
        average: str = "normalized",
        unit: bool = True,
    ) -> Tensor:
        """Return the zero-shot classifier (D, C) float32: the mean text feature of each class.

        average: "normalized" normalises the feature of each template first (CLIP, arXiv:2103.00020,
        and open_clip); "raw" does not (arXiv:2506.00910 on ten data sets).
        unit: normalise the columns; False leaves the means, where `ClapTeacher` starts.
        Warns of words that the model never saw, if known. Raises ValueError for no names, no
        templates, and a template that does not hold {} exactly once.
        """
        classnames, templates = list(classnames), list(templates)
        if not classnames or not templates:
            raise ValueError(
                f"{len(classnames)} class names and {len(templates)} templates: at least one of "
                "each is needed"
            )
        check_templates(templates)
        if average not in ("normalized", "raw"):
            raise ValueError(f"average = {average!r}; choose 'normalized' or 'raw'")
        self._warn_of_unknown_words([t.format(c) for c in classnames for t in templates])
        normalize = average == "normalized"
        with torch.inference_mode():
            columns = [self._class_weight(c, templates, normalize) for c in classnames]
        weights = torch.stack(columns, dim=1).float()
        return F.normalize(weights, dim=0) if unit else weights

    def _class_weight(self, classname: str, templates: list[str], normalize: bool) -> Tensor:
        tokens = self.tokenizer([t.format(classname) for t in templates]).to(self.device)
        return self.model.encode_text(tokens, normalize=normalize).mean(dim=0)  # (D,)

    def _warn_of_unknown_words(self, sentences: list[str]) -> None:
        if unknown := self.unknown_words(sentences):
            warnings.warn(
                f"{self.name} never saw the words {unknown}, so its answers to them mean nothing. "
                f"It knows {len(self.known_words)} words, listed in data/{self.name}/manifest.json",
                stacklevel=3,
            )


@functools.cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return values as (3, 1, 1), sent to the device once."""
    return torch.tensor(values, device=device)[:, None, None]


def load_vlm(
    name: str = "tiny-clip",
    pretrained: str | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    quick_gelu: bool | None = None,
) -> VLM:
    """Load an embedded model (`tiny-clip`), or any of open_clip: `load_vlm("RN50", "openai")`.

    pretrained: a tag of `open_clip.list_pretrained()` or a weights file.
    precision of the image tower: "float32", "float16", "bfloat16", or "auto" (float16 on CUDA, else
    float32; bfloat16 changes the answer for about one image in a hundred).
    quick_gelu: whether a weights *file* was trained with QuickGELU; for tags it is known.
    Raises ValueError for an unknown name, weights that do not fit, and an activation that is
    unknown or contradicts the tag; FileNotFoundError if weights or tokenizer are missing.
    """
    import open_clip

    device = resolve_device(device)
    precision = resolve_precision(precision, device, "float16")
    embedded, known_words = embedded_clip(name) if name in embedded_clips() else (None, None)
    check_source(name, pretrained or embedded)
    activation = needs_quick_gelu(name, pretrained, quick_gelu)
    tokenizer = load_tokenizer(name)
    model: Any = load_model(name, pretrained or embedded, activation)
    model = model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    cfg = open_clip.get_model_preprocess_cfg(model)
    size = cfg["size"][0] if isinstance(cfg["size"], (tuple, list)) else cfg["size"]
    source = str(pretrained or ("embedded" if embedded else ""))
    vlm = VLM(
        name=name,
        pretrained=Path(source).name if Path(source).is_file() else source,
        model=model,
        tokenizer=tokenizer,
        input_size=size,
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
        interpolation=cfg["interpolation"],
        known_words=known_words,
        precision=precision,
    )
    if quick_gelu not in (None, vlm.quick_gelu):
        raise ValueError(
            f"quick_gelu = {quick_gelu}, but the configuration of {name} says {vlm.quick_gelu}; "
            "leave it out"
        )
    return vlm
