"""JupyterLab on a free loopback port, with a notebook driven by Playwright; for browser tests."""

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
FLAGS = """
--no-sandbox --disable-gpu --enable-unsafe-swiftshader --disable-background-networking
--no-first-run --disable-component-update --disable-sync
""".split()
HARMLESS = re.compile(r"WebGL|GPU stall|swiftshader|GL Driver", re.I)  # the software renderer's
CALM = {  # no questions in a corner of the page; cells outside the window stay in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
ROOT = Path(__file__).resolve().parent.parent
SCREENS = ROOT / "runs" / "screens"


@contextlib.contextmanager
def jupyterlab(folder: Path, *, dark: bool = False):
    """Start a server that shows `folder`; yields (address, token)."""
    theme = {"theme": "JupyterLab Dark" if dark else "JupyterLab Light"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    settings = {
        "ServerApp.root_dir": folder,
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.allow_root": True,
        "ServerApp.open_browser": False,
        "IdentityProvider.token": token,
        "LabApp.collaborative": False,
        "LabApp.news_url": "",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "jupyterlab", *arguments]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(folder / ".config"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"),
    }
    environment.pop("PLOTLY_RENDERER", None)
    for name, content in (CALM | {"apputils-extension/themes": theme}).items():
        path = folder / ".settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    with open(folder / "lab.log", "w") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder
        )
        try:
            address = f"http://127.0.0.1:{port}"
            status = f"{address}/api/status?token={token}"
            wait(lambda: _answers(status), 60, lambda: (folder / "lab.log").read_text()[-2000:])
            yield address, token
        finally:
            server.terminate()
            server.wait(30)


def _answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


def end_kernels(address: str, token: str) -> None:
    """End all kernels of a server, so that those of earlier tests take no memory."""
    headers = {"Authorization": f"token {token}"}
    request = urllib.request.Request(f"{address}/api/sessions", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        sessions = json.load(answer)
    for session in sessions:
        url = f"{address}/api/sessions/{session['id']}"
        delete = urllib.request.Request(url, headers=headers, method="DELETE")
        urllib.request.urlopen(delete, timeout=30).close()


def wait(condition, seconds: float, describe_failure) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, describe_failure()
        time.sleep(0.05)


def has_run(prompt) -> bool:
    return bool(re.match(r"\[\d+\]", prompt.text_content() or ""))


class Notebook:
    """A notebook in JupyterLab: run cells from the keyboard, query the page and the kernel."""

    def __init__(self, context, address: str, token: str, path: Path, root: Path):
        self.address, self.token, self.path, self.troubles = address, token, path, []
        self.page = context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self._note(str(error)))
        self.requests = requests_of(self.page)
        self.page.goto(f"{address}/lab/tree/{path.relative_to(root)}?token={token}&reset")
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
        # a cell that is started before the kernel is ready never runs
        self.page.get_by_text("| Idle").wait_for(timeout=60_000)

    def _console(self, message) -> None:
        if message.type == "error":
            self._note(message.text, message.location)

    def _note(self, text: str, location: dict | None = None) -> None:
        if not HARMLESS.search(text):
            self.troubles.append(f"{text} {(location or {}).get('url', '')}")

    def cell(self, place: int):
        return self.page.locator(f".jp-Notebook .jp-Cell[data-windowed-list-index='{place}']")

    def run(self, place: int, seconds: float = 120) -> None:
        """Run the cell `place` and wait until it has finished."""
        self.start(place)
        self.finished(place, seconds)

    def start(self, place: int) -> None:
        cell = self.cell(place)
        cell.scroll_into_view_if_needed()
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")

    def run_all(self, seconds: float = 300) -> None:
        """Run all cells from the menu and wait for the last one."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        last = self.page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt").last
        wait(lambda: has_run(last), seconds, lambda: f"last cell: {last.text_content()}")

    def finished(self, place: int, seconds: float = 120) -> None:
        prompt = self.cell(place).locator(".jp-InputPrompt")
        wait(lambda: has_run(prompt), seconds, lambda: f"cell {place}: {prompt.text_content()}")

    def restarted(self) -> None:
        """Wait until JupyterLab has noticed a dead kernel and started another."""
        dialog = self.page.get_by_role("button", name="Ok")
        dialog.wait_for(timeout=60_000)
        dialog.click()
        self.page.get_by_text("| Idle").wait_for(timeout=60_000)

    def output(self, place: int):
        return self.cell(place).locator(".jp-OutputArea")

    def ask(self, place: int, code: str) -> object:
        """Evaluate an expression in the kernel, in the cell `place`; the value must be JSON."""
        cell = self.cell(place)
        cell.scroll_into_view_if_needed()
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(f"import json; print('value', json.dumps({code}))")
        prompt = cell.locator(".jp-InputPrompt")
        before = prompt.text_content()
        self.page.keyboard.press("Control+Enter")
        finished = lambda: prompt.text_content() != before and has_run(prompt)  # noqa: E731
        wait(finished, 60, lambda: f"the kernel does not answer {code}")
        text = self.output(place).inner_text()
        assert "value " in text, text
        return json.loads(text.split("value ", 1)[1])

    def screenshot(self, name: str, place: int | None = None) -> None:
        SCREENS.mkdir(parents=True, exist_ok=True)
        target = self.page if place is None else self.output(place)
        target.screenshot(path=SCREENS / f"{name}.png")

    def save(self) -> None:
        self.page.keyboard.press("Escape")
        before = self.path.stat().st_mtime_ns

        def saved():
            changed = self.path.stat().st_mtime_ns != before
            return changed and self.path.read_text().endswith("}\n")

        self.page.keyboard.press("Control+S")
        wait(saved, 20, lambda: "the notebook was not saved")

    def close(self) -> None:
        """Close the page; fail on errors, foreign requests or upload buttons in figures."""
        uploads = upload_buttons(self.page)
        self.page.close()
        assert not self.troubles, self.troubles
        assert not uploads
        assert not [url for url in self.requests if not url.startswith(self.address)]


def requests_of(page) -> list[str]:
    """A list that collects the URLs the page requests from now on, without data: and blob:."""
    urls = []

    def note(request):
        if not request.url.startswith(("data:", "blob:")):
            urls.append(request.url)

    page.on("request", note)
    page.on("websocket", lambda socket: urls.append(socket.url.replace("ws", "http", 1)))
    return urls


def upload_buttons(page) -> list[str]:
    """Names of toolbar buttons that would send a figure to a server."""
    titles = "buttons => buttons.map(b => b.dataset.title || b.title || '?')"
    names = page.locator(".modebar-btn").evaluate_all(titles)
    return [name for name in names if re.search(r"share|cloud|send|upload|edit|\?", name, re.I)]


def written(folder: Path, name: str, cells: list[str]) -> Path:
    """Write a notebook of these cells, plus an empty one at the end for `Notebook.ask`."""
    notebook = new_notebook(cells=[new_code_cell(source) for source in [*cells, ""]])
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["kernelspec"] = kernel
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def needs_chromium() -> None:
    """Skip the test without Chromium; fail if ACTIVEKD_BROWSER=required, as in CI."""
    if CHROMIUM is None:
        text = "no Chromium on this machine, so no browser tests (install `chromium`)"
        pytest.fail(text) if os.environ.get("ACTIVEKD_BROWSER") == "required" else pytest.skip(text)


# Cells that the tests of several explorers begin with.
SETUP = """
import torch
import activekd_lite as akd
from activekd_lite.datasets.shapes import CLASSNAMES, make_shapes

images, labels = make_shapes(300, 0)
data = akd.make_dataset("grid", images, labels, images[:40], labels[:40], CLASSNAMES)
chance = torch.Generator().manual_seed(0)
logits = torch.randn(300, 36, generator=chance) + 4 * torch.nn.functional.one_hot(labels, 36)
probs = logits.softmax(1)
# Image i is at (i % 20, i // 20) on the map.
grid = torch.stack([torch.arange(300) % 20, torch.arange(300) // 20], 1).float()
state = akd.LabelState.empty(300).with_labels(torch.arange(5), labels[:5], 0)
akd.widgets  # imported here, so that it is not counted below
"""
DIGITS = """
import os
import torch
import activekd_lite as akd

digits = akd.load_dataset("digits")
truth = digits.oracle.label(torch.arange(150))
data = akd.make_dataset(
    "small", digits.pool.images[:150], truth, digits.test.images[:100], digits.test.labels[:100],
    digits.classnames, digits.templates, digits.pool.augmentation, student="tiny-cnn",
)
model = akd.load_vlm(device="cpu")
cache = akd.TeacherCache.build(model, data.pool, views=2, root="cache", progress=False)
teacher = akd.ZeroShotTeacher(cache, model.text_weights(data.classnames, data.templates))
akd.widgets
"""
