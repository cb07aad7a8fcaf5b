"""Where tensors live and what is computed in: "auto" takes CUDA, then Apple's MPS, then the CPU."""

import torch
from torch import Tensor


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The torch device meant by `device`. Raises ValueError for one that torch does not know or this machine lacks."""
    if str(device) == "auto":
        device = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        return torch.empty(
            0, device=device
        ).device  # with its number: "cuda" and "cuda:0" are not equal
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device {device!r} cannot be used here ({error}); use 'auto' or 'cpu'"
        ) from error


def device_name(device: torch.device) -> str:
    """Where something is computed, for a record: the GPU's name, or "cpu, 2 threads, AVX512"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' * (threads > 1)}, {torch.backends.cpu.get_cpu_capability()}"


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; to a GPU through pinned memory, so that nobody waits for what is being computed there."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


PRECISIONS = ("float32", "float16", "bfloat16")


def resolve_precision(precision: str, device: torch.device, on_cuda: str) -> str:
    """One of PRECISIONS; "auto" is `on_cuda` on CUDA and float32 elsewhere. Raises ValueError for another."""
    if precision == "auto":
        return on_cuda if device.type == "cuda" else "float32"
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision = {precision!r}; 'auto', {', '.join(map(repr, PRECISIONS))} are known"
        )
    return precision


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """What is computed inside runs in `precision` where that is safe; float32 changes nothing."""
    return torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")
