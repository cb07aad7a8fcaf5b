"""Sweeps: runs are paired, nothing runs twice, failures stop no other run, one table of all."""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

import activekd_lite as akd
from activekd_lite import cli, loop
from activekd_lite.experiments import sweep
from activekd_lite.experiments.config import RunConfig

GRID = sweep.Grid(
    strategies=("random", "pcoreset"),
    teachers=("zero-shot", "clap"),
    seeds=(0, 1),
    rounds=1,
    query_size=3,
    views=2,
    train={"steps": 4, "batch_size": 8},
    clap={"passes": 2},
)
SHORT = "--rounds 1 --query-size 3 --steps 4 --batch-size 8 --device cpu --workers 0".split()


HOW = {"device": "cpu", "workers": 0, "progress": False}


def run(grid, root):
    return sweep.run(grid, root / "runs", cache_root=root / "cache", **HOW)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shared_cache):
    root = tmp_path_factory.mktemp("sweep")
    with contextlib.suppress(OSError):  # not allowed on Windows: then it has a cache of its own
        (root / "cache").symlink_to(shared_cache)
    return root, run(GRID, root)


def test_the_table_has_every_round_of_every_run(finished):
    root, table = finished
    assert set(table["run"]) == set(GRID.runs())
    assert (table.groupby("run").size() == 2).all()
    assert (table["rounds"] == 1).all()
    for name, planned in GRID.runs().items():
        result, rows = akd.load_run(root / "runs" / name, "cpu"), table[table["run"] == name]
        assert rows["accuracy_pct"].tolist() == [r.accuracy_pct for r in result.records]
        assert [list(q) for q in rows["query_indices"]] == [r.query_indices for r in result.records]
        assert rows["seconds"].tolist() == pytest.approx(
            [sum(r.seconds.values()) for r in result.records]
        )
        for stage in ("teacher", "train", "predict", "select"):
            assert rows[f"seconds_{stage}"].tolist() == [r.seconds[stage] for r in result.records]
        assert [list(c) for c in rows["label_class_counts"]] == [
            r.label_class_counts for r in result.records
        ]
        assert rows["teacher_accuracy_pct"].notna().all() == (planned.teacher != "none")
        assert set(rows["teacher"]) == {planned.teacher}
        assert set(rows["distill"]) == {planned.teacher != "none"}
        assert set(rows["seed"]) == {planned.config.seed}
    assert set(table["vlm"].dropna()) == {"tiny-clip"}
    stored = pd.read_parquet(root / "runs/results.parquet")
    assert (
        sweep.load(root / "runs/results.parquet").to_json()
        == stored.to_json()
        == sweep.load(root / "runs").to_json()
    )


def test_a_folder_of_single_runs_is_read_like_a_sweep(finished, tmp_path):
    root, table = finished
    shutil.copytree(root / "runs/digits/random-clap", tmp_path / "mine")
    assert set(sweep.load(tmp_path)["run"]) == {"mine/seed0", "mine/seed1"}
    assert set(sweep.load(tmp_path)["teacher"]) == {"clap"}
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(root / "runs/results.parquet", only)
    assert len(sweep.load(only)) == len(table)
    with pytest.raises(FileNotFoundError, match="no runs under"):
        sweep.load(tmp_path / "nothing")


def test_the_strategy_changes_nothing_before_its_first_query(finished):
    """Round 0 is the same for all strategies, except for the labels that it asks for."""
    root, _ = finished
    for teacher in ("activekd", "clap", "plain"):
        for seed in (0, 1):
            a, b = (
                akd.load_run(
                    root / f"runs/digits/{s}-{teacher}/seed{seed}",
                    "cpu",
                )
                for s in ("random", "pcoreset")
            )
            first, other = (r.records[0].outcome() for r in (a, b))
            assert first["query_indices"] != other["query_indices"]
            same = [name for name in first if not name.startswith("query_")]
            assert [first[name] for name in same] == [other[name] for name in same]
            assert torch.equal(a.state.labeled_round == 0, b.state.labeled_round == 0)
            assert a.config["train"] == b.config["train"]
    starts = [
        akd.load_run(root / f"runs/digits/random-plain/seed{seed}", "cpu").state.labeled_round == 0
        for seed in (0, 1)
    ]
    assert not torch.equal(*starts)


