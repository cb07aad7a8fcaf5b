"""The benchmarks run, and the alternatives that they compare compute the same thing."""

import sys
from pathlib import Path

import pytest
import torch

import activekd_lite as akd

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("online", "views", "cache", "selection", "busy", "few_shot"):
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
    monkeypatch.setattr(sys, "argv", argv)
    started, popen = [], busy.subprocess.Popen

    class Remembered(popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(busy.subprocess, "Popen", Remembered)
    busy.main()
    rows = rows_of(capsys.readouterr().out, "| digits")
    assert [row[1] for row in rows] == ["one thread"]
    assert all(float(seconds) > 0 for row in rows for seconds in (row[2], row[4]))
    assert len(started) == 1 + 2  # one busy process, two trainings
    assert all(process.poll() is not None for process in started)


def quick_run(original):
    quick = {"rounds": 1, "query_size": 3, "train": akd.TrainConfig(steps=2, batch_size=4)}
    return lambda data, teacher, **options: original(data, teacher, **options | quick)
