"""Response times of explorers in JupyterLab with headless Chromium.

    python benchmarks/explorers.py --points 5000 200000 1000000

Playwright moves the mouse.
First paint: from Ctrl+Enter in the cell to the first pixel of a point.
Redraw: both panels drawn again in the page, after a click in the legend.
Hover: from the mouse move to the image next to the pointer, and to the card of the most likely
classes, which the kernel writes.
Lasso: from releasing the button to the kernel's count on the page.
These are of `SimplexExplorer`.
Prompts: the time `PromptExplorer` computes in the kernel after a class name has changed.
Slider: from a move of `InheritanceExplorer`'s kd_weight to the picture, with 20 picks, in a tab of
its own: on the clock, and in the page's processor time, which other processes do not change.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import lab
from stage import Stage

SETUP = """
import torch
import activekd_lite as akd
from activekd_lite.datasets.shapes import CLASSNAMES, make_shapes
akd.widgets
images, labels = make_shapes(1000, 0)
images = torch.nn.functional.avg_pool2d(images.float(), 2).byte()  # a million fit into memory
images, labels = (x[torch.arange({points}) % 1000] for x in (images, labels))
data = akd.make_dataset("benchmark", images, labels, images[:40], labels[:40], CLASSNAMES)
chance = torch.Generator().manual_seed(0)
noise = torch.randn({points}, 36, generator=chance)
probs = (1.5 * noise + 4 * torch.nn.functional.one_hot(labels, 36)).softmax(1)
cloud = torch.randn({points}, 2, generator=chance)
explorer = akd.widgets.SimplexExplorer(data, {{"teacher": probs}}, layouts={{"cloud": cloud}})
"""
PAINTED = """() => {
  const c = document.querySelectorAll('.akd-field canvas')[2];
  if (!c || !c.width) return false;
  const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  return data.filter((v, k) => k % 4 === 3 && v).length > 500;
}"""
REDRAWN = """() => new Promise((done) => {
  const start = performance.now();
  document.querySelector('.akd-legend [aria-pressed]').click();
  const drawn = () => done((performance.now() - start) / 1000);
  requestAnimationFrame(() => requestAnimationFrame(drawn));
})"""
TIP_SHOWN = "() => getComputedStyle(document.querySelector('.akd-tip')).display === 'block'"
MOVES = """async () => {
  const slider = document.querySelector('input[type=range]'), seconds = [];
  for (let k = 0; k < 30; k++) {
    slider.value = (k % 2 ? .2 : .7) + k / 200;
    const start = performance.now();
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    seconds.push((performance.now() - start) / 1000);
  }
  return seconds;
}"""
CHANGED = "([where, before]) => document.querySelector(where).innerText !== before"


def seconds_to_change(page, selector: str, act) -> float:
    """Seconds from the start of `act()` to a change of the text at `selector`."""
    before, start = page.locator(selector).inner_text(), time.perf_counter()
    act()
    page.wait_for_function(CHANGED, arg=[selector, before])
    return time.perf_counter() - start


def hover(page, x: float, y: float) -> tuple[float, float]:
    """Seconds until the card has changed, and until the image is shown."""
    start, shown = time.perf_counter(), []

    def move():
        page.mouse.move(x, y)
        page.wait_for_function(TIP_SHOWN)
        shown.append(time.perf_counter() - start)

    return seconds_to_change(page, ".akd-detail", move), shown[0]


def lasso(page, x: float, y: float, reach: float) -> float:
    page.mouse.move(x - reach, y - reach)
    page.mouse.down()
    for u, v in ((reach, -reach), (reach, reach), (-reach, reach), (-reach, -reach)):
        page.mouse.move(x + u, y + v, steps=5)
    return seconds_to_change(page, ".akd-status", page.mouse.up)


def measure(points: int) -> dict[str, list[float]]:
    from playwright.sync_api import sync_playwright

    root = Path(tempfile.mkdtemp())
    path = lab.written(root, "benchmark", [SETUP.format(points=points), "explorer"])
    with lab.jupyterlab(root) as (address, token), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=lab.CHROMIUM, args=lab.FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": 1200})
        notebook = lab.Notebook(context, address, token, path, root)
        notebook.run(0, 300)
        seconds = {"first paint": [paint(notebook)]}
        seconds |= {"redraw": [notebook.page.evaluate(REDRAWN) for _ in range(6)]}
        seconds |= pointer_times(notebook.page)
        browser.close()
    return seconds


def paint(notebook) -> float:
    start = time.perf_counter()
    notebook.start(1)
    notebook.page.wait_for_function(PAINTED, timeout=120_000)
    spent = time.perf_counter() - start
    notebook.finished(1)
    notebook.page.wait_for_timeout(1000)
    return spent


def pointer_times(page) -> dict[str, list[float]]:
    seconds = {"hover: picture": [], "hover: card": [], "lasso": []}
    box = page.locator(".akd-field").nth(1).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for k in range(10):
        card, picture = hover(page, x + 9 * k, y - 7 * k)
        seconds["hover: card"].append(card)
        seconds["hover: picture"].append(picture)
    for k in range(5):
        seconds["lasso"].append(lasso(page, x, y, 40 + 15 * k))
        page.wait_for_timeout(300)
    return seconds


def prompts(points: int) -> list[float]:
    """Seconds to recompute after one of 36 class names has changed, with three templates."""
    import activekd_lite as akd
    from activekd_lite.datasets.shapes import CLASSNAMES, make_shapes

    images, labels = make_shapes(points, 0)
    data = akd.make_dataset("benchmark", images, labels, images[:40], labels[:40], CLASSNAMES)
    model = akd.load_vlm(device="cpu")
    cache = akd.TeacherCache.build(model, data.pool, root=tempfile.mkdtemp(), progress=False)
    explorer, seconds = akd.widgets.PromptExplorer(data, model, cache), []
    _ = explorer.widget
    templates = "a photo of a {}.\na {} shape\na drawing of a {}"
    for k in range(10):
        names, start = [f"solid {'red ' * (k + 1)}circle", *CLASSNAMES[1:]], time.perf_counter()
        explorer._on_typed("\n".join(names), templates)
        seconds.append(time.perf_counter() - start)
    return seconds


def inheritance():
    """An `InheritanceExplorer` of 330 images in three classes, with 20 picks."""
    import activekd_lite as akd
    from activekd_lite.datasets.shapes import make_shapes

    images, labels = make_shapes(330, 0)[0], torch.arange(330) % 3
    data = akd.make_dataset("three", images, labels, images[:30], labels[:30], ["a", "b", "c"])
    chance, truth = torch.Generator().manual_seed(0), torch.nn.functional.one_hot(labels, 3)
    teacher, ce, kd = ((torch.randn(330, 3, generator=chance) + 2 * truth) for _ in range(3))
    ce, kd = ce.softmax(1), kd.softmax(1)
    predictions = akd.Predictions((ce + kd) / 2, ce, ce_probs=ce, kd_probs=kd)
    start = torch.arange(3)
    state = akd.LabelState.empty(330).with_labels(start, labels[start], 0)
    teacher = akd.teacher.from_logits(teacher)
    return akd.widgets.InheritanceExplorer(data, teacher, predictions, state, picks=20)


def slider() -> tuple[list[float], list[float]]:
    """Seconds on the clock, for 30 moves, and the mean processor time of one."""
    from playwright.sync_api import sync_playwright

    def spent() -> float:
        metrics = client.send("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in metrics if m["name"] == "TaskDuration")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=lab.CHROMIUM, args=lab.FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        shown = Stage(context, inheritance())
        shown.wait(1000)
        client = context.new_cdp_session(shown.page)
        client.send("Performance.enable", {"timeDomain": "threadTicks"})
        start = spent()
        seconds = shown.page.evaluate(MOVES)
        each = (spent() - start) / len(seconds)
        browser.close()
    return seconds, [each]


def show(name: str, seconds: list[float]) -> None:
    ms, count = 1000 * torch.tensor(seconds), len(seconds)
    print(f"{name:20} median {ms.median():.0f} ms, largest {ms.max():.0f} ms (n = {count})")


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = dict(type=int, nargs="+", default=[5000], help="images in the pool (5000)")
    parser.add_argument("--points", **sizes)
    args = parser.parse_args(arguments)
    if not lab.CHROMIUM:
        print("no Chromium on this machine: browser times are not measured")
    for points in args.points:
        print(f"{points:,} points")
        for name, seconds in (measure(points) if lab.CHROMIUM else {}).items():
            show(name, seconds)
    for name, seconds in zip(("slider", "slider: processor"), slider(), strict=False):
        show(name, seconds)
    show("prompts: recompute", prompts(min(*args.points, 5000)))


if __name__ == "__main__":
    main()
