"""Loading open_clip models: known names and tags, the activation of their weights, clear refusals."""

import os
import textwrap
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError

import open_clip
from safetensors import SafetensorError
from torch import nn

from activekd_lite.utils.files import embedded_model, read_json

OWN_CONFIG = (
    "hf-hub:",
    "local-dir:",
)  # how models are called that bring configuration and weights of their own


UNLOADABLE = (
    UnpicklingError, SafetensorError, EOFError, LookupError, StopIteration, AttributeError, TypeError, ValueError, RuntimeError,
    OSError,
)  # fmt: skip  # what torch, safetensors and open_clip raise for weights that are damaged or of another kind


def tiny_clip() -> tuple[Path, frozenset[str]]:
    """Weights and words of the embedded model, which open_clip knows afterwards."""
    folder, manifest = embedded_model("tiny-clip")
    if "tiny-clip" not in open_clip.list_models():
        open_clip.add_model_config(folder / "tiny-clip.json")
    return folder / "weights.safetensors", frozenset(manifest["words"])


def needs_quick_gelu(name: str, pretrained: str | None, said: bool | None = None) -> bool | None:
    """Whether weights were trained with QuickGELU, from their tag or, for a file, from the caller.

    A tag that does not state it follows the model's configuration. For a file nobody needs to say it where that
    configuration and all tags of the model agree. None: the model brings its own configuration, which decides.
    Raises ValueError where `said` contradicts a tag, or is missing for a file.
    """
    if said is not None and not isinstance(said, bool):
        raise ValueError(f"quick_gelu = {said!r}; True, False and None are known")
    if name.startswith(OWN_CONFIG):
        return None
    own = open_clip.get_model_config(name).get("quick_gelu", False)
    tags = open_clip.list_pretrained_tags_by_model(name)
    of_tag = {tag: open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", own) for tag in tags}
    if pretrained is None or pretrained in of_tag:
        needed = of_tag.get(pretrained, own)
        if said not in (None, needed):
            raise ValueError(
                f"quick_gelu = {said}, but {pretrained or 'the embedded'} weights of {name} were trained "
                f"with{'' if needed else 'out'} QuickGELU; leave it out"
            )
        return needed
    if said is None and {own, *of_tag.values()} != {own}:
        kinds = of_tag | {"open_clip's own configuration": own}
        with_it, without = (
            textwrap.shorten(", ".join(k for k in kinds if kinds[k] is kind), 100)
            for kind in (True, False)
        )
        raise ValueError(
            f"{pretrained}: was it trained with QuickGELU? {name} exists with it ({with_it}) and without ({without}); say "
            "quick_gelu=True or False (--quick-gelu or --no-quick-gelu): True for OpenAI's weights and what was tuned from them"
        )
    return own if said is None else said


def load_model(name: str, source: str | Path | None, quick_gelu: bool | None) -> nn.Module:
    """The model with its weights, on the CPU. A tag is fetched first, then loaded like any file."""
    if name.startswith(OWN_CONFIG):
        how = {"require_pretrained": True}
    else:
        cfg = (
            open_clip.get_pretrained_cfg(name, source)
            if source in open_clip.list_pretrained_tags_by_model(name)
            else {}
        )
        path = _fetched(name, str(source), cfg) if cfg else source
        how = {
            "pretrained": os.path.abspath(path),
            "force_preprocess_cfg": cfg,
            "quick_gelu": quick_gelu,
        }  # no file is a tag
    try:
        return open_clip.create_model(name, **how)
    except UNLOADABLE as error:
        raise _refusal(error, name, str(source or "")) from error


def _fetched(name: str, tag: str, cfg: dict) -> str:
    """The weights file of a tag, from open_clip's cache or the network."""
    try:
        return open_clip.download_pretrained(cfg)
    except (RuntimeError, OSError) as error:
        raise _no_weights(error, name, tag) from error


def _refusal(error: Exception, name: str, source: str) -> Exception:
    """What to tell the user of weights that open_clip could not load."""
    text = textwrap.shorten(str(error) or repr(error), 300)
    if (
        isinstance(error, UnpicklingError) or "TorchScript" in text
    ):  # torch's text advises to unpickle all the same
        return ValueError(
            f"the weights {source!r} of {name} hold more than tensors; nothing else is unpickled"
        )
    if "state_dict" in text:
        return ValueError(
            f"the weights {source!r} do not fit {name}: {text}; name the model that they belong to"
        )
    if name.startswith(OWN_CONFIG) and isinstance(error, OSError | RuntimeError):
        return _no_weights(error, name, source)
    return ValueError(
        f"the weights {source!r} of {name} cannot be read: {text}; fetch the file again"
    )


def _no_weights(error: Exception, name: str, source: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"no weights for {name!r} from {source!r}: {error}. Fetch them once where there is a network with "
        f"`open_clip.create_model({name!r}, pretrained={source!r})`, or give a local file as `pretrained`"
    )


def load_tokenizer(name: str) -> object:
    """open_clip's tokenizer of a model; some (SigLIP) are files of their own, fetched from the hub."""
    try:
        return open_clip.get_tokenizer(name)
    except (
        Exception
    ) as error:  # the hub's, transformers' and open_clip's own kinds: all say that it cannot be had
        raise FileNotFoundError(
            f"no tokenizer for {name!r}: {error}. Fetch it once where there is a network, with `pip install transformers` and "
            f"`open_clip.get_tokenizer({name!r})`"
        ) from error


def check_source(name: str, pretrained: str | Path | None) -> None:
    """Raises ValueError or FileNotFoundError for a model or weights that are not known, listing those that are."""
    if name.startswith(OWN_CONFIG):
        if pretrained:
            raise ValueError(
                f"{name} brings its own weights; leave out pretrained = {str(pretrained)!r}"
            )
        if name.startswith("local-dir:"):
            read_json(
                Path(name.removeprefix("local-dir:")) / "open_clip_config.json",
                "fetch the folder again",
            )
        return
    known = ["tiny-clip", *open_clip.list_models()]
    if name not in known:
        near = get_close_matches(name, known, 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ";"
        raise ValueError(
            f"unknown model {name!r}{hint} known are {', '.join(known)}, and hf-hub:organisation/name"
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None:
        raise ValueError(
            f"{name} needs pretrained=: one of {', '.join(tags) or 'no tag is known'}, or a weights file"
        )
    if pretrained not in tags and not Path(pretrained).is_file():
        raise FileNotFoundError(
            f"{name} has no weights {str(pretrained)!r}: not a file, and not one of {', '.join(tags)}"
        )
