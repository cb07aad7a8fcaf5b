"""A run as it happens: what is asked for, the learning curve as it grows, where the seconds go."""

import inspect

import ipywidgets as w
import numpy as np
import pandas as pd
import torch
from IPython.display import display

from activekd_lite.loop import run_active_learning
from activekd_lite.plots.base import INK, Figure, colour
from activekd_lite.pool import Dataset
from activekd_lite.runs.folder import finished_rounds
from activekd_lite.runs.record import RoundRecord, RunResult
from activekd_lite.teacher import Teacher
from activekd_lite.widgets.base import Explorer, close_all, gallery, live_figure, somebody_there

STAGES = ("teacher", "train", "predict", "select")  # of a round, as the loop names them
CURVE, BARS = 0, slice(1, 1 + len(STAGES))  # the traces of the figure


class RunViewer(Explorer):
    """`result = RunViewer(data).run(teacher, strategy="pcoreset", rounds=8)`: run, and watch it.

    Shows itself, then runs in the same cell; `viewer.result` is the result. By hand: show the viewer, and give it to
    `run_active_learning(..., on_round=viewer)`; or show a finished run with `viewer.show(result)`. Interrupting the cell
    leaves what there is. teacher_accuracy_pct: of the teacher alone on the test set, drawn as a dotted line. rounds: how many
    are to come, where `run` does not say it.
    """

    def __init__(
        self, data: Dataset, *, teacher_accuracy_pct: float | None = None, rounds: int | None = None
    ):
        super().__init__()
        self.data, self.teacher_accuracy_pct, self.rounds = data, teacher_accuracy_pct, rounds
        self.records: list[RoundRecord] = []
        self.result: RunResult | None = None
        self.name, self.status = "", "No round yet."

    def run(self, teacher: Teacher | None = None, **settings) -> RunResult:
        """`run_active_learning(data, teacher, **settings)`, watched. Rounds that `out` holds already are shown at once."""
        default = inspect.signature(run_active_learning).parameters["rounds"].default
        self.rounds, self.result, self.records = (
            settings.get("rounds", default),
            None,
            finished_rounds(settings.get("out")),
        )
        live = somebody_there()
        self._draw(self._running())
        if live:
            self._display_live()
        try:
            result = run_active_learning(
                self.data, teacher, on_round=self, progress=False, **settings
            )
        except BaseException as stop:  # whatever stops the run is said here, and goes on
            how = (
                "Interrupted"
                if isinstance(stop, KeyboardInterrupt)
                else f"Stopped by an error ({type(stop).__name__})"
            )
            self._draw(f"{how} after {len(self.records)} whole rounds.")
            raise
        self.show(result)
        if not live:
            display(self.figure())
        return result

    def __call__(self, record: RoundRecord) -> None:
        """The next round is over: what `run_active_learning` calls as `on_round`."""
        self.records = [r for r in self.records if r.round < record.round] + [record]
        self._draw(self._running())

    def show(self, result: RunResult) -> None:
        """Show a run that is over, or was read by `load_run`."""
        self.result, self.rounds, self.name = result, result.config["rounds"], result.name
        self.records = list(result.records)
        self._draw(self._running())

    def _running(self) -> str:
        count = len(self.records)
        if self.records and (not self.records[-1].query_indices or count == (self.rounds or 0) + 1):
            last = self.records[-1]
            return f"Finished: {last.labeled_count} labels, {last.accuracy_pct:.1f} % right on the test set."
        of = "" if self.rounds is None else f" of {self.rounds}"
        if not count:
            return f"Round 0{of} is running: the first student learns."
        last = self.records[-1]
        labels = last.labeled_count + len(last.query_indices)
        return f"Round {last.round + 1}{of} is running on {labels} labels; before, {last.accuracy_pct:.1f} % right."

    # The figure, for both faces.

    def table(self) -> pd.DataFrame:
        """A row a round: its labels, accuracy, seconds per stage, and what was asked for afterwards."""
        rows = [
            {"round": r.round, "labels": r.labeled_count, "accuracy_pct": r.accuracy_pct}
            | {f"{stage}_s": round(r.seconds.get(stage, 0.0), 2) for stage in STAGES}
            | {"asked for": ", ".join(self._answers(r.query_indices).values())}
            for r in self.records
        ]
        return pd.DataFrame(rows)

    def _answers(self, query: list[int]) -> dict[int, str]:
        """Pool index -> the label that the oracle gave for it."""
        labels = self.data.oracle.label(torch.tensor(query, dtype=torch.int64)).tolist()
        return {i: self.data.classnames[c] for i, c in zip(query, labels, strict=True)}

    def figure(self) -> Figure:
        figure = Figure(table=self.table(), alt=self._words())
        figure.set_subplots(
            1, 2, subplot_titles=self._titles(), horizontal_spacing=0.1, column_widths=[0.6, 0.4]
        )
        curve, bars = self._data()
        dots = dict(
            mode="lines+markers",
            line_color=colour(0),
            marker_size=9,
            name="student",
            showlegend=False,
        )
        figure.add_scatter(
            **curve, **dots, hovertemplate="%{y:.1f} % at %{x} labels<extra></extra>", row=1, col=1
        )
        for place, (stage, values) in enumerate(zip(STAGES, bars, strict=True), 1):
            hover = f"round %{{x}}: {stage} %{{y:.2f}} s<extra></extra>"
            figure.add_bar(
                **values, name=stage, marker_color=colour(place), hovertemplate=hover, row=1, col=2
            )
        if self.teacher_accuracy_pct is not None:
            figure.add_hline(self.teacher_accuracy_pct, line_dash="dot", line_color="#555555", row=1, col=1,
                             annotation_text=f"teacher alone {self.teacher_accuracy_pct:.1f}")  # fmt: skip
        figure.update_xaxes(title="labels", row=1, col=1).update_xaxes(
            title="round", dtick=1, row=1, col=2
        )
        figure.update_yaxes(rangemode="tozero", row=1, col=2)
        figure.update_annotations(font_size=15)
        return figure.update_layout(
            barmode="stack", height=380, margin=dict(l=10, r=10, t=40, b=10),
            legend=dict(orientation="h", traceorder="normal", x=1, xanchor="right", y=-0.22, yanchor="top", font_size=14),
        )  # fmt: skip

    def _data(self) -> tuple[dict, list[dict]]:
        rounds = np.array([r.round for r in self.records])
        curve = dict(
            x=np.array([r.labeled_count for r in self.records]),
            y=np.array([r.accuracy_pct for r in self.records]).round(2),
        )
        bars = [
            dict(x=rounds, y=np.array([r.seconds.get(stage, 0.0) for r in self.records]))
            for stage in STAGES
        ]
        return curve, bars

    def _titles(self) -> tuple[str, str]:
        return "test accuracy (%)", "seconds per stage"

    def _words(self) -> str:
        if not self.records:
            return f"{self.data.name}: {self.status}"
        first, last = self.records[0], self.records[-1]
        seconds = sum(sum(r.seconds.values()) for r in self.records)
        teacher = (
            ""
            if self.teacher_accuracy_pct is None
            else f" The teacher alone: {self.teacher_accuracy_pct:.1f} %."
        )
        return (
            f"{self.data.name}{f', {self.name}' if self.name else ''}: test accuracy {first.accuracy_pct:.1f} % at "
            f"{first.labeled_count} labels to {last.accuracy_pct:.1f} % at {last.labeled_count}, in {seconds:.0f} seconds. "
            f"{self.status}{teacher}"
        )

    # The live face.

    def _build(self) -> w.Widget:
        self._live = live_figure(self.figure())
        self._said = w.HTML().add_class("activekd-status")
        self._queries = w.VBox().add_class("activekd-queries")
        self._shown: dict[int, list[int]] = {}  # round -> the query whose pictures are there
        box = w.VBox([self._said, self._live, self._queries]).add_class("activekd-run")
        self._redraw()
        return box

    def _draw(self, status: str) -> None:
        self.status = status
        if self._widget is not None:
            self._redraw()
            self._update_twin()

    def _redraw(self) -> None:
        self._said.value = (
            f'<div role="status" style="font-size:16px;color:{INK}"><b>{self.status}</b></div>'
        )
        curve, bars = self._data()
        with self._live.batch_update():
            for trace, values in zip(
                (self._live.data[CURVE], *self._live.data[BARS]), (curve, *bars), strict=True
            ):
                trace.update(values, overwrite=True)
        queries = {r.round: r.query_indices for r in self.records if r.query_indices}
        if queries != self._shown:
            kept = {r: box for r, box in zip(reversed(self._shown), self._queries.children, strict=True)
                    if self._shown[r] == queries.get(r)}  # fmt: skip
            gone = [box for box in self._queries.children if box not in kept.values()]
            self._shown = queries
            self._queries.children = [kept.get(r) or self._pictures(r) for r in reversed(queries)]
            for box in gone:
                close_all(box)

    def _pictures(self, round: int) -> w.HTML:
        answers = self._answers(self._shown[round])
        shown = gallery(self.data.pool.images, list(answers), answers.__getitem__)
        return w.HTML(
            f'<div style="font-size:14px;color:{INK}"><b>asked for after round {round}</b>{shown}</div>'
        )
