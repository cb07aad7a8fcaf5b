"""Try other prompts on the teacher while you type: images are encoded already, text is fast."""

import html
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
import torch.nn.functional as F
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
from activekd_lite.widgets.base import Explorer
from activekd_lite.widgets.page import Page, groups, points

Task = tuple[Sequence[str], Sequence[str], Tensor | Callable[[], Tensor] | None]
CACHED = 20_000  # prompts whose features are kept
FEW = 16  # with more classes, their names appear on hover only
RANGE = dict(x=(-0.2 * SIDE, 1.2 * SIDE), y=(-0.17 * SIDE, 1.0 * SIDE))  # of the triangle
WARM = ("#F7F7F7", "#F6C667", "#D9822B", "#B04F14", "#8C2D04")  # colours of shares
MOST = 60  # percent; larger shares have the same colour


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
        self._entries: list[dict] = []  # prompts that were tried
        self._written = 0  # how often the explorer itself has filled its fields
        self._applied = True  # whether what is typed was asked
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
        self._ask(classnames, templates, corners)
        self._own_accuracy_pct, self._own_classes = self.accuracy_pct, self._class_accuracies()
        self._keep()
        self._refill()

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
        self._ask(classnames, templates, corners)
        self._keep()
        self._refill()

    def _ask(
        self,
        classnames: Sequence[str],
        templates: Sequence[str],
        corners: Sequence[str | int] | None = None,
    ) -> None:
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

    def _class_accuracies(self) -> np.ndarray | None:
        """Accuracy (C,) in percent on the labelled images of each class, NaN without any."""
        if not self.fits:
            return None
        labels, count = self.labels[self._known], len(self.classnames)
        right = (self.probs[self._known].argmax(dim=1) == labels).double()
        size = torch.bincount(labels, minlength=count)
        return (100 * torch.bincount(labels, weights=right, minlength=count) / size).numpy()

    def per_class(self) -> pd.DataFrame | None:
        """Accuracy per class: columns class, own_pct (the task's own prompts), now_pct.

        None if the names do not fit the task or the images have no labels.
        """
        if not self.fits:
            return None
        columns = {"class": self.classnames, "own_pct": self._own_classes}
        return pd.DataFrame(columns | {"now_pct": self._class_accuracies()}).dropna()

    # Which prompts were tried.

    @property
    def history(self) -> pd.DataFrame:
        """The prompts that were tried, in order, each once per task.

        Columns task, words (what differs from the task's own prompts), accuracy_pct, confidence
        (mean), classnames, templates.
        """
        columns = ["task", "words", "accuracy_pct", "confidence", "classnames", "templates"]
        return pd.DataFrame(self._entries, columns=columns)

    def _prompts_now(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(self.classnames), tuple(self.templates)

    def _keep(self) -> bool:
        """Note the current prompts in the history; False if they are there already."""
        classnames, templates = self._prompts_now()
        entry = dict(task=self.task, classnames=classnames, templates=templates)
        if any(entry.items() <= known.items() for known in self._entries):
            return False
        entry["words"] = _difference(self.tasks[self.task][:2], classnames, templates)
        entry["accuracy_pct"] = self.accuracy_pct
        entry["confidence"] = float(self.probs.amax(dim=1).mean())
        self._entries.append(entry)
        return True

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
        return _largest(self.confusions(), most)

    # What figure and page share.

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
        table, titles = self.confusions(), list(self._titles(xy))
        left, right = dict(row=1, col=1), dict(row=1, col=2)
        figure = Figure(table=self.errors(50), alt=self._describe(xy))
        titles += ["accuracy (%)"] if self.fits else []
        shape = dict(column_widths=(0.4, 0.4, 0.2), horizontal_spacing=0.1) if self.fits else {}
        figure.set_subplots(1, len(titles), subplot_titles=titles, **shape)
        self._add_points(figure, xy, corner, names)
        figure.add_trace(_heatmap(table), **right)
        add_triangle(figure, [_plain(c) for c in self.corners])
        figure.update_xaxes(**HIDDEN, range=RANGE["x"], **left)
        side = dict(scaleanchor="x", domain=[0.36 if self.fits else 0.2, 1])  # above the legend
        figure.update_yaxes(**HIDDEN, range=RANGE["y"], **side, **left)
        few = max(table.shape) <= FEW
        axis = dict(type="category", tickfont_size=13, showgrid=False, showticklabels=few)
        figure.update_xaxes(**axis, tickangle=-90, **right)
        figure.update_yaxes(**axis, side="right", autorange="reversed", **right)
        if self.fits:
            self._add_classes(figure)
        figure.update_annotations(font_size=15)
        scale = [[i / (len(WARM) - 1), c] for i, c in enumerate(WARM)]
        axis = dict(colorscale=scale, cmin=0, cmax=MOST, showscale=False)
        legend = dict(x=0, y=0, yanchor="bottom", font_size=14, itemsizing="constant")
        margin = dict(l=10, r=10, t=40, b=10)
        return figure.update_layout(coloraxis=axis, height=500, margin=margin, legend=legend)

    def _add_classes(self, figure: Figure) -> None:
        """Add the accuracy of each class: a ring for the task's own prompts, a dot for these."""
        table, panel = self.per_class(), dict(row=1, col=3)
        names = [_plain(c) for c in table["class"]]
        line = np.stack([table["own_pct"], table["now_pct"], np.full(len(table), np.nan)], axis=1)
        pairs = dict(x=line.ravel(), y=np.repeat(names, 3), mode="lines", hoverinfo="skip")
        figure.add_scatter(**pairs, line=dict(color=INK), showlegend=False, **panel)
        look = dict(size=9, color=INK)
        for column, symbol, name in (
            ("own_pct", "circle-open", "own prompts"),
            ("now_pct", "circle", "these prompts"),
        ):
            data = dict(x=table[column].round(1), y=names, name=name, mode="markers")
            hover = f"%{{y}}, {name}: %{{x:.0f}} %<extra></extra>"
            marks = dict(marker=look | dict(symbol=symbol), hovertemplate=hover)
            figure.add_scatter(**data, **marks, **panel)
        figure.update_xaxes(range=[-5, 105], **panel)
        figure.update_yaxes(
            type="category", matches="y2", showticklabels=False, autorange="reversed", **panel
        )

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
        own, accuracy = self._own_accuracy_pct, self.accuracy_pct
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
            + self._describe_changes()
        )

    def _describe_changes(self) -> str:
        """Which class gained or lost most, and which prompts were best."""
        table, said = self.per_class(), ""
        if table is not None and (table["own_pct"] != table["now_pct"]).any():
            change = (table["now_pct"] - table["own_pct"]).abs()
            name, own, now = table.loc[change.idxmax()]
            said = f" Accuracy per class changed most for {name}: {own:.0f} to {now:.0f} %."
        tried = self.history[self.history["task"] == self.task].dropna(subset="accuracy_pct")
        if len(tried) > 1:
            best = tried.loc[tried["accuracy_pct"].astype(float).idxmax()]
            said += f" Best of {len(tried)} wordings: {best['words']}"
            said += f" ({best['accuracy_pct']:.1f} %)."
        return said

    # The page.

    def _build(self) -> Page:
        view = dict(tasks=list(self.tasks), range=RANGE, lines=triangle_lines(), most=MOST, few=FEW)
        view |= dict(looks=[(colour(k), marker(k)) for k in range(3)], count=len(self.cache))
        arrays, state = self._state()
        images, view = self.data.pool.images, view | state | self._fields()
        return self._page_of("prompts", images, view=view, arrays=arrays)

    def _state(self) -> tuple[dict[str, bytes], dict]:
        """Arrays and fields of the page that follow the prompts."""
        xy, corner, names = self._in_triangle()
        table = self.confusions()
        left, right = self._titles(xy)
        counts = np.bincount(corner[~np.isnan(xy[:, 0])] + 1, minlength=4).tolist()
        looks = [("line", "circle"), *((colour(k), marker(k)) for k in range(3))]
        legend = [
            dict(key=k - 1, name=name, look=looks[k], count=counts[k])
            for k, name in enumerate(["other classes", *names])
            if k or counts[k]
        ]
        unknown = ", ".join(self.unknown_words)
        text = f"{self.vlm.name} never saw: {unknown}. Its answers for these words are meaningless."
        view = dict(
            task=self.task,
            corners=self.corners,
            options=list(dict.fromkeys([*self.classnames, "rest"])),
            labels=corner_labels(self.corners),
            legend=legend,
            titles=(left, right),
            rows=list(table.index),
            columns=list(table.columns),
            kind="true" if self._known.any() else "predicted",
            errors=list(_largest(table, 5).itertuples(index=False, name=None)),
            classes=self._classes(),
            scores=self._describe_scores(),
            warning=text if unknown else "",
            refused="",
            history=self._tried(),
        )
        shares = table.round().to_numpy().astype(np.uint8)
        return dict(xy=points(xy), groups=groups(corner), shares=shares.tobytes()), view

    def _fields(self) -> dict:
        """The prompts as text; the number makes the page write them although they were typed."""
        self._written += 1
        lines = ("\n".join(self.classnames), "\n".join(self.templates), self._written)
        return {"written": lines}

    def _classes(self) -> list[tuple]:
        table = self.per_class()
        return [] if table is None else list(table.round(1).itertuples(index=False, name=None))

    def _tried(self) -> list[dict]:
        """The history of the task for the page, in the order of trying."""
        now, found = self._prompts_now(), []
        for place, entry in enumerate(self._entries):
            if entry["task"] == self.task:
                shown = {key: entry[key] for key in ("words", "accuracy_pct", "confidence")}
                same = (entry["classnames"], entry["templates"]) == now
                found.append(shown | {"place": place, "now": same})
        return found

    def _redraw(self, **more: object) -> None:
        if self._widget is None:
            return
        arrays, view = self._state()
        with self._page.hold_sync():
            for name, array in arrays.items():
                self._page.set_trait(name, array)
            self._page.update(**view, **more)

    def _refill(self) -> None:
        """Write the prompts into the page's fields, and draw."""
        self._applied = True
        if self._widget is not None:
            self._redraw(**self._fields())
            self._update_twin()

    def _on_typed(self, classnames: str, templates: str) -> None:
        """Ask with what is typed, one name or template per line."""
        self._applied = False
        try:
            self._ask(_lines(classnames), _lines(templates))
        except ValueError as error:
            self._page.update(refused=f"Not applied: {error}")
        else:
            self._applied = True
            self._redraw()
        self._page.tell("answered")

    def _on_keep(self) -> None:
        """Note the prompts in the history: typing rests."""
        if self._applied and self._keep():
            self._page.update(history=self._tried())

    def _on_left(self) -> None:
        """Note the prompts, and show them in the twin: the fields were left."""
        self._on_keep()
        self._update_twin()

    def _on_task(self, name: str) -> None:
        self.choose(name)

    def _on_own(self) -> None:
        self.choose(self.task)

    def _on_again(self, place: int) -> None:
        """Go back to prompts of the history."""
        entry = self._entries[place]
        self.ask(entry["classnames"], entry["templates"])

    def _on_corner(self, place: int, name: str) -> None:
        """Put a class at a corner; one that is at another corner already changes places."""
        corners = list(self.corners)
        if name in corners:
            corners[corners.index(name)] = corners[place]
        corners[place] = name
        self._place(corners)

    def _on_pair(self, true: str, predicted: str) -> None:
        """Show two confused classes at the lower corners."""
        others = [
            c for c in (*self.corners, *self.classnames, "rest") if c not in (true, predicted)
        ]
        self._place([true, predicted, others[0]])

    def _place(self, corners: list[str]) -> None:
        triangle(self.probs[:1].numpy(), corners, self.classnames)  # checks them
        self.corners = corners
        self._redraw()


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


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _difference(
    own: tuple[Sequence[str], Sequence[str]], classnames: Sequence[str], templates: Sequence[str]
) -> str:
    """What differs between prompts and the task's own, in a few words."""
    names, parts = list(own[0]), []
    if len(names) == len(classnames):
        changed = [f"{a} → {b}" for a, b in zip(names, classnames, strict=True) if a != b]
        parts += [*changed[:2], *([f"{len(changed) - 2} more names"] if len(changed) > 2 else [])]
    else:
        some = ", ".join(classnames[:3]) + (", ..." if len(classnames) > 3 else "")
        parts.append(f"{len(classnames)} names: {some}")
    if list(templates) != list(own[1]):
        parts.append(" | ".join(templates[:2]) + (" | ..." if len(templates) > 2 else ""))
    return "; ".join(parts) or "the task's own prompts"


def _largest(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """The largest confusions of a table."""
    shares = np.where(_same(table), 0, table)
    best = np.argsort(-shares, axis=None, kind="stable")[:most]
    i, j = np.unravel_index(best[shares.flat[best] > 0], shares.shape)
    columns = {
        "class": table.index[i],
        "predicted": table.columns[j],
        "share_pct": shares[i, j],
    }
    return pd.DataFrame(columns)


def _heatmap(table: pd.DataFrame) -> go.Heatmap:
    names = dict(x=[_plain(c) for c in table.columns], y=[_plain(c) for c in table.index])
    shares = np.where(_same(table), np.nan, table).round(1)
    hover = "%{y} predicted as %{x}: %{z:.0f} %<extra></extra>"
    return go.Heatmap(z=shares, **names, coloraxis="coloraxis", xgap=1, ygap=1, hovertemplate=hover)


def _same(table: pd.DataFrame) -> np.ndarray:
    """Where row and column have the same name: correct predictions."""
    return table.index.to_numpy()[:, None] == table.columns.to_numpy()


def _plain(text: str) -> str:
    """Text that plotly and pages show as it was typed."""
    return html.escape(text, quote=False)
