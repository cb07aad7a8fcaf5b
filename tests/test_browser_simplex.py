"""`SimplexExplorer` in JupyterLab: mouse, keyboard, two explorers that share a selection."""

import json

from lab import SETUP


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


def choose_corner(out, side, name):
    out.get_by_role("button", name=f"{side} corner").click()
    out.get_by_role("searchbox", name="search the classes").fill(name)
    out.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()


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
    card = first.locator(".akd-detail")
    card.get_by_text("image 67", exact=True).wait_for()
    assert card.locator(".akd-bars i").count() == 5
    assert card.locator("img[alt='image 67']").count() == 1

    # lasso on the map, seen by both explorers and the kernel
    grid.lasso(2, 4, 5, 6)
    said = "12 selected."
    first.locator(".akd-status").get_by_text(said).wait_for()
    notebook.screenshot("simplex-lasso", 1)
    second.locator(".akd-status").get_by_text(said).wait_for()
    assert notebook.ask(3, "first.selected.tolist()") == inside(2, 4, 5, 6)
    assert notebook.ask(3, "second.selected.tolist()") == inside(2, 4, 5, 6)
    grouped = first.locator(".akd-selection")
    assert grouped.get_by_text("12 selected, by answer").is_visible()
    predicted = notebook.ask(3, "[CLASSNAMES[k] for k in probs[first.selected].argmax(1)]")
    for name in set(predicted):
        assert grouped.get_by_text(f"{name}: {predicted.count(name)}").is_visible()
    assert notebook.ask(3, "first.widget.chosen == second.widget.chosen")

    # from the keyboard: type indices; arrows, space and Escape on the map
    typed = second.get_by_role("textbox", name="select images by number")
    typed.fill("3, 17")
    typed.press("Enter")
    first.locator(".akd-status").get_by_text("2 selected.").wait_for()
    first.locator(".akd-field").nth(1).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    first.locator(".akd-status").get_by_text("3 selected.").wait_for()
    assert {3, 17} < set(notebook.ask(3, "first.selected.tolist()"))
    first.locator(".akd-field").nth(1).focus()
    page.keyboard.press("Escape")
    first.locator(".akd-status").get_by_text("0 selected.").wait_for()

    # choose corners and colours; a class that is at another corner changes places with it
    choose_corner(first, "left", "rest")
    first.locator(".akd-status").get_by_text("all 300 images between rest").wait_for()
    before = notebook.ask(3, "first.corners")
    choose_corner(first, "right", "rest")
    first.locator(".akd-status").get_by_text(f"between {before[1]}, rest").wait_for()
    assert notebook.ask(3, "first.corners") == [before[1], "rest", before[2]]
    for colour, shown in (
        ("confidence", "to 100% confidence"),
        ("prediction", ""),
        ("cluster", ""),
    ):
        first.get_by_role("combobox", name="colour").select_option(colour)
        first.locator(".akd-status").get_by_text(f"Colour: {colour}.").wait_for()
        assert shown in first.locator(".akd-legend").inner_text()

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
