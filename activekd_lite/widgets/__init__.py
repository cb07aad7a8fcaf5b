"""Interactive explorers for JupyterLab; needs the extra `notebooks`."""

from activekd_lite.widgets.answers import accuracy_by_seconds, against_truth
from activekd_lite.widgets.base import Explorer, Selection
from activekd_lite.widgets.inheritance import InheritanceExplorer
from activekd_lite.widgets.journal import Journal, PersonOracle
from activekd_lite.widgets.labeller import Labeller
from activekd_lite.widgets.prompts import PromptExplorer
from activekd_lite.widgets.simplex import SimplexExplorer
from activekd_lite.widgets.stepper import PCoreSetStepper
from activekd_lite.widgets.viewer import RunViewer

__all__ = [
    "Explorer",
    "InheritanceExplorer",
    "Journal",
    "Labeller",
    "PCoreSetStepper",
    "PersonOracle",
    "PromptExplorer",
    "RunViewer",
    "Selection",
    "SimplexExplorer",
    "accuracy_by_seconds",
    "against_truth",
]
