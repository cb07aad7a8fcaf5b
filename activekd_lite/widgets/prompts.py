"""Try other prompts on the teacher while you type: images are encoded already, text is fast."""

import contextlib
import html
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import ipywidgets as w
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
import torch.nn.functional as F
from plotly.colors import sample_colorscale
from torch import Tensor

from activekd_lite.cache import TeacherCache
from activekd_lite.datasets import shapes
from activekd_lite.datasets.embedded import colours_of_shapes
from activekd_lite.plots.base import INK, PALE, Figure, colour, marker
from activekd_lite.plots.maps import (
    HIDDEN,
    SIDE,
    add_triangle,
    corner_labels,
    kind_of,
    most_mixed_up,
    triangle,
    triangle_lines,
)
from activekd_lite.pool import Dataset
from activekd_lite.scores import accuracy_pct
from activekd_lite.teacher import ZeroShotTeacher
from activekd_lite.utils.checks import check_templates
from activekd_lite.vlm import VLM
from activekd_lite.widgets import base, scatter
from activekd_lite.widgets.base import Explorer

Task = tuple[Sequence[str], Sequence[str], Tensor | Callable[[], Tensor] | None]
CACHED = 20_000  # prompts whose features are kept
FEW = 16  # with more classes, their names appear on hover only
RANGE = dict(x=(-0.2 * SIDE, 1.2 * SIDE), y=(-0.12 * SIDE, 1.0 * SIDE))  # of the triangle
WARM = ("#F7F7F7", "#F6C667", "#D9822B", "#B04F14", "#8C2D04")  # colours of shares
MOST = 60  # percent; larger shares have the same colour
SHADES = np.array(sample_colorscale(list(WARM), 101))
WARNING = '<span style="color:#A33B00">&#9888; {}</span>'


