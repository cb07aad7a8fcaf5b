"""`Labeller` in JupyterLab: keys, undo, a killed kernel, the clock."""

import json
import os
import signal

import lab
from lab import DIGITS

LABEL = """
labeller = akd.widgets.Labeller(
    data, teacher, rounds=2, query_size=10, out="mine", train=akd.TrainConfig(steps=8, batch_size=8)
)
labeller
"""


class Labelling:
    """The Labeller's page in the output of a cell, answered from the keyboard."""

    def __init__(self, notebook, place, truth):
        self.notebook, self.place, self.truth = notebook, place, truth
        self.part = lambda name: notebook.output(place).locator(f".activekd-labeller-{name}")

    def shown(self, other_than=None):
        """The pool index of the image that is asked about."""

        def text():
            return (
                self.part("image").get_attribute("alt") or ""
                if self.part("image").is_visible()
                else ""
            )

        lab.wait(
            lambda: text() not in ("", f"image {other_than} of the pool"),
            60,
            lambda: self.part("progress").inner_text(),
        )
        return int(text().split()[1])

    def press(self, key):
        self.notebook.output(self.place).locator(".activekd-labeller").focus()
        self.notebook.page.keyboard.press(key)

    def answer(self, label=None):
        index = self.shown()
        self.press(str(self.truth[index] if label is None else label))
        return index, self.shown(other_than=index)

    def says(self, name, text):
        self.part(name).get_by_text(text).or_(
            self.part(name).filter(has_text=text)
        ).first.wait_for()


def test_label_with_keys_undo_kill_the_kernel_and_go_on(browser):
    notebook = browser("label", [DIGITS, LABEL])
    notebook.run(0)
    truth = notebook.ask(2, "truth.tolist()")
    notebook.run(1)
    page, journal = Labelling(notebook, 1, truth), notebook.path.parent / "mine" / "answers.jsonl"
    notebook.output(1).scroll_into_view_if_needed()
    page.shown()
    assert "teacher" not in page.part("feedback").inner_text(), (
        "what the teacher says is not shown before the answer"
    )

    given = [page.answer()[0] for _ in range(7)]
    page.says("feedback", f"Your label: {truth[given[-1]]}.")
    assert "teacher" in page.part("feedback").inner_text()
    for last in given[:-3:-1]:
        before = page.shown()
        page.press("u")
        assert page.shown(other_than=before) == last
    page.says("feedback", "Undone")
    page.press("s")  # the one undone last is asked again at the end of the query
    page.says("feedback", "Skipped")
    for _ in range(3):
        page.answer()
    page.says("progress", "8 of 20 labelled, query 1 of 2")
    notebook.screenshot("labeller", 1)
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    kinds = [
        kind
        for event in events
        for kind in ("answer", "undo", "skip")
        if kind in str(event.values())
    ]
    assert [kinds.count(kind) for kind in ("answer", "undo", "skip")] == [10, 2, 1], events[1:3]
    assert notebook.page.locator(".jp-CodeCell").count() == 3, (
        "the keys were for the labeller, not for the notebook"
    )

    os.kill(notebook.ask(2, "os.getpid()"), signal.SIGKILL)
    notebook.restarted()
    notebook.run(0)
    notebook.run(1)
    page.says("progress", "8 of 20 labelled, query 1 of 2")
    assert [json.loads(line) for line in journal.read_text().splitlines()] == events, (
        "nothing lost, nothing twice"
    )
    page.answer()
    last = page.shown()
    page.press(str((truth[last] + 1) % 10))  # wrong, to be found below
    page.says("rounds", "round 0")
    page.says("progress", "10 of 20 labelled, query 2 of 2")
    assert notebook.ask(2, "len(labeller.records)") == 1
    answers = notebook.ask(2, "labeller.answers[['index', 'label', 'true']].values.tolist()")
    assert len(answers) == 10
    assert [row[0] for row in answers if row[1] != row[2]] == [last]
    assert notebook.ask(2, "float(labeller.journal.seconds)") > 0
    notebook.ask(2, "labeller.close()")
    notebook.troubles = [
        t for t in notebook.troubles if "Kernel" not in t and "WebSocket" not in t
    ]  # of the kill
    notebook.close()


HIDE = """hidden => {
  Object.defineProperty(document, 'hidden', { get: () => hidden, configurable: true });
  document.dispatchEvent(new Event('visibilitychange'));
}"""


def test_the_clock_runs_only_while_somebody_can_see_the_image(browser):
    notebook = browser(
        "clock",
        [DIGITS, "%%html\n<div style='height: 3000px'></div>", LABEL.replace('"mine"', '"clock"')],
    )
    notebook.run(0)
    truth = notebook.ask(3, "truth.tolist()")
    notebook.run(1)
    notebook.start(2)
    notebook.finished(2)
    page, journal, tab = (
        Labelling(notebook, 2, truth),
        notebook.path.parent / "clock" / "answers.jsonl",
        notebook.page,
    )
    waits = 3.0
    notebook.cell(0).scroll_into_view_if_needed()
    tab.wait_for_timeout(1000 * waits)  # the image is out of sight
    page.part("image").scroll_into_view_if_needed()
    tab.wait_for_timeout(1000 * waits)  # nobody has touched the widget
    page.answer()
    tab.evaluate(HIDE, True)
    tab.wait_for_timeout(1000 * waits)  # another tab is in front
    tab.evaluate(HIDE, False)
    page.answer()
    notebook.cell(0).scroll_into_view_if_needed()
    tab.wait_for_timeout(1000 * waits)  # scrolled away between two answers
    page.part("image").scroll_into_view_if_needed()
    page.answer()
    tab.wait_for_timeout(1000 * waits)  # looked at
    page.answer()
    seconds = [
        json.loads(line)["seconds"]
        for line in journal.read_text().splitlines()
        if '"answer"' in line
    ]
    assert len(seconds) == 4
    assert max(seconds[:3]) < waits <= seconds[3], seconds
    notebook.ask(3, "labeller.close()")
    notebook.close()
