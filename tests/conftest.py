"""Small real objects that the tests share: handwritten digits, the embedded teacher, a cache of it."""

import contextlib
import os

import pytest
import torch

import activekd_lite as akd


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
    cache = akd.TeacherCache.build(vlm, small.pool, views=3, root=tmp_path_factory.mktemp("cache"), progress=False)
    return akd.ZeroShotTeacher(cache, vlm.text_weights(small.classnames, small.templates))


@pytest.fixture(scope="session")
def quick():
    return akd.TrainConfig(steps=8, batch_size=8)


@pytest.fixture
def full_disk(monkeypatch):
    """`with full_disk(writes):` the disk takes that many writes more, then is full."""

    @contextlib.contextmanager
    def until(writes):
        original, room = os.fsync, {"writes": writes}

        def full(descriptor):
            room["writes"] -= 1
            if room["writes"] < 0:
                raise OSError(28, "No space left on device")
            return original(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            yield

    return until
