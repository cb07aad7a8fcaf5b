"""Device and precision; the device "auto" is CUDA, else Apple's MPS, else the CPU."""

import torch
from torch import Tensor

PRECISIONS = ("float32", "float16", "bfloat16")


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The torch device named `device`. Raises ValueError if torch or this machine lacks it."""
    if str(device) == "auto":
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else mps
    try:
        # a tensor's device has its number, and torch.device("cuda") != torch.device("cuda:0")
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device {device!r} cannot be used here ({error}); use 'auto' or 'cpu'"
        ) from error


def device_name(device: torch.device) -> str:
    """The device for a record: the GPU's name, or "cpu, 2 threads, AVX512"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' * (threads > 1)}, {torch.backends.cpu.get_cpu_capability()}"


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; from the CPU to a GPU without waiting for the GPU's queue."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def resolve_precision(precision: str, device: torch.device, on_cuda: str) -> str:
    """One of PRECISIONS; "auto" is `on_cuda` on CUDA, else float32. Raises ValueError otherwise."""
    if precision == "auto":
        return on_cuda if device.type == "cuda" else "float32"
    if precision not in PRECISIONS:
        known = ", ".join(map(repr, PRECISIONS))
        raise ValueError(f"precision = {precision!r}; choose 'auto', {known}")
    return precision


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context that computes in `precision` wherever torch considers it safe."""
    return torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")
