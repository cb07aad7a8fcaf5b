"""Watch a run: its queries, its growing learning curve, the seconds of each stage."""

import inspect
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from IPython.display import display

from activekd_lite.loop import run_active_learning
from activekd_lite.plots.base import Figure, colour
from activekd_lite.pool import Dataset, Oracle
from activekd_lite.runs.folder import finished_rounds
from activekd_lite.runs.record import RoundRecord, RunResult
from activekd_lite.teacher import Teacher
from activekd_lite.widgets import race
from activekd_lite.widgets.base import Explorer, count_of, is_interactive
from activekd_lite.widgets.page import Page
from activekd_lite.widgets.pictures import Pictures
from activekd_lite.widgets.rivals import teacher_level, teacher_levels

STAGES = ("teacher", "train", "predict", "select")  # of a round, as named by the loop
MOST = 24  # pictures of a query


class RunViewer(Explorer):
    """Run and watch: `result = RunViewer(data).run(teacher, strategy="pcoreset", rounds=8)`.

    `run` displays the viewer and runs in the same cell. Alternatively, display the viewer and pass
    it to `run_active_learning(..., on_round=viewer)`, or show a finished run with `show(result)`.
    An interrupted run keeps its finished rounds on display. The teacher's accuracy is drawn, too:
    on the test set where it is known, else on the pool if all of that is labelled.

    teacher_accuracy_pct: to be drawn instead.
    rounds: number of rounds to expect, for runs not started by `run`.
    """

    def __init__(
        self, data: Dataset, *, teacher_accuracy_pct: float | None = None, rounds: int | None = None
    ):
        super().__init__()
        self.data, self.teacher_accuracy_pct, self.rounds = data, teacher_accuracy_pct, rounds
        self.records: list[RoundRecord] = []
        self.result: RunResult | None = None
        self.name, self.status = "", "No round yet."
        self._pictures, self._teacher_alone = Pictures(data.pool.images), None
        self._runs_here = False  # whether a run goes on that `run` started
        self._counts: list[int] | None = None  # labels of the first student and of the last

    def run(self, teacher: Teacher | None = None, **settings) -> RunResult:
        """Run `run_active_learning(data, teacher, **settings)` on display.

        Rounds that `out` already holds are shown at once.
        """
        parameters = inspect.signature(run_active_learning).parameters
        chosen = {name: p.default for name, p in parameters.items()} | settings
        self.rounds, self.result = chosen["rounds"], None
        self._counts = self._label_counts(chosen)
        self.records = finished_rounds(settings.get("out"))
        self._teacher_alone = teacher_level(self.data, teacher, _truth(self.data))
        self._runs_here, live = True, is_interactive()
        self._draw(self._describe_state())
        if live:
            self._display_live()
        try:
            result = run_active_learning(
                self.data, teacher, on_round=self, progress=False, **settings
            )
        except BaseException as stop:  # show whatever stopped the run, then raise it
            self._runs_here = False
            error = f"Stopped by an error ({type(stop).__name__})"
            event = "Interrupted" if isinstance(stop, KeyboardInterrupt) else error
            self._draw(f"{event} after {count_of(len(self.records), 'complete round')}.")
            raise
        self.show(result)
        if not live:
            display(self.figure())
        return result

    def __call__(self, record: RoundRecord) -> None:
        """Add a finished round; `run_active_learning` calls this as its `on_round`."""
        self.records = [r for r in self.records if r.round < record.round] + [record]
        self._draw(self._describe_state())

    def show(self, result: RunResult) -> None:
        """Show a finished run, or one that `load_run` returned."""
        self.result, self.rounds, self.name = result, result.config["rounds"], result.name
        self.records, self._runs_here = list(result.records), False
        self._counts = self._label_counts(result.config)
        self._draw(self._describe_state())

    def _label_counts(self, settings: Mapping) -> list[int] | None:
        """Labels of the first student and of the last; None for settings that make no sense."""
        try:
            return race.label_counts(settings, len(self.data.classnames))
        except TypeError:  # the run itself says what is wrong
            return None

    def _describe_state(self) -> str:
        count, total = len(self.records), "" if self.rounds is None else f" of {self.rounds}"
        if not count:
            return f"Round 0{total} is running: training the first student."
        last = self.records[-1]
        if not last.query_indices or count == (self.rounds or 0) + 1:
            return (
                f"Finished: {last.labeled_count} labels, test accuracy {last.accuracy_pct:.1f} %."
            )
        labels, before = last.labeled_count + len(last.query_indices), last.accuracy_pct
        running = f"Round {last.round + 1}{total} is running on {labels} labels"
        return f"{running}; accuracy before: {before:.1f} %."

    # The figure, for page and widget.

    def table(self) -> pd.DataFrame:
        """One row per round: labels, accuracy, seconds per stage, and labels of its query."""
        rows = []
        for r in self.records:
            row = {"round": r.round, "labels": r.labeled_count, "accuracy_pct": r.accuracy_pct}
            row |= {f"{stage}_s": round(r.seconds.get(stage, 0.0), 2) for stage in STAGES}
            rows.append(row | {"query": ", ".join(self._answers(r.query_indices).values())})
        return pd.DataFrame(rows)

    def _answers(self, query: list[int]) -> dict[int, str]:
        """Pool index -> class name given by the oracle."""
        labels = self.data.oracle.label(torch.tensor(query, dtype=torch.int64)).tolist()
        return {i: self.data.classnames[c] for i, c in zip(query, labels, strict=True)}

    def figure(self) -> Figure:
        figure = Figure(table=self.table(), alt=self._describe())
        titles = ("test accuracy (%)", "seconds per stage")
        figure.set_subplots(
            1, 2, subplot_titles=titles, horizontal_spacing=0.1, column_widths=[0.6, 0.4]
        )
        race.draw(figure, self._curves(), self._level())
        rounds, right = [r.round for r in self.records], dict(row=1, col=2)
        for place, stage in enumerate(STAGES, 1):
            seconds = np.array([r.seconds.get(stage, 0.0) for r in self.records])
            hover = f"round %{{x}}: {stage} %{{y:.2f}} s<extra></extra>"
            look = dict(marker_color=colour(place), hovertemplate=hover)
            figure.add_bar(x=rounds, y=seconds, name=stage, **look, **right)
        figure.update_xaxes(title="labels", row=1, col=1)
        figure.update_xaxes(title="round", dtick=1, **right)
        figure.update_yaxes(rangemode="tozero", **right)
        figure.update_annotations(font_size=15)
        legend = dict(orientation="h", traceorder="normal", font_size=14)
        legend |= dict(x=1, xanchor="right", y=-0.22, yanchor="top")
        margin = dict(l=10, r=10, t=40, b=10)
        return figure.update_layout(barmode="stack", height=380, margin=margin, legend=legend)

    def _curves(self) -> race.Runs:
        return {"student": self.records}

    def _level(self) -> race.Level:
        if self.teacher_accuracy_pct is not None:
            return "teacher", [self.teacher_accuracy_pct]
        return teacher_levels(self.records, self._teacher_alone)

    def _describe(self) -> str:
        if not self.records:
            return f"{self.data.name}: {self.status}"
        first, last = self.records[0], self.records[-1]
        seconds = sum(sum(r.seconds.values()) for r in self.records)
        name = f"{self.data.name}, {self.name}" if self.name else self.data.name
        text = (
            f"{name}: test accuracy {first.accuracy_pct:.1f} % at {first.labeled_count} labels to "
            f"{last.accuracy_pct:.1f} % at {last.labeled_count}, in {seconds:.0f} seconds. "
        )
        if level := self._level():
            name, accuracy = level
            return f"{text}{self.status} {name.capitalize()} alone: {accuracy[-1]:.1f} %."
        return text + self.status

    # The live page.

    def _build(self) -> Page:
        stages = [[stage, colour(place)] for place, stage in enumerate(STAGES, 1)]
        return self._page_of("viewer", view={"stages": stages} | self._state())

    def _draw(self, status: str) -> None:
        self.status = status
        if self._widget is not None:
            self._widget.update(**self._state())
            self._update_twin()

    def _state(self) -> dict:
        """All that changes on the page."""
        level, count = self._level(), len(self.records)
        rounds = [
            {
                "round": r.round,
                "labels": r.labeled_count,
                "accuracy": round(r.accuracy_pct, 2),
                "seconds": [round(r.seconds.get(stage, 0.0), 3) for stage in STAGES],
            }
            for r in self.records
        ]
        queries = [
            {"round": r.round, "count": len(r.query_indices), "tiles": self._tiles(r.query_indices)}
            for r in reversed(self.records)
            if r.query_indices
        ]
        return {
            "status": self.status,
            "error": "",
            "progress": f"round {count}" if self._runs_here else "",
            "counts": self._counts,
            "lines": race.lines_of(self._curves(), level),
            "rules": race.rules_of(level),
            "rounds": rounds,
            "queries": queries,
        }

    def _tiles(self, query: list[int]) -> list[dict]:
        return self._pictures.tiles(query[:MOST], self._answers(query[:MOST]))


def _truth(data: Dataset) -> Oracle | None:
    """The oracle, if it is a table of labels that may be looked up at any time."""
    return data.oracle if data.oracle.fingerprint() and not data.oracle.unknown_count else None
