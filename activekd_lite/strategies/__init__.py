"""Which images a person labels next: one file per strategy, the contract beside them.

To add a strategy: write `strategies/<name>.py` with a function of that name, and add it here.
"""

from activekd_lite.strategies.badge import badge
from activekd_lite.strategies.badge_reference import badge_reference
from activekd_lite.strategies.calibrated_entropy import calibrated_entropy
from activekd_lite.strategies.ccma import ccma
from activekd_lite.strategies.classbalanced import classbalanced
from activekd_lite.strategies.classbalanced_reference import (
    classbalanced_reference,
    reference_shares,
)
from activekd_lite.strategies.contract import Strategy, needs, needs_labels, needs_teacher
from activekd_lite.strategies.coreset import coreset
from activekd_lite.strategies.least_confidence import least_confidence
from activekd_lite.strategies.margin import margin
from activekd_lite.strategies.pcb import pcb
from activekd_lite.strategies.pcoreset import pcoreset
from activekd_lite.strategies.pcoreset_reversed import pcoreset_reversed
from activekd_lite.strategies.pcoreset_teacher import pcoreset_teacher
from activekd_lite.strategies.probcover import probcover
from activekd_lite.strategies.random import random
from activekd_lite.strategies.typiclust import typiclust
from activekd_lite.strategies.uherding import uherding
from activekd_lite.strategies.uncertainty import entropy, uncertainty

STRATEGIES: dict[str, Strategy] = {
    "random": random,
    "uncertainty": uncertainty,
    "margin": margin,
    "least_confidence": least_confidence,
    "coreset": coreset,
    "badge": badge,
    "classbalanced": classbalanced,
    "typiclust": typiclust,
    "probcover": probcover,
    "uherding": uherding,
    "pcb": pcb,
    "calibrated_entropy": calibrated_entropy,
    "ccma": ccma,
    "pcoreset": pcoreset,
    "pcoreset_reversed": pcoreset_reversed,
    "pcoreset_teacher": pcoreset_teacher,
    "badge_reference": badge_reference,
    "classbalanced_reference": classbalanced_reference,
}
# Those that arXiv:2506.00910 compares.
PAPER_STRATEGIES = ("random", "uncertainty", "coreset", "badge", "classbalanced", "pcoreset")

__all__ = [
    "PAPER_STRATEGIES",
    "STRATEGIES",
    "Strategy",
    "entropy",
    "get_strategy",
    "needs",
    "needs_labels",
    "needs_teacher",
    "reference_shares",
    *STRATEGIES,
]


def get_strategy(strategy: str | Strategy) -> Strategy:
    """Return a strategy by name, one of scikit-activeml ("skactiveml:TypiClust"), or the callable.

    Raises ValueError for an unknown name, ImportError if scikit-activeml is not installed.
    """
    if callable(strategy):
        return strategy
    if not isinstance(strategy, str):
        raise ValueError(f"{strategy!r} is not a strategy: give a name or a function")
    if strategy.startswith("skactiveml:"):
        from activekd_lite.strategies.scikit_activeml import adapt  # an optional extra

        return adapt(strategy.removeprefix("skactiveml:"))
    if strategy not in STRATEGIES:
        raise ValueError(
            f"unknown strategy {strategy!r}; known are {', '.join(STRATEGIES)}, those of "
            "scikit-activeml as 'skactiveml:TypiClust', and any callable of the contract"
        )
    return STRATEGIES[strategy]
