"""Teachers that learn from the labels, and controlled ones; a teacher's name and its parts.

To add a few-shot teacher: write `teachers/<name>.py` with an `Adapter`, and add it to ADAPTERS.
"""

from typing import NamedTuple

from activekd_lite.teachers.clap import ClapConfig, ClapTeacher
from activekd_lite.teachers.controlled import CONTROLS, ControlledTeacher, check_control
from activekd_lite.teachers.few_shot import Adapter, FewShotTeacher
from activekd_lite.teachers.lp_plus_plus import LpPlusPlus
from activekd_lite.teachers.rla import Rla
from activekd_lite.teachers.tip_adapter import TipAdapter

__all__ = [
    "ADAPTERS",
    "CONTROLS",
    "TEACHERS",
    "Adapter",
    "ClapConfig",
    "ClapTeacher",
    "ControlledTeacher",
    "FewShotTeacher",
    "LpPlusPlus",
    "Rla",
    "TeacherName",
    "TipAdapter",
    "parse_name",
]

ADAPTERS = {adapter.kind: adapter for adapter in (TipAdapter, LpPlusPlus, Rla)}
TEACHERS = ("zero-shot", "clap", *ADAPTERS)


class TeacherName(NamedTuple):
    """The parts of a name such as "clap", "zero-shot+shuffled" or "rla+noise=0.3"."""

    kind: str
    control: str | None = None
    amount: float | None = None


def parse_name(name: str) -> TeacherName:
    """Return the parts of a teacher's name.

    Raises ValueError for an unknown kind or control, and an amount that is not allowed.
    """
    kind, plus, change = str(name).partition("+")
    control, equals, amount = change.partition("=")
    if kind not in TEACHERS or (plus and control not in CONTROLS):
        raise ValueError(
            f"teacher = {name!r}; choose one of {', '.join(TEACHERS)}, alone or with a control: "
            f"{', '.join(f'{TEACHERS[0]}+{control}' for control in CONTROLS)}"
        )
    if not plus:
        return TeacherName(kind)
    try:
        value = float(amount) if equals else None
    except ValueError:
        raise ValueError(
            f"teacher = {name!r}: {amount!r} is not a number; write it as {kind}+noise=0.3"
        ) from None
    return TeacherName(kind, control, check_control(control, value))
