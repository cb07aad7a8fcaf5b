"""The explorers: probability space to touch in JupyterLab. `akd.widgets` is imported when it is asked for."""

from activekd_lite.answers import accuracy_by_seconds, against_truth
from activekd_lite.explorer import SimplexExplorer
from activekd_lite.journal import Journal, PersonOracle
from activekd_lite.labeller import Labeller
from activekd_lite.live import Explorer, Selection
from activekd_lite.prompts import PromptExplorer
from activekd_lite.stepper import PCoreSetStepper
from activekd_lite.viewer import RunViewer

__all__ = [
    "Explorer", "Journal", "Labeller", "PCoreSetStepper", "PersonOracle", "PromptExplorer", "RunViewer", "Selection",
    "SimplexExplorer", "accuracy_by_seconds", "against_truth",
]  # fmt: skip
