import pickle
from dataclasses import replace

import huggingface_hub.constants
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import activekd_lite as akd
from activekd_lite.students import build_student
from activekd_lite.utils.backbones import STUDENTS, Backbone, find_backbone, tiny_cnn_backbone


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch, tmp_path):
    """No network, which the hub client knows at once, and an empty torch cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.mark.parametrize(
    ("name", "size", "features"),
    [
        ("resnet18@64", 64, 512),
        ("mobilenet_v2@64", 64, 1280),
        ("dino_resnet50@64", 64, 2048),
        ("tinyvit", 224, 576),
        ("test_resnet", 160, 96),
        ("timm:test_resnet@96", 96, 96),
        ("test_vit", 160, 64),
        ("test_efficientnet@64", 64, 256),
    ],
)
def test_students_of_torchvision_and_timm(name, size, features):
    student = build_student(name, 5, pretrained=False, device="cpu").eval()
    x = torch.rand(2, 3, size, size)
    with torch.inference_mode():
        ce, kd = student(x)
        assert student.features(x).shape == (2, features)
    assert (student.input_size, ce.shape, kd.shape) == (size, (2, 5), (2, 5))
    assert not torch.equal(ce, kd)


def test_pixels_are_normalised_as_the_backbone_was_trained(monkeypatch):
    seen = []

    class Seeing(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.mean(dim=(2, 3))

    mine = Backbone(lambda pretrained: Seeing(), 8, (0.1, 0.2, 0.3), (0.5, 0.25, 1.0))
    monkeypatch.setitem(STUDENTS, "mine", mine)
    student = build_student("mine", 4, device="cpu")
    student.features(torch.full((1, 3, 8, 8), 0.6))
    torch.testing.assert_close(seen[-1][0, :, 0, 0], torch.tensor([1.0, 1.6, 0.3]))
    assert find_backbone("resnet18").mean == pytest.approx((0.485, 0.456, 0.406))
    of_timm = find_backbone("vit_base_patch16_224.augreg_in21k")
    assert of_timm.mean == (0.5, 0.5, 0.5)  # timm's own for these weights


def test_a_whole_run_with_a_custom_student_and_one_of_timm(
    small, teacher, quick, monkeypatch, tmp_path
):
    monkeypatch.setitem(STUDENTS, "mine", Backbone(tiny_cnn_backbone, 12))
    for name in ("mine", "test_resnet@32"):
        train = replace(quick, steps=2, pretrained=False)
        options = {"student": name, "train": train, "rounds": 1, "query_size": 3, "device": "cpu"}
        options |= {"progress": False, "out": tmp_path / name}
        result = akd.run_active_learning(small, teacher, **options)
        expected = result.predict(small.test.images).probs
        loaded = akd.load_run(tmp_path / name)
        assert torch.equal(loaded.predict(small.test.images).probs, expected)


class TestWeights:
    def test_weights_of_torchvision_are_found_in_torchs_cache(self, tmp_path):
        torch.manual_seed(0)
        net = torchvision.models.resnet18()
        folder = tmp_path / "torch/hub/checkpoints"
        folder.mkdir(parents=True)
        torch.save(net.state_dict(), folder / "resnet18-f37072fd.pth")
        student = build_student("resnet18@64", 5, device="cpu")
        assert torch.equal(student.backbone.layer4[1].conv2.weight, net.layer4[1].conv2.weight)

    def test_dino_weights_fit_torchvisions_resnet50(self, tmp_path):
        state = torchvision.models.resnet50().state_dict()
        state = {k: v for k, v in state.items() if not k.startswith("fc.")}
        folder = tmp_path / "torch/hub/checkpoints"
        folder.mkdir(parents=True)
        torch.save(state, folder / "dino_resnet50_pretrain.pth")  # as published: only the backbone
        student = build_student("dino_resnet50@64", 5, device="cpu")
        assert torch.equal(student.backbone.conv1.weight, state["conv1.weight"])

    @pytest.mark.parametrize("kind", ["safetensors", "pth", "training checkpoint"])
    def test_a_custom_file(self, tmp_path, kind):
        torch.manual_seed(0)
        state = {k: v.contiguous() for k, v in torchvision.models.resnet18().state_dict().items()}
        path = tmp_path / ("own.safetensors" if kind == "safetensors" else "own.pth")
        if kind == "safetensors":
            save_file(state, path)
        else:
            wrapped = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}
            torch.save(state if kind == "pth" else wrapped, path)
        student = build_student("resnet18@64", 5, pretrained=str(path), device="cpu")
        assert torch.equal(student.backbone.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])
        assert torch.equal(student.backbone.bn1.running_mean, state["bn1.running_mean"])

    def test_a_file_is_part_of_a_runs_configuration(self, small, quick, tmp_path):
        path = tmp_path / "own.safetensors"
        options = {"rounds": 0, "progress": False, "device": "cpu", "student": "tiny-cnn"}
        options |= {"out": tmp_path / "run", "train": replace(quick, pretrained=str(path))}
        for seed, refused in ((0, False), (0, False), (1, True)):
            torch.manual_seed(seed)
            state = tiny_cnn_backbone().state_dict()
            save_file({k: v.contiguous() for k, v in state.items()}, path)
            if refused:
                with pytest.raises(ValueError, match="student_weights: "):
                    akd.run_active_learning(small, None, **options)
            else:
                akd.run_active_learning(small, None, **options)

    @pytest.mark.parametrize(
        "name", ["resnet18", "mobilenet_v2", "dino_resnet50", "timm:resnet18.a1_in1k", "tinyvit"]
    )
    def test_without_a_network_the_error_names_the_ways_out(self, name, monkeypatch):
        def no_network(*args, **kwargs):
            raise OSError("Name or service not known")

        monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
        match = r"no weights for student.*akd\.build_student\(.*pretrained=False"
        with pytest.raises(FileNotFoundError, match=match):
            build_student(name, 5, device="cpu")

    def test_what_does_not_fit_is_named(self, tmp_path):
        path = tmp_path / "w.pth"
        state = torchvision.models.resnet18().state_dict()
        incomplete = {k: v for k, v in state.items() if k != "conv1.weight"}
        misshapen = state | {"conv1.weight": torch.zeros(1)}
        for content, complaint in (
            (incomplete, r"1 weights are missing \(conv1.weight\)"),
            (misshapen, r"1 have another shape \(conv1.weight\)"),
            ([1, 2], "not a dict of tensors"),
        ):
            torch.save(content, path)
            with pytest.raises(ValueError, match=complaint):
                build_student("resnet18@64", 5, pretrained=path, device="cpu")
        with pytest.raises(FileNotFoundError, match="no weights file .*nowhere.pth"):
            build_student("resnet18@64", 5, pretrained=str(tmp_path / "nowhere.pth"), device="cpu")

    def test_only_tensors_are_unpickled(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "was-run"), "w"))

        (tmp_path / "evil.pth").write_bytes(pickle.dumps({"conv1.weight": Evil()}, protocol=2))
        torch.save({"conv1.weight": Evil()}, tmp_path / "evil2.pth")
        for name in ("evil.pth", "evil2.pth"):
            with pytest.raises(ValueError, match="cannot be read.*nothing else is unpickled"):
                build_student("resnet18@64", 5, pretrained=tmp_path / name, device="cpu")
        assert not (tmp_path / "was-run").exists()


def test_unknown_names_and_shapes_are_refused_by_value(monkeypatch):
    with pytest.raises(ValueError, match="unknown student 'mobilenetv2'.*timm: did you mean"):
        build_student("mobilenetv2", 5)
    with pytest.raises(ValueError, match="'resnet18@big': the part after @"):
        build_student("resnet18@big", 5)
    with pytest.raises(ValueError, match="'linear' learns from cached features: "):
        build_student("linear", 5)
    monkeypatch.setitem(STUDENTS, "flat", Backbone(lambda pretrained: nn.Identity(), 8))
    with pytest.raises(ValueError, match=r"'flat' gives \(1, 3, 8, 8\) .*; features \(1, F\)"):
        build_student("flat", 5)


def test_random_layers_use_the_seed_of_the_run(small, teacher, quick, monkeypatch):
    """With dropout: the student does not depend on the global random state, and leaves it alone."""

    def with_dropout(pretrained):
        return nn.Sequential(tiny_cnn_backbone(), nn.Dropout(0.5))

    monkeypatch.setitem(STUDENTS, "dropping", Backbone(with_dropout, 16))
    index = small.oracle.initial_indices(1, akd.seeding.generator(0, "x"))
    state = akd.LabelState.empty(150).with_labels(index, small.oracle.label(index), 0)
    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        options = {"student": "dropping", "config": quick, "device": "cpu"}
        net = akd.train_student(small.pool, state, teacher, **options)
        assert torch.equal(torch.get_rng_state(), before)
        weights.append(net.ce_head.weight)
    assert torch.equal(*weights)
