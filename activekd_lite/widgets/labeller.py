"""Label the queries of a real run yourself: an image, the classes, one key press.

A thread runs the active-learning loop and waits in the oracle for answers. The page
(`web/labeller.js`) measures the seconds. The teacher's opinion of an image appears only after the
answer. Other strategies run beside it with the true labels. When a program runs the notebook, the
true labels answer instead.
"""

import dataclasses
import inspect
import os
import re
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from activekd_lite.loop import run_active_learning
from activekd_lite.plots.base import Figure
from activekd_lite.pool import Dataset, Oracle
from activekd_lite.runs.folder import RunFolder, finished_rounds, load_run
from activekd_lite.runs.preflight import check_labels, strategy_name
from activekd_lite.runs.record import RoundRecord, RunResult
from activekd_lite.runs.setup import configure, default_views
from activekd_lite.teacher import Teacher
from activekd_lite.utils.files import make_folder
from activekd_lite.widgets import answers, race
from activekd_lite.widgets.base import Explorer, is_interactive, twin
from activekd_lite.widgets.journal import Journal, PersonOracle, Stopped
from activekd_lite.widgets.page import Page
from activekd_lite.widgets.pictures import Pictures
from activekd_lite.widgets.rivals import Rivals, rivals_for, teacher_level, teacher_levels

RECENT = 12  # images labelled last that are shown
ASSUMED = "true-labels"  # subfolder for runs answered by the true labels, apart from a person's
SORT = re.compile(r"\b(?:type|kind) of (\w+)")  # as in "a photo of a {}, a type of flower."


