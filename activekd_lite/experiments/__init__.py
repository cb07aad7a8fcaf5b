"""Runs by name: one, a grid of them, and the paper's protocol."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["cluster", "config", "grid", "sweep"])
