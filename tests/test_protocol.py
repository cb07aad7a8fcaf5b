from dataclasses import asdict, replace

import pytest

import activekd_lite as akd
from activekd_lite import cli, protocol
from activekd_lite.sources import LAYOUTS

# Facts of arXiv:2506.00910 and its code: the ten data sets, then ImageNet.
PAPER = {
    "shots": (1, 1), "rounds": (15, 8), "query_size": (None, 1000), "pool_size": (None, 100_000),
    "average": ("raw", "normalized"),
    "teacher": ("zero-shot", "zero-shot"), "student": ("resnet18", "dino_resnet50"), "train.temperature": (2.0, 2.0),
    "train.kd_weight": (0.5, 0.5), "train.beta": (1.0, 1.0), "train.eval_kd_weight": (None, 0.6),
    "train.eval_beta": (None, 0.5),
    "train.lr": (1e-3, 1e-3), "train.warmup": (0.1, 0.1), "train.schedule": ("linear", "cosine"), "train.batch_size": (64, 256),
    "train.passes": (200, 200), "train.pretrained": (True, True), "clap.lr": (0.01, 0.01), "clap.momentum": (0.9, 0.9),
    "clap.passes": (300, 300), "clap.warmup": (0.1, 0.1), "clap.lag": (1, 0), "clap.constraint": (1.0, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_preset_is_the_papers(name):
    found = asdict(akd.RunConfig.paper(name))
    found |= {f"{part}.{k}": v for part in ("train", "clap") for k, v in found[part].items()}
    print(
        f"\n{name}" + "".join(f"\n  {field}: {found[field]}, paper {both[name == 'imagenet']}" for field, both in PAPER.items())
    )
    assert {field: found[field] for field in PAPER} == {field: both[name == "imagenet"] for field, both in PAPER.items()}
    assert found["dataset"] == name


def test_what_the_protocol_fixes_elsewhere():
    """Seeds, crops and their size are no fields of it."""
    assert protocol.PAPER_SEEDS == (0, 1, 2, 3, 4)
    assert akd.Augmentation().scale == (0.5, 1.0)
    assert akd.Augmentation().flip == 0.5
    for student in ("resnet18", "mobilenet_v2", "tinyvit", "dino_resnet50"):
        assert akd.students.find_backbone(student).input_size == 224


def test_the_few_shot_teacher_weighs_more_in_imagenets_evaluation():
    assert akd.RunConfig.paper("imagenet", teacher="clap").train.eval_kd_weight == 0.8
    assert akd.RunConfig.paper("dtd", teacher="clap").train.eval_kd_weight is None


def test_changes_go_before_the_preset():
    config = akd.RunConfig.paper("dtd", strategy="badge", seed=4, vlm="ViT-B-32", rounds=2)
    assert (config.strategy, config.seed, config.vlm, config.rounds, config.student) == ("badge", 4, "ViT-B-32", 2, "resnet18")
    with pytest.raises(ValueError, match="teacher = 'oracle'; 'zero-shot', 'clap' and None"):
        akd.RunConfig.paper("dtd", teacher="oracle")


def test_a_run_by_names_is_the_run_by_objects(tmp_path, vlm, digits, quick):
    config = akd.RunConfig(rounds=1, query_size=3, views=2, train=quick)
    by_names = config.run(cache_root=tmp_path, device="cpu", progress=False)
    teacher = akd.ZeroShotTeacher(
        akd.TeacherCache.build(vlm, digits.pool, 2, tmp_path, progress=False),
        vlm.text_weights(digits.classnames, digits.templates),
        test=akd.TeacherCache.build_test(vlm, digits, tmp_path, progress=False),
    )
    by_objects = akd.run_active_learning(digits, teacher, rounds=1, query_size=3, train=quick, device="cpu", progress=False)
    assert [r.outcome() for r in by_names.records] == [r.outcome() for r in by_objects.records]
    assert by_names.config == by_objects.config


@pytest.mark.parametrize("change", [
    {"teacher": "clap"}, {"teacher": None}, {"student": "linear"}, {"strategy": "random"}, {"shots": 2},
    {"seed": 1}, {"views": 3}, {"rounds": 0}, {"query_size": 4}, {"train": akd.TrainConfig(steps=9, batch_size=8)},
])  # fmt: skip
def test_every_field_changes_the_run(tmp_path_factory, quick, change):
    root = tmp_path_factory.getbasetemp() / "shared-cache"
    base = akd.RunConfig(rounds=1, query_size=3, views=2, train=quick)
    first, other = (c.run(cache_root=root, device="cpu", progress=False) for c in (base, replace(base, **change)))
    assert first.config != other.config
    assert [r.outcome() for r in first.records] != [r.outcome() for r in other.records]


def test_prototypes_start_as_long_as_the_text_features_unless_told(vlm, digits, tmp_path):
    norms = [
        protocol.make_teacher("clap", vlm, digits, 1, tmp_path, average, progress=False).start.norm(dim=0).mean()
        for average in (None, "raw", "normalized")
    ]
    assert norms[0] == norms[1] > 5
    assert norms[2] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("views", "taught", "plain"), [(None, 1, akd.views.FRESH), (4, 4, 4)])
def test_views_are_one_with_a_teacher_and_fresh_without_unless_told(views, taught, plain, tmp_path, quick):
    options = {"cache_root": tmp_path, "device": "cpu", "progress": False}
    configs = [akd.RunConfig(teacher=t, views=views, rounds=0, train=quick).run(**options).config for t in ("zero-shot", None)]
    grid = akd.sweep.Grid(strategies=["random"], views=views, rounds=0, train=quick)
    akd.sweep.run(grid, tmp_path / "grid", **options, workers=0)
    configs += [akd.load_run(tmp_path / "grid" / folder, "cpu").config for folder in grid.runs()]
    assert [c["views"]["count"] for c in configs] == [taught, plain, taught, plain]


@pytest.mark.parametrize("wrong", [
    {"strategy": "nosuch"}, {"student": "nosuch"}, {"student": "resnet18.nosuch"}, {"rounds": 5000}, {"pool_size": 0},
    {"train": akd.TrainConfig(pretrained="nowhere.pt")},
])  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_encoded(wrong, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError)):
        akd.RunConfig(**wrong).run(cache_root=tmp_path / "cache", device="cpu", progress=False)
    assert not (tmp_path / "cache").exists()


