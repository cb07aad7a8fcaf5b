"""Execute notebooks with papermill, and write them back with clean outputs and measured costs.

papermill, nbconvert and related packages belong to the extra `notebooks`; they are imported on use.
"""

import ast
import base64
import difflib
import itertools
import os
import re
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from activekd_lite.course.here import you_are_here as you_are_here
from activekd_lite.course.pages import (
    PATHS,
    QUESTION,
    import_extra,
    index,
    memory_text,
    page,
    read_notebook,
    time_text,
    title,
)
from activekd_lite.course.questions import question as question
from activekd_lite.plots.base import PLOTLY, PNG_WIDTH, fewer_colours
from activekd_lite.utils.files import PACKAGE, digest, make_folder, sha256_of, write_atomic

FOLDER = PACKAGE.parent / "notebooks"  # part of a clone, not of a wheel
MEASURED = re.compile(
    r"(?:(?P<seconds>\d+) seconds|(?P<minutes>\d+\.\d) minutes)\D+(?P<gigabytes>\d+\.\d) GB"
)
COST = "{} and {} on two CPU cores, without a GPU."
COST_IN_CELL = re.compile(r"(?<=\*\*Time and memory\*\*: ).*?GPU\.")
KERNEL_VARIABLES = {
    "PLOTLY_RENDERER": "plotly_mimetype",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # otherwise the debugger of each kernel prints a warning
}
MARKERS = ("<!-- notebooks -->", "<!-- /notebooks -->")
TABLE_HEADER = """| notebook | the question it answers | time | memory |
|---|---|---|---|"""


@dataclass(frozen=True)
class Outcome:
    """The result of running a notebook.

    failed_cell and error are empty if it finished; skipped means that an earlier run was kept.
    """

    name: str
    title: str
    seconds: float
    peak_memory_bytes: int
    failed_cell: str = ""
    error: str = ""
    skipped: bool = False


