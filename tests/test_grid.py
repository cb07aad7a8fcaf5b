"""The runs of a grid, their folders, and what a grid refuses."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from activekd_lite.experiments.config import RunConfig
from activekd_lite.experiments.grid import Grid, run_folder
from activekd_lite.train_config import TrainConfig


def test_a_grid_is_the_product_with_plain_runs_once():
    grid = Grid(
        datasets=("digits", "shapes"),
        teachers=("zero-shot", "clap"),
        strategies=("random", "badge"),
        seeds=(0, 1, 2),
    )
    runs = grid.runs()
    assert len(runs) == 2 * 2 * 3 * 3  # data sets, strategies, seeds; two teachers and none
    plain = [p for p in runs.values() if p.config.teacher is None]
    assert len(plain) == 2 * 2 * 3
    assert {p.teacher for p in plain} == {"none"}
    found = runs["shapes/badge-clap/seed2"].config
    assert found == RunConfig("shapes", teacher="clap", strategy="badge", seed=2)
    assert next(iter(runs)) == "digits/random-activekd/seed0"


def test_runs_that_share_inputs_are_neighbours():
    runs = list(
        Grid(datasets=("digits", "shapes"), teachers=("zero-shot", "clap"), seeds=(0, 1))
        .runs()
        .values()
    )
    order = [(p.config.dataset, p.config.seed, p.teacher) for p in runs]
    assert order == sorted(order, key=order.index)  # each combination in one piece
    assert [o[0] for o in order] == sorted(o[0] for o in order)


def test_excludes_name_axes_and_values():
    grid = Grid(
        datasets=("digits", "shapes"),
        teachers=("zero-shot", "clap"),
        strategies=("random", "badge"),
        seeds=(0, 1),
        exclude=[
            {"dataset": "shapes", "teacher": "clap"},
            {"seed": [1], "strategy": "badge"},
            {"distill": False, "seed": 0},
        ],
    )
    runs = grid.runs()
    assert not any(name.startswith("shapes/") and "clap" in name for name in runs)
    assert "digits/badge-clap/seed1" not in runs
    assert "digits/random-plain/seed0" not in runs
    assert "digits/random-plain/seed1" in runs
    # Three with a teacher: both strategies with seed 0, random with seed 1. Plain: random with 1.
    assert len(runs) == 3 * 2 + 3 * 1 + 2 * 1


def test_settings_reach_every_run_and_entries_of_teachers_go_first():
    grid = Grid(
        teachers=("zero-shot", {"name": "three", "views": 3, "average": "raw"}),
        strategies=("random",),
        rounds=2,
        views=5,
        vlm="RN50",
        pretrained="openai",
        train={"steps": 7, "lr": 0.1},
        clap={"passes": 3},
    )
    runs = {name: p.config for name, p in grid.runs().items()}
    assert set(runs) == {
        "digits/random-activekd/seed0",
        "digits/random-three/seed0",
        "digits/random-plain/seed0",
    }
    taught, three, plain = (
        runs[f"digits/random-{name}/seed0"] for name in ("activekd", "three", "plain")
    )
    assert (taught.views, three.views, three.average, plain.views) == (5, 3, "raw", 5)
    assert (taught.vlm, taught.pretrained, plain.vlm) == ("RN50", "openai", "tiny-clip")
    assert {c.rounds for c in runs.values()} == {2}
    assert {(c.train.steps, c.train.lr, c.train.batch_size) for c in runs.values()} == {
        (7, 0.1, TrainConfig().batch_size)
    }
    assert three.clap.passes == 3


def test_the_papers_protocol_for_each_data_set():
    runs = Grid(
        datasets=("caltech101", "imagenet"),
        teachers=("clap",),
        paper=True,
        strategies=("pcoreset",),
    ).runs()
    assert runs["imagenet/pcoreset-clap/seed1"].config == RunConfig.paper(
        "imagenet", teacher="clap"
    )
    assert runs["caltech101/pcoreset-plain/seed1"].config == RunConfig.paper(
        "caltech101", teacher=None
    )
    few = (
        Grid(datasets=("dtd",), paper=True, train={"steps": 9}, rounds=3)
        .runs()["dtd/random-activekd/seed1"]
        .config
    )
    assert (few.rounds, few.train.steps, few.train.passes, few.train.batch_size) == (3, 9, None, 64)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"teachers": [{"teacher": None}]}, "for runs without a teacher, write `distill: [false]`"),
        ({"teachers": [{"teacher": "zero-shot", "templates": []}]}, "a list of prompts"),
        ({"train": {"steps": float("inf")}}, "a value has the wrong type"),
        ({"pool_per_seed": 1}, "true or false"),
    ],
)
def test_other_invalid_grids_are_refused(fields, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        Grid(**fields)


def test_the_model_of_a_teacher_may_be_left_unset():
    assert list(Grid(teachers=[{"vlm": None}], distill=[True], strategies=["random"]).runs()) == [
        "digits/random-activekd/seed0"
    ]


def test_the_papers_seeds_and_strategies_unless_others_are_named():
    runs = Grid(datasets=("dtd", "imagenet"), paper=True, distill=(True,)).runs()
    assert len([name for name in runs if name.startswith("dtd/")]) == 6 * 5
    assert len([name for name in runs if name.startswith("imagenet/")]) == 5 * 5
    assert {p.config.seed for p in runs.values()} == {1, 2, 3, 4, 5}
    assert "dtd/badge_reference-activekd/seed5" in runs
    assert not any("badge" in name for name in runs if name.startswith("imagenet/"))
    few = Grid(
        datasets=("imagenet",), paper=True, distill=(True,), seeds=(7,), strategies=("badge",)
    ).runs()
    assert list(few) == ["imagenet/badge-activekd/seed7"]


def test_a_feature_student_without_a_teacher_depends_on_the_model():
    grid = Grid(
        teachers=({"vlm": "RN50"}, {"vlm": "ViT-B-32"}),
        students=("linear", "tiny-cnn"),
        strategies=("random",),
    )
    plain = [name.split("/")[1] for name, p in grid.runs().items() if p.teacher == "none"]
    assert plain == [
        "random-plain-RN50-linear",
        "random-plain-ViT-B-32-linear",
        "random-plain-tiny-cnn",
    ]


def test_selection_sources_are_an_axis_of_the_runs_with_a_teacher():
    axis = Grid(strategies=("pcoreset",), selection_sources=("mixed", "kd"))
    found = {name: p.config.selection_source for name, p in axis.runs().items()}
    assert found == {
        "digits/pcoreset-activekd/seed0": "mixed",
        "digits/pcoreset-activekd-select-kd/seed0": "kd",
        "digits/pcoreset-plain/seed0": "mixed",  # once
    }
    less = replace(axis, exclude=[{"selection_source": "kd"}])
    assert set(less.runs()) == {name for name, source in found.items() if source == "mixed"}
    alone = Grid(strategies=("pcoreset",), selection_sources=("teacher",), distill=(False,)).runs()
    assert [p.config.selection_source for p in alone.values()] == ["mixed"]
    with pytest.raises(
        ValueError, match="selection_source = 'both'; choose one of 'mixed', 'ce', 'kd', 'teacher'"
    ):
        Grid(selection_sources=("both",))
    with pytest.raises(ValueError, match="selection_source = 'kd' .* run with one"):
        RunConfig(teacher=None, selection_source="kd")


def test_runs_that_need_a_teacher_are_left_out_without_one():
    assert list(Grid(strategies=("pcoreset_teacher",)).runs()) == [
        "digits/pcoreset_teacher-activekd/seed0"
    ]
    assert all(p.config.teacher for p in Grid(strategies=("random",), shots=0).runs().values())


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"strategies": ("best",)}, "unknown strategy 'best'"),
        ({"strategies": "random"}, "strategies = 'random': a list is needed"),
        ({"students": ("big",)}, "unknown student 'big'"),
        ({"teachers": ("clip",)}, "teacher = 'clip'; choose one of zero-shot, clap, tip-adapter"),
        ({"teachers": ({"vlm": "RN50", "view": 3},)}, "unknown 'view', did you mean views?"),
        (
            {"teachers": ({"average": "raw"}, {"average": "normalized"})},
            "would share the folder digits/random-activekd/seed0",
        ),
        (
            {"datasets": ("folder:/a/mine", "csv:/b/mine.csv")},
            "would share the folder mine/random-activekd/seed0",
        ),
        (
            {"exclude": [{"datasets": "digits"}]},
            "exclude {'datasets': 'digits'}: unknown 'datasets', did you mean dataset?",
        ),
        ({"exclude": [{"seed": 0}]}, "the grid has no runs"),
        (
            {"strategies": ("coreset",), "shots": 0},
            "shots = 0, so nothing is labelled, and activekd_lite.strategies.coreset.coreset "
            "starts from labelled images",
        ),
        ({"train": {"step": 3}}, "TrainConfig: unknown 'step', did you mean steps?"),
        ({"train": {"lr": -1}}, "lr = -1 must be larger than 0"),
        ({"train": {"lr": "fast"}}, "TrainConfig {'lr': 'fast'}: a value has the wrong type"),
        ({"clap": {"passes": 2.5}}, "passes = 2.5: a whole number is needed"),
    ],
)
def test_a_grid_that_cannot_be_run_is_refused_at_once(fields, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        Grid(**fields)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"datasets": ("/photos",)}, "did you mean 'folder:/photos'?"),
        ({"datasets": ("digits", "hf:x/..")}, "data set 'hf:x/..' names nothing"),
        ({"datasets": (None,)}, "datasets: None, but names are needed"),
        ({"seeds": (0, 0.5)}, "seeds: 0.5, but whole numbers are needed"),
        ({"seeds": (True,)}, "seeds: True, but whole numbers are needed"),
        ({"seeds": ("1",)}, "seeds: '1', but whole numbers are needed"),
        ({"seeds": (0, 1, 0)}, "seeds: 0 is repeated"),
        ({"strategies": ("random", "random")}, "strategies: 'random' is repeated"),
        (
            {"teachers": ({"average": "raw"}, {"average": "raw"})},
            "teachers: {'average': 'raw'} is repeated",
        ),
        ({"distill": ("no",)}, "distill: 'no', but true or false are needed"),
        ({"students": (5,)}, "students: 5, but names are needed"),
        ({"rounds": 2.5}, "rounds = 2.5: a whole number is needed"),
        ({"shots": True}, "shots = True: a whole number is needed"),
        ({"paper": "no"}, "paper = 'no': true or false is needed"),
        ({"teachers": ({"vlm": ["RN50", "RN101"]},)}, "vlm = ['RN50', 'RN101']: a text is needed"),
        (
            {"teachers": ({"templates": "a photo of a {}."},)},
            "templates = 'a photo of a {}.': a list of prompts",
        ),
        ({"teachers": ({"views": 1.5},)}, "views = 1.5: a whole number is needed"),
        (
            {"seeds": range(10**8)},
            "1,200,000,000 runs (6 strategies x 2 distill x 100,000,000 seeds); "
            "at most 100,000 are allowed",
        ),
    ],
)
def test_values_that_no_run_can_have_are_refused_before_any_run_is_made(
    fields, complaint, monkeypatch
):
    monkeypatch.setattr(Grid, "runs", lambda self: pytest.fail("made a run"))
    with pytest.raises(ValueError, match=re.escape(complaint)):
        Grid(**fields)


def test_yaml_that_grows_or_is_too_deep_is_refused(tmp_path):
    path = tmp_path / "grid.yaml"
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    for text, complaint in (
        (laughs, "aliases (*name) are not allowed"),
        ("teachers: &t [*t]\n", "aliases (*name) are not allowed"),
        ("[" * 20_000, "nested too deeply"),
        ("seeds: 2024-99-99\n", "cannot be read as YAML"),
        ("# " + "x" * 2**20, "is too large; a grid file may have 1,048,576 bytes at most"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=re.escape(complaint)):
            Grid.read(path)


def test_yaml_numbers_may_have_an_exponent_and_no_point(tmp_path):
    (tmp_path / "grid.yaml").write_text(
        "train: {lr: 1e-3, weight_decay: 0.0}\nteachers: [{name: 1e3x}]\n"
    )
    grid = Grid.read(tmp_path / "grid.yaml")
    assert (grid.train["lr"], grid.teachers[0]["name"]) == (0.001, "1e3x")


@pytest.mark.parametrize("name", ["../x", "/etc", "..", "a\\..\\b", "x\0y", "."])
def test_no_name_puts_a_run_outside_the_folder(name):
    made = [
        run_folder("out", "digits", "random", True, 0, teacher=name),
        run_folder("out", "digits", "random", True, 0, student=name),
    ]
    made += [
        run_folder("out", "digits", name, True, 0),
        *(Path("out", run) for run in Grid(teachers=({"name": name},)).runs()),
    ]
    made.append(run_folder("out", "digits", "random", False, 0, student="linear", features=name))
    for folder in made:
        assert len(folder.parts) == 4
        assert folder.parts[:2] == ("out", "digits")
        assert not {"..", "."} & set(folder.parts)
    for dataset in ("..", "csv:..", "hf:x/..", "folder:/"):
        with pytest.raises(ValueError, match="cannot be the name of a folder of runs"):
            run_folder("out", dataset, "random", True, 0)
    assert run_folder("out", "torchvision:../x", "random", True, 0).parts[1] == "..-x"


def test_lists_in_a_teacher_become_hashable(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(
        "teachers: [{teacher: zero-shot, name: two, "
        'templates: ["a photo of a {}.", "a sketch of a {}."]}]\n'
    )
    runs = Grid.read(path).runs()
    taught = runs["digits/random-two/seed0"].config
    assert taught.templates == ("a photo of a {}.", "a sketch of a {}.")
    assert len({planned.config for planned in runs.values()}) == len(runs) == 12


def test_a_grid_is_read_from_yaml(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(
        "datasets: [digits]\nteachers: [clap, {name: raw, average: raw}]\n"
        "seeds: [0, 1]\ntrain: {steps: 5}\n"
    )
    same = Grid(
        datasets=["digits"],
        teachers=["clap", {"name": "raw", "average": "raw"}],
        seeds=[0, 1],
        train={"steps": 5},
    )
    assert Grid.read(path) == same
    assert Grid.read(path, seeds=[7]).seeds == [7]
    for text, complaint in (
        ("stategies: [random]", "unknown 'stategies', did you mean strategies?"),
        ("- random", "contains a list; a mapping is needed"),
        ("a: [", "cannot be read as YAML"),
        ("!!python/object/apply:os.system [echo]", "cannot be read as YAML"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=re.escape(complaint)):
            Grid.read(path)
    with pytest.raises(FileNotFoundError, match="no grid file"):
        Grid.read(tmp_path / "none.yaml")


def test_the_grid_in_the_docs_is_valid(tmp_path):
    docs = (Path(__file__).parents[1] / "docs" / "running.md").read_text(encoding="utf-8")
    text = re.search(r"```yaml\n(.*?)```", docs, re.S)[1]
    (tmp_path / "grid.yaml").write_text(text)
    runs = Grid.read(tmp_path / "grid.yaml").runs()
    # Without a teacher, a linear student still depends on the model whose features it uses.
    taught, plain = 3 * (2 * 2 - 1) * 3 * 5, (2 * 2 - 1) * 3 * 5 + 3 * 5
    assert len(runs) == taught + plain


def test_the_folder_of_a_run_has_a_name_that_every_system_accepts():
    folder = run_folder(
        "out",
        "hf:org/cats",
        "skactiveml:MaxHerding",
        True,
        3,
        teacher="RN50-clap",
        student="resnet18@64",
    )
    assert folder.as_posix() == "out/cats/skactiveml-MaxHerding-RN50-clap-resnet18@64/seed3"
    assert (
        run_folder("out", "digits", "random", False, 0).as_posix()
        == "out/digits/random-plain/seed0"
    )
