"""Copies of the notebooks for a course: a student's, without solutions, and one with the solutions filled in.

A copy runs where it lies, with the package installed: what it keeps goes to `runs`, `.cache` and `data` beside it.
"""

import copy
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from activekd_lite.course.notebooks import MARKERS, find, update_table
from activekd_lite.course.pages import PATHS, needs, read_notebook
from activekd_lite.utils.files import make_folder, write_atomic

SOLUTION = re.compile(
    r"<details>\s*<summary>Solution</summary>\s*```python\n(?P<code>.*?)```\s*(?P<text>.*?)</details>\s*",
    re.S,
)
LINK = re.compile(r"\[([^\[\]\n]+)\]\(((?!https?:)[^)#\s]+\.(?:ipynb|md))(?:#[^)\s]*)?\)")
UP = re.compile(rf'^((?:{"|".join(PATHS)}) = ")\.\./', re.M)  # in the cell of the parameters
HEADING = "# activekd_lite: the notebooks"  # a README that begins so was written here


def hand_out(
    names: Sequence[str] = (),
    *,
    student: str | os.PathLike | None = None,
    solutions: str | os.PathLike | None = None,
    folder: str | os.PathLike | None = None,
) -> list[Path]:
    """Copy the notebooks `names`, or all of them, into the folders `student` and `solutions`; both lose all outputs.

    folder: where they come from (that of the clone). Returns the copies.
    Raises, before anything is written, ValueError for the folder that the notebooks come from, the same folder twice, or a
    notebook whose solutions cannot be found, FileExistsError for notebooks that are there and differ.
    """
    paths = find(names, folder)
    targets = {
        make: Path(to)
        for make, to in ((for_students, student), (with_solutions, solutions))
        if to is not None
    }
    for to in targets.values():
        if to.resolve() == paths[0].parent:
            raise ValueError(
                f"the notebooks come from {to}; copies of them need a folder of their own"
            )
    if len({to.resolve() for to in targets.values()}) < len(targets):
        raise ValueError(
            f"copies for students and with solutions have the same names; give {student} to one of them only"
        )
    planned = {}
    for make, to in targets.items():
        there = {path.name for path in [*paths, *to.glob("*.ipynb")]} | {"README.md"}
        planned |= {
            to / path.name: _linked(_text(make(read_notebook(path), path.name)), there)
            for path in paths
        }
    _refuse_changed(
        [path for path, text in planned.items() if path.exists() and not _same(path, text)]
    )
    for path, text in planned.items():
        write_atomic(make_folder(path.parent) / path.name, text)
    for make, to in targets.items():
        _write_readme(
            to, README.format(heading=HEADING, kind=KIND[make], start=MARKERS[0], end=MARKERS[1])
        )
    return list(planned)


def for_students(notebook, name: str = "notebook"):
    """The notebook without solutions: exercises and their checkers stay."""
    bare = _bare(notebook, name)
    for cell in bare.cells:
        if SOLUTION.search(cell.source):
            cell.source = SOLUTION.sub("", cell.source).strip()
    bare.cells = [cell for cell in bare.cells if cell.source]
    return bare


def with_solutions(notebook, name: str = "notebook"):
    """The notebook with each solution's code in the cell of its exercise, and what it says of it below, open."""
    solved = _bare(notebook, name)
    exercises = [cell for cell in solved.cells if "exercise" in cell.metadata.get("tags", [])]
    codes = [found["code"] for cell in solved.cells for found in SOLUTION.finditer(cell.source)]
    for cell, code in zip(exercises, codes, strict=True):
        cell.source = code.strip()
    for cell in solved.cells:
        if cell.cell_type == "markdown":
            cell.source = SOLUTION.sub(
                lambda found: f"**Solution.** {found['text'].strip()}\n\n", cell.source
            ).strip()
    return solved


def _bare(notebook, name: str):
    """A copy without outputs and traces of a run, whose parameters name folders beside it."""
    bare = copy.deepcopy(notebook)
    counts = [
        sum("exercise" in cell.metadata.get("tags", []) for cell in bare.cells),
        sum(cell.source.count("<summary>Solution") for cell in bare.cells),
        sum(len(SOLUTION.findall(cell.source)) for cell in bare.cells),
    ]
    if len(set(counts)) > 1:
        raise ValueError(
            f"{name} has {counts[0]} cells tagged 'exercise' and {counts[1]} solutions, {counts[2]} of them folded as "
            "<details><summary>Solution</summary> with one python block; mend it, or a student would be given a solution"
        )
    bare.metadata = {
        key: bare.metadata[key] for key in ("kernelspec", "language_info") if key in bare.metadata
    }
    for cell in bare.cells:
        cell.metadata = {"tags": tags} if (tags := cell.metadata.get("tags")) else {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = UP.sub(r"\1", cell.source)
    return bare


def _text(notebook: Mapping) -> str:
    nbformat = needs("nbformat")
    return nbformat.writes(nbformat.from_dict(notebook)) + "\n"


def _linked(text: str, there: set[str]) -> str:
    """Links to files that do not lie in the same folder become plain words."""
    return LINK.sub(lambda link: link[0] if link[2] in there else link[1], text)


def _same(path: Path, text: str) -> bool:
    """But for links: those of an earlier copy may lead to notebooks that came later."""
    return _linked(path.read_text(encoding="utf-8"), set()) == _linked(text, set())


def _refuse_changed(changed: Sequence[Path]) -> None:
    if changed:
        which = ", ".join(path.name for path in changed)
        raise FileExistsError(
            f"{changed[0].parent} holds {which} with another content: somebody may have worked there, or the course has "
            "changed since; choose another folder, or move them away"
        )


def _write_readme(to: Path, text: str) -> None:
    """How to open the notebooks, and the table of all that lie there now; somebody else's README stays."""
    readme = to / "README.md"
    if not readme.exists():
        write_atomic(readme, text)
    if readme.read_text(encoding="utf-8").startswith(HEADING):
        update_table(readme, [], to)


KIND = {
    for_students: """Two exercises in
each check themselves: put your code in the place of `None`, run that cell and the one below.""",
    with_solutions: """This is the
copy with the solutions: their code is in the cells of the exercises, what they show is said below.""",
}
README = """{heading}

Each asks one question, shows what answers it, and asks you for a prediction before the figure that matters. {kind}

{start}
{end}

Time and memory are those of two CPU cores without a GPU.

## Run them

With `activekd-lite` and its notebook tools installed (its own README says how), in this folder:

    jupyter lab

No network is needed. The second cell of a notebook lists its parameters. What it keeps goes into this folder: trainings to
`runs`, features of the teacher to `.cache`; a data set of the paper's lies in `data`. A second run reads what is kept.

All of them without JupyterLab, as pages that open in a browser, with an index:

    activekd-lite notebooks --from . --out pages
"""
