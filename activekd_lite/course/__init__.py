"""Run the course notebooks, and turn them into pages, handouts and slides."""

import lazy_loader

MODULES = ["batches", "fragment", "handouts", "here", "notebooks", "pages", "questions", "slides"]
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, MODULES)
