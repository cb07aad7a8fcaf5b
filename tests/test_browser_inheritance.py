"""`InheritanceExplorer`: its page computes what the kernel would; controls; JupyterLab."""

import re

import numpy as np
import pytest
from lab import DIGITS, wait

import activekd_lite as akd

CLASSES = ("1", "3", "7")
FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
COUNTED = """() => {
  window.counts = { sent: 0, drawn: 0 };
  const send = window.toKernel, brush = CanvasRenderingContext2D.prototype;
  const draw = brush.putImageData;
  window.toKernel = (event) => { counts.sent++; return send(event); };
  brush.putImageData = function (...image) { counts.drawn++; draw.call(this, ...image); };
}"""
SLIDE = """() => {
  const slider = document.querySelector('input[type=range]');
  for (let k = 0; k < 10; k++) { slider.value = k / 10; slider.dispatchEvent(new Event('input')); }
}"""


def panel(shown, place):
    return shown.page.locator(".akd-field").nth(place)


def picture(shown, place):
    shown.page.evaluate(FRAMES)
    return panel(shown, place).locator("canvas").first.evaluate("c => c.toDataURL()")


def picks_of(shown, place=2):
    """Pool indices that the panel's description names."""
    text = panel(shown, place).get_attribute("aria-label")
    return [int(i) for i in re.findall(r"\d+", text.partition("images ")[2])]


def move(shown, name, value):
    shown.page.get_by_role("slider", name=name).fill(str(value))
    shown.wait(300)
    shown.page.evaluate(FRAMES)


def words(shown, place):
    return shown.page.locator(".akd-said").nth(place).inner_text()


@pytest.mark.parametrize("weight", [0, 0.25, 0.5, 0.83, 1])
def test_the_page_picks_what_k_center_picks(inheritance, stage, weight):
    shown = stage(inheritance)
    move(shown, "kd_weight", weight)
    for count in (0, 1, 12):
        move(shown, "picks", count)
        assert (inheritance.kd_weight, inheritance.count) == (weight, count)
        assert picks_of(shown) == inheritance.picks["pcoreset"]


@pytest.mark.parametrize("weight", [0, 0.5, 1])
def test_the_page_counts_the_copied_mistakes(inheritance, stage, weight):
    shown = stage(inheritance)
    move(shown, "kd_weight", weight)
    task, answers = inheritance.task, inheritance.probs.argmax(dim=1)
    counts = akd.metrics.copied_errors(task.teacher_probs.argmax(dim=1), answers, task.labels)
    copied, errors = counts["copied"], counts["errors"]
    assert f"copies {copied} of the teacher's {errors} mistakes" in words(shown, 1)
    assert f"corrects {counts['corrected']}" in words(shown, 1)
    assert f"makes {counts['new']} new" in words(shown, 1)
    right = 100 * (answers == task.labels).double().mean()
    assert f"{right:.0f}\u00a0% right" in words(shown, 1)


def test_kd_weight_moves_the_student_and_not_the_teacher(inheritance, stage):
    shown = stage(inheritance)
    shown.wait(200)
    before = [picture(shown, place) for place in range(3)]
    move(shown, "kd_weight", 0.9)
    after = [picture(shown, place) for place in range(3)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False]
    shown.page.get_by_role("button", name="Reset").click()
    shown.wait(300)
    assert [picture(shown, place) for place in range(3)] == before


def test_a_moving_slider_is_drawn_once_per_frame_and_asks_nothing_of_the_kernel(inheritance, stage):
    shown = stage(inheritance, locale="en")  # in a context of its own, which the clock stops
    shown.wait(300)
    shown.page.clock.install(time=0)
    shown.page.clock.pause_at(3600)  # from now on, time passes in `run_for` only
    shown.page.evaluate(COUNTED)
    for frame in range(1, 4):
        shown.page.evaluate(SLIDE)
        shown.page.clock.run_for(20)
        assert shown.page.evaluate("counts") == {"sent": 0, "drawn": frame}
    shown.page.clock.run_for(300)
    assert shown.page.evaluate("counts.sent") == 1, "once it rests"


def test_the_next_pick_is_taken_by_button_and_key(inheritance, stage):
    shown = stage(inheritance)
    shown.wait(200)
    first = picks_of(shown)
    shown.page.get_by_role("button", name="next pick").click()
    shown.wait(800)
    assert picks_of(shown)[:3] == first
    assert len(picks_of(shown)) == 4
    shown.page.keyboard.press("n")
    shown.wait(800)
    shown.page.keyboard.press("p")
    shown.page.keyboard.press("p")
    shown.wait(300)
    assert picks_of(shown) == first


def test_a_strategy_beside(inheritance, stage):
    shown = stage(inheritance)
    assert not panel(shown, 3).is_visible()
    shown.page.get_by_role("combobox", name="beside").select_option("uncertainty")
    shown.wait(500)
    assert panel(shown, 3).is_visible()
    assert shown.page.get_by_text("Where uncertainty asks").is_visible()
    assert picks_of(shown, 3) == inheritance.picks["uncertainty"]
    move(shown, "kd_weight", 0.1)
    assert picks_of(shown, 3) == inheritance.picks["uncertainty"]
    move(shown, "picks", 6)
    assert picks_of(shown, 3) == inheritance.picks["uncertainty"]


