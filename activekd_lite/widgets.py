"""The explorers: probability space to touch in JupyterLab. `akd.widgets` is imported when it is asked for."""

from activekd_lite.explorer import SimplexExplorer
from activekd_lite.live import Explorer, Selection

__all__ = ["Explorer", "Selection", "SimplexExplorer"]
