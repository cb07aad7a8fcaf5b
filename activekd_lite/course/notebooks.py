"""Notebooks: run by papermill, and written back with clean outputs and measured figures.

papermill, nbconvert and their like come with the extra `notebooks` and are imported when they are used.
"""

import ast
import base64
import difflib
import hashlib
import os
import re
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from activekd_lite.course.pages import (
    PATHS,
    index,
    memory_text,
    needs,
    page,
    read_notebook,
    time_text,
    title,
)
from activekd_lite.plots.base import PLOTLY, PNG_WIDTH, fewer_colours
from activekd_lite.utils.files import PACKAGE, digest, make_folder, write_atomic

FOLDER = PACKAGE.parent / "notebooks"  # beside the package in a clone; not part of a wheel
MEASURED = re.compile(
    r"(?:(?P<seconds>\d+) seconds|(?P<minutes>\d+\.\d) minutes)\D+(?P<gigabytes>\d+\.\d) GB"
)
PROMISE = re.compile(r"(?<=\*\*Time and memory\*\*: ).*?GPU\.")
TOLD = "{} and {} on two CPU cores, without a GPU."
MARKERS = ("<!-- notebooks -->", "<!-- /notebooks -->")


@dataclass(frozen=True)
class Outcome:
    """What became of a notebook. failed_cell and error are empty when it ran through; skipped: it was there already."""

    name: str
    title: str
    seconds: float
    peak_memory_bytes: int
    failed_cell: str = ""
    error: str = ""
    skipped: bool = False


