"""The parts that all notebooks share: the picture "you are here", and multiple-choice questions."""

import re
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import activekd_lite as akd
from activekd_lite.course import here, notebooks, pages

pytestmark = pytest.mark.unit
ASK = (
    "What is covered by `PCoreSet`?",
    ["features <x>", "the student's answers"],
    1,
    ["No.", "$p$"],
)


@pytest.mark.parametrize("step", here.STEPS)
def test_the_picture_is_small_and_says_in_words_where_you_are(step):
    drawn = akd.notebooks.you_are_here(step)
    assert len(drawn.html.encode()) < 4000
    svg = ElementTree.fromstring(drawn.html)
    assert svg.get("role") == "img"
    assert here.STEPS[step][1] in svg.get("aria-label")
    assert drawn._repr_mimebundle_() == {"text/html": drawn.html, "text/plain": drawn.text}
    assert svg.get("aria-label") == drawn.text
    assert "id=" not in drawn.html  # two pictures in one page do not disturb each other
    assert not re.search("<script|<style|https?://(?!www.w3.org/2000/svg)", drawn.html)


def test_each_step_looks_different():
    assert len({akd.notebooks.you_are_here(step).html for step in here.STEPS}) == len(here.STEPS)
    frames = {step: akd.notebooks.you_are_here(step).html.count("<rect") - 1 for step in here.STEPS}
    assert (frames["teacher"], frames["student"], frames["run"], frames["loop"]) == (1, 2, 3, 4)


def test_an_unknown_step_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown step 'techer'; known are loop, teacher"):
        akd.notebooks.you_are_here("techer")


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("background", ["#ffffff", "#212121", "#111111"])
def test_colours_can_be_told_from_both_themes(background):
    used = {*re.findall("#[0-9A-F]{6}", akd.notebooks.you_are_here("loop").html)}
    assert used == {here.ACCENT, here.PICK}
    for colour in used:
        low, high = sorted([luminance(colour), luminance(background)])
        assert (high + 0.05) / (low + 0.05) >= 3


def test_each_option_opens_to_its_explanation():
    asked = akd.notebooks.question(*ASK)
    options = re.findall(r"<details.*?><summary.*?>(.*?)</summary><p.*?>(.*?)</p>", asked.html)
    assert [option for option, _ in options] == [
        "A. features &lt;x&gt;",
        "B. the student's answers",
    ]
    assert ["Right" in verdict for _, verdict in options] == [False, True]
    assert options[1][1].endswith("$p$")
    assert "<code>PCoreSet</code>" in asked.html
    assert asked.html.count("<details") == asked.html.count("</details>") == 2
    assert "open" not in re.findall("<details[^>]*>", asked.html)[0]
    assert "script" not in asked.html
    assert asked._repr_mimebundle_()["text/plain"] == asked.text
    assert "Right" not in asked.text  # plain text cannot fold


@pytest.mark.parametrize(
    ("options", "right", "why", "message"),
    [
        (["a"], 0, ["x"], "2 to 26 different options"),
        (["a", "a"], 0, ["x", "y"], "2 to 26 different options"),
        (["a", "b"], 0, ["x"], "each of the 2 options needs a reason; got 1"),
        (["a", "b"], 2, ["x", "y"], "right = 2 is no option; allowed are 0 to 1"),
        (["a", "b"], True, ["x", "y"], "right = True is no option"),
        (["a", "b"], 0, ["x", " "], "no reason for b"),
    ],
)
def test_a_question_that_does_not_fit_together_is_refused(options, right, why, message):
    with pytest.raises(ValueError, match=message):
        akd.notebooks.question("Why?", options, right, why)


def test_a_saved_page_shows_question_and_picture_but_not_which_option_is_right(tmp_path):
    code = f"akd.notebooks.question(*{ASK!r})  # secret"
    cells = [new_code_cell(code, metadata={"tags": ["question"]}), new_code_cell("visible = 1")]
    for cell, shown in zip(
        cells, (notebooks.question(*ASK), here.you_are_here("run")), strict=True
    ):
        data = shown._repr_mimebundle_()
        cell.outputs = [nbformat.v4.new_output("display_data", data)]
    notebook = new_notebook(cells=cells)
    notebooks.keep_only_tags(notebook)
    assert cells[0].metadata == {"tags": ["question"], "jupyter": {"source_hidden": True}}
    pages.page(notebook, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<summary" in page
    assert 'aria-label="The teacher' in page
    assert "secret" not in page
    assert "visible" in page


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("answer = None", "answer"),
        ("def zero_shot(image):\n    ...  # your code here", "zero_shot"),
        ("import torch\n\ndef loss(x): ...", "loss"),
        ("def broken(:", "answer"),
    ],
)
def test_the_name_of_an_answer_is_that_of_its_variable_or_function(code, name):
    assert notebooks.answer_name(code) == name


def test_formulas_of_a_saved_page_are_mathml():
    kept = "Not `$x$`, nor $5 and $6, nor\n```\n$y$\n```"
    text = f"A point $p_1 \\ge 0$, and\n$$\\sum_c p_c = 1.$$\n{kept}"
    shown = pages.with_mathml(text)
    maths = [ElementTree.fromstring(m) for m in re.findall(r"<math.*?</math>", shown, re.S)]
    assert [m.get("display") for m in maths] == ["inline", "block"]
    assert "".join(maths[0].itertext()) == "p1≥0"
    assert shown.endswith(kept)


def test_every_formula_of_the_course_can_be_drawn():
    cells = [
        cell.source
        for path in notebooks.find()
        for cell in pages.read_notebook(path).cells
        if cell.cell_type == "markdown"
    ]
    drawn = pages.with_mathml("\n\n".join(cells))
    assert drawn.count("<math") > 100
    assert "$" not in pages.CODE_OR_FORMULA.sub("", "\n\n".join(cells)), "a formula without an end"
    assert "\\" not in "".join(re.findall(r"<math.*?</math>", drawn, re.S)), "an unknown command"
