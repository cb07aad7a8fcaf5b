"""One notebook for all runs of a grid: its parameters, results of a failed run, the index."""

import re

import nbformat
import pytest

from activekd_lite import cli
from activekd_lite.course import batches, notebooks
from activekd_lite.experiments.grid import Grid

KNOWN = ["dataset", "vlm", "pretrained", "student", "strategy", "rounds", "seed", "out", "cache"]
KNOWN += ["data_root", "device"]


def test_a_notebook_gets_its_parameters_from_each_run():
    model = {"vlm": "RN50", "pretrained": "openai", "rounds": 2}
    grid = Grid(strategies=("random", "badge"), seeds=(3,), **model)
    assert batches.parameters(grid, KNOWN) == {
        f"digits-{strategy}-seed3": {"dataset": "digits", "strategy": strategy, "seed": 3} | model
        for strategy in ("random", "badge")
    }
    plural = batches.parameters(grid, ["dataset", "strategies", "seeds", "distill", *model])
    names = ["random-seed3", "badge-seed3", "random-plain-seed3", "badge-plain-seed3"]
    assert list(plural) == [f"digits-{name}" for name in names]
    assert plural["digits-badge-seed3"]["strategies"] == ["badge"]
    assert plural["digits-badge-seed3"]["seeds"] == [3]
    assert plural["digits-badge-plain-seed3"]["distill"] is False


def test_a_setting_that_is_no_parameter_of_the_notebook_is_refused():
    one = {"strategies": ("pcoreset",), "seeds": (0,)}
    assert batches.parameters(Grid(**one), ["dataset"]) == {
        "digits-pcoreset-seed0": {"dataset": "digits"}
    }
    unknown = "strategy = 'random', 'badge', which is not a parameter of this notebook"
    for grid, message in (
        (Grid(strategies=("random", "badge")), unknown),
        (Grid(**one, rounds=3), "rounds = 3"),
        (Grid(**one, train={"steps": 5}), "steps = 5"),
        (Grid(**one, teachers=("clap",)), "teacher = 'clap'"),
        (Grid(**one, students=("linear",)), "student = 'linear'"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            batches.parameters(grid, ["dataset"])
    with pytest.raises(FileNotFoundError, match="no notebook nowhere.ipynb"):
        batches.run(Grid(**one), "nowhere.ipynb")


@pytest.fixture
def notebook(tmp_path):
    """Return a notebook that fails for badge, after printing something."""
    cells = [
        nbformat.v4.new_markdown_cell("# 04 · What does this run do?"),
        nbformat.v4.new_code_cell(
            'dataset = "shapes"\nstrategy = "random"\nseed = 9\nout = "../runs/x"'
        ),
        nbformat.v4.new_code_cell("print(dataset, strategy, seed, out)"),
        nbformat.v4.new_markdown_cell("## The part that fails"),
        nbformat.v4.new_code_cell('assert strategy != "badge", "not that one"'),
    ]
    cells[1].metadata["tags"] = ["parameters"]
    path = tmp_path / "04_small.ipynb"
    kernel = {"name": "python3", "display_name": "Python 3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


def test_each_run_has_a_notebook_and_a_page_and_failures_are_named(notebook, tmp_path, capsys):
    out = tmp_path / "batch"
    words = ["--strategy", "random", "badge", "--seeds", "1"]
    words += ["--out", str(out), "--notebook", str(notebook)]
    assert cli.main(["sweep", *words, "--workers", "2"]) == 1
    printed = capsys.readouterr().out
    where = "digits-badge-seed1: cell [4] under “The part that fails”"
    assert f"FAILED {where}: AssertionError: not that one" in printed
    assert f"1 of 2 notebooks ran without an error; open {out / 'index.html'}" in printed
    texts = {}
    for name in ("digits-random-seed1", "digits-badge-seed1"):
        executed = nbformat.read(out / f"{name}.ipynb", 4)
        texts[name] = "".join(
            o.get("text", "") for cell in executed.cells for o in cell.get("outputs", [])
        )
        assert (out / f"{name}.html").is_file()
    assert texts["digits-random-seed1"] == f"digits random 1 {out}/runs/digits-random-seed1\n"
    assert texts["digits-badge-seed1"].startswith(
        "digits badge 1 "
    )  # what it did before it failed is kept
    index = (out / "index.html").read_text()
    assert "dataset digits, seed 1, strategy badge" in index
    assert 'href="digits-random-seed1.html"' in index
    assert index.count("failed</b> in cell [4] under “The part that fails”") == 1
    assert index.count(">finished<") == 1


def test_a_finished_notebook_is_not_run_again(notebook, tmp_path, monkeypatch):
    grid, out = Grid(strategies=("random", "badge"), seeds=(1,)), tmp_path / "batch"
    done = batches.run(grid, notebook, out, workers=0, progress=False)
    assert [name for name, why in done.items() if why] == ["digits-badge-seed1"]
    ran, real = [], notebooks._execute
    monkeypatch.setattr(
        notebooks,
        "_execute",
        lambda path, target, *rest: ran.append(target.stem) or real(path, target, *rest),
    )
    batches.run(grid, notebook, out, workers=0, progress=False)
    assert ran == ["digits-badge-seed1"]
