"""Running the notebooks, and making pages and handouts of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["batches", "handouts", "notebooks", "pages"])