def test_a_repeated_sweep_trains_nothing_and_more_seeds_train_only_new_runs(finished, monkeypatch):
    root, table = finished
    trained = []
    monkeypatch.setattr(
        loop,
        "train_student",
        lambda *a, **k: trained.append(k["seed"]) or pytest.fail("trained again"),
    )
    assert run(GRID, root).to_json() == table.to_json()
    monkeypatch.undo()
    real = loop.train_student
    monkeypatch.setattr(
        loop, "train_student", lambda *a, **k: trained.append(k["seed"]) or real(*a, **k)
    )
    more = dataclasses.replace(
        GRID, strategies=("random",), teachers=("zero-shot",), seeds=(0, 1, 2)
    )
    table = run(more, root)
    assert len(trained) == 2 * 2  # with and without the teacher, two trainings each
    assert set(table["run"]) == set(more.runs())
    assert len(set(sweep.load(root / "runs")["run"])) == len(GRID.runs()) + 2
    shutil.rmtree(root / "runs/digits/random-plain/seed2")
    shutil.rmtree(root / "runs/digits/random-activekd/seed2")


def test_a_failed_run_is_tried_again_and_recorded_and_the_others_continue(
    finished, tmp_path, monkeypatch, capsys
):
    root, table = finished
    out = tmp_path / "runs"
    shutil.copytree(root / "runs", out)
    broken, other = "digits/random-plain/seed1", "digits/pcoreset-clap/seed0"
    config = json.loads((out / broken / "config.json").read_text())
    shutil.rmtree(out / broken)
    shutil.rmtree(out / other)
    data = akd.load_dataset("digits")
    akd.run_active_learning(
        data,
        rounds=0,
        seed=5,
        device="cpu",
        train=akd.TrainConfig(steps=1),
        out=out / broken,
        progress=False,
    )
    again = sweep.run(GRID, out, cache_root=root / "cache", **HOW)
    noted = sweep.failures(out)
    assert list(noted) == [broken]
    assert "seed: 5 stored, 1 requested" in noted[broken].splitlines()[0]
    assert "Traceback" in noted[broken]
    assert set(again["run"]) >= {other}
    shutil.rmtree(out / broken)
    run_again = sweep.run(GRID, out, cache_root=root / "cache", **HOW)
    assert sweep.failures(out) == {}
    assert run_again["accuracy_pct"].tolist() == table["accuracy_pct"].tolist()
    assert json.loads((out / broken / "config.json").read_text()) == config


def test_a_sweep_without_any_finished_run_says_why(tmp_path, capsys):
    grid = sweep.Grid(strategies=("random",), distill=(False,), rounds=5000)
    with pytest.raises(
        RuntimeError, match=r"none of the 1 runs .* says why: ValueError: .*5000 rounds of 10"
    ):
        run(grid, tmp_path)
    assert (
        cli.main(
            [
                "sweep",
                "--no-distill",
                "--rounds",
                "5000",
                "--workers",
                "0",
                "--out",
                str(tmp_path / "cli"),
            ]
        )
        == 1
    )
    assert "5000 rounds of 10" in capsys.readouterr().err


def test_a_name_that_is_a_path_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in (str(photos), "photos", "../evil", "torchvision:../x", "hf:x/..", "csv:.."):
        for words in (
            ["sweep", *SHORT],
            ["sweep", *SHORT, "--notebook", "x.ipynb"],
            ["run", *SHORT[:-2]],
        ):
            assert cli.main([*words, "--out", "runs/s", "--dataset", name]) == 2
            assert f"data set {name!r}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    assert not list(photos.iterdir())