class PromptExplorer(Explorer):
    """Type class names and templates, and see the teacher's answers at once.

    Shows accuracy, mean confidence, the triangle of three classes and the confusions. The last
    prompts and answers are `explorer.classnames`, `.templates` and `.probs` (N, C).

    Parameters
    ----------
    vlm : the model that made `cache`, whose features of view 0 are used
    tasks : name -> (classnames, templates, labels), other questions about the same images; labels:
        (N,) positions in classnames with -1 for unknown, a function that returns them, or None. For
        `shapes`, its patterns, figures and colours are there by default.
    task : name of the first task to show
    corners : three class names or positions, or "rest"; by default, the classes mixed up most

    Raises
    ------
    ValueError : cache of another pool or model, unknown names, labels that do not fit
    """

    def __init__(
        self,
        data: Dataset,
        vlm: VLM,
        cache: TeacherCache,
        *,
        task: str | None = None,
        tasks: Mapping[str, Task] | None = None,
        corners: Sequence[str | int] | None = None,
    ):
        super().__init__()
        encoder = cache.fingerprint["vlm"]["name"]
        if len(cache) != len(data.pool) or encoder != vlm.name:
            raise ValueError(
                f"the cache holds {len(cache)} images encoded by {encoder}, but the pool of "
                f"{data.name} has {len(data.pool)} and the model is {vlm.name}; "
                "build a matching cache with TeacherCache.build"
            )
        self.data, self.vlm, self.cache = data, vlm, cache
        self.tasks = tasks_of(data) | dict(tasks or {})
        self._features: dict[str, Tensor] = {}  # prompt -> (D,)
        self._listening = True  # False while the explorer itself fills its fields
        self.choose(task or next(iter(self.tasks)), corners)

    # Prompts and answers.

    def choose(self, task: str, corners: Sequence[str | int] | None = None) -> None:
        """Switch to a task and its own prompts."""
        if task not in self.tasks:
            raise ValueError(f"unknown task {task!r}; known tasks: {', '.join(self.tasks)}")
        classnames, templates, labels = self.tasks[task]
        if callable(labels):
            labels = labels()
            self.tasks[task] = (classnames, templates, labels)
        size = len(self.cache)
        labels = torch.full((size,), -1) if labels is None else torch.as_tensor(labels).cpu()
        low, high = int(labels.min()), int(labels.max())
        if len(labels) != size or low < -1 or high >= len(classnames):
            raise ValueError(
                f"task {task!r} has {len(labels)} labels from {low} to {high}; expected {size} "
                f"labels, each -1 or a position in its {len(classnames)} class names"
            )
        self.task, self.labels, self._known, self.corners = task, labels, labels >= 0, None
        self.ask(classnames, templates, corners)
        self._default_accuracy_pct = self.accuracy_pct

    def ask(
        self,
        classnames: Sequence[str],
        templates: Sequence[str],
        corners: Sequence[str | int] | None = None,
    ) -> None:
        """Classify the pool with new prompts.

        Raises ValueError and changes nothing for fewer than two class names, duplicate names, no
        template, or a template without exactly one {}.
        """
        classnames, templates = list(classnames), list(templates)
        prompts = _prompts(classnames, templates)
        features = self._encode(prompts).unflatten(0, (len(classnames), len(templates)))
        weights = F.normalize(features.mean(dim=1), dim=1).T  # (D, C), as in VLM.text_weights
        probs = ZeroShotTeacher(self.cache, weights).probs().cpu()
        corners = corners or self._default_corners(classnames, probs)
        *_, self.corners = triangle(probs[:1].numpy(), corners, classnames)  # checks them
        self.classnames, self.templates, self.probs = classnames, templates, probs
        self.unknown_words = self.vlm.unknown_words(prompts)

    def _encode(self, prompts: list[str]) -> Tensor:
        """Features (P, D) of the prompts; only new ones are encoded."""
        new = [p for p in dict.fromkeys(prompts) if p not in self._features]
        if new and len(self._features) > CACHED:
            self._features.clear()
            new = list(dict.fromkeys(prompts))
        if new:
            self._features |= zip(new, self.vlm.encode_text(new), strict=True)
        return torch.stack([self._features[p] for p in prompts])

    def _default_corners(self, classnames: list[str], probs: Tensor) -> list[str]:
        """The current corners, by name or, for renamed classes, by position.

        At first, the classes that are mixed up most.
        """
        wanted = []
        if self.corners is not None:
            old = {name: i for i, name in enumerate(self.classnames)}
            for corner in self.corners:
                at = old.get(corner, len(classnames))
                renamed = classnames[at] if at < len(classnames) else "rest"
                wanted.append(corner if corner in classnames else renamed)
        elif len(classnames) > 2:
            wanted = [classnames[i] for i in most_mixed_up(probs)]
        return list(dict.fromkeys([*wanted, *classnames, "rest"]))[:3]

    @property
    def fits(self) -> bool:
        """Whether accuracy is defined: one name per class of the task, and some known labels."""
        return len(self.classnames) == len(self.tasks[self.task][0]) and bool(self._known.any())

    @property
    def accuracy_pct(self) -> float | None:
        """Accuracy on the labelled images in percent, or None if the names do not fit the task."""
        if not self.fits:
            return None
        return accuracy_pct(self.probs[self._known], self.labels[self._known])

    def confusions(self) -> pd.DataFrame:
        """Predictions per class in percent: one row per class of the task, one column per name.

        Without labels, rows are predicted classes and values their mean probabilities.
        """
        predicted, count = self.probs.argmax(dim=1), len(self.classnames)
        if self._known.any():
            rows = list(self.classnames if self.fits else self.tasks[self.task][0])
            pairs = self.labels[self._known] * count + predicted[self._known]
            table = torch.bincount(pairs, minlength=len(rows) * count).view(-1, count).double()
        else:
            rows, table = self.classnames, torch.zeros(count, count, dtype=torch.float64)
            table.index_add_(0, predicted, self.probs.double())
        table = 100 * table / table.sum(dim=1, keepdim=True).clamp(min=1e-12)
        return pd.DataFrame(table.numpy(), index=rows, columns=self.classnames)

    def errors(self, most: int = 5) -> pd.DataFrame:
        """The largest confusions: columns class, predicted, share_pct."""
        table = self.confusions()
        shares = np.where(_same(table), 0, table)
        best = np.argsort(-shares, axis=None, kind="stable")[:most]
        i, j = np.unravel_index(best[shares.flat[best] > 0], shares.shape)
        columns = {
            "class": table.index[i],
            "predicted": table.columns[j],
            "share_pct": shares[i, j],
        }
        return pd.DataFrame(columns)

    # What figure and widget share.

    def _in_triangle(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Positions (N, 2), corners (N,) whose colour each image has (-1: none), colour names.

        Images with less than half of their probability on the corners are NaN.
        """
        columns, xy, names = triangle(self.probs.numpy(), self.corners, self.classnames)
        places = torch.tensor([self.classnames.index(c) if c != "rest" else -2 for c in names])
        known = torch.where(self._known, self.labels, -1)
        classes = known if self.fits else self.probs.argmax(dim=1)
        if "rest" in names:
            kept = torch.isin(classes, places) | (classes < 0)
            classes = torch.where(kept, classes, -2)
        corner = torch.where(classes[:, None] == places, torch.arange(3), -1).amax(dim=1).numpy()
        shown = columns.sum(axis=1, keepdims=True) >= 0.5
        kind = "true" if self.fits else "predicted"
        xy = np.where(shown, xy, np.nan).astype(np.float32)
        return xy, corner, [f"{kind}: {name}" for name in names]

    def _titles(self, xy: np.ndarray) -> tuple[str, str]:
        shown, size = int((~np.isnan(xy[:, 0])).sum()), len(xy)
        count = "all" if shown == size else f"{shown:,} of"
        right = "confusions" if self._known.any() else "probability of other classes"
        return f"{count} {size:,} images", f"{right} (% of each row)"

    def figure(self) -> Figure:
        xy, corner, names = self._in_triangle()
        table = self.confusions()
        left, right = dict(row=1, col=1), dict(row=1, col=2)
        figure = Figure(table=self.errors(50), alt=self._describe(xy))
        figure.set_subplots(1, 2, horizontal_spacing=0.1, subplot_titles=self._titles(xy))
        self._add_points(figure, xy, corner, names)
        figure.add_trace(_heatmap(table), **right)
        add_triangle(figure, [_plain(c) for c in self.corners])
        figure.update_xaxes(**HIDDEN, range=RANGE["x"], **left)
        figure.update_yaxes(**HIDDEN, range=RANGE["y"], scaleanchor="x", domain=[0.2, 1], **left)
        few = max(table.shape) <= FEW
        axis = dict(type="category", tickfont_size=13, showgrid=False, showticklabels=few)
        figure.update_xaxes(**axis, tickangle=-90, **right)
        figure.update_yaxes(**axis, side="right", autorange="reversed", **right)
        figure.update_annotations(font_size=15)
        scale = [[i / (len(WARM) - 1), c] for i, c in enumerate(WARM)]
        axis = dict(colorscale=scale, cmin=0, cmax=MOST, showscale=False)
        legend = dict(x=0, y=0, yanchor="bottom", font_size=14, itemsizing="constant")
        margin = dict(l=10, r=10, t=40, b=10)
        return figure.update_layout(coloraxis=axis, height=500, margin=margin, legend=legend)

    def _add_points(
        self, figure: Figure, xy: np.ndarray, corner: np.ndarray, names: list[str]
    ) -> None:
        for place, name in enumerate(["other", *names], -1):
            indices = np.flatnonzero((corner == place) & ~np.isnan(xy[:, 0]))
            look = dict(color=PALE, size=5)
            if place >= 0:
                look = dict(color=colour(place), symbol=marker(place), size=7)
            hover = f"image %{{customdata}}<br>{_plain(name)}<extra></extra>"
            data = dict(x=xy[indices, 0], y=xy[indices, 1], customdata=indices)
            style = dict(mode="markers", marker=look | dict(opacity=0.75), hovertemplate=hover)
            trace = kind_of(len(xy))(**data, **style, name=_plain(name))
            figure.add_trace(trace, row=1, col=1)

    def _describe_scores(self) -> str:
        confidence = f"mean confidence {self.probs.amax(dim=1).mean():.2f}"
        own, accuracy = getattr(self, "_default_accuracy_pct", None), self.accuracy_pct
        if accuracy is not None:
            default = f" (the task's own prompts: {own:.1f} %)" if own is not None else ""
            return f"accuracy {accuracy:.1f} %{default}, {confidence}"
        reason = f"{len(self.classnames)} names for {len(self.tasks[self.task][0])} classes"
        reason = reason if self._known.any() else "the images have no labels"
        return f"{confidence}; accuracy unknown: {reason}"

    def _describe(self, xy: np.ndarray) -> str:
        errors = self.errors(3).itertuples(index=False)
        largest = "; ".join(f"{a} predicted as {b} ({share:.0f} %)" for a, b, share in errors)
        return (
            f"{self.data.name}, {self.task}: {self._describe_scores()}. "
            f"Left: {self._titles(xy)[0]} between {', '.join(self.corners)}. "
            f"Right: confusions, of which the largest are: {largest or 'none'}."
        )

    # The live widget.

    def _build(self) -> w.Widget:
        look = dict(layout=w.Layout(flex="1 1 360px", min_width="300px"))
        look |= dict(looks=[(colour(k), marker(k)) for k in range(3)])
        triangle = dict(ranges=[RANGE], lines=[triangle_lines()])
        self._live = scatter.linked_scatter(self.data.pool.images, **triangle, **look)
        self._heat = base.html_box("heat", flex="1 1 300px", overflow="auto")
        self._message, self._errors = base.html_box("message"), base.html_box("confusions")
        sides = ("left", "right", "top")
        self._menus = [base.menu(side, (), self._on_corner, 45) for side in sides]
        corners = [menu.add_class("activekd-corner") for menu in self._menus]
        top, fields = self._task_row(), self._prompt_fields()
        self._fill()
        below = [self._message, base.row(*corners), base.row(self._live, self._heat), self._errors]
        return w.VBox([top, fields, *below]).add_class("activekd-prompts")

    def _task_row(self) -> w.Widget:
        tasks = list(self.tasks)
        self._tasks = base.menu("task", tasks, self._on_task, 45, value=self.task)
        reset = w.Button(description="reset", icon="undo")
        reset.tooltip = "restore the class names and templates of the task"
        reset.on_click(lambda _: self._on_task())
        return base.row(self._tasks.add_class("activekd-task"), reset.add_class("activekd-reset"))

    def _prompt_fields(self) -> w.Widget:
        labels = ("Class names, one per line", "Templates, one per line; {} stands for the name")
        boxes, fields = [], []
        for name, label in zip(("classnames", "templates"), labels, strict=True):
            field = w.Textarea(continuous_update=True).add_class(f"activekd-{name}")
            field.layout.height, field.layout.width = "120px", "98%"
            field.observe(self._on_typed, "value")
            fields.append(field)
            boxes.append(w.VBox([w.Label(label), field], layout=w.Layout(flex="1 1 260px")))
        self._names, self._templates = fields
        return base.row(*boxes)

    @contextlib.contextmanager
    def _filling(self):
        """Ignore changes of fields that the explorer itself makes."""
        self._listening = False
        try:
            yield
        finally:
            self._listening = True

    def _on_task(self, change: dict | None = None) -> None:
        if self._listening:
            self.choose(self._tasks.value)
            self._fill()

    def _on_typed(self, change: dict) -> None:
        if not self._listening:
            return
        try:
            self.ask(_lines(self._names), _lines(self._templates))
        except ValueError as error:
            self._show_message(str(error))
        else:
            self._redraw()

    def _on_corner(self, change: dict) -> None:
        if not self._listening:
            return
        old, new = change["old"], change["new"]
        corners = [old if corner == new else corner for corner in self.corners]  # swap the two
        corners[self._menus.index(change["owner"])] = new
        self.corners = corners
        self._redraw()

    def _fill(self) -> None:
        """Write the prompts into their fields, and draw."""
        with self._filling():
            self._tasks.value = self.task
            self._names.value = "\n".join(self.classnames)
            self._templates.value = "\n".join(self.templates)
        self._redraw()

    def _redraw(self) -> None:
        with self._filling():
            options = tuple(dict.fromkeys([*self.classnames, "rest"]))
            for menu, corner in zip(self._menus, self.corners, strict=True):
                if menu.options != options:
                    menu.options = options
                menu.value = corner
        rows = "".join(
            f"<li>{_plain(a)} predicted as {_plain(b)}: {share:.0f} %</li>"
            for a, b, share in self.errors().itertuples(index=False)
        )
        self._errors.value = f'<ol style="font-size:14px;color:{INK};margin:0">{rows}</ol>'
        self._show_message()
        xy, corner, names = self._in_triangle()
        left, right = self._titles(xy)
        live = self._live
        with live.hold_sync():
            live.xys, live.groups = scatter.points([xy]), scatter.groups([corner])
            live.titles, live.labels = [left], [corner_labels(self.corners)]
            live.legend = [(name, (colour(k), marker(k))) for k, name in enumerate(names)]
            live.alt = self._describe(xy)
        self._heat.value = heat_of(self.confusions(), right)

    def _show_message(self, error: str = "") -> None:
        """Show the scores of the last prompts, and errors or unknown words in what is typed."""
        message = f"<b>{html.escape(self._describe_scores())}</b>"
        if error:
            message += "<br>" + WARNING.format(f"Not applied: {html.escape(error)}")
        elif self.unknown_words:
            words, model = html.escape(", ".join(self.unknown_words)), html.escape(self.vlm.name)
            text = (
                f"{model} never saw: <b>{words}</b>. Its answers for these words are meaningless."
            )
            message += "<br>" + WARNING.format(text)
        self._message.value = base.status(message, 15)


def tasks_of(data: Dataset) -> dict[str, Task]:
    """The tasks of a data set: its own classes; for `shapes` also pattern, figure and colour."""
    pool = torch.arange(len(data.pool))
    labels, oracle = torch.full((len(pool),), -1), data.oracle
    labels[oracle.known] = oracle.label(pool[oracle.known])
    tasks = {data.name: (data.classnames, data.templates, labels)}
    if data.classnames != shapes.CLASSNAMES:
        return tasks
    count, templates, known = len(shapes.PATTERNS), ["a {} shape"], labels >= 0
    patterns = torch.where(known, labels % count, -1)
    figures = torch.where(known, labels // count, -1)
    tasks["by pattern"] = (shapes.PATTERNS, templates, patterns)
    tasks["by figure"] = (shapes.FIGURES, templates, figures)
    if data.name == "shapes":
        colours = partial(colours_of_shapes, data.pool.images)
        tasks["by colour"] = (tuple(shapes.COLOURS), templates, colours)
    return tasks


def _prompts(classnames: list[str], templates: list[str]) -> list[str]:
    """The prompts (C * T), grouped by class."""
    if len(classnames) < 2 or not templates:
        raise ValueError(
            f"got {len(classnames)} class names and {len(templates)} templates; "
            "at least 2 names and 1 template are required"
        )
    if twice := sorted({c for c in classnames if classnames.count(c) > 1}):
        raise ValueError(f"class names {twice} occur more than once; each class needs its own name")
    check_templates(templates)
    return [t.replace("{}", c) for c in classnames for t in templates]


def _lines(field: w.Textarea) -> list[str]:
    return [line.strip() for line in field.value.splitlines() if line.strip()]


def _heatmap(table: pd.DataFrame) -> go.Heatmap:
    names = dict(x=[_plain(c) for c in table.columns], y=[_plain(c) for c in table.index])
    shares = np.where(_same(table), np.nan, table).round(1)
    hover = "%{y} predicted as %{x}: %{z:.0f} %<extra></extra>"
    return go.Heatmap(z=shares, **names, coloraxis="coloraxis", xgap=1, ygap=1, hovertemplate=hover)


def heat_of(table: pd.DataFrame, title: str) -> str:
    """Percentages as an HTML heat map; for many classes, names and values on hover only."""
    few = max(table.shape) <= FEW
    rows = "".join(_heat_row(table, i, few) for i in range(len(table)))
    head = "".join(f"<th><span>{_plain(name)}</span></th>" for name in table.columns) if few else ""
    side = 30 if few else max(3, 400 // max(table.shape))
    title += "" if few else "; names on hover"
    page = HEAT.replace("TITLE", title).replace("SIDE", f"{side}px")
    return page.replace("ROWS", f"{rows}<tr>{head}</tr>")


def _heat_row(table: pd.DataFrame, i: int, few: bool) -> str:
    name, shares, same = table.index[i], table.to_numpy()[i], _same(table)[i]
    shades = (np.minimum(shares / MOST, 1) * (len(SHADES) - 1)).round().astype(int)
    cells = ["<td></td>"] * len(table.columns)
    for j in np.flatnonzero(shares >= 0.5):
        ink = "#FFF" if shades[j] > 60 else INK
        style = "" if same[j] else f"background:{SHADES[shades[j]]};color:{ink}"
        hover = html.escape(f"{name} predicted as {table.columns[j]}: {shares[j]:.0f} %")
        text = f"{shares[j]:.0f}" if few else ""
        cells[j] = f'<td style="{style}" title="{hover}">{text}</td>'
    return f"<tr>{''.join(cells)}{f'<th>{_plain(name)}</th>' if few else ''}</tr>"


def _same(table: pd.DataFrame) -> np.ndarray:
    """Where row and column have the same name: correct predictions."""
    return table.index.to_numpy()[:, None] == table.columns.to_numpy()


def _plain(text: str) -> str:
    """Text that plotly and pages show as it was typed."""
    return html.escape(text, quote=False)


HEAT = """<style>
.activekd-heat table { border-collapse: collapse; font-size: 13px; line-height: 1; color: #222;
  margin: 6px auto }
.activekd-heat td { width: var(--side); min-width: var(--side); height: var(--side); padding: 0;
  text-align: center; border: 1px solid #EEE }
.activekd-heat th { font-weight: normal; text-align: left; padding: 2px 4px }
.activekd-heat th span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 140px }
</style><div style="font-size:15px;color:#222;text-align:center">TITLE</div>
<table style="--side:SIDE">ROWS</table>"""
