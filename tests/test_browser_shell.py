"""What all explorers share, each in a plain tab: themes, widths, keys, names, closing.

The accessibility rules are axe-core's.
"""

import re
import time

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

import activekd_lite as akd

WIDTHS = (1280, 800, 390)
SERIOUS = ("serious", "critical")
CONTROLS = """[...document.querySelectorAll(
  '.akd-shell :is(button, select, input, textarea, [role=application])'
)].filter((element) => element.checkVisibility())"""
FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="module")
def answers(small):
    """Answers (150, 10) of a teacher that errs, and of a student."""
    chance = torch.Generator().manual_seed(0)
    labels = small.oracle.label(torch.arange(len(small.pool)))
    true = torch.nn.functional.one_hot(labels, 10)
    return [(torch.randn(true.shape, generator=chance) + k * true).softmax(1) for k in (2, 4)]


@pytest.fixture(scope="module")
def make(small, answers, vlm, quick, tmp_path_factory):
    """Name -> a function that makes a new explorer."""
    teacher, student = answers
    cloud = torch.randn(len(small.pool), 2, generator=torch.Generator().manual_seed(1))

    def simplex():
        named = {"teacher": teacher, "student": student}
        return akd.widgets.SimplexExplorer(small, named, layouts={"cloud": cloud})

    def inheritance():
        return inherited_by(small, teacher, student)

    def stepper():
        start = small.oracle.initial_indices(1, akd.seeding.generator(0, "initial set"))
        state = akd.LabelState.empty(len(small.pool))
        state = state.with_labels(start, small.oracle.label(start), round=0)
        predictions = akd.Predictions(teacher, teacher, teacher)
        return akd.widgets.PCoreSetStepper(small, predictions, state, layout=cloud)

    root = tmp_path_factory.mktemp("cache")
    cache = akd.TeacherCache.build(vlm, small.pool, root=root, progress=False)

    def prompts():
        return akd.widgets.PromptExplorer(small, vlm, cache)

    knows = akd.teacher.from_logits(teacher.log())
    settings = dict(rounds=2, query_size=5, train=quick, progress=False)
    finished = akd.run_active_learning(small, knows, **settings)

    def viewer():
        made = akd.widgets.RunViewer(small)
        made.show(finished)
        return made

    def labeller():
        out = tmp_path_factory.mktemp("labels")
        made = akd.widgets.Labeller(small, knows, out=out, rivals=(), train=quick)
        made.start()
        while made.oracle.current is None:
            time.sleep(0.02)
        return made

    made = (simplex, inheritance, stepper, prompts, viewer, labeller)
    return {function.__name__: function for function in made}


def inherited_by(data, teacher, student):
    """An `InheritanceExplorer` of all classes, with a student that copies its teacher in part."""
    predictions = akd.Predictions(student, student, ce_probs=student, kd_probs=teacher)
    start = data.oracle.initial_indices(1, akd.seeding.generator(0, "initial set"))
    state = akd.LabelState.empty(len(student)).with_labels(start, data.oracle.label(start), 0)
    knows = akd.teacher.from_logits(teacher.log())
    return akd.widgets.InheritanceExplorer(data, knows, predictions, state)


EXPLORERS = ["simplex", "inheritance", "stepper", "prompts", "viewer", "labeller"]


@pytest.mark.parametrize("name", EXPLORERS)
def test_an_explorer_keeps_the_rules_of_the_shell(name, make, stage, tmp_path):
    """All in one tab, which is slow to open."""
    shown = stage(make[name]())
    shown.wait(200)
    every_control_is_reached_by_tab(shown)
    the_card_of_keys_opens_and_closes(shown)
    a_picture_is_saved(shown, tmp_path / "picture.png")
    percentages_have_a_space(shown)
    for dark in (False, True):
        shown.darken(dark)
        for width in WIDTHS:
            nothing_is_cut(shown, width)
            if width != 800:  # between the two, the rules have nothing else to find
                the_rules_of_accessibility_are_kept(shown)


def nothing_is_cut(shown, width):
    """And at 1280 x 900 the explorer fits the window."""
    shown.page.set_viewport_size({"width": width, "height": 900})
    shown.wait(200)
    size = shown.page.evaluate("() => [document.body.scrollWidth, innerWidth]")
    assert size[0] <= size[1], f"{width} pixels: a horizontal scroll bar"
    if width == 1280:
        assert shown.page.locator(".akd-shell").bounding_box()["height"] <= 760


def the_rules_of_accessibility_are_kept(shown):
    found = Axe().run(shown.page).response["violations"]
    found = [v for v in found if v["impact"] in SERIOUS]
    assert not [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found]


