import json
import re
import shutil
from dataclasses import replace

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import activekd_lite as akd
from activekd_lite.experiments.config import zero_shot_accuracy_pct
from activekd_lite.utils import files, views


@pytest.fixture(scope="module")
def direct(vlm, digits, shared_cache):
    """Digits and the test images of shapes: pool, labels, text weights, and the model's answers."""
    shapes = akd.load_dataset("shapes", cache_root=shared_cache)
    images = torch.cat([digits.pool.images, digits.test.images])
    labels = torch.cat([digits.oracle.label(torch.arange(1100)), digits.test.labels])
    found = []
    for data, x, y in ((digits, images, labels), (shapes, shapes.test.images, shapes.test.labels)):
        weights = vlm.text_weights(data.classnames, data.templates)
        found.append((replace(data.pool, images=x), y, weights, vlm.zero_shot_probs(x, weights)))
    return found


@pytest.mark.slow
def test_zero_shot_accuracy_meets_its_bars(direct):
    digits, shapes = (akd.metrics.accuracy_pct(probs, labels) for _, labels, _, probs in direct)
    assert digits >= 78
    assert 65 <= shapes <= 85


def test_zero_shot_accuracy_is_that_of_the_test_images(vlm, small):
    weights = vlm.text_weights(small.classnames, small.templates)
    right = vlm.zero_shot_probs(small.test.images, weights).argmax(dim=1) == small.test.labels
    assert zero_shot_accuracy_pct(vlm, small) == pytest.approx(100 * float(right.float().mean()))


@pytest.mark.slow
def test_the_cache_predicts_as_the_model_run_directly(direct, vlm, tmp_path):
    """On at least 99.9 % of 1,000 images of each, although its features are float16."""
    for pool, _, weights, expected in direct:
        some = replace(pool, images=pool.images[:1000])
        cache = akd.TeacherCache.build(vlm, some, 1, tmp_path, progress=False)
        same = akd.ZeroShotTeacher(cache, weights).probs().argmax(1) == expected[:1000].argmax(1)
        assert same.float().mean() >= 0.999


def test_encoding_agrees_with_open_clips_own_preprocessing(vlm, digits):
    model, _, preprocess = open_clip.create_model_and_transforms(
        "tiny-clip", pretrained=str(files.embedded_model("tiny-clip")[0] / "weights.safetensors")
    )
    x = digits.pool.images[:32]
    standard = torch.stack([preprocess(Image.fromarray(i.permute(1, 2, 0).numpy())) for i in x])
    with torch.no_grad():
        expected = model.eval().encode_image(standard, normalize=True)
    found = vlm.encode_images(views.render_center(x, vlm.input_size, vlm.interpolation))
    assert (found * expected).sum(dim=1).min() > 0.999


def test_text_weights_are_open_clips(vlm):
    names, templates = ["circle", "square"], ["a {}", "a photo of a {}."]
    expected = open_clip.build_zero_shot_classifier(vlm.model, vlm.tokenizer, names, templates)
    torch.testing.assert_close(vlm.text_weights(names, templates), expected)
    tokens = [vlm.tokenizer([t.format(n) for t in templates]) for n in names]
    raw = torch.stack([vlm.model.encode_text(x).mean(0) for x in tokens], 1)
    expected = torch.nn.functional.normalize(raw, dim=0)
    torch.testing.assert_close(vlm.text_weights(names, templates, average="raw"), expected)


def test_words_that_the_model_never_saw_are_named(vlm):
    with pytest.warns(
        UserWarning, match=r"tiny-clip never saw the words \['elephant', 'portrait'\]"
    ):
        vlm.text_weights(["circle", "elephant"], ["a portrait of a {}"])


def test_known_words_give_no_warning(vlm, recwarn):
    vlm.text_weights(["red striped circle", "7", "seven"], ['a photo of the number: "{}".'])
    assert not recwarn.list


def test_invalid_prompts_are_refused_by_value(vlm):
    for template in ("a photo", "a {} {}", "a {{}}", "a {0}", "a {name}", "a {} {"):
        with pytest.raises(
            ValueError, match=rf"templates \[{re.escape(repr(template))}\] do not hold {{}} once"
        ):
            vlm.text_weights(["circle"], ["a {}", template])
    with pytest.raises(ValueError, match="0 class names"):
        vlm.text_weights([])
    with pytest.raises(ValueError, match="average = 'mean'"):
        vlm.text_weights(["circle"], average="mean")
    with pytest.raises(
        ValueError, match="unknown model 'RN5'; did you mean RN50 .* known are tiny-clip, .*RN50"
    ):
        akd.load_vlm("RN5")
    with pytest.raises(ValueError, match=r"RN50 needs pretrained=: one of openai, yfcc15m"):
        akd.load_vlm("RN50")
    with pytest.raises(FileNotFoundError, match="RN50 has no weights 'nowhere.pt'"):
        akd.load_vlm("RN50", pretrained="nowhere.pt")
    with pytest.raises(ValueError, match="device 'tpu9'"):
        akd.load_vlm(device="tpu9")


@pytest.fixture
def embedded_copy(tmp_path, monkeypatch):
    """The embedded models where a test may damage them."""
    shutil.copytree(files.PACKAGE.parent / "data", tmp_path / "data")
    monkeypatch.setattr(files, "PACKAGE", tmp_path / "activekd_lite")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("name", "script", "load"),
    [
        ("tiny-clip", "tiny-clip/pretrain.py`", lambda: akd.load_vlm()),
        ("tiny-resnet", "tiny-resnet/pretrain.py`", lambda: akd.build_student("tiny-resnet", 3)),
    ],
)
def test_missing_and_damaged_embedded_weights(embedded_copy, name, script, load):
    load()
    weights = embedded_copy / name / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=rf"damaged.*git checkout -- data/{name}"):
        load()
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=rf"missing.*data/{script}"):
        load()


