import json
import multiprocessing
import os
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import activekd_lite as akd
from activekd_lite import cache as cache_module
from activekd_lite.cache import TeacherCache
from activekd_lite.utils import files, store
from activekd_lite.vlm import VLM


@pytest.fixture
def counted(vlm, monkeypatch):
    """The sizes of the batches encoded so far."""
    encoded = []
    original = VLM.encode_images
    monkeypatch.setattr(
        VLM, "encode_images", lambda self, x: encoded.append(len(x)) or original(self, x)
    )
    return encoded


def build(vlm, pool, root, **kwargs):
    return TeacherCache.build(vlm, pool, root=root, progress=False, **{"views": 2} | kwargs)


def rewrite(folder, change):
    """Rewrite the manifest with a change, and a checksum that fits."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    del manifest["sha256"]
    (folder / "manifest.json").write_text(json.dumps(files.with_checksum(manifest)))


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
    monkeypatch.setattr(store, "SHARD", 2 * 64)  # 150 = 2 x 64 + 22 images: the tail is there
    split = build(vlm, small.pool, tmp_path / "b", batch_size=7)
    assert (whole.features.float() - split.features.float()).abs().max() < 2e-3


def test_a_killed_build_resumes_at_the_shard_where_it_stopped(
    vlm, small, tmp_path, counted, monkeypatch
):
    monkeypatch.setattr(store, "SHARD", 2 * 50)
    whole = build(vlm, small.pool, tmp_path / "whole")
    counted.clear()
    original = cache_module._encode

    def killed(vlm, pixels, count):
        if counted:  # the first shard is done
            raise KeyboardInterrupt
        return original(vlm, pixels, count)

    monkeypatch.setattr(cache_module, "_encode", killed)
    with pytest.raises(KeyboardInterrupt):
        build(vlm, small.pool, tmp_path / "killed")
    assert sum(counted) == 100  # one of the three shards
    folder = next((tmp_path / "killed").iterdir())
    with pytest.raises(FileNotFoundError, match="unfinished: 2 of 3 shards are missing"):
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
        with pytest.raises(ValueError, match="damaged in 1 shards, first images 0-150"):
            TeacherCache.open(path)
    (path / "features.f16").write_bytes(raw[:-2])
    with pytest.raises(ValueError, match="numbers, not 2 x 150 x 128"):
        TeacherCache.open(path)


def test_a_full_disk_names_the_folder_and_loses_no_shard(
    vlm, small, tmp_path, monkeypatch, counted, full_disk
):
    monkeypatch.setattr(store, "SHARD", 2 * 50)
    after_two_shards = full_disk(writes=4)  # each with its manifest
    with (
        after_two_shards,
        pytest.raises(
            OSError, match=r"cannot write the teacher cache \(No space left on device\).*tiny-clip-"
        ),
    ):
        build(vlm, small.pool, tmp_path)
    counted.clear()
    build(vlm, small.pool, tmp_path, device="cpu")
    assert sum(counted) == 100  # one of the three shards was left to do


def other_weights(vlm):
    import copy

    model = copy.deepcopy(vlm.model)
    with torch.no_grad():
        next(model.visual.parameters()).add_(1e-3)
    return replace(vlm, model=model)


def augmented(pool, **changes):
    return replace(pool, augmentation=replace(pool.augmentation, **changes))


CHANGES = {
    "vlm.weights": lambda vlm, pool: (other_weights(vlm), pool, {}),
    "vlm.name": lambda vlm, pool: (replace(vlm, name="other"), pool, {}),
    "vlm.pretrained": lambda vlm, pool: (replace(vlm, pretrained="other"), pool, {}),
    "vlm.input_size": lambda vlm, pool: (replace(vlm, input_size=32), pool, {}),
    "vlm.mean": lambda vlm, pool: (replace(vlm, mean=(0.5, 0.5, 0.5)), pool, {}),
    "vlm.std": lambda vlm, pool: (replace(vlm, std=(0.5, 0.5, 0.5)), pool, {}),
    "vlm.interpolation": lambda vlm, pool: (replace(vlm, interpolation="bilinear"), pool, {}),
    "vlm.precision": lambda vlm, pool: (replace(vlm, precision="bfloat16"), pool, {}),
    "pool": lambda vlm, pool: (vlm, replace(pool, images=pool.images.flip(0)), {}),
    "views.count": lambda vlm, pool: (vlm, pool, {"count": 3}),
    "views.seed": lambda vlm, pool: (vlm, pool, {"seed": 1}),
    "views.scale": lambda vlm, pool: (vlm, augmented(pool, scale=(0.9, 1)), {}),
    "views.flip": lambda vlm, pool: (vlm, augmented(pool, flip=0.5), {}),
    "views.ratio": lambda vlm, pool: (vlm, augmented(pool, ratio=(1, 1)), {}),
}


@pytest.mark.parametrize("field", CHANGES)
def test_every_fingerprint_field_alone_makes_another_cache(field, vlm, small, tmp_path):
    def fingerprint(vlm, pool, changes):
        views = akd.Views(**{"count": 2, "augmentation": pool.augmentation} | changes)
        return cache_module.fingerprint_of(vlm, pool, views)

    base, other = fingerprint(vlm, small.pool, {}), fingerprint(*CHANGES[field](vlm, small.pool))
    with pytest.raises(ValueError, match=field.replace(".", r"\.")):
        cache_module.require_same(base, other, "it", "remake it")


def test_other_weights_images_or_views_are_encoded_anew(vlm, small, tmp_path, counted):
    build(vlm, small.pool, tmp_path)
    build(other_weights(vlm), small.pool, tmp_path)
    build(vlm, replace(small.pool, images=small.pool.images[:50]), tmp_path)
    build(vlm, small.pool, tmp_path, views=3)
    assert sum(counted) == 300 + 300 + 100 + 450
    assert len(list(tmp_path.iterdir())) == 4


def test_opening_the_cache_of_another_model_or_pool_is_refused(vlm, small, tmp_path):
    path = build(vlm, small.pool, tmp_path).path
    assert TeacherCache.open(path, vlm=vlm, pool=small.pool).path == path
    with pytest.raises(ValueError, match=r"vlm\.weights"):
        TeacherCache.open(path, vlm=other_weights(vlm))
    with pytest.raises(ValueError, match="pool: "):
        TeacherCache.open(path, pool=replace(small.pool, images=small.pool.images[:50]))
    with pytest.raises(
        FileNotFoundError, match=r"no teacher cache at .*; make one with TeacherCache\.build"
    ):
        TeacherCache.open(tmp_path / "nowhere")


def test_a_manifest_of_something_else_in_the_folder_is_refused(vlm, small, tmp_path):
    path = build(vlm, small.pool, tmp_path).path
    rewrite(path, lambda manifest: manifest["fingerprint"].update(pool="0" * 64))
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


def test_features_are_mapped_not_read(vlm, small, tmp_path, largest_allocation):
    pool = replace(small.pool, images=small.pool.images.repeat(20, 1, 1, 1))
    path = build(vlm, pool, tmp_path).path
    with largest_allocation as seen:
        opened = TeacherCache.open(path)
    assert seen.bytes < opened.features.nbytes / 4


def test_a_row_can_be_gathered_wherever_the_features_are(vlm, small, tmp_path):
    cache = build(vlm, small.pool, tmp_path)
    index, view = torch.tensor([3, 149, 0, 3]), torch.tensor([0, 1, 1, 1])
    expected = cache.features[view, index].float()
    staged = replace(cache, device=torch.device("cpu", 0))  # not "cpu" by name: rows are copied
    for way in (cache, cache.to("cpu"), cache.to("cpu", budget_bytes=0), staged):
        assert torch.equal(way.gather(index, view), expected)
        assert torch.equal(way.gather(index, 1), cache.features[1, index].float())


def test_checksums_need_not_be_verified_on_opening(vlm, small, tmp_path):
    path = build(vlm, small.pool, tmp_path).path
    raw = bytearray((path / "features.f16").read_bytes())
    raw[0] ^= 1
    (path / "features.f16").write_bytes(raw)
    assert TeacherCache.open(path, verify=False).features.shape == (2, 150, 128)
    assert "damaged in 1 shards" in store.verify(tmp_path)[path]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"shape": [1, 2]}'])
def test_a_damaged_manifest_is_named(vlm, small, tmp_path, content):
    path = build(vlm, small.pool, tmp_path).path
    (path / "manifest.json").write_text(content)
    for attempt in (lambda: TeacherCache.open(path), lambda: build(vlm, small.pool, tmp_path)):
        with pytest.raises(
            ValueError, match=r"manifest\.json is damaged or of an older version.*delete the folder"
        ):
            attempt()


def slow_build(root, report, seconds):
    """Encode 2 x 144 views in shards of 48, with a pause before each batch; write how many."""
    torch.set_num_threads(1)
    encoded, original = [], VLM.encode_images

    def slow(self, x):
        time.sleep(seconds)
        encoded.append(len(x))
        return original(self, x)

    VLM.encode_images, store.SHARD = slow, 48
    data = akd.load_dataset("digits")
    pool = akd.Pool(data.pool.images[:144], data.classnames, data.pool.augmentation)
    TeacherCache.build(akd.load_vlm(device="cpu"), pool, 2, root, batch_size=12, progress=False)
    report.write_text(str(sum(encoded)))


@pytest.fixture
def start_build(tmp_path):
    """start_build(name, seconds) starts a `slow_build`; it reports in `tmp_path / name`.

    Where processes can be forked safely, they are: a new one imports for seconds.
    """
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")

    def start(name, seconds):
        words = (tmp_path / "root", tmp_path / name, seconds)
        process = context.Process(target=slow_build, args=words)
        process.start()
        return process

    return start


def test_of_two_processes_only_one_encodes(start_build, tmp_path):
    for process in [start_build(name, 0.1) for name in ("one", "other")]:
        process.join(120)
        assert process.exitcode == 0
    assert sorted(int((tmp_path / name).read_text()) for name in ("one", "other")) == [0, 288]


def test_a_killed_process_leaves_its_shards_and_no_lock(start_build, tmp_path):
    process, deadline = start_build("killed", 0.2), time.monotonic() + 100
    while not list(tmp_path.glob("root/*/manifest.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.join(60)
    manifest = json.loads(next(tmp_path.glob("root/*/manifest.json")).read_text())
    left = 288 - 48 * len(manifest["shards"])
    assert 0 < left < 288
    start_build("again", 0).join(120)
    assert int((tmp_path / "again").read_text()) == left


class TestKeepingHouse:
    def test_info_lists_the_caches(self, vlm, small, tmp_path):
        build(vlm, small.pool, tmp_path)
        half = build(vlm, small.pool, tmp_path, views=3).path
        rewrite(half, lambda manifest: manifest["shards"].clear())
        table = store.info(tmp_path).set_index("views")
        whole = table.loc[2, ["vlm", "images", "dim", "state"]]
        assert whole.tolist() == ["tiny-clip", 150, 128, "whole"]
        assert table.loc[3, "state"] == "unfinished"
        assert table.loc[2, "mib"] == pytest.approx(2 * 150 * 128 * 2 / 2**20, rel=0.1)
        assert table["unused_days"].between(0, 0.1).all()

    def test_prune_finds_useless_caches_and_deletes_only_on_request(self, vlm, small, tmp_path):
        good, unfinished, damaged, stale = (
            build(vlm, small.pool, tmp_path, views=v).path for v in (1, 2, 3, 4)
        )
        rewrite(unfinished, lambda manifest: manifest["shards"].clear())
        (damaged / "features.f16").write_bytes(b"0" * (3 * 150 * 128 * 2))
        for file in stale.iterdir():
            os.utime(file, (0, time.time() - 40 * 86400))
        assert set(store.prune(tmp_path)) == {unfinished, damaged}
        going = store.prune(tmp_path, unused_days=30, delete=True)
        assert set(going) == {unfinished, damaged, stale}
        assert going[stale] == "not used for 40 days"
        assert [path for path in tmp_path.iterdir() if path.is_dir()] == [good]

    def test_opening_counts_as_use(self, vlm, small, tmp_path):
        path = build(vlm, small.pool, tmp_path).path
        for file in path.iterdir():
            os.utime(file, (0, time.time() - 40 * 86400))
        assert not store.info(tmp_path)["unused_days"].between(0, 1).any()
        TeacherCache.open(path)
        assert store.prune(tmp_path, unused_days=30) == {}

    def test_a_cache_that_is_being_built_is_not_pruned(self, vlm, small, tmp_path):
        path = build(vlm, small.pool, tmp_path).path
        (path / "manifest.json").unlink()
        with files.folder_lock(path):
            assert store.prune(tmp_path, delete=True) == {}
        assert set(store.prune(tmp_path, delete=True)) == {path}

    def test_only_caches_are_ever_deleted(self, tmp_path):
        """Not the root, nor a folder with other files that is named like a cache."""
        (tmp_path / "manifest.json").write_text("{}")
        others = {"tiny-clip": "weights.safetensors", "thesis-0123456789ab": "thesis.txt"}
        for name, file in others.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "manifest.json").write_text("{}")
            (tmp_path / name / file).write_text("mine")
        before = sorted(tmp_path.rglob("*"))
        assert len(store.info(tmp_path)) == 0
        assert store.prune(tmp_path, unused_days=0, delete=True) == {}
        assert sorted(tmp_path.rglob("*")) == before

    def test_caches_of_an_older_version_can_be_pruned(self, vlm, small, tmp_path):
        path = build(vlm, small.pool, tmp_path).path
        rewrite(path, lambda manifest: manifest["fingerprint"].update(format=1))
        (path / ".manifest.json.1.partial").write_text("half")
        assert store.info(tmp_path)["state"].tolist() == ["damaged"]
        assert list(store.prune(tmp_path, delete=True)) == [path]
        assert not path.exists()

    def test_a_missing_folder_is_an_error(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no folder .*nowhere with teacher caches"):
            store.info(tmp_path / "nowhere")


class TestFrozenFeatures:
    def test_a_linear_student_learns_from_features(self, vlm, small, teacher, tmp_path):
        features = akd.FrozenFeatures.build(vlm, small, 3, tmp_path, progress=False)
        assert features.test.shape == (100, 128)
        options = {"rounds": 1, "query_size": 20, "progress": False, "device": "cpu"}
        for student in ("linear", "mlp"):
            options |= {"student": student, "features": features, "out": tmp_path / student}
            result = akd.run_active_learning(small, teacher, **options)
            assert result.records[1].accuracy_pct > 75  # chance: 10
            expected, again = result.predict(features.test), akd.load_run(tmp_path / student)
            assert torch.equal(again.predict(features.test).probs, expected.probs)

    def test_features_that_do_not_fit_are_refused(self, vlm, small, teacher, quick, tmp_path):
        features = akd.FrozenFeatures.build(vlm, small, 3, tmp_path, progress=False)
        with pytest.raises(
            ValueError,
            match="'linear' learns from cached features: pass features=akd.FrozenFeatures.build",
        ):
            akd.run_active_learning(small, teacher, student="linear", rounds=0, train=quick)
        other = replace(small, pool=replace(small.pool, images=small.pool.images.flip(0)))
        with pytest.raises(ValueError, match="made from other images or views"):
            akd.run_active_learning(
                other, None, student="linear", rounds=0, train=quick, features=features
            )

    def test_features_are_part_of_the_configuration(self, vlm, small, quick, tmp_path):
        features = akd.FrozenFeatures.build(vlm, small, 3, tmp_path, progress=False)
        options = {"student": "linear", "rounds": 0, "train": quick, "progress": False}
        options["out"] = tmp_path / "run"
        akd.run_active_learning(small, None, features=features, **options)
        changed = replace(features, test=-features.test)
        with pytest.raises(ValueError, match=r"features\.test"):
            akd.run_active_learning(small, None, features=changed, **options)


def test_rows_of_the_file_are_view_then_image_whatever_the_shards(
    vlm, small, tmp_path, monkeypatch
):
    monkeypatch.setattr(store, "SHARD", 2 * 64)
    cache = build(vlm, small.pool, tmp_path)
    raw = np.fromfile(cache.path / "features.f16", np.float16).reshape(2, 150, 128)
    index, view, how = torch.tensor([70]), torch.tensor([1]), (vlm.input_size, vlm.interpolation)
    x = akd.views.pixels(cache.views, small.pool.images[[70]], index, view, *how)
    np.testing.assert_allclose(raw[1, 70], vlm.encode_images(x)[0].numpy(), atol=2e-3)
