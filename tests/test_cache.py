import json
from dataclasses import replace

import pytest
import torch

import activekd_lite as akd
from activekd_lite import cache as cache_module
from activekd_lite.cache import TeacherCache
from activekd_lite.vlm import VLM


@pytest.fixture
def counted(vlm, monkeypatch):
    """How many images were encoded so far."""
    encoded = []
    original = VLM.encode_images
    monkeypatch.setattr(VLM, "encode_images", lambda self, x: encoded.append(len(x)) or original(self, x))
    return encoded


def build(vlm, pool, root, **kwargs):
    return TeacherCache.build(vlm, pool, root=root, progress=False, **{"views": 2} | kwargs)


def test_the_second_build_encodes_nothing(vlm, small, tmp_path, counted):
    first = build(vlm, small.pool, tmp_path)
    assert sum(counted) == 2 * 150
    second = build(vlm, small.pool, tmp_path)
    assert sum(counted) == 2 * 150
    assert torch.equal(first.features, second.features)
    assert first.features.shape == (2, 150, 128)
    assert first.features.dtype == torch.float16
    assert (first.features.float().norm(dim=2) - 1).abs().max() < 1e-3


def test_features_do_not_depend_on_batches_or_shards(vlm, small, tmp_path, monkeypatch):
    whole = build(vlm, small.pool, tmp_path / "a")
    monkeypatch.setattr(cache_module, "SHARD", 64)  # 150 = 2 x 64 + 22: the tail is there
    split = build(vlm, small.pool, tmp_path / "b", batch_size=7)
    assert (whole.features.float() - split.features.float()).abs().max() < 2e-3


