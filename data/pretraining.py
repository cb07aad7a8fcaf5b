"""What the two pre-training scripts share: their options, and how a model is saved."""

import argparse
import json
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from activekd_lite.utils import files


def parser(description: str, **defaults: object) -> argparse.ArgumentParser:
    """Return a parser of the scripts' options, with these defaults (None for the others)."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--steps", type=int)
    made.add_argument("--batch", type=int)
    made.add_argument("--lr", type=float)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path)
    made.set_defaults(**defaults)
    return made


def save(model: nn.Module, out: Path, **more: object) -> None:
    """Write float16 weights, and a manifest with their checksum and the entries `more`."""
    out.mkdir(parents=True, exist_ok=True)
    weights, state = out / "weights.safetensors", model.state_dict()
    half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, weights)
    manifest = files.with_checksum({"weights_sha256": files.sha256_of(weights), **more})
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
