"""Label the queries of a real run yourself: an image, the classes, one key press.

A thread runs the active-learning loop and waits in the oracle for answers. The page (`labeller.js`)
measures the seconds. The teacher's opinion of an image appears only after the answer. When a
program runs the notebook, the true labels answer instead.
"""

import dataclasses
import os
import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import anywidget
import pandas as pd
import torch
import traitlets
from torch import Tensor

from activekd_lite.loop import run_active_learning
from activekd_lite.plots.base import Figure, data_uri, squares
from activekd_lite.pool import Dataset, Oracle
from activekd_lite.runs.folder import finished_rounds, load_run
from activekd_lite.runs.preflight import check_labels
from activekd_lite.runs.record import RoundRecord, RunResult
from activekd_lite.teacher import Teacher
from activekd_lite.utils.files import make_folder
from activekd_lite.widgets import answers
from activekd_lite.widgets.base import Explorer, is_interactive
from activekd_lite.widgets.journal import Journal, PersonOracle, Stopped

SIDE = 288  # pixels of the image to label
ASSUMED = "true-labels"  # subfolder for runs answered by the true labels, apart from a person's


class _Page(anywidget.AnyWidget):
    """The page: `shown` holds all that it displays; answers come back as messages."""

    _esm = Path(__file__).with_suffix(".js")
    _css = Path(__file__).with_suffix(".css")
    classnames = traitlets.List().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)


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
    settings : further arguments of `run_active_learning`

    Raises
    ------
    ValueError : the settings cannot work, or `out` has answers about other images or classes
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
        self._lock, self._revision = threading.RLock(), 0
        self._feedback = self._error = ""
        by_person = dataclasses.replace(data, oracle=self._person(None))
        check_labels(by_person, rounds, query_size, shots)

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
        """Records of the finished rounds."""
        return finished_rounds(self.folder)

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

    def close(self) -> None:
        """Stop asking, release the journal, remove the widget. Displaying it again continues."""
        with self._lock:
            self._update_twin()
            super().close()
        if self.journal:
            self.journal.close("the labeller was closed; display it again to continue")
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

    def _open(self) -> None:
        journal, folder = self.journal, self.folder.absolute()
        if journal is None or journal.closed or journal.path.parent != folder:
            if journal:
                journal.close()
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

        settings = dict(out=self.folder, progress=False, on_round=show_round)
        return run_active_learning(data, self.teacher, **self.settings | settings)

    def _run(self, oracle: PersonOracle) -> None:
        """Run all rounds, or until the journal is closed; the target of the thread."""
        try:
            self._done = self._loop(oracle)
        except Stopped as stopped:
            self._error = str(stopped)
        except Exception as error:  # show any error: a thread's traceback is easily missed
            self._error = f"{type(error).__name__}: {error}"
        self._refresh()

    def _answer_truly(self) -> None:
        """Answer the open query with the true labels."""
        asked = [i for i in self.oracle.asked if i not in self.journal.labels]
        for index, label in zip(asked, self._true_labels_of(asked), strict=True):
            self.journal.answer(index, label, self.seconds_per_label)

    def _true_labels_of(self, indices: list[int]) -> list[int]:
        return self.truth.label(torch.tensor(indices, dtype=torch.int64)).tolist()

    # The page and its messages.

    def _build(self) -> _Page:
        self._widget = page = _Page(classnames=list(self.data.classnames))  # the thread needs it
        page.on_msg(self._on_message)
        self.start()
        self._show()
        return page

    def _refresh(self) -> None:
        self._show()
        self._update_twin()

    def _show(self) -> None:
        with self._lock:
            if self._widget is not None:
                self._widget.shown = self._state()

    def _state(self) -> dict:
        """All that the page shows.

        `revision` always differs, so that the page is notified even if an answer was rejected.
        """
        oracle, self._revision = self.oracle, self._revision + 1
        index = oracle.current
        state = {
            "revision": self._revision,
            "events": len(self.journal.events),
            "index": -1,
            "feedback": self._feedback,
            "error": self._error,
            "rounds": self._describe_rounds(),
            "undo": oracle.undoable is not None and index is not None,
        }
        if self._done:
            title = f"All {self.to_give} labels given; the last student is trained."
            return state | {"title": title + self._describe_pace()}
        if self._error:
            return state | {"title": "Stopped."}
        if index is None:
            title = f"{len(self.journal.labels)} of {self.to_give} labels given. Training ..."
            return state | {"title": title, "busy": True}
        state |= {"index": index, "title": self._describe_progress()}
        return state | {"image": self._image(index), "alt": f"image {index} of the pool"}

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
        after_first = bool(self.records) or self.oracle.questions > 1
        return len(self.records) + 1 + (self.settings["shots"] == 0 and after_first)

    def _describe_pace(self) -> str:
        count = len(self.journal.labels)
        return f" {self.journal.seconds / count:.1f} seconds per label." if count else ""

    def _describe_rounds(self) -> list[str]:
        initial = self.settings["shots"] * len(self.data.classnames)
        return [
            f"Round {r.round}, {r.labeled_count - initial} labels from you: "
            f"student accuracy {r.accuracy_pct:.1f} %"
            for r in self.records
        ]

    def _image(self, index: int) -> str:
        picture = squares(self.data.pool.images, [index], SIDE)[0]
        return data_uri(picture.permute(1, 2, 0).numpy(), quality=90)

    def _on_message(self, page: _Page, message: Mapping, buffers: object) -> None:
        """Handle a key or button.

        message: kind ("answer", "undo" or "skip"), index (the image on the page), seconds, label.
        """
        with self._lock, self.journal.changed:
            index = self.oracle.current
            if index is not None and message.get("index") == index and not self._error:
                try:
                    self._record(index, message)
                except (OSError, ValueError, Stopped) as error:
                    self._feedback = str(error)
        self._show()

    def _record(self, index: int, message: Mapping) -> None:
        names, label, kind = self.data.classnames, message.get("label"), message.get("kind")
        seconds = max(0.0, float(message.get("seconds") or 0))
        if kind == "answer" and isinstance(label, int) and 0 <= label < len(names):
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
            return f"The teacher agrees ({probs[label]:.0%})."
        name = self.data.classnames[predicted]
        return f"The teacher says {name} ({probs[predicted]:.0%}); your label: {probs[label]:.0%}."

    # Figures.

    @property
    def _annotator(self) -> str:
        assumed = f"the true labels, assuming {self.seconds_per_label:g} seconds each"
        return assumed if self.assumed else "you"

    @property
    def _missing(self) -> str:
        left = self.to_give - len(self.journal.labels)
        return f"{left} of {self.to_give} labels are still missing"

    def figure(self) -> Figure:
        """The labelled images, one row of pictures per query, with the labels given."""
        labels = self.answers.set_index("index")["label"]
        title = f"Queried images in the order of labelling (by {self._annotator})"
        if labels.empty:
            return answers.text_figure(f"Nothing to show yet: {self._missing}.", title)
        rows = self._query_rows()
        return answers.labelled_rows(rows, self.data.pool.images, labels, title=title)

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
