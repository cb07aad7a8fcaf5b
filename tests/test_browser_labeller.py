"""`Labeller` in JupyterLab: keys, undo, a killed kernel, the clock."""

import json
import os
import re
import signal

import lab
import pytest
import torch
from lab import DIGITS

import activekd_lite as akd
from activekd_lite.datasets.shapes import CLASSNAMES, make_shapes
from activekd_lite.widgets import labeller as module

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
        self.part = lambda name: notebook.output(place).locator(f".akd-{name}")
        out = notebook.output(place)
        self.image = out.get_by_role("img", name=re.compile(r"^image \d+ of the pool$"))
        self.frame = out.get_by_role("region", name="Label it yourself", exact=True)
        self.rounds = out.get_by_role("region", name="accuracy after each round")

    def shown(self, other_than=None):
        """The pool index of the image that is asked about."""

        def text():
            visible = self.image.count() and self.image.is_visible()
            return self.image.get_attribute("alt") if visible else ""

        lab.wait(
            lambda: text() not in ("", f"image {other_than} of the pool"),
            60,
            lambda: self.part("task").inner_text(),
        )
        return int(text().split()[1])

    def press(self, key):
        self.frame.focus()
        self.notebook.page.keyboard.press(key)

    def answer(self, label=None):
        index = self.shown()
        self.press(str(self.truth[index] if label is None else label))
        return index, self.shown(other_than=index)

    def says(self, part, text):
        part = self.part(part) if isinstance(part, str) else part
        part.get_by_text(text).or_(part.filter(has_text=text)).first.wait_for()


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
    page.says("task", "8 of 20 labelled, query 1 of 2")
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
    page.says("task", "8 of 20 labelled, query 1 of 2")
    assert [json.loads(line) for line in journal.read_text().splitlines()] == events, (
        "nothing lost, nothing twice"
    )
    page.answer()
    last = page.shown()
    page.press(str((truth[last] + 1) % 10))  # wrong, to be found below
    page.says(page.rounds, "round 0")
    page.says(page.rounds, "round 1")  # the student of the labels just given
    page.says("task", "10 of 20 labelled, query 2 of 2")
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
    page.image.scroll_into_view_if_needed()
    tab.wait_for_timeout(1000 * waits)  # nobody has touched the widget
    page.answer()
    tab.evaluate(HIDE, True)
    tab.wait_for_timeout(1000 * waits)  # another tab is in front
    tab.evaluate(HIDE, False)
    page.answer()
    notebook.cell(0).scroll_into_view_if_needed()
    tab.wait_for_timeout(1000 * waits)  # scrolled away between two answers
    page.image.scroll_into_view_if_needed()
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


@pytest.fixture
def game(stage, small, teacher, quick, tmp_path, monkeypatch):
    """Labellers in a plain tab: `game(data, teacher, **settings)`."""
    monkeypatch.setattr(module, "is_interactive", lambda: True)
    threads = []

    def make(data=small, teacher=teacher, *, dark=False, **settings):
        usual = dict(rounds=1, query_size=3, train=quick, out=tmp_path / "run", rivals=())
        labeller = module.Labeller(data, teacher, **usual | settings)
        tab = stage(labeller, dark=dark)
        threads.append((labeller, labeller._thread))
        until(tab, lambda: labeller.oracle.current is not None)
        return labeller, tab

    yield make
    for labeller, thread in threads:
        labeller.close()
        thread.join(60)


def until(tab, condition):
    def passing():
        tab.wait(50)
        return condition()

    lab.wait(passing, 60, lambda: tab.page.locator("#stage").inner_text())
    tab.wait(100)


def shapes():
    """Data of 36 classes, and a teacher that knows them."""
    images, labels = make_shapes(150, 0)
    data = akd.make_dataset("s", images, labels, images[:40], labels[:40], CLASSNAMES)
    return data, akd.teacher.from_logits(9.0 * torch.nn.functional.one_hot(labels, 36))


def test_letters_filter_many_classes(game, quick):
    data, teacher = shapes()
    labeller, tab = game(data, teacher, shots=0, strategy="random", student="tiny-cnn")
    page, first = tab.page, labeller.oracle.current
    frame = page.get_by_role("region", name="Label it yourself", exact=True)
    search = page.get_by_role("textbox", name="filter the classes")
    buttons = page.get_by_role("group", name="classes").get_by_role("button")
    assert buttons.count() == 36
    name = max(CLASSNAMES, key=len)
    frame.focus()
    page.keyboard.type(name)  # the first letter moves to the search field
    assert search.input_value() == name
    page.keyboard.press("Escape")
    assert (search.input_value(), buttons.count()) == ("", 36)
    page.keyboard.type("zzz")
    page.get_by_text("no class matches").wait_for()
    page.keyboard.press("Enter")  # nothing to answer with
    page.keyboard.press("Escape")
    page.keyboard.type(name)
    page.keyboard.press("ArrowRight")  # moves in the text, skips nothing
    page.keyboard.press("Enter")
    until(tab, lambda: labeller.journal.labels)
    assert labeller.journal.labels == {first: CLASSNAMES.index(name)}
    assert search.input_value() == ""
    page.keyboard.press("ArrowLeft")  # the field is empty: undo
    until(tab, lambda: not labeller.journal.labels)
    page.keyboard.press("ArrowRight")
    until(tab, lambda: labeller.oracle.current != first)
    second = labeller.oracle.current
    page.keyboard.press("3")  # the third button
    until(tab, lambda: labeller.journal.labels)
    assert labeller.journal.labels == {second: 2}


