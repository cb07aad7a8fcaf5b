import base64
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import activekd_lite as akd
from activekd_lite import cli, doctor, plots
from activekd_lite.analysis import statistics
from activekd_lite.experiments import config as protocol
from activekd_lite.experiments import sweep

SHORT = [
    "--rounds",
    "1",
    "--query-size",
    "3",
    "--steps",
    "4",
    "--batch-size",
    "8",
    "--views",
    "2",
    "--device",
    "cpu",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, shared_cache):
    """A finished sweep: random and pcoreset, with and without the teacher, two seeds."""
    root = tmp_path_factory.mktemp("sweep")
    grid = sweep.Grid(
        strategies=("random", "pcoreset"),
        seeds=(0, 1),
        rounds=1,
        query_size=3,
        views=2,
        train={"steps": 4, "batch_size": 8},
    )
    options = {"cache_root": shared_cache, "device": "cpu", "workers": 0, "progress": False}
    sweep.run(grid, root / "runs", **options)
    return root / "runs"


@pytest.fixture(scope="module")
def grid_runs(folder):
    return [akd.load_run(path.parent, "cpu") for path in folder.rglob("rounds.jsonl")]


def test_the_summary_is_means_and_paired_intervals(grid_runs):
    frame, table = statistics.aulc(grid_runs), statistics.summary(grid_runs)
    assert table["strategy"].tolist() == ["random", "pcoreset"]
    of = frame[frame["strategy"] == "random"].pivot(
        index="seed", columns="distill", values="aulc_pct"
    )
    mean, half = akd.metrics.mean_interval(of[True] - of[False])
    assert table["gain"][0] == f"{mean:+.1f} ± {half:.1f}"
    assert table["with"][0].startswith(f"{of[True].mean():.1f} ± ")
    single = statistics.summary([r for r in grid_runs if r.config["seed"] == 0])
    assert single["gain"][0] == f"{of[True][0] - of[False][0]:+.1f}"


def test_learning_curves_show_what_was_recorded(grid_runs):
    results = grid_runs
    figure = plots.learning_curves(results, teacher_accuracy_pct=80.0)
    assert [t.name for t in figure.data] == [
        "random", "random, no distillation", "pcoreset", "pcoreset, no distillation",
    ]  # fmt: skip
    shown = [r.records for r in results if r.config["strategy"] == "random" and r.config["teacher"]]
    expected = np.mean([[record.accuracy_pct for record in records] for records in shown], axis=0)
    np.testing.assert_allclose(figure.data[0].y, expected)
    assert list(figure.data[0].x) == [10, 13]
    assert (figure.data[0].line.dash, figure.data[1].line.dash) == ("solid", "dash")
    assert figure.data[0].marker.symbol != figure.data[2].marker.symbol


def test_a_folder_of_runs_becomes_one_page(folder, grid_runs, tmp_path, capsys):
    assert cli.main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    printed, page = capsys.readouterr().out, (tmp_path / "page.html").read_text()
    gain = statistics.summary(grid_runs)["gain"][0]
    assert gain in printed
    assert str(tmp_path / "page.html") in printed
    assert f"<td>{gain}</td>" in page
    assert "8 runs, 16 trainings." in page
    assert "2 paired runs are too few" in page
    assert cli.main(["report", str(tmp_path / "nothing")]) == 2
    assert "no runs under" in capsys.readouterr().err


def test_curves_of_two_data_sets_are_rejected(grid_runs):
    a = grid_runs[0]
    b = akd.RunResult(a.config | {"dataset": "other"}, a.records, a.state, a.student)
    with pytest.raises(ValueError, match="2 settings .digits; other. cannot be combined"):
        plots.learning_curves([a, b])


def test_the_montage_shows_each_query_with_its_label(grid_runs, digits):
    result = grid_runs[0]
    figure = plots.query_montage(result, digits.pool.images, tile=20)
    index = result.records[0].query_indices[1]
    place = list(figure.data[1].text).index(
        f"image {index}: {digits.oracle.label(torch.tensor(index))}"
    )
    assert (figure.data[1].x[place], figure.data[1].y[place]) == (
        30,
        30,
    )  # second image of the second row
    png = base64.b64decode(figure.data[0].source.removeprefix("data:image/png;base64,"))
    canvas = np.array(Image.open(io.BytesIO(png)))
    picture = torch.nn.functional.interpolate(digits.pool.images[index][None].float(), 16)[
        0
    ].permute(1, 2, 0)
    np.testing.assert_array_equal(canvas[22:38, 22:38], picture.numpy())
    assert len(figure.to_json()) < 100_000


