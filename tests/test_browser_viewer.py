"""`RunViewer` in JupyterLab: a run is watched."""

import lab
import pytest
from lab import DIGITS

import activekd_lite as akd
from activekd_lite.widgets import RunViewer

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


def test_keys_and_the_curve_choose_a_query(stage, small, teacher, quick):
    settings = dict(rounds=3, query_size=4, train=quick, progress=False)
    viewer = RunViewer(small)
    viewer.show(akd.run_active_learning(small, teacher, **settings))
    tab = stage(viewer)
    chosen = tab.page.locator(".akd-at")
    queried = tab.page.get_by_role("region", name="queries, newest first")
    assert chosen.count() == 0
    tab.page.get_by_role("region", name="A run as it happens", exact=True).focus()
    for key, round in (("ArrowLeft", 2), ("ArrowLeft", 1), ("Home", 0), ("ArrowRight", 1)):
        tab.page.keyboard.press(key)
        tab.wait(100)
        assert chosen.get_by_role("heading").all_inner_texts() == [
            f"queried after round {round}: 4 images"
        ]
    curve = tab.page.get_by_role("img", name="accuracy (%) against labels")
    last = curve.locator("path").nth(2).bounding_box()  # the student that asked last
    tab.page.mouse.click(last["x"] + last["width"] / 2, last["y"] + last["height"] / 2)
    tab.wait(100)
    assert "after round 2" in chosen.inner_text()
    assert queried.get_by_role("img", name="image ").count() == 12
    for width in (1000, 800, 390):
        tab.page.set_viewport_size({"width": width, "height": 900})
        tab.wait(200)
        frame = tab.page.locator(".akd-shell")
        assert frame.evaluate("e => e.scrollWidth - e.clientWidth") <= 0
        assert frame.bounding_box()["height"] <= (700 if width == 1000 else 1500)


def test_a_new_run_clears_an_earlier_error(stage, small, quick):
    viewer = RunViewer(small)
    tab = stage(viewer)
    viewer._on_message(viewer.widget, {"kind": "picture", "index": "one"}, [])
    tab.wait(100)
    status = tab.page.locator(".akd-status")
    assert "TypeError" in status.inner_text()
    settings = dict(strategy="random", rounds=0, query_size=4, train=quick, progress=False)
    viewer.show(akd.run_active_learning(small, **settings))
    tab.wait(100)
    assert status.inner_text().startswith("Finished")
