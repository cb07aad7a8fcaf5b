"""Slides of the course, opened in a browser and stepped through."""

import lab
import pytest

from activekd_lite.course import slides

SEEN = """() => {
  const slide = document.querySelector("section.now"), box = slide.querySelector("div"), faults = [];
  const edge = slide.getBoundingClientRect();
  if (box.scrollWidth > box.clientWidth) faults.push("too wide");
  for (const part of box.children) {
    const place = part.getBoundingClientRect();
    if (place.bottom > edge.bottom - 20 || place.right > edge.right) faults.push(part.outerHTML);
    if (part.tagName === "IMG" && (!part.naturalWidth || place.height < 150)) faults.push("small picture");
  }
  const visible = [...document.querySelectorAll("section")].filter((s) => getComputedStyle(s).visibility === "visible");
  return { label: slide.getAttribute("aria-label"), visible: visible.length, faults };
}"""  # noqa: E501


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    return slides.write(to=tmp_path_factory.mktemp("slides"))


@pytest.fixture
def opened(chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 720})
    page, troubles = context.new_page(), []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    requests = lab.requests_of(page)

    def open_deck(path):
        page.goto(path.as_uri())
        page.wait_for_function("document.documentElement.dataset.ready")
        return page

    yield open_deck
    assert not troubles
    assert all(url.startswith("file:") and url.endswith(".html") for url in requests)
    context.close()


def shown(page):
    return page.locator("section.now").get_attribute("aria-label")


def test_every_slide_of_the_course_fits_and_can_be_reached(opened, decks):
    assert decks
    for path in decks:
        page = opened(path)
        count, pictures = page.locator("section").count(), page.locator("section img").count()
        assert count >= 8
        assert pictures >= 1, path.name
        for place in range(1, count + 1):
            seen = page.evaluate(SEEN)
            assert seen["label"].startswith(f"{place} of {count}: ")
            assert seen["visible"] == 1
            assert not seen["faults"], (path.name, place, seen["faults"])
            page.keyboard.press("ArrowRight")
        assert shown(page).startswith(f"{count} of {count}: ")


def test_keys_buttons_and_address(opened, decks):
    page = opened(decks[0])
    page.keyboard.press("End")
    last = shown(page)
    page.keyboard.press("PageUp")
    page.get_by_role("button", name="next slide").click()
    assert shown(page) == last
    page.keyboard.press("Home")
    assert shown(page).startswith("1 of")
    page.keyboard.press("ArrowLeft")
    assert shown(page).startswith("1 of")
    page.keyboard.press(" ")
    assert page.evaluate("location.hash") == "#2"
    page.reload()
    assert shown(page).startswith("2 of")


def test_notes_are_shown_on_demand(opened, decks):
    page = opened(decks[0])
    place = page.evaluate("slides.findIndex((slide) => slide.querySelector('.notes'))")
    page.evaluate(f"show({place})")
    notes = page.locator("section.now .notes")
    assert not notes.is_visible()
    page.keyboard.press("n")
    assert notes.is_visible()
    page.get_by_role("button", name="notes").click()
    assert not notes.is_visible()


def test_each_slide_is_one_page_in_print(opened, decks):
    page = opened(decks[0])
    count = page.locator("section").count()
    printed = page.pdf(prefer_css_page_size=True)
    assert printed.count(b"/Type /Page\n") == count


def test_slides_fill_a_window_of_another_size(opened, decks):
    page = opened(decks[0])
    page.set_viewport_size({"width": 640, "height": 900})
    box = page.locator("section.now").bounding_box()
    assert box["width"] == pytest.approx(640, abs=1)
    assert box["y"] == pytest.approx((900 - 360) / 2, abs=1)
