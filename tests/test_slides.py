"""Slides: which cells are on which, what is left out, and the command."""

import re
from html import unescape

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from activekd_lite import cli
from activekd_lite.course import slides

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


def text(source, *tags):
    return new_markdown_cell(source, metadata={"tags": [*tags]} if tags else {})


def code(source, outputs=(), *tags):
    metadata = {"tags": [*tags]} if tags else {}
    return new_code_cell(source, outputs=[*outputs], metadata=metadata)


def picture(alt):
    data = {"image/png": PNG, "text/plain": alt}
    return new_output("display_data", data=data, metadata={"image/png": {"alt": alt}})


def table():
    return new_output("execute_result", data={"text/html": "<table><tr><td>7</td></tr></table>"})


def printed(line):
    return new_output("stream", name="stdout", text=line)


def lesson():
    """A notebook in the course's form."""
    solution = "<details><summary>Solution</summary>\n\n```python\nanswer = 42\n```\n</details>"
    hint = "<details><summary>Hint 1</summary>\n\nSix times seven.\n</details>"
    drawn = new_output("display_data", data={"text/html": "<svg></svg>"})
    question = new_output("display_data", data={"text/html": "<details>A. Perhaps</details>"})
    return new_notebook(
        cells=[
            text("# 00 · Why?\n\n**You will learn**\n- this;\n- that.\n\n**Your time**: long."),
            code("seed = 0", (), "parameters"),
            code("print('ready')", [printed("ready")]),
            code('akd.notebooks.you_are_here("loop")', [drawn]),
            text("## Step one\n\nLet $x_1 = 2$ and see [00](00_why.ipynb)."),
            code("curves()", [printed(" 50%|#####\rdone: 100%|####\n"), picture("It rises.")]),
            text("A reading of the figure."),
            text("## Before you look: a prediction\n\nHow many?"),
            code("count()", [table(), printed("seven <of> nine")]),
            text(
                "## Exercises\n\n### 1 · Six (difficulty ●○○, importance ●○○, 5 minutes)\n\nDo it."
            ),
            code("answer = None", (), "exercise"),
            code("check()", [printed("not solved yet")], "exercise-check"),
            text(f"{hint}\n\n{solution}"),
            code("question()", [question], "question"),
            text("## Where next\n\nElsewhere."),
            code("facts()", [printed("facts")], "nbval-check-output"),
        ]
    )


def headings(page):
    return [unescape(found) for found in re.findall(r"<h1>(.*?)</h1>", page)]


def section(page, number):
    return page.split("<section ")[number].split("</section>")[0]


def test_headings_decide_without_tags():
    page = slides.deck(lesson())
    title, result = "00 · Why?", slides.RESULT
    assert headings(page) == [
        *(title, "Step one", "Before you look: a prediction", result),
        *("Exercise 1 · Six", "A question"),
    ]
    assert "that." in section(page, 1)
    assert "<svg" in section(page, 1)
    assert f'src="data:image/png;base64,{PNG}" alt="It rises."' in section(page, 2)
    assert "<math" in section(page, 2)
    assert "seven &lt;of&gt; nine" in section(page, 4)
    assert "5 minutes" in section(page, 5)


def test_readings_are_notes():
    page = slides.deck(lesson())
    shown, notes = section(page, 2).split("<aside")
    assert "A reading of the figure." in notes
    assert "A reading" not in shown


@pytest.mark.parametrize("absent", ["42", "Six times", "not solved yet", "facts", "Elsewhere"])
def test_solutions_checks_and_facts_are_on_no_slide(absent):
    assert absent not in slides.deck(lesson()).split("<script>")[0]


@pytest.mark.parametrize("absent", ["seed = 0", "ready", "100%", "00_why.ipynb", "Your time"])
def test_code_progress_and_links_to_files_are_on_no_slide(absent):
    assert absent not in slides.deck(lesson()).split("<main>")[1].split("</main>")[0]


def test_a_heading_without_text_is_that_of_the_following_figure():
    notebook = lesson()
    notebook.cells[6].source = "A reading of the figure.\n\n## Step two"
    notebook.cells.insert(7, code("more()", [picture("It falls.")]))
    page = slides.deck(notebook)
    assert headings(page)[1:4] == ["Step one", "Step two", "Before you look: a prediction"]
    assert "It falls." in section(page, 3)


def test_tags_decide_if_there_are_any():
    notebook = lesson()
    notebook.cells[4].metadata.tags = [slides.SLIDE]
    notebook.cells[5].metadata.tags = [slides.MORE]
    notebook.cells[8].metadata.tags = [slides.SLIDE]
    page = slides.deck(notebook)
    assert headings(page) == ["Step one", "Step one"]
    assert "It rises." in section(page, 1)
    assert "seven" in section(page, 2)
    assert "How many" not in page


def test_long_predictions_go_over_several_slides_and_other_texts_into_notes():
    items = [f"{i}. item{i} {'word ' * 60}" for i in range(1, 9)]
    paragraphs = [f"par{i} {'word ' * 60}" for i in range(1, 9)]
    notebook = lesson()
    notebook.cells[4].source = "## Step one\n\n" + "\n\n".join(paragraphs)
    notebook.cells[7].source = "## Before you look: a prediction\n\n" + "\n".join(items)
    page = slides.deck(notebook)
    assert headings(page).count("Step one") == 2  # the text, and the figure for lack of room
    shown, notes = section(page, 2).split("<aside")
    assert "par1" in shown
    assert "par8" in notes
    predictions = [i for i, h in enumerate(headings(page), start=1) if h.startswith("Before")]
    assert len(predictions) > 1
    whole = "".join(section(page, place).split("<aside")[0] for place in predictions)
    assert all(whole.count(f"item{i} ") == 1 for i in range(1, 9))


def test_a_formula_is_never_split():
    formula = "$$\n" + "x = 1 + \n\n" * 200 + "1\n$$"
    pieces = slides._in_pieces(f"{'word ' * 200}\n\n{formula}\n\nend")
    assert len(pieces) == 3
    assert pieces[1] == formula


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "course").mkdir()
    nbformat.write(lesson(), tmp_path / "course" / "00_why.ipynb")
    return tmp_path / "course"


def test_the_command_writes_one_page_per_notebook(folder, tmp_path, capsys):
    to = tmp_path / "new" / "slides"
    assert cli.main(["notebooks", "--slides", str(to), "--from", str(folder)]) == 0
    assert [path.name for path in to.iterdir()] == ["00_why.html"]
    assert "00_why.html" in capsys.readouterr().out


def test_a_notebook_without_outputs_is_refused_and_nothing_written(folder, tmp_path):
    bare = lesson()
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbformat.write(bare, folder / "01_bare.ipynb")
    with pytest.raises(ValueError, match=r"01_bare\.ipynb has no outputs"):
        slides.write(to=tmp_path / "slides", folder=folder)
    assert not (tmp_path / "slides").exists()


def test_slides_exclude_other_uses(folder, tmp_path, capsys):
    arguments = ["notebooks", "--slides", str(tmp_path / "s"), "--student", str(tmp_path / "t")]
    assert cli.main([*arguments, "--from", str(folder)]) != 0
    assert "--slides" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
