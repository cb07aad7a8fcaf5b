"""The benchmarks run, and the alternatives that they compare compute the same thing."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import activekd_lite as akd
from activekd_lite.banks import make_bank

DISTILLED = ("distilled", "ball_shrinkage", "switches")
FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in (
        "online",
        "views",
        "cache",
        "selection",
        "busy",
        "few_shot",
        "weak_teachers",
        *DISTILLED,
    ):
        sys.modules.pop(name, None)


def test_the_online_teacher_agrees_with_the_cached_one(scripts, vlm, small, teacher, quick):
    from online import OnlineTeacher

    online = OnlineTeacher(vlm, small.pool, teacher.text_weights, teacher.views, batch=64)
    index, view = torch.tensor([5, 149, 5, 77]), torch.tensor([0, 2, 1, 1])
    torch.testing.assert_close(
        online.logits(index, view), teacher.logits(index, view), atol=0.1, rtol=0
    )
    torch.testing.assert_close(online.probs(), teacher.probs(), atol=1e-2, rtol=0)
    options = {"rounds": 1, "query_size": 5, "train": quick, "progress": False, "device": "cpu"}
    one, other = (
        akd.run_active_learning(small, t, strategy="random", **options).records[1].accuracy_pct
        for t in (online, teacher)
    )
    assert one == pytest.approx(other, abs=5)


def test_the_scripts_run(scripts, tmp_path, shared_cache, monkeypatch, capsys):
    import views

    words = "views.py --dataset digits --seeds 0 --device cpu".split()
    folders = ["--out", str(tmp_path / "v"), "--cache", str(shared_cache)]
    monkeypatch.setattr(sys, "argv", words + folders)
    monkeypatch.setattr(views, "COUNTS", (1,))
    monkeypatch.setattr(views.akd, "run_active_learning", quick_run(akd.run_active_learning))
    views.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[1:3] for line in lines[2:]] == [
        [t, v] for t in ("with", "without") for v in ("1", "online")
    ]
    import cache

    models = "cache.py --device cpu --vlm tiny-clip --pretrained embedded --student tiny-resnet"
    sizes = "--images 64 --batch-size 4 --steps 2 --rounds 1 --repeats 1"
    monkeypatch.setattr(sys, "argv", [*models.split(), *sizes.split()])
    cache.main()
    text = capsys.readouterr().out
    rows = ("| encoding, 64 images", "teacher cached", "teacher online", "| a run of 1 rounds")
    assert [text.count(row) for row in rows] == [1] * 4


def test_few_shot_prints_accuracies_and_paired_gains(scripts, shared_cache, monkeypatch, capsys):
    import few_shot

    words = "few_shot.py --datasets digits --teachers zero-shot rla --labels 1 2 --seeds 0 1"
    monkeypatch.setattr(sys, "argv", [*words.split(), "--cache", str(shared_cache)])
    few_shot.main()
    rows = rows_of(capsys.readouterr().out, "| digits")
    assert [row[:2] for row in rows[:2]] == [["digits", "zero-shot"], ["digits", "rla"]]
    assert [row[:3] for row in rows[2:]] == [["digits", "rla", "zero-shot"]]
    mean = [float(row[-3].split()[0]) for row in rows[:2]]
    assert float(rows[2][-2].split()[0]) == pytest.approx(mean[1] - mean[0], abs=0.11)


def test_weak_teachers_are_as_weak_as_planned(scripts, tmp_path, shared_cache, monkeypatch):
    import weak_teachers

    words = ["weak_teachers.py", "--seeds", "0", "--steps", "2", "--cache", str(shared_cache)]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path / "w.csv")])
    weak_teachers.main()
    here, stored = (
        pd.read_csv(tmp_path / "w.csv"),
        pd.read_csv(akd.sweep.STUDY / "weak-teachers.csv"),
    )
    keys = ["teacher", "wrong_share", "count", "seed"]
    assert list(here) == list(stored)
    assert len(stored) == 10 * len(here) == 10 * len(here.drop_duplicates(keys))
    first = stored[stored["seed"] == 0].reset_index(drop=True)
    assert here[keys].equals(first[keys])
    accuracy = here[here["count"] == 1].set_index(["teacher", "wrong_share"])["teacher_pct"]
    assert accuracy["zero-shot"].is_monotonic_decreasing
    assert accuracy["strangers' answers", 0] == pytest.approx(accuracy["zero-shot", 0.5], abs=6)
    assert accuracy["zero-shot+shuffled", 0] == accuracy["zero-shot", 0]


def rows_of(text, start):
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(start)]


def test_selection_compares_strategies_that_pick_the_same(scripts, monkeypatch, capsys):
    import selection

    monkeypatch.setitem(selection.ROWS, "small", (400, 7, 8, 9))
    monkeypatch.setattr(sys, "argv", ["selection.py", "--row", "small", "--repeats", "1"])
    selection.main()
    rows = rows_of(capsys.readouterr().out, "| 400")
    strategies = {row[1]: row for row in rows if row[1] in selection.STRATEGIES}
    assert [(name, row[0], row[-1]) for name, row in strategies.items()] == [
        ("pcoreset", "400 x 7, 8, 9", "same"),
        ("coreset", "400 x 512, 8, 9", "same"),
    ]
    assert len(rows) == 4 + 2


def test_busy_measures_quiet_and_beside_others(scripts, shared_cache, monkeypatch, capsys):
    import busy

    words = "--dataset digits --steps 1 --beside 1 --repeats 1 --setting".split()
    argv = ["busy.py", *words, "one thread", "--cache", str(shared_cache)]
    assert busy.measure("one thread", "digits", 1, shared_cache) > 0
    monkeypatch.setattr(busy, "measure", lambda *_: running.append(alive()) or 1.0 + len(running))
    monkeypatch.setattr(sys, "argv", argv)
    started, running, popen = [], [], busy.subprocess.Popen

    def alive():
        return sum(process.poll() is None for process in started)

    class Remembered(popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(busy.subprocess, "Popen", Remembered)
    busy.main()
    rows = rows_of(capsys.readouterr().out, "| digits")
    assert [row[1] for row in rows] == ["one thread"]
    assert all(float(seconds) > 0 for row in rows for seconds in (row[2], row[4]))
    assert running == [0, 1], "busy processes while it trained, quietly and beside them"
    assert all(process.poll() is not None for process in started)


def quick_run(original):
    quick = {"rounds": 1, "query_size": 3, "train": akd.TrainConfig(steps=2, batch_size=4)}
    return lambda data, teacher, **options: original(data, teacher, **options | quick)


@pytest.fixture
def distilled(scripts, small, teacher, monkeypatch):
    """The module `distilled`, with the small data set in the place of every other one."""
    import ball_shrinkage
    import distilled
    import switches

    bank = make_bank(small.pool, "tiny-cnn", teacher.views, torch.device("cpu"))
    inputs = SimpleNamespace(data=small, teacher=teacher, features=None)
    for module in (distilled, ball_shrinkage, switches):
        monkeypatch.setattr(module, "load", lambda *names: (inputs, bank))
    return distilled


@pytest.mark.parametrize("calibrate", [False, True])
def test_a_round_of_random_selection_is_trained_as_in_a_run(
    distilled, small, teacher, quick, tmp_path, monkeypatch, calibrate
):
    import switches

    monkeypatch.setattr(switches, "ROUNDS", 2)
    config = replace(quick, calibrate=calibrate)
    how = {"rounds": 2, "query_size": 10, "seed": 4, "progress": False, "device": "cpu"}
    run = akd.run_active_learning(small, teacher, strategy="random", train=config, **how)
    for _ in range(2):  # trained, then read
        found = switches.after_random("small", "tiny-cnn", 4, config, True, str(tmp_path))
        last = run.records[-1]
        assert found == (last.accuracy_pct, last.calibration_error_pct)
    assert len(list(tmp_path.rglob("*.pt"))) == 1


def test_the_scripts_on_distillation_run(distilled, tmp_path, monkeypatch, capsys, quick):
    import ball_shrinkage
    import switches

    monkeypatch.setattr(akd, "TrainConfig", lambda **changes: replace(quick, **changes))
    words = f"x --datasets small --student tiny-cnn --seeds 0 1 --cache {tmp_path}".split()
    monkeypatch.setattr(sys, "argv", [*words, "--rounds", "0"])
    ball_shrinkage.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[2:4] for line in lines[2:]] == [
        [w, part] for w in ("0.25", "0.5", "0.75") for part in ("labelled", "unlabelled")
    ]
    some = ["default", "kd_weight = 0.25", "no teacher"]
    monkeypatch.setattr(sys, "argv", [*words, "--only", *some])
    switches.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == some
