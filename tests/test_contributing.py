"""The walk-throughs of CONTRIBUTING.md, carried out in a copy of the package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
FILE = re.compile(r"(?:#|//) file: (\S+)\n")
BLOCK = re.compile(r"^```(python|js|diff)\n(.*?)^```$", re.M | re.S)


def walk_throughs() -> dict[str, list[tuple[str, str]]]:
    """The code blocks (language, text) of each section that has any."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    titles, parts = re.findall(r"^### (.+)$", text, re.M), re.split(r"^### .+$", text, flags=re.M)
    found = zip(titles, map(BLOCK.findall, parts[1:]), strict=True)
    return {title: blocks for title, blocks in found if blocks}


def apply_diff(root: Path, diff: str) -> None:
    """Insert the + lines behind the context line before them; a - line is replaced."""
    header, *lines = diff.splitlines()
    path = root / header.removeprefix("--- ")
    code, place = path.read_text(encoding="utf-8").splitlines(), None
    for line in lines:
        kind, rest = line[0], line[1:]
        if kind == "+":
            place += 1
            code.insert(place, rest)
        else:
            assert code.count(rest) == 1, f"{path.name} has no single line {rest!r}"
            place = code.index(rest)
            if kind == "-":
                del code[place]
                place -= 1
    path.write_text("\n".join(code) + "\n", encoding="utf-8")


def blocks() -> list[tuple[str, str]]:
    return [block for section in walk_throughs().values() for block in section]


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The package with every walk-through's file and entry, all at once."""
    root = tmp_path_factory.mktemp("clone")
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "activekd_lite", root / "activekd_lite", ignore=skip)
    for model in ("tiny-clip", "tiny-resnet"):
        shutil.copytree(ROOT / "data" / model, root / "data" / model, ignore=skip)
    for language, text in blocks():
        if language == "diff":
            apply_diff(root, text)
        elif named := FILE.match(text):
            path = root / named[1]
            assert not path.exists(), f"{path.name} is part of the package: choose another example"
            path.write_text(text[named.end() :], encoding="utf-8")
    return root


RUNNER = """
import json, sys, traceback
sys.path.insert(0, sys.argv[1])
failures = {}
for title, code in json.load(sys.stdin).items():
    try:
        exec(code, {})
    except Exception:
        failures[title] = traceback.format_exc()
with open("failures.json", "w", encoding="utf-8") as file:
    json.dump(failures, file)
"""


@pytest.fixture(scope="module")
def failures(copy) -> dict[str, str]:
    """The sections whose checks fail in the copy, with their tracebacks."""
    checks = {
        title: "\n".join(
            text for language, text in section if language == "python" and not FILE.match(text)
        )
        for title, section in walk_throughs().items()
    }
    assert all(checks.values())
    subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER, str(copy)],
        cwd=copy,
        input=json.dumps(checks),
        text=True,
        check=True,
    )
    return json.loads((copy / "failures.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("title", walk_throughs())
def test_a_walk_through_works_as_it_stands(title, failures):
    assert title not in failures, failures[title]


def test_the_code_of_the_walk_throughs_keeps_the_rules_of_the_project(copy):
    """ruff, with the project's settings, on every file that a walk-through makes."""
    named = [FILE.match(text) for language, text in blocks() if language == "python"]
    files = [copy / match[1] for match in named if match]
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *config, *files],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def test_the_contract_of_strategies_holds_for_the_new_one(copy):
    """`pytest tests/test_strategies.py -k disagreement`, as the walk-through says."""
    shutil.copytree(ROOT / "tests", copy / "tests", ignore=shutil.ignore_patterns("fixtures"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    command = ["pytest", "tests/test_strategies.py", "-q", "-k", "disagreement"]
    done = subprocess.run(
        [sys.executable, "-m", *command, "-p", "no:cacheprovider"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20
