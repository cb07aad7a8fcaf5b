"""How long a hand waits for `SimplexExplorer`: JupyterLab and headless Chromium on this machine, the mouse moved by Playwright.

    python benchmarks/explorers.py --points 5000

First paint: from Ctrl+Enter in the cell to the first pixel of a point. Hover: from the mouse move to the picture beside it, and
to the card of likeliest classes, written by the kernel. Lasso: from letting go to the kernel's count on the page.
Prompts: what `PromptExplorer` computes for a changed class name, in the kernel.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import lab

SETUP = """
import torch
import activekd_lite as akd
from activekd_lite.datasets.shapes import CLASSNAMES, make_shapes
akd.widgets
images, labels = make_shapes({points}, 0)
data = akd.make_dataset("benchmark", images, labels, images[:40], labels[:40], CLASSNAMES)
chance = torch.Generator().manual_seed(0)
probs = (1.5 * torch.randn({points}, 36, generator=chance) + 4 * torch.nn.functional.one_hot(labels, 36)).softmax(1)
cloud = torch.randn({points}, 2, generator=chance)
"""
SHOW = 'explorer = akd.widgets.SimplexExplorer(data, {"teacher": probs}, layouts={"cloud": cloud})\nexplorer'
PAINTED = """() => { const c = document.querySelectorAll('.akd-field canvas')[2];
  return !!c && !!c.width && c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v); }"""
CHANGED = "([where, before]) => document.querySelector(where).innerText !== before"


def waited(page, where: str, act) -> float:
    """Seconds from an act to a change of the text at `where`."""
    before, start = page.locator(where).inner_text(), time.perf_counter()
    act()
    page.wait_for_function(CHANGED, arg=[where, before])
    return time.perf_counter() - start


def hover(page, x: float, y: float) -> tuple[float, float]:
    start, seen = time.perf_counter(), []

    def move():
        page.mouse.move(x, y)
        page.wait_for_function(
            "() => getComputedStyle(document.querySelector('.akd-tip')).display === 'block'"
        )
        seen.append(time.perf_counter() - start)

    return waited(page, ".activekd-card", move), seen[0]


def lasso(page, x: float, y: float, reach: float) -> float:
    page.mouse.move(x - reach, y - reach)
    page.mouse.down()
    for u, v in ((reach, -reach), (reach, reach), (-reach, reach), (-reach, -reach)):
        page.mouse.move(x + u, y + v, steps=5)
    return waited(page, ".activekd-summary", page.mouse.up)


def measure(points: int) -> dict[str, list[float]]:
    from playwright.sync_api import sync_playwright

    found = {"first paint": [], "hover: picture": [], "hover: card": [], "lasso": []}
    root = Path(tempfile.mkdtemp())
    path = lab.written(root, "benchmark", [SETUP.format(points=points), SHOW])
    with lab.jupyterlab(root) as (address, token), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=lab.CHROMIUM, args=lab.FLAGS)
        notebook = lab.Notebook(
            browser.new_context(viewport={"width": 1280, "height": 1200}),
            address,
            token,
            path,
            root,
        )
        notebook.run(0)
        page, start = notebook.page, time.perf_counter()
        notebook.start(1)
        page.wait_for_function(PAINTED, timeout=60_000)
        found["first paint"].append(time.perf_counter() - start)
        notebook.finished(1)
        page.wait_for_timeout(1000)
        box = page.locator(".akd-field").nth(1).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for k in range(10):
            card, picture = hover(page, x + 9 * k, y - 7 * k)
            found["hover: card"].append(card)
            found["hover: picture"].append(picture)
        for k in range(5):
            found["lasso"].append(lasso(page, x, y, 40 + 15 * k))
            page.wait_for_timeout(300)
        browser.close()
    return found


def prompts(points: int) -> list[float]:
    """Seconds of asking anew with one changed name of 36, three templates."""
    import activekd_lite as akd
    from activekd_lite.datasets.shapes import CLASSNAMES, make_shapes

    images, labels = make_shapes(points, 0)
    data = akd.make_dataset("benchmark", images, labels, images[:40], labels[:40], CLASSNAMES)
    model = akd.load_vlm(device="cpu")
    cache = akd.TeacherCache.build(model, data.pool, root=tempfile.mkdtemp(), progress=False)
    explorer, took = akd.widgets.PromptExplorer(data, model, cache), []
    _ = explorer.widget
    templates = ["a photo of a {}.", "a {} shape", "a drawing of a {}"]
    explorer._templates.value = "\n".join(templates)
    for k in range(10):
        names, start = (
            ["solid " + "red " * (k + 1) + "circle", *CLASSNAMES[1:]],
            time.perf_counter(),
        )
        explorer._names.value = "\n".join(names)
        took.append(time.perf_counter() - start)
    return took


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=5000, help="images in the pool (5000)")
    args = parser.parse_args(arguments)
    found = measure(args.points) if lab.CHROMIUM else {}
    if not found:
        print("no Chromium on this machine: nothing is measured in a browser")
    for name, seconds in (found | {"prompts: ask anew": prompts(args.points)}).items():
        values = torch.tensor(seconds)
        print(
            f"{name:20} median {1000 * values.median():.0f} ms, largest {1000 * values.max():.0f} ms (n = {len(values)})"
        )


if __name__ == "__main__":
    main()
