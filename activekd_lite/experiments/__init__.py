"""Configured runs: one by name, a grid of them, and the protocol of the paper."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["cluster", "config", "grid", "sweep"])
