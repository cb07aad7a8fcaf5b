"""Run the course notebooks, and turn them into pages and handouts."""

import lazy_loader

MODULES = ["batches", "handouts", "notebooks", "pages"]
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, MODULES)
