"""Student and solution copies of the course notebooks, and of small ones that run."""

import copy
import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from activekd_lite import cli
from activekd_lite.course import handouts, notebooks

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
REAL = sorted(FOLDER.glob("*.ipynb"))
BLOCK = re.compile(r"<summary>Solution</summary>\s*```python\n(.*?)```", re.S)


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Return the folders of the student and solution copies of all course notebooks."""
    student = tmp_path_factory.mktemp("usb") / "a" / "student"
    solved = tmp_path_factory.mktemp("home") / "solved"
    assert cli.main(["notebooks", "--student", str(student), "--solutions", str(solved)]) == 0
    return student, solved


def read(path):
    return nbformat.read(path, 4)


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def solutions(notebook):
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [code for text in texts for code in BLOCK.findall(text)]


def without_solutions(notebook):
    return "\n".join(
        re.sub(r"<details><summary>Solution.*?</details>", "", cell.source, flags=re.S)
        for cell in notebook.cells
    )


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem[:2])
def test_nothing_of_a_solution_is_left_for_the_student(path, copies):
    original, given = read(path), read(copies[0] / path.name)
    text = "\n".join(cell.source for cell in given.cells)
    codes = solutions(original)
    assert len(codes) == len(tagged(original, "exercise")) >= 2
    for line in (line.strip() for code in codes for line in code.splitlines()):
        assert line not in text or line in without_solutions(original), line
    assert "Solution</summary>" not in text
    hints = sum(cell.source.count("<summary>Hint ") for cell in original.cells)
    assert text.count("<details>") == text.count("</details>") == hints
    assert text.count("<summary>Hint ") == hints
    left = [re.sub(r"\s+", "", part) for part in (without_solutions(original), text)]
    for name in notebooks.PATHS:  # everything else is unchanged, except for paths
        left = [part.replace(f'{name}="../', f'{name}="') for part in left]
    assert handouts._without_links(left[1], set()) == handouts._without_links(left[0], set())


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem[:2])
def test_exercises_are_open(path, copies):
    given = read(copies[0] / path.name)
    exercises, checks = tagged(given, "exercise"), tagged(given, "exercise-check")
    assert len(exercises) == len(checks) == len(solutions(read(path)))
    assert [cell.source for cell in exercises] == [
        cell.source for cell in tagged(read(path), "exercise")
    ]
    assert [cell.source for cell in checks] == [
        cell.source for cell in tagged(read(path), "exercise-check")
    ]


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem[:2])
def test_the_solution_copy_has_the_code_in_the_cell_and_the_explanation_visible(path, copies):
    original, given = read(path), read(copies[1] / path.name)
    assert [cell.source for cell in tagged(given, "exercise")] == [
        code.strip() for code in solutions(original)
    ]
    text = "\n".join(cell.source for cell in given.cells if cell.cell_type == "markdown")
    assert text.count("**Solution.** ") == len(solutions(original))
    assert text.count("<details>") == text.count("<summary>Hint ")
    everything = "\n".join(cell.source for cell in original.cells)
    for explanation in re.findall(rf"{BLOCK.pattern}\n(.+?)</details>", everything, re.S):
        explanation = explanation[1]
        assert handouts._without_links(explanation.strip(), set()) in handouts._without_links(
            text, set()
        )
    assert len(given.cells) == len(original.cells)


@pytest.mark.parametrize("which", [0, 1], ids=["student", "solutions"])
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem[:2])
def test_copies_are_complete_without_outputs_and_run_anywhere(path, which, copies):
    given = read(copies[which] / path.name)
    nbformat.validate(given)
    assert set(given.metadata) == {"kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags", "jupyter"} for cell in given.cells)
    code = [cell for cell in given.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    known, before = notebooks.parameters_of(given), notebooks.parameters_of(read(path))
    places = [
        name for name in notebooks.PATHS if before.get(name)
    ]  # `study` is in one notebook, and None there
    assert {"out", "cache", "data_root"} <= set(places)
    for name in places:
        assert not known[name].startswith(("..", "/"))
    assert {**known, **{name: before[name] for name in places}} == before
    assert '"../' not in "\n".join(cell.source for cell in code)
    for link in re.findall(
        r"\]\(([^)\s]+)\)",
        "\n".join(cell.source for cell in given.cells if cell.cell_type == "markdown"),
    ):
        assert link.startswith("https://") or (copies[which] / link).exists(), link


def test_the_readme_lists_the_copies_and_how_to_open_them(copies):
    for folder, words in zip(copies, ("check themselves", "with the solutions"), strict=True):
        text = (folder / "README.md").read_text()
        assert re.findall(r"^\| \[\w+\]\((.+?)\) \| .+\? \| ", text, re.M) == [
            path.name for path in REAL
        ]
        assert words in text
        assert "jupyter lab" in text


CHECK = new_code_cell(
    "from pathlib import Path\n\nPath(out).mkdir(parents=True)\n"
    "Path(out, 'result').write_text(str(answer == 42))",
    metadata={"tags": ["exercise-check"]},
    outputs=[new_output("stream", text="old")],
    execution_count=3,
)
FOLDED = (
    "<details><summary>Solution</summary>\n\n```python\nanswer = 6 * 7\n```\nSo it is.\n</details>"
)
EXERCISE = [
    new_markdown_cell("## Exercises\n\n### 1 · Count"),
    new_code_cell("answer = None  # your code here", metadata={"tags": ["exercise"]}),
    CHECK,
    new_markdown_cell(f"{FOLDED}\n\n## On"),
]
COST = "**Time and memory**: 5 seconds and 0.1 GB on two CPU cores, without a GPU."
LINKS = {
    "00": "[01](01_small.ipynb) [r](README.md)",
    "01": "[00](00_small.ipynb#top) [n](no.md)",
}


HINTS = "".join(
    f"<details><summary>Hint {i}</summary>\n\n```python\nhint = {i}\n```\n</details>\n\n"
    for i in (1, 2)
)
WITH_HINTS = [
    new_markdown_cell("### 1 · Count (difficulty ●○○, importance ●●●, 5 minutes)"),
    new_code_cell("def double(x):\n    ...  # your code here", metadata={"tags": ["exercise"]}),
    new_code_cell("check(double)", metadata={"tags": ["exercise-check"]}),
    new_markdown_cell(HINTS + FOLDED.replace("answer = 6 * 7", "def double(x):\n    return 2 * x")),
    new_code_cell("question()", metadata={"tags": ["question"]}),
]


def test_hints_stay_in_both_copies_and_the_code_of_questions_is_folded():
    notebook = new_notebook(cells=copy.deepcopy(WITH_HINTS))
    student, solved = handouts.for_students(notebook), handouts.with_solutions(notebook)
    for given in (student, solved):
        assert HINTS.strip() in given.cells[3].source
        assert given.cells[4].metadata == {"tags": ["question"], "jupyter": {"source_hidden": True}}
    assert student.cells[1].source == WITH_HINTS[1].source
    assert student.cells[3].source == HINTS.strip()
    assert solved.cells[1].source == "def double(x):\n    return 2 * x"
    assert solved.cells[3].source.endswith("**Solution.** So it is.")


@pytest.fixture
def course(tmp_path):
    """Return a folder with two small notebooks that link to each other."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for number, links in LINKS.items():
        front = new_markdown_cell(f"# {number} · Why?\n\n{COST}\n\n{links}")
        code = f'out = "../runs/notebook-{number}"\nseed = 0'
        parameters = new_code_cell(code, metadata={"tags": ["parameters"]})
        notebook = new_notebook(cells=[front, parameters, *copy.deepcopy(EXERCISE)])
        kernel = {"name": "python3", "language": "python", "display_name": "P"}
        notebook.metadata = {"kernelspec": kernel, "x": 1}
        nbformat.write(nbformat.from_dict(notebook), folder / f"{number}_small.ipynb")
    return folder


