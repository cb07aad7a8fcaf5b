"""Where tensors live: "auto" takes CUDA, then Apple's MPS, then the CPU."""

import torch


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The torch device meant by `device`. Raises ValueError for one that torch does not know or this machine lacks."""
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {device!r} cannot be used here ({error}); use 'auto' or 'cpu'") from error
    return torch.device(device)