def the_card_of_keys_opens_and_closes(shown):
    button = shown.page.get_by_role("button", name="all keys")
    button.focus()
    shown.page.keyboard.press("?")
    card = shown.page.get_by_role("dialog")
    assert card.locator("kbd").count() > 2
    shown.page.keyboard.press("Escape")
    assert card.count() == 0
    assert button.evaluate("e => e === document.activeElement")


def a_picture_is_saved(shown, path):
    with shown.page.expect_download() as saved:
        shown.page.get_by_role("button", name="Save picture").click()
    saved.value.save_as(path)
    picture = Image.open(path).convert("RGB")
    assert min(picture.size) > 300
    assert len(picture.getcolors(10**6)) > 20
    assert picture.width >= 2 * shown.page.locator(".akd-main").bounding_box()["width"], "sharp"


def percentages_have_a_space(shown):
    shown.explorer.widget.hovered = 0  # fills the cards
    shown.wait(200)
    text = shown.page.locator(".akd-shell").text_content()
    assert not re.findall(r"\d%", text)


def every_control_is_reached_by_tab(shown):
    expected = shown.page.evaluate(f"() => {CONTROLS}.length")
    reached = set()
    for _ in range(expected + 5):
        shown.page.keyboard.press("Tab")
        reached.add(shown.page.evaluate(f"() => {CONTROLS}.indexOf(document.activeElement)"))
    assert len(reached - {-1}) == expected


@pytest.mark.parametrize("name", ["inheritance", "stepper"])
def test_without_motion_nothing_moves_by_itself(name, make, stage):
    shown = stage(make[name](), reduced_motion="reduce")
    shown.wait(500)
    animations = "() => document.getAnimations().filter((a) => a.playState === 'running').length"
    assert shown.page.evaluate(animations) == 0


def test_a_kernel_that_does_not_answer_is_named(make, stage):
    explorer = make["simplex"]()
    shown = stage(explorer)
    status, before = shown.page.locator(".akd-status"), explorer.widget.view["status"]
    answer, explorer._on_message = explorer._on_message, lambda *message: None
    shown.page.clock.install()
    shown.page.get_by_role("combobox", name="colour").select_option("confidence")
    shown.page.clock.run_for(9000)
    assert "run this cell again" in status.inner_text()
    explorer._on_message = answer
    shown.page.get_by_role("combobox", name="colour").select_option("prediction")
    for _ in range(5):
        shown.page.clock.run_for(100)
        shown.flush()
    assert "run this cell again" not in status.inner_text()
    assert status.inner_text() != before


@pytest.mark.parametrize("background", ["#1f1f1f", "#fdf6e3"])
def test_in_vs_code_the_colours_are_those_of_its_theme(background, make, stage):
    shown = stage(make["simplex"](), dark=False)
    shown.page.evaluate(
        """(background) => {
          delete document.body.dataset.jpThemeLight;
          document.documentElement.style.setProperty('--vscode-editor-background', background);
        }""",
        background,
    )
    shown.wait(300)
    shell = shown.page.locator(".akd-shell")
    colour = "(e) => getComputedStyle(e).backgroundColor"
    red, green, blue = (int(background[k : k + 2], 16) for k in (1, 3, 5))
    assert shell.evaluate(colour) == f"rgb({red}, {green}, {blue})"
    assert shell.evaluate("(e) => e.classList.contains('akd-dark')") == (red < 128)


def test_the_legend_hides_groups(make, stage):
    explorer = make["simplex"]()
    shown = stage(explorer)
    shown.wait(300)
    legend = shown.page.locator(".akd-legend")
    first = legend.get_by_role("button").first
    before = drawn(shown)
    first.click()
    assert first.get_attribute("aria-pressed") == "false"
    fewer = drawn(shown)
    assert fewer < before
    first.dblclick()
    shown.page.evaluate(FRAMES)
    assert legend.locator("[aria-pressed=true]").count() == 1
    legend.get_by_role("button", name="show all").click()
    assert drawn(shown) == before


def drawn(shown) -> int:
    """How many pixels of the map are painted."""
    shown.page.evaluate(FRAMES)
    return shown.page.evaluate(
        """() => {
          const c = document.querySelectorAll('.akd-field')[1].querySelector('canvas');
          const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
          return data.filter((v, k) => k % 4 === 3 && v > 0).length;
        }"""
    )


