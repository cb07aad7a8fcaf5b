"""`activekd-lite notebooks`."""

import ast
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from activekd_lite.course import handouts, notebooks
from activekd_lite.course import slides as decks
from activekd_lite.utils.files import parse_json

BASIC = "07"  # by default, the notebooks numbered below this one


def command(
    *names: str,
    out: str = "runs/demo",
    parameters: Annotated[
        Sequence[tuple[str, str]], Parameter(name="-p", metavar="NAME VALUE", json_list=False)
    ] = (),
    folder: Annotated[str | None, Parameter(name="--from")] = None,
    refresh: bool = False,
    student: str | None = None,
    solutions: str | None = None,
    slides: str | None = None,
) -> int:
    """Run notebooks, write their outputs into them, copy them, or make slides of them.

    Parameters
    ----------
    names
        Such as 05 or 05_active_learning_run. Default: 00 to 06; for all other uses, all.
    out
        Folder of the executed notebooks and their index.html.
    parameters
        Set a parameter in the notebooks that have it; training runs are then kept under --out.
    folder
        Folder of the notebooks. Default: notebooks/ of the clone.
    refresh
        Instead, write outputs, time and memory into the notebooks.
    student
        Instead, copy them into this folder without outputs and solutions, for students.
    solutions
        Instead, copy them into this folder without outputs and with the solutions filled in.
    slides
        Instead, write slides of their stored outputs into this folder, one page per notebook.
    """
    if sum(map(bool, (parameters, refresh, student or solutions, slides))) > 1:
        raise ValueError(
            "-p, --refresh, --slides and --student or --solutions do different things; "
            "give one of them"
        )
    if slides:
        return _slides(names, slides, folder)
    if student or solutions:
        return _copy(names, student, solutions, folder)
    if refresh:
        return _print_outcomes(notebooks.refresh(names, folder))
    names = names or [p.stem for p in notebooks.find(folder=folder) if p.stem < BASIC]
    values = {name: parse_value(text) for name, text in parameters}
    code = _print_outcomes(notebooks.run(names, out, values, folder=folder))
    print(f"\nopen {Path(out, 'index.html')} in a browser")
    return code


def _copy(
    names: Sequence[str], student: str | None, solutions: str | None, folder: str | None
) -> int:
    copies = handouts.hand_out(names, student=student, solutions=solutions, folder=folder)
    for target, paths in itertools.groupby(copies, key=lambda path: path.parent):
        print(f"{len([*paths])} notebooks are in {target}; its README.md says how to open them")
    return 0


def _slides(names: Sequence[str], to: str, folder: str | None) -> int:
    paths = decks.write(names, to, folder=folder)
    print(f"slides of {len(paths)} notebooks are in {to}; open one in a browser:")
    for path in paths:
        print(f"  {path.name}")
    return 0


def _print_outcomes(outcomes: Sequence[notebooks.Outcome]) -> int:
    for o in outcomes:
        state = f"{notebooks.time_text(o.seconds)}, {notebooks.memory_text(o.peak_memory_bytes)}"
        if o.error:
            state = f"FAILED in {o.failed_cell}: {o.error}"
        elif o.skipped:
            state += ", kept from an earlier run"
        print(f"{o.name:32} {state}")
    return 1 if any(o.error for o in outcomes) else 0


def parse_value(text: str) -> object:
    """Read a number, boolean, null or None, list or dictionary; other text stays text."""
    for read in (parse_json, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):  # too deep for the parser
            continue
        if value is None or isinstance(value, bool | int | float | str | list | dict):
            return value
    return text
