"""Many tasks on many processes, by Dask: on this machine, or on any cluster that runs.

The local cluster has a process for each core, or for each GPU, which sees that one alone. It listens on this machine only and
speaks TLS with a certificate of its own, for whoever reaches a Dask scheduler can run code there. A task whose process dies is
given to another one; a task that fails is tried once more. What a task loads, it loads where it runs: tasks are names and
settings, never data.
"""

import contextlib
import logging
import os
import signal
import threading
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING
from uuid import uuid4

import torch
from tqdm import tqdm

if (
    TYPE_CHECKING
):  # Dask is imported where a cluster is used: half a second that nobody else should wait for
    from distributed import Client, Future, SpecCluster, as_completed

LOCAL = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}  # nobody else can reach it
# Dask has its workers give memory back at once, which training asks for again at once: a third of the time, in page faults.
MALLOC = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}
ALLOWED_DEATHS = 1  # of workers, while they have a task, before it is tried alone
CHECKED, ALONE = 5, 60  # seconds: how often workers are looked for, and how long there may be none
PATIENCE = 20  # seconds that a scheduler has to answer


@dataclass(frozen=True)
class Task:
    """`function(*args)` under a name of its own. after: the name of an earlier task that has to be done first."""

    name: str
    function: Callable
    args: tuple
    after: str | None = None


@dataclass(frozen=True)
class Failure:
    """Why a task has no result: the error in a line, and where it came from."""

    error: str
    traceback: str


def run_tasks(
    tasks: Sequence[Task], *, workers: int | None = None, scheduler: str | None = None, memory_limit: str | int = "auto",
    threads: int = 1,
) -> Iterator[tuple[Task, object]]:  # fmt: skip
    """Do all tasks, and yield each with its result, or its `Failure`, as they are done. What comes `after` one that failed has
    its Failure.

    workers: processes of the local cluster; None: one for each core or GPU; 0: none, one task after another in this process.
    scheduler: the address of a cluster that runs, instead. memory_limit: of each local worker, such as "4GB"; "auto" shares
    the machine's. threads: of torch in each task, wherever it runs, since their number can change last digits.

    Raises ConnectionError for a scheduler that cannot be reached or goes away.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers = {workers}: 0 (in this process) or more are needed")
    if workers == 0 and not scheduler:
        yield from _one_by_one(tasks, threads)
        return
    with _client(min(worker_count(workers), max(1, len(tasks))), scheduler, memory_limit) as client:
        yield from _distributed(client, tasks, threads, patient=scheduler is not None)


def worker_count(workers: int | None = None) -> int:
    """How many tasks `run_tasks` does at a time on this machine."""
    return 1 if workers == 0 else workers or len(visible_gpus()) or cores()


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = [str(i) for i in range(torch.cuda.device_count())]
    return [part.strip() for part in named.split(",")][: len(ids)] if named and ids else ids


def worker_specs(count: int, gpus: Sequence[str], memory_limit: str | int = "auto") -> dict:
    """What `SpecCluster` starts: `count` processes of one thread; with GPUs the i-th sees one of them, in turn."""
    from distributed import Nanny

    options = {
        "nthreads": 1,
        "memory_limit": memory_limit,
        "silence_logs": logging.CRITICAL,
        **LOCAL,
    }
    pinned = [
        {"env": {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]}} if gpus else {} for i in range(count)
    ]
    return {i: {"cls": Nanny, "options": options | env} for i, env in enumerate(pinned)}


@contextlib.contextmanager
def _client(count: int, scheduler: str | None, memory_limit: str | int) -> "Iterator[Client]":
    import dask
    from distributed import Client, Scheduler, Security, SpecCluster

    if scheduler:
        try:
            client = Client(scheduler, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"no Dask scheduler at {scheduler} ({error}); start one with `dask scheduler`"
            ) from error
        with client:
            if not client.scheduler_info(n_workers=1)["workers"]:
                tqdm.write(f"the scheduler at {scheduler} has no workers yet: waiting for them")
            yield client
        return
    logging.getLogger("distributed").setLevel(
        logging.CRITICAL
    )  # the cluster's `silence_logs` misses the root's handlers
    security = Security.temporary()
    specs = worker_specs(count, visible_gpus(), memory_limit)
    options = {
        "dashboard": False,
        "security": security,
        "allowed_failures": ALLOWED_DEATHS,
        **LOCAL,
    }
    listening = {"cls": Scheduler, "options": options}
    for spec in specs.values():
        spec["options"] = spec["options"] | {"security": security}
    with (
        dask.config.set(MALLOC),
        _out_of_ctrl_c(
            lambda: SpecCluster(workers=specs, scheduler=listening, security=security)
        ) as cluster,
        Client(cluster, security=security) as client,
    ):
        yield client


def _out_of_ctrl_c(start: "Callable[[], SpecCluster]") -> "SpecCluster":
    """`start()`, its processes deaf to SIGINT: a terminal sends that to all of them, and it is this one that ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        return start()
    resource_tracker.ensure_running()  # whoever starts it later would hear SIGINT again
    with ThreadPoolExecutor(
        1, initializer=signal.pthread_sigmask, initargs=(signal.SIG_BLOCK, {signal.SIGINT})
    ) as thread:
        return thread.submit(
            start
        ).result()  # threads that it starts, and their processes, inherit the mask


