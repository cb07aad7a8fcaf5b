"""Random numbers as a function of (seed, purpose), without a global state.

Every random draw of the project comes from here, so a round that is repeated, resumed or run in
another order draws the same numbers. `generator(seed, "selection", round)` is a stream;
`uniforms(seed, ids)` are numbers that belong to an image.
"""

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import torch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_GLOBAL = threading.RLock()  # torch's global state is one for all threads


def derive_seed(seed: int, *purpose: object) -> int:
    """A 63-bit seed for one purpose, such as `derive_seed(0, "training", 3)`."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A new torch generator for one purpose."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *purpose))


@contextlib.contextmanager
def global_seed(seed: int, devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Seed torch's global state, from which layers draw, and restore it; one thread at a time."""
    with _GLOBAL, torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(seed)
        yield


def uniforms(seed: int, ids: np.ndarray, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1) that depend on (seed, id) only, not on the other ids.

    ids: (B,) non-negative integers. Returns (B, count) float64.
    The bits are mixed by SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom
    number generators").
    """
    start = np.uint64(derive_seed(seed, "uniforms"))
    with np.errstate(over="ignore"):
        keys = _mix(np.asarray(ids).astype(np.uint64) * _GOLDEN + start)  # (B,)
        counters = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN  # (count,)
        bits = _mix(keys[:, None] + counters[None, :])  # (B, count)
    return (bits >> np.uint64(11)).astype(np.float64) / 2.0**53


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
