import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from activekd_lite.utils import seeding, views
from activekd_lite.utils.views import Augmentation, Views


def images(count=4, height=20, width=20):
    g = seeding.generator(0, "test")
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=g)


def test_seeds_of_different_purposes_and_rounds_differ():
    purposes = itertools.product(range(3), ("a", "b"), range(10))
    assert len({seeding.derive_seed(*purpose) for purpose in purposes}) == 60
    assert seeding.derive_seed(1, "a", 23) != seeding.derive_seed(1, "a2", 3)


@given(st.lists(st.integers(0, 2**60), min_size=1, max_size=30, unique=True), st.integers(0, 5))
def test_uniforms_belong_to_the_id_not_to_the_batch(ids, seed):
    together = seeding.uniforms(seed, np.array(ids), 3)
    single = np.concatenate([seeding.uniforms(seed, np.array([i]), 3) for i in ids])
    np.testing.assert_array_equal(together, single)
    assert (together >= 0).all()
    assert (together < 1).all()


def test_uniforms_are_uniform_and_uncorrelated():
    u = seeding.uniforms(7, np.arange(40_000), 3)
    assert np.abs(u.mean(axis=0) - 0.5).max() < 0.01
    assert np.abs(u.var(axis=0) - 1 / 12).max() < 0.005
    assert np.abs(np.corrcoef(u.T) - np.eye(3)).max() < 0.03
    assert np.abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.03


def test_view_0_is_the_centre_crop_and_others_keep_to_the_augmentation():
    spec = Views(count=3, seed=1, augmentation=Augmentation((0.6, 0.8), (0.9, 1.1), 0.5))
    ids = torch.arange(500)
    central = views.boxes(spec, ids, torch.zeros(500), 20, 30)
    assert torch.equal(central, views.center_box(20, 30).expand(500, 5))
    top, left, height, width, flip = views.boxes(spec, ids, torch.ones(500), 20, 20).unbind(1)
    area, ratio = height * width, width / height
    assert 0.6 <= area.min() < 0.62
    assert 0.78 < area.max() <= 0.8 + 1e-6
    assert ratio.min() >= 0.9 - 1e-5
    assert ratio.max() <= 1.1 + 1e-5
    assert (top + height <= 1 + 1e-6).all()
    assert (left + width <= 1 + 1e-6).all()
    assert 0.4 < flip.mean() < 0.6


@pytest.mark.parametrize("change", [{"seed": 2}, {"augmentation": Augmentation((0.9, 1.0))}])
def test_every_field_changes_the_views(change):
    ids, view = torch.arange(8), torch.ones(8)
    base = Views(count=2, seed=1)
    other = Views(**{"count": 2, "seed": 1} | change)
    first, second = (views.boxes(spec, ids, view, 20, 20) for spec in (base, other))
    assert not torch.equal(first, second)
    assert base.fingerprint() != other.fingerprint()


def test_rendering_a_box_equals_cropping_it():
    x = images(1)
    # rows 5..14, columns 10..19, at the same resolution
    box = torch.tensor([[0.25, 0.5, 0.5, 0.5, 0.0]])
    assert torch.allclose(views.render(x, box, 10), x[:, :, 5:15, 10:20] / 255, atol=1e-5)
    box[0, 4] = 1
    assert torch.allclose(views.render(x, box, 10), x[:, :, 5:15, 10:20].flip(3) / 255, atol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(40, 40), (40, 61), (33, 20), (16, 16), (23, 21)])
def test_centre_crop_is_torchvisions(mode, shape):
    x = images(2, *shape)
    interpolation = v2.InterpolationMode(mode)
    steps = [v2.ToDtype(torch.float32, scale=True), v2.Resize(16, interpolation)]
    standard = v2.Compose([*steps, v2.CenterCrop(16)])
    torch.testing.assert_close(views.render_center(x, 16, mode), standard(x).clamp(0, 1))


def test_pixels_do_not_depend_on_the_rest_of_the_batch():
    x, spec = images(6), Views(count=3, seed=0)
    ids, view = torch.tensor([5, 9, 2, 7, 1, 0]), torch.tensor([0, 1, 2, 0, 1, 2])
    together = views.pixels(spec, x, ids, view, 16)
    parts = zip(x.split(1), ids.split(1), view.split(1), strict=True)
    single = torch.cat([views.pixels(spec, *part, 16) for part in parts])
    assert torch.allclose(together, single, atol=1e-6)


def test_bad_views_are_refused_by_value():
    with pytest.raises(ValueError, match="views = 0"):
        Views(count=0)
    with pytest.raises(ValueError, match=r"scale \(0, 1\)"):
        Augmentation(scale=(0, 1))
    with pytest.raises(ValueError, match="flip 2"):
        Augmentation(flip=2)
    with pytest.raises(ValueError, match=r"views 0\.\.1"):
        views.boxes(Views(count=2), torch.arange(2), torch.tensor([0, 2]), 8, 8)
