"""Fingerprints of tensors."""

import hashlib
from typing import Any

from torch import Tensor


def tensor_sha256(values: Tensor) -> str:
    """Return the sha256 of a tensor's numbers."""
    array: Any = values.detach().cpu().contiguous().numpy()
    return hashlib.sha256(array).hexdigest()