def check_parameters() -> None:
    """Refuse parameters that the running notebook does not know; of those papermill itself only warns.

    Papermill puts what it was given into a cell of its own, `# Parameters`, after the notebook's. Does nothing where there is
    no such cell: in JupyterLab, in a test, in a script. Raises ValueError with the known names.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    cells = shell.user_ns.get("_ih", []) if shell else []
    injected = [place for place, cell in enumerate(cells) if cell.startswith("# Parameters\n")]
    if injected:
        known = {name: None for cell in cells[: injected[0]] for name in assigned(cell)}
        given = [name for place in injected for name in assigned(cells[place])]
        _check_known(
            given, known or given
        )  # known is empty when somebody runs that cell first, by hand


def parameters_of(notebook: Mapping) -> dict:
    """Names and defaults in the cell tagged `parameters`; empty when there is none."""
    cells = (cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", []))
    return {
        name: ast.literal_eval(value)
        for name, value in assigned("".join(next(cells, {"source": ""})["source"])).items()
    }


def assigned(code: str) -> dict[str, ast.expr]:
    """What `name = value` assigns at the top level."""
    try:
        nodes = ast.parse(code).body
    except SyntaxError:
        return {}
    pairs = (
        (target, node.value)
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
    )
    return {target.id: value for target, value in pairs if isinstance(target, ast.Name)}


def _check_known(given: Sequence[str], known: Sequence[str]) -> None:
    if unknown := sorted(set(given) - set(known)):
        near = [match for name in unknown for match in difflib.get_close_matches(name, known, 1)]
        meant = f"; did you mean {', '.join(near)}?" if near else ";"
        plural = "s" if len(unknown) > 1 else ""
        raise ValueError(
            f"unknown parameter{plural} {', '.join(unknown)}{meant} known are {', '.join(known)}"
        )


def find(names: Sequence[str] = (), folder: str | os.PathLike | None = None) -> list[Path]:
    """The notebooks `names` ("04" or "04_active_learning_run") of a folder, all of it when there are none, in order.

    Raises FileNotFoundError when the folder has no notebooks, ValueError for a name that none or several have.
    """
    folder = Path(folder or FOLDER).resolve()
    there = sorted(path for path in folder.glob("*.ipynb"))
    if not there:
        raise FileNotFoundError(
            f"no notebooks in {folder}; they come with a clone of the repository; say where with --from"
        )
    found = []
    for name in names:
        fitting = [
            path
            for path in there
            if path.stem == name.removesuffix(".ipynb") or path.stem.split("_")[0] == name
        ]
        if len(fitting) != 1:
            problem = "unknown notebook" if not fitting else "several notebooks are called"
            raise ValueError(
                f"{problem} {name!r}; known are {', '.join(path.stem for path in there)}"
            )
        found += fitting
    return sorted(set(found)) if names else there


def run(
    names: Sequence[str],
    out: str | os.PathLike,
    parameters: Mapping = {},
    *,
    folder: str | os.PathLike | None = None,
    progress: bool = True,
) -> list[Outcome]:
    """Execute notebooks into `out`: each as .ipynb and as a page, and an index.html of all that lie there.

    parameters: go to those of the notebooks that know them; their paths are meant as seen from here. With
    parameters, what a notebook NN keeps goes to `notebook-NN` in `out` (or in the parameter `out`), else where it says itself.
    A notebook that fails does not stop the others. One that is there already, from the same source, parameters and package,
    is not run again.

    Raises ValueError, before anything runs, for a parameter that none of the notebooks knows.
    """
    paths, out = find(names, folder), make_folder(out).resolve()
    sources = {path: read_notebook(path) for path in paths}
    known = {path: parameters_of(notebook) for path, notebook in sources.items()}
    _check_known(
        list(parameters), list(dict.fromkeys(name for of in known.values() for name in of))
    )
    parameters, outcomes = absolute(parameters), []
    try:
        for path, source in sources.items():
            own = {name: value for name, value in parameters.items() if name in known[path]}
            if parameters and "out" in known[path]:
                own["out"] = str(Path(parameters.get("out") or out) / _runs(path))
            outcomes.append(run_one(path, source, out / path.name, own, progress))
    finally:
        index(out)
    return outcomes


def run_one(
    path: Path, source: Mapping, target: Path, parameters: Mapping, progress: bool
) -> Outcome:
    """Execute the notebook `path`, whose content is `source`, into `target` and make its page, unless both are there."""
    asked = _fingerprint(source, parameters)
    if done := _earlier(target, asked):
        return done
    with _environment(PLOTLY_RENDERER="plotly_mimetype"):
        outcome = _execute(path, target, parameters, progress)
    executed = _coalesced(read_notebook(target))
    executed.metadata["activekd_lite"] = asdict(outcome) | {
        "fingerprint": "" if outcome.error else asked
    }
    _write(executed, target)
    page(executed, target.with_suffix(".html"))
    return outcome


def _runs(path: Path) -> str:
    return f"notebook-{path.stem.split('_')[0]}"


def absolute(parameters: Mapping) -> dict:
    """Paths as seen from here, made independent of where the notebook runs."""
    absolute = dict(parameters)
    for name, value in parameters.items():
        kind, colon, path = value.partition(":") if isinstance(value, str) else ("", "", "")
        if (name in PATHS and isinstance(value, str)) or (
            name == "pretrained" and isinstance(value, str) and Path(value).is_file()
        ):
            absolute[name] = os.path.abspath(value)
        elif colon and kind in ("folder", "csv", "local-dir"):
            absolute[name] = f"{kind}:{os.path.abspath(path)}"
    return absolute


def _fingerprint(notebook: Mapping, parameters: Mapping) -> str:
    """Changes with the text of the notebook, its parameters and the package."""
    package = [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(PACKAGE.glob("*.py"))
    ]
    return digest([[cell["source"] for cell in notebook["cells"]], dict(parameters), package])


def executed_sha256(notebook: Mapping) -> str:
    """Of the code that made the outputs; `refresh` records it, so that a test sees outputs of other code."""
    return digest([cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"])


def _earlier(target: Path, fingerprint: str) -> Outcome | None:
    """What is noted in a notebook that was executed with this fingerprint and has its page."""
    if not target.is_file() or not target.with_suffix(".html").is_file():
        return None
    noted = dict(read_notebook(target).metadata.get("activekd_lite", {}))
    return (
        Outcome(**noted | {"skipped": True})
        if noted.pop("fingerprint", None) == fingerprint
        else None
    )


def _execute(path: Path, target: Path, parameters: Mapping, progress: bool = True) -> Outcome:
    """Run a notebook by papermill where it lies. `target` keeps what was done when a cell fails."""
    papermill, client = needs("papermill"), needs("jupyter_client")
    managers, peaks = [], [0]

    class Manager(client.AsyncKernelManager):
        """One that can be asked for the process of its kernel."""

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            managers.append(self)

    def measure(**cell) -> None:
        peaks.append(peak_memory_bytes(managers[-1].provisioner.pid))

    error, started = "", time.monotonic()
    try:
        papermill.execute_notebook(
            path, target, dict(parameters), cwd=path.parent, progress_bar={"desc": path.stem} if progress else False,
            kernel_manager_class=Manager, on_cell_complete=measure, extra_arguments=["--IPKernelApp.log_level=50"],
        )  # fmt: skip
    except papermill.PapermillExecutionError as failed:
        lines = re.sub(r"\x1b\[[0-9;]*m", "", failed.evalue).strip().splitlines()
        error = textwrap.shorten(
            f"{failed.ename}: {lines[-1] if lines else ''}".removesuffix(": "), 200
        )
    except (
        RuntimeError
    ) as failed:  # the kernel died, of too little memory perhaps, or never came up
        error = str(failed).strip().splitlines()[0]
    seconds, executed = time.monotonic() - started, read_notebook(target)
    return Outcome(
        path.stem,
        title(executed),
        round(seconds, 1),
        max(peaks),
        _last_cell(executed) if error else "",
        error,
    )


def _last_cell(notebook: Mapping) -> str:
    """The number of the code cell that was begun last, and the heading above it."""
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
    """The most memory that a process has had so far; on macOS, which does not say, what it has now. 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status")
        if status.is_file():
            return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text()).group(1)) * 1024
        memory = psutil.Process(pid).memory_info()
    except (OSError, AttributeError, psutil.Error):
        return 0
    return getattr(memory, "peak_wset", memory.rss)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Variables that the kernels inherit."""
    values = {
        "PYDEVD_DISABLE_FILE_VALIDATION": "1"
    } | values  # else each kernel prints a warning of its debugger
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def refresh(
    names: Sequence[str] = (), folder: str | os.PathLike | None = None, *, progress: bool = True
) -> list[Outcome]:
    """Run notebooks anew, on at most two cores and without a GPU, and write back outputs, time and memory, tables.

    The trainings kept in a notebook's own run folder (`runs/notebook-NN`) are deleted first, so that the time is real; a folder
    with somebody's answers in it is put aside and back instead. A
    notebook that fails stays as it was. Static pictures are made after the clock has stopped; they need kaleido and a Chromium.
    """
    paths, outcomes = find(names, folder), []
    for path in paths:
        if not PROMISE.search(read_notebook(path)["cells"][0]["source"]):
            raise ValueError(
                f"{path.name}: no line '**Time and memory**: {TOLD.format('40 seconds', '1.2 GB')}' in its first cell"
            )
    with _browser():
        for path in paths:
            runs, work = (
                path.parent.parent / "runs" / _runs(path),
                path.with_name(f".{path.stem}.running.ipynb"),
            )
            try:
                environment = _environment(
                    PLOTLY_RENDERER="plotly_mimetype", CUDA_VISIBLE_DEVICES=""
                )
                with environment, _two_cores(), _anew(runs):
                    outcome = _execute(path, work, {}, progress)
                if not outcome.error:
                    _write(_cleaned(_coalesced(read_notebook(work)), outcome), path)
            finally:
                work.unlink(missing_ok=True)
            outcomes.append(outcome)
    for readme in (paths[0].parent / "README.md", paths[0].parent.parent / "README.md"):
        if readme.is_file() and MARKERS[0] in readme.read_text(encoding="utf-8"):
            update_table(
                readme, [outcome for outcome in outcomes if not outcome.error], paths[0].parent
            )
    return outcomes


@contextmanager
def _anew(runs: Path) -> Iterator[None]:
    """A notebook's run folder is gone meanwhile; what people answered cannot be computed again, and comes back."""
    kept = runs.with_name(f"{runs.name}.kept")
    if not kept.is_dir() and any(
        runs.rglob("answers.jsonl")
    ):  # there: of a process that was killed
        os.replace(runs, kept)
    shutil.rmtree(runs, ignore_errors=True)
    try:
        yield
    finally:
        if kept.is_dir():
            shutil.rmtree(runs, ignore_errors=True)
            os.replace(kept, runs)