def test_the_loop_picture_shows_what_the_run_did(grid_runs, digits):
    with_teacher, plain = (
        next(
            r
            for r in grid_runs
            if r.config["strategy"] == "pcoreset" and bool(r.config["teacher"]) == distill
        )
        for distill in (True, False)
    )
    figure = plots.loop_picture(
        with_teacher, digits.pool.images, teacher="tiny-clip", teacher_accuracy_pct=81.5
    )
    boxes = dict(figure.table.to_numpy())
    asked = torch.tensor(with_teacher.records[0].query_indices)
    assert boxes["Oracle"] == ", ".join(map(str, digits.oracle.label(asked).tolist()))
    assert boxes["Labels"] == "10 + 3 new"
    assert f"{with_teacher.records[0].accuracy_pct:.1f} %" in boxes["Student"]
    assert boxes["Teacher"] == "tiny-clip prompted with class names test accuracy 81.5 %"
    assert all(part in figure.alt for part in boxes.values())
    assert len(figure.layout.images) == 4  # pool, strategy, oracle, labels
    assert "Teacher" not in set(plots.loop_picture(plain, digits.pool.images).table["part"])
    with pytest.raises(ValueError, match="round 1 has no query; rounds 0 to 0 have one"):
        plots.loop_picture(with_teacher, digits.pool.images, round=1)


def test_the_reliability_diagram_by_hand():
    probs, labels = (
        torch.tensor([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35]]),
        torch.tensor([0, 1, 0]),
    )
    line = plots.reliability_diagram({"model": probs}, labels).data[1]
    assert line.name == "model (ECE 41.7 %)"  # (2 x |0.5 - 0.95| + |1 - 0.65|) / 3
    np.testing.assert_allclose(line.x, [0.65, 0.95], atol=1e-6)
    np.testing.assert_allclose(line.y, [1.0, 0.5])


def test_run_and_its_refusals_on_the_command_line(workplace, capsys):
    assert cli.main(["run", *SHORT, "--out", "runs/first"]) == 0
    assert "mean accuracy over the rounds" in capsys.readouterr().out
    assert cli.main(["run", *SHORT, "--out", "runs/first"]) == 0
    assert cli.main(["run", *SHORT, "--out", "runs/first", "--seed", "1"]) == 2
    assert "seed: 0 stored, 1 requested" in capsys.readouterr().err
    assert cli.main(["run", *SHORT, "--no-distill", "--out", "runs/plain"]) == 0
    assert json.loads((workplace / "runs/plain/config.json").read_text())["teacher"] is None
    for words, complaint in (
        (["--strategy", "best"], "unknown strategy 'best'; known are random"),
        (["--dataset", "mnist"], "unknown data set 'mnist'; choose digits, shapes"),
        (["--student", "big"], "unknown student 'big'"),
        (["--vlm", "RN5"], "unknown model 'RN5'"),
        (["--student-weights", "nowhere.pt"], "no weights file nowhere.pt for the student"),
        (["--templates", "a digit"], "templates ['a digit'] do not hold {} once"),
        (["--precision", "int8"], "precision = 'int8'"),
        (["--rounds", "5000"], "5000 rounds of 3 make 15010 labels, but the pool has 1100"),
    ):
        assert cli.main(["run", *SHORT, "--out", "runs/other", *words]) == 2
        assert complaint in capsys.readouterr().err


def test_cache_and_doctor_on_the_command_line(workplace, capsys):
    assert cli.main(["cache", "--views", "2", "--device", "cpu"]) == 0
    assert "2 views x 1100 images x 128 numbers" in capsys.readouterr().out
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "everything needed is installed" in out
    assert "handwritten digits that it has not seen" in out


