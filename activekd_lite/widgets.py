"""The explorers: probability space to touch in JupyterLab. `akd.widgets` is imported when it is asked for."""

from activekd_lite.explorer import SimplexExplorer
from activekd_lite.live import Explorer, Selection
from activekd_lite.stepper import PCoreSetStepper

__all__ = ["Explorer", "PCoreSetStepper", "Selection", "SimplexExplorer"]
