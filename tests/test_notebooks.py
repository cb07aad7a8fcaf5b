"""Rules for all notebooks, each violated once to see that it is detected; running notebooks."""

import ast
import copy
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from activekd_lite import cli
from activekd_lite.cli.notebooks import parse_value
from activekd_lite.course import notebooks, pages
from activekd_lite.plots.base import UPLOAD
from activekd_lite.utils.files import PACKAGE

pytest_plugins = "pytester"  # runs pytest in a test

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
STANDARD = {"dataset": ("digits", "shapes"), "vlm": ("tiny-clip",), "pretrained": (None,)}
STANDARD |= {"student": (None,), "seed": (0,), "device": ("auto",)}
STANDARD |= {"data_root": ("../data",), "cache": ("../.cache",)}
FRONT = re.compile(
    r"# (?P<number>\d\d) · [^\n]+\?\n\n"
    r"\*\*You will learn\*\*\n\n?(?P<learn>(?:- [^\n]+\n(?:  [^\n]+\n)*)+)\n"
    r"(?:\*\*Your time\*\*: [^\n]+\n+)?"
    r"\*\*Time and memory\*\*: (?P<measured>[^\n]+ on two CPU cores, without a GPU\.)\s+"
    r"\*\*You need\*\* "
)
EXERCISE = re.compile(r"^### (\d) · .+ \(.*?(?P<minutes>\d+) minutes\)$", re.M)
RATED = re.compile(
    r"^### \d · .+ \(difficulty (?=[●○]{3},)●+○*, importance (?=[●○]{3},)●+○*, \d+ minutes\)$", re.M
)
SOLUTION = re.compile(
    r"<details><summary>Solution</summary>\n\n```python\n([^`]+)```\n(.+)</details>\s*", re.S
)
HINT = re.compile(r"<details><summary>Hint (\d)</summary>\n\n.+?\n</details>\n", re.S)
YOUR_TIME = re.compile(
    r"^\*\*Your time\*\*: reading (?P<reading>\d+) minutes, exercises (?P<exercises>\d+) minutes\.",
    re.M,
)
FORMULA = re.compile(r"(?<![\\$\w])\$[^$\n]*[\\^_=][^$\n]*\$(?!\d)|\$\$.+?\$\$", re.S)
STRAY = re.compile(r"^\W*(?:STUDY|TODO|FIXME|XXX|TBD)\W*$|\b(?:TODO|FIXME|XXX|TBD)\b", re.M)
HEADINGS = ["Before you look: a prediction", "Exercises", "What we measured", "Where next"]
MACHINE_PATH = re.compile(r"(?<![\w.])(?:/(?:home|root|tmp|work|mnt|opt|var|Users)/|[A-Z]:\\)")
RULES = {}
BROKEN = (AssertionError, AttributeError, IndexError, KeyError)


def rule(check):
    RULES[check.__name__] = check
    return check