def test_a_killed_build_resumes_at_the_shard_where_it_stopped(vlm, small, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(cache_module, "SHARD", 50)
    whole = build(vlm, small.pool, tmp_path / "whole")
    counted.clear()
    original = cache_module._encode

    def killed(vlm, images, views, view, start, *rest):
        if (view, start) == (1, 50):
            raise KeyboardInterrupt
        return original(vlm, images, views, view, start, *rest)

    monkeypatch.setattr(cache_module, "_encode", killed)
    with pytest.raises(KeyboardInterrupt):
        build(vlm, small.pool, tmp_path / "killed")
    assert sum(counted) == 150  # three of the six shards
    folder = next((tmp_path / "killed").iterdir())
    with pytest.raises(FileNotFoundError, match="unfinished: 3 shards are missing"):
        TeacherCache.open(folder)
    monkeypatch.setattr(cache_module, "_encode", original)
    resumed = build(vlm, small.pool, tmp_path / "killed")
    assert sum(counted) == 300
    assert torch.equal(resumed.features, whole.features)


def test_every_flipped_byte_of_the_features_is_detected(vlm, small, tmp_path):
    path = build(vlm, small.pool, tmp_path).path
    raw = (path / "features.f16").read_bytes()
    for place in (0, len(raw) // 2, len(raw) - 1):
        damaged = bytearray(raw)
        damaged[place] ^= 1
        (path / "features.f16").write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged at view"):
            TeacherCache.open(path)
    (path / "features.f16").write_bytes(raw[:-2])
    with pytest.raises(ValueError, match="numbers, not 2 x 150 x 128"):
        TeacherCache.open(path)


def test_a_full_disk_names_the_folder_and_loses_no_shard(vlm, small, tmp_path, monkeypatch, counted, full_disk):
    monkeypatch.setattr(cache_module, "SHARD", 50)
    after_two_shards = full_disk(writes=4)  # each with its manifest
    with (
        after_two_shards,
        pytest.raises(OSError, match=r"cannot write the teacher cache \(No space left on device\).*tiny-clip-"),
    ):
        build(vlm, small.pool, tmp_path)
    counted.clear()
    build(vlm, small.pool, tmp_path, device="cpu")
    assert sum(counted) == 200  # four of the six shards were left to do


def other_weights(vlm):
    import copy

    model = copy.deepcopy(vlm.model)
    with torch.no_grad():
        next(model.visual.parameters()).add_(1e-3)
    return replace(vlm, model=model)


CHANGES = {
    "vlm.weights": lambda vlm, pool: (other_weights(vlm), pool, {}),
    "vlm.name": lambda vlm, pool: (replace(vlm, name="other"), pool, {}),
    "vlm.pretrained": lambda vlm, pool: (replace(vlm, pretrained="other"), pool, {}),
    "vlm.input_size": lambda vlm, pool: (replace(vlm, input_size=32), pool, {}),
    "vlm.mean": lambda vlm, pool: (replace(vlm, mean=(0.5, 0.5, 0.5)), pool, {}),
    "vlm.std": lambda vlm, pool: (replace(vlm, std=(0.5, 0.5, 0.5)), pool, {}),
    "vlm.interpolation": lambda vlm, pool: (replace(vlm, interpolation="bilinear"), pool, {}),
    "pool": lambda vlm, pool: (vlm, replace(pool, images=pool.images.flip(0)), {}),
    "views.count": lambda vlm, pool: (vlm, pool, {"views": 3}),
    "views.seed": lambda vlm, pool: (vlm, pool, {"views": akd.Views(2, seed=1, augmentation=pool.augmentation)}),
    "views.scale": lambda vlm, pool: (vlm, replace(pool, augmentation=akd.Augmentation((0.9, 1), flip=0.0)), {}),
    "views.flip": lambda vlm, pool: (vlm, replace(pool, augmentation=replace(pool.augmentation, flip=0.5)), {}),
    "views.ratio": lambda vlm, pool: (vlm, replace(pool, augmentation=replace(pool.augmentation, ratio=(1, 1))), {}),
}


@pytest.mark.parametrize("field", CHANGES)
def test_every_fingerprint_field_alone_makes_another_cache(field, vlm, small, tmp_path):
    base = cache_module.fingerprint_of(vlm, small.pool, akd.Views(2, augmentation=small.pool.augmentation))
    changed_vlm, pool, options = CHANGES[field](vlm, small.pool)
    views = options.get("views", 2)
    views = akd.Views(views, augmentation=pool.augmentation) if isinstance(views, int) else views
    with pytest.raises(ValueError, match=field.replace(".", r"\.")):
        cache_module.require_same(base, cache_module.fingerprint_of(changed_vlm, pool, views), "it", "remake it")


def test_other_weights_images_or_views_are_encoded_anew(vlm, small, tmp_path, counted):
    build(vlm, small.pool, tmp_path)
    build(other_weights(vlm), small.pool, tmp_path)
    build(vlm, replace(small.pool, images=small.pool.images[:50]), tmp_path)
    build(vlm, small.pool, tmp_path, views=3)
    assert sum(counted) == 300 + 300 + 100 + 450
    assert len(list(tmp_path.iterdir())) == 4


def test_opening_another_models_or_pools_cache_is_refused(vlm, small, tmp_path):
    path = build(vlm, small.pool, tmp_path).path
    assert TeacherCache.open(path, vlm=vlm, pool=small.pool).path == path
    with pytest.raises(ValueError, match=r"vlm\.weights"):
        TeacherCache.open(path, vlm=other_weights(vlm))
    with pytest.raises(ValueError, match="pool: "):
        TeacherCache.open(path, pool=replace(small.pool, images=small.pool.images[:50]))
    with pytest.raises(FileNotFoundError, match=r"no teacher cache at .*; make one with TeacherCache\.build"):
        TeacherCache.open(tmp_path / "nowhere")


def test_a_manifest_of_something_else_in_the_folder_is_refused(vlm, small, tmp_path):
    path = build(vlm, small.pool, tmp_path).path
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["fingerprint"]["pool"] = "0" * 64
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="pool: "):
        build(vlm, small.pool, tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(vlm, small, tmp_path, monkeypatch, bad):
    def broken(self, x):
        features = torch.zeros(len(x), 128)
        features[min(5, len(x) - 1), 3] = bad
        return features

    monkeypatch.setattr(VLM, "encode_images", broken)
    with pytest.raises(ValueError, match="NaN or infinite features for image 5"):
        build(vlm, small.pool, tmp_path)