@contextmanager
def _browser() -> Iterator[None]:
    """One for all static pictures: to start one takes longer than to draw."""
    kaleido = needs("kaleido")
    kaleido.start_sync_server(silence_warnings=True)
    try:
        yield
    finally:
        kaleido.stop_sync_server(silence_warnings=True)


@contextmanager
def _two_cores() -> Iterator[None]:
    """Kernels started here share two cores, where the system can be told so."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        if before:
            os.sched_setaffinity(0, sorted(before)[:2])
        yield
    finally:
        if before:
            os.sched_setaffinity(0, before)


def _coalesced(notebook):
    """Its streams merged, and of a progress bar the last state alone."""
    return (
        needs("nbconvert.preprocessors").CoalesceStreamsPreprocessor().preprocess(notebook, {})[0]
    )


def _cleaned(notebook, outcome: Outcome):
    """The executed notebook without traces of the run, with static pictures and what was measured."""
    first = notebook["cells"][0]
    told = TOLD.format(time_text(outcome.seconds), memory_text(outcome.peak_memory_bytes))
    first["source"] = PROMISE.sub(told, first["source"], count=1)
    for cell in notebook["cells"]:
        cell["metadata"] = {"tags": tags} if (tags := cell["metadata"].get("tags")) else {}
        for output in cell.get("outputs", []):
            if PLOTLY in output.get("data", {}):
                _add_picture(output)
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "activekd_lite": {"executed_sha256": executed_sha256(notebook)},
    }
    return needs("nbformat").from_dict(notebook)


def _add_picture(output: dict) -> None:
    """A static picture beside the live figure, for who reads the notebook where plotly does not run."""
    import plotly.io as pio

    with warnings.catch_warnings(
        action="ignore", category=UserWarning
    ):  # that a running browser keeps its settings
        picture = pio.to_image(output["data"][PLOTLY], "png", width=PNG_WIDTH, validate=False)
    output["data"]["image/png"] = fewer_colours(base64.b64encode(picture).decode())
    output["metadata"]["image/png"] = {"alt": output["data"].get("text/plain", "")}


def read_measured(text: str) -> tuple[float, float] | None:
    """Seconds and bytes that `text` states, as `time_text` and `memory_text` write them; None when it does not."""
    found = MEASURED.search(text)
    seconds = found and float(found["seconds"] or 60 * float(found["minutes"]))
    return (seconds, float(found["gigabytes"]) * 1e9) if found else None


def update_table(readme: Path, outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write what was measured into the rows of the chapter table. Other rows stay; of notebooks that are gone they go, and of
    those that had none they say what the notebook's first cell says.

    Raises ValueError when the file has no place for the table.
    """
    text = readme.read_text(encoding="utf-8")
    before, start, rest = text.partition(MARKERS[0])
    old, end, after = rest.partition(MARKERS[1])
    if not end:
        raise ValueError(
            f"{readme} has no lines {MARKERS[0]} and {MARKERS[1]} for the table of the notebooks"
        )
    rows = dict(re.findall(r"^(\| \[([^\]]+)\].*)$", old, re.M))
    rows = {name: row for row, name in rows.items() if (folder / f"{name}.ipynb").is_file()}
    for o in [
        *(o for o in map(_stated, find(folder=folder)) if o and o.name not in rows),
        *outcomes,
    ]:
        link = Path(os.path.relpath(folder / f"{o.name}.ipynb", readme.parent)).as_posix()
        measured = f"{time_text(o.seconds)} | {memory_text(o.peak_memory_bytes)}"
        rows[o.name] = f"| [{o.name}]({link}) | {o.title.split(' · ')[-1]} | {measured} |"
    table = "\n".join(
        [
            "",
            "| notebook | the question it answers | time | memory |",
            "|---|---|---|---|",
            *sorted(rows.values()),
            "",
        ]
    )
    if (new := f"{before}{start}\n{table}\n{end}{after}") != text:
        write_atomic(readme, new)


def _stated(path: Path) -> Outcome | None:
    """What a notebook says of itself; None when it does not say what it takes."""
    notebook = read_notebook(path)
    measured = read_measured(notebook["cells"][0]["source"])
    return Outcome(path.stem, title(notebook), measured[0], int(measured[1])) if measured else None


def _write(notebook, path: Path) -> None:
    write_atomic(path, needs("nbformat").writes(notebook) + "\n")
