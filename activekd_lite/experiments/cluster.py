"""Many tasks in many processes, with Dask: on this machine or on a running cluster.

The local cluster has one process per core, or per GPU, and each process sees only its own GPU. It
listens on this machine only and uses TLS with a certificate of its own, because anyone who can
reach a Dask scheduler can run code there. A task whose process dies goes to another process, and a
task that fails is tried once more. Tasks carry names and settings, never data: they load what they
need where they run.
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

if TYPE_CHECKING:
    from distributed import Client, Future, SpecCluster, as_completed

LOCAL = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}  # out of reach of other machines
# By default, Dask's workers return memory to the system at once, which training then asks for
# again: a third of its time goes into page faults.
MALLOC = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}
ALLOWED_DEATHS = 1  # of workers during a task, before the task is run again on its own
CHECK_SECONDS = 5  # between checks for workers
NO_WORKER_SECONDS = 60  # without any worker before the local cluster is given up
CONNECT_SECONDS = 20  # for a scheduler to answer


@dataclass(frozen=True)
class Task:
    """`function(*args)` under a unique name. after: the name of an earlier task to wait for."""

    name: str
    function: Callable
    args: tuple
    after: str | None = None


@dataclass(frozen=True)
class Failure:
    """Why a task has no result: the error in one line, and its traceback."""

    error: str
    traceback: str


def run_tasks(
    tasks: Sequence[Task],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    memory_limit: str | int = "auto",
    threads: int = 1,
) -> Iterator[tuple[Task, object]]:
    """Run all tasks, and yield each with its result, or its `Failure`, when it is done.

    Parameters
    ----------
    tasks
        A task `after` one that failed is not run and gets the same Failure.
    workers
        Processes of the local cluster. None: one per core or GPU. 0: this process, one task
        after another.
    scheduler
        Address of a running cluster, used instead of a local one.
    memory_limit
        Of each local worker, such as "4GB"; "auto" divides the machine's memory among them.
    threads
        Of torch in each task, wherever it runs, since their number can change the last digits.

    Raises
    ------
    ConnectionError
        If the scheduler cannot be reached or goes away.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers = {workers}: choose 0 (in this process) or more")
    if workers == 0 and not scheduler:
        yield from _run_here(tasks, threads)
        return
    with _client(min(worker_count(workers), max(1, len(tasks))), scheduler, memory_limit) as client:
        yield from _run_on(client, tasks, threads, patient=scheduler is not None)


def worker_count(workers: int | None = None) -> int:
    """Return how many tasks `run_tasks` runs at a time on this machine."""
    return 1 if workers == 0 else workers or len(visible_gpus()) or cores()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Return the CUDA devices that this process may use, as named in CUDA_VISIBLE_DEVICES."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = [str(i) for i in range(torch.cuda.device_count())]
    return [part.strip() for part in named.split(",")][: len(ids)] if named and ids else ids


def worker_specs(count: int, gpus: Sequence[str], memory_limit: str | int = "auto") -> dict:
    """Describe `count` single-thread processes for `SpecCluster`, with the GPUs in turn."""
    from distributed import Nanny  # slow

    options = {"nthreads": 1, "memory_limit": memory_limit, "silence_logs": logging.CRITICAL}
    specs = {i: {"cls": Nanny, "options": options | LOCAL} for i in range(count)}
    for i in range(count) if gpus else ():
        specs[i]["options"]["env"] = {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]}
    return specs


def _client(
    count: int, scheduler: str | None, memory_limit: str | int
) -> "contextlib.AbstractContextManager[Client]":
    return _connected(scheduler) if scheduler else _local_cluster(count, memory_limit)


@contextlib.contextmanager
def _connected(scheduler: str) -> "Iterator[Client]":
    from distributed import Client  # slow

    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"no Dask scheduler at {scheduler} ({error}); start one with `dask scheduler`"
        ) from error
    with client:
        if not client.scheduler_info(n_workers=1)["workers"]:
            tqdm.write(f"the scheduler at {scheduler} has no workers yet: waiting for them")
        yield client


@contextlib.contextmanager
def _local_cluster(count: int, memory_limit: str | int) -> "Iterator[Client]":
    import dask  # slow
    from distributed import Client, Scheduler, Security, SpecCluster

    # The cluster's own `silence_logs` does not reach the handlers of the root logger.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    security = Security.temporary()
    specs = worker_specs(count, visible_gpus(), memory_limit)
    for spec in specs.values():
        spec["options"]["security"] = security
    options = {"dashboard": False, "security": security, "allowed_failures": ALLOWED_DEATHS}
    listening = {"cls": Scheduler, "options": options | LOCAL}

    def start() -> SpecCluster:
        return SpecCluster(workers=specs, scheduler=listening, security=security)

    with (
        dask.config.set(MALLOC),
        _ignoring_ctrl_c(start) as cluster,
        Client(cluster, security=security) as client,
    ):
        yield client


