"""The explorers in JupyterLab with headless Chromium, used with Playwright's mouse and keyboard.

Assertions concern the page, the kernel and the disk. Screenshots go to runs/screens/.
"""

import json
import os
import re
import signal

import lab
import nbformat
import plotly.express as px
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

import activekd_lite as akd
from activekd_lite.course import pages
from activekd_lite.plots import base as figures
from activekd_lite.plots import report

SETUP = """
import torch
import activekd_lite as akd
from activekd_lite.datasets.shapes import CLASSNAMES, make_shapes

images, labels = make_shapes(300, 0)
data = akd.make_dataset("grid", images, labels, images[:40], labels[:40], CLASSNAMES)
chance = torch.Generator().manual_seed(0)
logits = torch.randn(300, 36, generator=chance) + 4 * torch.nn.functional.one_hot(labels, 36)
probs = logits.softmax(1)
# Image i is at (i % 20, i // 20) on the map.
grid = torch.stack([torch.arange(300) % 20, torch.arange(300) // 20], 1).float()
state = akd.LabelState.empty(300).with_labels(torch.arange(5), labels[:5], 0)
akd.widgets  # imported here, so that it is not counted below
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """JupyterLab on an empty folder, and a browser: `open_notebook(name, cells)`."""
    lab.needs_chromium()
    from playwright.sync_api import sync_playwright

    root = tmp_path_factory.mktemp("lab")
    with lab.jupyterlab(root) as (address, token), sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=lab.CHROMIUM, args=lab.FLAGS)
        context = chromium.new_context(viewport={"width": 1280, "height": 1300})

        def open_notebook(name, cells=None):
            path = root / name if cells is None else lab.written(root, name, cells)
            return lab.Notebook(context, address, token, path, root)

        open_notebook.root, open_notebook.context = root, context

        yield open_notebook
        chromium.close()


class Map:
    """Where on the page the image i of the grid is, in the panel `place`."""

    def __init__(self, notebook, place):
        field = notebook.page.locator(".akd-field").nth(place)
        field.scroll_into_view_if_needed()
        self.box = field.bounding_box()
        self.mouse = notebook.page.mouse

    def at(self, column, row):
        """The range that the map shows is the grid, scaled to 10,000 steps, with an edge of 4 %."""
        side, edge = 10_000, 400
        x, y = column * side / 19, row * side / 19
        scale = min(
            self.box["width"] / (side + 2 * edge), self.box["height"] / (14 * side / 19 + 2 * edge)
        )
        middle = self.box["x"] + self.box["width"] / 2, self.box["y"] + self.box["height"] / 2
        return middle[0] + scale * (x - side / 2), middle[1] - scale * (y - 14 * side / 38)

    def hover(self, column, row):
        self.mouse.move(*self.at(column, row))

    def lasso(self, left, bottom, right, top):
        """Around columns left..right and rows bottom..top."""
        corners = [
            (left - 0.5, bottom - 0.5),
            (right + 0.5, bottom - 0.5),
            (right + 0.5, top + 0.5),
            (left - 0.5, top + 0.5),
        ]
        self.mouse.move(*self.at(*corners[0]))
        self.mouse.down()
        for corner in [*corners[1:], corners[0]]:
            self.mouse.move(*self.at(*corner), steps=4)
        self.mouse.up()


def inside(left, bottom, right, top):
    return [
        20 * row + column for row in range(bottom, top + 1) for column in range(left, right + 1)
    ]


def test_simplex_explorer(browser):
    shared = 'layouts={"grid": grid}, selection=selection'
    explorer = f'akd.widgets.SimplexExplorer(data, {{"teacher": probs}}, {shared})'
    show = [
        f"selection = akd.widgets.Selection()\nfirst = {explorer}\nfirst",
        f"second = {explorer}\nsecond",
    ]
    notebook = browser("simplex", [SETUP, *show])
    for place in (0, 1, 2):
        notebook.run(place)
    page, first, second = notebook.page, notebook.output(1), notebook.output(2)

    # hover: picture at the mouse, card with the five likeliest classes from the kernel
    grid = Map(notebook, 1)
    grid.hover(7, 3)
    first.locator(".akd-tip").wait_for(state="visible")
    first.locator(".activekd-card").get_by_text("image 67", exact=True).wait_for()
    assert first.locator(".activekd-card tr").count() == 5
    assert first.locator(".activekd-card img[alt='image 67']").count() == 1

    # lasso on the map, seen by both explorers and the kernel
    grid.lasso(2, 4, 5, 6)
    said = "12 selected."
    first.locator(".activekd-summary").get_by_text(said).wait_for()
    notebook.screenshot("simplex-lasso", 1)
    second.locator(".activekd-summary").get_by_text(said).wait_for()
    assert notebook.ask(3, "first.selected.tolist()") == inside(2, 4, 5, 6)
    assert notebook.ask(3, "second.selected.tolist()") == inside(2, 4, 5, 6)
    assert (
        first.get_by_role("textbox", name="selected")
        .input_value()
        .startswith("82, 83, 84, 85, 102")
    )
    assert first.locator(".activekd-selection img").count() == 12

    # from the keyboard: type indices; arrows, space and Escape on the map
    typed = second.get_by_role("textbox", name="selected")
    typed.fill("3, 17")
    typed.press("Enter")
    first.locator(".activekd-summary").get_by_text("2 selected.").wait_for()
    first.locator(".akd-field").nth(1).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    first.locator(".activekd-summary").get_by_text("3 selected.").wait_for()
    assert {3, 17} < set(notebook.ask(3, "first.selected.tolist()"))
    first.locator(".akd-field").nth(1).focus()
    page.keyboard.press("Escape")
    first.locator(".activekd-summary").get_by_text("0 selected.").wait_for()

    # choose corners and colours; a class that stands elsewhere changes places
    first.get_by_role("combobox", name="left").select_option("rest")
    first.locator(".activekd-summary").get_by_text("all 300 images between rest").wait_for()
    before = notebook.ask(3, "first.corners")
    first.get_by_role("combobox", name="right").select_option("rest")
    first.locator(".activekd-summary").get_by_text(f"between {before[1]}, rest").wait_for()
    assert notebook.ask(3, "first.corners") == [before[1], "rest", before[2]]
    for colour, shown in (("confidence", "100% confidence"), ("prediction", ""), ("cluster", "")):
        first.get_by_role("combobox", name="colour").select_option(colour)
        first.locator(".activekd-summary").get_by_text(f"Colour: {colour}.").wait_for()
        assert shown in first.locator(".akd-key").inner_text()

    page.set_viewport_size({"width": 800, "height": 1300})
    notebook.screenshot("simplex-800", 1)
    page.set_viewport_size({"width": 1280, "height": 1300})

    # what is saved is small and has no widget state
    notebook.save()
    saved = notebook.path.read_text()
    assert "widget-view+json" in saved
    assert len(saved) < 1_000_000
    assert "widgets" not in json.loads(saved)["metadata"]

    notebook.ask(3, "first.close()")
    first.locator(".akd-field").first.wait_for(state="detached")
    assert second.locator(".akd-field").count() == 2
    notebook.close()


STEPPER = """
predictions = akd.Predictions(probs, grid, probs)
stepper = akd.widgets.PCoreSetStepper(data, predictions, state, budget=8, layout=grid)
stepper
"""


def test_stepper(browser):
    notebook = browser("stepper", [SETUP, STEPPER])
    notebook.run(0)
    notebook.run(1)
    out = notebook.output(1)
    left, right = out.locator(".activekd-step-left"), out.locator(".activekd-step-right")
    left.get_by_text("pcoreset: 0 of 8 picks").wait_for()
    for _ in range(3):
        out.get_by_role("button", name="step").click()
    left.get_by_text("pcoreset: 3 of 8 picks").wait_for()
    out.get_by_role("button", name="back").click()
    left.get_by_text("pcoreset: 2 of 8 picks").wait_for()
    picks = notebook.ask(2, "stepper.picks")
    assert left.locator(f"img[alt='image {picks['pcoreset'][2]}']").count() == 1  # the next one
    assert [left.locator(f"img[alt='image {i}']").count() for i in picks["pcoreset"][:3]] == [
        1,
        1,
        1,
    ]
    radius = notebook.ask(2, "float(stepper.radii['pcoreset'][2])")
    assert f"covering radius {radius:.2f}" in left.inner_text()
    notebook.screenshot("stepper", 1)

    out.get_by_role("combobox", name="compare with").select_option("uncertainty")
    right.get_by_text("uncertainty: 2 of 8 picks").wait_for()
    assert notebook.ask(2, "list(stepper.radii)") == ["pcoreset", "uncertainty"]
    assert "uncertainty" in (
        out.locator(".widget-subarea .legend, .jupyter-widgets .legend").first.text_content() or ""
    )

    out.locator(".widget-play button").first.click()  # it plays to the end by itself
    left.get_by_text("pcoreset: 8 of 8 picks").wait_for(timeout=30_000)
    assert notebook.ask(2, "stepper.at") == 8
    notebook.close()


TWIN = "Run this cell to use the explorer."


def test_a_saved_explorer_is_a_still_picture_until_its_cell_is_run(browser):
    show = 'akd.widgets.SimplexExplorer(data, probs, layouts={"grid": grid})'
    notebook = browser("alive", [SETUP, show, f"{STEPPER}akd.widgets.RunViewer(data)"])
    for place in (0, 1, 2):
        notebook.run(place)
    notebook.output(1).locator(".akd-field").first.wait_for()
    lab.wait(
        lambda: "js-plotly-plot" in notebook.output(1).inner_html(),
        20,
        lambda: "no twin in the page",
    )
    notebook.page.wait_for_timeout(1200)  # as long as a twin waits for its widget
    for place in (1, 2):
        assert TWIN not in notebook.output(place).inner_text(), (
            "the twin is hidden beside what is alive"
        )
    assert notebook.output(1).locator(".js-plotly-plot").is_hidden()
    notebook.save()
    notebook.close()
    saved = notebook.path.read_text()
    assert len(saved) < 1_000_000
    assert "widgets" not in json.loads(saved)["metadata"]

    changed = nbformat.reads(saved, 4)
    changed.cells[0].source += "\n# by somebody else: JupyterLab does not trust it"
    for name, text in (("trusted", saved), ("untrusted", nbformat.writes(changed))):
        (browser.root / f"{name}.ipynb").write_text(text)
        reopened = browser(f"{name}.ipynb")
        for place in (1, 2):
            out = reopened.output(place)
            out.scroll_into_view_if_needed()
            out.get_by_text(TWIN).wait_for(state="visible")
            out.locator(".js-plotly-plot").first.wait_for(state="visible")
            reopened.page.wait_for_timeout(1500)
            assert not re.search(r"Error|Loading widget|VBox\(", out.inner_text())
            reopened.screenshot(f"reopened-{name}", place)
        reopened.troubles = [
            t for t in reopened.troubles if "widget model not found" not in t
        ]  # said to the console alone
        if name == "trusted":
            reopened.run(0)
            reopened.run(1)
            reopened.output(1).locator(".akd-field").first.wait_for()
            assert TWIN not in reopened.output(1).inner_text()
        reopened.close()


LEAK = """
import gc, os, psutil
from ipywidgets.widgets.widget import _instances
selection = akd.widgets.Selection()
def once():
    explorer = akd.widgets.SimplexExplorer(data, probs, layouts={"grid": grid}, selection=selection)
    explorer.widget  # models in the page, as if shown
    explorer.close()
