"""Loading open_clip models: known names and tags, the activation of weights, clear errors."""

import os
import textwrap
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError

from safetensors import SafetensorError
from torch import Tensor, nn

from activekd_lite.utils.files import embedded_clips, embedded_model, read_json

OWN_CONFIG = ("hf-hub:", "local-dir:")  # models that bring their own configuration and weights
# raised by torch, safetensors and open_clip for weights that are damaged or of another kind
UNLOADABLE = (UnpicklingError, SafetensorError, EOFError, LookupError, StopIteration)
UNLOADABLE += (AttributeError, TypeError, ValueError, RuntimeError, OSError)


def embedded_clip(name: str) -> tuple[Path, frozenset[str]]:
    """Weights file and vocabulary of an embedded model; also registers it with open_clip."""
    import open_clip  # slow

    folder, manifest = embedded_model(name)
    if name not in open_clip.list_models():
        open_clip.add_model_config(folder / f"{name}.json")
    return folder / "weights.safetensors", frozenset(manifest["words"])


def needs_quick_gelu(name: str, pretrained: str | None, given: bool | None = None) -> bool | None:
    """Whether weights were trained with QuickGELU: as their tag says, or for a file as `given`.

    A tag without this setting follows the model's configuration. For a file, `given` may be None if
    the configuration and all tags of the model agree.
    Returns None if the model brings its own configuration.
    Raises ValueError if `given` contradicts the tag, or is needed for a file.
    """
    import open_clip  # slow

    if given is not None and not isinstance(given, bool):
        raise ValueError(f"quick_gelu = {given!r}; choose True, False or None")
    if name.startswith(OWN_CONFIG):
        return None
    own = open_clip.get_model_config(name).get("quick_gelu", False)
    tags = open_clip.list_pretrained_tags_by_model(name)
    by_tag = {tag: open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", own) for tag in tags}
    if pretrained is None or pretrained in by_tag:
        needed = by_tag.get(pretrained, own)
        if given not in (None, needed):
            raise ValueError(
                f"quick_gelu = {given}, but {pretrained or 'the embedded'} weights of {name} were "
                f"trained with{'' if needed else 'out'} QuickGELU; leave it out"
            )
        return needed
    if given is None and {own, *by_tag.values()} != {own}:
        raise _unknown_activation(name, pretrained, by_tag | {"open_clip's own configuration": own})
    return own if given is None else given


def _unknown_activation(name: str, pretrained: str, kinds: dict[str, bool]) -> ValueError:
    with_it, without = (
        textwrap.shorten(", ".join(k for k in kinds if kinds[k] is kind), 100)
        for kind in (True, False)
    )
    return ValueError(
        f"{pretrained}: was it trained with QuickGELU? {name} exists with it ({with_it}) and "
        f"without ({without}); set quick_gelu=True or False (--quick-gelu or --no-quick-gelu): "
        "True for OpenAI's weights and models fine-tuned from them"
    )


def load_model(name: str, source: str | Path | None, quick_gelu: bool | None) -> nn.Module:
    """The model with its weights, on the CPU. source: a tag, which is downloaded, or a file."""
    import open_clip  # slow

    if name.startswith(OWN_CONFIG):
        options = {"require_pretrained": True}
    else:
        is_tag = source in open_clip.list_pretrained_tags_by_model(name)
        cfg = open_clip.get_pretrained_cfg(name, source) if is_tag else {}
        path = os.path.abspath(_downloaded(name, str(source), cfg) if cfg else source)
        # an absolute path is never mistaken for a tag
        options = {"pretrained": path, "force_preprocess_cfg": cfg, "quick_gelu": quick_gelu}
    try:
        return open_clip.create_model(name, **options)
    except UNLOADABLE as error:
        raise _load_error(error, name, str(source or "")) from error


def _downloaded(name: str, tag: str, cfg: dict) -> str:
    """The weights file of a tag, from open_clip's cache or the network."""
    import open_clip  # slow

    try:
        return open_clip.download_pretrained(cfg)
    except (RuntimeError, OSError) as error:
        raise _no_weights(error, name, tag) from error


def _load_error(error: Exception, name: str, source: str) -> Exception:
    """The error to raise for weights that open_clip could not load."""
    text, weights = textwrap.shorten(str(error) or repr(error), 300), f"the weights {source!r}"
    # torch's own message would advise to unpickle all the same
    if isinstance(error, UnpicklingError) or "TorchScript" in text:
        return ValueError(f"{weights} of {name} hold more than tensors, which is never unpickled")
    if "state_dict" in text:
        return ValueError(f"{weights} do not fit {name}: {text}; name the model they belong to")
    if name.startswith(OWN_CONFIG) and isinstance(error, OSError | RuntimeError):
        return _no_weights(error, name, source)
    return ValueError(f"{weights} of {name} cannot be read: {text}; download the file again")


def _no_weights(error: Exception, name: str, source: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"no weights for {name!r} from {source!r}: {error}. Download them once with a network "
        f"connection by `open_clip.create_model({name!r}, pretrained={source!r})`, or give a local "
        "file as `pretrained`"
    )


def load_tokenizer(name: str) -> Callable[..., Tensor]:
    """The tokenizer of a model; those of some models (SigLIP) are downloaded from the hub.

    Raises FileNotFoundError if it is not available.
    """
    import open_clip  # slow

    try:
        return open_clip.get_tokenizer(name)
    except Exception as error:  # types of the hub, of transformers and of open_clip
        raise FileNotFoundError(
            f"no tokenizer for {name!r}: {error}. Download it once with a network connection, by "
            f"`pip install transformers` and `open_clip.get_tokenizer({name!r})`"
        ) from error


def check_source(name: str, pretrained: str | Path | None) -> None:
    """Raise ValueError or FileNotFoundError for unknown models or weights, listing the known."""
    import open_clip  # slow

    if name.startswith(OWN_CONFIG):
        if pretrained:
            raise ValueError(
                f"{name} brings its own weights; leave out pretrained = {str(pretrained)!r}"
            )
        if name.startswith("local-dir:"):
            folder = Path(name.removeprefix("local-dir:"))
            read_json(folder / "open_clip_config.json", "download the folder again")
        return
    known = [*embedded_clips(), *open_clip.list_models()]
    if name not in known:
        near = get_close_matches(name, known, 3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(
            f"unknown model {name!r}; {hint}known are {', '.join(known)}, "
            "and hf-hub:organisation/name"
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    known_tags = ", ".join(tags) or "no tag is known"
    if pretrained is None:
        raise ValueError(f"{name} needs pretrained=: one of {known_tags}, or a weights file")
    if pretrained not in tags and not Path(pretrained).is_file():
        raise FileNotFoundError(
            f"{name} has no weights {str(pretrained)!r}: not a file, and not one of {known_tags}"
        )
