"""Executed notebooks as self-contained HTML pages, with an index."""

import copy
import importlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from activekd_lite.plots.base import PLOTLY, html_of
from activekd_lite.utils.files import write_atomic

PATHS = ("out", "cache", "data_root", "study")  # notebook parameters that name folders or files
QUESTION = "question"  # tag of a cell that shows a multiple-choice question
PLOTLY_JS = "plotly.min.js"
TOUR = "tour.html"  # written by `activekd-lite tour`; the index links it if it is there
TEMPLATES = Path(__file__).parent
# Code, which stays as it is, or a formula: displayed ($$) or within a line ($).
CODE_OR_FORMULA = re.compile(
    r"```.*?```|`[^`\n]*`|\$\$(?P<block>.+?)\$\$|\$(?!\s)(?P<inline>[^$]+?)(?<!\s)\$", re.S
)
LEARN = re.compile(r"\*\*You will learn\*\*\n+((?:- .*\n|  .*\n)+)")


def title(notebook: Mapping) -> str:
    """Return the first heading of a notebook, e.g. "05 · What does a full ActiveKD run do?"."""
    found = re.search(r"^# (.+)$", "\n".join(c["source"] for c in notebook["cells"]), re.M)
    return found[1] if found else "untitled"


def page(notebook: Mapping, path: str | os.PathLike) -> None:
    """Write an executed notebook as an HTML page with interactive plotly figures.

    plotly.js is written beside the page; the page loads nothing from the network.
    """
    exporter_class, path = import_extra("nbconvert").HTMLExporter, Path(path)
    shown = copy.deepcopy(notebook)
    for cell in shown["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = with_mathml(cell["source"])
    for output in (output for cell in shown["cells"] for output in cell.get("outputs", [])):
        if PLOTLY in output.get("data", {}):
            output["data"] = {"text/html": html_of(output["data"][PLOTLY])}
    shown["metadata"].pop("widgets", None)
    template = (TEMPLATES / "page.html.j2").read_text(encoding="utf-8")
    resources = {"metadata": {"name": title(notebook)}}
    exporter = exporter_class(raw_template=template)
    # The code of a question names the right answer.
    hide = import_extra("nbconvert.preprocessors").TagRemovePreprocessor
    exporter.register_preprocessor(hide(remove_input_tags={QUESTION}), enabled=True)
    body, _ = exporter.from_notebook_node(shown, resources)
    write_atomic(path, body)
    _write_plotly_js(path.parent)


def with_mathml(markdown: str) -> str:
    """Replace LaTeX formulas by MathML, which browsers draw without a script or a network."""
    convert = import_extra("latex2mathml.converter").convert

    def drawn(found: re.Match) -> str:
        latex = found["block"] or found["inline"]
        display = "block" if found["block"] else "inline"
        return convert(latex, display=display) if latex else found[0]

    return CODE_OR_FORMULA.sub(drawn, markdown)


def _write_plotly_js(folder: Path) -> None:
    from plotly.offline import get_plotlyjs

    path, script = folder / PLOTLY_JS, get_plotlyjs().encode()
    if not path.is_file() or path.stat().st_size != len(script):
        write_atomic(path, script)


def index(out: str | os.PathLike) -> Path:
    """Write `index.html` for the executed notebooks in a folder.

    Each row has the question, the time, the memory and the state of the notebook.
    """
    target = Path(out) / "index.html"
    executed = {path: read_notebook(path) for path in sorted(Path(out).glob("*.ipynb"))}
    # Papermill marks the notebooks that it executes; others in the folder are ignored.
    rows = [_row(path, nb) for path, nb in executed.items() if "papermill" in nb.metadata]
    write_atomic(target, render("index.html.j2", rows=rows, tour=(target.parent / TOUR).is_file()))
    return target


def _row(path: Path, notebook: Mapping) -> dict:
    record = notebook["metadata"].get("activekd_lite", {})
    parameters = notebook["metadata"]["papermill"].get("parameters", {})
    learn = LEARN.search("\n\n".join(cell["source"] for cell in notebook["cells"]))
    page_path, finished = path.with_suffix(".html"), "fingerprint" in record
    return {
        "title": title(notebook),
        "file": path.name,
        "page": page_path.name if page_path.is_file() else None,
        "parameters": ", ".join(f"{k} {v}" for k, v in parameters.items() if k not in PATHS),
        "learn": import_extra("nbconvert.filters").markdown2html(learn[1]) if learn else "",
        "time": time_text(record["seconds"]) if finished else "",
        "memory": memory_text(record["peak_memory_bytes"]) if finished else "",
        "run": record,
    }


def render(template: str, folder: Path = TEMPLATES, **values: object) -> str:
    """Fill in a jinja2 template of a folder, by default this one; values are escaped as HTML."""
    import jinja2

    loader = jinja2.FileSystemLoader(folder)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template(template).render(values)


def time_text(seconds: float) -> str:
    """Return a duration to the nearest 5 seconds, or in minutes if it is longer than 97.5 s."""
    if seconds < 97.5:
        return f"{max(5, 5 * round(seconds / 5))} seconds"
    return f"{seconds / 60:.1f} minutes"


def memory_text(size: float) -> str:
    """Return a number of bytes in GB."""
    return f"{size / 1e9:.1f} GB"


def import_extra(name: str) -> ModuleType:
    """Import a module of an optional dependency, or raise ImportError with the pip command."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = "kaleido" if name == "kaleido" else "-e '.[notebooks]'"
        raise ImportError(
            f"this needs {error.name}, which is not installed: pip install {package}"
        ) from error


def read_notebook(path: Path):
    """Read a notebook file as nbformat 4."""
    return import_extra("nbformat").read(path, as_version=4)