once()
gc.collect()
alive, before = len(_instances), psutil.Process().memory_info().rss
for _ in range(50):
    once()
gc.collect()
grown = (psutil.Process().memory_info().rss - before) / 2**20
"""


def test_fifty_explorers_leave_nothing_behind(browser):
    notebook = browser("leak", [SETUP, LEAK])
    notebook.run(0)
    notebook.run(1, 300)
    assert notebook.ask(2, "len(_instances) - alive") == 0
    notifiers = "selection._trait_notifiers.get('indices', {}).get('change', [])"
    assert notebook.ask(2, f"selection.has_trait('indices') and len({notifiers})") == 0
    assert notebook.ask(2, "grown") < 50
    notebook.close()


DIGITS = """
import os
import torch
import activekd_lite as akd

digits = akd.load_dataset("digits")
truth = digits.oracle.label(torch.arange(150))
data = akd.make_dataset(
    "small", digits.pool.images[:150], truth, digits.test.images[:100], digits.test.labels[:100],
    digits.classnames, digits.templates, digits.pool.augmentation, student="tiny-cnn",
)
model = akd.load_vlm(device="cpu")
cache = akd.TeacherCache.build(model, data.pool, views=2, root="cache", progress=False)
teacher = akd.ZeroShotTeacher(cache, model.text_weights(data.classnames, data.templates))
akd.widgets
"""
LABEL = """
labeller = akd.widgets.Labeller(
    data, teacher, rounds=2, query_size=10, out="mine", train=akd.TrainConfig(steps=8, batch_size=8)
)
labeller
"""


class Labelling:
    """The Labeller's page in the output of a cell, answered from the keyboard."""

    def __init__(self, notebook, place, truth):
        self.notebook, self.place, self.truth = notebook, place, truth
        self.part = lambda name: notebook.output(place).locator(f".activekd-labeller-{name}")

    def shown(self, other_than=None):
        """The pool index of the image that is asked about."""

        def text():
            return (
                self.part("image").get_attribute("alt") or ""
                if self.part("image").is_visible()
                else ""
            )

        lab.wait(
            lambda: text() not in ("", f"image {other_than} of the pool"),
            60,
            lambda: self.part("progress").inner_text(),
        )
        return int(text().split()[1])

    def press(self, key):
        self.notebook.output(self.place).locator(".activekd-labeller").focus()
        self.notebook.page.keyboard.press(key)

    def answer(self, label=None):
        index = self.shown()
        self.press(str(self.truth[index] if label is None else label))
        return index, self.shown(other_than=index)

    def says(self, name, text):
        self.part(name).get_by_text(text).or_(
            self.part(name).filter(has_text=text)
        ).first.wait_for()