def check_parameters() -> None:
    """Reject parameters that the running notebook does not have; papermill only warns about them.

    Does nothing outside papermill (JupyterLab, tests, scripts).
    Raises ValueError with the known names.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    cells = shell.user_ns.get("_ih", []) if shell else []
    # Papermill adds the parameters in a cell of their own after the notebook's parameter cell.
    injected = [place for place, cell in enumerate(cells) if cell.startswith("# Parameters\n")]
    if injected:
        known = [name for cell in cells[: injected[0]] for name in assigned(cell)]
        given = [name for place in injected for name in assigned(cells[place])]
        # Unknown if a reader has run the added cell first, by hand.
        _check_known(given, known or given)


def parameters_of(notebook: Mapping) -> dict:
    """Return names and defaults in the cell tagged `parameters`; empty if there is no such cell."""
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            values = assigned("".join(cell["source"]))
            return {name: ast.literal_eval(value) for name, value in values.items()}
    return {}


def assigned(code: str) -> dict[str, ast.expr]:
    """Return the values of all `name = value` statements at the top level of `code`."""
    nodes = [node for node in _parsed(code) if isinstance(node, ast.Assign)]
    pairs = ((target, node.value) for node in nodes for target in node.targets)
    return {target.id: value for target, value in pairs if isinstance(target, ast.Name)}


def answer_name(code: str) -> str:
    """Return what an exercise cell asks for: its first variable or, without one, its function."""
    functions = [node.name for node in _parsed(code) if isinstance(node, ast.FunctionDef)]
    return next(iter([*assigned(code), *functions]), "answer")


def _parsed(code: str) -> list[ast.stmt]:
    try:
        return ast.parse(code).body
    except SyntaxError:
        return []


def _check_known(given: Iterable[str], known: Iterable[str]) -> None:
    known = list(dict.fromkeys(known))
    if unknown := sorted(set(given) - set(known)):
        close = [match for name in unknown for match in difflib.get_close_matches(name, known, 1)]
        hint = f"; did you mean {', '.join(close)}?" if close else ";"
        plural = "s" if len(unknown) > 1 else ""
        raise ValueError(
            f"unknown parameter{plural} {', '.join(unknown)}{hint} known are {', '.join(known)}"
        )


def find(names: Sequence[str] = (), folder: str | os.PathLike | None = None) -> list[Path]:
    """Return the paths of notebooks ("05" or "05_active_learning_run") in a folder, sorted.

    names: empty for all. folder: by default `notebooks` in the clone.
    Raises FileNotFoundError if the folder has no notebooks.
    Raises ValueError if a name matches no notebook or several.
    """
    folder = Path(folder or FOLDER).resolve()
    available = sorted(folder.glob("*.ipynb"))
    if not available:
        raise FileNotFoundError(
            f"no notebooks in {folder}; they come with a clone of the repository, "
            "whose folder you can give with --from"
        )
    return sorted({_find_one(name, available) for name in names}) or available


def _find_one(name: str, available: Sequence[Path]) -> Path:
    stem = name.removesuffix(".ipynb")
    matches = [path for path in available if path.stem == stem or path.stem.split("_")[0] == name]
    if len(matches) == 1:
        return matches[0]
    problem = "several notebooks are called" if matches else "unknown notebook"
    stems = ", ".join(path.stem for path in available)
    raise ValueError(f"{problem} {name!r}; known are {stems}")


def run(
    names: Sequence[str],
    out: str | os.PathLike,
    parameters: Mapping = {},
    *,
    folder: str | os.PathLike | None = None,
    progress: bool = True,
) -> list[Outcome]:
    """Execute notebooks into `out`, each as .ipynb and as a page, with an index.html.

    If one fails, the others still run. A notebook is skipped if `out` already has it from the same
    source, parameters and version of the package.

    parameters: each is passed to the notebooks that have it; relative paths start at the current
    folder. If any are given, notebook NN keeps its files in `notebook-NN` under `out` (or under the
    parameter `out`), otherwise in its default folder.

    Raises ValueError, before anything runs, for a parameter that none of the notebooks has.
    """
    paths, out = find(names, folder), make_folder(out).resolve()
    sources = {path: read_notebook(path) for path in paths}
    known = {path: parameters_of(notebook) for path, notebook in sources.items()}
    _check_known(parameters, itertools.chain(*known.values()))
    parameters, outcomes = absolute(parameters), []
    try:
        for path, source in sources.items():
            own = {name: value for name, value in parameters.items() if name in known[path]}
            if parameters and "out" in known[path]:
                own["out"] = str(Path(parameters.get("out") or out) / _run_folder(path))
            outcomes.append(run_one(path, source, out / path.name, own, progress))
    finally:
        index(out)
    return outcomes


def run_one(
    path: Path, source: Mapping, target: Path, parameters: Mapping, progress: bool
) -> Outcome:
    """Execute the notebook `path` (content: `source`) into `target` and write its page.

    Skips the run if both already exist and match `source` and `parameters`.
    """
    fingerprint = _fingerprint(source, parameters)
    if earlier := _earlier(target, fingerprint):
        return earlier
    outcome = _execute(path, target, parameters, progress)
    executed = _coalesced(read_notebook(target))
    record = {"fingerprint": "" if outcome.error else fingerprint}
    executed.metadata["activekd_lite"] = asdict(outcome) | record
    _write(executed, target)
    page(executed, target.with_suffix(".html"))
    return outcome


def _run_folder(path: Path) -> str:
    return f"notebook-{path.stem.split('_')[0]}"


def absolute(parameters: Mapping) -> dict:
    """Make the paths in `parameters` absolute, since notebooks run in a folder of their own."""
    return {name: _absolute(name, value) for name, value in parameters.items()}


def _absolute(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    if name in PATHS or (name == "pretrained" and Path(value).is_file()):
        return os.path.abspath(value)
    kind, colon, path = value.partition(":")
    if colon and kind in ("folder", "csv", "local-dir"):
        return f"{kind}:{os.path.abspath(path)}"
    return value


def _fingerprint(notebook: Mapping, parameters: Mapping) -> str:
    """Hash the text of the notebook, its parameters and the source of the package."""
    files = (path for path in sorted(PACKAGE.rglob("*")) if path.suffix in (".py", ".j2"))
    package = [sha256_of(path) for path in files]
    return digest([[cell["source"] for cell in notebook["cells"]], dict(parameters), package])


def executed_sha256(notebook: Mapping) -> str:
    """Hash the code cells; `refresh` records it, so that a test detects outdated outputs."""
    return digest([cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"])


def _earlier(target: Path, fingerprint: str) -> Outcome | None:
    """Return the outcome recorded in `target` if it has this fingerprint and a page."""
    if not (target.is_file() and target.with_suffix(".html").is_file()):
        return None
    record = dict(read_notebook(target).metadata.get("activekd_lite", {}))
    same = record.pop("fingerprint", None) == fingerprint
    return Outcome(**record | {"skipped": True}) if same else None


def _execute(
    path: Path, target: Path, parameters: Mapping, progress: bool, **variables: str
) -> Outcome:
    """Run a notebook with papermill in its own folder; `target` keeps what ran before an error.

    variables: environment variables for the kernel.
    """
    papermill, client = import_extra("papermill"), import_extra("jupyter_client")
    environment = os.environ | KERNEL_VARIABLES | variables
    pids, peaks = [], [0]

    class Manager(client.AsyncKernelManager):
        """A kernel manager that sets environment variables and records the kernel's process."""

        async def start_kernel(self, **kwargs):
            await super().start_kernel(env=environment, **kwargs)
            pids.append(self.provisioner.pid)

    bar = {"desc": path.stem} if progress else False
    options = {"progress_bar": bar, "extra_arguments": ["--IPKernelApp.log_level=50"]}
    options["on_cell_complete"] = lambda **_: peaks.append(peak_memory_bytes(pids[-1]))
    options["kernel_manager_class"] = Manager
    error, start = "", time.monotonic()
    try:
        papermill.execute_notebook(path, target, dict(parameters), cwd=path.parent, **options)
    except papermill.PapermillExecutionError as failure:
        error = _describe_error(failure)
    except RuntimeError as failure:  # the kernel died (out of memory, for example) or did not start
        error = str(failure).strip().splitlines()[0]
    seconds, executed = round(time.monotonic() - start, 1), read_notebook(target)
    failed_cell = _last_cell(executed) if error else ""
    return Outcome(path.stem, title(executed), seconds, max(peaks), failed_cell, error)


