"""Watch a run: its queries, its growing learning curve, the seconds of each stage."""

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
from activekd_lite.widgets import base
from activekd_lite.widgets.base import Explorer, is_interactive

STAGES = ("teacher", "train", "predict", "select")  # of a round, as named by the loop
CURVE, BARS = 0, slice(1, 1 + len(STAGES))  # traces of the figure


class RunViewer(Explorer):
    """Run and watch: `result = RunViewer(data).run(teacher, strategy="pcoreset", rounds=8)`.

    `run` displays the viewer and runs in the same cell. Alternatively, display the viewer and pass
    it to `run_active_learning(..., on_round=viewer)`, or show a finished run with `show(result)`.
    An interrupted run keeps its finished rounds on display.

    teacher_accuracy_pct: test accuracy of the teacher alone, drawn as a dotted line.
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

    def run(self, teacher: Teacher | None = None, **settings) -> RunResult:
        """Run `run_active_learning(data, teacher, **settings)` on display.

        Rounds that `out` already holds are shown at once.
        """
        default = inspect.signature(run_active_learning).parameters["rounds"].default
        self.rounds, self.result = settings.get("rounds", default), None
        self.records = finished_rounds(settings.get("out"))
        live = is_interactive()
        self._draw(self._describe_state())
        if live:
            self._display_live()
        try:
            result = run_active_learning(
                self.data, teacher, on_round=self, progress=False, **settings
            )
        except BaseException as stop:  # show whatever stopped the run, then raise it
            error = f"Stopped by an error ({type(stop).__name__})"
            event = "Interrupted" if isinstance(stop, KeyboardInterrupt) else error
            self._draw(f"{event} after {len(self.records)} complete rounds.")
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
        self.records = list(result.records)
        self._draw(self._describe_state())

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
        left, right = dict(row=1, col=1), dict(row=1, col=2)
        curve, bars = self._traces()
        dots = dict(mode="lines+markers", line_color=colour(0), marker_size=9, showlegend=False)
        dots["hovertemplate"] = "%{y:.1f} % at %{x} labels<extra></extra>"
        figure.add_scatter(**curve, **dots, name="student", **left)
        for place, (stage, values) in enumerate(zip(STAGES, bars, strict=True), 1):
            hover = f"round %{{x}}: {stage} %{{y:.2f}} s<extra></extra>"
            look = dict(marker_color=colour(place), hovertemplate=hover)
            figure.add_bar(**values, name=stage, **look, **right)
        if (teacher := self.teacher_accuracy_pct) is not None:
            text = f"teacher alone {teacher:.1f}"
            dotted = dict(line_dash="dot", line_color="#555555", annotation_text=text)
            figure.add_hline(teacher, **dotted, **left)
        figure.update_xaxes(title="labels", **left)
        figure.update_xaxes(title="round", dtick=1, **right)
        figure.update_yaxes(rangemode="tozero", **right)
        figure.update_annotations(font_size=15)
        legend = dict(orientation="h", traceorder="normal", font_size=14)
        legend |= dict(x=1, xanchor="right", y=-0.22, yanchor="top")
        margin = dict(l=10, r=10, t=40, b=10)
        return figure.update_layout(barmode="stack", height=380, margin=margin, legend=legend)

    def _traces(self) -> tuple[dict, list[dict]]:
        """Coordinates of the learning curve and of each stage's bars."""
        records = self.records
        accuracy = np.array([r.accuracy_pct for r in records]).round(2)
        curve = dict(x=np.array([r.labeled_count for r in records]), y=accuracy)
        rounds = np.array([r.round for r in records])
        seconds = [np.array([r.seconds.get(stage, 0.0) for r in records]) for stage in STAGES]
        return curve, [dict(x=rounds, y=values) for values in seconds]

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
        teacher = self.teacher_accuracy_pct
        return (
            text
            + self.status
            + (f" Teacher alone: {teacher:.1f} %." if teacher is not None else "")
        )

    # The live widget.

    def _build(self) -> w.Widget:
        self._live = base.live_figure(self.figure())
        self._status = base.html_box("status")
        self._queries = w.VBox().add_class("activekd-queries")
        self._shown: dict[int, list[int]] = {}  # round -> query whose pictures are displayed
        self._redraw()
        return w.VBox([self._status, self._live, self._queries]).add_class("activekd-run")

    def _draw(self, status: str) -> None:
        self.status = status
        if self._widget is not None:
            self._redraw()
            self._update_twin()

    def _redraw(self) -> None:
        self._status.value = base.status(f"<b>{self.status}</b>", 16)
        curve, bars = self._traces()
        traces = (self._live.data[CURVE], *self._live.data[BARS])
        with self._live.batch_update():
            for trace, values in zip(traces, (curve, *bars), strict=True):
                trace.update(values, overwrite=True)
        queries = {r.round: r.query_indices for r in self.records if r.query_indices}
        if queries != self._shown:
            self._draw_queries(queries)

    def _draw_queries(self, queries: dict[int, list[int]]) -> None:
        """Show the pictures of each query, newest first; boxes of unchanged queries are kept."""
        boxes = dict(zip(reversed(self._shown), self._queries.children, strict=True))
        kept = {r: box for r, box in boxes.items() if self._shown[r] == queries.get(r)}
        self._shown = queries
        self._queries.children = [kept.get(r) or self._pictures(r) for r in reversed(queries)]
        for round in boxes.keys() - kept.keys():
            base.close_all(boxes[round])

    def _pictures(self, round: int) -> w.HTML:
        answers = self._answers(self._shown[round])
        shown = base.gallery(self.data.pool.images, list(answers), answers.__getitem__)
        title = f"<b>queried after round {round}</b>"
        return w.HTML(f'<div style="font-size:14px;color:{INK}">{title}{shown}</div>')