def test_another_model_does_not_get_the_presets_weights():
    assert akd.RunConfig.paper("dtd", vlm="tiny-clip").pretrained is None
    assert akd.RunConfig.paper("dtd", vlm="ViT-B-32", pretrained="openai").pretrained == "openai"


def test_query_size_is_the_number_of_classes_where_none_is_given(tmp_path, quick):
    config = akd.RunConfig(rounds=1, teacher=None, train=quick)
    assert len(config.run(cache_root=tmp_path, device="cpu", progress=False).records[0].query_indices) == 10


def test_the_command_line_gives_the_same_config(monkeypatch, tmp_path):
    seen = []

    def note(self, out, **options):
        seen.append(self)
        raise ValueError("enough")

    monkeypatch.setattr(akd.RunConfig, "run", note)
    words = [
        "--teacher",
        "clap",
        "--student",
        "resnet18@64",
        "--student-weights",
        "random",
        "--passes",
        "3",
        "--precision",
        "float32",
    ]
    assert cli.main(["run", "--paper", "--dataset", "imagenet", "--rounds", "2", *words]) == 2
    expected = akd.RunConfig.paper("imagenet", teacher="clap", student="resnet18@64", rounds=2)
    assert seen == [replace(expected, train=replace(expected.train, pretrained=False, passes=3.0, precision="float32"))]
    cli.main(["run", "--no-distill", "--steps", "5", "--paper", "--dataset", "dtd"])
    assert seen[1].teacher is None
    assert (seen[1].train.steps, seen[1].train.passes) == (5, None)
    cli.main(["run"])
    assert seen[2] == akd.RunConfig()
