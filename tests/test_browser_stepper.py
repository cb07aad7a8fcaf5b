"""`PCoreSetStepper` in JupyterLab."""

from lab import SETUP

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