def _distributed(
    client: "Client", tasks: Sequence[Task], threads: int, patient: bool
) -> Iterator[tuple[Task, object]]:
    """All tasks at once; those whose workers died go alone at the end: who only waited on such a worker is blamed, too."""
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    after, suspects = defaultdict(list), deque()
    for task in tasks:
        after[task.after].append(task)
    ready = after.pop(None, [])
    while ready or suspects:
        alone = not ready
        futures, running = {}, as_completed()

        def begin(task: Task, futures: dict = futures, running: "as_completed" = running) -> None:
            key = f"{task.name}-{uuid4().hex}"  # new in each call: nothing is taken from an earlier one
            future = client.submit(
                _call_in_worker, task.function, task.args, threads, key=key, retries=1, pure=False
            )
            futures[future.key] = task
            running.add(future)

        for task in ready or [suspects.popleft()]:
            begin(task)
        ready = []
        for future in _as_done(running, client, patient):
            task = futures.pop(future.key)
            if not alone and isinstance(future.exception(), KilledWorker):
                suspects.append(task)
                continue
            outcome = _outcome(future)
            yield task, outcome
            for later in after.pop(task.name, []):
                if isinstance(outcome, Failure):
                    yield later, outcome
                elif alone:
                    ready.append(later)
                else:
                    begin(later)


def _as_done(running: "as_completed", client: "Client", patient: bool) -> "Iterator[Future]":
    """The futures as they are done. patient: wait for workers however long; else raise ConnectionError where none is left, for
    one that is killed while it starts is not started again."""
    seen = time.monotonic()
    while not running.is_empty():
        yield from running.next_batch(block=False)
        time.sleep(0.05)
        if patient or time.monotonic() - seen < CHECKED:
            continue
        if client.nthreads():
            seen = time.monotonic()
        elif time.monotonic() - seen > ALONE:
            raise ConnectionError(
                "every worker has died and none has come back; the same command goes on where it stopped"
            )


def _outcome(future: "Future") -> object:
    """What a task has returned, waited for, or its Failure."""
    from distributed import CancelledError
    from distributed.scheduler import KilledWorker

    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, CancelledError):
        raise ConnectionError(
            "the Dask cluster is gone; the same command goes on where it stopped"
        ) from error
    if isinstance(error, KilledWorker):
        text = "its worker died, again and again: out of memory (see memory_limit), or killed from outside"
        return Failure(text, f"{text}\n{error}\n")
    return Failure(
        _line(error), "".join(traceback.format_exception(type(error), error, future.traceback()))
    )


def _call_in_worker(function: Callable, args: tuple, threads: int) -> object:
    tqdm.set_lock(
        threading.RLock()
    )  # else it makes a semaphore, which a worker that is killed would leak
    return _call(function, args, threads)


def _call(function: Callable, args: tuple, threads: int) -> object:
    with torch_threads(threads):
        return function(*args)


def _one_by_one(tasks: Sequence[Task], threads: int) -> Iterator[tuple[Task, object]]:
    failed = {}
    for task in tasks:
        outcome = failed.get(task.after) or _tried_twice(task, threads)
        if isinstance(outcome, Failure):
            failed[task.name] = outcome
        yield task, outcome


def _tried_twice(task: Task, threads: int) -> object:
    for _ in range(2):
        try:
            return _call(task.function, task.args, threads)
        except Exception as error:  # whatever it is, the other tasks go on
            failure = Failure(_line(error), traceback.format_exc())
    return failure


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