def test_the_balls_are_those_of_the_kernel(inheritance, stage):
    shown = stage(inheritance)
    shown.wait(200)
    before = picture(shown, 0)
    shown.page.get_by_role("checkbox", name="balls").check()
    move(shown, "kd_weight", 0.8)
    assert picture(shown, 0) != before
    task = inheritance.task
    found = akd.metrics.split_balls(task.teacher_probs.double(), inheritance.probs, task.labels)
    ratios = np.array([ball.ratio for ball in found])
    said = [float(x) for x in re.findall(r"\d+\.\d+", words(shown, 1))]
    wanted = [0.8, np.median(ratios), ratios.min(), ratios.max()]
    assert said == pytest.approx(wanted, abs=0.006)


def test_the_legend_hides_classes_and_arrows(inheritance, stage):
    shown = stage(inheritance)
    shown.wait(200)
    legend, everything = shown.page.locator(".akd-legend"), picture(shown, 1)
    for name in ("changed answer", "copied mistake", "truly 3"):
        before = picture(shown, 1)
        legend.get_by_role("button", name=name).click()
        assert picture(shown, 1) != before, name
    legend.get_by_role("button", name="show all").click()
    assert picture(shown, 1) == everything


def test_hover_shows_the_image_and_what_is_said_of_it(inheritance, stage):
    shown = stage(inheritance)
    shown.wait(200)
    box = panel(shown, 1).bounding_box()
    tip = shown.page.locator(".akd-tip")
    for x, y in np.ndindex(20, 20):
        left, top = box["x"] + box["width"] * (x + 1) / 22, box["y"] + box["height"] * (y + 1) / 22
        shown.page.mouse.move(left, top)
        if tip.is_visible():
            break
    shown.wait(200)
    said = tip.inner_text()
    index = inheritance.widget.hovered
    assert index in inheritance.task.indices.tolist()
    row = inheritance.task.indices.tolist().index(index)
    names = inheritance.task.data.classnames
    assert said.startswith(f"image {index}: truly {names[inheritance.task.labels[row]]}")
    assert f"student {names[inheritance.probs[row].argmax()]}" in said


def test_other_classes_are_trained_from_the_page(small, teacher, quick, stage):
    explorer = akd.widgets.InheritanceExplorer(small, teacher, classes=CLASSES, config=quick)
    shown = stage(explorer)
    shown.wait(300)
    assert explorer.widget.view["trained"], "the page asked for it"
    shown.page.get_by_role("combobox", name="class 2").select_option("9")
    shown.wait(500)
    assert explorer.task.data.classnames == ("1", "9", "7")
    assert "truly 9" in shown.page.locator(".akd-legend").inner_text()
    shown.page.get_by_role("combobox", name="class 2").select_option("7")
    shown.wait(500)
    assert explorer.task.data.classnames == ("1", "7", "9"), "they change places"
    assert picks_of(shown) == explorer.picks["pcoreset"]
    shown.page.get_by_role("checkbox", name="all 10 classes").check()
    shown.wait(500)
    assert len(explorer.task.data.classnames) == 10
    assert "a projection" in shown.page.locator(".akd-status").inner_text()
    assert picks_of(shown) == explorer.picks["pcoreset"]


def test_a_lasso_selects_pool_images(inheritance, stage):
    shown = stage(inheritance)
    shown.wait(200)
    box, mouse = panel(shown, 0).bounding_box(), shown.page.mouse
    corners = [(0.02, 0.98), (0.98, 0.98), (0.98, 0.02), (0.02, 0.02)]
    places = [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in corners]
    mouse.move(*places[0])
    mouse.down()
    for place in places[1:]:
        mouse.move(*place)
    mouse.up()
    shown.wait(300)
    assert inheritance.widget.selected.tolist() == inheritance.task.indices.tolist()


def test_sweep_comes_back_and_jumps_without_motion(inheritance, stage):
    shown = stage(inheritance, reduced_motion="reduce")
    shown.wait(200)
    before = picture(shown, 1)
    shown.page.get_by_role("button", name="sweep").click()
    shown.wait(400)
    assert picture(shown, 1) == before
    assert inheritance.kd_weight == 0.5


EXPLORER = """
explorer = akd.widgets.InheritanceExplorer(
    data, teacher, classes=["1", "3", "7"], config=akd.TrainConfig(steps=20, batch_size=16)
)
explorer
"""


def test_in_jupyterlab(browser):
    notebook = browser("inheritance", [DIGITS, EXPLORER])
    notebook.run(0)
    notebook.run(1)
    out = notebook.output(1)
    said = out.locator(".akd-said").nth(1)
    wait(lambda: "copies" in said.inner_text(), 30, lambda: out.inner_text())
    out.get_by_role("slider", name="kd_weight").fill("0.2")
    notebook.page.wait_for_timeout(500)
    kernel = notebook.ask(2, "[explorer.kd_weight, explorer.picks]")
    text = out.locator(".akd-field").nth(2).get_attribute("aria-label")
    shown = [int(i) for i in re.findall(r"\d+", text.partition("images ")[2])]
    assert kernel == [0.2, {"pcoreset": shown}]
    out.get_by_role("combobox", name="class 1").select_option("4")
    wait(lambda: "truly 4" in out.inner_text(), 60, lambda: out.inner_text())
    notebook.screenshot("inheritance", 1)
    assert out.bounding_box()["height"] < 800
    notebook.save()
    assert len(notebook.path.read_text()) < 1_000_000
    notebook.close()