def test_label_with_keys_undo_kill_the_kernel_and_go_on(browser):
    notebook = browser("label", [DIGITS, LABEL])
    notebook.run(0)
    truth = notebook.ask(2, "truth.tolist()")
    notebook.run(1)
    page, journal = Labelling(notebook, 1, truth), notebook.path.parent / "mine" / "answers.jsonl"
    notebook.output(1).scroll_into_view_if_needed()
    page.shown()
    assert "teacher" not in page.part("feedback").inner_text(), (
        "what the teacher says is not shown before the answer"
    )

    given = [page.answer()[0] for _ in range(7)]
    page.says("feedback", f"Your label: {truth[given[-1]]}.")
    assert "teacher" in page.part("feedback").inner_text()
    for last in given[:-3:-1]:
        before = page.shown()
        page.press("u")
        assert page.shown(other_than=before) == last
    page.says("feedback", "Undone")
    page.press("s")  # the one undone last is asked again at the end of the query
    page.says("feedback", "Skipped")
    for _ in range(3):
        page.answer()
    page.says("progress", "8 of 20 labelled, query 1 of 2")
    notebook.screenshot("labeller", 1)
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    kinds = [
        kind
        for event in events
        for kind in ("answer", "undo", "skip")
        if kind in str(event.values())
    ]
    assert [kinds.count(kind) for kind in ("answer", "undo", "skip")] == [10, 2, 1], events[1:3]
    assert notebook.page.locator(".jp-CodeCell").count() == 3, (
        "the keys were for the labeller, not for the notebook"
    )

    os.kill(notebook.ask(2, "os.getpid()"), signal.SIGKILL)
    notebook.restarted()
    notebook.run(0)
    notebook.run(1)
    page.says("progress", "8 of 20 labelled, query 1 of 2")
    assert [json.loads(line) for line in journal.read_text().splitlines()] == events, (
        "nothing lost, nothing twice"
    )
    page.answer()
    last = page.shown()
    page.press(str((truth[last] + 1) % 10))  # wrong, to be found below
    page.says("rounds", "round 0")
    page.says("progress", "10 of 20 labelled, query 2 of 2")
    assert notebook.ask(2, "len(labeller.records)") == 1
    answers = notebook.ask(2, "labeller.answers[['index', 'label', 'true']].values.tolist()")
    assert len(answers) == 10
    assert [row[0] for row in answers if row[1] != row[2]] == [last]
    assert notebook.ask(2, "float(labeller.journal.seconds)") > 0
    notebook.ask(2, "labeller.close()")
    notebook.troubles = [
        t for t in notebook.troubles if "Kernel" not in t and "WebSocket" not in t
    ]  # of the kill
    notebook.close()


