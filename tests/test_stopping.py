"""Stopping real commands: one line, the right exit code, no process left, and they can go on."""

import ast
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import psutil
import pytest
from PIL import Image

import activekd_lite as akd
from activekd_lite import cli

ROOT = Path(__file__).parents[1]
MODULE = [sys.executable, "-m", "activekd_lite"]
LONG = [
    "--rounds",
    "200",
    "--query-size",
    "3",
    "--steps",
    "5",
    "--device",
    "cpu",
    "--cache",
    "cache",
]
COMMANDS = {  # commands to stop in the middle: arguments, and a file that exists by then
    "run": (["run", *LONG, "--out", "out"], "out/rounds.jsonl"),
    "sweep": (
        ["sweep", *LONG, "--strategy", "random", "--workers", "1", "--out", "out"],
        "out/digits/*/seed0/rounds.jsonl",
    ),
    "notebooks": (["notebooks", "long", "--from", ".", "--out", "out"], "begun"),
}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc, as on Linux")


def script() -> list[str]:
    """What pip writes for the entry point."""
    module, name = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"][
        "activekd-lite"
    ].split(":")
    return [sys.executable, "-c", f"import sys; from {module} import {name}; sys.exit({name}())"]


def begin(words, folder, program=MODULE, ignored=()):
    """Start the command in a session and with signals of its own, as a terminal does."""

    def as_in_a_terminal():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    paths = {"PYTHONPATH": str(ROOT), "JUPYTER_RUNTIME_DIR": str(folder / "runtime")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [*program, *words],
        cwd=folder,
        env=os.environ | paths,
        start_new_session=True,
        preexec_fn=as_in_a_terminal,
        **pipes,
    )


def wait(true, process):
    end = time.monotonic() + 120
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def catches_signals(process):
    """Return whether the process handles SIGTERM itself."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())[1]
    return int(caught, 16) >> (signal.SIGTERM - 1) & 1


def check_stopped(process, number):
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    lines = re.split(r"[\r\n]+", err.replace("\x1b[A", ""))
    lines = [
        line for line in lines if line.strip() and not re.search(r"%\|.*\|", line)
    ]  # progress bars
    assert len(lines) == 1, err
    assert f"stopped by {number.name}; run the same command again" in lines[0]
    for word in ("Traceback", "leaked"):
        assert word not in out + err


@pytest.mark.parametrize(
    ("words", "seconds", "number", "program"),
    [
        (["run", *LONG], 0, signal.SIGTERM, script()),
        (["sweep", *LONG], 0.3, signal.SIGINT, script()),
        (["notebooks"], 0.3, signal.SIGHUP, MODULE),
        (["cache", "--views", "999", "--device", "cpu"], 2, signal.SIGINT, MODULE),
    ],
    ids=["run", "sweep", "notebooks", "cache"],
)
def test_stopping_in_the_first_seconds(words, seconds, number, program, tmp_path):
    process = begin(words, tmp_path, program)
    wait(lambda: catches_signals(process), process)
    time.sleep(seconds)
    process.send_signal(number)
    check_stopped(process, number)


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(tmp_path):
    process = begin(["run", *LONG, "--out", "out"], tmp_path, ignored=[signal.SIGHUP])  # nohup
    wait(lambda: catches_signals(process), process)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    check_stopped(process, signal.SIGTERM)


@pytest.fixture(scope="module")
def at_work(tmp_path_factory, shared_cache):
    """All COMMANDS, begun at the same time, each in a folder of its own."""
    processes = {}
    for name, (words, _) in COMMANDS.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / "cache").symlink_to(shared_cache)
        if name == "notebooks":
            nbformat = pytest.importorskip("nbformat")
            cell = nbformat.v4.new_code_cell(
                "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(600)"
            )
            spoken = {
                "kernelspec": {"name": "python3", "display_name": "Python 3"},
                "language_info": {"name": "python"},
            }
            nbformat.write(
                nbformat.v4.new_notebook(cells=[cell], metadata=spoken), folder / "long.ipynb"
            )
        processes[name] = (begin(words, folder), folder)
    yield processes
    for process, _ in processes.values():
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("name", "number"),
    [("notebooks", signal.SIGHUP), ("run", signal.SIGTERM), ("sweep", signal.SIGINT)],
)
def test_stopping_in_the_middle(at_work, name, number):
    process, folder = at_work[name]
    wait(lambda: list(folder.glob(COMMANDS[name][1])), process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == {"sweep": 2, "notebooks": 1}.get(
        name, 0
    )  # a worker and a tracker; a kernel
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    check_stopped(process, number)
    _, left = psutil.wait_procs(children, timeout=5)
    assert not left


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """300 names of one picture that takes a while to decode, so that worker processes do it."""
    folder = tmp_path_factory.mktemp("photographs")
    Image.effect_noise((1200, 1200), 90).save(folder / "one.png")
    for name in ("cat", "dog"):
        (folder / "all" / name).mkdir(parents=True)
        for i in range(150):
            (folder / "all" / name / f"{i}.png").symlink_to(folder / "one.png")
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_while_worker_processes_decode_files(photographs, number):
    process = begin(["doctor", "--data", "folder:all"], photographs)
    parent = psutil.Process(process.pid)
    wait(lambda: len(parent.children()) >= min(2, os.cpu_count()), process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    check_stopped(process, number)


def test_the_module_is_the_command(tmp_path):
    process = begin(["run", "--shots"], tmp_path)
    with contextlib.redirect_stderr(io.StringIO()) as error:
        code = cli.main(["run", "--shots"])
    assert process.communicate()[1] == error.getvalue()
    assert re.fullmatch('activekd-lite: .*"run" parameter --shots requires .*\n', error.getvalue())
    assert process.returncode == code == 2


def test_parts_of_the_package_are_imported_on_use():
    loaded = "print('torch' in sys.modules)"
    code = f"import activekd_lite, sys; {loaded}; activekd_lite.Pool; {loaded}"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split() == [
        "False",
        "True",
    ]
    stub = ast.parse((ROOT / "activekd_lite/__init__.pyi").read_text()).body
    assert sorted(alias.name for node in stub for alias in node.names) == sorted(akd.__all__)
    for node in stub:
        home = "activekd_lite" + (f".{node.module}" if node.module else "")
        for alias in node.names:
            found, module = getattr(akd, alias.name), sys.modules.get(f"{home}.{alias.name}")
            assert found is (module or vars(sys.modules[home])[alias.name])
    with pytest.raises(AttributeError, match="attribute nothing"):
        akd.nothing  # noqa: B018
