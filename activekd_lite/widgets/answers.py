"""What a person's answers amount to: figures, standings against rivals, label errors."""

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go
import torch
from torch import Tensor

from activekd_lite.plots.base import Figure, colour, marker
from activekd_lite.plots.runs import image_rows
from activekd_lite.runs.record import RoundRecord, RunResult
from activekd_lite.utils.images import ImageFiles
from activekd_lite.widgets import race
from activekd_lite.widgets.base import count_of
from activekd_lite.widgets.journal import Journal
from activekd_lite.widgets.pictures import Pictures

COLUMNS = 12  # pictures in a row
SHOWN = 8  # pairs of confused classes in a summary


def labelled_rows(
    rows: Mapping[str, Sequence[int]],
    images: Tensor | ImageFiles,
    labels: Mapping[int, str],
    *,
    tile: int = 56,
    title: str = "",
) -> Figure:
    """`plots.image_rows` with the labels on hover and, where short enough, on the pictures.

    rows: name -> pool indices, of which 12 are shown. labels: pool index -> class name.
    """
    figure = image_rows(rows, images, labels, tile=tile, columns=COLUMNS, title=title)
    shown = [
        dict(x=(x + 1) * tile - 3, y=(y + 1) * tile - 3, text=labels[i])
        for y, row in enumerate(rows.values())
        for x, i in enumerate(row[:COLUMNS])
    ]
    if max(len(label["text"]) for label in shown) <= tile // 8:
        corner = dict(xanchor="right", yanchor="bottom", bgcolor="white", borderpad=1, opacity=0.9)
        for label in shown:
            figure.add_annotation(**label, **corner, showarrow=False, font_size=13)
    return figure


def with_curves(
    figure: Figure, runs: race.Runs, level: race.Level, given: pd.DataFrame, words: str
) -> Figure:
    """Put learning curves above the pictures of `labelled_rows`.

    given: a labeller's answers, joined to the figure's table; words: added to its alternative text.
    """
    table = figure.table.drop(columns="image").merge(given, on="index", how="left")
    both = Figure(figure.data, figure.layout, table=table, alt=f"{figure.alt} {words}")
    if not any(runs.values()):
        return both
    pictures, curves, gap = figure.layout.height, 300, 70
    height = pictures + curves + gap
    share = (pictures - figure.layout.margin.t) / height
    both.update_yaxes(domain=[0, share])
    race.draw(both, runs, level, "x2", "y2")
    both.update_layout(
        height=height,
        xaxis2=dict(anchor="y2", title="labels"),
        yaxis2=dict(anchor="x2", domain=[share + gap / height, 1], title=race.TITLE),
        showlegend=True,
    )
    return both


def against_truth(given: pd.DataFrame, images: Tensor | ImageFiles, *, title: str = "") -> Figure:
    """The images whose label is not the true one, one row of pictures per true class.

    given: columns index, label and true.
    """
    wrong = given[given["label"] != given["true"]]
    summary = f"{len(wrong)} of {len(given)} labels differ from the true ones"
    if wrong.empty:
        return text_figure(f"{summary}.", title, given)
    classes = wrong.groupby("true", sort=False)["index"]
    rows = {f"true: {name}": indices.tolist() for name, indices in classes}
    labels = wrong.set_index("index")["label"]
    figure = labelled_rows(rows, images, labels, title=f"{title}: {summary}")
    return figure.update_layout(margin_l=150)