def test_doctor_says_what_is_missing_and_what_is_optional(monkeypatch, capsys):
    found = doctor._version
    monkeypatch.setattr(
        doctor, "_version", lambda name: None if name in ("timm", "nbval") else found(name)
    )
    facts = doctor.environment()
    assert facts.index[~facts["ok"]].tolist() == ["timm"]
    assert facts.loc["torch", "found"] == found("torch")
    assert set(facts["kind"]) == {"machine", "needed", "optional"}
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "timm            MISSING: run make install" in out
    assert "nbval           not installed (optional)" in out
    assert "missing: timm" in out


def test_caches_are_listed_checked_and_deleted_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["cache", "info"]) == 2
    assert "no folder .cache with teacher caches" in capsys.readouterr().err
    assert cli.main(["cache", "--pool-size", "50", "--device", "cpu"]) == 0
    assert cli.main(["cache", "info"]) == 0
    assert "tiny-clip" in capsys.readouterr().out
    assert cli.main(["cache", "verify"]) == 0
    assert cli.main(["cache", "prune", "--yes"]) == 0
    assert "0 caches deleted" in capsys.readouterr().out
    features = next(tmp_path.glob(".cache/*/features.f16"))
    features.write_bytes(features.read_bytes()[:-1] + b"!")
    assert cli.main(["cache", "verify"]) == 1
    assert "damaged in 1 shards" in capsys.readouterr().out
    assert cli.main(["cache", "prune"]) == 0
    assert "1 caches can be deleted: add --yes" in capsys.readouterr().out
    assert features.is_file()
    assert cli.main(["cache", "prune", "--yes"]) == 0
    assert not features.exists()


def test_help_and_a_misspelt_command_import_nothing_slow():
    code = (
        "import sys; from activekd_lite import cli; cli.main(['--help']); cli.main(['rnu'])\n"
        "sys.exit(' '.join({'torch', 'numpy', 'pandas', 'timm', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Run active learning once." in done.stdout
    assert done.stderr.startswith('activekd-lite: Unknown command "rnu". Did you mean "run"?')
    assert done.stderr.count("\n") == 2, done.stderr


def test_every_command_has_help(capsys):
    for name, purpose in cli.COMMANDS.items():
        assert cli.main([name, "--help"]) == 0
        assert purpose in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["run", "--shot", "1"], "Unknown option: --shot. Did you mean --shots?"),
        (
            ["run", "--rounds", "1.5"],
            'Invalid value for --rounds: unable to convert "1.5" into int.',
        ),
        (
            ["run", "--teacher", "gpt"],
            "Invalid value \"gpt\" for --teacher. teacher = 'gpt'; choose one of zero-shot, clap",
        ),
        (["run", "--no-paper"], "Unknown option: --no-paper."),
        (["sweep", "--seeds"], '"sweep" parameter --seeds requires at least 1 element.'),
        (["sweep", "--steps", "1", "--passes", "2"], "exclusive arguments: {--steps, --passes}"),
        (["notebooks", "-p", "seed"], "-p requires 2 positional arguments. Only got 1."),
        (["report"], "parameter RUNS requires an argument."),
        (["data", "check", "dtd", "eurosat"], "Unused Tokens: ['eurosat']."),
    ],
)
def test_invalid_arguments_exit_with_2_and_one_line(words, complaint, capsys):
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("activekd-lite: ")
    assert complaint in error
    assert error.count("\n") == 1


def test_the_last_of_a_repeated_option_counts():
    words = ["sweep", "--seeds", "0", "1", "--lr", "1", "--seeds", "2", "--lr", "-1e-3", "g.yaml"]
    _, bound, _ = cli.app.parse_args(words)
    settings, train = bound.arguments["settings"], bound.arguments["train"]
    assert bound.arguments["grid"] == "g.yaml"
    assert {k: v for k, v in vars(settings).items() if v is not None} == {"seeds": [2]}
    assert {k: v for k, v in vars(train).items() if v is not None} == {"lr": -1e-3}


def test_ctrl_c_says_how_to_resume(monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(protocol, "load_vlm", interrupted)
    assert cli.main(["run"]) == 130
    assert "run the same command again to resume" in capsys.readouterr().err
