"""`PromptExplorer` in JupyterLab: prompts are asked while they are typed."""

import lab
import pytest
from lab import DIGITS


def test_prompts_are_asked_while_they_are_typed(browser):
    notebook = browser(
        "prompts", [DIGITS, "prompts = akd.widgets.PromptExplorer(data, model, cache)\nprompts"]
    )
    notebook.run(0)
    notebook.run(1)
    out = notebook.output(1)
    names, templates = (
        out.locator(".activekd-classnames textarea"),
        out.locator(".activekd-templates textarea"),
    )
    message = out.locator(".activekd-message")
    before = notebook.ask(2, "[prompts.probs[:, 3].mean().item(), prompts.accuracy_pct]")
    names.click()
    notebook.page.keyboard.press("Control+Home")
    for _ in range(3):
        notebook.page.keyboard.press("ArrowDown")
    notebook.page.keyboard.press("End")
    notebook.page.keyboard.type(" zebra", delay=30)
    message.get_by_text("zebra").first.wait_for()
    assert notebook.ask(2, "prompts.classnames[3]") == "3 zebra"
    assert notebook.ask(2, "prompts.unknown_words") == ["zebra"]
    assert notebook.ask(2, "[prompts.probs[:, 3].mean().item(), prompts.accuracy_pct]") != before
    notebook.screenshot("prompts", 1)

    templates.fill("a photo without a place for it")
    lab.wait(lambda: "{}" in message.inner_text(), 20, message.inner_text)
    assert notebook.ask(2, "prompts.templates") == list(notebook.ask(2, "data.templates"))
    out.locator(".activekd-reset button, button.activekd-reset").first.click()
    lab.wait(lambda: "zebra" not in message.inner_text(), 20, message.inner_text)
    assert notebook.ask(
        2, "[prompts.probs[:, 3].mean().item(), prompts.accuracy_pct]"
    ) == pytest.approx(before, abs=1e-6)
    out.locator(".activekd-corner select").first.select_option("rest")
    assert notebook.ask(2, "prompts.corners[0]") == "rest"
    assert out.locator(".activekd-confusions").inner_text().strip()
    notebook.close()
