"""What this machine has: versions, device, cores, memory."""

import importlib.metadata
import os
import platform

import pandas as pd
import psutil
import torch

from activekd_lite.utils.device import resolve_device

CORE = (
    "torch", "torchvision", "open_clip_torch", "timm", "filelock", "numpy", "pandas", "scikit-learn", "scipy", "safetensors",
    "plotly", "distributed", "pyarrow", "pyyaml",
)  # fmt: skip
OPTIONAL = (
    "jupyterlab", "papermill", "ipywidgets", "umap-learn", "nbval", "transformers", "datasets", "scikit-activeml", "matplotlib",
)  # fmt: skip


def environment() -> pd.DataFrame:
    """A row for each fact, by name: found (text), kind ("machine", "needed" or "optional") and ok, False where something that
    is needed is missing. Nothing is downloaded, nothing leaves the machine."""
    memory, cuda = psutil.virtual_memory(), torch.cuda.is_available()
    machine = {
        "activekd-lite": _version("activekd-lite") or "not installed as a package",
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "cores": f"{os.cpu_count()} ({torch.get_num_threads()} used by torch)",
        "memory": f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f}",
        "device": f"{resolve_device('auto')}"
        + (f" ({torch.cuda.get_device_name()})" if cuda else ""),
    }
    rows = [(name, found, "machine", True) for name, found in machine.items()]
    for kind, names, instead in (
        ("needed", CORE, "MISSING: run make install"),
        ("optional", OPTIONAL, "not installed (optional)"),
    ):
        versions = {name: _version(name) for name in names}
        rows += [
            (name, found or instead, kind, bool(found) or kind == "optional")
            for name, found in versions.items()
        ]
    return pd.DataFrame(rows, columns=["name", "found", "kind", "ok"]).set_index("name")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
