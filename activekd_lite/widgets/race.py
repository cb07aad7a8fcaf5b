"""Learning curves of one or more runs, and their teacher's line: for pages and static figures."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from activekd_lite.plots.base import Figure, colour, marker
from activekd_lite.runs.record import RoundRecord

TEACHER, GREY = "muted", "#666666"  # its line's colour in pages, by the theme, and in figures
TITLE = "test accuracy (%)"
Runs = Mapping[str, Sequence[RoundRecord]]
Level = tuple[str, list[float]] | None  # the teacher's name and accuracy, see `teacher_levels`


def lines_of(runs: Runs, level: Level = None) -> list[dict]:
    """One line per run with a finished round, and one for a teacher that learns.

    Fields: name, colour, marker, xs (labels), ys (accuracy in percent), dash.
    """
    lines = []
    for place, (name, records) in enumerate(runs.items()):
        line = dict(name=name, colour=colour(place), marker=marker(place), dash=False)
        line["xs"] = [r.labeled_count for r in records]
        line["ys"] = [round(r.accuracy_pct, 2) for r in records]
        if records:
            lines.append(line)
    if level and len(level[1]) > 1 and lines:
        name, ys = level
        look = dict(colour=TEACHER, marker=marker(len(runs)), dash=True)
        lines.append(dict(name=name, xs=lines[0]["xs"], ys=[round(y, 2) for y in ys], **look))
    return lines


def rules_of(level: Level = None) -> list[dict]:
    """The horizontal line of a teacher whose accuracy is the same in all rounds.

    Fields: name (short), y (percent), title (name and what was measured).
    """
    if level is None or len(level[1]) > 1:
        return []
    title, (accuracy,) = level
    return [dict(name=f"teacher {accuracy:.1f}", y=round(accuracy, 2), title=title)]


def label_counts(settings: Mapping, classes: int) -> list[int]:
    """Numbers of labels that the first student and the last of a run are trained on.

    settings: with shots, query_size and rounds, as of `run_active_learning`.
    """
    first = settings["shots"] * classes or settings["query_size"]
    return [first, first + settings["rounds"] * settings["query_size"]]


def rounds_of(runs: Runs, initial: int) -> list[dict]:
    """A table beside the curves, one row per round of the first run.

    initial: labels that nobody was asked for. Fields: round, labels, accuracy (run -> percent).
    """
    rows = []
    for record in next(iter(runs.values())):
        known = {k: r[record.round].accuracy_pct for k, r in runs.items() if record.round < len(r)}
        accuracy = {name: round(value, 1) for name, value in known.items()}
        row = {"round": record.round, "labels": record.labeled_count - initial}
        rows.append(row | {"accuracy": accuracy})
    return rows


def words_of(runs: Runs, level: Level = None) -> str:
    """The curves in a sentence: first and last accuracy of each run, the teacher's."""
    parts = []
    for name, records in runs.items():
        if records:
            first, last = records[0], records[-1]
            ends = f"{first.accuracy_pct:.1f} % at {first.labeled_count} labels"
            if len(records) > 1:
                ends += f" to {last.accuracy_pct:.1f} % at {last.labeled_count}"
            parts.append(f"{name} {ends}")
    if level:
        parts.append(f"{level[0]} {level[1][-1]:.1f} %")
    return f"Test accuracy: {'; '.join(parts)}." if parts else ""


def draw(figure: Figure, runs: Runs, level: Level = None, x: str = "x", y: str = "y") -> None:
    """Add the curves to a figure, on the axes x and y ("x2" and "y2" for its second pair)."""
    lines = lines_of(runs, level)
    for line in lines:
        stroke = GREY if line["colour"] == TEACHER else line["colour"]
        curve = go.Scatter(
            x=line["xs"],
            y=line["ys"],
            xaxis=x,
            yaxis=y,
            name=line["name"],
            mode="lines+markers",
            marker=dict(symbol=line["marker"], size=9),
            line=dict(color=stroke, dash="dash" if line["dash"] else "solid"),
            hovertemplate="%{y:.1f} % at %{x} labels",
        )
        figure.add_trace(curve)
    for rule in rules_of(level):
        dotted = dict(line=dict(color=GREY, dash="dot"), xref=f"{x} domain", yref=y)
        figure.add_shape(type="line", x0=0, x1=1, y0=rule["y"], y1=rule["y"], **dotted)
        place = dict(xref=f"{x} domain", yref=y, x=0, y=rule["y"], yanchor="bottom")
        figure.add_annotation(
            **place, text=f"{rule['title']} {rule['y']:.1f}", xanchor="left", showarrow=False
        )
