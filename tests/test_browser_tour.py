"""The tour in a browser: five scenes that work without a kernel, and k-center in the page."""

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe

from activekd_lite import tour
from activekd_lite.kcenter import k_center_greedy
from activekd_lite.plots.maps import main_components

SCENES = ("ask", "simplex", "inheritance", "stepper", "curves")
CASES = 20


@pytest.fixture(scope="module")
def page(tmp_path_factory, shared_cache, chromium):
    """The tour in a tab, all scenes started; `page.troubles` lists errors and requests."""
    path = tmp_path_factory.mktemp("tour") / "tour.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tour, "umap_of", lambda probs: main_components(probs))  # a UMAP takes long
        tour.write(path, cache_root=shared_cache)
    assert path.stat().st_size < 3_000_000
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, locale="en")
    page = context.new_page()
    page.troubles = []
    page.on("console", lambda m: m.type in ("error", "warning") and page.troubles.append(m.text))
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("request", lambda r: r.url.startswith("http") and page.troubles.append(r.url))
    page.goto(path.as_uri())
    for name in SCENES:
        page.evaluate("(name) => tour.start(name)", name)
    yield page
    context.close()


def scene(page, name):
    return page.locator(f"#scene-{name}")


def status(page, name):
    return scene(page, name).locator(".akd-status")


def test_the_page_picks_what_k_center_picks(page):
    """On seeded cases, half of them with points that are equal."""
    for case in range(CASES):
        rng = np.random.default_rng(case)
        size, count, start = int(rng.integers(2, 12)), int(rng.integers(30, 200)), [3, 7]
        probs = rng.dirichlet([0.3] * size, count).astype(np.float32)
        if case % 2:
            probs[10:20] = probs[:10]
        found = page.evaluate(
            "([probs, size, start, k]) => tour.kCenter(Float32Array.from(probs), size, start, k)",
            [probs.ravel().tolist(), size, start, 12],
        )
        free = [i for i in range(count) if i not in start]
        points = torch.from_numpy(probs)
        picks, radii = k_center_greedy(points[free], points[start], 12)
        assert found["picks"] == [free[i] for i in picks]
        assert found["radii"][:12] == pytest.approx(radii.tolist(), abs=1e-9)


def test_ask_the_teacher(page):
    box, asked = scene(page, "ask"), page.evaluate("tour.MODELS.ask.get('view')")
    box.get_by_role("button", name="image 5", exact=True).click()
    best = max(range(10), key=lambda c: asked["answers"][0]["probs"][4][c])
    assert f"Most probable: {asked['classes'][best]} " in box.text_content()
    box.get_by_label("wording").select_option("the red {}.")
    assert "the red 0." in box.text_content()
    level = next(a["accuracy"] for a in asked["answers"] if a["wording"] == "the red {}.")
    assert f"{level:.0f}\u00a0%" in status(page, "ask").text_content()


def test_a_lasso_groups_images_by_answer(page):
    box = scene(page, "simplex")
    box.scroll_into_view_if_needed()
    field = box.get_by_role("application").first
    area = field.bounding_box()
    x, y, w, h = (area[key] for key in ("x", "y", "width", "height"))
    page.mouse.move(x + 5, y + 5)
    page.mouse.down()
    for u, v in ((0.98, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.03)):
        page.mouse.move(x + u * w, y + v * h, steps=4)
    page.mouse.up()
    box.get_by_text("selected, by answer").wait_for()
    view = page.evaluate("tour.MODELS.simplex.get('view')")
    assert view["selected"] > 100
    assert sum(group["count"] for group in view["selection"]) <= view["selected"]
    page.mouse.move(x + 0.5 * w, y + 0.2 * h)


def test_the_stepper_steps_compares_and_takes_own_picks(page):
    box = scene(page, "stepper")
    box.get_by_role("button", name="▸ next").click()
    assert "1 of 15 picks made" in status(page, "stepper").text_content()
    box.get_by_label("compare with").select_option("coreset")
    assert "coreset" in status(page, "stepper").text_content()
    paths = page.evaluate("tour.MODELS.stepper.get('view').paths")
    radii = paths["pcoreset"]["radii"]
    assert radii == sorted(radii, reverse=True)
    assert radii[-1] < paths["random"]["radii"][-1]
    box.get_by_role("button", name="pick yourself").click()
    ours = paths["pcoreset"]["picks"][0]
    for index in (ours, ours):
        page.evaluate("(index) => tour.MODELS.stepper.send({ kind: 'pick', index })", index)
        page.wait_for_timeout(50)
    assert "picked already" in status(page, "stepper").text_content()
    mine = page.evaluate("tour.MODELS.stepper.get('view').paths.you.radii")
    assert mine == pytest.approx(radii[:2])  # PCoreSet's own first pick
    box.get_by_role("button", name="Reset").click()
    page.wait_for_timeout(50)
    assert "0 of 15 picks made" in status(page, "stepper").text_content()


def test_the_student_moves_with_kd_weight(page):
    box = scene(page, "inheritance")
    slider = box.get_by_label("kd_weight")
    said = []
    for value in ("0", "1"):
        slider.fill(value)
        page.wait_for_timeout(200)
        said.append(status(page, "inheritance").text_content())
    copied = [int(text.split(" of ")[0].split()[-1]) for text in said]
    assert copied[0] < copied[1]  # with the teacher's answers come its mistakes


def test_the_curves_are_those_of_the_study(page):
    box = scene(page, "curves")
    box.get_by_label("data set").select_option("digits")
    part = next(
        p for p in page.evaluate("tour.MODELS.curves.get('view').parts") if p["name"] == "digits"
    )
    line = next(p for p in part["lines"] if p["strategy"] == "pcoreset" and p["distill"])
    assert f"{line['ys'][-1]:.1f} ± {line['half'][-1]:.1f}" in status(page, "curves").text_content()
    before = box.locator("polyline").count()
    box.get_by_role("button", name="random").click()
    assert box.locator("polyline").count() == before - 2


@pytest.mark.parametrize("width", [360, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_and_the_rules_of_accessibility_are_kept(page, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page).response["violations"]
    found = [v for v in found if v["impact"] in ("serious", "critical")]
    assert not [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found]


def test_the_page_asks_nobody_and_reports_no_error(page):
    assert page.troubles == []