def test_the_page_fits_and_names_its_controls(game, tmp_path):
    for dark in (False, True):
        folder = tmp_path / ("dark" if dark else "light")
        settings = dict(rounds=0, shots=0, strategy="random", out=folder)
        labeller, tab = game(dark=dark, **settings)
        frame = tab.page.get_by_role("region", name="Label it yourself", exact=True)
        tab.page.get_by_role("heading", name="Which digit is this?").wait_for()
        assert tab.page.get_by_role("img", name="smoothed").is_visible()
        fits(tab, frame)
        for _ in range(3):
            number = len(labeller.journal.labels)
            tab.page.get_by_role("button", name="1", exact=True).click()
            until(tab, lambda n=number: len(labeller.journal.labels) > n)  # noqa: B023
        until(tab, lambda: labeller.widget.view["summary"])  # noqa: B023
        tab.page.get_by_role("region", name="summary").wait_for()
        fits(tab, frame)


def fits(tab, frame):
    """One screen at JupyterLab's width in a window of 1280 x 900; never wider than the page."""
    for width, most in ((1000, 700), (800, 900), (390, 2000)):
        tab.page.set_viewport_size({"width": width, "height": 900})
        tab.wait(200)
        assert frame.bounding_box()["height"] <= most, width
        assert frame.evaluate("e => e.scrollWidth - e.clientWidth") <= 0
        wide = "e => [...e.querySelectorAll('*')].filter(x => x.scrollWidth > x.clientWidth + 1 && "
        wide += "getComputedStyle(x).overflowX === 'auto').map(x => x.className)"
        assert frame.evaluate(wide) == [], width
    unnamed = "e => [...e.querySelectorAll('button, input, [role=region], img')].filter(x => "
    unnamed += "!(x.textContent.trim() || x.getAttribute('aria-label') || x.alt)).length"
    assert frame.evaluate(unnamed) == 0


def test_an_update_of_the_page_leaves_the_clock_running(game):
    labeller, tab = game()
    clock = tab.page.get_by_role("timer")
    assert "first move" in clock.inner_text()
    tab.page.get_by_role("region", name="Label it yourself", exact=True).focus()
    tab.wait(1000)
    labeller._show()  # as a rival does after a round
    tab.wait(300)
    seconds = float(re.search(r"this image ([\d.]+) s", clock.inner_text())[1])
    assert seconds >= 1
    tab.page.keyboard.press("1")
    until(tab, lambda: labeller.journal.labels)
    spent = labeller.journal.events[0]["seconds"]
    assert seconds <= spent < seconds + 2
    said = re.search(r"this image ([\d.]+) s .* all images ([\d.]+) s", clock.inner_text())
    assert float(said[1]) < 1
    assert float(said[2]) == pytest.approx(spent + float(said[1]), abs=0.11)


def test_a_silent_kernel_is_named(game):
    labeller, tab = game()
    index = labeller.oracle.current
    labeller._on_message = lambda *message: None
    tab.page.get_by_role("region", name="Label it yourself", exact=True).focus()
    tab.page.keyboard.press("1")
    tab.page.get_by_text("The kernel is busy or has stopped").wait_for()
    del labeller._on_message
    labeller._show()
    tab.wait(200)
    assert not tab.page.get_by_text("The kernel is busy or has stopped").count()
    assert labeller.oracle.current == index


def test_after_an_answer_by_mouse_the_keys_still_work(game):
    data, teacher = shapes()
    labeller, tab = game(data, teacher, shots=0, strategy="random", student="tiny-cnn")
    search = tab.page.get_by_role("textbox", name="filter the classes")
    search.fill("striped heart")
    tab.page.get_by_role("button", name="striped heart").click()
    until(tab, lambda: labeller.journal.labels)
    assert search.evaluate("e => e === document.activeElement")
    tab.page.keyboard.press("ArrowLeft")
    until(tab, lambda: not labeller.journal.labels)


def test_class_names_with_digits_are_typed_in_full(game):
    images, labels = make_shapes(150, 0)
    teacher = akd.teacher.from_logits(9.0 * torch.nn.functional.one_hot(labels, 36))
    names = [f"plane {700 + k // 2}" + k % 2 * "-200" for k in range(36)]
    data = akd.make_dataset("s", images, labels, images[:40], labels[:40], names)
    labeller, tab = game(data, teacher, shots=0, strategy="random", student="tiny-cnn")
    tab.page.get_by_role("region", name="Label it yourself", exact=True).focus()
    tab.page.keyboard.type("711-")  # a digit is no answer here
    assert not labeller.journal.labels
    tab.page.keyboard.press("Enter")
    until(tab, lambda: len(labeller.journal.labels) == 1)
    tab.page.keyboard.type("plane 711")  # two are left, and one has exactly that name
    tab.page.keyboard.press("Enter")
    until(tab, lambda: len(labeller.journal.labels) == 2)
    assert [*labeller.journal.labels.values()] == [names.index("plane 711-200"), 22]
