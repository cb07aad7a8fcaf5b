"""Helpers that know nothing about active learning: files, devices, seeds, images, views."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["device", "seeding", "views"])
