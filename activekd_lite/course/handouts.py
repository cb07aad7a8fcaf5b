"""Copies of the notebooks for a course: a student copy, and one with the solutions filled in.

Both keep the folded hints of the exercises, and the questions with their explanations.
A copy runs in any folder, with the package installed; its files go to `runs`, `.cache` and `data`
beside it.
"""

import copy
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from activekd_lite.course.notebooks import find, keep_only_tags, update_table
from activekd_lite.course.pages import PATHS, import_extra, read_notebook, render
from activekd_lite.utils.files import make_folder, write_atomic

SOLUTION = re.compile(
    r"<details>\s*<summary>Solution</summary>\s*"
    r"```python\n(?P<code>.*?)```\s*(?P<text>.*?)</details>\s*",
    re.S,
)
LINK = re.compile(r"\[([^\[\]\n]+)\]\(((?!https?:)[^)#\s]+\.(?:ipynb|md))(?:#[^)\s]*)?\)")
PARENT_FOLDER = re.compile(rf'^((?:{"|".join(PATHS)}) = ")\.\./', re.M)
HEADING = "# activekd_lite: the notebooks"  # identifies a README written by this module


def hand_out(
    names: Sequence[str] = (),
    *,
    student: str | os.PathLike | None = None,
    solutions: str | os.PathLike | None = None,
    folder: str | os.PathLike | None = None,
) -> list[Path]:
    """Copy notebooks without outputs into the folders `student` and `solutions`; return the copies.

    names: empty for all. folder: the source, by default that of the clone.
    Raises ValueError if source and targets are not different folders, or if the solutions of a
    notebook cannot be found, and FileExistsError if a target has a notebook with other content;
    in all these cases nothing is written.
    """
    paths = find(names, folder)
    makers = {for_students: student, with_solutions: solutions}
    targets = {make: Path(to) for make, to in makers.items() if to is not None}
    _check_targets(list(targets.values()), paths[0].parent)
    copies = {}
    for make, to in targets.items():
        present = {path.name for path in [*paths, *to.glob("*.ipynb")]} | {"README.md"}
        texts = {path.name: _text(make(read_notebook(path), path.name)) for path in paths}
        copies |= {to / name: _without_links(text, present) for name, text in texts.items()}
    _check_unchanged(copies)
    for path, text in copies.items():
        write_atomic(make_folder(path.parent) / path.name, text)
    for make, to in targets.items():
        _write_readme(to, render("handout.md.j2", solutions=make is with_solutions))
    return list(copies)


def for_students(notebook, name: str = "notebook"):
    """Return the notebook without solutions; exercises and their checks stay."""
    bare = _bare(notebook, name)
    for cell in bare.cells:
        if SOLUTION.search(cell.source):
            cell.source = SOLUTION.sub("", cell.source).strip()
    bare.cells = [cell for cell in bare.cells if cell.source]
    return bare


def with_solutions(notebook, name: str = "notebook"):
    """Return the notebook with each solution's code in its exercise and its explanation below."""
    solved = _bare(notebook, name)
    exercises = [cell for cell in solved.cells if "exercise" in cell.metadata.get("tags", [])]
    found = [match for cell in solved.cells for match in SOLUTION.finditer(cell.source)]
    for cell, match in zip(exercises, found, strict=True):
        cell.source = match["code"].strip()
    for cell in solved.cells:
        if cell.cell_type == "markdown":
            cell.source = SOLUTION.sub(_open, cell.source).strip()
    return solved


def _open(solution: re.Match) -> str:
    return f"**Solution.** {solution['text'].strip()}\n\n"


def _bare(notebook, name: str):
    """Copy a notebook without outputs and metadata of a run; its folders then lie beside it."""
    bare = copy.deepcopy(notebook)
    _check_solutions(bare, name)
    preprocessors = import_extra("nbconvert.preprocessors")
    kept = {"kernelspec", "language_info"}
    preprocessors.ClearOutputPreprocessor().preprocess(bare, {})
    preprocessors.ClearMetadataPreprocessor(
        clear_cell_metadata=False, preserve_nb_metadata_mask=kept
    ).preprocess(bare, {})
    keep_only_tags(bare)
    for cell in bare.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = PARENT_FOLDER.sub(r"\1", cell.source)
    return bare


def _check_solutions(notebook, name: str) -> None:
    exercises = sum("exercise" in cell.metadata.get("tags", []) for cell in notebook.cells)
    solutions = sum(cell.source.count("<summary>Solution") for cell in notebook.cells)
    folded = sum(len(SOLUTION.findall(cell.source)) for cell in notebook.cells)
    if not exercises == solutions == folded:
        raise ValueError(
            f"{name} has {exercises} cells tagged 'exercise' and {solutions} solutions, {folded} "
            "of them folded as <details><summary>Solution</summary> with one python block; correct "
            "it, otherwise the student copy would contain a solution"
        )


def _check_targets(targets: Sequence[Path], source: Path) -> None:
    for to in targets:
        if to.resolve() == source:
            raise ValueError(f"the notebooks come from {to}; choose another folder for the copies")
    if len({to.resolve() for to in targets}) < len(targets):
        raise ValueError(
            "student and solution copies have the same names; "
            f"choose another folder than {targets[0]} for one of them"
        )


def _text(notebook: Mapping) -> str:
    nbformat = import_extra("nbformat")
    return nbformat.writes(nbformat.from_dict(notebook)) + "\n"


def _without_links(text: str, present: set[str]) -> str:
    """Replace links to files that are not in the same folder by their text."""
    return LINK.sub(lambda link: link[0] if link[2] in present else link[1], text)


def _check_unchanged(copies: Mapping[Path, str]) -> None:
    # Links may differ: an earlier copy has none to notebooks that were added later.
    changed = [
        path
        for path, text in copies.items()
        if path.exists()
        and _without_links(path.read_text(encoding="utf-8"), set()) != _without_links(text, set())
    ]
    if changed:
        raise FileExistsError(
            f"{changed[0].parent} has {', '.join(path.name for path in changed)} with different "
            "content: someone may have worked there, or the course has changed since; choose "
            "another folder, or move these files away"
        )


def _write_readme(to: Path, text: str) -> None:
    """Explain how to open the notebooks and list those of the folder; keep anyone else's README."""
    readme = to / "README.md"
    if not readme.exists():
        write_atomic(readme, text)
    if readme.read_text(encoding="utf-8").startswith(HEADING):
        update_table(readme, [], to)
