"""The project as a whole: installation files, texts, what is built, where the models come from."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent


def names(requirements):
    return {re.split(r"[<>=\[;]", r)[0].strip().lower().replace("_", "-") for r in requirements}


def test_pyproject_constraints_and_environment_agree():
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
    folder = "tiny-clip" if name.startswith("tiny-clip") else name
    spec = importlib.util.spec_from_file_location(
        f"pretrain_{name}", ROOT / "data" / folder / "pretrain.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["tiny-clip", "tiny-resnet"])
@pytest.mark.slow
def test_pretraining_runs_and_never_touches_target_images_or_labels(name, tmp_path, monkeypatch):
    """Run a short pre-training with every access to the target data blocked."""
    import sklearn.datasets

    from activekd_lite.datasets import shapes

    def touched(*args, **kwargs):
        pytest.fail("the pre-training reached for the target data")

    monkeypatch.setattr(sklearn.datasets, "load_digits", touched)
    monkeypatch.setattr(shapes, "make_shapes", touched)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    model = [] if name == "tiny-resnet" else ["--model", name]
    if model:
        monkeypatch.setattr(shapes, "TARGET", None)
    for out in ("a", "b"):
        monkeypatch.setattr(
            sys,
            "argv",
            ["pretrain.py", *model, "--steps", "2", "--batch", "8", "--out", str(tmp_path / out)],
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
    for part in ("Training data", "Accuracy", "Reproduce it"):
        assert part in card


def test_the_readme_tree_is_up_to_date():
    """Its folders and the files of the method are those of the package, and of the repository."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.split("## What is where\n")[1].split("\n## ")[0]
    package = [path for path in (ROOT / "activekd_lite").iterdir() if path.name != "__pycache__"]
    files = {path.name for path in package if path.suffix == ".py"} - {"__init__.py"}
    folders = {f"{path.name}/" for path in package if path.is_dir()}
    assert set(re.findall(r"^      (\w+\.py|\w+/) ", tree, re.M)) == files | folders
    top = re.findall(r"^    (\w+/) ", tree, re.M)
    assert "activekd_lite/" in top
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    inside = {path.split("/")[0] + "/" for path in tracked if "/" in path and path[0] != "."}
    assert set(top) == inside


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 220
    assert max(map(len, lines)) <= 150


TEXTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")])


def anchors(text):
    """The anchors that GitHub makes of headings, and those that are set."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([\w-]+)">', text))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.S)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_version_is_stated_once():
    import activekd_lite

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[(.+?)\] - \d{4}-\d\d-\d\d$", changes, re.M)[1] == (
        activekd_lite.__version__
    )
    assert "\nversion:" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_citation_hooks_and_workflow_can_be_read():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["references"][0]["year"] == 2025
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    pinned = (ROOT / "constraints.txt").read_text()
    for repository in hooks["repos"]:
        if "ruff" in repository["repo"] or "codespell" in repository["repo"]:
            name = "ruff" if "ruff" in repository["repo"] else "codespell"
            assert f"{name}=={repository['rev'].removeprefix('v')}\n" in pinned
    matrix = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    matrix = matrix["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_widget_state_in_a_notebook_is_refused():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hook = next(h for r in hooks["repos"] for h in r["hooks"] if h["id"] == "no-widget-state")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(hook["entry"], text), path
        notebook = json.loads(text)
        state = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
        notebook["metadata"]["widgets"] = state
        assert re.search(hook["entry"], json.dumps(notebook))


def test_spelling():
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib", "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_wheel_and_sdist_are_complete(tmp_path):
    """Built, checked as PyPI does, and imported from an empty folder outside the repository."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    build = [sys.executable, "-m", "build", "--sdist", "--outdir", str(tmp_path), str(ROOT)]
    if isolated := not importlib.util.find_spec("hatchling"):
        print("the build needs a network: hatchling is not installed")
    subprocess.run(build + ["--no-isolation"] * (not isolated), check=True, capture_output=True)
    options = "--no-deps" + " --no-build-isolation" * (not isolated)
    make = ["make", "offline", f"PIP_ARGS={options}", f"OFFLINE={tmp_path / 'offline'}"]
    make += [f"BIN={Path(sys.executable).parent}", "INSTALLED=here", "--old-file=here"]
    subprocess.run(make, cwd=ROOT, check=True, capture_output=True)
    notebooks = (path for path in tracked if re.fullmatch(r"notebooks/\w+\.ipynb", path))
    course = {path.name for path in (tmp_path / "offline/course").glob("*.ipynb")}
    assert course == {Path(path).name for path in notebooks}
    (sdist,), (wheel,) = tmp_path.glob("*.tar.gz"), (tmp_path / "offline/wheels").iterdir()
    twine = [sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)]
    subprocess.run(twine, check=True, capture_output=True)

    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {path for path in tracked if path and path[0] != "."} <= held
    target = tmp_path / "target"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--find-links",
        str(wheel.parent),
    ]
    subprocess.run([*pip, "--target", str(target), "activekd-lite"], check=True)
    held = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    package = {path for path in tracked if path.startswith("activekd_lite/")}
    assert {Path(path).suffix for path in package} >= {".py", ".pyi", ".js", ".css", ".typed"}
    models = {
        f"activekd_lite/{path}"
        for path in tracked
        if path.startswith(("data/study/", "data/tiny-"))
    }
    assert package | models <= held
    subprocess.run(
        [sys.executable, "-c", FROM_THE_WHEEL],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        check=True,
    )


FROM_THE_WHEEL = """
from pathlib import Path
import activekd_lite as akd
here = Path.cwd() / "target" / "activekd_lite"
assert Path(akd.__file__).parent == here, akd.__file__
assert akd.sweep.STUDY == here / "data" / "study", akd.sweep.STUDY
assert len(akd.sweep.load(akd.sweep.STUDY)) == 2862
assert akd.load_vlm(device="cpu").name == "tiny-clip"
akd.build_student("tiny-resnet", 3, device="cpu")
assert akd.widgets.SimplexExplorer and akd.plots.report
"""


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
