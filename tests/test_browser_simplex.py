"""`SimplexExplorer`: mouse and keyboard in a plain tab; a shared selection in JupyterLab."""

import json

import pytest
import torch
from lab import SETUP

import activekd_lite as akd
from activekd_lite.datasets.shapes import CLASSNAMES, make_shapes


@pytest.fixture(scope="module")
def grid():
    """300 images of shapes on a map where image i is at (i % 20, i // 20), and their answers."""
    images, labels = make_shapes(300, 0)
    data = akd.make_dataset("grid", images, labels, images[:40], labels[:40], CLASSNAMES)
    chance = torch.Generator().manual_seed(0)
    true = torch.nn.functional.one_hot(labels, 36)
    answers = [(torch.randn(300, 36, generator=chance) + k * true).softmax(1) for k in (4, 6)]
    places = torch.stack([torch.arange(300) % 20, torch.arange(300) // 20], 1).float()
    return data, dict(zip(("teacher", "student"), answers, strict=True)), {"grid": places}


@pytest.fixture
def explorer(grid):
    data, answers, layouts = grid
    return akd.widgets.SimplexExplorer(data, answers, layouts=layouts)


class Map:
    """Where on the page the image i of the grid is, in the panel `place`."""

    def __init__(self, page, place):
        field = page.locator(".akd-field").nth(place)
        field.scroll_into_view_if_needed()
        self.box = field.bounding_box()
        self.mouse = page.mouse

    def at(self, column, row):
        """The range that the map shows is the grid, scaled to 10,000 steps, with an edge of 4 %."""
        side, edge = 10_000, 400
        x, y = column * side / 19, row * side / 19
        width, height = self.box["width"] - 2, self.box["height"] - 2  # within the border
        scale = min(width / (side + 2 * edge), height / (14 * side / 19 + 2 * edge))
        middle = self.box["x"] + 1 + width / 2, self.box["y"] + 1 + height / 2
        return middle[0] + scale * (x - side / 2), middle[1] - scale * (y - 14 * side / 38)

    def hover(self, column, row):
        self.mouse.move(*self.at(column, row))

    def lasso(self, left, bottom, right, top):
        """Around columns left..right and rows bottom..top."""
        corners = [(left, bottom), (right, bottom), (right, top), (left, top)]
        shift = [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]
        path = [(x + u, y + v) for (x, y), (u, v) in zip(corners, shift, strict=True)]
        self.mouse.move(*self.at(*path[0]))
        self.mouse.down()
        for corner in [*path[1:], path[0]]:
            self.mouse.move(*self.at(*corner), steps=4)
        self.mouse.up()


def inside(left, bottom, right, top):
    return [
        20 * row + column for row in range(bottom, top + 1) for column in range(left, right + 1)
    ]


def test_hover_shows_the_image_and_its_answers(explorer, stage):
    shown = stage(explorer)
    shown.wait(200)
    Map(shown.page, 1).hover(7, 3)
    shown.wait(300)
    assert shown.page.locator(".akd-tip").is_visible()
    card = shown.page.locator(".akd-detail")
    assert card.get_by_text("image 67", exact=True).is_visible()
    assert card.locator(".akd-bars i").count() == 6  # three classes of two sets of answers
    assert explorer.widget.hovered == 67


def test_a_lasso_selects_and_the_selection_is_grouped_by_answer(explorer, stage):
    shown = stage(explorer)
    shown.wait(200)
    Map(shown.page, 1).lasso(2, 4, 5, 6)
    shown.wait(300)
    assert explorer.selected.tolist() == inside(2, 4, 5, 6)
    grouped = shown.page.locator(".akd-selection")
    assert grouped.get_by_text("12 selected, by answer").is_visible()
    answers = explorer.probs["teacher"][explorer.selected].argmax(1).tolist()
    names = [CLASSNAMES[k] for k in answers]
    sizes = sorted(map(names.count, set(names)), reverse=True)
    assert [row["count"] for row in explorer.widget.view["selection"]] == sizes
    assert grouped.locator("img").count() == 12
    shown.page.get_by_role("button", name="Reset").click()
    shown.wait(200)
    assert not len(explorer.selected)


def test_from_the_keyboard(explorer, stage):
    shown = stage(explorer)
    typed = shown.page.get_by_role("textbox", name="select images by number")
    typed.fill("3, 17, 5000")
    typed.press("Enter")
    shown.wait(200)
    assert explorer.selected.tolist() == [3, 17]
    field = shown.page.locator(".akd-field").nth(1)
    Map(shown.page, 1).hover(7, 3)
    field.focus()
    for key in ("ArrowRight", "ArrowUp", "Space"):
        shown.page.keyboard.press(key)
    shown.wait(200)
    assert explorer.selected.tolist() == [3, 17, 88], "right of and above image 67"
    shown.page.keyboard.press("Escape")
    shown.wait(200)
    assert not len(explorer.selected)
    search = shown.page.get_by_role("combobox", name="find class")
    search.fill("solid heart")
    search.press("Enter")
    shown.wait(200)
    heart = explorer.probs["teacher"].argmax(1) == CLASSNAMES.index("solid heart")
    assert explorer.selected.tolist() == torch.nonzero(heart).flatten().tolist()
    search.fill("a zebra")
    search.press("Enter")
    shown.wait(200)
    assert "zebra" in shown.page.locator(".akd-status.akd-error").inner_text()


def choose_corner(shown, side, name):
    shown.page.get_by_role("button", name=f"{side} corner").click()
    shown.page.get_by_role("searchbox", name="search the classes").fill(name)
    shown.page.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()
    shown.wait(200)


def test_corners_are_chosen_and_suggested(explorer, stage):
    shown = stage(explorer)
    before = explorer.corners
    choose_corner(shown, "left", "rest")
    assert explorer.corners == ["rest", *before[1:]]
    choose_corner(shown, "right", "rest")
    assert explorer.corners == [before[1], "rest", before[2]], "the two change places"
    shown.page.get_by_role("button", name="left corner").click()
    offered = shown.page.get_by_role("dialog").get_by_role("button").first
    best, share = explorer.widget.view["suggestions"][0][0]
    assert offered.inner_text() == f"{best} ({100 * share:.1f}\u00a0%)"
    place = CLASSNAMES.index(explorer.corners[0])
    probs = explorer.probs["teacher"]
    mean = probs[probs.argmax(1) == place].mean(0)
    mean[place] = 0
    assert best == CLASSNAMES[int(mean.argmax())]
    shown.page.keyboard.press("Escape")
    assert shown.page.get_by_role("dialog").count() == 0


def test_colours(explorer, stage):
    shown = stage(explorer)
    menu = shown.page.get_by_role("combobox", name="colour")
    for colour, entry in (("confidence", "90 % to 100 %"), ("cluster", "cluster 0")):
        menu.select_option(colour)
        shown.wait(300)
        assert explorer.coloured_by == colour
        assert entry in shown.page.locator(".akd-legend").inner_text()


def test_a_slider_moves_the_points_between_two_sets_of_answers(grid, stage):
    data, answers, layouts = grid
    corners = ["solid heart", "solid star", "rest"]
    explorer = akd.widgets.SimplexExplorer(data, answers, layouts=layouts, corners=corners)
    shown = stage(explorer)
    slider = shown.page.get_by_role("slider", name="from the first to the second")
    pixels = "() => document.querySelectorAll('.akd-field canvas')[0].toDataURL()"
    pictures = []
    for value in ("0", "0.5", "1"):
        slider.fill(value)
        shown.wait(100)
        pictures.append(shown.page.evaluate(pixels))
    assert len(set(pictures)) == 3
    shown.page.get_by_role("combobox", name="answers", exact=True).select_option("student")
    slider.fill("0")
    shown.wait(300)
    assert shown.page.evaluate(pixels) == pictures[2], (
        "the end of the one is the start of the other"
    )


def test_a_finger_shows_the_image_that_it_selects(explorer, stage):
    shown = stage(explorer, width=390, has_touch=True)
    shown.wait(200)
    shown.page.touchscreen.tap(*Map(shown.page, 1).at(7, 3))
    shown.wait(300)
    assert explorer.selected.tolist() == [67]
    assert shown.page.locator(".akd-tip").is_visible()
    card = shown.page.locator(".akd-detail")
    assert card.get_by_text("image 67", exact=True).is_visible()


def test_at_the_end_of_the_slider_all_images_of_the_second_answers_are_shown(grid, stage):
    data, answers, layouts = grid
    explorer = akd.widgets.SimplexExplorer(data, answers, layouts=layouts)
    shown = stage(explorer)
    shown.page.get_by_role("slider", name="from the first to the second").fill("1")
    shown.wait(100)
    count = len(explorer._in_triangle("student")[1])
    assert count != len(explorer._in_triangle("teacher")[1])
    assert f"Left: {count} images" in shown.page.locator(".akd-status").inner_text()
    shown.page.get_by_role("button", name="Reset").click()
    shown.wait(200)
    assert "according to teacher" in shown.page.locator(".akd-status").inner_text()


def test_two_explorers_in_jupyterlab_share_a_selection(browser):
    shared = 'layouts={"grid": grid}, selection=selection'
    explorer = f'akd.widgets.SimplexExplorer(data, {{"teacher": probs}}, {shared})'
    show = [
        f"selection = akd.widgets.Selection()\nfirst = {explorer}\nfirst",
        f"second = {explorer}\nsecond",
    ]
    notebook = browser("simplex", [SETUP, *show])
    for place in (0, 1, 2):
        notebook.run(place)
    first, second = notebook.output(1), notebook.output(2)
    grid = Map(notebook.page, 1)
    grid.hover(7, 3)
    first.locator(".akd-detail").get_by_text("image 67", exact=True).wait_for()
    grid.lasso(2, 4, 5, 6)
    first.locator(".akd-selection").get_by_text("12 selected, by answer").wait_for()
    notebook.screenshot("simplex-lasso", 1)
    second.locator(".akd-selection").get_by_text("12 selected, by answer").wait_for()
    assert notebook.ask(3, "first.selected.tolist()") == inside(2, 4, 5, 6)
    assert notebook.ask(3, "second.selected.tolist()") == inside(2, 4, 5, 6)

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