def accuracy_by_seconds(
    runs: Mapping[str, tuple[RunResult, Journal | float]], *, title: str = ""
) -> Figure:
    """Test accuracy against the seconds spent on labelling, one line per run.

    runs: name -> (run, its journal or the assumed seconds per label). An initial set that the true
    labels gave (shots > 0) takes no time.
    """
    tables, lines, summaries = [], [], []
    for place, (name, (result, spent)) in enumerate(runs.items()):
        table = _time_spent(result, spent).assign(run=name)
        tables.append(table)
        line = dict(line_color=colour(place), marker=dict(symbol=marker(place), size=10))
        line |= dict(x=table["seconds"], y=table["accuracy_pct"], customdata=table["labels"])
        hover = "%{customdata} labels, %{x:.0f} s: %{y:.1f} %"
        lines.append(go.Scatter(**line, mode="lines+markers", name=name, hovertemplate=hover))
        ends = [
            f"{r.accuracy_pct:.1f} % at {r.seconds:.0f} s" for r in table.iloc[[0, -1]].itertuples()
        ]
        summaries.append(f"{name}: {', '.join(ends)}")
    alt = f"Test accuracy against seconds of labelling. {'; '.join(summaries)}."
    figure = Figure(lines, table=pd.concat(tables, ignore_index=True), alt=alt)
    figure.update_xaxes(title="seconds spent on labels", rangemode="tozero")
    figure.update_yaxes(title="test accuracy (%)")
    only = f" ({next(iter(runs))})" if len(runs) == 1 else ""
    title = title or f"Accuracy against seconds spent{only}"
    return figure.update_layout(title=title, showlegend=len(runs) > 1)


def _time_spent(result: RunResult, spent: Journal | float) -> pd.DataFrame:
    """One row per round: labels queried so far, seconds they took, test accuracy."""
    start = torch.nonzero(result.state.labeled_round == 0).flatten().tolist()
    asked, rows = [] if result.config["shots"] else start, []
    for record in result.records:
        seconds = spent.seconds_until(asked) if isinstance(spent, Journal) else spent * len(asked)
        rows.append((len(asked), seconds, record.accuracy_pct))
        asked = asked + record.query_indices
    return pd.DataFrame(rows, columns=["labels", "seconds", "accuracy_pct"])


def seconds_of(result: RunResult, journal: Journal) -> float:
    """Seconds of labelling between the first student and the last."""
    seconds = _time_spent(result, journal)["seconds"]
    return float(seconds.iloc[-1] - seconds.iloc[0])


def until(records: Sequence[RoundRecord], labeled_count: int) -> list[RoundRecord]:
    """The records with at most `labeled_count` labels."""
    return [r for r in records if r.labeled_count <= labeled_count]


def standings(runs: Mapping[str, Sequence[RoundRecord]], seconds: float = 0.0) -> pd.DataFrame:
    """Compare runs at the largest number of labels of the first of them; others may lack it.

    seconds: what the labels took; the other runs are taken to need as long.
    Columns: run, labels, accuracy_pct, gained_pct (since the first round), gained_per_minute (NaN
    if no time was spent).
    """
    labels, rows = next(iter(runs.values()))[-1].labeled_count, []
    for name, records in runs.items():
        last = next((r for r in records if r.labeled_count == labels), None)
        if last is not None:
            gained = last.accuracy_pct - records[0].accuracy_pct
            pace = 60 * gained / seconds if seconds else float("nan")
            rows.append((name, labels, last.accuracy_pct, gained, pace))
    columns = ["run", "labels", "accuracy_pct", "gained_pct", "gained_per_minute"]
    return pd.DataFrame(rows, columns=columns)


def confusions(given: pd.DataFrame) -> pd.DataFrame:
    """The labels that differ from the true ones, most frequent first.

    given: columns index, label and true. Returns columns true, label, count and indices.
    """
    wrong = given[given["label"] != given["true"]]
    pairs = [
        (true, label, len(group), group["index"].tolist())
        for (true, label), group in wrong.groupby(["true", "label"], sort=False)
    ]
    table = pd.DataFrame(pairs, columns=["true", "label", "count", "indices"])
    return table.sort_values("count", ascending=False, kind="stable", ignore_index=True)


def teacher_against(given: pd.DataFrame) -> dict[str, list[int]]:
    """Pool indices of the images on which person and teacher differ, by who is right.

    given: columns index, label and teacher; true, if known.
    Keys: "corrected" (only the person is right), "missed" (only the teacher is), "neither"; or
    "open", if the true labels are not known.
    """
    differ = given[given["label"] != given["teacher"]]
    if "true" not in given:
        return {"open": differ["index"].tolist()}
    person, teacher = differ["label"] == differ["true"], differ["teacher"] == differ["true"]
    groups = {"corrected": person, "missed": teacher, "neither": ~person & ~teacher}
    return {name: differ.loc[chosen, "index"].tolist() for name, chosen in groups.items()}


