"""What `import activekd_lite` sets for OpenMP, and whether libgomp reads it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from activekd_lite.utils import openmp

READ = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
linux = pytest.mark.skipif(sys.platform != "linux", reason="libgomp is only set on Linux")


@linux
@pytest.mark.slow
def test_libgomp_reads_what_the_import_sets():
    """libgomp prints its settings when torch is imported."""
    environment = {k: v for k, v in os.environ.items() if k not in READ}
    environment["OMP_DISPLAY_ENV"] = "verbose"
    program = (
        "import activekd_lite, os, torch; print(os.environ['GOMP_SPINCOUNT'], "
        "'libgomp' in open('/proc/self/maps').read())"
    )
    command, options = [sys.executable, "-c", program], {"text": True, "capture_output": True}
    run = subprocess.run(command, check=True, env=environment, **options)
    spins, has_libgomp = run.stdout.split()
    assert spins == openmp.SPINS
    if has_libgomp == "False":
        pytest.skip("torch here has another OpenMP, as in conda's packages")
    assert set(re.findall(r"GOMP_SPINCOUNT = '(.*)'", run.stderr)) == {openmp.SPINS}


@linux
def test_settings_of_the_user_are_kept(monkeypatch):
    for name, value in (("GOMP_SPINCOUNT", "77"), ("OMP_WAIT_POLICY", "active")):
        for other in READ:
            monkeypatch.delenv(other, raising=False)
        monkeypatch.setenv(name, value)
        openmp.spin_briefly()
        assert {k: os.environ[k] for k in READ if k in os.environ} == {name: value}


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_left_alone(platform, monkeypatch):
    for name in READ:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    openmp.spin_briefly()
    assert not set(READ) & os.environ.keys()


def test_kernels_of_make_lab_get_the_same_setting():
    makefile = (Path(__file__).resolve().parent.parent / "Makefile").read_text()
    assert f"export GOMP_SPINCOUNT ?= {openmp.SPINS}\n" in makefile