def test_pages_and_the_report_ask_nobody_and_offer_no_upload(browser, tmp_path):
    study = akd.sweep.load(akd.sweep.STUDY)
    part = study[
        (study["dataset"] == "digits")
        & study["strategy"].isin(["random", "pcoreset"])
        & (study["seed"] < 3)
    ]
    report.write(part, tmp_path / "report.html")
    ours = figures.Figure(px.line(x=[1, 2], y=[3, 4]), alt="A line rises from 3 to 4.")
    ours.write_page(tmp_path / "figure.html")
    theirs = px.line(x=[1, 2], y=[3, 4])  # a learner's own, without our template
    outputs = [
        new_output("display_data", {figures.PLOTLY: json.loads(figure.to_json())})
        for figure in (ours, theirs)
    ]
    notebook = nbformat.from_dict(new_notebook(cells=[new_code_cell("figure", outputs=outputs)]))
    pages.page(notebook, tmp_path / "notebook.html")
    for name in ("report", "figure", "notebook"):
        page = browser.context.new_page()
        requests, path = lab.requests_of(page), (tmp_path / f"{name}.html").as_uri()
        page.goto(path)
        page.locator(".modebar-btn").first.wait_for(state="attached")
        lab.wait(
            lambda page=page: page.locator(".js-plotly-plot:not(:has(.modebar-btn))").count() == 0,
            20,
            lambda: "no toolbar",
        )
        assert not lab.upload_buttons(page), name
        assert path in requests
        assert not [url for url in requests if not url.startswith(tmp_path.as_uri())], name
        page.close()