def test_a_folder_with_weights_is_an_embedded_model(embedded_copy):
    """A sibling of tiny-clip needs a configuration, weights and a manifest; else it is unknown."""
    source, folder = embedded_copy / "tiny-clip", embedded_copy / "tiny-clip-twin"
    folder.mkdir()
    shutil.copy(source / "tiny-clip.json", folder / "tiny-clip-twin.json")
    with pytest.raises(ValueError, match="unknown model 'tiny-clip-twin'"):
        akd.load_vlm("tiny-clip-twin")
    shutil.copy(source / "manifest.json", folder)
    script = r"data/tiny-clip/pretrain.py --model tiny-clip-twin`"
    with pytest.raises(FileNotFoundError, match=f"weights.safetensors is missing.*{script}"):
        akd.load_vlm("tiny-clip-twin")
    shutil.copy(source / "weights.safetensors", folder)
    twin = akd.load_vlm("tiny-clip-twin", device="cpu")
    assert twin.name == "tiny-clip-twin"
    assert twin.fingerprint()["weights"] == akd.load_vlm(device="cpu").fingerprint()["weights"]
    assert "solid" in twin.known_words


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def clear_part(content):
    content["words" if "words" in content else "text_cfg"].clear()


def add(content):
    content.get("words", []).append("elephant")
    content["more"] = 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[" * 10_000),
        lambda path: path.write_text("[]"),
        lambda path: path.write_bytes(b"\xff\xfe\xfa{}"),
        lambda path: edit(path, lambda content: content.popitem()),
        lambda path: edit(path, lambda content: content.update({next(iter(content)): 1})),
        lambda path: edit(path, clear_part),
        lambda path: edit(path, add),
        lambda path: path.unlink(),
    ],
)
@pytest.mark.parametrize("name", ["manifest.json", "tiny-clip.json"])
def test_damaged_and_edited_files_beside_the_weights(embedded_copy, name, damage):
    damage(embedded_copy / "tiny-clip" / name)
    with pytest.raises(
        (ValueError, FileNotFoundError), match=rf"{name} is .*git checkout -- data/tiny-clip"
    ):
        akd.load_vlm()


def test_a_configuration_with_other_line_endings_is_the_same(embedded_copy):
    path = embedded_copy / "tiny-clip" / "tiny-clip.json"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert akd.load_vlm(device="cpu").known_words


def test_custom_weights_and_corrupt_ones(embedded_copy, tmp_path):
    own = tmp_path / "own.safetensors"
    state = load_file(embedded_copy / "tiny-clip" / "weights.safetensors")
    state["logit_scale"] = torch.tensor(1.0)
    save_file(state, own)
    loaded = akd.load_vlm("tiny-clip", pretrained=str(own))
    assert loaded.logit_scale == pytest.approx(2.71828, rel=1e-3)
    torch.save({"logit_scale": ValueError("any class at all")}, tmp_path / "own.pt")
    with pytest.raises(ValueError, match="own.pt' of tiny-clip hold more than tensors"):
        akd.load_vlm("tiny-clip", pretrained=str(tmp_path / "own.pt"))
    own.write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match="own.safetensors.* cannot be read"):
        akd.load_vlm("tiny-clip", pretrained=str(own))


def test_teacher_logits_are_the_scaled_cosines(vlm, small, teacher):
    weights = vlm.text_weights(small.classnames, small.templates)
    x = views.render_center(small.pool.images[:20], vlm.input_size, vlm.interpolation)
    expected = vlm.logit_scale * vlm.encode_images(x) @ weights
    assert (teacher.logits(torch.arange(20)) - expected).abs().max() < 0.05  # float16 features
    index, view = torch.tensor([3, 3, 140]), torch.tensor([0, 2, 1])
    spec = teacher.cache.views
    x = views.pixels(spec, small.pool.images[index], index, view, vlm.input_size, vlm.interpolation)
    assert (
        teacher.logits(index, view) - vlm.logit_scale * vlm.encode_images(x) @ weights
    ).abs().max() < 0.05
    torch.testing.assert_close(teacher.probs().sum(1), torch.ones(150))


def test_prompts_change_the_teacher_but_not_the_cache(vlm, small, teacher):
    other = akd.ZeroShotTeacher(teacher.cache, vlm.text_weights(small.classnames, ["the digit {}"]))
    assert other.fingerprint()["text_weights"] != teacher.fingerprint()["text_weights"]
    assert other.fingerprint()["cache"] == teacher.fingerprint()["cache"]


def test_text_weights_that_do_not_fit(teacher):
    with pytest.raises(ValueError, match=r"\(5, 10\), but the cached features have 128"):
        akd.ZeroShotTeacher(teacher.cache, torch.zeros(5, 10))
    with pytest.raises(ValueError, match="NaN or infinite"):
        akd.ZeroShotTeacher(teacher.cache, torch.full((128, 10), float("nan")))


def test_manifest_lists_every_word_of_the_class_names(vlm):
    manifest = json.loads((files.PACKAGE.parent / "data/tiny-clip/manifest.json").read_text())
    words = {w for name in akd.load_dataset("shapes").classnames for w in name.split()}
    assert words <= set(manifest["words"])