def test_a_finger_scrolls_the_page_and_draws_after_a_hold(make, stage):
    explorer = make["simplex"]()
    shown = stage(explorer, width=390, has_touch=True, is_mobile=True)
    shown.wait(300)
    page = shown.page
    assert "hold" in page.locator(".akd-hands").inner_text()
    client = page.context.new_cdp_session(page)

    def touch(kind, *places):
        points = [dict(x=x, y=y) for x, y in places]
        client.send("Input.dispatchTouchEvent", dict(type=kind, touchPoints=points))

    def drag(hold):
        box = page.locator(".akd-field").nth(1).bounding_box()
        low, high = box["y"] + 0.95 * box["height"], box["y"] + 0.05 * box["height"]
        left, right = box["x"] + 5, box["x"] + box["width"] - 5
        touch("touchStart", (left, low))
        page.wait_for_timeout(hold)
        for k in range(1, 6):
            touch("touchMove", (left, low + k / 5 * (high - low)))
            page.wait_for_timeout(20)
        for place in ((right, high), (right, low)) if hold else ():  # one way: no fling back
            touch("touchMove", place)
        touch("touchEnd")
        shown.wait(300)

    page.evaluate("() => { document.body.style.paddingBottom = '900px'; }")
    page.locator(".akd-field").nth(1).evaluate("e => e.scrollIntoView({ block: 'center' })")
    before = page.evaluate("scrollY")
    drag(hold=600)
    assert len(explorer.selected) > 100
    assert page.evaluate("scrollY") == before, "a lasso does not scroll"
    chosen = explorer.selected
    drag(hold=0)
    assert page.evaluate("scrollY") > before + 100
    assert list(explorer.selected) == list(chosen), "scrolling selects nothing"


def test_many_groups_are_grouped_and_searched(stage):
    from activekd_lite.datasets.shapes import CLASSNAMES, make_shapes

    images, labels = make_shapes(200, 0)
    data = akd.make_dataset("few", images, labels, images[:40], labels[:40], CLASSNAMES)
    probs = torch.nn.functional.one_hot(labels, 36).float()
    cloud = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    explorer = akd.widgets.SimplexExplorer(data, probs, layouts={"cloud": cloud})
    shown = stage(explorer)
    shown.wait(300)
    legend = shown.page.locator(".akd-legend")
    assert legend.locator(".akd-group").count() == 12
    legend.get_by_role("searchbox").fill("heart")
    assert legend.locator("[aria-pressed]").count() == 3
    looks = [tuple(look) for look in explorer.widget.view["looks"]]
    assert len(set(looks)) == 36


def test_more_points_than_symbols_are_a_raster(stage, small):
    count = 30_000
    images = small.pool.images[:10].repeat(count // 10, 1, 1, 1)
    labels = torch.arange(count) % 3
    data = akd.make_dataset("many", images, labels, images[:40], labels[:40], ["a", "b", "c"])
    chance = torch.Generator().manual_seed(0)
    cloud = torch.rand(count, 2, generator=chance)
    probs = torch.nn.functional.one_hot(labels, 3).float()
    explorer = akd.widgets.SimplexExplorer(data, probs, layouts={"cloud": cloud})
    shown = stage(explorer)
    shown.wait(500)
    everything = drawn(shown)
    shown.page.locator(".akd-legend").get_by_role("button").first.click()
    assert drawn(shown) < everything
    field = shown.page.locator(".akd-field").nth(1).bounding_box()
    middle = field["x"] + field["width"] / 2, field["y"] + field["height"] / 2
    mouse = shown.page.mouse
    mouse.move(middle[0] - 60, middle[1] - 60)
    mouse.down()
    for u, v in ((60, -60), (60, 60), (-60, 60)):
        mouse.move(middle[0] + u, middle[1] + v)
    mouse.up()
    shown.wait(500)
    chosen = explorer.selected
    assert 500 < len(chosen) < count / 2
    assert not (labels[chosen] == 0).any(), "a hidden group is not selected"
    spread = cloud[chosen].amax(0) - cloud[chosen].amin(0)
    assert spread.max() < 0.5, "only what lies within the lasso"
    assert shown.page.evaluate("() => getSelection().toString()") == "", "no text is selected"
    mouse.move(*middle)
    shown.wait(400)
    assert shown.page.locator(".akd-tip img").get_attribute("src").startswith("data:image")


def test_long_names_do_not_widen_the_page(small, answers, stage):
    names = ["W" * 60, "<b>bold</b> " + "x" * 48, *(f"class {k} " * 7 for k in range(8))]
    pool = small.pool.images, small.oracle.label(torch.arange(len(small.pool)))
    data = akd.make_dataset("long", *pool, small.test.images, small.test.labels, names)
    cloud = torch.randn(len(small.pool), 2, generator=torch.Generator().manual_seed(1))
    corners = [*names[:2], "rest"]
    explorer = akd.widgets.SimplexExplorer(
        data, answers[0], corners=corners, layouts={"cloud": cloud}
    )
    shown = stage(explorer, width=390)
    shown.wait(300)
    shown.page.get_by_role("button", name="left corner").click()
    assert shown.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert shown.page.locator(".akd-shell b b").count() == 0, "names are text, not HTML"
