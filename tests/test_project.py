"""The project as a whole: installation files, and where the embedded models come from."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent


def names(requirements):
    return {re.split(r"[<>=\[;]", r)[0].strip().lower().replace("_", "-") for r in requirements}


def test_pyproject_constraints_and_environment_hold_together():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = names([*project["dependencies"], *extras["notebooks"], *extras["test"]])
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert names(pinned) == wanted
    for requirement in (*project["dependencies"], *extras["notebooks"], *extras["test"]):
        name, least = requirement.split(">=")
        version = next(v for k, v in pinned.items() if names([k]) == names([name]))
        assert tuple(map(int, version.split(".")[:2])) >= tuple(
            map(int, (least + ".0").split(".")[:2])
        ), requirement
    environment = (ROOT / "environment.yml").read_text()
    assert "-c constraints.txt" in environment
    assert "-e .[notebooks,test]" in environment
    python = re.search(r"python=(3\.\d+)", environment).group(1)
    low, high = re.search(r">=(3\.\d+),<(3\.\d+)", project["requires-python"]).groups()
    assert int(low[2:]) <= int(python[2:]) < int(high[2:])


def test_make_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"\.PHONY: (.*)", makefile).group(1).split())
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert set(re.findall(r"^make (\w+)", shown, re.M)) == targets


def script(name):
    spec = importlib.util.spec_from_file_location(
        f"pretrain_{name}", ROOT / "data" / name / "pretrain.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["tiny-clip", "tiny-resnet"])
def test_pretraining_runs_and_never_touches_target_images_or_labels(name, tmp_path, monkeypatch):
    """Run a short pre-training with every access to the target data blocked."""
    import sklearn.datasets

    from activekd_lite.datasets import embedded as datasets
    from activekd_lite.datasets import shapes

    def touched(*args, **kwargs):
        pytest.fail("the pre-training reached for the target data")

    monkeypatch.setattr(sklearn.datasets, "load_digits", touched)
    monkeypatch.setattr(datasets, "load_digits", touched)
    monkeypatch.setattr(shapes, "make_shapes", touched)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    if name == "tiny-clip":
        monkeypatch.setattr(shapes, "TARGET", None)
    for out in ("a", "b"):
        monkeypatch.setattr(
            sys,
            "argv",
            ["pretrain.py", "--steps", "2", "--batch", "8", "--out", str(tmp_path / out)],
        )
        module = script(name)
        module.main()
    assert sys.modules["sklearn"] is None
    a, b = (load_file(tmp_path / out / "weights.safetensors") for out in ("a", "b"))
    assert all(torch.equal(a[k], b[k]) for k in a)  # seeded
    assert (tmp_path / "a" / "manifest.json").read_text() == (
        tmp_path / "b" / "manifest.json"
    ).read_text()
    shipped = load_file(ROOT / "data" / name / "weights.safetensors")
    assert {k: v.shape for k, v in shipped.items()} == {k: v.shape for k, v in a.items()}


def test_pretraining_labels_of_tiny_resnet_do_not_occur_in_shapes():
    from activekd_lite.datasets import shapes

    module = script("tiny-resnet")
    labels = {*module.LETTERS, *module.TEXTURES, *shapes.COLOURS}
    assert not labels & {word for name in shapes.CLASSNAMES for word in name.split()}


@pytest.mark.parametrize(("name", "most"), [("tiny-clip", 16e6), ("tiny-resnet", 2e6)])
def test_embedded_weights_are_small_and_have_a_card(name, most):
    folder = ROOT / "data" / name
    assert (folder / "weights.safetensors").stat().st_size <= most
    card = (folder / "README.md").read_text()
    for part in ("What it saw", "Figures", "Remake it"):
        assert part in card


def test_the_readme_tree_has_not_drifted():
    readme = (ROOT / "README.md").read_text()
    shown = set(re.findall(r"^    (\w+\.py) ", readme, re.M))
    assert shown == {p.name for p in (ROOT / "activekd_lite").glob("*.py")} - {"__init__.py"}


def test_the_readme_strategy_runs(small, teacher, quick):
    """The ten lines that show how to write one."""
    import activekd_lite as akd

    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
        if "def " in block
    )
    assert len(code.split("\n\n\n")[0].splitlines()) <= 10
    space = {"akd": akd, "data": small, "teacher": teacher}
    exec(code.split("\n\n\n")[0], space)
    result = akd.run_active_learning(
        small,
        teacher,
        strategy=space["disagreement"],
        rounds=1,
        query_size=4,
        train=quick,
        progress=False,
    )
    assert len(result.records[0].query_indices) == 4
