"""`RunViewer` in JupyterLab: a run is watched."""

import lab
import pytest
from lab import DIGITS

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