def tagged(notebook, tag):
    return [
        place for place, cell in enumerate(notebook.cells) if tag in cell.metadata.get("tags", [])
    ]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def prose(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


@rule
def the_first_cell_says_what_it_is(path, notebook):
    front = FRONT.match(notebook.cells[0].source)
    assert front, "question, three lines of what you will learn, time and memory, what you need"
    assert front["number"] == path.stem[:2]
    assert len(re.findall(r"^- ", front["learn"], re.M)) == 3
    assert notebooks.read_measured(front["measured"])


@rule
def the_second_cell_has_the_parameters(path, notebook):
    assert tagged(notebook, "parameters") == [1]
    assert all(isinstance(node, ast.Assign) for node in ast.parse(notebook.cells[1].source).body)
    known = notebooks.parameters_of(notebook)
    assert {*STANDARD, "out"} - {"student", "seed"} <= set(known)
    assert known["out"] == f"../runs/notebook-{path.stem[:2]}"
    assert "seed" in known or known["seeds"][0] in (0, 1)  # the paper's begin with 1
    for name, values in STANDARD.items():
        assert known.get(name, values[0]) in values, name


@rule
def every_parameter_is_used(path, notebook):
    nodes = [node for cell in code_cells(notebook) for node in ast.walk(ast.parse(cell.source))]
    used = {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    assert set(notebooks.parameters_of(notebook)) <= used


@rule
def the_third_cell_imports_and_checks_the_parameters(path, notebook):
    statements = ast.parse(notebook.cells[2].source).body
    imports = [node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "import activekd_lite as akd" in map(ast.unparse, imports)
    assert ast.unparse(statements[len(imports)]) == "akd.notebooks.check_parameters()"


@rule
def the_story_has_its_parts(path, notebook):
    headings = re.findall(r"^## (.+)$", prose(notebook), re.M)
    assert [heading for heading in headings if heading in HEADINGS] == HEADINGS
    prediction = next(
        place for place, cell in enumerate(notebook.cells) if f"## {HEADINGS[0]}" in cell.source
    )
    later = [output for cell in notebook.cells[prediction:] for output in cell.get("outputs", [])]
    assert any(notebooks.PLOTLY in output.get("data", {}) for output in later), (
        "no figure after the prediction"
    )


def exercises(notebook):
    """Return, per exercise, the cells of its task, stub, check, and hints with solution."""
    return [notebook.cells[place - 1 : place + 3] for place in tagged(notebook, "exercise")]


def is_a_stub(code):
    """Whether a cell is `name = None`, or one function without a body."""
    (statement,) = ast.parse(code).body
    if isinstance(statement, ast.Assign):
        return ast.unparse(statement.value) == "None"
    body = [ast.unparse(node) for node in statement.body if not ast.get_docstring(statement)]
    return isinstance(statement, ast.FunctionDef) and (
        body or [ast.unparse(node) for node in statement.body[1:]]
    ) in (["..."], ["pass"], ["return None"])


@rule
def exercises_check_themselves_and_have_a_solution(path, notebook):
    part = prose(notebook).split("\n## Exercises", 1)[1].split("\n## What we measured", 1)[0]
    numbers = [found[1] for found in EXERCISE.finditer(part)]
    places = tagged(notebook, "exercise")
    assert (
        numbers == [str(i + 1) for i in range(len(places))] == re.findall(r"^### (\d)", part, re.M)
    )
    assert 2 <= len(places) <= 4
    assert tagged(notebook, "exercise-check") == [place + 1 for place in places]
    for task, exercise, check, solution in exercises(notebook):
        assert EXERCISE.search(task.source)
        assert is_a_stub(exercise.source), exercise.source
        assert [output.data["text/plain"] for output in check.outputs] == ["'not solved yet'"]
        folded = SOLUTION.search(solution.source)
        assert folded, "one python block, folded away, then a sentence"
        assert notebooks.answer_name(exercise.source) in folded[1]


@rule
def exercises_are_rated(path, notebook):
    for task, *_ in exercises(notebook):
        assert RATED.search(task.source), "(difficulty ●●○, importance ●●●, 10 minutes)"


@rule
def two_hints_per_exercise(path, notebook):
    for *_, solution in exercises(notebook):
        hints = solution.source.split("<details><summary>Solution", 1)[0]
        assert HINT.findall(hints) == ["1", "2"], "two folded hints before the folded solution"
        assert not HINT.sub("", hints).strip()


@rule
def an_exercise_builds_a_function(path, notebook):
    stubs = [exercise.source for _, exercise, *_ in exercises(notebook)]
    assert any(isinstance(ast.parse(stub).body[0], ast.FunctionDef) for stub in stubs)


@rule
def no_answer_name_twice(path, notebook):
    names = [notebooks.answer_name(exercise.source) for _, exercise, *_ in exercises(notebook)]
    assert len(set(names)) == len(names), names


@rule
def two_questions_close_it(path, notebook):
    places = [
        place
        for place, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and "notebooks.question(" in cell.source
    ]
    assert len(places) == 2
    assert places == tagged(notebook, notebooks.QUESTION)
    assert places[0] > max(tagged(notebook, "exercise-check"))
    for place in places:
        shown = "".join(
            o.get("data", {}).get("text/html", "") for o in notebook.cells[place].outputs
        )
        assert shown.count("<details") >= 2


@rule
def it_shows_where_you_are(path, notebook):
    cell = notebook.cells[3]
    assert re.fullmatch(r"akd\.notebooks\.you_are_here\(\"\w+\"\)", cell.source)
    assert "<svg" in cell.outputs[0].data["text/html"]


@rule
def it_states_your_time(path, notebook):
    stated = YOUR_TIME.search(notebook.cells[0].source)
    assert stated, "**Your time**: reading N minutes, exercises N minutes."
    minutes = [int(EXERCISE.search(task.source)["minutes"]) for task, *_ in exercises(notebook)]
    assert int(stated["exercises"]) == sum(minutes)


@rule
def it_has_a_formula(path, notebook):
    text = re.sub(r"```.*?```|`[^`\n]+`", "", prose(notebook), flags=re.S)
    assert FORMULA.search(text), "every symbol has its formula in LaTeX at first use"


@rule
def it_has_at_most_40_cells(path, notebook):
    assert len(notebook.cells) <= 40


@rule
def nothing_stray_is_left(path, notebook):
    assert not STRAY.search(prose(notebook)), STRAY.search(prose(notebook))[0]


@rule
def the_last_cell_prints_facts(path, notebook):
    assert len(notebook.cells) - 1 in tagged(notebook, "nbval-check-output")
    assert [output.get("name") for output in notebook.cells[-1].outputs] == ["stdout"]


@rule
def the_file_is_small_and_has_no_widgets(path, notebook):
    text = nbformat.writes(notebook)
    assert len(text.encode()) < 1_000_000
    assert "widgets" not in notebook.metadata
    assert "application/vnd.jupyter.widget-view+json" not in text


@rule
def the_outputs_are_of_this_code(path, notebook):
    recorded = notebook.metadata.get("activekd_lite", {}).get("executed_sha256")
    assert recorded == notebooks.executed_sha256(notebook), (
        f"the outputs of {path.name} do not match its code; "
        f"update them with `activekd-lite notebooks {path.stem[:2]} --refresh`"
    )
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == [*range(1, len(counts) + 1)]


@rule
def no_figure_offers_to_send_its_data(path, notebook):
    for output in outputs(notebook):
        if figure := output.get("data", {}).get(notebooks.PLOTLY):
            assert UPLOAD in figure["layout"]["template"]["layout"].get("modebar", {}).get(
                "remove", ()
            )


@rule
def the_outputs_are_clean(path, notebook):
    for output in outputs(notebook):
        assert output.output_type != "error"
        data = output.get("data", {})
        text = "\n".join(
            [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
        )
        assert not re.search(r"\w*Warning\b|\bWARNING\b|Traceback|\r", text), text[:300]
        assert not MACHINE_PATH.search(re.sub(r"data:[^\"')]+", "", text)), text[:300]
        assert "<script" not in text


@rule
def the_metadata_do_not_depend_on_who_ran_it(path, notebook):
    assert set(notebook.metadata) == {"kernelspec", "language_info", "activekd_lite"}
    assert notebook.metadata.language_info == {"name": "python"}
    before = [dict(cell.metadata) for cell in notebook.cells]
    cleaned = copy.deepcopy(notebook)
    notebooks.keep_only_tags(cleaned)
    assert before == [cell.metadata for cell in cleaned.cells]


@rule
def code_cells_are_short(path, notebook):
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and place != 1:
            lines = [
                line for line in cell.source.splitlines() if re.search(r"\w", line.split("#")[0])
            ]  # no comments, brackets
            longer = {"exercise-check", notebooks.QUESTION} & set(cell.metadata.get("tags", []))
            most = 20 if place == 2 or longer else 12
            assert len(lines) <= most, f"{len(lines)} lines in a cell: {lines[0]}"


@rule
def every_figure_has_a_picture_and_a_description(path, notebook):
    for output in outputs(notebook):
        data = output.get("data", {})
        described = data.get("text/plain", "")
        if notebooks.PLOTLY in data:
            assert len(described) >= 20 and not described.startswith(("Figure", "<")), described  # noqa: PT018
            assert "image/png" in data
        if "image/png" in data:
            assert len(output.metadata.get("image/png", {}).get("alt", "")) >= 20
        pictures = re.findall(
            r"<img\b[^>]*>", data.get("text/html", "") + data.get("text/markdown", "")
        )
        assert all(re.search(r'\balt="[^"]', picture) for picture in pictures), pictures
    assert not re.search(r"!\[\]\(|<img\b(?![^>]*\balt=\")", prose(notebook))


def package_functions():
    modules = [path for path in PACKAGE.rglob("*.py") if path.stem != "cli"]
    return {
        node.name
        for path in modules
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }


@rule
def nothing_is_defined_that_the_package_has(path, notebook):
    nodes = [node for cell in code_cells(notebook) for node in ast.walk(ast.parse(cell.source))]
    assert (
        not {node.name for node in nodes if isinstance(node, ast.FunctionDef)} & package_functions()
    )


@rule
def its_links_lead_somewhere(path, notebook):
    for link in re.findall(r"\]\(([^)]+)\)", prose(notebook)):
        assert link.startswith("https://") or (path.parent / link.split("#")[0]).exists(), link


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem[:2])
def test_rules(path, name):
    RULES[name](path, nbformat.read(path, 4))


@pytest.fixture
def model():
    """Return a notebook that follows all rules."""
    return model_notebook()


def plotly_output():
    alt = "Accuracy rises from 70 to 90 percent."
    layout = {"template": {"layout": {"modebar": {"remove": [UPLOAD]}}}}
    data = {
        notebooks.PLOTLY: {"data": [], "layout": layout},
        "image/png": "AA==",
        "text/plain": alt,
    }
    return new_output("display_data", data, metadata={"image/png": {"alt": alt}})


def shows(code, fragment, *tags):
    output = new_output("execute_result", fragment._repr_mimebundle_(), execution_count=1)
    return new_code_cell(code, outputs=[output], metadata={"tags": list(tags)} if tags else {})


def model_exercise(number, name, stub, code):
    task = f"### {number} · Count (difficulty ●●○, importance ●●●, 5 minutes)\n\nWhy?"
    if number == 1:
        task = f"## Exercises\n\n{task}"
    hints = "".join(
        f"<details><summary>Hint {i}</summary>\n\nLook at `seed`.\n</details>\n\n" for i in (1, 2)
    )
    folded = (
        f"<details><summary>Solution</summary>\n\n```python\n{code}\n```\nSo it is.\n</details>"
    )
    said = new_output("execute_result", {"text/plain": "'not solved yet'"}, execution_count=1)
    check = new_code_cell(f"check({name})", outputs=[said], metadata={"tags": ["exercise-check"]})
    stub = new_code_cell(stub, metadata={"tags": ["exercise"]})
    return [new_markdown_cell(task), stub, check, new_markdown_cell(hints + folded)]


def model_question(number):
    asked = (f"Why {number}?", ["a", "b"], 0, ["yes", "no"])
    code = f"akd.notebooks.question(*{asked!r})"
    return shows(code, notebooks.question(*asked), "question")


MODEL_FRONT = """# 05 · What does a run do?

**You will learn**
- what a round is;
- what a query is;
- what a curve is.

**Your time**: reading 10 minutes, exercises 10 minutes.
**Time and memory**: 40 seconds and 1.3 GB on two CPU cores, without a GPU.
**You need** notebook [00](00_start_here.ipynb)."""
MODEL_PARAMETERS = """dataset = "digits"
vlm = "tiny-clip"
pretrained = None
student = None
seed = 0
device = "auto"
out = "../runs/notebook-05"
data_root = "../data"
cache = "../.cache\""""
MODEL_IMPORTS = """import torch

import activekd_lite as akd

akd.notebooks.check_parameters()"""


def model_notebook():
    """Return a small notebook in the form of the course, as if it had been executed."""
    here = notebooks.you_are_here("run")
    facts = new_output("stream", name="stdout", text="10 labels\n")
    cells = [
        new_markdown_cell(MODEL_FRONT),
        new_code_cell(MODEL_PARAMETERS, metadata={"tags": ["parameters"]}),
        new_code_cell(MODEL_IMPORTS),
        shows('akd.notebooks.you_are_here("run")', here),
        new_markdown_cell("## Before you look: a prediction\n\nWith $p = e^z$, what rises?"),
        new_code_cell(
            "by_class = (dataset, vlm, pretrained, student, seed, device, out, data_root, cache)",
            outputs=[plotly_output()],
        ),
        *model_exercise(1, "asked", "asked = None  # your code here", "asked = 1"),
        *model_exercise(
            2, "half", "def half(x):\n    ...  # your code here", "def half(x):\n    return x"
        ),
        new_markdown_cell("## What we measured\n\nTen seeds."),
        model_question(1),
        model_question(2),
        new_markdown_cell("## Where next"),
        new_code_cell("print(10)", outputs=[facts], metadata={"tags": ["nbval-check-output"]}),
    ]
    notebook = new_notebook(cells=cells)
    for number, cell in enumerate(code_cells(notebook), start=1):
        cell.execution_count = number
    notebooks.keep_only_tags(notebook)
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook.metadata["activekd_lite"] = {"executed_sha256": notebooks.executed_sha256(notebook)}
    return nbformat.from_dict(notebook)


def replaced(place, old, new):
    def change(notebook):
        cell = notebook.cells[place(notebook) if callable(place) else place]
        assert old in cell.source
        cell.source = cell.source.replace(old, new)

    return change


def put(place, **fields):
    return lambda notebook: notebook.cells[place(notebook) if callable(place) else place].update(
        fields
    )


def shown(**data):
    return lambda notebook: notebook.cells[-1].outputs.append(new_output("display_data", data))


def first(tag):
    return lambda notebook: tagged(notebook, tag)[0]


def last(tag):
    return lambda notebook: tagged(notebook, tag)[-1]


def solution(notebook):
    return tagged(notebook, "exercise-check")[0] + 1


def task(notebook):
    return tagged(notebook, "exercise")[0] - 1


def figure(notebook):
    return next(
        output for output in outputs(notebook) if notebooks.PLOTLY in output.get("data", {})
    )


def template(output):
    return output.data[notebooks.PLOTLY]["layout"]["template"]


BREAKS = {
    the_first_cell_says_what_it_is: [
        replaced(0, "# 05", "# 06"),
        replaced(0, "- what", "what"),
        replaced(0, "?", ""),
        replaced(0, " GB on", " on"),
        replaced(0, "**You need**", "**Needs**"),
    ],
    the_second_cell_has_the_parameters: [
        put(1, metadata={}),
        replaced(1, 'device = "auto"', 'device = "cpu"'),
        replaced(1, "notebook-05", "notebook-06"),
        replaced(1, 'cache = "../.cache"', ""),
        replaced(1, "seed = 0", "print(0)"),
    ],
    every_parameter_is_used: [
        replaced(1, "seed = 0", "seed = 0\nspare = 0"),
    ],
    the_third_cell_imports_and_checks_the_parameters: [
        replaced(2, "akd.notebooks.check_parameters()", ""),
        replaced(2, "as akd", ""),
    ],
    the_story_has_its_parts: [
        lambda nb: nb.cells.pop(first("exercise")(nb) - 1),
        lambda nb: [cell.update(outputs=[]) for cell in code_cells(nb)],
    ],
    exercises_check_themselves_and_have_a_solution: [
        replaced(task, "### 1", "### 2"),
        put(first("exercise"), metadata={}),
        put(first("exercise"), source="asked = 1"),
        put(last("exercise"), source="def half(x):\n    return x / 2"),
        put(first("exercise-check"), outputs=[]),
        replaced(solution, "```python", "```"),
        replaced(solution, "<details><summary>Sol", "<summary>Sol"),
        replaced(solution, "asked", "given"),
    ],
    exercises_are_rated: [
        replaced(task, "difficulty ●●○", "easy"),
        replaced(task, "●●○", "●○●"),
        replaced(task, "●●○", "●●"),
    ],
    two_hints_per_exercise: [
        replaced(solution, "Hint 2", "Hint 3"),
        replaced(solution, "<details><summary>Hint 1", "<details open><summary>Hint 1"),
        replaced(solution, "<details><summary>Sol", "More.\n<details><summary>Sol"),
    ],
    an_exercise_builds_a_function: [
        put(last("exercise"), source="half = None"),
    ],
    no_answer_name_twice: [
        put(last("exercise"), source="asked = None"),
    ],
    two_questions_close_it: [
        lambda nb: nb.cells.pop(first("question")(nb)),
        put(first("question"), metadata={}),
        put(first("question"), outputs=[]),
        lambda nb: nb.cells.insert(4, nb.cells.pop(first("question")(nb))),
    ],
    it_shows_where_you_are: [
        put(3, source="akd"),
        put(3, outputs=[]),
        lambda nb: nb.cells.insert(3, nb.cells[-2]),
    ],
    it_states_your_time: [
        replaced(0, "**Your time**", "**Time**"),
        replaced(0, "exercises 10", "exercises 11"),
    ],
    it_has_a_formula: [
        replaced(4, "$p = e^z$", "p = e^z"),
        replaced(4, "$p = e^z$", "`$p = e^z$`"),
        replaced(4, "$p = e^z$", "$5 or 6$"),
    ],
    it_has_at_most_40_cells: [
        lambda nb: nb.cells.extend(nb.cells[-2:-1] * 30),
    ],
    nothing_stray_is_left: [
        replaced(-2, "## Where", "STUDY\n\n## Where"),
        replaced(-2, "next", "next TODO"),
    ],
    the_last_cell_prints_facts: [
        put(-1, metadata={}),
        put(-1, outputs=[]),
    ],
    the_file_is_small_and_has_no_widgets: [
        shown(**{"text/plain": "x" * 1_000_000}),
        lambda nb: nb.metadata.update(widgets={}),
        shown(**{"application/vnd.jupyter.widget-view+json": {}}),
    ],
    the_outputs_are_of_this_code: [
        replaced(2, "import torch", "import torch as t"),
        replaced(1, "seed = 0", "seed = 1"),
        put(-1, execution_count=1),
    ],
    no_figure_offers_to_send_its_data: [
        lambda nb: template(figure(nb)).update(layout={}),
    ],
    the_outputs_are_clean: [
        put(-1, outputs=[new_output("error", ename="E", evalue="", traceback=[])]),
        put(-1, outputs=[new_output("stream", name="stderr", text="UserWarning: x")]),
        shown(**{"text/plain": "in /home/me/runs"}),
        shown(**{"text/html": "<script>plotly</script>"}),
    ],
    the_metadata_do_not_depend_on_who_ran_it: [
        lambda nb: nb.metadata.language_info.update(version="3.11.7"),
        lambda nb: nb.cells[3].metadata.update(execution={}),
    ],
    code_cells_are_short: [
        put(5, source="x = 1\n" * 13),
    ],
    every_figure_has_a_picture_and_a_description: [
        lambda nb: figure(nb).data.update({"text/plain": "Figure(" + "." * 20}),
        lambda nb: figure(nb).data.pop("image/png"),
        lambda nb: figure(nb).metadata.clear(),
        shown(**{"text/html": '<img src="data:">'}),
        replaced(0, "# 05", "![](x.png) # 05"),
    ],
    nothing_is_defined_that_the_package_has: [
        replaced(5, "by_class =", "def accuracy_pct(): pass\nby_class ="),
    ],
    its_links_lead_somewhere: [
        replaced(0, "# 05", "[05](05_nowhere.ipynb) # 05"),
    ],
}
CASES = [(rule.__name__, change) for rule, changes in BREAKS.items() for change in changes]
IDS = [f"{i}-{name}" for i, (name, _) in enumerate(CASES)]


@pytest.mark.parametrize(("name", "change"), CASES, ids=IDS)
def test_a_broken_rule_is_detected(name, change, model):
    path = FOLDER / "05_model.ipynb"
    RULES[name](path, model)
    change(model)
    with pytest.raises(BROKEN):
        RULES[name](path, model)


def test_every_rule_is_broken_once():
    assert {rule.__name__ for rule in BREAKS} == set(RULES)


def test_the_tables_list_every_notebook():
    texts = {path: path.read_text() for path in (FOLDER / "README.md", ROOT / "README.md")}
    tables = {
        path: text.split(notebooks.MARKERS[0])[1]
        for path, text in texts.items()
        if notebooks.MARKERS[0] in text
    }
    assert FOLDER / "README.md" in tables
    for readme, table in tables.items():
        links = re.findall(r"^\| \[\w+\]\((.+?)\) \| .+\? \| ", table, re.M)
        assert [(readme.parent / link).resolve() for link in links] == NOTEBOOKS
        assert all(
            notebooks.read_measured(line) for line in table.splitlines() if line.startswith("| [")
        )


# Running small notebooks.

PARAMETERS = 'out = "../runs/notebook-00"\nseed = 0'
CHECKED = "import activekd_lite as akd\n\nakd.notebooks.check_parameters()"


def small_notebook(*code, number="00", parameters=PARAMETERS):
    cells = [
        new_markdown_cell(
            f"# {number} · Does it run?\n\n**You will learn**\n- a;\n- `b`;\n- c.\n\n"
            "**Time and memory**: 9.9 minutes and 0.1 GB on two CPU cores, without a GPU.\n\n"
            "**You need** nothing."
        ),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *(cell if isinstance(cell, dict) else new_code_cell(cell) for cell in code),
    ]
    return new_notebook(
        cells=cells,
        metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "P"}},
    )


@pytest.fixture
def course(tmp_path):
    """Return a function that writes a notebook into the folder `notebooks/`."""
    (tmp_path / "notebooks").mkdir()

    def write(name, *code, **kwargs):
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        nbformat.write(small_notebook(*code, number=name[:2], **kwargs), path)
        return path

    return write


def test_an_unknown_parameter_fails_with_the_known_ones(course, tmp_path, capsys):
    path = course("00_good", CHECKED, "print('went on')")
    paths = [str(path), str(tmp_path / "done.ipynb")]
    command = [sys.executable, "-m", "papermill", *paths, "-p", "sead", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert (
        "ValueError: unknown parameter sead; did you mean seed? known are out, seed" in done.stderr
    )
    assert "went on\n" not in [
        output.get("text") for output in outputs(nbformat.read(tmp_path / "done.ipynb", 4))
    ]
    words = ["notebooks", "00", "--from", str(path.parent), "--out", str(tmp_path / "o")]
    assert cli.main([*words, "-p", "sead", "1"]) == 2
    assert (
        "unknown parameter sead; did you mean seed? known are out, seed" in capsys.readouterr().err
    )
    assert not list((tmp_path / "o").glob("*.ipynb"))


@pytest.mark.parametrize(
    ("cells", "unknown"),
    [
        (["", "seed = 0", "# Parameters\nseed = 1\n"], None),
        (["", "seed = 0", "# Parameters\nsead = 1\n"], "sead"),
        (["", "seed = 0", "# Parameters\nsead = 1\ncolour = 2\n"], "colour, sead"),
        (["", "# Parameters\nseed = 1\n", "seed = 0"], None),  # by hand, in another order
        (["", "seed = 0", "seed = ", "other = 1"], None),
        ([], None),
    ],
)
def test_check_parameters_raises_only_under_papermill(cells, unknown, monkeypatch):
    notebooks.check_parameters()  # in a script
    shell = SimpleNamespace(user_ns={"_ih": cells})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    if unknown:
        with pytest.raises(ValueError, match=f"unknown parameters? {unknown}"):
            notebooks.check_parameters()
    else:
        notebooks.check_parameters()


def test_command_line_values_are_read_as_literals():
    read = {"3": 3, "1e-3": 1e-3, "true": True, "True": True, "null": None, "None": None}
    read |= {"[0, 1]": [0, 1], '{"a": 1}': {"a": 1}, "'3'": "3"}
    read |= {text: text for text in ("shapes", "folder:/my/images", "0,1", "{", "no")}
    assert {text: parse_value(text) for text in read} == read


def test_paths_are_relative_to_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pt").touch()
    (tmp_path / "digits").mkdir()
    given = {"out": "o", "cache": "/c", "dataset": "folder:images", "pretrained": "weights.pt"}
    absolute = {"out": f"{tmp_path}/o", "cache": "/c", "dataset": f"folder:{tmp_path}/images"}
    absolute |= {"pretrained": f"{tmp_path}/weights.pt"}
    others = {"vlm": "digits", "seed": 1}
    assert notebooks.absolute(given | others) == absolute | others
    names = {"dataset": "digits", "pretrained": "openai"}
    assert notebooks.absolute(names) == names


FIGURE = """from IPython.display import display

alt = "A line rises from 3 to 4."
figure = {"data": [{"x": [1, 2], "y": [3, 4]}], "layout": {"meta": {"alt": alt}}}
display({"application/vnd.plotly.v1+json": figure, "text/plain": alt}, raw=True)"""


def test_notebooks_become_pages_and_a_failed_one_says_where(course, tmp_path, capsys):
    good = course("00_good", "import os\n\nprint('seed', seed, 'in', os.getcwd())", FIGURE)
    course(
        "01_bad",
        "print('so far')",
        new_markdown_cell("## A <turn>"),
        "1 / 0",
        "print('never')",
        parameters="size = 1",
    )
    course("02_dead", "import os\n\nos._exit(1)", "print('never')")
    out = tmp_path / "out"
    words = ["notebooks", "--from", str(good.parent), "--out", str(out), "-p", "seed", "3"]
    assert cli.main(words) == 1
    assert "01_bad" in (printed := capsys.readouterr().out)
    assert "FAILED in cell [3] under “A <turn>”: ZeroDivisionError: division by zero" in printed
    assert "FAILED in cell [3] under “02 · Does it run?”: Kernel died" in printed
    index = (out / "index.html").read_text()
    failed = "failed</b> in cell [3] under “A &lt;turn&gt;”<br><code>"
    assert f"{failed}ZeroDivisionError: division by zero</code>" in index
    assert index.count(">finished<") == 1
    assert '<a href="00_good.html">00 · Does it run?</a>' in index
    assert "tour" not in index
    (out / "tour.html").touch()
    assert '<a href="tour.html">' in pages.index(out).read_text()
    assert "<li><code>b</code>;</li>" in index
    partial = nbformat.read(out / "01_bad.ipynb", 4)
    assert "so far\n" in [output.get("text") for output in outputs(partial)]
    assert not any("never\n" == output.get("text") for output in outputs(partial))
    assert "ZeroDivisionError" in (out / "01_bad.html").read_text()

    page = (out / "00_good.html").read_text()
    assert f"seed 3 in {good.parent}" in page
    assert "<title>00 · Does it run?</title>" in page
    assert 'lang="en"' in page
    assert 'name="viewport"' in page
    assert "Plotly.newPlot" in page
    assert 'aria-label="A line rises from 3 to 4."' in page
    assert (out / "plotly.min.js").stat().st_size > 1_000_000
    for file in ("index.html", "00_good.html", "01_bad.html"):
        assert not network_requests((out / file).read_text()), file

    executed = nbformat.read(out / "00_good.ipynb", 4)
    assert executed.metadata.activekd_lite.peak_memory_bytes > 50e6
    assert 0 < executed.metadata.activekd_lite.seconds < 120
    assert notebooks.parameters_of(executed)["out"] == "../runs/notebook-00"
    assert (
        f'out = "{out}/notebook-00"' in executed.cells[2].source
    )  # with parameters, trainings go where the pages are

    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.ipynb")}
    assert cli.main(words) == 1  # again: the good one is kept
    assert ", kept from an earlier run" in capsys.readouterr().out
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.ipynb")}
    assert [name for name in before if before[name] != after[name]] == [
        "01_bad.ipynb",
        "02_dead.ipynb",
    ]


def network_requests(page):
    """Return the addresses that a browser would fetch without a click."""
    inside = re.sub(r"<a\b[^>]*>", "", page)
    return re.findall(
        r"""(?:src|href)=["']?(?:https?:)?//|@import|url\(["']?(?:https?:)?//|import\(["']https?:""",
        inside,
    )


def test_network_requests_are_detected():
    for text in (
        '<script src="https://cdn.x/y.js">',
        "<link href='//cdn/x.css'>",
        '@import "x.css"',
        "url(https://x/y.woff)",
    ):
        assert network_requests(text)
    assert not network_requests(
        '<a href="https://arxiv.org/abs/1">paper</a> <img src="data:image/png;base64,AA//">'
    )


def test_a_notebook_is_run_again_if_its_source_parameters_or_page_changed(course, tmp_path):
    path = course("00_good", "print(seed)")
    read = lambda: notebooks._fingerprint(nbformat.read(path, 4), {"seed": 1})  # noqa: E731
    first_time, notebook = read(), nbformat.read(path, 4)
    assert notebooks._fingerprint(notebook, {"seed": 2}) != first_time
    notebook.cells[0].source += "."
    nbformat.write(notebook, path)
    assert read() != first_time
    executed = copy.deepcopy(notebook)
    record = {"name": "00", "title": "t", "seconds": 1.0, "peak_memory_bytes": 1}
    executed.metadata["activekd_lite"] = {"fingerprint": "f"} | record
    nbformat.write(executed, tmp_path / "done.ipynb")
    assert notebooks._earlier(tmp_path / "done.ipynb", "f") is None  # no page
    (tmp_path / "done.html").touch()
    assert notebooks._earlier(tmp_path / "done.ipynb", "f").skipped
    assert notebooks._earlier(tmp_path / "done.ipynb", "g") is None


def test_notebooks_are_found_by_number_or_name(course, tmp_path, monkeypatch):
    folder = course("00_good").parent
    course("01_better")
    names = lambda *names: [path.stem for path in notebooks.find(names, folder)]  # noqa: E731
    assert names() == ["00_good", "01_better"]
    assert names("01", "00_good.ipynb", "01") == ["00_good", "01_better"]
    with pytest.raises(ValueError, match="unknown notebook '7'; known are 00_good, 01_better"):
        names("7")
    course("01_best")
    with pytest.raises(ValueError, match="several notebooks are called '01'"):
        names("01")
    with pytest.raises(FileNotFoundError, match="they come with a clone .* give with --from"):
        notebooks.find(folder=tmp_path)


def test_without_the_extra_the_error_names_it(course, tmp_path, monkeypatch, capsys):
    folder = course("00_good").parent
    monkeypatch.setitem(sys.modules, "papermill", None)
    assert cli.main(["notebooks", "--from", str(folder), "--out", str(tmp_path / "o")]) == 2
    assert (
        "this needs papermill, which is not installed: pip install -e '.[notebooks]'"
        in capsys.readouterr().err
    )


NO_BROWSER = SimpleNamespace(start_sync_server=lambda **_: None, stop_sync_server=lambda **_: None)


def test_refresh_writes_back_outputs_figures_and_tables(course, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "kaleido", NO_BROWSER)
    monkeypatch.setattr(
        notebooks, "_add_picture", lambda output: output["data"].update({"image/png": "AA=="})
    )
    bar = "print(f'\\r{i}', end='', file=sys.stderr, flush=True)"
    noisy = f"import sys\n\nfor i in range(3):\n    {bar}"
    good, bad = course("00_good", "1", noisy, FIGURE), course("01_bad", "1 / 0")
    course("03_other", "1")
    original, stale = bad.read_text(), tmp_path / "runs" / "notebook-00" / "old"
    stale.mkdir(parents=True)
    before = {path.name for path in good.parent.iterdir()}
    table = "".join(
        f"| [{name}](x) | Q? | 1 seconds | 0.1 GB |\n" for name in ("01_bad", "02_gone")
    )
    for readme in (tmp_path / "README.md", good.parent / "README.md"):
        readme.write_text(f"before\n<!-- notebooks -->\n{table}<!-- /notebooks -->\nafter\n")
    assert cli.main(["notebooks", "00", "01", "--refresh", "--from", str(good.parent)]) == 1
    assert "FAILED in cell [2]" in capsys.readouterr().out
    assert bad.read_text() == original
    assert not stale.exists()
    assert {path.name for path in good.parent.iterdir()} == {*before, "README.md"}

    notebook = nbformat.read(good, 4)
    the_outputs_are_of_this_code(good, notebook)
    the_metadata_do_not_depend_on_who_ran_it(good, notebook)
    seconds, memory = notebooks.read_measured(notebook.cells[0].source)
    assert 5 <= seconds <= 120
    assert 0.05e9 < memory < 10e9
    assert notebook.cells[0].source.endswith(
        "on two CPU cores, without a GPU.\n\n**You need** nothing."
    )
    assert notebook.cells[1].metadata.tags == ["parameters"]
    assert [output.text for output in notebook.cells[3].outputs] == ["2"]
    shown = notebook.cells[4].outputs[0].data
    assert shown["text/plain"].startswith("A line rises")
    assert shown["image/png"] == "AA=="
    for readme, link in (
        (tmp_path / "README.md", "notebooks/00_good.ipynb"),
        (good.parent / "README.md", "00_good.ipynb"),
    ):
        text = readme.read_text()
        assert re.search(
            rf"^\| \[00_good\]\({link}\) \| Does it run\? \| \d+ seconds \| \d\.\d GB \|$",
            text,
            re.M,
        )
        assert re.findall(r"^\| \[(\w+)\]", text, re.M) == ["00_good", "01_bad", "03_other"]
        assert text.startswith("before\n")
        assert text.endswith("\nafter\n")


def test_refresh_restores_answers_by_people(course, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", NO_BROWSER)
    # Fails if the folder exists already.
    write = "from pathlib import Path\n\nPath(out, 'trained').mkdir(parents=True)"
    good = course("00_good", write)
    answers = tmp_path / "runs" / "notebook-00" / "digits" / "answers.jsonl"
    answers.parent.mkdir(parents=True)
    answers.write_text("mine")
    (answers.parent.parent / "trained").mkdir()
    for _ in range(2):
        (outcome,) = notebooks.refresh(folder=good.parent, progress=False)
        assert not outcome.error
        assert answers.read_text() == "mine"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["notebook-00"]


def test_a_notebook_without_a_place_for_its_time_is_refused_before_it_runs(course, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", NO_BROWSER)
    path = course("00_good", "1")
    path.write_text(path.read_text().replace("GPU", "graphics card"))
    with pytest.raises(
        ValueError, match="00_good.ipynb: no line .*Time and memory.* in its first cell"
    ):
        notebooks.refresh(folder=path.parent)


def test_a_table_without_its_end_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("<!-- notebooks -->\n")
    with pytest.raises(ValueError, match="has no lines <!-- notebooks --> and <!-- /notebooks -->"):
        notebooks.update_table(tmp_path / "README.md", [], tmp_path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.3, "5 seconds"), (43, "45 seconds"), (97, "95 seconds"), (98, "1.6 minutes")],
)
def test_time_text_is_read_back(seconds, text):
    assert notebooks.time_text(seconds) == text
    read, memory = notebooks.read_measured(f"| {text} | {notebooks.memory_text(1.23e9)} |")
    assert read == pytest.approx(seconds, abs=5)
    assert memory == 1.2e9
    assert notebooks.read_measured("a while") is None


def test_the_peak_memory_of_a_process_is_measured():
    code = "x = bytearray(200_000_000); del x; print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        peak = notebooks.peak_memory_bytes(process.pid)
        process.communicate(b"\n")
    if sys.platform != "darwin":
        assert 200e6 < peak < 400e6
    assert notebooks.peak_memory_bytes(process.pid) == 0


# The extension of nbval in notebooks/conftest.py.


def exercise(solution, truth="42"):
    check = f"""def check(answer):
    if answer is None:
        return "not solved yet"
    return "right" if {truth} else "look again: count"


check(answer)"""
    return [
        new_code_cell("answer = None", metadata={"tags": ["exercise"]}),
        new_code_cell(check, metadata={"tags": ["exercise-check"]}),
        new_markdown_cell(
            "<details><summary>Solution</summary>\n\n"
            f"```python\n{solution}\n```\nSo it is.\n</details>"
        ),
    ]


def test_solutions_are_executed(course, tmp_path, pytester):
    folder = course(
        "00_right", *exercise("answer = 42", "answer == 42"), "assert answer is None"
    ).parent
    course("01_wrong", *exercise("answer = 41", "answer == 42"))
    course("02_lenient", *exercise("answer = 42", "answer"), "1 / 0")
    shutil.copy(FOLDER / "conftest.py", folder)
    # A process of its own: nbval leaves a kernel's standard error open.
    done = pytester.runpytest_subprocess(
        str(folder), "--nbval-lax", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"
    )
    printed = done.stdout.str()
    assert "the checker of `answer` accepts a wrong answer" in printed
    assert "with its solution the checker of `answer` says 'look again: count'" in printed
    assert re.search(r"FAILED .*01_wrong.ipynb::Solution 1", printed)
    assert re.search(r"FAILED .*02_lenient.ipynb::Solution 1", printed)
    assert "3 failed" in printed, printed


def nbval_conftest():
    spec = importlib.util.spec_from_file_location("nbval_conftest", FOLDER / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_spoiled_answer_differs_from_the_answer():
    import numpy as np

    spoiled = nbval_conftest().spoiled
    numbers = (0, 1, 2.5, True, np.float64(0.5), np.int64(3))
    for answer in (*numbers, "a", [1, 2], {"a": 1}, {1, 2}, (0, 1)):
        assert spoiled(answer) != answer
    tensors = (torch.tensor([0, 1]), torch.tensor([True, False]))
    for answer in (*tensors, np.array([0.5, 1.0]), np.array([False])):
        assert not (spoiled(answer) == answer).any()
    assert spoiled(max)(1, 2) != 2

    def own(x):
        return x

    own.needs = "labels"
    assert not (spoiled(own)(torch.ones(2)) == 1).any()
    assert spoiled(own).needs == "labels"
    assert json.dumps(spoiled(None))


def test_hints_may_contain_code_and_functions_may_be_asked_for():
    cells = model_exercise(1, "half", "def half(x):\n    ...", "def half(x):\n    return x / 2")
    cells[3].source = cells[3].source.replace("Look at `seed`.", "```python\nhint = 1\n```")
    (found,) = nbval_conftest().solutions(new_notebook(cells=cells))
    assert found["name"] == "half"
    assert found["solution"] == "def half(x):\n    return x / 2\n"
