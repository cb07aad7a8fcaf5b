"""Where tensors would be on a GPU: FakeTensorMode tracks shapes and devices without computing."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import activekd_lite as akd
from activekd_lite.utils.device import resolve_device

pytestmark = pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="torch 2.6 needs a GPU even for fake tensors"
)


@pytest.fixture
def fake_gpu(monkeypatch):
    # the one step that FakeTensorMode does not support
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (10**9, 10**9))
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@pytest.fixture
def cache(small):
    features = torch.nn.functional.normalize(torch.rand(3, 150, 8), dim=2).half()
    fingerprint = {"vlm": {"logit_scale": 10.0}, "pool": small.pool.fingerprint()}
    views = akd.Views(3, augmentation=small.pool.augmentation)
    return akd.TeacherCache(features, views, fingerprint)


INDEX, VIEW = torch.arange(8), torch.tensor([0, 1, 2, 0, 1, 2, 1, 1])


@pytest.mark.parametrize("budget", [None, 0])
def test_cached_features_arrive_on_the_gpu_whether_or_not_they_fit(cache, fake_gpu, budget):
    there = cache.to("cuda", budget_bytes=budget)
    assert there.features.device.type == ("cpu" if budget == 0 else "cuda")
    for view in (VIEW, 1):
        rows = there.gather(INDEX, view)
        assert rows.device == torch.device("cuda", 0)
        assert (rows.shape, rows.dtype) == ((8, 8), torch.float32)


def test_a_device_is_named_with_its_number(fake_gpu):
    """Without its number, "cuda" would differ from the device of its tensors."""
    assert resolve_device("cuda") == torch.device("cuda", 0)
