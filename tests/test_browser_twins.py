"""What is left of an explorer: saved notebooks, pages, the report, closed widgets."""

import json
import re

import lab
import nbformat
import plotly.express as px
from lab import SETUP
from nbformat.v4 import new_code_cell, new_notebook, new_output

import activekd_lite as akd
from activekd_lite.course import pages
from activekd_lite.plots import base as figures
from activekd_lite.plots import report

STEPPER = """
predictions = akd.Predictions(probs, grid, probs)
stepper = akd.widgets.PCoreSetStepper(data, predictions, state, budget=8, layout=grid)
stepper
"""


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