def _describe_error(failure: Exception) -> str:
    """Return the type and the last line of an error in a cell, without terminal colours."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", failure.evalue).strip().splitlines()
    return textwrap.shorten(": ".join([failure.ename, *lines[-1:]]), 200)


def _last_cell(notebook: Mapping) -> str:
    """Return the number of the last code cell that started, and the heading above it."""
    heading, number, last = "", 0, "before its first cell"
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            number += 1
            if cell["metadata"].get("papermill", {}).get("start_time"):
                last = f"cell [{number}]" + (f" under “{heading}”" if heading else "")
        else:
            heading = (re.findall(r"^#+ (.+)$", cell["source"], re.M) or [heading])[-1]
    return last


def peak_memory_bytes(pid: int) -> int:
    """Return the peak memory of a process (on macOS its current memory); 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status")
        if status.is_file():
            return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) * 1024
        memory = psutil.Process(pid).memory_info()
    except (OSError, TypeError, psutil.Error):  # TypeError: a zombie has no VmHWM
        return 0
    return getattr(memory, "peak_wset", memory.rss)


def refresh(
    names: Sequence[str] = (), folder: str | os.PathLike | None = None, *, progress: bool = True
) -> list[Outcome]:
    """Rerun notebooks on at most two cores without a GPU, and write outputs and costs into them.

    The chapter tables are updated too. A notebook that fails is left unchanged. To measure the time
    without cached results, the run folder `runs/notebook-NN` is deleted first; if it contains
    answers by people, it is moved aside and restored afterwards. Static pictures, which need
    kaleido and a Chromium, are not part of the time.
    """
    paths, kaleido = find(names, folder), import_extra("kaleido")
    for path in paths:
        if not COST_IN_CELL.search(read_notebook(path)["cells"][0]["source"]):
            line = f"**Time and memory**: {COST.format('40 seconds', '1.2 GB')}"
            raise ValueError(f"{path.name}: no line '{line}' in its first cell")
    # One browser for all static pictures: starting it is slower than drawing.
    kaleido.start_sync_server(silence_warnings=True)
    try:
        outcomes = [_refresh_one(path, progress) for path in paths]
    finally:
        kaleido.stop_sync_server(silence_warnings=True)
    finished, home = [o for o in outcomes if not o.error], paths[0].parent
    for readme in (home / "README.md", home.parent / "README.md"):
        if readme.is_file() and MARKERS[0] in readme.read_text(encoding="utf-8"):
            update_table(readme, finished, home)
    return outcomes


def _refresh_one(path: Path, progress: bool) -> Outcome:
    work = path.with_name(f".{path.stem}.running.ipynb")
    runs = path.parent.parent / "runs" / _run_folder(path)
    try:
        with _two_cores(), _without_earlier_runs(runs):
            outcome = _execute(path, work, {}, progress, CUDA_VISIBLE_DEVICES="")
        if not outcome.error:
            _write(_cleaned(_coalesced(read_notebook(work)), outcome), path)
    finally:
        work.unlink(missing_ok=True)
    return outcome


@contextmanager
def _without_earlier_runs(runs: Path) -> Iterator[None]:
    """Delete a run folder; one with answers by people, which cannot be recomputed, is restored."""
    kept = runs.with_name(f"{runs.name}.kept")
    # `kept` may be left over from a killed process; it must not be overwritten.
    if not kept.is_dir() and any(runs.rglob("answers.jsonl")):
        os.replace(runs, kept)
    shutil.rmtree(runs, ignore_errors=True)
    try:
        yield
    finally:
        if kept.is_dir():
            shutil.rmtree(runs, ignore_errors=True)
            os.replace(kept, runs)


