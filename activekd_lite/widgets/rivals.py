"""Who a student is compared with: the same run with the true labels, and its teacher."""

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from activekd_lite.loop import run_active_learning
from activekd_lite.pool import Dataset, Oracle
from activekd_lite.runs.folder import finished_rounds
from activekd_lite.runs.preflight import check_start
from activekd_lite.runs.record import RoundRecord
from activekd_lite.scores import accuracy_pct
from activekd_lite.strategies import get_strategy
from activekd_lite.teacher import LogitsTeacher, Teacher, ZeroShotTeacher, test_answers

RIVALS = ("pcoreset", "random")
NICENESS = 10  # of the threads that train rivals, where the system has one per thread
PAUSE = 0.05  # seconds between two looks at whether a rival may go on


class _Pause(Exception):
    """Leaves a run after a round; it continues from its folder."""


def _pause(record: RoundRecord) -> None:
    raise _Pause


class Rivals:
    """Runs of other strategies with the same settings and seed, answered by the true labels.

    Parameters
    ----------
    names : strategies, which take turns, one round each
    settings : arguments of `run_active_learning`
    out : each strategy keeps its rounds in a subfolder, and continues there
    may_train : asked between rounds; a rival waits while it returns False
    on_round : called without arguments after each round, and at the end

    Attributes
    ----------
    records : name -> records of the finished rounds
    note : why a rival could not run, else ""
    """

    def __init__(
        self,
        data: Dataset,
        teacher: Teacher | None,
        names: Sequence[str],
        settings: dict,
        out: Path,
        may_train: Callable[[], bool] = lambda: True,
        on_round: Callable[[], None] = lambda: None,
    ):
        self.data, self.teacher, self.settings = data, teacher, settings
        self.folders = {name: out / re.sub(r"\W+", "-", name) for name in names}
        self.may_train, self.on_round = may_train, on_round
        self.records: dict[str, list[RoundRecord]] = {name: [] for name in names}
        self.note, self.thread = "", None
        self._stop = threading.Event()

    def start(self) -> None:
        """Train in a background thread of low priority, unless one does already."""
        if not self.folders or (self.thread and not self._stop.is_set()):
            return
        earlier, self._stop = self.thread, threading.Event()
        words = (self._stop, earlier, torch.get_num_threads())
        self.thread = threading.Thread(target=self._work, args=words, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Stop; the student being trained is finished, but not kept. `start` trains it again."""
        self._stop.set()

    def describe(self) -> str:
        """Which rounds are still to be trained, or why a rival could not run; "" at the end."""
        if self.note:
            return self.note
        total = self.settings["rounds"] + 1
        counts = {name: len(records) for name, records in self.records.items()}
        if min(counts.values(), default=total) >= total:
            return ""
        parts = [f"{name} {count} of {total} students" for name, count in counts.items()]
        return f"In the background, with the true labels: {', '.join(parts)}."

    def run(self) -> None:
        """Train here and now."""
        self._run(threading.Event())

    def _work(self, stop: threading.Event, earlier: threading.Thread | None, cores: int) -> None:
        torch.set_num_threads(cores)  # a new thread has a number of its own; results depend on it
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        if earlier:
            earlier.join()  # it was stopped, and ends after its round
        with contextlib.suppress(_Pause):
            self._run(stop)

    def _run(self, stop: threading.Event) -> None:
        """Train all rivals in turns, one round each."""
        waiting = list(self.folders)
        while waiting:
            for name in list(waiting):
                self._wait(stop)
                if self._train_round(name, stop):
                    waiting.remove(name)
                self.on_round()

    def _train_round(self, name: str, stop: threading.Event) -> bool:
        """Train the next round of a rival; returns whether there are no more.

        A round that is being trained at `stop` is not written.
        """
        folder = self.folders[name]

        def end(record: RoundRecord) -> None:
            if stop.is_set():
                raise _Pause

        own = dict(strategy=name, out=folder, progress=False, on_round=_pause, on_student=end)
        try:
            run_active_learning(self.data, self.teacher, **self.settings | own)
        except _Pause:
            pass
        except Exception as error:  # the person's own run must go on
            self.note = f"{name} with true labels: {type(error).__name__}: {error}"
            return True
        self.records[name] = finished_rounds(folder)  # also those of an earlier start
        return len(self.records[name]) > self.settings["rounds"]

    def _wait(self, stop: threading.Event) -> None:
        """Wait until training is allowed. Raises _Pause after `stop`."""
        while not stop.is_set() and not self.may_train():
            stop.wait(PAUSE)
        if stop.is_set():
            raise _Pause


def rivals_for(
    names: Sequence[str] | None, truth: Oracle | None, shots: int, query_size: int, taught: bool
) -> tuple[str, ...]:
    """The strategies to compete with; by default, those of `RIVALS` that the settings allow.

    Raises ValueError for names that cannot run, and for any without true labels.
    """
    if names is None:
        possible = (name for name in RIVALS if _can_start(name, shots, query_size, taught))
        return tuple(possible) if truth else ()
    if isinstance(names, str):
        raise ValueError(f'rivals = {names!r}; give a sequence of strategies, such as ("random",)')
    if names and truth is None:
        raise ValueError(f"rivals = {names!r} need true labels, which are not known; use rivals=()")
    for name in names:
        check_start(get_strategy(name), shots, query_size, taught)
    return tuple(dict.fromkeys(names))


def _can_start(name: str, shots: int, query_size: int, taught: bool) -> bool:
    try:
        check_start(get_strategy(name), shots, query_size, taught)
    except ValueError:
        return False
    return True


def teacher_level(
    data: Dataset, teacher: Teacher | None, truth: Oracle | None
) -> tuple[str, float] | None:
    """What the teacher alone achieves: its name in a figure, and its accuracy in percent.

    On the test set if it can predict that; else on the pool, if it learns nothing from labels and
    `truth` knows the true ones. None if neither is possible.
    """
    answers = test_answers(teacher)
    if answers is not None and len(answers) == len(data.test):
        return "teacher", accuracy_pct(answers, data.test.labels)
    fixed = isinstance(teacher, ZeroShotTeacher) or (
        isinstance(teacher, LogitsTeacher) and teacher.refit is None
    )
    if not fixed or truth is None or truth.unknown_count or len(teacher) != len(data.pool):
        return None
    labels = truth.label(torch.arange(len(data.pool)))
    return "teacher on pool", accuracy_pct(teacher.probs().cpu(), labels)


def teacher_levels(
    records: Sequence[RoundRecord], alone: tuple[str, float] | None
) -> tuple[str, list[float]] | None:
    """The teacher's name and its accuracy in each round; `alone` where no round measured it.

    One number if the accuracy is the same in all rounds.
    """
    measured = [r.teacher_accuracy_pct for r in records]
    if not measured or None in measured:
        return alone and (alone[0], [alone[1]])
    return "teacher", measured if len(set(measured)) > 1 else measured[:1]