def test_prompts_of_a_grid_and_a_name_with_a_slash_reach_a_run(workplace, capsys):
    (workplace / "grid.yaml").write_text(
        "teachers: [{teacher: zero-shot, name: ../two, "
        'templates: ["a photo of a {}.", "a photo of the {}."]}]\n'
        "strategies: [random]\ndistill: [true]\nviews: 1\n"
    )
    assert cli.main(["sweep", "grid.yaml", *SHORT, "--out", "runs/s"]) == 0
    assert [
        path.parent.relative_to(workplace).as_posix() for path in workplace.rglob("config.json")
    ] == ["runs/s/digits/random-..-two/seed0"]
    assert sweep.teachers("runs/s").keys() == {("digits", "../two")}


def test_every_run_that_fails_has_a_line_and_the_sweep_exits_with_1(tmp_path, capsys):
    words = ["sweep", *SHORT, "--strategy", "random", "--no-distill", "--out", str(tmp_path)]
    assert cli.main([*words, "--dataset", "folder:/nowhere", "csv:/missing.csv"]) == 1
    printed = capsys.readouterr().out
    for dataset in ("nowhere", "missing"):
        assert f"FAILED {dataset}/random-plain/seed0: FileNotFoundError" in printed
    assert cli.main([*words, "--dataset", "digits", "folder:/elsewhere"]) == 1
    assert (
        "FAILED elsewhere/random-plain/seed0: FileNotFoundError: no folder /elsewhere"
        in capsys.readouterr().out
    )


def test_time_is_estimated_from_finished_trainings(tmp_path):
    grid = sweep.Grid(strategies=("random", "badge"), distill=(True, False), rounds=2)

    def done(folder, seconds):
        (tmp_path / folder).mkdir(parents=True)
        lines = [json.dumps({"seconds": {"train": s / 2, "select": s / 2}}) + "\n" for s in seconds]
        (tmp_path / folder / "rounds.jsonl").write_text("".join(lines))

    plan, seconds = sweep.estimate(grid, tmp_path)
    assert plan["trainings"].tolist() == [3] * 4
    assert seconds != seconds  # nobody knows
    done("digits/random-activekd/seed0", [2, 4, 6])
    done("digits/badge-activekd/seed0", [4])
    plan, seconds = sweep.estimate(grid, tmp_path, workers=2)
    assert plan["done"].tolist() == [3, 1, 0, 0]
    assert seconds == pytest.approx((2 * 4 + 6 * 4) / 2)  # plain runs: as all that are done
    done("digits/random-plain/seed0", [1, 1, 1])
    assert sweep.estimate(grid, tmp_path)[1] == pytest.approx(2 * 4 + 3 * 1)
    for damaged in ("{", "[" * 10_000, "[]", '{"seconds": [1]}'):
        (tmp_path / "digits/random-plain/seed0/rounds.jsonl").write_text(damaged)
        with pytest.raises(
            ValueError,
            match=r"random-plain/seed0/rounds.jsonl is damaged .*; delete .* to start again",
        ):
            sweep.estimate(grid, tmp_path)


def test_runs_of_old_and_new_versions_make_one_table(finished, tmp_path):
    root, _ = finished
    shutil.copytree(root / "runs/digits/random-clap/seed0", tmp_path / "new")
    shutil.copytree(Path(__file__).parent / "fixtures/run-0.1", tmp_path / "old")
    table = sweep.load(tmp_path)
    assert table["teacher_accuracy_pct"].notna().tolist() == [True, True, False, False]
    assert set(table["selection_source"]) == {"mixed"}
    assert sweep.load(tmp_path / "results.parquet").to_json() == table.to_json()
    text = akd.report.write(table, tmp_path / "report.html").read_text()
    old, new = text.split('<section id="s')[
        1:3
    ]  # the old run's student is "linear": a data set of its own
    assert ("were not recorded" in old) != ("were not recorded" in new)


