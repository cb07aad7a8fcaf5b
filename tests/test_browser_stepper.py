"""`PCoreSetStepper` in JupyterLab: the story of a pick, another strategy, one's own picks."""

import re

import pytest
from lab import SETUP

STEPPER = """
predictions = akd.Predictions(probs, grid, probs)
stepper = akd.widgets.PCoreSetStepper(data, predictions, state, budget=8, layout=grid)
stepper
"""
# Where on its panel the image i of the grid is: the page fits the map, with an edge, to the panel.
SPOT = """([name, index]) => {
  const box = document.querySelector(`.akd-step-${name} .akd-field`).getBoundingClientRect();
  const side = 10000, tall = 14 / 19 * side, edge = 0.08 * side, grown = (v) => 1.1 * (v + edge);
  const scale = Math.min(box.width / grown(side), box.height / grown(tall));
  const x = (index % 20) / 19 * side - side / 2, y = Math.floor(index / 20) / 19 * side - tall / 2;
  return [box.left + box.width / 2 + scale * x, box.top + box.height / 2 - scale * y];
}"""


@pytest.fixture
def notebook(browser):
    notebook = browser("stepper", [SETUP, STEPPER])
    notebook.run(0)
    notebook.run(1)
    notebook.output(1).get_by_text("pcoreset: 0 of 8 picks").wait_for()
    return notebook


def test_stepper(notebook):
    out = notebook.output(1)
    left, right = out.locator(".akd-step-left"), out.locator(".akd-step-right")
    picks = notebook.ask(2, "stepper.picks")
    assert re.search(
        rf"image {picks['pcoreset'][0]} is .* farther than any other", left.inner_text()
    )
    for _ in range(3):
        out.get_by_role("button", name="next").click()
    left.get_by_text("pcoreset: 3 of 8 picks").wait_for()
    out.get_by_role("button", name="back").click()
    left.get_by_text("pcoreset: 2 of 8 picks").wait_for()
    for i in picks["pcoreset"][:3]:  # two picked, the third is the next one
        assert left.locator(f"img[alt='image {i}']").count() >= 1
    assert (
        left.locator(".akd-next img").first.get_attribute("alt") == f"image {picks['pcoreset'][2]}"
    )
    near = notebook.ask(2, "stepper.nearest['pcoreset'][2]")
    assert left.locator(".akd-next img").last.get_attribute("alt") == f"image {near}"
    radius = notebook.ask(2, "float(stepper.radii['pcoreset'][2])")
    assert f"radius {radius:.2f}" in left.inner_text()
    legend = out.locator(".akd-legend").inner_text()
    assert all(mark in legend for mark in ("start", "pick", "next pick"))
    notebook.screenshot("stepper", 1)

    out.get_by_role("combobox", name="compare with").select_option("uncertainty")
    right.get_by_text("uncertainty: 2 of 8 picks").wait_for()
    assert notebook.ask(2, "list(stepper.radii)") == ["pcoreset", "uncertainty"]
    assert "uncertainty" in out.locator(".akd-chart").text_content()

    out.get_by_role("button", name="play").click()  # it plays to the end by itself
    left.get_by_text("pcoreset: 8 of 8 picks").wait_for(timeout=30_000)
    assert notebook.ask(2, "stepper.at") == 8

    # from the keyboard
    out.get_by_role("button", name="all keys").focus()
    notebook.page.keyboard.press("Home")
    left.get_by_text("pcoreset: 0 of 8 picks").wait_for()
    notebook.page.keyboard.press("ArrowRight")
    left.get_by_text("pcoreset: 1 of 8 picks").wait_for()
    notebook.ask(2, "stepper._on_step(5)")  # the kernel's step reaches the page
    left.get_by_text("pcoreset: 5 of 8 picks").wait_for()

    notebook.page.set_viewport_size({"width": 1280, "height": 900})
    assert out.locator(".akd-shell").bounding_box()["height"] < 700, "one screen"
    notebook.page.set_viewport_size({"width": 1280, "height": 1300})
    notebook.close()


def test_own_picks(notebook):
    out, page = notebook.output(1), notebook.page
    right = out.locator(".akd-step-right")
    out.get_by_role("button", name="pick yourself").click()
    right.get_by_text("you: 0 of 8 picks").wait_for()
    for made, index in enumerate((137, 291), 1):
        page.mouse.click(*page.evaluate(SPOT, ["right", index]))
        right.get_by_text(f"you: {made} of 8 picks").wait_for()
        out.get_by_text(f"pcoreset: {made} of 8 picks").wait_for()  # after as many picks
    assert notebook.ask(2, "stepper.picks['you']") == [137, 291]
    for name in ("you", "pcoreset", "random"):
        radius = notebook.ask(2, f"float(stepper.distances['{name}'][2].max())")
        assert f"{radius:.2f} {name}" in out.locator(".akd-ranking").inner_text()
    notebook.screenshot("stepper-yours", 1)

    right.locator(".akd-field").focus()  # from the keyboard: to a neighbour, pick, take back
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    right.get_by_text("you: 3 of 8 picks").wait_for()
    page.keyboard.press("u")
    right.get_by_text("you: 2 of 8 picks").wait_for()
    page.mouse.click(*page.evaluate(SPOT, ["right", 2]))  # labelled at the start
    out.get_by_text("image 2 is labelled already").wait_for()

    out.get_by_role("button", name="pick yourself").click()  # another strategy; the curve stays
    right.get_by_text("random: 2 of 8 picks").wait_for()
    assert "you" in out.locator(".akd-chart").text_content()
    out.get_by_role("button", name="pick yourself").click()
    out.get_by_role("button", name="clear").click()
    right.get_by_text("you: 0 of 8 picks").wait_for()
    assert notebook.ask(2, "list(stepper.radii)") == ["pcoreset", "random"]
    notebook.close()
