"""Facts about this machine: versions, device, cores, memory."""

import importlib.metadata
import os
import platform

import pandas as pd
import psutil
import torch

from activekd_lite.utils.device import resolve_device

CORE = (
    "torch torchvision open_clip_torch timm filelock numpy pandas scikit-learn scipy safetensors "
    "plotly distributed pyarrow pyyaml"
).split()
OPTIONAL = (
    "jupyterlab papermill ipywidgets umap-learn nbval transformers datasets scikit-activeml "
    "matplotlib"
).split()


def environment() -> pd.DataFrame:
    """Collect facts about this machine, without any network access.

    Returns one row per fact, indexed by name, with the columns
        found: the fact as text
        kind: "machine", "needed" or "optional"
        ok: False if something that is needed is missing
    """
    rows = [(name, found, "machine", True) for name, found in _machine().items()]
    for name in CORE:
        version = _version(name)
        rows.append((name, version or "MISSING: run make install", "needed", bool(version)))
    for name in OPTIONAL:
        rows.append((name, _version(name) or "not installed (optional)", "optional", True))
    return pd.DataFrame(rows, columns=["name", "found", "kind", "ok"]).set_index("name")


def _machine() -> dict[str, str]:
    memory = psutil.virtual_memory()
    gpu = f" ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else ""
    return {
        "activekd-lite": _version("activekd-lite") or "not installed as a package",
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "cores": f"{os.cpu_count()} ({torch.get_num_threads()} used by torch)",
        "memory": f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f}",
        "device": f"{resolve_device('auto')}{gpu}",
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
