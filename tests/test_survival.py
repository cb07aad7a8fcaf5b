"""Killed, damaged or concurrent runs and full disks: nothing is lost, repeated or changed."""

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import activekd_lite as akd
from activekd_lite.datasets import embedded as datasets
from activekd_lite.runs import folder as runs
from activekd_lite.utils import files
from activekd_lite.widgets.journal import Journal

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks, SIGKILL and tmpfs, as on Linux")
SETTINGS = "run --dataset digits --pool-size 150 --rounds 2 --query-size 5 --steps 6".split()
KILLS = 40


@pytest.fixture(scope="module")
def zygote():
    """zygote(job, ...) runs the jobs at the same time, each in its own process; see `zygote.py`."""
    command = [sys.executable, Path(__file__).with_name("zygote.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "ready\n"

        def ask(*jobs):
            process.stdin.write(json.dumps(jobs) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


def job(folder: Path, log: str = "log", **when) -> dict:
    argv = [
        *SETTINGS,
        "--device",
        "cpu",
        "--cache",
        str(folder / "cache"),
        "--out",
        str(folder / "run"),
    ]
    folder.mkdir(exist_ok=True)
    return {"argv": argv, "log": str(folder.parent / f"{folder.name}-{log}"), **when}


def log_text(folder: Path, log: str = "log") -> str:
    return (folder.parent / f"{folder.name}-{log}").read_text()


def left(folder: Path) -> dict:
    """All that a run and its cache leave on disk; it must not depend on interruptions."""
    run = akd.load_run(folder / "run", "cpu")
    # stays if the run was killed as the last thing was about to be removed
    (folder / "run" / "student-01.safetensors").unlink(missing_ok=True)
    caches = sorted((folder / "cache").glob("*/features.f16"))  # of the pool and of the test images
    return {
        "config": run.config,
        "records": [r.outcome() for r in run.records],
        "labels.csv": (folder / "run" / "labels.csv").read_bytes(),
        "student": (folder / "run" / "student-02.safetensors").read_bytes(),
        "features": b"".join(path.read_bytes() for path in caches),
        "manifest": b"".join((path.parent / "manifest.json").read_bytes() for path in caches),
        "files": {str(p.relative_to(folder)) for p in folder.rglob("*")},
    }


@pytest.fixture(scope="module")
def undisturbed(zygote, tmp_path_factory):
    """Folder and outcome of an undisturbed run: the second of two, as the first one is slow."""
    root = tmp_path_factory.mktemp("undisturbed")
    for folder in (root / "first", root / "second"):
        (went,) = zygote(job(folder))
        assert went["code"] == 0, log_text(folder)
    assert left(root / "first") == left(root / "second")
    return root / "second", went


@linux
def test_a_run_killed_at_any_of_40_moments_and_repeated_is_the_same(zygote, undisturbed, tmp_path):
    """Half of the moments are spread over the time of a run; half are just before or after an
    fsync, a rename, a deletion or a training step. A file being written loses its second half."""
    folder, whole = undisturbed
    expected, draw, stages = left(folder), random.Random(0), Counter()
    half = KILLS // 2
    moments = [{"at_second": whole["seconds"] * (n + draw.random()) / half} for n in range(half)]
    moments += [{"at_moment": n} for n in sorted(draw.sample(range(1, whole["moments"] + 1), half))]
    for number, moment in enumerate(moments):
        trial = tmp_path / f"{number}"
        (killed,) = zygote(job(trial, **moment))
        assert killed["code"] == -9 or "at_second" in moment, moment
        stages[killed["stage"] if killed["code"] else "after its end"] += 1
        (again,) = zygote(job(trial))
        assert again["code"] == 0, log_text(trial)
        found = left(trial)
        for what, value in expected.items():
            assert found[what] == value, f"{what}, killed at {moment}, {killed}"
    print(f"killed in these stages: {dict(stages)}")
    assert {"encode", "store", "train", "write"} <= set(stages)


@linux
def test_a_second_process_waits_says_so_and_trains_nothing_again(zygote, undisturbed, tmp_path):
    folder, whole = undisturbed
    trial = tmp_path / "trial"
    both = zygote(job(trial, "one"), job(trial, "other"))
    assert [one["code"] for one in both] == [0, 0]
    assert sum(one["trainings"] for one in both) == whole["trainings"] == 3
    assert sum(one["batches"] for one in both) == whole["batches"]
    waited = [
        name
        for name in ("one", "other")
        if f"another process is using {trial / 'run'}: waiting" in log_text(trial, name)
    ]
    assert len(waited) == 1
    assert left(trial) == left(folder)


@pytest.fixture
def disk(tmp_path):
    """disk(free) leaves that many bytes free on a separate disk, `tmp_path / "disk"`."""
    folder, size = tmp_path / "disk", 2**22
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    environment = os.environ | {"LC_ALL": "C"}
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, env=environment)
    if re.search("superuser|permission denied|not permitted", mounted.stderr):
        pytest.skip("no permission to mount a tmpfs; see test_loop.py and test_cache.py instead")
    assert mounted.returncode == 0, mounted.stderr

    def free(wanted: int) -> None:
        ballast = folder / "ballast"
        ballast.unlink(missing_ok=True)
        room = os.statvfs(folder)
        ballast.write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - wanted)))

    yield free
    subprocess.run(["umount", "-l", str(folder)], check=True)


