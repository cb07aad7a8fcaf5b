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
    queried = out.get_by_role("region", name="queries, newest first")
    pictures = queried.get_by_role("img", name="image ")
    pictures.first.wait_for(timeout=60_000)
    assert "*" in (notebook.cell(1).locator(".jp-InputPrompt").text_content() or ""), (
        "shown only when the run was over"
    )
    (browser.root / "seen").touch()
    notebook.finished(1)
    queries = notebook.ask(2, "[r.query_indices for r in result.records]")
    lab.wait(lambda: pictures.count() >= 10, 20, lambda: f"{pictures.count()} pictures")
    for index in queries[0] + queries[1]:
        assert queried.get_by_role("img", name=f"image {index}", exact=True).count() == 1
    titles = [f"queried after round {k}: 5 images" for k in (1, 0)]
    assert queried.get_by_role("heading").all_inner_texts() == titles
    accuracy = notebook.ask(2, "[r.accuracy_pct for r in result.records]")
    labels = notebook.ask(2, "[r.labeled_count for r in result.records]")
    curve = out.get_by_role("img", name="accuracy (%) against labels")
    lab.wait(lambda: curve.locator("path").count() == 3, 20, lambda: curve.inner_html())
    drawn = notebook.ask(2, "viewer.widget.view['lines'][0]")
    assert drawn["xs"] == labels
    assert drawn["ys"] == pytest.approx(accuracy, abs=0.01)
    heights = curve.locator("path").evaluate_all(
        "marks => marks.map(m => +m.getAttribute('transform').match(/ (\\S+)\\)/)[1])"
    )
    by_height = sorted(range(3), key=lambda k: -heights[k])  # lower on the page: less accurate
    assert [accuracy[k] for k in by_height] == sorted(accuracy)
    curve.locator("text", has_text="teacher").wait_for()  # its line, by itself
    rounds = out.get_by_role("region", name="seconds per round")
    assert rounds.get_by_role("img", name="train ").count() == 3
    notebook.screenshot("viewer", 1)
    notebook.close()
