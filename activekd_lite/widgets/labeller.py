"""The reader as the oracle of a real run: an image, the classes, a key; every answer on disk before the next image is shown.

A thread runs the loop and waits in the oracle for answers; the page (`labeller.js`) measures the seconds. What the teacher
says of an image is shown once it is answered. Where a program runs the notebook, the true labels answer.
"""

import dataclasses
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import anywidget
import pandas as pd
import torch
import traitlets
from torch import Tensor

from activekd_lite.loop import run_active_learning
from activekd_lite.plots.base import Figure, data_uri, squares
from activekd_lite.pool import Dataset
from activekd_lite.runs.folder import finished_rounds, load_run
from activekd_lite.runs.preflight import check_labels
from activekd_lite.runs.record import RoundRecord, RunResult
from activekd_lite.teacher import Teacher
from activekd_lite.utils.files import make_folder
from activekd_lite.widgets import answers
from activekd_lite.widgets.base import Explorer, somebody_there
from activekd_lite.widgets.journal import Journal, PersonOracle, Stopped

SIDE = 288  # pixels of the image to be labelled
ASSUMED = "true-labels"  # the folder of a run that true labels answered: a reader's own is never mixed with it


class _Page(anywidget.AnyWidget):
    """What is on the page. `shown` goes there as a whole; answers come back as messages with the index they are about."""

    _esm = Path(__file__).with_suffix(".js")
    _css = Path(__file__).with_suffix(".css")
    classnames = traitlets.List().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)


