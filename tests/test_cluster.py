"""Tasks in real processes: dead workers are replaced, failures are tried again and reported."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import distributed
import psutil
import pytest
import torch

from activekd_lite.experiments import cluster, sweep
from activekd_lite.experiments.cluster import Task, run_tasks


def double(x):
    return 2 * x


def attempt(folder, succeeds_at):
    """Write a file for each attempt, and fail until attempt `succeeds_at`."""
    count = len(list(Path(folder).iterdir()))
    Path(folder, str(count)).touch()
    if count + 1 < succeeds_at:
        raise ValueError(f"attempt {count + 1}")
    return count + 1


def die():
    os.kill(os.getpid(), 9)


def attempts(tmp_path):
    folders = {name: tmp_path / name for name in ("at once", "second", "never")}
    for folder in folders.values():
        folder.mkdir()
    tasks = [
        Task(name, attempt, (str(folder), {"at once": 1, "second": 2, "never": 99}[name]))
        for name, folder in folders.items()
    ]
    return folders, [
        *tasks,
        Task("after never", double, (1,), after="never"),
        Task("after second", double, (2,), after="second"),
    ]


def check_attempts(done, folders):
    assert (done["at once"], done["second"], done["after second"]) == (1, 2, 4)
    assert [len(list(folder.iterdir())) for folder in folders.values()] == [1, 2, 2]
    for name in ("never", "after never"):
        assert done[name].error == "ValueError: attempt 2"
        assert "raise ValueError" in done[name].traceback


def test_a_task_is_tried_once_more_in_this_process(tmp_path):
    folders, tasks = attempts(tmp_path)
    before = torch.get_num_threads()
    check_attempts({task.name: result for task, result in run_tasks(tasks, workers=0)}, folders)
    assert torch.get_num_threads() == before
    assert dict(
        (t.name, r)
        for t, r in run_tasks([Task("n", torch.get_num_threads, ())], workers=0, threads=3)
    ) == {"n": 3}


def test_a_worker_allocates_as_this_process_does_and_dask_logs_nothing(monkeypatch, caplog):
    """Dask has its workers give memory back at once, unless it is told not to."""
    caplog.set_level("INFO")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    task = Task("environment", os.environ.get, ("MALLOC_TRIM_THRESHOLD_", "as here"))
    assert [result for _, result in run_tasks([task], workers=1)] == ["as here"]
    logged = [record for record in caplog.records if record.name.startswith("distributed")]
    assert [record.getMessage() for record in logged] == []


@pytest.fixture(scope="module")
def scheduler():
    """Start a Dask cluster as on the command line: a scheduler and one worker."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with contextlib.ExitStack() as stack:

        def begin(*words):
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *words],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)  # closes its stderr and waits for it
            stack.callback(process.terminate)
            return process

        process = begin("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        address = next(line for line in process.stderr if "Scheduler at:" in line).split()[-1]
        threading.Thread(target=process.stderr.read, daemon=True).start()
        worker = begin("worker", address, "--nthreads", "1", "--no-dashboard")
        threading.Thread(target=worker.stderr.read, daemon=True).start()
        yield address


def test_a_cluster_that_runs_is_used_and_left_running(scheduler, tmp_path):
    folders, tasks = attempts(tmp_path)
    tasks += [Task("device", os.getpid, ()), Task("threads", torch.get_num_threads, ())]
    done = {task.name: result for task, result in run_tasks(tasks, scheduler=scheduler)}
    check_attempts(done, folders)
    assert done["device"] != os.getpid()
    assert done["threads"] == 1
    again = {
        task.name: result
        for task, result in run_tasks([Task("at once", double, (5,))], scheduler=scheduler)
    }
    assert again == {"at once": 10}  # not what an earlier call has left under this name


def test_only_the_task_that_kills_its_workers_is_reported_as_failed(monkeypatch):
    monkeypatch.setattr(cluster, "ALLOWED_DEATHS", 0)
    tasks = [
        Task("deadly", die, ()),
        Task("after", double, (2,), after="deadly"),
        Task("other", double, (1,)),
    ]
    done = {task.name: result for task, result in run_tasks(tasks, workers=1)}
    assert done["other"] == 2
    assert done["deadly"].error.startswith("its worker died repeatedly: out of memory")
    assert done["after"].error == done["deadly"].error


def test_losing_all_workers_is_an_error_not_a_wait(monkeypatch):
    started, instantiate = [], distributed.Nanny.instantiate

    async def once(self):
        started.append(self)
        if len(started) > 1:
            raise RuntimeError("killed while it started")
        return await instantiate(self)

    monkeypatch.setattr(distributed.Nanny, "instantiate", once)
    monkeypatch.setattr(cluster, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr(cluster, "NO_WORKER_SECONDS", 1)
    monkeypatch.setattr(cluster, "ALLOWED_DEATHS", 9)
    with pytest.raises(
        ConnectionError,
        match="every worker has died and none has come back; run the same command again",
    ):
        list(run_tasks([Task("deadly", die, ())], workers=1))


def test_an_unreachable_scheduler_is_named(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.3)
    with pytest.raises(
        ConnectionError, match=r"no Dask scheduler at tcp://127.0.0.1:9 .*dask scheduler"
    ):
        next(run_tasks([Task("a", double, (1,))], scheduler="tcp://127.0.0.1:9"))
    with pytest.raises(ValueError, match="workers = -1"):
        next(run_tasks([], workers=-1))


def test_each_worker_sees_one_gpu_and_has_one_thread(monkeypatch):
    specs = cluster.worker_specs(4, ["0", "2"], "3GB")
    assert [spec["options"]["env"]["CUDA_VISIBLE_DEVICES"] for spec in specs.values()] == [
        "0",
        "2",
        "0",
        "2",
    ]
    assert {(s["options"]["nthreads"], s["options"]["memory_limit"]) for s in specs.values()} == {
        (1, "3GB")
    }
    assert "env" not in cluster.worker_specs(1, [])[0]["options"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert cluster.visible_gpus() == ["GPU-a", "GPU-b"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert cluster.visible_gpus() == ["0", "1"]


GRID = sweep.Grid(
    strategies=("random", "pcoreset"),
    distill=(True,),
    rounds=5,
    pool_size=150,
    train={"steps": 10, "batch_size": 16},
)


def half_done(out):
    """Return the lines of rounds.jsonl of each unfinished run, by its folder."""
    found = {}
    for path in out.rglob("rounds.jsonl"):
        lines = path.read_text().splitlines()
        if 1 < len(lines) < GRID.rounds + 1:
            found[path.parent] = lines
    return found


def killed_in_mid_run(out):
    """Kill every worker of this process during a run; collect `half_done` at that time."""
    seen = []

    def kill():
        while not half_done(out):
            time.sleep(0.02)
        for process in psutil.Process().children():
            if "spawn_main" in " ".join(process.cmdline()):
                process.kill()
        seen.append(half_done(out))

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return seen, thread


def test_runs_of_killed_workers_are_resumed_by_others(tmp_path, shared_cache):
    options = {"cache_root": shared_cache, "device": "cpu", "progress": False}
    undisturbed = sweep.run(GRID, tmp_path / "still", workers=0, **options)
    seen, thread = killed_in_mid_run(tmp_path / "killed")
    killed = sweep.run(GRID, tmp_path / "killed", workers=2, **options)
    assert not thread.is_alive(), "no worker was killed in mid-run"
    assert len(seen) == 1
    columns = [
        name
        for name in killed
        if not name.startswith("seconds") and name not in ("peak_memory_bytes", "device")
    ]
    assert killed[columns].to_json() == undisturbed[columns].to_json()  # to the last digit
    for there in seen:
        for folder, lines in there.items():  # finished rounds keep their seconds: not run again
            assert (folder / "rounds.jsonl").read_text().splitlines()[: len(lines)] == lines
    assert sweep.failures(tmp_path / "killed") == {}
    assert json.loads((tmp_path / "killed/teachers.json").read_text()).keys() == {
        "digits/zero-shot"
    }