def hand_out(course, *names, **to):
    return handouts.hand_out(names, folder=course, **to)


def test_the_solutions_run_in_an_otherwise_empty_folder(course, tmp_path):
    usb = tmp_path / "usb"
    hand_out(course, "00", solutions=usb)
    outcome = notebooks.run([], tmp_path / "pages", folder=usb, progress=False)[0]
    assert outcome.error == ""
    assert (usb / "runs" / "notebook-00" / "result").read_text() == "True"
    assert not (tmp_path / "runs").exists()


def test_links_point_only_to_files_that_exist(course, tmp_path):
    usb = tmp_path / "usb"
    front = lambda number: read(usb / f"{number}_small.ipynb").cells[0].source.splitlines()[-1]  # noqa: E731
    hand_out(course, "00", student=usb)
    assert front("00") == "01 [r](README.md)"
    assert "01_small" not in (usb / "README.md").read_text()
    hand_out(course, "01", student=usb)
    assert front("01") == "[00](00_small.ipynb#top) n"
    hand_out(course, student=usb)  # nobody has touched them: the first now has its link
    assert front("00") == "[01](01_small.ipynb) [r](README.md)"
    assert (
        "[01_small](01_small.ipynb) | Why? | 5 seconds | 0.1 GB |"
        in (usb / "README.md").read_text()
    )