class Labeller(Explorer):
    """Label the queries of `run_active_learning(data, teacher, ...)` yourself, with the keyboard.

    rounds queries of query_size images; shots = 1: an image of each class is labelled at the start (by the true labels, as you
    would pick them out by hand), 0: you label the first query_size, too. out: the run's folder, with `answers.jsonl`, the
    journal; the same `out` goes on where it stopped, after a killed kernel, too. truth: are the labels of `data` true ones?
    None: where there is one for each image. seconds_per_label: what is assumed where the true labels answer. Further
    settings go to `run_active_learning`.

    Raises ValueError for settings that cannot work and for an `out` with answers about other images or classes.
    """

    def __init__(
        self, data: Dataset, teacher: Teacher | None = None, *, strategy="pcoreset", rounds: int = 3, query_size: int = 10,
        seed: int = 0, shots: int = 1, out: str | os.PathLike = "runs/mine", truth: bool | None = None,
        seconds_per_label: float = 2.0, **settings,
    ):  # fmt: skip
        super().__init__()
        known = data.oracle.unknown_count == 0
        if truth and not known:
            raise ValueError(
                f"truth = True, but {data.oracle.unknown_count} of {len(data.pool)} images have no label"
            )
        self.truth = data.oracle if (known if truth is None else truth) else None
        if shots and self.truth is None:
            raise ValueError(
                f"shots = {shots}, but no true labels to pick them by; with shots=0 you label the first, too"
            )
        self.data, self.teacher, self.out, self.seconds_per_label = (
            data,
            teacher,
            Path(out),
            seconds_per_label,
        )
        self.settings = (
            dict(strategy=strategy, rounds=rounds, query_size=query_size, seed=seed, shots=shots)
            | settings
        )
        self.assumed = not somebody_there()
        self.journal: Journal | None = None
        self.oracle: PersonOracle | None = None
        self._thread: threading.Thread | None = None
        self._done: RunResult | None = None
        self._lock, self._turn = threading.RLock(), 0
        self._said = self._error = ""
        check_labels(
            dataclasses.replace(data, oracle=self._person(None)), rounds, query_size, shots
        )

    @property
    def folder(self) -> Path:
        """Where run and journal are: `out`, or a folder in it where the true labels answer."""
        return self.out / ASSUMED if self.assumed else self.out

    @property
    def to_give(self) -> int:
        """How many labels the whole run asks for."""
        return (self.settings["rounds"] + (self.settings["shots"] == 0)) * self.settings[
            "query_size"
        ]

    @property
    def done(self) -> bool:
        """Is the last round finished? False, too, before anything has begun."""
        return len(self.records) == self.settings["rounds"] + 1

    @property
    def records(self) -> list[RoundRecord]:
        """Of the rounds that are finished."""
        return finished_rounds(self.folder)

    @property
    def result(self) -> RunResult:
        """The run so far, its whole rounds. Raises RuntimeError, saying how many labels are still to be given, when none is."""
        self._ready()
        if self._done:
            return self._done
        if not self.records:
            left = self.to_give - len(self.journal.labels)
            raise RuntimeError(
                f"no round is finished yet: {left} of {self.to_give} labels are still to be given"
            )
        return load_run(self.folder, self.settings.get("device", "auto"))

    @property
    def answers(self) -> pd.DataFrame:
        """A row for each answer in the order given: index, label, seconds (all that were spent on the image); where they are
        known, true; and teacher, what it says, with its confidence."""
        self._ready()
        labels, spent = (
            self.journal.labels,
            pd.DataFrame(self.journal.events, columns=["index", "seconds"]),
        )
        spent, index = spent.groupby("index")["seconds"].sum(), list(labels)
        name = self.data.classnames.__getitem__
        table = pd.DataFrame(
            {
                "index": index,
                "label": map(name, labels.values()),
                "seconds": [spent[i] for i in index],
            }
        )
        if self.truth:
            table["true"] = list(
                map(name, self.truth.label(torch.tensor(index, dtype=torch.int64)).tolist())
            )
        if self.teacher:
            confidence, said = self._teacher_probs[index].max(dim=1)
            table["teacher"], table["confidence"] = (
                list(map(name, said.tolist())),
                confidence.tolist(),
            )
        return table

    def start(self) -> None:
        """Begin, or go on, with a person who answers. Showing the labeller does it, too."""
        self.assumed = False
        self._open()
        if self._thread is None and self._done is None:
            self._error = ""
            self._thread = threading.Thread(
                target=self._run, args=(self.oracle,), daemon=True, name=f"labeller of {self.out}"
            )
            self._thread.start()

    def close(self) -> None:
        """Stop asking, let others have the journal, take the widget off the page. Showing it again goes on."""
        with self._lock:
            self._update_twin()
            super().close()
        if self.journal:
            self.journal.close("the labeller was closed; show it again to go on")
        self._thread = None

    def _ready(self) -> None:
        """There is a journal; and where nobody is there to label, the true labels have answered."""
        self._open()
        if self.assumed and self._done is None:
            if self.truth is None:
                raise RuntimeError(
                    f"{self.to_give} labels are to be given, and nobody is there who knows them: use JupyterLab"
                )
            self._done = self._loop(self.oracle)

    def _open(self) -> None:
        if (
            self.journal is None
            or self.journal.closed
            or self.journal.path.parent != self.folder.absolute()
        ):
            if self.journal:
                self.journal.close()
            self.journal = Journal(make_folder(self.folder) / "answers.jsonl", self.data.pool)
            self.oracle, self._said = self._person(self.journal), self.journal.note

    def _person(self, journal: Journal | None) -> PersonOracle:
        return PersonOracle(journal, self.truth, self._hand_out if self.assumed else self._show)

    def _loop(self, oracle: PersonOracle) -> RunResult:
        data = dataclasses.replace(self.data, oracle=oracle)
        on_round = self.settings.get("on_round", lambda record: None)

        def told(record: RoundRecord) -> None:
            on_round(record)
            self._show()
            self._update_twin()

        settings = self.settings | dict(out=self.folder, progress=False, on_round=told)
        return run_active_learning(data, self.teacher, **settings)

    def _run(self, oracle: PersonOracle) -> None:
        """The thread's: all rounds, or until it is stopped."""
        try:
            self._done = self._loop(oracle)
        except Stopped as stopped:
            self._error = str(stopped)
        except Exception as error:  # of any kind: nobody would see it in a thread
            self._error = f"{type(error).__name__}: {error}"
        self._show()
        self._update_twin()

    def _hand_out(self) -> None:
        """The true labels answer what is asked."""
        journal, asked = (
            self.journal,
            [i for i in self.oracle.asked if i not in self.journal.labels],
        )
        for index, label in zip(
            asked, self.truth.label(torch.tensor(asked, dtype=torch.int64)).tolist(), strict=True
        ):
            journal.answer(index, label, self.seconds_per_label)

    # What is on the page, and what comes from it.

    def _build(self) -> _Page:
        self._widget = page = _Page(
            classnames=list(self.data.classnames)
        )  # before the thread has something to show
        page.on_msg(self._hear)
        self.start()
        self._show()
        return page

    def _show(self) -> None:
        with self._lock:
            if self._widget is not None:
                self._widget.shown = self._state()

    def _state(self) -> dict:
        """What the page shows; `turn` is never the same twice, so that it always hears of an answer that was not taken."""
        oracle, self._turn = self.oracle, self._turn + 1
        index, number = oracle.current, len(oracle.asked) and self._query_number
        given = (max(0, number - 1)) * self.settings["query_size"] + sum(
            i in self.journal.labels for i in oracle.asked
        )
        state = {"turn": self._turn, "events": len(self.journal.events), "index": -1, "said": self._said, "error": self._error,
                 "rounds": self._rounds_text(), "undo": oracle.undoable is not None and index is not None}  # fmt: skip
        if self._done:
            return state | {
                "title": f"All {self.to_give} labels are given, and the last student is trained.{self._pace()}"
            }
        if self._error:
            return state | {"title": "Stopped."}
        if index is None:
            given = len(self.journal.labels)
            return state | {
                "title": f"{given} of {self.to_give} labels given. The student is training ...",
                "busy": True,
            }
        queries = self.to_give // self.settings["query_size"]
        title = f"{given} of {self.to_give} labelled, query {number} of {queries}.{self._pace()}"
        if sum(i not in self.journal.labels for i in oracle.asked) == 1:
            title += " The last of this query: no undo after it."
        return state | {
            "index": index,
            "title": title,
            "image": self._image(index),
            "alt": f"image {index} of the pool",
        }

    @property
    def _query_number(self) -> int:
        """Of the query that is open; a round's record comes after the answers to its query, which is the next."""
        beyond = bool(self.records) or self.oracle.questions > 1
        return len(self.records) + 1 + (self.settings["shots"] == 0 and beyond)

    def _pace(self) -> str:
        count = len(self.journal.labels)
        return f" {self.journal.seconds / count:.1f} seconds a label." if count else ""

    def _rounds_text(self) -> list[str]:
        initial = self.settings["shots"] * len(self.data.classnames)
        return [
            f"round {r.round}, {r.labeled_count - initial} labels of yours: the student is {r.accuracy_pct:.1f} % right"
            for r in self.records
        ]

    def _image(self, index: int) -> str:
        picture = squares(self.data.pool.images, [index], SIDE)[0]
        return data_uri(picture.permute(1, 2, 0).numpy(), quality=90)

    def _hear(self, page: _Page, message: Mapping, buffers: object) -> None:
        """A key or a button: {"kind": "answer", "undo" or "skip", "index": the image it is about, "seconds", "label"}."""
        with self._lock, self.journal.changed:
            index, kind = self.oracle.current, message.get("kind")
            if index is not None and message.get("index") == index and not self._error:
                try:
                    self._take(
                        kind,
                        index,
                        max(0.0, float(message.get("seconds") or 0)),
                        message.get("label"),
                    )
                except (OSError, ValueError, Stopped) as error:
                    self._said = str(error)
        self._show()

    def _take(self, kind: str, index: int, seconds: float, label: int | None) -> None:
        names = self.data.classnames
        if kind == "answer" and isinstance(label, int) and 0 <= label < len(names):
            self.journal.answer(index, label, seconds)
            self._said = f"You: {names[label]}. {self._opinion(index, label)}"
        elif kind == "skip":
            self.journal.skip(index, seconds)
            self._said = "Skipped; you are asked again at the end of this query."
        elif kind == "undo" and (last := self.oracle.undoable) is not None:
            label = self.journal.labels[last]
            self.journal.undo(last, seconds)
            self._said = f"Taken back: {names[label]}."

    @property
    def _teacher_probs(self) -> Tensor:
        if not hasattr(self, "_probs"):
            self._probs = self.teacher.probs().float().cpu()  # (N, C)
        return self._probs

    def _opinion(self, index: int, label: int) -> str:
        """What the teacher says of an image that is answered."""
        if self.teacher is None:
            return ""
        probs = self._teacher_probs[index]
        said = int(probs.argmax())
        if said == label:
            return f"The teacher agrees, {probs[said]:.0%} sure."
        return f"The teacher would say {self.data.classnames[said]}, {probs[said]:.0%} sure; of yours {probs[label]:.0%}."

    # Figures.

    @property
    def _who(self) -> str:
        return (
            f"the true labels, {self.seconds_per_label:g} seconds each assumed"
            if self.assumed
            else "you"
        )

    @property
    def _nothing_yet(self) -> str:
        return f"Nothing to show yet: {self.to_give - len(self.journal.labels)} of {self.to_give} labels are still to be given."

    def figure(self) -> Figure:
        """What was asked, a line of pictures a query, with the labels that were given."""
        labels = self.answers.set_index("index")["label"]
        title = f"What was asked, in the order of the answers (by {self._who})"
        if labels.empty:
            return answers.words(self._nothing_yet, title)
        return answers.labelled_rows(self._queries(), self.data.pool.images, labels, title=title)

    def against_truth(self) -> Figure:
        """Your labels against the true ones: how many differ, and their pictures. ValueError where the truth is unknown."""
        if self.truth is None:
            raise ValueError(
                "the true labels are not known, or truth = False: nothing to compare yours with"
            )
        title = f"Labels (by {self._who}) against the true ones"
        if (given := self.answers).empty:
            return answers.words(self._nothing_yet, title)
        return answers.against_truth(given, self.data.pool.images, title=title)

    def accuracy_by_seconds(self) -> Figure:
        """Test accuracy against the seconds spent, a point for each finished round."""
        self._ready()
        if not self.records:
            return answers.words(self._nothing_yet, "Accuracy against seconds spent")
        return answers.accuracy_by_seconds({self._who: (self.result, self.journal)})

    def _queries(self) -> dict[str, list[int]]:
        """The labelled images of each query, in the order of the answers."""
        place = {i: n for n, i in enumerate(self.journal.labels)}
        asked = [r.query_indices for r in self.records if r.query_indices]
        if self.settings["shots"] == 0 and self.records:
            state = load_run(self.folder, "cpu").state
            asked = [torch.nonzero(state.labeled_round == 0).flatten().tolist(), *asked]
        known = {i for query in asked for i in query}
        asked.append([i for i in place if i not in known])  # of the query that is open
        rows = {
            f"query {n}": sorted((i for i in query if i in place), key=place.get)
            for n, query in enumerate(asked, 1)
        }
        return {name: row for name, row in rows.items() if row}
