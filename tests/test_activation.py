"""Each set of weights gets its own activation, whether from a file, a tag or a folder.

Small CLIP models are compared with Hugging Face's.
"""

import json
import shutil
from dataclasses import replace

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

import activekd_lite as akd
from activekd_lite import cli
from activekd_lite.utils import store
from activekd_lite.utils.open_clip_models import needs_quick_gelu

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 48, "head_width": 12, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
}
SENTENCES = [
    "a photo of a cat.",
    "the digit 7",
    "a much longer sentence about a red striped circle, and a dog",
]
TAG = {
    "mean": (0.4, 0.5, 0.6),
    "std": (0.2, 0.3, 0.4),
    "interpolation": "bilinear",
    "resize_mode": "shortest",
}


def hugging_face(hidden_act: str) -> CLIPModel:
    """Random weights, so large that GELU and QuickGELU give different activations."""
    shared = {"num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 24}
    shared["hidden_act"] = hidden_act
    text = shared | {"hidden_size": 32, "intermediate_size": 128, "vocab_size": 49408}
    text |= {"max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407}
    vision = shared | {"hidden_size": 48, "intermediate_size": 192}
    vision |= {"image_size": 32, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    g = torch.Generator().manual_seed(0)
    for name, weights in model.named_parameters():
        scale = weights.shape[-1] ** -0.5 if weights.ndim > 1 else 0.3
        scale = 0.1 if name.endswith("bias") else scale
        offset = 1 if "norm" in name and name.endswith("weight") else 0
        weights.data = offset + scale * torch.randn(weights.shape, generator=g)
    return model


def as_open_clip(model: CLIPModel) -> dict[str, torch.Tensor]:
    """Its weights under open_clip's names: q, k and v in one matrix, projections transposed."""
    theirs = model.state_dict()
    ours = {
        "logit_scale": torch.tensor(2.0),
        "visual.class_embedding": theirs["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": theirs["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": theirs["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": theirs["visual_projection.weight"].T,
        "token_embedding.weight": theirs["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": theirs["text_model.embeddings.position_embedding.weight"],
        "text_projection": theirs["text_projection.weight"].T,
    }
    parts = {
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
        "ln_final": "text_model.final_layer_norm",
    }
    layers = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    towers = {"visual.transformer": "vision_model", "transformer": "text_model"}
    for tower, encoder in towers.items():
        for block in range(2):
            own, their = f"{tower}.resblocks.{block}", f"{encoder}.encoder.layers.{block}"
            parts |= {f"{own}.{a}": f"{their}.{b}" for a, b in layers.items()}
            for kind in ("weight", "bias"):
                ours[f"{own}.attn.in_proj_{kind}"] = torch.cat(
                    [theirs[f"{their}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
                )
    for a, b in parts.items():
        ours |= {f"{a}.{kind}": theirs[f"{b}.{kind}"] for kind in ("weight", "bias")}
    return {k: v.contiguous() for k, v in ours.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """One weights file for both activations."""
    path = tmp_path_factory.mktemp("weights") / "clip.safetensors"
    save_file(as_open_clip(hugging_face("gelu")), path)
    return str(path)


@pytest.fixture(autouse=True)
def models(weights, tmp_path, monkeypatch):
    """open_clip knows `mini`, with tags of both kinds and a silent one, and `mini-quickgelu`."""
    factory = open_clip.factory
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", [*factory._MODEL_CONFIG_PATHS])
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    for name, extra in (("mini", {}), ("mini-quickgelu", {"quick_gelu": True})):
        (tmp_path / f"{name}.json").write_text(json.dumps(CONFIG | extra))
        open_clip.add_model_config(tmp_path / f"{name}.json")
    tags = {"quick": {"quick_gelu": True}, "slow": {"quick_gelu": False}, "silent": {}}
    registry = {tag: TAG | {"file": weights} | extra for tag, extra in tags.items()}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "mini", registry)


def features(vlm):
    """Features of random images and of SENTENCES."""
    pixels = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return vlm.encode_images(pixels), vlm.encode_text(SENTENCES)


def largest_difference(a, b):
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


def test_features_are_those_of_transformers(weights):
    pixels = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(v)[:, None, None] for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    expected = {}
    for act in ("quick_gelu", "gelu"):
        model = hugging_face(act)
        with torch.inference_mode():
            images = model.get_image_features(pixel_values=(pixels - mean) / std).pooler_output
            tokens = open_clip.get_tokenizer("mini")(SENTENCES)
            words = model.get_text_features(input_ids=tokens).pooler_output
        expected[act] = [torch.nn.functional.normalize(x, dim=1) for x in (images, words)]
    for act, quick_gelu in (("quick_gelu", True), ("gelu", False)):
        vlm = akd.load_vlm("mini", weights, "cpu", quick_gelu=quick_gelu)
        assert vlm.quick_gelu is quick_gelu
        assert largest_difference(features(vlm), expected[act]) < 1e-4
    for quick, plain in zip(*expected.values(), strict=True):
        assert (quick - plain).abs().max() > 2e-3  # so a wrong activation shows in both towers


@pytest.mark.parametrize(
    ("tag", "quick_gelu"), [("quick", True), ("slow", False), ("silent", False)]
)
def test_a_tag_is_built_with_the_activation_it_was_trained_with(weights, tag, quick_gelu):
    vlm = akd.load_vlm("mini", tag, "cpu")
    assert vlm.quick_gelu is quick_gelu
    assert (vlm.pretrained, vlm.interpolation) == (tag, "bilinear")
    assert (vlm.mean, vlm.std) == (TAG["mean"], TAG["std"])
    forced = open_clip.create_model("mini", weights, force_quick_gelu=quick_gelu).eval()
    expected = features(replace(vlm, model=forced))
    assert largest_difference(features(vlm), expected) < 1e-6
    names, templates = ["cat", "dog"], ["a photo of a {}.", "a {}"]
    classifier = open_clip.build_zero_shot_classifier(forced, vlm.tokenizer, names, templates)
    torch.testing.assert_close(vlm.text_weights(names, templates), classifier)


def test_every_tag_of_open_clip_gets_what_its_configuration_says():
    silent = []
    for name, tag in open_clip.list_pretrained():
        if name == "mini":
            continue
        stated = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu")
        found = needs_quick_gelu(name, tag)
        if stated is None and found:
            silent.append(name)
        assert stated is None or found is stated
        match = f"quick_gelu = {not found}, but {tag} weights of {name} were trained with"
        with pytest.raises(ValueError, match=match):
            needs_quick_gelu(name, tag, not found)
    assert silent == ["roberta-ViT-B-32"]  # only its model configuration states it
    assert needs_quick_gelu("RN50", "openai")
    assert needs_quick_gelu("ViT-B-32", "laion400m_e32")
    assert not needs_quick_gelu("ViT-B-32", "laion2b_s34b_b79k")


def test_a_file_needs_the_setting_if_the_tags_of_its_model_disagree(weights):
    agreed = {"ViT-S-16": False, "ViT-B-16-SigLIP": False}
    agreed |= {"RN50-quickgelu": True, "roberta-ViT-B-32": True}
    for name, known in agreed.items():
        assert needs_quick_gelu(name, weights) is known
    for name in ("RN50", "ViT-B-32", "mini"):
        for given in (True, False):
            assert needs_quick_gelu(name, weights, given) is given
        match = rf"was it trained with QuickGELU\? {name} .* quick_gelu=True or False"
        with pytest.raises(ValueError, match=match):
            akd.load_vlm(name, weights, "cpu")
    with pytest.raises(ValueError, match="quick_gelu = 'yes'; choose True, False or None"):
        akd.load_vlm("mini", weights, "cpu", quick_gelu="yes")


def test_quickgelu_can_be_switched_off_in_a_configuration(weights):
    for quick_gelu in (True, False):
        one, other = (
            akd.load_vlm(name, weights, "cpu", quick_gelu=quick_gelu)
            for name in ("mini", "mini-quickgelu")
        )
        assert one.quick_gelu is other.quick_gelu
        assert largest_difference(features(one), features(other)) < 1e-6
    assert akd.load_vlm("mini-quickgelu", weights, "cpu").quick_gelu


def test_the_embedded_model_and_a_folder_state_their_activation(weights, vlm, tmp_path):
    assert vlm.quick_gelu is False
    match = "quick_gelu = True, but the embedded weights of tiny-clip were trained without"
    with pytest.raises(ValueError, match=match):
        akd.load_vlm("tiny-clip", quick_gelu=True)
    config = {"model_cfg": CONFIG | {"quick_gelu": True}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    shutil.copy(weights, tmp_path / "open_clip_model.safetensors")
    folder = f"local-dir:{tmp_path}"
    assert akd.load_vlm(folder, device="cpu").quick_gelu
    match = "quick_gelu = False, but the configuration of local-dir:.* says True; leave it out"
    with pytest.raises(ValueError, match=match):
        akd.load_vlm(folder, device="cpu", quick_gelu=False)
    with pytest.raises(ValueError, match="brings its own weights; leave out pretrained = 'openai'"):
        akd.load_vlm(folder, "openai", "cpu")


def test_a_cache_with_the_other_activation_is_refused_with_the_reason(weights, small, tmp_path):
    quick, other = (akd.load_vlm("mini", weights, "cpu", quick_gelu=q) for q in (True, False))
    a, b = (
        akd.TeacherCache.build(vlm, small.pool, 1, tmp_path, progress=False)
        for vlm in (quick, other)
    )
    assert a.path != b.path
    assert (a.features.float() - b.features.float()).abs().max() > 1e-3
    match = r"\(vlm.quick_gelu: true stored, false requested\); delete the folder"
    with pytest.raises(ValueError, match=match):
        akd.TeacherCache.open(a.path, vlm=other)
    path = a.path / "manifest.json"  # as an older version wrote it
    manifest = json.loads(path.read_text())
    manifest["fingerprint"]["format"] = 2
    del manifest["fingerprint"]["vlm"]["quick_gelu"], manifest["sha256"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="of an older version .*format 2.*; delete the folder"):
        akd.TeacherCache.open(a.path)
    assert store.prune(tmp_path).keys() == {a.path}


def test_the_setting_on_the_command_line_and_in_grids(weights, tmp_path, capsys):
    words = "cache build --dataset digits --pool-size 40 --vlm mini --device cpu".split()
    words += ["--pretrained", weights, "--cache", str(tmp_path / "cache")]
    assert cli.main(words) == 2
    assert "--quick-gelu or --no-quick-gelu" in capsys.readouterr().err
    for flag in ("--quick-gelu", "--no-quick-gelu"):
        assert cli.main([*words, flag]) == 0
    manifests = [json.loads(path.read_text()) for path in tmp_path.glob("cache/*/manifest.json")]
    found = sorted(manifest["fingerprint"]["vlm"]["quick_gelu"] for manifest in manifests)
    assert found == [False, False, True, True]  # of the pool and of the test images
    teachers = ["clap", {"name": "own", "vlm": "mini", "pretrained": "b.pt", "quick_gelu": False}]
    vlm = {"vlm": "RN50", "pretrained": "a.pt", "quick_gelu": True}
    grid = akd.sweep.Grid(teachers=teachers, distill=[True], strategies=["random"], **vlm)
    assert [p.config.quick_gelu for p in grid.runs().values()] == [True, False]


class TestWeightsThatDoNotFit:
    def test_the_error_names_the_weights_of_a_tag_or_a_file(self, tmp_path, monkeypatch):
        path = tmp_path / "w.safetensors"
        save_file({"visual.conv1.weight": torch.zeros(2, 2)}, path)
        tags = {"tag": TAG | {"file": str(path)}}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "mini", tags)
        for name, pretrained in (("mini", "tag"), ("tiny-clip", str(path))):
            match = rf"the weights '.*{pretrained}' do not fit {name}: .*; name the model"
            with pytest.raises(ValueError, match=match):
                akd.load_vlm(name, pretrained, "cpu")

    @pytest.mark.parametrize(
        "content", [{}, [1, 2], {"a": 1}, torch.zeros(3), b"", b"hello world\n"]
    )
    def test_any_content_of_the_file_gives_a_clear_error(self, tmp_path, content):
        path = tmp_path / "w.pt"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        match = r"the weights '.*w\.pt'.* (cannot be read|do not fit)"
        with pytest.raises(ValueError, match=match):
            akd.load_vlm("mini-quickgelu", str(path), "cpu")

    def test_a_folder_without_weights_or_with_a_damaged_configuration(self, tmp_path):
        folder, config = f"local-dir:{tmp_path}", tmp_path / "open_clip_config.json"
        with pytest.raises(FileNotFoundError, match="open_clip_config.json"):
            akd.load_vlm(folder, device="cpu")
        config.write_text(json.dumps({"model_cfg": CONFIG}))
        with pytest.raises(FileNotFoundError, match="no weights for 'local-dir:"):
            akd.load_vlm(folder, device="cpu")
        config.write_text("[" * 10_000)
        match = r"open_clip_config.json is not valid JSON \(nested deeper than 100 levels"
        with pytest.raises(ValueError, match=match):
            akd.load_vlm(folder, device="cpu")
