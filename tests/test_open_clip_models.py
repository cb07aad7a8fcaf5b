"""open_clip models with random weights from files: encode images and text, run a round."""

import json

import huggingface_hub.constants
import open_clip
import pytest
import torch
from safetensors.torch import save_file

import activekd_lite as akd


def weights_of(name, folder, suffix, quick_gelu):
    """A file of random weights, as training scripts write it."""
    torch.manual_seed(0)
    model = open_clip.create_model(name, force_quick_gelu=bool(quick_gelu))
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    path = folder / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 1, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    return path, model.eval()


@pytest.fixture
def photos():
    """12 + 3 images of colour noise, 64 pixels wide, in three classes."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (15, 3, 64, 64), generator=g, dtype=torch.uint8)
    labels = torch.arange(15) % 3
    parts = (images[:12], labels[:12], images[12:], labels[12:])
    return akd.make_dataset("photos", *parts, ["cat", "dog", "horse"], ["a photo of a {}."])


MODELS = [
    ("RN50", ".pt", True),
    ("ViT-S-32", ".safetensors", False),
    ("convnext_tiny", ".pt", None),
]


@pytest.mark.parametrize(("name", "suffix", "quick_gelu"), MODELS)
def test_a_round_with_a_model_of_open_clip(name, suffix, quick_gelu, photos, quick, tmp_path):
    path, model = weights_of(name, tmp_path, suffix, quick_gelu)
    vlm = akd.load_vlm(name, pretrained=str(path), device="cpu", quick_gelu=quick_gelu)
    weights = vlm.text_weights(photos.classnames, photos.templates)
    words = (photos.classnames, photos.templates)
    expected = open_clip.build_zero_shot_classifier(model, open_clip.get_tokenizer(name), *words)
    torch.testing.assert_close(weights, expected, atol=1e-4, rtol=1e-4)
    options = {"batch_size": 8, "progress": False}
    cache = akd.TeacherCache.build(vlm, photos.pool, 2, tmp_path / "cache", **options)
    assert cache.features.shape == (2, 12, weights.shape[0])
    assert (cache.features.float().norm(dim=2) - 1).abs().max() < 1e-3
    direct = vlm.zero_shot_probs(photos.pool.images, weights, batch=8)
    teacher = akd.ZeroShotTeacher(cache, weights)
    torch.testing.assert_close(teacher.probs(), direct, atol=1e-2, rtol=0)
    options = {"train": quick, "progress": False, "device": "cpu"}
    result = akd.run_active_learning(photos, teacher, rounds=1, query_size=3, **options)
    assert [r.labeled_count for r in result.records] == [3, 6]
    path.unlink()


def test_a_model_from_a_folder(photos, tmp_path):
    """The files that `open_clip.push_to_hf_hub` writes, loaded as "local-dir:"."""
    source = akd.load_vlm("tiny-clip", device="cpu")
    config = {"model_cfg": open_clip.get_model_config("tiny-clip")}
    config["preprocess_cfg"] = {"mean": source.mean, "std": source.std}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    state = {k: v.contiguous() for k, v in source.model.state_dict().items()}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    vlm = akd.load_vlm(f"local-dir:{tmp_path}", device="cpu")
    weights, expected = (m.text_weights(["circle", "square"], ["a {}"]) for m in (vlm, source))
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-5)


class TestOffline:
    @pytest.fixture(autouse=True)
    def no_network(self, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def test_a_missing_tokenizer_is_named_before_the_weights_are_read(self, tmp_path):
        """Its vocabulary is a separate file on the hub, and is needed before the weights."""
        path = tmp_path / "weights.pt"
        path.write_bytes(b"never read")
        match = "(?s)no tokenizer for 'ViT-B-16-SigLIP'.*pip install transformers"
        with pytest.raises(FileNotFoundError, match=match):
            akd.load_vlm("ViT-B-16-SigLIP", pretrained=str(path))

    def test_weights_that_were_never_downloaded(self):
        match = r"no weights for 'RN50' from 'yfcc15m'.*open_clip\.create_model\('RN50'"
        with pytest.raises(FileNotFoundError, match=match):
            akd.load_vlm("RN50", pretrained="yfcc15m")

    def test_a_model_of_the_hub(self):
        with pytest.raises(FileNotFoundError, match="hf-hub:org/model"):
            akd.load_vlm("hf-hub:org/model")


def test_half_precision_is_close_and_named(vlm, small, tmp_path):
    weights = vlm.text_weights(small.classnames, small.templates)
    features, x = {}, akd.views.render_center(small.pool.images, vlm.input_size, vlm.interpolation)
    for precision in ("float32", "bfloat16"):
        other = akd.load_vlm(device="cpu", precision=precision)
        assert other.fingerprint()["precision"] == precision
        features[precision] = other.encode_images(x)
    assert features["bfloat16"].dtype == torch.float32
    assert not torch.equal(features["float32"], features["bfloat16"])
    assert (features["float32"] * features["bfloat16"]).sum(dim=1).min() > 0.99
    same = [(f @ weights).argmax(dim=1) for f in features.values()]
    assert (same[0] == same[1]).float().mean() > 0.9
    with pytest.raises(ValueError, match="precision = 'int8'; choose 'auto', 'float32'"):
        akd.load_vlm(precision="int8")