def test_work_is_never_overwritten(course, tmp_path, capsys):
    usb, home = tmp_path / "usb", tmp_path / "home"
    hand_out(course, "01", student=usb)
    worked = read(usb / "01_small.ipynb")
    tagged(worked, "exercise")[0].source = "answer = 41"
    nbformat.write(worked, usb / "01_small.ipynb")
    before = (usb / "01_small.ipynb").read_bytes()
    words = ["notebooks", "--from", str(course), "--student", str(usb), "--solutions", str(home)]
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert f"{usb} has 01_small.ipynb with different content: someone may have worked" in error
    assert "choose another folder, or move these files away" in error
    assert (usb / "01_small.ipynb").read_bytes() == before
    assert not (usb / "00_small.ipynb").exists()
    assert not home.exists()
    (usb / "01_small.ipynb").write_text("half a noteb")
    assert cli.main(words) == 2
    (usb / "01_small.ipynb").rename(usb / "mine.txt")
    assert cli.main(words) == 0
    assert "2 notebooks are in" in capsys.readouterr().out


def test_an_unrelated_readme_is_kept(course, tmp_path):
    (tmp_path / "README.md").write_text("# My course\n<!-- notebooks -->\n<!-- /notebooks -->\n")
    hand_out(course, student=tmp_path)
    assert (
        tmp_path / "README.md"
    ).read_text() == "# My course\n<!-- notebooks -->\n<!-- /notebooks -->\n"


def test_the_source_folder_is_refused_as_a_target(course, tmp_path, monkeypatch):
    before = (course / "00_small.ipynb").read_bytes()
    monkeypatch.chdir(tmp_path)
    for kind in ("student", "solutions"):
        for name in (course, "notebooks", tmp_path / "x" / ".." / "notebooks"):
            with pytest.raises(ValueError, match="choose another folder for the copies"):
                hand_out(course, **{kind: name})
    with pytest.raises(ValueError, match="have the same names; choose another folder than x"):
        hand_out(course, student="x", solutions=tmp_path / "x")
    assert (course / "00_small.ipynb").read_bytes() == before
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("```python", "```"),
        ("<details>", "<details open>"),
        ("</details>", ""),
        ('"exercise"', '"other"'),
    ],
)
def test_a_notebook_whose_solutions_are_not_found_is_refused(course, tmp_path, old, new):
    path = course / "01_small.ipynb"
    path.write_text(path.read_text().replace(old, new))
    json.loads(path.read_text())
    with pytest.raises(
        ValueError,
        match=r"01_small.ipynb has \d cells tagged 'exercise' and \d solutions, \d of them folded",
    ):
        hand_out(course, student=tmp_path / "usb")
    assert not (tmp_path / "usb").exists()


def test_options_for_different_jobs_are_refused(course, tmp_path, capsys):
    for more in (["--refresh"], ["-p", "seed", "1"]):
        words = ["notebooks", "--from", str(course), "--student", str(tmp_path / "usb"), *more]
        assert cli.main(words) == 2
        assert "do different things; give one of them" in capsys.readouterr().err
    assert not (tmp_path / "usb").exists()
