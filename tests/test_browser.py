"""The explorers as a hand uses them: JupyterLab on a loopback port, headless Chromium, Playwright's mouse and keyboard.

What is asserted is what the page shows and what reached kernel and disk. Screenshots go to runs/screens/.
"""

import json

import lab
import pytest

SETUP = """
import torch
import activekd_lite as akd
from activekd_lite.shapes import CLASSNAMES, make_shapes

images, labels = make_shapes(300, 0)
data = akd.make_dataset("grid", images, labels, images[:40], labels[:40], CLASSNAMES)
chance = torch.Generator().manual_seed(0)
probs = (torch.randn(300, 36, generator=chance) + 4 * torch.nn.functional.one_hot(labels, 36)).softmax(1)
grid = torch.stack([torch.arange(300) % 20, torch.arange(300) // 20], 1).float()  # where image i is on the map
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

        def open_notebook(name, cells):
            return lab.Notebook(context, address, token, lab.written(root, name, cells), root)

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
        scale = min(self.box["width"] / (side + 2 * edge), self.box["height"] / (14 * side / 19 + 2 * edge))
        middle = self.box["x"] + self.box["width"] / 2, self.box["y"] + self.box["height"] / 2
        return middle[0] + scale * (x - side / 2), middle[1] - scale * (y - 14 * side / 38)

    def hover(self, column, row):
        self.mouse.move(*self.at(column, row))

    def lasso(self, left, bottom, right, top):
        """Around columns left..right and rows bottom..top."""
        corners = [(left - 0.5, bottom - 0.5), (right + 0.5, bottom - 0.5), (right + 0.5, top + 0.5), (left - 0.5, top + 0.5)]
        self.mouse.move(*self.at(*corners[0]))
        self.mouse.down()
        for corner in [*corners[1:], corners[0]]:
            self.mouse.move(*self.at(*corner), steps=4)
        self.mouse.up()


def inside(left, bottom, right, top):
    return [20 * row + column for row in range(bottom, top + 1) for column in range(left, right + 1)]


def test_simplex_explorer(browser):
    explorer = 'akd.widgets.SimplexExplorer(data, {"teacher": probs}, layouts={"grid": grid}, selection=selection)'
    show = [f"selection = akd.widgets.Selection()\nfirst = {explorer}\nfirst", f"second = {explorer}\nsecond"]
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
    first.locator(".activekd-said").get_by_text(said).wait_for()
    notebook.screenshot("simplex-lasso", 1)
    second.locator(".activekd-said").get_by_text(said).wait_for()
    assert notebook.ask(3, "first.selected.tolist()") == inside(2, 4, 5, 6)
    assert notebook.ask(3, "second.selected.tolist()") == inside(2, 4, 5, 6)
    assert first.get_by_role("textbox", name="selected").input_value().startswith("82, 83, 84, 85, 102")
    assert first.locator(".activekd-selection img").count() == 12

    # from the keyboard: type indices; arrows, space and Escape on the map
    typed = second.get_by_role("textbox", name="selected")
    typed.fill("3, 17")
    typed.press("Enter")
    first.locator(".activekd-said").get_by_text("2 selected.").wait_for()
    first.locator(".akd-field").nth(1).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    first.locator(".activekd-said").get_by_text("3 selected.").wait_for()
    assert {3, 17} < set(notebook.ask(3, "first.selected.tolist()"))
    first.locator(".akd-field").nth(1).focus()
    page.keyboard.press("Escape")
    first.locator(".activekd-said").get_by_text("0 selected.").wait_for()

    # choose corners and colours; a class that stands elsewhere changes places
    first.get_by_role("combobox", name="left").select_option("rest")
    first.locator(".activekd-said").get_by_text("all 300 images between rest").wait_for()
    before = notebook.ask(3, "first.corners")
    first.get_by_role("combobox", name="right").select_option("rest")
    first.locator(".activekd-said").get_by_text(f"between {before[1]}, rest").wait_for()
    assert notebook.ask(3, "first.corners") == [before[1], "rest", before[2]]
    for colour, shown in (("confidence", "100% sure"), ("prediction", ""), ("cluster", "")):
        first.get_by_role("combobox", name="colour").select_option(colour)
        first.locator(".activekd-said").get_by_text(f"Colour: {colour}.").wait_for()
        assert shown in first.locator(".akd-key").inner_text()

    page.set_viewport_size({"width": 800, "height": 1300})
    notebook.screenshot("simplex-800", 1)
    page.set_viewport_size({"width": 1280, "height": 1300})

    # what is saved is small and has no widget state
    page.keyboard.press("Escape")
    page.keyboard.press("Control+S")
    lab.wait(lambda: "widget-view+json" in notebook.path.read_text(), 20, lambda: "the notebook was not saved")
    saved = notebook.path.read_text()
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
    assert [left.locator(f"img[alt='image {i}']").count() for i in picks["pcoreset"][:3]] == [1, 1, 1]
    radius = notebook.ask(2, "float(stepper.radii['pcoreset'][2])")
    assert f"covering radius {radius:.2f}" in left.inner_text()
    notebook.screenshot("stepper", 1)

    out.get_by_role("combobox", name="beside it").select_option("uncertainty")
    right.get_by_text("uncertainty: 2 of 8 picks").wait_for()
    assert notebook.ask(2, "list(stepper.radii)") == ["pcoreset", "uncertainty"]
    assert "uncertainty" in (out.locator(".legend").text_content() or "")

    out.locator(".widget-play button").first.click()  # it plays to the end by itself
    left.get_by_text("pcoreset: 8 of 8 picks").wait_for(timeout=30_000)
    assert notebook.ask(2, "stepper.at") == 8
    notebook.close()


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
    assert (
        notebook.ask(
            2, "selection.has_trait('indices') and len(selection._trait_notifiers.get('indices', {}).get('change', []))"
        )
        == 0
    )
    assert notebook.ask(2, "grown") < 50
    notebook.close()
