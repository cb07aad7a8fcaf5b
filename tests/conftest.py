"""Fixtures that the tests share: digits, the embedded teacher and its cache, a full disk."""

import contextlib
import os
import stat
import tracemalloc

import lab
import pytest
import torch
from stage import Stage
from torch.utils._python_dispatch import TorchDispatchMode

import activekd_lite as akd

# The tier of each file, if it is not "unit". Single tests are marked @pytest.mark.slow.
TIERS = {
    "test_notebooks": "notebook",
    "test_handouts": "notebook",
    "test_slides": "notebook",
    "test_batches": "notebook",
    "test_survival": "survival",
    "test_cluster": "survival",
    "test_stopping": "survival",
    "test_benchmarks": "slow",
    "test_cache": "slow",
    "test_contributing": "slow",
    "test_files": "slow",
    "test_loop": "slow",
    "test_open_clip_models": "slow",
    "test_protocol": "slow",
    "test_sweep": "slow",
    "test_sweep_plots_cli": "slow",
}


def _tier_of_file(path) -> str:
    if path.suffix == ".ipynb":
        return "notebook"
    return "browser" if path.stem.startswith("test_browser") else TIERS.get(path.stem, "unit")


def _tier(item) -> str:
    tier = _tier_of_file(item.path)
    return "slow" if tier == "unit" and item.get_closest_marker("slow") else tier


def pytest_ignore_collect(collection_path, config):
    """With `-m unit`, do not import the files that have no such test: it takes seconds."""
    unneeded = collection_path.suffix == ".py" and _tier_of_file(collection_path) != "unit"
    return True if config.option.markexpr == "unit" and unneeded else None


@pytest.hookimpl(tryfirst=True)  # before -m deselects
def pytest_collection_modifyitems(items):
    for item in items:
        tier = _tier(item)
        item.add_marker(tier)


@pytest.fixture(scope="session")
def digits():
    return akd.load_dataset("digits")


@pytest.fixture(scope="session")
def small(digits):
    """150 pool and 100 test images of `digits`, so that a whole run takes a second."""
    labels = digits.oracle.label(torch.arange(150))
    pool, test = (digits.pool.images[:150], labels), (digits.test.images, digits.test.labels)
    names = (digits.classnames, digits.templates, digits.pool.augmentation)
    return akd.make_dataset("small", *pool, *(x[:100] for x in test), *names, student="tiny-cnn")


@pytest.fixture(scope="session")
def vlm():
    return akd.load_vlm(device="cpu")


@pytest.fixture(scope="session")
def teacher(vlm, small, tmp_path_factory):
    cache = akd.TeacherCache.build(
        vlm, small.pool, views=3, root=tmp_path_factory.mktemp("cache"), progress=False
    )
    return akd.ZeroShotTeacher(cache, vlm.text_weights(small.classnames, small.templates))


@pytest.fixture(scope="session")
def quick():
    return akd.TrainConfig(steps=8, batch_size=8)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    """A cache of the embedded data sets' features, shared by all test processes.

    For tests that need features but do not look at how they are made or kept.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared-cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def workplace(tmp_path, monkeypatch, shared_cache):
    """The current folder of a test: empty but for `.cache`, which is the shared one."""
    with contextlib.suppress(OSError):  # not allowed on Windows: then it has a cache of its own
        (tmp_path / ".cache").symlink_to(shared_cache)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained_inheritance(small, teacher):
    """An `InheritanceExplorer` of the digits 1, 3 and 7 with a student."""
    config = akd.TrainConfig(steps=30, batch_size=16)
    classes = ("1", "3", "7")
    explorer = akd.widgets.InheritanceExplorer(small, teacher, classes=classes, config=config)
    _ = explorer.student
    return explorer


@pytest.fixture
def inheritance(trained_inheritance):
    """`trained_inheritance` with its first settings."""
    explorer = trained_inheritance
    explorer.kd_weight, explorer.count, explorer.beside, explorer.balls = 0.5, 3, "nothing", False
    yield explorer
    explorer.close()


@pytest.fixture
def full_disk(monkeypatch):
    """`with full_disk(writes):` lets that many more files be written, then the disk is full."""

    @contextlib.contextmanager
    def until(writes):
        original, room = os.fsync, {"writes": writes}

        def full(descriptor):
            room["writes"] -= stat.S_ISREG(os.fstat(descriptor).st_mode)
            if room["writes"] < 0:
                raise OSError(28, "No space left on device")
            return original(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            yield

    return until


class LargestAllocation(TorchDispatchMode):
    """`with LargestAllocation() as seen:` sets `seen.bytes` to the largest allocation.

    That is the largest tensor that torch created or the peak of numpy's memory, whichever is more;
    counted, not read from the operating system, so it is the same everywhere.
    """

    def __enter__(self):
        self.bytes = 0
        tracemalloc.start()
        return super().__enter__()

    def __exit__(self, *exception):
        self.bytes = max(self.bytes, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        return super().__exit__(*exception)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {storage.data_ptr() for storage in storages((args, kwargs))}
        result = function(*args, **(kwargs or {}))
        for storage in storages(result):
            if storage.data_ptr() not in given:  # not a view
                self.bytes = max(self.bytes, storage.nbytes())
        return result


def storages(tree):
    leaves = torch.utils._pytree.tree_leaves(tree)
    return [leaf.untyped_storage() for leaf in leaves if torch.is_tensor(leaf)]


@pytest.fixture
def largest_allocation():
    with LargestAllocation():
        torch.zeros(
            1
        )  # torch imports modules for its first dispatch mode: keep them out of the measurement
    return LargestAllocation()


@pytest.fixture(scope="session")
def chromium():
    lab.needs_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=lab.CHROMIUM, args=lab.FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab_server(tmp_path_factory):
    """JupyterLab on an empty folder: (folder, address, token)."""
    root = tmp_path_factory.mktemp("lab")
    with lab.jupyterlab(root) as (address, token):
        yield root, address, token


@pytest.fixture(scope="module")
def browser(chromium, lab_server, request):
    """A browser and a folder of JupyterLab for this module: `open_notebook(name, cells)`."""
    top, address, token = lab_server
    root = top / request.path.stem
    root.mkdir()
    context = chromium.new_context(viewport={"width": 1280, "height": 1300})

    def open_notebook(name, cells=None):
        path = root / name if cells is None else lab.written(root, name, cells)
        return lab.Notebook(context, address, token, path, top)

    open_notebook.root, open_notebook.context = root, context
    yield open_notebook
    context.close()
    lab.end_kernels(address, token)


@pytest.fixture(scope="session")
def tabs(chromium):
    return chromium.new_context()


@pytest.fixture
def stage(chromium, tabs):
    """`stage(explorer, width=1280, dark=False)`: its page in a plain tab; closed after the test.

    A browser context of its own, which is slow, only where it has options.
    """
    opened = []

    def show(explorer, *, width=1280, height=900, dark=False, **options):
        context = chromium.new_context(**options) if options else tabs
        shown = Stage(context, explorer, dark=dark)
        shown.page.set_viewport_size(dict(width=width, height=height))
        opened.append(shown)
        return shown

    yield show
    for page in opened:
        page.close()
