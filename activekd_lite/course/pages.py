"""Executed notebooks as pages that need no network, and their index."""

import copy
import html
import importlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from activekd_lite.plots.base import PLOTLY, html_of
from activekd_lite.utils.files import write_atomic

PATHS = ("out", "cache", "data_root", "study")  # parameters of notebooks that name folders
PLOTLY_JS = "plotly.min.js"


def title(notebook: Mapping) -> str:
    """The heading of its first cell: "04 · What does a full ActiveKD run do?"."""
    return next(
        (t for cell in notebook["cells"] for t in re.findall(r"^# (.+)$", cell["source"], re.M)),
        "untitled",
    )


def page(notebook: Mapping, path: str | os.PathLike) -> None:
    """An executed notebook as a page: its plotly figures live, plotly.js in a file beside it, nothing from a network."""
    nbconvert, path = needs("nbconvert"), Path(path)
    shown = copy.deepcopy(notebook)
    for output in (output for cell in shown["cells"] for output in cell.get("outputs", [])):
        data = output.get("data", {})
        if PLOTLY in data:
            output["data"] = {"text/html": html_of(data[PLOTLY])}
        elif "image/png" in data and "text/html" not in data:
            alt = html.escape(
                output["metadata"].get("image/png", {}).get("alt") or data.get("text/plain", "")
            )
            output["data"] = {
                "text/html": f'<img alt="{alt}" src="data:image/png;base64,{data["image/png"].strip()}">'
            }
    shown["metadata"].pop("widgets", None)
    exporter = nbconvert.HTMLExporter(raw_template=PAGE)
    body, _ = exporter.from_notebook_node(shown, {"metadata": {"name": title(notebook)}})
    write_atomic(path, body)
    _put_plotly_js(path.parent)


def _put_plotly_js(folder: Path) -> None:
    from plotly.offline import get_plotlyjs

    script = get_plotlyjs().encode()
    if not (folder / PLOTLY_JS).is_file() or (folder / PLOTLY_JS).stat().st_size != len(script):
        write_atomic(folder / PLOTLY_JS, script)


def index(out: str | os.PathLike) -> Path:
    """`index.html` of the executed notebooks in a folder: what each answers, time, memory, did it run through?"""
    rows = []
    for path in sorted(Path(out).glob("*.ipynb")):
        executed = read_notebook(path)
        if "papermill" not in executed.metadata:
            continue  # not made here
        noted, state, seconds, memory = (
            executed.metadata.get("activekd_lite", {}),
            '<b class="no">not finished</b>',
            "",
            "",
        )
        if "fingerprint" in noted:
            seconds, memory = time_text(noted["seconds"]), memory_text(noted["peak_memory_bytes"])
            state = '<b class="yes">ran through</b>'
        if noted.get("error"):
            where, error = html.escape(noted["failed_cell"]), html.escape(noted["error"])
            state = f'<b class="no">failed</b> in {where}<br><code>{error}</code>'
        text = "\n\n".join(cell["source"] for cell in executed["cells"])
        learn = re.search(r"\*\*You will learn\*\*\n+((?:- .*\n|  .*\n)+)", text)
        learn = needs("nbconvert.filters").markdown2html(learn.group(1)) if learn else ""
        name = html.escape(title(executed))
        linked = (
            f'<a href="{path.stem}.html">{name}</a>'
            if path.with_suffix(".html").is_file()
            else name
        )
        if given := executed.metadata.papermill.get("parameters"):
            said = ", ".join(f"{k} {v}" for k, v in given.items() if k not in PATHS)
            linked += f"<br>{html.escape(said)}"
        rows.append(
            ROW.format(
                title=linked,
                learn=learn,
                seconds=seconds,
                memory=memory,
                state=state,
                file=path.name,
            )
        )
    target = Path(out) / "index.html"
    write_atomic(target, INDEX.format(rows="\n".join(rows)))
    return target


def time_text(seconds: float) -> str:
    return (
        f"{max(5, 5 * round(seconds / 5))} seconds"
        if seconds < 97.5
        else f"{seconds / 60:.1f} minutes"
    )


def memory_text(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def needs(name: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = "kaleido" if name == "kaleido" else "-e '.[notebooks]'"
        raise ImportError(
            f"this needs {error.name}, which is not installed: pip install {package}"
        ) from error


def read_notebook(path: Path):
    return needs("nbformat").read(path, as_version=4)


PAGE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}<script src="plotly.min.js"></script>{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_css %}<style>
main, nav { max-width: 1000px; margin: 0 auto; padding: 0 1rem }
nav { padding-top: 1rem; font: 16px/1.5 Helvetica, Arial, sans-serif }
nav a { color: #0055aa; text-decoration: underline }
body.jp-Notebook { overflow-x: hidden; overflow-y: auto }
.jp-RenderedHTMLCommon { font-size: 16px; overflow-x: auto }
.jp-RenderedMarkdown { overflow-wrap: anywhere }
.jp-RenderedMarkdown table { display: block; max-width: 100%; overflow-x: auto; overflow-wrap: normal }
.jp-RenderedMarkdown pre { overflow-x: auto }
.jp-RenderedHTMLCommon img { max-width: 100%; height: auto }
.jp-OutputArea-output { overflow-x: auto }
body .jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"] { background: #f5f5f5 }
.jp-OutputArea-output pre, .jp-InputArea-editor pre { white-space: pre-wrap; overflow-wrap: anywhere }
.jp-InputPrompt, .jp-OutputPrompt { flex: 0 0 3.5rem; font-size: 12px }
.jp-MarkdownCell .jp-InputPrompt, .jp-OutputPrompt:empty { flex-basis: 0; min-width: 0; padding: 0 }
@media (max-width: 900px) { .jp-InputPrompt, .jp-OutputPrompt { flex-basis: 2.5rem } }
</style>{% endblock %}
{% block body_header %}{{ super() }}<nav><a href="index.html">all notebooks</a></nav>{% endblock %}
"""

INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>activekd_lite: notebooks</title><style>
body {{ font: 16px/1.5 Helvetica, Arial, sans-serif; color: #222; margin: 2rem auto; max-width: 1000px; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: 0.6rem 0.8rem; border-bottom: 1px solid #ddd }}
th:first-child {{ width: 50% }}
td + td {{ white-space: nowrap }}
td:last-child {{ white-space: normal; overflow-wrap: anywhere; min-width: 8rem }}
td:first-child > a {{ font-weight: bold; font-size: 1.1em }}
ul {{ margin: 0.3rem 0 0; padding-left: 1.2rem; color: #444 }}
.yes {{ color: #00684c }} .no {{ color: #a8420a }} code {{ font-size: 0.9em }}
</style></head><body>
<h1>activekd_lite: notebooks, executed</h1>
<table><thead><tr><th>question</th><th>time</th><th>memory</th><th>state</th></tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""

ROW = """<tr><td>{title}{learn}</td><td>{seconds}</td><td>{memory}</td><td>{state}<br><a href="{file}">notebook</a></td></tr>"""
