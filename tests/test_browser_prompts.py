"""`PromptExplorer` in JupyterLab: prompts are asked while they are typed, and noted."""

import lab
import numpy as np
import pytest
import torch
from lab import DIGITS

import activekd_lite as akd

STATE = "[prompts.probs[:, 3].mean().item(), prompts.accuracy_pct]"


def test_prompts_are_asked_while_they_are_typed(browser):
    notebook = browser(
        "prompts", [DIGITS, "prompts = akd.widgets.PromptExplorer(data, model, cache)\nprompts"]
    )
    notebook.run(0)
    notebook.run(1)
    out, page = notebook.output(1), notebook.page
    names = out.get_by_role("textbox", name="Class names")
    templates = out.get_by_role("textbox", name="Templates")
    warning, scores = out.locator(".akd-warning"), out.locator(".akd-prompts-scores")
    history = out.get_by_role("list", name="prompts tried so far").get_by_role("button")
    before = notebook.ask(2, STATE)
    assert f"accuracy {before[1]:.1f} %" in scores.inner_text()
    names.click()
    page.keyboard.press("Control+Home")
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    page.keyboard.type(" zebra", delay=30)
    warning.get_by_text("zebra").wait_for()
    assert history.count() == 1, "typing has not rested yet"
    history.get_by_text("3 → 3 zebra").wait_for()  # now it has
    assert history.count() == 2, "one entry, not one per key stroke"
    assert notebook.ask(2, "prompts.classnames[3]") == "3 zebra"
    assert notebook.ask(2, "prompts.unknown_words") == ["zebra"]
    assert notebook.ask(2, STATE) != before
    assert names.input_value().splitlines()[3] == "3 zebra"
    notebook.screenshot("prompts", 1)

    templates.fill("a photo without a place for it")
    lab.wait(lambda: "{}" in warning.inner_text(), 20, warning.inner_text)
    assert notebook.ask(2, "prompts.templates") == list(notebook.ask(2, "data.templates"))
    out.get_by_role("button", name="the task's own prompts").first.click()
    lab.wait(lambda: not warning.inner_text(), 20, warning.inner_text)
    assert notebook.ask(2, STATE) == pytest.approx(before, abs=1e-6)
    assert history.count() == 2
    history.filter(has_text="zebra").click()  # back to what was typed
    warning.get_by_text("zebra").wait_for()
    assert names.input_value().splitlines()[3] == "3 zebra"

    # per class, before and after; the confusions are a table
    table = notebook.ask(2, "prompts.per_class()[['own_pct', 'now_pct']].values.tolist()")
    rows = out.get_by_role("region", name="accuracy per class").locator("tbody tr")
    shown = [[int(n) for n in row.split()[-2:]] for row in rows.all_inner_texts()]
    assert np.allclose(np.sort(shown, axis=0), np.sort(table, axis=0), atol=0.6)
    cells = out.locator(".akd-heat tbody tr").nth(3).locator("td").all_inner_texts()
    shares = notebook.ask(2, "prompts.confusions().iloc[3].round().astype(int).tolist()")
    assert [int(cell or 0) for cell in cells] == shares

    # corners: chosen at the corner, or by clicking a confusion
    out.get_by_role("combobox", name="left corner").select_option("rest")
    lab.wait(lambda: notebook.ask(2, "prompts.corners[0]") == "rest", 20, lambda: "no rest")
    largest = notebook.ask(2, "prompts.errors(1).values.tolist()[0]")
    out.locator(".akd-errors").get_by_role("button").first.click()
    pair = largest[:2]
    lab.wait(lambda: notebook.ask(2, "prompts.corners[:2]") == pair, 20, lambda: f"not {pair}")
    left = out.get_by_role("combobox", name="left corner")
    lab.wait(lambda: left.input_value() == pair[0], 20, left.input_value)

    page.set_viewport_size({"width": 1280, "height": 900})
    assert out.locator(".akd-shell").bounding_box()["height"] < 720, "one screen"
    page.set_viewport_size({"width": 1280, "height": 1300})
    notebook.close()


def test_without_labels_the_page_speaks_of_probabilities(stage, small, vlm, tmp_path):
    unknown = [torch.full((150,), -1), small.test.images, small.test.labels]
    names = (small.classnames, small.templates)
    data = akd.make_dataset("u", small.pool.images, *unknown, *names, student="tiny-cnn")
    cache = akd.TeacherCache.build(vlm, data.pool, root=tmp_path, progress=False)
    tab = stage(akd.widgets.PromptExplorer(data, vlm, cache))
    tab.wait(200)
    said = tab.page.locator(".akd-shell").inner_text().lower()
    assert "confusion" not in said.replace("click a confusion", "")
    assert "columns: mean probability" in said
    cell = tab.page.locator(".akd-heat td[title]").nth(1)
    assert "predicted as" not in cell.get_attribute("title")