@linux
def test_a_run_stopped_by_a_full_disk_continues_once_there_is_space(
    zygote, undisturbed, disk, tmp_path
):
    folder, _ = undisturbed
    expected, named = left(folder), Counter()
    pages = {name: -(-len(expected[name]) // 4096) for name in ("features", "student")}
    features, student = pages["features"], pages["student"]
    most = features + 2 * student + 7  # the peak use of a run, which then gets a little less
    trial = tmp_path / "disk" / "trial"
    for free in (1, features - 1, features + 2, features + student // 2, most - 5, most - 4):
        disk(free * 4096)
        stopped = zygote(job(trial) | {"log": str(tmp_path / "log")})[0]
        text = (tmp_path / "log").read_text()
        assert stopped["code"] == 2, (free, text)
        assert "No space left on device); free space or choose another" in text
        named[text.split("cannot write ")[1].split(" (")[0]] += 1
        disk(2**21)
        resumed = zygote(job(trial) | {"log": str(tmp_path / "log")})[0]
        assert resumed["code"] == 0, (free, (tmp_path / "log").read_text())
        assert left(trial) == expected
        shutil.rmtree(trial)
    print(f"there was no space for: {dict(named)}")
    assert len(named) >= 3


@pytest.fixture(scope="module")
def finished(small, teacher, quick, tmp_path_factory):
    """Folder of a run that kept all its students."""
    out = tmp_path_factory.mktemp("finished") / "run"
    go_on(small, teacher, quick, out)
    return out


def go_on(data, teacher, quick, out, **settings):
    defaults = dict(
        rounds=2, query_size=5, train=quick, progress=False, device="cpu", keep_students=True
    )
    return akd.run_active_learning(data, teacher, out=out, **defaults | settings)


def flipped(content: bytes, place: int, draw: random.Random) -> bytes:
    return content[:place] + bytes([content[place] ^ draw.randrange(1, 256)]) + content[place + 1 :]


def same_or_refused(path: Path, places: list[int], read, expected, remedy: str) -> int:
    """Change one byte at a time; `read` must give what it gave before or raise a ValueError.

    The error must name the file. Returns how often it was raised.
    """
    whole, draw, refused = path.read_bytes(), random.Random(path.name), 0
    for place in places:
        path.write_bytes(flipped(whole, place, draw))
        try:
            found, error = read(), None
        except ValueError as refusal:
            error = str(refusal)
        if error is None:
            assert found == expected, f"byte {place} of {path.name}: {path.read_bytes()[place]}"
        else:
            assert path.name in error
            assert remedy in error
            refused += 1
    path.write_bytes(whole)
    assert read() == expected
    return refused


@pytest.mark.parametrize("name", ["config.json", "labels.csv", "rounds.jsonl"])
def test_every_changed_byte_of_a_runs_small_files_is_detected_or_harmless(finished, tmp_path, name):
    out = shutil.copytree(finished, tmp_path / "run")

    def read():
        config, records, state = runs.RunFolder(out).read()
        return config, records, state.labels.tolist(), state.labeled_round.tolist()

    places = range((out / name).stat().st_size)
    refused = same_or_refused(out / name, places, read, read(), "choose another `out`")
    assert refused > 0.6 * len(places)  # the others are spaces


def test_a_changed_byte_of_a_student_is_detected(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    for round in (0, 2):
        path = out / f"student-{round:02d}.safetensors"
        size = path.stat().st_size
        places = [0, 7, 8, 100, size - 1, *random.Random(0).sample(range(size), 15)]

        def weights(round=round):
            student = akd.load_run(out, "cpu", round=round).student
            return {k: v.tolist() for k, v in student.state_dict().items()}

        remedy = f"keep only the first {round} lines" if round else "delete"
        assert same_or_refused(path, places, weights, weights(), remedy) == len(places)


def test_a_changed_byte_of_a_cache_is_detected_or_harmless(small, vlm, tmp_path):
    path = akd.TeacherCache.build(vlm, small.pool, 2, tmp_path, progress=False).path

    def read():
        cache = akd.TeacherCache.open(path)
        return cache.fingerprint, cache.views, cache.features.numpy().tobytes()

    manifest, features = path / "manifest.json", path / "features.f16"
    places = range(manifest.stat().st_size)
    refused = same_or_refused(manifest, places, read, read(), "delete the folder")
    assert refused > 0.6 * len(places)
    places = random.Random(0).sample(range(features.stat().st_size), 50)
    assert same_or_refused(features, places, read, read(), "delete the folder") == 50


def test_a_changed_byte_of_the_generated_images_is_detected_and_they_are_redrawn(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(datasets, "SHAPES_PARTS", {"pool": (40, 0), "test": (36, 1)})

    def read():
        data = akd.load_dataset("shapes", cache_root=tmp_path)
        return data.pool.fingerprint(), data.oracle.fingerprint(), data.test.fingerprint()

    expected, path = read(), tmp_path / "shapes-v1.safetensors"
    size = path.stat().st_size
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    places = [*range(0, header, 13), *random.Random(0).sample(range(header, size), 15), size - 1]
    assert same_or_refused(path, places, read, expected, "") == 0


def test_a_changed_byte_of_a_persons_answers_is_detected_or_harmless(small, tmp_path):
    path = tmp_path / "answers.jsonl"
    journal = Journal(path, small.pool)
    for index in (5, 7, 9):
        journal.answer(index, 3, 1.5)
    journal.close()

    def read():
        opened = Journal(path, small.pool)
        opened.close()
        if opened.note:  # the newline at the end is gone, and with it the last line
            raise ValueError(f"{path.name}: {opened.note}")
        return opened.labels, opened.seconds, [event["time"] for event in opened.events]

    places = range(path.stat().st_size)
    assert same_or_refused(path, places, read, read(), "") > 0.6 * len(places)


def test_damaged_rounds_can_be_repeated(small, teacher, quick, finished, tmp_path):
    """After the damaged lines of rounds.jsonl are removed, as the error says, the same command
    gives the same run; a damaged config.json is rewritten."""
    expected = akd.load_run(finished, "cpu")
    places = {"labels.csv": -3, "student-02.safetensors": 5000, "rounds.jsonl": -200}
    for name, place in (places | {"config.json": 50}).items():
        out = shutil.copytree(finished, tmp_path / name)
        content = (out / name).read_bytes()
        (out / name).write_bytes(flipped(content, place % len(content), random.Random(0)))
        with pytest.raises(ValueError, match=name) as error:
            akd.load_run(out, "cpu")
        if name != "config.json":
            lines = (out / "rounds.jsonl").read_bytes().split(b"\n")
            whole = int(str(error.value).split("keep only the first ")[1].split()[0])
            (out / "rounds.jsonl").write_bytes(b"\n".join([*lines[:whole], b""]))
        again = go_on(small, teacher, quick, out)
        assert [r.outcome() for r in again.records] == [r.outcome() for r in expected.records]
        # the seconds in rounds.jsonl differ
        assert (out / name).read_bytes() == content or name == "rounds.jsonl"
        akd.load_run(out, "cpu")


def test_a_run_of_an_older_version_is_refused_as_such(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    lines = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    older = [{k: v for k, v in line.items() if k not in (*runs.SUMS, "device")} for line in lines]
    unsealed = [{k: v for k, v in line.items() if k != "sha256"} for line in lines]
    newer = [files.with_checksum(line | {"mood": "good"}) for line in unsealed]
    for content, which in ((older, "an older version"), (newer, "another version")):
        (out / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in content))
        message = rf"rounds.jsonl was written by {which} of activekd-lite; delete .* choose another"
        with pytest.raises(ValueError, match=message):
            akd.load_run(out)


def changed_test_label(data):
    labels = data.test.labels.clone()
    labels[3] = (labels[3] + 1) % 10
    return replace(data, test=replace(data.test, labels=labels))


def changed_test_image(data):
    images = data.test.images.clone()
    images[3, 0, 0, 0] ^= 1
    return replace(data, test=replace(data.test, images=images))


def changed_pool_label(data):
    labels = data.oracle.label(torch.arange(150))
    labels[149] = (labels[149] + 1) % 10
    return replace(data, oracle=akd.Oracle(labels, 10))


def changed_pool_image(data):
    images = data.pool.images.clone()
    images[149, 0, 0, 0] ^= 1
    return replace(data, pool=replace(data.pool, images=images))


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (changed_test_label, r"\(test\.labels: "),
        (changed_test_image, r"\(test\.images: "),
        (changed_pool_label, r"\(labels: "),
        (changed_pool_image, r"\(pool: "),
    ],
)
def test_changed_data_are_refused_and_the_difference_is_shown(
    small, quick, tmp_path, change, shown
):
    go_on(small, None, quick, tmp_path, rounds=0)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        ValueError,
        match=shown + r'"[0-9a-f]{8}.* stored, "[0-9a-f]{8}.* requested\); choose another `out`',
    ):
        go_on(change(small), None, quick, tmp_path, rounds=0)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_configuration_holds_no_labels_and_asks_no_person_for_any(small, quick, tmp_path):
    class Asked(akd.Oracle):
        num_classes, unknown_count = 10, 0

        def __init__(self):
            pass  # knows no label yet

        def initial_indices(self, shots, generator):
            return small.oracle.initial_indices(shots, generator)

        def label(self, indices):
            assert len(indices) <= 10
            return small.oracle.label(indices)

    result = go_on(replace(small, oracle=Asked()), None, quick, tmp_path, rounds=0)
    assert result.config["labels"] is None
    assert len(go_on(small, None, quick, None, rounds=0).config["labels"]) == 64


def test_students_of_all_rounds_are_kept_on_request(small, teacher, quick, finished, tmp_path):
    last = go_on(small, teacher, quick, tmp_path, keep_students=False)
    assert [path.name for path in tmp_path.glob("student*")] == ["student-02.safetensors"]
    with pytest.raises(
        ValueError, match=r"round = 1, but .* holds students of the rounds \[2\] only"
    ):
        akd.load_run(tmp_path, round=1)
    for round in range(3):
        then = akd.load_run(finished, "cpu", round=round)
        shorter = go_on(small, teacher, quick, None, rounds=round)
        expected = last.records[: round + 1]
        assert [r.outcome() for r in then.records] == [r.outcome() for r in expected]
        assert set(then.state.labeled_round.tolist()) == set(range(-1, min(2, round + 1) + 1))
        for name, values in shorter.student.state_dict().items():
            assert torch.equal(then.student.state_dict()[name], values)
    for absent in (-1, 3):
        with pytest.raises(ValueError, match=r"students of the rounds \[0, 1, 2\] only"):
            akd.load_run(finished, round=absent)
    go_on(small, teacher, quick, finished, keep_students=False)
    assert len(list(finished.glob("student*"))) == 3  # read, not written


def test_a_finished_run_is_read_without_a_lock_from_a_read_only_folder(
    small, teacher, quick, finished, monkeypatch
):
    def refused(*args):
        pytest.fail("wants to write")

    with files.folder_lock(finished):
        for name in ("folder_lock", "make_folder", "write_atomic"):
            monkeypatch.setattr(runs, name, refused)
        assert len(go_on(small, teacher, quick, finished).records) == 3
        assert len(akd.load_run(finished, "cpu").records) == 3


def test_within_a_process_a_thread_waits_for_another_but_never_for_itself(
    small, teacher, quick, tmp_path, capsys
):
    started, enough, done = threading.Event(), threading.Event(), []

    def first_round(record):
        started.set()
        assert enough.wait(60)

    def work(**settings):
        done.append(go_on(small, teacher, quick, tmp_path, **settings))

    first = threading.Thread(target=work, kwargs={"on_round": first_round})
    first.start()
    assert started.wait(60)
    again = {"on_round": lambda record: pytest.fail("trained again")}
    second = threading.Thread(target=work, kwargs=again)
    second.start()
    while "another thread of this process is using" not in (text := capsys.readouterr().err):
        assert second.is_alive(), text
    assert len(akd.load_run(tmp_path, "cpu").records) == 1  # meanwhile
    enough.set()
    for thread in (first, second):
        thread.join(60)
    assert [len(result.records) for result in done] == [3, 3]
    with (
        files.folder_lock(tmp_path),
        pytest.raises(RuntimeError, match="this thread already works in"),
        files.folder_lock(tmp_path),
    ):
        pytest.fail("two at work")


def test_a_run_that_continues_while_it_is_read_is_read_again(
    small, teacher, quick, tmp_path, monkeypatch
):
    """Its last student has been removed when it is opened, as another round has finished."""
    with contextlib.suppress(KeyboardInterrupt):
        go_on(small, teacher, quick, tmp_path, keep_students=False, on_round=interrupt)
    original = runs.RunFolder.student

    def late(self, *args):
        monkeypatch.setattr(runs.RunFolder, "student", original)
        go_on(small, teacher, quick, tmp_path, keep_students=False)
        return original(self, *args)

    monkeypatch.setattr(runs.RunFolder, "student", late)
    assert len(akd.load_run(tmp_path, "cpu").records) == 3
    (tmp_path / "student-02.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"student-02.safetensors is missing; keep only the first 2 lines of rounds.jsonl",
    ):
        akd.load_run(tmp_path, "cpu")


def interrupt(record):
    raise KeyboardInterrupt


def test_unfinished_work_is_removed_when_the_run_continues(small, teacher, quick, tmp_path):
    with contextlib.suppress(KeyboardInterrupt):
        go_on(small, teacher, quick, tmp_path, keep_students=False, on_round=interrupt)
    partial = [".labels.csv.1.partial", ".student-01.safetensors.1.partial"]
    for name in (*partial, "student-07.safetensors", ".mine.1.partial"):
        (tmp_path / name).write_bytes(b"half")
    go_on(small, teacher, quick, tmp_path, keep_students=False)
    kept = {"config.json", "labels.csv", "rounds.jsonl", "student-02.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == {".lock", ".mine.1.partial", *kept}


@linux
def test_a_renamed_file_is_on_disk_before_the_next_is_written(tmp_path, monkeypatch):
    done = []
    replace_, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda *a: (replace_(*a), done.append("named"))[0])
    monkeypatch.setattr(
        os, "fsync", lambda d: (fsync(d), done.append(os.readlink(f"/proc/self/fd/{d}")))[0]
    )
    files.write_atomic(tmp_path / "a", "text")
    assert done == [str(tmp_path / f".a.{os.getpid()}.partial"), "named", str(tmp_path)]