HIDE = """hidden => {
  Object.defineProperty(document, 'hidden', { get: () => hidden, configurable: true });
  document.dispatchEvent(new Event('visibilitychange'));
}"""


def test_the_clock_runs_only_while_somebody_can_see_the_image(browser):
    notebook = browser(
        "clock",
        [DIGITS, "%%html\n<div style='height: 3000px'></div>", LABEL.replace('"mine"', '"clock"')],
    )
    notebook.run(0)
    truth = notebook.ask(3, "truth.tolist()")
    notebook.run(1)
    notebook.start(2)
    notebook.finished(2)
    page, journal, tab = (
        Labelling(notebook, 2, truth),
        notebook.path.parent / "clock" / "answers.jsonl",
        notebook.page,
    )
    waits = 3.0
    notebook.cell(0).scroll_into_view_if_needed()
    tab.wait_for_timeout(1000 * waits)  # the image is out of sight
    page.part("image").scroll_into_view_if_needed()
    tab.wait_for_timeout(1000 * waits)  # nobody has touched the widget
    page.answer()
    tab.evaluate(HIDE, True)
    tab.wait_for_timeout(1000 * waits)  # another tab is in front
    tab.evaluate(HIDE, False)
    page.answer()
    notebook.cell(0).scroll_into_view_if_needed()
    tab.wait_for_timeout(1000 * waits)  # scrolled away between two answers
    page.part("image").scroll_into_view_if_needed()
    page.answer()
    tab.wait_for_timeout(1000 * waits)  # looked at
    page.answer()
    seconds = [
        json.loads(line)["seconds"]
        for line in journal.read_text().splitlines()
        if '"answer"' in line
    ]
    assert len(seconds) == 4
    assert max(seconds[:3]) < waits <= seconds[3], seconds
    notebook.ask(3, "labeller.close()")
    notebook.close()


