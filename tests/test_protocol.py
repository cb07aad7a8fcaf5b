from dataclasses import replace

import pytest

import activekd_lite as akd
from activekd_lite import cli
from activekd_lite.experiments import config as protocol


def test_changes_override_the_preset():
    config = akd.RunConfig.paper("dtd", strategy="badge", seed=4, vlm="ViT-B-32", rounds=2)
    assert (config.strategy, config.seed, config.vlm, config.rounds, config.student) == (
        "badge",
        4,
        "ViT-B-32",
        2,
        "resnet18",
    )
    with pytest.raises(ValueError, match="teacher = 'oracle'; choose one of zero-shot, clap, "):
        akd.RunConfig.paper("dtd", teacher="oracle")


def test_a_run_by_names_is_the_run_by_objects(shared_cache, vlm, digits, quick):
    config = akd.RunConfig(rounds=1, query_size=3, views=2, train=quick)
    by_names = config.run(cache_root=shared_cache, device="cpu", progress=False)
    teacher = akd.ZeroShotTeacher(
        akd.TeacherCache.build(vlm, digits.pool, 2, shared_cache, progress=False),
        vlm.text_weights(digits.classnames, digits.templates),
        test=akd.TeacherCache.build_test(vlm, digits, shared_cache, progress=False),
    )
    by_objects = akd.run_active_learning(
        digits, teacher, rounds=1, query_size=3, train=quick, device="cpu", progress=False
    )
    assert [r.outcome() for r in by_names.records] == [r.outcome() for r in by_objects.records]
    assert by_names.config == by_objects.config


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": "clap"},
        {"teacher": None},
        {"student": "linear"},
        {"strategy": "random"},
        {"shots": 2},
        {"seed": 1},
        {"views": 3},
        {"rounds": 0},
        {"query_size": 4},
        {"train": akd.TrainConfig(steps=9, batch_size=8)},
    ],
)
def test_every_field_changes_the_run(shared_cache, quick, change):
    base = akd.RunConfig(rounds=1, query_size=3, views=2, train=quick)
    first, other = (
        c.run(cache_root=shared_cache, device="cpu", progress=False)
        for c in (base, replace(base, **change))
    )
    assert first.config != other.config
    assert [r.outcome() for r in first.records] != [r.outcome() for r in other.records]


def test_prototypes_start_as_long_as_the_text_features_by_default(vlm, digits, shared_cache):
    norms = [
        protocol.make_teacher("clap", vlm, digits, 1, shared_cache, average, progress=False)
        .start.norm(dim=0)
        .mean()
        for average in (None, "raw", "normalized")
    ]
    assert norms[0] == norms[1] > 5
    assert norms[2] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("views", "taught", "plain"), [(None, 1, akd.views.FRESH), (3, 3, 3)])
def test_views_are_one_with_a_teacher_and_fresh_without_by_default(
    views, taught, plain, tmp_path, shared_cache, quick
):
    options = {"cache_root": shared_cache, "device": "cpu", "progress": False}
    configs = [
        akd.RunConfig(teacher=t, views=views, rounds=0, train=quick).run(**options).config
        for t in ("zero-shot", None)
    ]
    grid = akd.sweep.Grid(strategies=["random"], views=views, rounds=0, train=quick)
    akd.sweep.run(grid, tmp_path / "grid", **options, workers=0)
    configs += [akd.load_run(tmp_path / "grid" / folder, "cpu").config for folder in grid.runs()]
    assert [c["views"]["count"] for c in configs] == [taught, plain, taught, plain]


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": "nosuch"},
        {"student": "nosuch"},
        {"student": "resnet18.nosuch"},
        {"rounds": 5000},
        {"pool_size": 0},
        {"train": akd.TrainConfig(pretrained="nowhere.pt")},
    ],
)
def test_impossible_settings_are_refused_before_anything_is_encoded(wrong, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError)):
        akd.RunConfig(**wrong).run(cache_root=tmp_path / "cache", device="cpu", progress=False)
    assert not (tmp_path / "cache").exists()


def test_another_model_does_not_get_the_weights_of_the_preset():
    assert akd.RunConfig.paper("dtd", vlm="tiny-clip").pretrained is None
    assert akd.RunConfig.paper("dtd", vlm="ViT-B-32", pretrained="openai").pretrained == "openai"
    assert akd.RunConfig.paper("dtd", vlm="RN50").pretrained == "openai"


def test_a_pool_per_seed_differs_between_seeds(shared_cache):
    configs = [
        akd.RunConfig(teacher=None, rounds=1, pool_size=40, pool_per_seed=per, seed=s)
        for per in (True, False)
        for s in (0, 1)
    ]
    pools = [
        config.load(cache_root=shared_cache, device="cpu", progress=False).data.pool
        for config in configs
    ]
    assert [len(pool) for pool in pools] == [50, 50, 40, 40]
    assert pools[0].fingerprint() != pools[1].fingerprint()
    assert pools[2].fingerprint() == pools[3].fingerprint()
    grid = akd.sweep.Grid(
        strategies=["random"], distill=[False], seeds=[0, 1], pool_size=40, pool_per_seed=True
    )
    assert len({akd.sweep._inputs_of(planned.config) for planned in grid.runs().values()}) == 2


def test_query_size_defaults_to_the_number_of_classes(shared_cache, quick):
    config = akd.RunConfig(rounds=1, teacher=None, train=quick)
    result = config.run(cache_root=shared_cache, device="cpu", progress=False)
    assert len(result.records[0].query_indices) == 10


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
    length = {"passes": 3.0, "pool_passes": None, "last_round_pool_passes": None}
    assert seen == [
        replace(
            expected, train=replace(expected.train, pretrained=False, precision="float32", **length)
        )
    ]
    cli.main(["run", "--no-distill", "--steps", "5", "--paper", "--dataset", "dtd"])
    assert seen[1].teacher is None
    assert (seen[1].train.steps, seen[1].train.passes) == (5, None)
    cli.main(["run"])
    assert seen[2] == akd.RunConfig()