def closing_words(given: pd.DataFrame, table: pd.DataFrame, seconds: float) -> dict[str, str]:
    """What a finished run has shown, in sentences.

    given: a labeller's answers; table: see `standings`, the person first; seconds: spent in all.
    Keys: pace, gain; labels, if the true ones are known; teacher, if there is one.
    """
    count, each = len(given), seconds / max(1, len(given))
    words = {"pace": f"{count_of(count, 'label')} in {seconds:.0f} s, {each:.1f} s each."}
    words["gain"] = _gain_words(table)
    if "true" in given:
        wrong = confusions(given)
        words["labels"] = f"{wrong['count'].sum()} of {count} labels differ from the true ones"
        pairs = [f"{r.true} labelled {r.label} ({r.count})" for r in _rows(wrong.head(3))]
        words["labels"] += f": {', '.join(pairs)}." if pairs else "."
    if "teacher" in given:
        words["teacher"] = _teacher_words(given)
    return words


def summary(
    given: pd.DataFrame, table: pd.DataFrame, seconds: float, pictures: Pictures
) -> dict[str, object]:
    """`closing_words`, standings, and the images behind them, as JSON for a page.

    Keys: words; standings; confusions (true, label, tiles), the most frequent ones; teacher: tiles
    by the groups of `teacher_against`.
    """
    labels = dict(zip(given["index"], given["label"], strict=True))
    pairs, groups = [], {}
    if "true" in given:
        for row in _rows(confusions(given).head(SHOWN)):
            tiles = pictures.tiles(row.indices, dict.fromkeys(row.indices, ""))
            pairs.append({"true": row.true, "label": row.label, "tiles": tiles})
    if "teacher" in given:
        groups = {k: pictures.tiles(v, labels) for k, v in teacher_against(given).items()}
    rows = table.round(1).astype(object).where(table.notna(), None).to_dict(orient="records")
    words = closing_words(given, table, seconds)
    if pairs:
        words["labels"] = words["labels"].partition(":")[0] + ":"  # the pictures say the rest
    return {"words": words, "standings": rows, "confusions": pairs, "teacher": groups}


def _gain_words(table: pd.DataFrame) -> str:
    person, *rivals = _rows(table)
    gained = round(person.gained_pct, 1)
    verb, points = ("lost" if gained < 0 else "gained"), abs(gained)
    text = f"The student {verb} {points:.1f} points of test accuracy"
    if person.gained_per_minute == person.gained_per_minute:  # not NaN
        text += f", {abs(person.gained_per_minute):.1f} per minute of labelling"
    others = [f"{r.run} {f'{r.gained_pct:+.1f}'.replace('-', '−')}" for r in rivals]
    return f"{text}; with the true labels: {', '.join(others)}." if others else f"{text}."


def _teacher_words(given: pd.DataFrame) -> str:
    groups = {name: len(indices) for name, indices in teacher_against(given).items()}
    if "open" in groups:
        return f"The teacher disagrees on {groups['open']} of {len(given)} images."
    wrong = int((given["teacher"] != given["true"]).sum())
    if wrong == 0:
        text = f"The teacher gets all {len(given)} images right."
    else:
        text = f"The teacher gets {wrong} of {len(given)} images wrong; the labels correct "
        text += f"{groups['corrected']} of these mistakes."
    missed = groups["missed"]
    return f"{text} On {count_of(missed, 'image')}, only the teacher is right." if missed else text


def _rows(table: pd.DataFrame) -> list:
    return list(table.itertuples(index=False))


def text_figure(message: str, title: str, table: pd.DataFrame | None = None) -> Figure:
    """A figure with a sentence in place of data."""
    figure = Figure(table=table, alt=f"{title}: {message}")
    place = dict(x=0, y=0.5, xref="paper", yref="paper", xanchor="left")
    figure.add_annotation(**place, text=message, showarrow=False, font_size=18)
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return figure.update_layout(title=title, height=170)
