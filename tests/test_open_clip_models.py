"""Models of open_clip as a researcher would load them, with random weights from a file: encode, ask, run a round."""

import json

import huggingface_hub.constants
import open_clip
import pytest
import torch
from safetensors.torch import save_file

import activekd_lite as akd


def weights_of(name, folder, suffix, quick_gelu):
    """A file of random weights, as training scripts leave them."""
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
    """12 + 3 coloured noises of 64 pixels in three classes."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (15, 3, 64, 64), generator=g, dtype=torch.uint8)
    labels = torch.arange(15) % 3
    return akd.make_dataset(
        "photos",
        images[:12],
        labels[:12],
        images[12:],
        labels[12:],
        ["cat", "dog", "horse"],
        ["a photo of a {}."],
    )


@pytest.mark.parametrize(("name", "suffix", "quick_gelu"), [
    ("RN50", ".pt", True), ("ViT-B-32", ".safetensors", False), ("convnext_base", ".pt", None),
])  # fmt: skip
def test_a_round_with_a_model_of_open_clip(name, suffix, quick_gelu, photos, quick, tmp_path):
    path, model = weights_of(name, tmp_path, suffix, quick_gelu)
    vlm = akd.load_vlm(name, pretrained=str(path), device="cpu", quick_gelu=quick_gelu)
    weights = vlm.text_weights(photos.classnames, photos.templates)
    expected = open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer(name), photos.classnames, photos.templates
    )
    torch.testing.assert_close(weights, expected, atol=1e-4, rtol=1e-4)
    cache = akd.TeacherCache.build(
        vlm, photos.pool, 2, tmp_path / "cache", batch_size=8, progress=False
    )
    assert cache.features.shape == (2, 12, weights.shape[0])
    assert (cache.features.float().norm(dim=2) - 1).abs().max() < 1e-3
    direct = vlm.zero_shot_probs(photos.pool.images, weights, batch=8)
    teacher = akd.ZeroShotTeacher(cache, weights)
    torch.testing.assert_close(teacher.probs(), direct, atol=1e-2, rtol=0)
    result = akd.run_active_learning(
        photos, teacher, rounds=1, query_size=3, train=quick, progress=False, device="cpu"
    )
    assert [r.labeled_count for r in result.records] == [3, 6]
    path.unlink()


def test_a_model_from_a_folder(photos, tmp_path):
    """What `open_clip.push_to_hf_hub` writes, loaded as "local-dir:"."""
    name = "tiny-clip"
    source = akd.load_vlm(name, device="cpu")
    config = {
        "model_cfg": open_clip.get_model_config(name),
        "preprocess_cfg": {"mean": source.mean, "std": source.std},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(
        {k: v.contiguous() for k, v in source.model.state_dict().items()},
        tmp_path / "open_clip_model.safetensors",
    )
    vlm = akd.load_vlm(f"local-dir:{tmp_path}", device="cpu")
    words = (["circle", "square"], ["a {}"])
    torch.testing.assert_close(
        vlm.text_weights(*words), source.text_weights(*words), atol=1e-5, rtol=1e-5
    )


class TestOffline:
    @pytest.fixture(autouse=True)
    def no_network(self, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def test_siglips_tokenizer_is_asked_for_first_and_named(self, tmp_path):
        """Its words are a file of their own on the hub: said before the weights are read."""
        path = tmp_path / "weights.pt"
        path.write_bytes(b"never read")
        with pytest.raises(
            FileNotFoundError,
            match="(?s)no tokenizer for 'ViT-B-16-SigLIP'.*pip install transformers",
        ):
            akd.load_vlm("ViT-B-16-SigLIP", pretrained=str(path))

    def test_weights_that_were_never_fetched(self):
        with pytest.raises(
            FileNotFoundError,
            match=r"no weights for 'RN50' from 'yfcc15m'.*open_clip\.create_model\('RN50'",
        ):
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
    with pytest.raises(ValueError, match="precision = 'int8'; 'auto', 'float32'"):
        akd.load_vlm(precision="int8")