class Labeller(Explorer):
    """Label the queries of `run_active_learning(data, teacher, ...)` yourself, with the keyboard.

    Parameters
    ----------
    rounds, query_size : number of queries, and images in each
    shots : images per class in the initial set, which the true labels pick and label; with 0, you
        label the first `query_size` images too
    out : folder of the run and of the journal `answers.jsonl`; the same `out` continues where it
        stopped, even after the kernel was killed
    truth : whether the labels of `data` are the true ones; by default, if every image has one
    seconds_per_label : assumed time when the true labels answer
    rivals : strategies that run in the background with the true labels, the same settings and seed,
        and are drawn up to as many labels as you have given; by default "pcoreset" and "random" if
        a person answers and the true labels are known
    question : what to ask; the default suits the class names and templates
    settings : further arguments of `run_active_learning`

    Raises
    ------
    ValueError : the settings cannot work, or `out` has answers about other images or classes

    Attributes
    ----------
    journal : the answers on disk, once the labeller was displayed or asked for anything
    rivals : see `Rivals`; `rivals.records` has their finished rounds by name
    """

    def __init__(
        self,
        data: Dataset,
        teacher: Teacher | None = None,
        *,
        strategy="pcoreset",
        rounds: int = 3,
        query_size: int = 10,
        seed: int = 0,
        shots: int = 1,
        out: str | os.PathLike = "runs/mine",
        truth: bool | None = None,
        seconds_per_label: float = 2.0,
        rivals: Sequence[str] | None = None,
        question: str | None = None,
        **settings,
    ):
        super().__init__()
        self.truth = _true_labels(data, truth, shots)
        self.data, self.teacher, self.out = data, teacher, Path(out)
        self.seconds_per_label, self.assumed = seconds_per_label, not is_interactive()
        run = dict(strategy=strategy, rounds=rounds, query_size=query_size, seed=seed, shots=shots)
        self.settings = run | settings
        self.journal: Journal | None = None
        self.oracle: PersonOracle | None = None
        self._thread: threading.Thread | None = None
        self._done: RunResult | None = None
        self._newest: RoundRecord | None = None  # of the newest student, before its query
        self._own: bool | None = None  # whether the folder holds this run or none, once asked
        self._lock, self._revision = threading.RLock(), 0
        self._feedback = self._error = ""
        self._pictures = Pictures(data.pool.images)
        by_person = dataclasses.replace(data, oracle=self._person(None))
        check_labels(by_person, rounds, query_size, shots)
        self.question = question or question_for(data)
        self.rivals = self._rivals(() if self.assumed and rivals is None else rivals)

    def _rivals(self, names: Sequence[str] | None) -> Rivals:
        shots, query_size = self.settings["shots"], self.settings["query_size"]
        names = rivals_for(names, self.truth, shots, query_size, self.teacher is not None)
        told = dict(may_train=self._is_idle, on_round=self._show)
        out = self.out / "rivals"
        return Rivals(self.data, self.teacher, names, self.settings, out, **told)

    @property
    def folder(self) -> Path:
        """Folder of run and journal: `out`, or a subfolder when the true labels answer."""
        return self.out / ASSUMED if self.assumed else self.out

    @property
    def to_give(self) -> int:
        """Number of labels that the whole run asks for."""
        return self._queries * self.settings["query_size"]

    @property
    def _queries(self) -> int:
        return self.settings["rounds"] + (self.settings["shots"] == 0)

    @property
    def done(self) -> bool:
        """Whether the last round is finished."""
        return len(self.records) == self.settings["rounds"] + 1

    @property
    def records(self) -> list[RoundRecord]:
        """Records of the finished rounds; none of a run with other settings in the same folder."""
        if self._own is None:
            self._own = self._is_own_run()
        return finished_rounds(self.folder) if self._own else []

    def _is_own_run(self) -> bool:
        """Whether the folder holds this run or none."""
        parameters = inspect.signature(run_active_learning).parameters
        chosen = {name: p.default for name, p in parameters.items()} | self.settings
        features = chosen["features"]
        chosen["views"] = chosen["views"] or default_views(self.data, self.teacher, features)
        chosen["student"] = chosen["student"] or self.data.student
        data = dataclasses.replace(self.data, oracle=self.oracle or self._person(None))
        wanted = inspect.signature(configure).parameters.keys() & chosen.keys()
        settings = {name: chosen[name] for name in wanted - {"data", "teacher"}}
        try:
            RunFolder(self.folder).read(configure(data, self.teacher, **settings))
        except ValueError:  # the run itself says what is wrong
            return False
        return True

    @property
    def result(self) -> RunResult:
        """The finished rounds of the run so far. Raises RuntimeError if there is none."""
        self._prepare()
        if self._done:
            return self._done
        if not self.records:
            raise RuntimeError(f"no round is finished yet: {self._missing}")
        return load_run(self.folder, self.settings.get("device", "auto"))

    @property
    def answers(self) -> pd.DataFrame:
        """One row per answer, in the order given.

        Columns: index, label, seconds (total spent on the image); true, if known; with a teacher,
        its prediction (teacher) and the confidence of that prediction.
        """
        self._prepare()
        return self._given()

    def _given(self) -> pd.DataFrame:
        """`answers` as they are, without opening the journal."""
        labels, events = self.journal.labels, self.journal.events
        spent = pd.DataFrame(events, columns=["index", "seconds"]).groupby("index")["seconds"].sum()
        index, name = list(labels), self.data.classnames.__getitem__
        columns = {"index": index, "label": map(name, labels.values())}
        table = pd.DataFrame(columns | {"seconds": [spent[i] for i in index]})
        if self.truth:
            table["true"] = list(map(name, self._true_labels_of(index)))
        if self.teacher:
            confidence, predicted = self._teacher_probs[index].max(dim=1)
            table["teacher"] = list(map(name, predicted.tolist()))
            table["confidence"] = confidence.tolist()
        return table

    def start(self) -> None:
        """Start or continue the run with a person answering. Displaying the labeller calls it."""
        self.assumed = False
        self._open()
        if self._thread is None and self._done is None:
            self._error, name = "", f"labeller of {self.out}"
            thread = threading.Thread(target=self._run, args=[self.oracle], daemon=True, name=name)
            self._thread = thread
            thread.start()
        self.rivals.start()

    def close(self) -> None:
        """Stop asking, release the journal, remove the widget. Displaying it again continues."""
        with self._lock:
            self._update_twin()
            super().close()
        if self.journal:
            self.journal.close("the labeller was closed; display it again to continue")
        self.rivals.stop()
        self._thread = None

    def _prepare(self) -> None:
        """Open the journal; when a program runs the notebook, let the true labels answer."""
        self._open()
        if self.assumed and self._done is None:
            if self.truth is None:
                raise RuntimeError(
                    f"{self._missing}, and there are no true labels to use instead: "
                    "open the notebook in JupyterLab and label there"
                )
            self._done = self._loop(self.oracle)
            self.rivals.run()

    def _open(self) -> None:
        journal, folder = self.journal, self.folder.absolute()
        if journal is None or journal.closed or journal.path.parent != folder:
            if journal:
                journal.close()
            self._own = None
            self.journal = Journal(make_folder(self.folder) / "answers.jsonl", self.data.pool)
            self.oracle, self._feedback = self._person(self.journal), self.journal.note

    def _person(self, journal: Journal | None) -> PersonOracle:
        on_change = self._answer_truly if self.assumed else self._show
        return PersonOracle(journal, self.truth, on_change)

    def _loop(self, oracle: PersonOracle) -> RunResult:
        data = dataclasses.replace(self.data, oracle=oracle)
        on_round = self.settings.get("on_round", lambda record: None)

        def show_round(record: RoundRecord) -> None:
            on_round(record)
            self._refresh()

        def show_student(record: RoundRecord) -> None:
            self._newest = record  # the page is told when the query opens

        settings = dict(out=self.folder, progress=False, on_round=show_round)
        settings |= dict(on_student=show_student)
        return run_active_learning(data, self.teacher, **self.settings | settings)

    def _run(self, oracle: PersonOracle) -> None:
        """Run all rounds, or until the journal is closed; the target of the thread."""
        try:
            self._done = self._loop(oracle)
        except Stopped as stopped:
            self._error = str(stopped)
            self.rivals.stop()
        except Exception as error:  # show any error: a thread's traceback is easily missed
            self._error = f"{type(error).__name__}: {error}"
        self._refresh()

    def _is_idle(self) -> bool:
        """Whether the person's own student is not being trained."""
        asking = self.oracle is not None and self.oracle.current is not None
        return asking or self._done is not None or self.assumed or bool(self._error)

    def _answer_truly(self) -> None:
        """Answer the open query with the true labels."""
        asked = [i for i in self.oracle.asked if i not in self.journal.labels]
        for index, label in zip(asked, self._true_labels_of(asked), strict=True):
            self.journal.answer(index, label, self.seconds_per_label)

    def _true_labels_of(self, indices: list[int]) -> list[int]:
        return self.truth.label(torch.tensor(indices, dtype=torch.int64)).tolist()

    # The page and its messages.

    def _build(self) -> Page:
        names = list(self.data.classnames)
        fixed = {"classnames": names, "question": self.question, "counts": self._label_counts()}
        self._widget = page = self._page_of("labeller", view=fixed)  # the thread needs it
        self.start()
        self._show()
        return page

    def _label_counts(self) -> list[int]:
        """Number of labels that the first student and the last are trained on."""
        return race.label_counts(self.settings, len(self.data.classnames))

    def _refresh(self) -> None:
        self._show()
        self._update_twin()

    def _show(self) -> None:
        with self._lock:
            if self._widget is not None:
                self._widget.update(**self._state())

    def _state(self) -> dict:
        """All that changes on the page.

        `revision` always differs, so that the page is notified even if an answer was rejected.
        """
        oracle, self._revision = self.oracle, self._revision + 1
        index, given = oracle.current, len(self.journal.labels)
        busy = index is None and not (self._done or self._error)
        state = {
            "revision": self._revision,
            "events": len(self.journal.events),
            "index": -1,
            "image": "",
            "smooth": "",
            "feedback": self._feedback,
            "error": self._error,
            "status": self.rivals.describe(),
            "progress": "",
            "busy": busy,
            "given": [given, self.to_give],
            "seconds": self.journal.seconds,
            "undo": oracle.undoable is not None and index is not None,
            "recent": self._recent(),
            "summary": None,
        } | self._race()
        if self._done:
            title = f"All {self.to_give} labels given; the last student is trained."
            return state | {"title": title + self._describe_pace(), "summary": self._summary()}
        if self._error:
            return state | {"title": "Stopped."}
        if busy:
            title = f"{given} of {self.to_give} labels given."
            return state | {"title": title, "progress": "Your student is being trained"}
        state |= {"index": index, "title": self._describe_progress()}
        return state | self._pictures.large(index)

    def _describe_progress(self) -> str:
        number, asked = self._query_number, self.oracle.asked
        missing = sum(i not in self.journal.labels for i in asked)
        given = (number - 1) * self.settings["query_size"] + len(asked) - missing
        text = f"{given} of {self.to_give} labelled, query {number} of {self._queries}."
        last = " Last image of this query: its answer cannot be undone." if missing == 1 else ""
        return text + self._describe_pace() + last

    @property
    def _query_number(self) -> int:
        """Number of the open query.

        A round's record is written after the answers to its query, when the next one opens.
        """
        finished = len(self.records)
        after_first = finished > 0 or self.oracle.questions > 1
        return finished + 1 + (self.settings["shots"] == 0 and after_first)

    def _describe_pace(self) -> str:
        count = len(self.journal.labels)
        return f" {self.journal.seconds / count:.1f} seconds per label." if count else ""

    def _race(self) -> dict:
        """The curves and the table beside them."""
        runs = self._runs()
        level, initial = self._level(runs), self._label_counts()[0]
        rounds = race.rounds_of(runs, initial if self.settings["shots"] else 0)
        lines = race.lines_of(runs, level)
        for line in lines:
            line["label"] = self._in_full(line["name"])
        return dict(lines=lines, rules=race.rules_of(level), rounds=rounds)

    def _in_full(self, run: str) -> str:
        """The name of a run in the legend."""
        if run == self._player:
            return f"{run}, asked by {strategy_name(self.settings['strategy'])}"
        return f"{run} with the true labels" if run in self.rivals.records else run

    def _runs(self) -> dict[str, list[RoundRecord]]:
        """The person's rounds and its rivals', these up to as many labels.

        The last round may be one whose query is still open.
        """
        own = self.records
        if self._newest and self._newest.round == len(own):
            own = [*own, self._newest]
        count = own[-1].labeled_count if own else 0
        rivals = {n: answers.until(r, count) for n, r in self.rivals.records.items()}
        return {self._player: own} | rivals

    def _level(self, runs: dict[str, list[RoundRecord]]) -> race.Level:
        return teacher_levels(runs[self._player], self._teacher_alone)

    @cached_property
    def _teacher_alone(self) -> tuple[str, float] | None:
        return teacher_level(self.data, self.teacher, self.truth)

    def _recent(self) -> list[dict]:
        """The images labelled last, newest first."""
        labels, names = self.journal.labels, self.data.classnames
        return [self._pictures.tile(i, names[labels[i]]) for i in [*labels][: -RECENT - 1 : -1]]

    def _on_message(self, page: Page, message: Mapping, buffers: Sequence) -> None:
        """Handle a message, then show the state anew: the page waits for that after each key."""
        super()._on_message(page, message, buffers)
        self._show()

    def _on_answer(self, index=None, label=None, seconds=0) -> None:
        self._handle("answer", index, seconds, label)

    def _on_skip(self, index=None, label=None, seconds=0) -> None:
        self._handle("skip", index, seconds)

    def _on_undo(self, index=None, label=None, seconds=0) -> None:
        self._handle("undo", index, seconds)

    def _handle(self, kind: str, shown: int, seconds: float, label: int | None = None) -> None:
        """Handle a key or button; shown: the image on the page, seconds: since it is there."""
        with self._lock, self.journal.changed:
            index = self.oracle.current
            if index is not None and shown == index and not self._error:
                try:
                    self._record(kind, index, max(0.0, float(seconds or 0)), label)
                except (OSError, ValueError, Stopped) as error:
                    self._feedback = str(error)

    def _record(self, kind: str, index: int, seconds: float, label: int | None) -> None:
        names = self.data.classnames
        if kind == "answer" and type(label) is int and 0 <= label < len(names):
            self.journal.answer(index, label, seconds)
            self._feedback = f"Your label: {names[label]}. {self._describe_opinion(index, label)}"
        elif kind == "skip":
            self.journal.skip(index, seconds)
            self._feedback = "Skipped. The image returns at the end of this query."
        elif kind == "undo" and (last := self.oracle.undoable) is not None:
            label = self.journal.labels[last]
            self.journal.undo(last, seconds)
            self._feedback = f"Undone: {names[label]}."

    @cached_property
    def _teacher_probs(self) -> Tensor:
        return self.teacher.probs().float().cpu()  # (N, C)

    def _describe_opinion(self, index: int, label: int) -> str:
        """The teacher's prediction for an image that was just labelled."""
        if self.teacher is None:
            return ""
        probs = self._teacher_probs[index]
        predicted = int(probs.argmax())
        if predicted == label:
            return f"The teacher agrees ({100 * probs[label]:.0f} %)."
        name = self.data.classnames[predicted]
        return (
            f"The teacher says {name} ({100 * probs[predicted]:.0f} %) "
            f"and gives yours {100 * probs[label]:.0f} %."
        )

    # Figures.

    @property
    def _annotator(self) -> str:
        assumed = f"the true labels, assuming {self.seconds_per_label:g} seconds each"
        return assumed if self.assumed else "you"

    @property
    def _missing(self) -> str:
        left = self.to_give - len(self.journal.labels)
        return f"{left} of {self.to_give} labels are still missing"

    @property
    def _player(self) -> str:
        return "true labels" if self.assumed else "you"

    @property
    def standings(self) -> pd.DataFrame:
        """One row per run that has as many labels as you: accuracy, points gained per minute.

        Columns: run, labels, accuracy_pct, gained_pct, gained_per_minute (rivals: at your pace).
        """
        return self._standings(self.result)

    def _standings(self, result: RunResult) -> pd.DataFrame:
        return answers.standings(self._runs(), answers.seconds_of(result, self.journal))

    def _summary(self) -> dict:
        """The end of the game for the page."""
        given, table = self._given(), self._standings(self._done)
        return answers.summary(given, table, self.journal.seconds, self._pictures)

    def figure(self) -> Figure:
        """The learning curves above the labelled images, one row per query, as labelled."""
        self._prepare()
        return self._figure()

    def _figure(self) -> Figure:
        given = self._given()
        labels = given.set_index("index")["label"]
        title = f"Test accuracy, and the queried images (labelled by {self._annotator})"
        if labels.empty:
            return answers.text_figure(f"Nothing to show yet: {self._missing}.", title)
        runs = self._runs()
        level, named = self._level(runs), {self._in_full(name): r for name, r in runs.items()}
        images = self.data.pool.images
        figure = answers.labelled_rows(self._query_rows(), images, labels, title=title)
        words = [race.words_of(named, level)]
        if self._done:
            table = self._standings(self._done)
            words += answers.closing_words(given, table, self.journal.seconds).values()
        return answers.with_curves(figure, named, level, given, " ".join(words))

    def _update_twin(self) -> None:
        if self._twin is not None:  # without opening the journal: another cell may have it
            self._twin.update(twin(self._figure()), raw=True)

    def against_truth(self) -> Figure:
        """The images whose label is not the true one. Raises ValueError if no truth is known."""
        if self.truth is None:
            raise ValueError(
                "the true labels are not known, or truth = False: nothing to compare with"
            )
        title, given = f"Labels by {self._annotator}, compared with the true labels", self.answers
        if given.empty:
            return answers.text_figure(f"Nothing to show yet: {self._missing}.", title)
        return answers.against_truth(given, self.data.pool.images, title=title)

    def accuracy_by_seconds(self) -> Figure:
        """Test accuracy against the seconds spent, one point per finished round."""
        self._prepare()
        if not self.records:
            title = "Accuracy against seconds spent"
            return answers.text_figure(f"Nothing to show yet: {self._missing}.", title)
        return answers.accuracy_by_seconds({self._annotator: (self.result, self.journal)})

    def _query_rows(self) -> dict[str, list[int]]:
        """The labelled images of each query, in the order of the answers."""
        order = {i: n for n, i in enumerate(self.journal.labels)}
        queries = [r.query_indices for r in self.records if r.query_indices]
        if self.settings["shots"] == 0 and self.records:
            state = load_run(self.folder, "cpu").state
            queries = [torch.nonzero(state.labeled_round == 0).flatten().tolist(), *queries]
        known = {i for query in queries for i in query}
        queries.append([i for i in order if i not in known])  # the open query
        rows = {}
        for number, query in enumerate(queries, 1):
            if row := sorted((i for i in query if i in order), key=order.get):
                rows[f"query {number}"] = row
        return rows


def question_for(data: Dataset) -> str:
    """What to ask about an image: "Which digit is this?" if the classes are digits."""
    names = data.classnames
    if all(re.fullmatch("[0-9]", name) for name in names):
        return "Which digit is this?"
    if all(re.fullmatch("[A-Za-z]", name) for name in names):
        return "Which letter is this?"
    sort = next(filter(None, map(SORT.search, data.templates)), None)
    return f"Which type of {sort[1]} is this?" if sort else "Which class is this?"


def _true_labels(data: Dataset, truth: bool | None, shots: int) -> Oracle | None:
    """The oracle of the true labels, or None if they are not known."""
    unknown = data.oracle.unknown_count
    if truth and unknown:
        raise ValueError(f"truth = True, but {unknown} of {len(data.pool)} images have no label")
    oracle = data.oracle if (not unknown if truth is None else truth) else None
    if shots and oracle is None:
        raise ValueError(
            f"shots = {shots}, but there are no true labels to pick the initial set by; "
            "use shots=0 to label the first images yourself"
        )
    return oracle