@contextmanager
def _two_cores() -> Iterator[None]:
    """Restrict this process, and kernels started by it, to two cores if the system allows it."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        if before:
            os.sched_setaffinity(0, sorted(before)[:2])
        yield
    finally:
        if before:
            os.sched_setaffinity(0, before)


def _coalesced(notebook):
    """Merge the output streams, and keep only the last state of each progress bar."""
    preprocessors = import_extra("nbconvert.preprocessors")
    return preprocessors.CoalesceStreamsPreprocessor().preprocess(notebook, {})[0]


def keep_only_tags(notebook: Mapping) -> None:
    """Remove all cell metadata except for tags, in place; code of questions is folded."""
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags")
        cell["metadata"] = {"tags": tags} if tags else {}
        if tags and QUESTION in tags:  # its code names the right answer
            cell["metadata"]["jupyter"] = {"source_hidden": True}


def _cleaned(notebook, outcome: Outcome):
    """Remove traces of the run from an executed notebook; add static pictures and costs."""
    first = notebook["cells"][0]
    cost = COST.format(time_text(outcome.seconds), memory_text(outcome.peak_memory_bytes))
    first["source"] = COST_IN_CELL.sub(cost, first["source"], count=1)
    keep_only_tags(notebook)
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", [])):
        if PLOTLY in output.get("data", {}):
            _add_picture(output)
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "activekd_lite": {"executed_sha256": executed_sha256(notebook)},
    }
    return import_extra("nbformat").from_dict(notebook)


def _add_picture(output: dict) -> None:
    """Add a PNG to a plotly output, for viewers in which plotly does not run."""
    import plotly.io as pio

    # The running browser keeps its settings, about which kaleido warns.
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        picture = pio.to_image(output["data"][PLOTLY], "png", width=PNG_WIDTH, validate=False)
    output["data"]["image/png"] = fewer_colours(base64.b64encode(picture).decode())
    output["metadata"]["image/png"] = {"alt": output["data"].get("text/plain", "")}


def read_measured(text: str) -> tuple[float, float] | None:
    """Parse seconds and bytes as written by `time_text` and `memory_text`; None if absent."""
    found = MEASURED.search(text)
    if not found:
        return None
    seconds = float(found["seconds"] or 60 * float(found["minutes"]))
    return seconds, float(found["gigabytes"]) * 1e9


def update_table(readme: Path, outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write measured costs into the chapter table of `readme`.

    Other rows stay as they are. A notebook of `folder` without a row gets one from its first cell;
    rows of notebooks that no longer exist are removed.

    Raises ValueError if the file has no markers for the table.
    """
    text = readme.read_text(encoding="utf-8")
    before, start, rest = text.partition(MARKERS[0])
    table, end, after = rest.partition(MARKERS[1])
    if not end:
        raise ValueError(f"{readme} has no lines {MARKERS[0]} and {MARKERS[1]} around the table")
    old = {name: row for row, name in re.findall(r"^(\| \[([^\]]+)\].*)$", table, re.M)}
    available = find(folder=folder)
    rows = {path.stem: old[path.stem] for path in available if path.stem in old}
    stated = filter(None, (_stated(path) for path in available if path.stem not in old))
    for outcome in [*stated, *outcomes]:
        rows[outcome.name] = _table_row(outcome, folder, readme.parent)
    table = "\n".join([TABLE_HEADER, *sorted(rows.values())])
    if (new := f"{before}{start}\n\n{table}\n\n{end}{after}") != text:
        write_atomic(readme, new)


def _table_row(outcome: Outcome, folder: Path, start: Path) -> str:
    link = Path(os.path.relpath(folder / f"{outcome.name}.ipynb", start)).as_posix()
    question = outcome.title.split(" · ")[-1]
    cost = f"{time_text(outcome.seconds)} | {memory_text(outcome.peak_memory_bytes)}"
    return f"| [{outcome.name}]({link}) | {question} | {cost} |"


def _stated(path: Path) -> Outcome | None:
    """Return the costs stated in the first cell of a notebook; None if it states none."""
    notebook = read_notebook(path)
    measured = read_measured(notebook["cells"][0]["source"])
    return Outcome(path.stem, title(notebook), measured[0], int(measured[1])) if measured else None


def _write(notebook, path: Path) -> None:
    write_atomic(path, import_extra("nbformat").writes(notebook) + "\n")
