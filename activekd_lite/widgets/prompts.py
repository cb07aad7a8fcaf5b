"""The teacher asked in other words, while they are typed: images are encoded already, words are quick."""

import contextlib
import html
from collections.abc import Callable, Mapping, Sequence

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
from activekd_lite.widgets.base import NARROW, Explorer
from activekd_lite.widgets.scatter import groups, linked_scatter, points

Task = tuple[Sequence[str], Sequence[str], Tensor | Callable[[], Tensor] | None]
REMEMBERED = 20_000  # sentences whose features are kept
FEW = 16  # more classes have their names on hover alone
RANGE = dict(x=(-0.2 * SIDE, 1.2 * SIDE), y=(-0.12 * SIDE, 1.0 * SIDE))  # of the triangle's panel
WARM, MOST = (
    ("#F7F7F7", "#F6C667", "#D9822B", "#B04F14", "#8C2D04"),
    60,
)  # colours of shares from 0 to MOST percent and more
SHADES = np.array(sample_colorscale(list(WARM), 101))


class PromptExplorer(Explorer):
    """`PromptExplorer(data, vlm, cache)`: type class names and templates, and see at once what the teacher makes of them.

    Shows accuracy, mean largest probability, the triangle of three classes and the confusions. Afterwards
    `explorer.classnames`, `explorer.templates` and `explorer.probs` (N, C) are what was asked last.

    vlm: the model that made `cache`, whose features of view 0 are used. tasks: name -> (classnames, templates, labels), other
    questions to the same images; labels: (N,) positions in classnames, -1: not known, or a function that gives them, or
    None. `shapes` comes with its patterns, figures and colours as tasks. task: the first one to show. corners: three class
    names or positions, or "rest", default: what is mixed up most. Raises ValueError for another pool's or model's cache,
    unknown names, and labels that do not fit.
    """

    def __init__(
        self, data: Dataset, vlm: VLM, cache: TeacherCache, *, task: str | None = None,
        tasks: Mapping[str, Task] | None = None, corners: Sequence[str | int] | None = None,
    ):  # fmt: skip
        super().__init__()
        if len(cache) != len(data.pool) or cache.fingerprint["vlm"]["name"] != vlm.name:
            raise ValueError(
                f"the cache holds {len(cache)} images as {cache.fingerprint['vlm']['name']} sees them, but {data.name}'s pool "
                f"has {len(data.pool)} and the model is {vlm.name}; build a cache of them with TeacherCache.build"
            )
        self.data, self.vlm, self.cache = data, vlm, cache
        self.tasks = tasks_of(data) | dict(tasks or {})
        self._features: dict[str, Tensor] = {}  # a sentence's, (D,)
        self._typing = True  # False while the explorer itself writes into its fields
        self.choose(task or next(iter(self.tasks)), corners)

    # What is asked, and what the teacher says.

    def choose(self, task: str, corners: Sequence[str | int] | None = None) -> None:
        """Take up a task, with its own prompts."""
        if task not in self.tasks:
            raise ValueError(f"unknown task {task!r}; known are {', '.join(self.tasks)}")
        classnames, templates, labels = self.tasks[task]
        if callable(labels):
            labels = labels()
            self.tasks[task] = (classnames, templates, labels)
        labels = (
            torch.full((len(self.cache),), -1) if labels is None else torch.as_tensor(labels).cpu()
        )
        if len(labels) != len(self.cache) or not -1 <= int(labels.min()) <= int(labels.max()) < len(
            classnames
        ):
            raise ValueError(
                f"task {task!r} has {len(labels)} labels from {int(labels.min())} to {int(labels.max())}; {len(self.cache)}, "
                f"positions in its {len(classnames)} names or -1, are needed"
            )
        self.task, self.labels, self._known, self.corners = task, labels, labels >= 0, None
        self.ask(classnames, templates, corners)
        self._own_accuracy_pct = self.accuracy_pct

    def ask(
        self,
        classnames: Sequence[str],
        templates: Sequence[str],
        corners: Sequence[str | int] | None = None,
    ) -> None:
        """Ask anew. Raises ValueError, and leaves all as it was, for fewer than two names, a name given twice, no template, or
        one that does not hold {} once."""
        classnames, templates = list(classnames), list(templates)
        sentences = _sentences(classnames, templates)  # (C * T)
        if new := [s for s in dict.fromkeys(sentences) if s not in self._features]:
            if len(self._features) > REMEMBERED:
                self._features.clear()
                new = list(dict.fromkeys(sentences))
            self._features |= zip(new, self.vlm.encode_text(new), strict=True)
        features = torch.stack([self._features[s] for s in sentences]).unflatten(
            0, (len(classnames), len(templates))
        )
        weights = F.normalize(features.mean(dim=1), dim=1).T  # (D, C), as of VLM.text_weights
        probs = ZeroShotTeacher(self.cache, weights).probs().cpu()
        corners = corners or self._corners_of(classnames, probs)
        *_, self.corners = triangle(probs[:1].numpy(), corners, classnames)  # refuses unknown ones
        self.classnames, self.templates, self.probs, self.unknown_words = (
            classnames, templates, probs, self.vlm.unknown_words(sentences),
        )  # fmt: skip

    def _corners_of(self, classnames: list[str], probs: Tensor) -> list[str]:
        """The corners as they were: by name, or by position where a class was renamed; at first what is mixed up most."""
        if self.corners is None:
            wanted = [classnames[i] for i in most_mixed_up(probs)] if len(classnames) > 2 else []
        else:
            old = {name: i for i, name in enumerate(self.classnames)}
            at = [old.get(c, len(classnames)) for c in self.corners]
            renamed = [classnames[i] if i < len(classnames) else "rest" for i in at]
            wanted = [
                c if c in classnames else r for c, r in zip(self.corners, renamed, strict=True)
            ]
        return list(dict.fromkeys([*wanted, *classnames, "rest"]))[:3]

    @property
    def fits(self) -> bool:
        """Are there as many names as the task has classes, and labels: can an answer be right?"""
        return len(self.classnames) == len(self.tasks[self.task][0]) and bool(self._known.any())

    @property
    def accuracy_pct(self) -> float | None:
        """Share of the labelled images that is right, in percent; None where the names do not fit the task."""
        return (
            accuracy_pct(self.probs[self._known], self.labels[self._known]) if self.fits else None
        )

    def confusions(self) -> pd.DataFrame:
        """Who is called what, as shares (%) of a row: a row for each class of the task, a column for each name.

        Where nothing is labelled rows are answers, and the shares what they leave to the other names.
        """
        answers, count = self.probs.argmax(dim=1), len(self.classnames)
        if self._known.any():
            rows = list(self.classnames if self.fits else self.tasks[self.task][0])
            pairs = self.labels[self._known] * count + answers[self._known]
            table = torch.bincount(pairs, minlength=len(rows) * count).view(-1, count).double()
        else:
            rows = self.classnames
            table = torch.zeros(count, count, dtype=torch.float64).index_add_(
                0, answers, self.probs.double()
            )
        table = 100 * table / table.sum(dim=1, keepdim=True).clamp(min=1e-12)
        return pd.DataFrame(table.numpy(), index=rows, columns=self.classnames)

    def errors(self, most: int = 5) -> pd.DataFrame:
        """The largest of the confusions: columns class, called, share_pct."""
        table = self.confusions()
        shares = np.where(_same(table), 0, table)
        best = np.argsort(-shares, axis=None, kind="stable")[:most]
        rows, cols = np.unravel_index(best[shares.flat[best] > 0], shares.shape)
        return pd.DataFrame(
            {
                "class": table.index[rows],
                "called": table.columns[cols],
                "share_pct": shares[rows, cols],
            }
        )

    # What both faces show.

    def _in_triangle(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Where each image is (N, 2), NaN where less than half of its probability is on the corners; which corner's colour it
        has (N,), -1: none; what the colours mean."""
        columns, xy, names = triangle(self.probs.numpy(), self.corners, self.classnames)
        places = torch.tensor([self.classnames.index(c) if c != "rest" else -2 for c in names])
        of = torch.where(self._known, self.labels, -1) if self.fits else self.probs.argmax(dim=1)
        if "rest" in names:
            of = torch.where(torch.isin(of, places) | (of < 0), of, -2)
        corner = torch.where(of[:, None] == places, torch.arange(3), -1).amax(dim=1).numpy()
        shown = columns.sum(axis=1) >= 0.5
        verb = "truly" if self.fits else "called"
        return (
            np.where(shown[:, None], xy, np.nan).astype(np.float32),
            corner,
            [f"{verb} {name}" for name in names],
        )

    def _titles(self, xy: np.ndarray) -> tuple[str, str]:
        shown = int((xy[:, 0] == xy[:, 0]).sum())
        some = "all" if shown == len(xy) else f"{shown:,} of"
        right = "Who is called what" if self._known.any() else "What answers leave to others"
        return f"{some} {len(xy):,} images", f"{right} (% of a row)"

    def figure(self) -> Figure:
        xy, corner, said = self._in_triangle()
        table = self.confusions()
        figure = Figure(table=self.errors(50), alt=self._words(xy))
        figure.set_subplots(1, 2, horizontal_spacing=0.1, subplot_titles=self._titles(xy))
        for place, name in zip((-1, 0, 1, 2), ("another", *said), strict=True):
            of = np.flatnonzero((corner == place) & (xy[:, 0] == xy[:, 0]))
            key = (
                dict(color=PALE, size=5)
                if place < 0
                else dict(color=colour(place), symbol=marker(place), size=7)
            )
            hover = f"image %{{customdata}}<br>{_plain(name)}<extra></extra>"
            fields = dict(
                mode="markers",
                marker=key | dict(opacity=0.75),
                name=_plain(name),
                customdata=of,
                hovertemplate=hover,
            )
            figure.add_trace(kind_of(len(xy))(x=xy[of, 0], y=xy[of, 1], **fields), row=1, col=1)
        heat = go.Heatmap(
            z=np.where(_same(table), np.nan, table).round(1), x=[_plain(c) for c in table.columns], coloraxis="coloraxis",
            y=[_plain(c) for c in table.index], xgap=1, ygap=1, hovertemplate="%{y} called %{x}: %{z:.0f} %<extra></extra>",
        )  # fmt: skip
        figure.add_trace(heat, row=1, col=2)
        add_triangle(figure, [_plain(c) for c in self.corners])
        figure.update_xaxes(**HIDDEN, range=RANGE["x"], row=1, col=1)
        figure.update_yaxes(
            **HIDDEN, range=RANGE["y"], scaleanchor="x", domain=[0.2, 1], row=1, col=1
        )
        few = dict(
            type="category",
            tickfont_size=13,
            showgrid=False,
            showticklabels=max(table.shape) <= FEW,
        )
        figure.update_xaxes(**few, tickangle=-90, row=1, col=2)
        figure.update_yaxes(**few, side="right", autorange="reversed", row=1, col=2)
        figure.update_annotations(font_size=15)
        scale = [[i / (len(WARM) - 1), c] for i, c in enumerate(WARM)]
        return figure.update_layout(
            coloraxis=dict(colorscale=scale, cmin=0, cmax=MOST, showscale=False), height=500,
            margin=dict(l=10, r=10, t=40, b=10), legend=dict(x=0, y=0, yanchor="bottom", font_size=14, itemsizing="constant"),
        )  # fmt: skip

    def _numbers(self) -> str:
        sure = self.probs.amax(dim=1).mean()
        said, own = f"mean largest probability {sure:.2f}", getattr(self, "_own_accuracy_pct", None)
        if (accuracy := self.accuracy_pct) is not None:
            by_its_own = f" (the task's own prompts: {own:.1f} %)" if own is not None else ""
            return f"accuracy {accuracy:.1f} %{by_its_own}, {said}"
        why = (
            "no labels"
            if not self._known.any()
            else f"the task has {len(self.tasks[self.task][0])} classes"
        )
        return f"{said}; {len(self.classnames)} names and {why}: no accuracy"

    def _words(self, xy: np.ndarray) -> str:
        errors = "; ".join(
            f"{r[0]} called {r[1]} ({r[2]:.0f} %)" for r in self.errors(3).itertuples(index=False)
        )
        return (
            f"{self.data.name}, {self.task}: {self._numbers()}. Left, {self._titles(xy)[0]} between "
            f"{', '.join(self.corners)}; right, the confusions, the largest: {errors or 'none'}."
        )

    # The live face.

    def _build(self) -> w.Widget:
        narrow = dict(layout=w.Layout(width="205px"), style={"description_width": "45px"})
        self._tasks = w.Dropdown(
            options=list(self.tasks), value=self.task, description="task", **narrow
        )
        reset = w.Button(
            description="reset", tooltip="the task's own names and templates", icon="undo"
        )
        wide = dict(continuous_update=True, layout=w.Layout(height="120px", width="98%"))
        self._names, self._templates = w.Textarea(**wide), w.Textarea(**wide)
        self._menus = [w.Dropdown(description=side, **narrow) for side in ("left", "right", "top")]
        self._message, self._errors = (
            w.HTML().add_class("activekd-message"),
            w.HTML().add_class("activekd-confusions"),
        )
        self._live = linked_scatter(
            self.data.pool.images, ranges=[RANGE], lines=[triangle_lines()], looks=[(colour(k), marker(k)) for k in range(3)],
            layout=w.Layout(flex="1 1 360px", min_width="300px"),
        )  # fmt: skip
        self._heat = w.HTML(layout=w.Layout(flex="1 1 300px", overflow="auto")).add_class(
            "activekd-heat"
        )
        self._tasks.observe(self._on_task, "value")
        reset.on_click(lambda _: self._on_task())
        for field in (self._names, self._templates):
            field.observe(self._on_typed, "value")
        for menu in self._menus:
            menu.observe(self._on_corner, "value")
        self._fill()
        row = w.Layout(**NARROW)
        labelled = [w.VBox([w.Label(said), field], layout=w.Layout(flex="1 1 260px")) for said, field in (
            ("class names, one a line", self._names), ("templates, one a line; {} is the name", self._templates))]  # fmt: skip
        self._names.add_class("activekd-classnames")
        self._templates.add_class("activekd-templates")
        top = w.HBox(
            [self._tasks.add_class("activekd-task"), reset.add_class("activekd-reset")], layout=row
        )
        corners = w.HBox([m.add_class("activekd-corner") for m in self._menus], layout=row)
        parts = [
            top,
            w.HBox(labelled, layout=row),
            self._message,
            corners,
            w.HBox([self._live, self._heat], layout=row),
        ]
        return w.VBox([*parts, self._errors]).add_class("activekd-prompts")

    @contextlib.contextmanager
    def _writing(self):
        """What the explorer writes into its own fields is not typed by anybody."""
        self._typing = False
        try:
            yield
        finally:
            self._typing = True

    def _on_task(self, change: dict | None = None) -> None:
        if self._typing:
            self.choose(self._tasks.value)
            self._fill()

    def _on_typed(self, change: dict) -> None:
        if not self._typing:
            return
        try:
            self.ask(
                *(
                    [line.strip() for line in f.value.splitlines() if line.strip()]
                    for f in (self._names, self._templates)
                )
            )
        except ValueError as error:
            return self._say(str(error))
        self._redraw()

    def _on_corner(self, change: dict) -> None:
        if not self._typing:
            return
        place = self._menus.index(change["owner"])
        corners = [
            change["old"] if c == change["new"] else c for c in self.corners
        ]  # who stood there changes places
        corners[place] = change["new"]
        self.corners = corners
        self._redraw()

    def _fill(self) -> None:
        """Write names and templates into their fields, and draw."""
        with self._writing():
            self._tasks.value = self.task
            self._names.value, self._templates.value = (
                "\n".join(self.classnames),
                "\n".join(self.templates),
            )
        self._redraw()

    def _redraw(self) -> None:
        with self._writing():
            for menu, corner in zip(self._menus, self.corners, strict=True):
                options = tuple(dict.fromkeys([*self.classnames, "rest"]))
                if menu.options != options:
                    menu.options = options
                menu.value = corner
        errors = self.errors().itertuples(index=False)
        rows = "".join(
            f"<li>{_plain(r[0])} called {_plain(r[1])}: {r[2]:.0f} %</li>" for r in errors
        )
        self._errors.value = f'<ol style="font-size:14px;color:{INK};margin:0">{rows}</ol>'
        self._say()
        xy, corner, said = self._in_triangle()
        left, right = self._titles(xy)
        with self._live.hold_sync():
            self._live.xys, self._live.groups = points([xy]), groups([corner])
            self._live.titles, self._live.labels = [left], [corner_labels(self.corners)]
            self._live.legend = [(name, (colour(k), marker(k))) for k, name in enumerate(said)]
            self._live.alt = self._words(xy)
        self._heat.value = heat_of(self.confusions(), right)

    def _say(self, trouble: str = "") -> None:
        """The numbers of what was asked last; what is wrong with what is typed; words that mean nothing to the model."""
        said = [f"<b>{html.escape(self._numbers())}</b>"]
        if trouble:
            said.append(
                f'<span style="color:#A33B00">&#9888; Not asked yet: {html.escape(trouble)}</span>'
            )
        elif self.unknown_words:
            words = ", ".join(html.escape(word) for word in self.unknown_words)
            said.append(
                f'<span style="color:#A33B00">&#9888; {html.escape(self.vlm.name)} never saw: <b>{words}</b>. '
                "What it says of them means nothing.</span>"
            )
        self._message.value = f'<div role="status" style="font-size:15px;line-height:1.4;color:{INK}">{"<br>".join(said)}</div>'


def tasks_of(data: Dataset) -> dict[str, Task]:
    """What can be asked of a data set's pool: its own classes, and of `shapes` pattern, figure and colour alone."""
    pool = torch.arange(len(data.pool))
    labels = torch.full((len(pool),), -1)
    labels[data.oracle.known] = data.oracle.label(pool[data.oracle.known])
    tasks = {data.name: (data.classnames, data.templates, labels)}
    if data.classnames == shapes.CLASSNAMES:
        patterns, per_figure = len(shapes.PATTERNS), ["a {} shape"]
        known = labels >= 0
        tasks |= {
            "by pattern": (shapes.PATTERNS, per_figure, torch.where(known, labels % patterns, -1)),
            "by figure": (shapes.FIGURES, per_figure, torch.where(known, labels // patterns, -1)),
        }
        if data.name == "shapes":
            tasks["by colour"] = (
                tuple(shapes.COLOURS),
                per_figure,
                lambda: colours_of_shapes(data.pool.images),
            )
    return tasks


def _sentences(classnames: list[str], templates: list[str]) -> list[str]:
    """(C * T), a class after the other."""
    if len(classnames) < 2 or not templates:
        raise ValueError(
            f"{len(classnames)} names and {len(templates)} templates; at least 2 names and 1 template are needed"
        )
    if twice := sorted({c for c in classnames if classnames.count(c) > 1}):
        raise ValueError(f"class names {twice} occur twice; each class needs a name of its own")
    check_templates(templates)
    return [t.replace("{}", c) for c in classnames for t in templates]


def heat_of(table: pd.DataFrame, title: str) -> str:
    """Shares in percent as a table of warm colours, in HTML: with names and numbers where they are few, else on hover."""
    few, same, shares = max(table.shape) <= FEW, _same(table), table.to_numpy()
    shade = (np.minimum(shares / MOST, 1) * (len(SHADES) - 1)).round().astype(int)
    rows = []
    for i, name in enumerate(table.index):
        cells = ["<td></td>"] * len(table.columns)
        for j in np.flatnonzero(shares[i] >= 0.5):
            look = (
                ""
                if same[i, j]
                else f"background:{SHADES[shade[i, j]]};color:{'#FFF' if shade[i, j] > 60 else INK}"
            )
            said = html.escape(f"{name} called {table.columns[j]}: {shares[i, j]:.0f} %")
            cells[j] = (
                f'<td style="{look}" title="{said}">{f"{shares[i, j]:.0f}" if few else ""}</td>'
            )
        rows.append(f"<tr>{''.join(cells)}{f'<th>{_plain(name)}</th>' if few else ''}</tr>")
    head = "".join(f"<th><span>{_plain(name)}</span></th>" for name in table.columns) if few else ""
    side = 30 if few else max(3, 400 // max(table.shape))
    title += "" if few else "; names on hover"
    return (
        HEAT.replace("TITLE", title)
        .replace("SIDE", f"{side}px")
        .replace("ROWS", f"{''.join(rows)}<tr>{head}</tr>")
    )


def _same(table: pd.DataFrame) -> np.ndarray:
    """Where a row and a column have the same name: no confusion."""
    return table.index.to_numpy()[:, None] == table.columns.to_numpy()


def _plain(text: str) -> str:
    """Typed text as plotly and a page show it letter by letter."""
    return html.escape(text, quote=False)


HEAT = """<style>
.activekd-heat table { border-collapse: collapse; font-size: 13px; line-height: 1; color: #222; margin: 6px auto }
.activekd-heat td { width: var(--side); min-width: var(--side); height: var(--side); padding: 0; text-align: center;
  border: 1px solid #EEE }
.activekd-heat th { font-weight: normal; text-align: left; padding: 2px 4px }
.activekd-heat th span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 140px }
</style><div style="font-size:15px;color:#222;text-align:center">TITLE</div><table style="--side:SIDE">ROWS</table>"""