def test_prompts_are_asked_while_they_are_typed(browser):
    notebook = browser(
        "prompts", [DIGITS, "prompts = akd.widgets.PromptExplorer(data, model, cache)\nprompts"]
    )
    notebook.run(0)
    notebook.run(1)
    out = notebook.output(1)
    names, templates = (
        out.locator(".activekd-classnames textarea"),
        out.locator(".activekd-templates textarea"),
    )
    message = out.locator(".activekd-message")
    before = notebook.ask(2, "[prompts.probs[:, 3].mean().item(), prompts.accuracy_pct]")
    names.click()
    notebook.page.keyboard.press("Control+Home")
    for _ in range(3):
        notebook.page.keyboard.press("ArrowDown")
    notebook.page.keyboard.press("End")
    notebook.page.keyboard.type(" zebra", delay=30)
    message.get_by_text("zebra").first.wait_for()
    assert notebook.ask(2, "prompts.classnames[3]") == "3 zebra"
    assert notebook.ask(2, "prompts.unknown_words") == ["zebra"]
    assert notebook.ask(2, "[prompts.probs[:, 3].mean().item(), prompts.accuracy_pct]") != before
    notebook.screenshot("prompts", 1)

    templates.fill("a photo without a place for it")
    lab.wait(lambda: "{}" in message.inner_text(), 20, message.inner_text)
    assert notebook.ask(2, "prompts.templates") == list(notebook.ask(2, "data.templates"))
    out.locator(".activekd-reset button, button.activekd-reset").first.click()
    lab.wait(lambda: "zebra" not in message.inner_text(), 20, message.inner_text)
    assert notebook.ask(
        2, "[prompts.probs[:, 3].mean().item(), prompts.accuracy_pct]"
    ) == pytest.approx(before, abs=1e-6)
    out.locator(".activekd-corner select").first.select_option("rest")
    assert notebook.ask(2, "prompts.corners[0]") == "rest"
    assert out.locator(".activekd-confusions").inner_text().strip()
    notebook.close()


PATIENT = """
import pathlib, time

def patient(predictions, state, query_size, *, generator):
    # The second query waits until the test has seen the first.
    while len(state.labeled_indices) > 10 and not pathlib.Path("seen").exists():
        time.sleep(0.05)
    return state.unlabeled_indices[:query_size]

viewer = akd.widgets.RunViewer(data)
train = akd.TrainConfig(steps=60)
result = viewer.run(teacher, strategy=patient, rounds=2, query_size=5, train=train)
"""


def test_a_run_is_watched(browser):
    notebook = browser("viewer", [DIGITS, PATIENT])
    notebook.run(0)
    notebook.start(1)
    out = notebook.output(1)
    pictures = out.locator(".activekd-queries img")
    pictures.first.wait_for(timeout=60_000)
    assert "*" in (notebook.cell(1).locator(".jp-InputPrompt").text_content() or ""), (
        "shown only when the run was over"
    )
    (browser.root / "seen").touch()
    notebook.finished(1)
    queries = notebook.ask(2, "[r.query_indices for r in result.records]")
    lab.wait(lambda: pictures.count() >= 10, 20, lambda: f"{pictures.count()} pictures")
    for index in queries[0] + queries[1]:
        assert out.locator(f".activekd-queries img[alt='image {index}']").count() == 1
    accuracy = notebook.ask(2, "[r.accuracy_pct for r in result.records]")
    curve = (
        "() => document.querySelector('.js-plotly-plot')._fullData.map(t => Array.from(t.y || []))"
    )
    assert any(
        len(y) == 3 and y == pytest.approx(accuracy, abs=0.01)
        for y in notebook.page.evaluate(curve)
    )
    notebook.screenshot("viewer", 1)
    notebook.close()


COURSE = {  # smaller than by default, where a notebook can be: what is tested here is its face
    "02_simplex_and_umap": ({"most": 300}, [".activekd-simplex"]),
    "03_selection_strategies": ({"seeds": [0]}, [".activekd-stepper"]),
    "07_label_it_yourself": ({}, [".activekd-labeller-image"]),
    "08_your_images_and_clip": (
        {"images_per_class": 6},
        [".activekd-prompts", ".activekd-simplex"],
    ),
}


@pytest.mark.parametrize("name", COURSE)
def test_a_notebook_of_the_course_is_opened_and_run(browser, name):
    changes, explorers = COURSE[name]
    notebook = nbformat.read(lab.ROOT / "notebooks" / f"{name}.ipynb", 4)
    notebook.cells[1].source += "".join(f"\n{key} = {value!r}" for key, value in changes.items())
    folder = browser.root / "notebooks"
    folder.mkdir(exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    opened = browser(f"notebooks/{name}.ipynb")
    opened.run_all()
    assert opened.page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    for explorer in explorers:
        shown = opened.page.locator(explorer).first
        shown.scroll_into_view_if_needed()
        shown.wait_for(state="visible")
        opened.screenshot(f"{name[:2]}{explorer.replace('.activekd', '')}")
    opened.close()