def test_shared_inputs_are_loaded_once(monkeypatch, workplace):
    loads, real = [], RunConfig.load
    monkeypatch.setattr(
        RunConfig, "load", lambda self, **k: loads.append(self.teacher) or real(self, **k)
    )
    sweep.run(dataclasses.replace(GRID, seeds=(0,)), "runs", cache_root=".cache", **HOW)
    assert sorted(map(str, loads)) == [
        "None",
        "None",
        "clap",
        "clap",
        "zero-shot",
        "zero-shot",
    ]  # to encode, and to train
    sweep._inputs.cache_clear()


def test_the_command_line(workplace, capsys):
    words = [
        "sweep",
        "--strategy",
        "random",
        "pcoreset",
        "--seeds",
        "0",
        "1",
        *SHORT,
        "--out",
        "runs/s",
    ]
    assert cli.main([*words, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "0 of 8 runs are finished; 16 trainings are left\n" in out
    assert "time left with 1 workers: unknown until a training is finished" in out
    assert not (workplace / "runs").exists()
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "gain" in out
    assert "8 runs; figures and significance tests are in runs/s/report.html" in out
    assert (
        "https://cdn" not in (workplace / "runs/s/report.html").read_text().partition("<script")[0]
    )
    assert cli.main([*words, "--dry-run"]) == 0
    assert "8 of 8 runs are finished; 0 trainings are left\n" in capsys.readouterr().out
    assert cli.main([*words, "--seeds", "0", "2", "--dry-run"]) == 0
    assert (
        "4 of 8 runs are finished; 8 trainings are left\ntime left with 1 workers: about 0:00:0"
        in capsys.readouterr().out
    )
    config = workplace / "runs/s/digits/random-plain/seed1/config.json"
    shutil.rmtree(config.parent)
    config.parent.mkdir()
    config.parent.chmod(0o755)
    (config.parent / "rounds.jsonl").write_text("{}\n")
    assert cli.main(words) == 1
    out = capsys.readouterr().out
    assert "7 runs; figures" in out
    assert "FAILED digits/random-plain/seed1: ValueError" in out


def test_a_sweep_from_a_file_with_another_teacher_and_student(workplace, capsys):
    (workplace / "grid.yaml").write_text(
        "teachers: [clap]\nstudents: [linear]\nstrategies: [pcoreset, random]\nclap: {passes: 2}\n"
    )
    assert (
        cli.main(["sweep", "grid.yaml", *SHORT, "--strategy", "pcoreset", "--out", "runs/s"]) == 0
    )
    configs = [
        json.loads(path.read_text())
        for path in sorted(workplace.glob("runs/s/digits/*/seed0/config.json"))
    ]
    assert [c["teacher"] and c["teacher"]["kind"] for c in configs] == ["clap", None]
    assert {c["student"] for c in configs} == {"linear"}
    assert {c["train"]["steps"] for c in configs} == {4}
    words = [
        "sweep",
        "grid.yaml",
        *SHORT,
        "--strategy",
        "pcoreset",
        "--selection-source",
        "mixed",
        "teacher",
        "--out",
        "runs/s",
    ]
    assert cli.main([*words, "--dry-run"]) == 0
    assert "clap-linear-select-teacher/seed0" in capsys.readouterr().out
    one = [
        "run",
        *SHORT[:-2],
        "--student",
        "linear",
        "--selection-source",
        "kd",
        "--out",
        "runs/kd",
    ]
    assert cli.main(one) == 0
    assert json.loads(Path("runs/kd/config.json").read_text())["selection_source"] == "kd"
    assert cli.main([*one, "--no-distill"]) == 2
    assert "selection_source = 'kd'" in capsys.readouterr().err
    assert cli.main(["sweep", "none.yaml"]) == 2
    assert "no grid file none.yaml" in capsys.readouterr().err
    for words in (["--average", "raw"], ["--templates", "a {}"], ["--pool-size", "50"]):
        assert cli.main(["sweep", *words]) == 2
        assert f"Unknown option: {words[0]}." in capsys.readouterr().err