def _ignoring_ctrl_c(start: "Callable[[], SpecCluster]") -> "SpecCluster":
    """Return `start()`, whose processes ignore SIGINT.

    A terminal sends SIGINT to all processes, but only this one should react, and end the others.
    """
    if not hasattr(signal, "pthread_sigmask"):
        return start()
    resource_tracker.ensure_running()  # if it started later, it would accept SIGINT again
    block = (signal.SIG_BLOCK, {signal.SIGINT})
    with ThreadPoolExecutor(1, initializer=signal.pthread_sigmask, initargs=block) as thread:
        return thread.submit(start).result()  # processes inherit the mask of the starting thread


def _run_on(
    client: "Client", tasks: Sequence[Task], threads: int, patient: bool
) -> Iterator[tuple[Task, object]]:
    """Run all tasks together, then repeat those whose workers died, one at a time.

    When a worker dies, Dask also blames tasks that were only queued on it.
    """
    from distributed.scheduler import KilledWorker  # slow

    followers, suspects = defaultdict(list), deque()
    for task in tasks:
        followers[task.after].append(task)
    ready = followers.pop(None, [])
    while ready or suspects:
        single = not ready
        batch = _Batch(client, threads, ready or [suspects.popleft()])
        ready = []
        for task, future in batch.as_done(patient):
            if not single and isinstance(future.exception(), KilledWorker):
                suspects.append(task)
                continue
            outcome = _outcome(future)
            yield task, outcome
            for follower in followers.pop(task.name, []):
                if isinstance(outcome, Failure):
                    yield follower, outcome
                elif single:
                    ready.append(follower)
                else:
                    batch.submit(follower)


class _Batch:
    """Tasks that run at the same time; more can be submitted while they run."""

    def __init__(self, client: "Client", threads: int, tasks: Sequence[Task]):
        from distributed import as_completed  # slow

        self.client, self.threads = client, threads
        self.tasks, self.running = {}, as_completed()
        for task in tasks:
            self.submit(task)

    def submit(self, task: Task) -> None:
        # Dask would return an earlier result for a key that it knows.
        once = {"key": f"{task.name}-{uuid4().hex}", "pure": False, "retries": 1}
        future = self.client.submit(_call_in_worker, task.function, task.args, self.threads, **once)
        self.tasks[future.key] = task
        self.running.add(future)

    def as_done(self, patient: bool) -> "Iterator[tuple[Task, Future]]":
        """Yield each task and its future when it is done.

        patient: wait for workers without limit. Otherwise raise ConnectionError if none is left,
        since a local worker that dies while it starts is not started again.
        """
        for future in _as_done(self.running, self.client, patient):
            yield self.tasks.pop(future.key), future


def _as_done(running: "as_completed", client: "Client", patient: bool) -> "Iterator[Future]":
    seen = time.monotonic()
    while not running.is_empty():
        yield from running.next_batch(block=False)
        time.sleep(0.05)
        if patient or time.monotonic() - seen < CHECK_SECONDS:
            continue
        if client.nthreads():
            seen = time.monotonic()
        elif time.monotonic() - seen > NO_WORKER_SECONDS:
            raise ConnectionError(
                "every worker has died and none has come back; run the same command again to "
                "continue"
            )


def _outcome(future: "Future") -> object:
    """Wait for a task, and return its result or its Failure."""
    from distributed import CancelledError  # slow
    from distributed.scheduler import KilledWorker

    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, CancelledError):
        raise ConnectionError(
            "the Dask cluster is gone; run the same command again to continue"
        ) from error
    if isinstance(error, KilledWorker):
        text = (
            "its worker died repeatedly: out of memory (see memory_limit), or killed from outside"
        )
        return Failure(text, f"{text}\n{error}\n")
    lines = traceback.format_exception(type(error), error, future.traceback())
    return Failure(_in_one_line(error), "".join(lines))


def _call_in_worker(function: Callable, args: tuple, threads: int) -> object:
    # By default tqdm makes a semaphore, which a killed worker would leak.
    tqdm.set_lock(threading.RLock())
    return _call(function, args, threads)


def _call(function: Callable, args: tuple, threads: int) -> object:
    with torch_threads(threads):
        return function(*args)


def _run_here(tasks: Sequence[Task], threads: int) -> Iterator[tuple[Task, object]]:
    """Run the tasks in this process, one after another."""
    failed = {}
    for task in tasks:
        outcome = failed.get(task.after) or _call_up_to_twice(task, threads)
        if isinstance(outcome, Failure):
            failed[task.name] = outcome
        yield task, outcome


def _call_up_to_twice(task: Task, threads: int) -> object:
    for _ in range(2):
        try:
            return _call(task.function, task.args, threads)
        except Exception as error:  # of any kind: the other tasks are not affected
            failure = Failure(_in_one_line(error), traceback.format_exc())
    return failure


def _in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads inside the `with` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
