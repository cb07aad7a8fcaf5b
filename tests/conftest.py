"""Small real objects that the tests share: handwritten digits, the embedded teacher, a cache of it."""

import contextlib
import os
import stat
import tracemalloc

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import activekd_lite as akd

# The tier of each file, if it is not "unit". Single tests are marked @pytest.mark.slow.
TIERS = {
    "test_browser": "browser",
    "test_notebooks": "notebook",
    "test_handouts": "notebook",
    "test_batches": "notebook",
    "test_survival": "survival",
    "test_cluster": "survival",
}


def pytest_collection_modifyitems(items):
    for item in items:
        tier = TIERS.get(item.path.stem, "slow" if item.get_closest_marker("slow") else "unit")
        item.add_marker(tier)


@pytest.fixture(scope="session")
def digits():
    return akd.load_dataset("digits")


@pytest.fixture(scope="session")
def small(digits):
    """150 pool and 100 test images of `digits`: enough for whole runs in a second."""
    labels = digits.oracle.label(torch.arange(150))
    pool, test = digits.pool.images[:150], digits.test
    return akd.make_dataset(
        "small", pool, labels, test.images[:100], test.labels[:100], digits.classnames, digits.templates,
        digits.pool.augmentation, student="tiny-cnn",
    )  # fmt: skip


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


@pytest.fixture
def full_disk(monkeypatch):
    """`with full_disk(writes):` the disk takes that many files more, then is full."""

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
    """`with LargestAllocation() as seen:` then `seen.bytes`: the largest tensor that torch made, or the peak of numpy's memory.
    Counted, not read from the operating system, so the same everywhere."""

    def __enter__(self):
        self.bytes = 0
        tracemalloc.start()
        return super().__enter__()

    def __exit__(self, *exception):
        self.bytes = max(self.bytes, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        return super().__exit__(*exception)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {
            t.untyped_storage().data_ptr()
            for t in torch.utils._pytree.tree_leaves((args, kwargs))
            if torch.is_tensor(t)
        }
        result = function(*args, **(kwargs or {}))
        for t in torch.utils._pytree.tree_leaves(result):
            if torch.is_tensor(t) and t.untyped_storage().data_ptr() not in given:  # not a view
                self.bytes = max(self.bytes, t.untyped_storage().nbytes())
        return result


@pytest.fixture
def largest_allocation():
    with LargestAllocation():
        torch.zeros(1)  # what torch imports for its first dispatch mode is none of what is measured
    return LargestAllocation()
