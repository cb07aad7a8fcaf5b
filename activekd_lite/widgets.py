"""The explorers: probability space to touch in JupyterLab. `akd.widgets` is imported when it is asked for."""

from activekd_lite.answers import accuracy_by_seconds, against_truth
from activekd_lite.journal import Journal, PersonOracle
from activekd_lite.labeller import Labeller
from activekd_lite.live import Explorer, Selection

__all__ = ["Explorer", "Journal", "Labeller", "PersonOracle", "Selection", "accuracy_by_seconds", "against_truth"]
