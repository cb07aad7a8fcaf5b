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
from torch import Tensor

from activekd_lite import shapes
from activekd_lite.cache import TeacherCache
from activekd_lite.datasets import Dataset, colours_of_shapes
from activekd_lite.figures import INK, NAMED, PALE, Figure, colour, marker
from activekd_lite.live import NARROW, Explorer, live_figure
from activekd_lite.maps import HIDDEN, SIDE, add_triangle, kind_of, mixed_up, triangle
from activekd_lite.metrics import accuracy_pct
from activekd_lite.teacher import ZeroShotTeacher
from activekd_lite.vlm import VLM

Task = tuple[Sequence[str], Sequence[str], Tensor | Callable[[], Tensor] | None]
REMEMBERED = 20_000  # sentences whose features are kept
POINTS, HEAT = slice(0, 4), 4  # the traces of the figure


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
        labels = torch.full((len(self.cache),), -1) if labels is None else torch.as_tensor(labels).cpu()
        if len(labels) != len(self.cache) or not -1 <= int(labels.min()) <= int(labels.max()) < len(classnames):
            raise ValueError(
                f"task {task!r} has {len(labels)} labels from {int(labels.min())} to {int(labels.max())}; {len(self.cache)}, "
                f"positions in its {len(classnames)} names or -1, are needed"
            )
        self.task, self.labels, self._known, self.corners = task, labels, labels >= 0, None
        self.ask(classnames, templates, corners)
        self._own_accuracy_pct = self.accuracy_pct

    def ask(self, classnames: Sequence[str], templates: Sequence[str], corners: Sequence[str | int] | None = None) -> None:
        """Ask anew. Raises ValueError, and leaves all as it was, for fewer than two names, a name given twice, no template, or
        one that does not hold {} once."""
        classnames, templates = list(classnames), list(templates)
        sentences = _sentences(classnames, templates)  # (C * T)
        if new := [s for s in dict.fromkeys(sentences) if s not in self._features]:
            if len(self._features) > REMEMBERED:
                self._features.clear()
                new = list(dict.fromkeys(sentences))
            self._features |= zip(new, self.vlm.encode_text(new), strict=True)
        features = torch.stack([self._features[s] for s in sentences]).unflatten(0, (len(classnames), len(templates)))
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
            wanted = [classnames[i] for i in mixed_up(probs)] if len(classnames) > 2 else []
        else:
            old = {name: i for i, name in enumerate(self.classnames)}
            at = [old.get(c, len(classnames)) for c in self.corners]
            renamed = [classnames[i] if i < len(classnames) else "rest" for i in at]
            wanted = [c if c in classnames else r for c, r in zip(self.corners, renamed, strict=True)]
        return list(dict.fromkeys([*wanted, *classnames, "rest"]))[:3]

    @property
    def fits(self) -> bool:
        """Are there as many names as the task has classes, and labels: can an answer be right?"""
        return len(self.classnames) == len(self.tasks[self.task][0]) and bool(self._known.any())

    @property
    def accuracy_pct(self) -> float | None:
        """Share of the labelled images that is right, in percent; None where the names do not fit the task."""
        return accuracy_pct(self.probs[self._known], self.labels[self._known]) if self.fits else None

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
            table = torch.zeros(count, count, dtype=torch.float64).index_add_(0, answers, self.probs.double())
        table = 100 * table / table.sum(dim=1, keepdim=True).clamp(min=1e-12)
        return pd.DataFrame(table.numpy(), index=rows, columns=self.classnames)

    def errors(self, most: int = 5) -> pd.DataFrame:
        """The largest of the confusions: columns class, called, share_pct."""
        table = self.confusions()
        shares = np.where(_same(table), 0, table)
        best = np.argsort(-shares, axis=None, kind="stable")[:most]
        rows, cols = np.unravel_index(best[shares.flat[best] > 0], shares.shape)
        return pd.DataFrame({"class": table.index[rows], "called": table.columns[cols], "share_pct": shares[rows, cols]})

    # The figure, for both faces.

    def figure(self) -> Figure:
        dots, heat = self._dots(), self._heat()
        figure = Figure(table=self.errors(50), alt=self._words(dots))
        figure.set_subplots(1, 2, horizontal_spacing=0.06, subplot_titles=self._titles(dots))
        kind = kind_of(2 * len(self.cache))
        for place, fields in enumerate(dots):
            key = dict(color=PALE, size=5) if place == 0 else dict(color=colour(place - 1), symbol=marker(place - 1), size=7)
            figure.add_trace(kind(mode="markers", marker=key | dict(opacity=0.75), **fields), row=1, col=1)
        figure.add_trace(go.Heatmap(coloraxis="coloraxis", xgap=1, ygap=1, **heat), row=1, col=2)
        add_triangle(figure, self.corners)
        figure.update_xaxes(**HIDDEN, range=[-0.15 * SIDE, 1.15 * SIDE], constrain="domain", row=1, col=1)
        square = dict(scaleanchor="x", constrain="domain", domain=[0.2, 1])
        figure.update_yaxes(**HIDDEN, range=[-0.12 * SIDE, 1.0 * SIDE], **square, row=1, col=1)
        figure.update_xaxes(type="category", tickfont_size=13, tickangle=-90, showgrid=False, row=1, col=2)
        figure.update_yaxes(type="category", tickfont_size=13, showgrid=False, side="right", autorange="reversed", row=1, col=2)
        figure.update_layout(xaxis2_showticklabels=self._named_axes(), yaxis2_showticklabels=self._named_axes())
        figure.update_annotations(font_size=15)
        warm = dict(colorscale=[[0, "#F7F7F7"], [0.25, "#F6C667"], [1, "#8C2D04"]], cmin=0, cmax=60, showscale=False)
        return figure.update_layout(
            coloraxis=warm, height=500, margin=dict(l=10, r=10, t=40, b=10),
            legend=dict(x=0, y=0, yanchor="bottom", font_size=14, itemsizing="constant"),
        )  # fmt: skip

    def _dots(self) -> list[dict]:
        """x, y, name, customdata and hover of the four groups in the triangle: all others first, then a corner each."""
        columns, xy, names = triangle(self.probs.numpy(), self.corners, self.classnames)
        places = torch.tensor([self.classnames.index(c) if c != "rest" else -2 for c in names])
        groups = torch.where(self._known, self.labels, -1) if self.fits else self.probs.argmax(dim=1)
        if "rest" in names:
            groups = torch.where(torch.isin(groups, places) | (groups < 0), groups, -2)
        corner = torch.where(groups[:, None] == places, torch.arange(1, 4), 0).amax(dim=1).numpy()
        shown = columns.sum(axis=1) >= 0.5
        custom = np.column_stack([np.arange(len(xy)), (100 * columns).round()]).astype(np.int32)
        lines = "".join(f"<br>{_plain(name)} %{{customdata[{k + 1}]}} %" for k, name in enumerate(names))
        verb, parts = "truly" if self.fits else "called", []
        for place, name in enumerate(["another", *names]):
            of = shown & (corner == place)
            said = f"{verb} {_plain(name)}"
            hover = f"image %{{customdata[0]}}, {said}{lines}<extra></extra>"
            parts.append(dict(x=xy[of, 0], y=xy[of, 1], customdata=custom[of], name=said, hovertemplate=hover))
        return parts

    def _heat(self) -> dict:
        table = self.confusions()
        shares = table.to_numpy()
        text = np.full(shares.shape, "", dtype=object)
        if max(shares.shape) <= NAMED:
            text = np.where(shares >= 1, np.round(shares).astype(int).astype(str), "")
        shares = np.where(_same(table), np.nan, shares)
        verb = "called" if self._known.any() else "leaves to"
        return dict(
            z=shares.round(1), x=[_plain(c) for c in table.columns], y=[_plain(c) for c in table.index], text=text,
            texttemplate="%{text}", hovertemplate=f"%{{y}} {verb} %{{x}}: %{{z:.0f}} %<extra></extra>",
        )  # fmt: skip

    def _named_axes(self) -> bool:
        """Is there room for a name at each row and column? Else hovering names them."""
        return max(self.confusions().shape) <= NAMED + 4

    def _titles(self, dots: list[dict]) -> tuple[str, str]:
        shown = sum(len(part["x"]) for part in dots)
        some = "all" if shown == len(self.cache) else f"{shown:,} of"
        right = "Who is called what" if self._known.any() else "What answers leave to others"
        return f"{some} {len(self.cache):,} images", f"{right} (% of a row)"

    def _numbers(self) -> str:
        sure = self.probs.amax(dim=1).mean()
        said, own = f"mean largest probability {sure:.2f}", getattr(self, "_own_accuracy_pct", None)
        if (accuracy := self.accuracy_pct) is not None:
            by_its_own = f" (the task's own prompts: {own:.1f} %)" if own is not None else ""
            return f"accuracy {accuracy:.1f} %{by_its_own}, {said}"
        why = "no labels" if not self._known.any() else f"the task has {len(self.tasks[self.task][0])} classes"
        return f"{said}; {len(self.classnames)} names and {why}: no accuracy"

    def _words(self, dots: list[dict]) -> str:
        shown = sum(len(part["x"]) for part in dots)
        errors = "; ".join(f"{r[0]} called {r[1]} ({r[2]:.0f} %)" for r in self.errors(3).itertuples(index=False))
        return (
            f"{self.data.name}, {self.task}: {self._numbers()}. Left, {shown} of {len(self.cache)} images between "
            f"{', '.join(self.corners)}; right, the confusions, the largest: {errors or 'none'}."
        )

    # The live face.

    def _build(self) -> w.Widget:
        self._tasks = w.Dropdown(options=list(self.tasks), value=self.task, description="task", layout=w.Layout(width="250px"))
        reset = w.Button(description="reset", tooltip="the task's own names and templates", icon="undo")
        wide = dict(continuous_update=True, layout=w.Layout(height="120px", width="98%"))
        self._names, self._templates = w.Textarea(**wide), w.Textarea(**wide)
        self._menus = [w.Dropdown(description=side, layout=w.Layout(width="250px")) for side in ("left", "right", "top")]
        self._message, self._errors = w.HTML().add_class("activekd-message"), w.HTML().add_class("activekd-confusions")
        self._live = live_figure(self.figure())
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
        top = w.HBox([self._tasks.add_class("activekd-task"), reset.add_class("activekd-reset")], layout=row)
        corners = w.HBox([m.add_class("activekd-corner") for m in self._menus], layout=row)
        parts = [top, w.HBox(labelled, layout=row), self._message, corners, self._live, self._errors]
        return w.VBox(parts).add_class("activekd-prompts")

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
            self.ask(*([line.strip() for line in f.value.splitlines() if line.strip()] for f in (self._names, self._templates)))
        except ValueError as error:
            return self._say(str(error))
        self._redraw()

    def _on_corner(self, change: dict) -> None:
        if not self._typing:
            return
        place = self._menus.index(change["owner"])
        corners = [change["old"] if c == change["new"] else c for c in self.corners]  # who stood there changes places
        corners[place] = change["new"]
        self.corners = corners
        self._redraw()

    def _fill(self) -> None:
        """Write names and templates into their fields, and draw."""
        with self._writing():
            self._tasks.value = self.task
            self._names.value, self._templates.value = "\n".join(self.classnames), "\n".join(self.templates)
        self._redraw()

    def _redraw(self) -> None:
        with self._writing():
            for menu, corner in zip(self._menus, self.corners, strict=True):
                options = tuple(dict.fromkeys([*self.classnames, "rest"]))
                if menu.options != options:
                    menu.options = options
                menu.value = corner
        errors = self.errors().itertuples(index=False)
        rows = "".join(f"<li>{_plain(r[0])} called {_plain(r[1])}: {r[2]:.0f} %</li>" for r in errors)
        self._errors.value = f'<ol style="font-size:14px;color:{INK};margin:0">{rows}</ol>'
        self._say()  # before the figure, which takes the page longer
        dots, heat = self._dots(), self._heat()
        with self._live.batch_update():
            for trace, fields in zip(self._live.data[POINTS], dots, strict=True):
                trace.update(fields, overwrite=True)
            self._live.data[HEAT].update(heat, overwrite=True)
            texts = [*self._titles(dots), *(f"<b>{_plain(c)}</b>" for c in self.corners)]
            for note, text in zip(self._live.layout.annotations, texts, strict=True):
                note.text = text
            self._live.layout.xaxis2.showticklabels = self._live.layout.yaxis2.showticklabels = self._named_axes()

    def _say(self, trouble: str = "") -> None:
        """The numbers of what was asked last; what is wrong with what is typed; words that mean nothing to the model."""
        said = [f"<b>{html.escape(self._numbers())}</b>"]
        if trouble:
            said.append(f'<span style="color:#A33B00">&#9888; Not asked yet: {html.escape(trouble)}</span>')
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
            tasks["by colour"] = (tuple(shapes.COLOURS), per_figure, lambda: colours_of_shapes(data.pool.images))
    return tasks


def _sentences(classnames: list[str], templates: list[str]) -> list[str]:
    """(C * T), a class after the other."""
    if len(classnames) < 2 or not templates:
        raise ValueError(f"{len(classnames)} names and {len(templates)} templates; at least 2 names and 1 template are needed")
    if twice := sorted({c for c in classnames if classnames.count(c) > 1}):
        raise ValueError(f"class names {twice} occur twice; each class needs a name of its own")
    if flat := [t for t in templates if t.count("{}") != 1 or set("{}") & set(t.replace("{}", ""))]:
        raise ValueError(f"templates {flat} do not hold {{}} once, where the class name goes, as 'a photo of a {{}}.' does")
    return [t.replace("{}", c) for c in classnames for t in templates]


def _same(table: pd.DataFrame) -> np.ndarray:
    """Where a row and a column have the same name: no confusion."""
    return table.index.to_numpy()[:, None] == table.columns.to_numpy()


def _plain(text: str) -> str:
    """Typed text as plotly and a page show it letter by letter."""
    return html.escape(text, quote=False)
