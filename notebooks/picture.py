"""The picture in README.md: `make picture`. Needs kaleido and a Chromium, half a minute, no network.

Both sides show `digits`. Left: the answers of the first student, which has seen one label per class and its teacher's answers,
as a UMAP of its probabilities; and the ten images that PCoreSet asks for in that space. Right: the test accuracy with and
without the teacher, of the embedded study's runs with PCoreSet.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
import umap
from PIL import Image

import activekd_lite as akd
from activekd_lite.analysis.statistics import curves_frame
from activekd_lite.plots.base import COLOURS, INK, TEMPLATE, data_uri, squares
from activekd_lite.plots.maps import HIDDEN

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "notebooks" / "picture.png"
WIDTH, HEIGHT, MOST_BYTES = 1200, 640, 300_000
MARGIN, SHARE = (
    dict(t=90, r=20, b=90, l=10),
    0.56,
)  # pixels; the left panel's share of the width between the margins
PANEL = (SHARE * (WIDTH - 30), HEIGHT - 180)  # pixels
TILE, FRAME = 42, 34  # pixels: a picture's side, and the panel's edge that its points keep free
PICKED, GREY = COLOURS[1], "#5F5F5F"
LEFT = (
    "The student's answers: labelled images (black),<br>"
    f"and <span style='color:{PICKED}'>what PCoreSet asks for, in its order</span>"
)
RIGHT = "Learning curves on the<br>same digits, 10 seeds"
DISTANCES = [
    "#E3E7EC",
    "#A9B8CC",
    "#5B7FB0",
    "#0B3C7A",
]  # from a labelled image to what is farthest from all of them


def first_query(data: akd.Dataset) -> tuple[akd.Predictions, torch.Tensor, torch.Tensor]:
    """The first student's answers to the pool, the labelled images, and what PCoreSet asks for next, in its order."""
    model = akd.load_vlm()
    cache = akd.TeacherCache.build(model, data.pool, root=ROOT / ".cache", progress=False)
    teacher = akd.ZeroShotTeacher(cache, model.text_weights(data.classnames, data.templates))
    result = akd.run_active_learning(data, teacher, rounds=0, seed=0, progress=False)
    predictions, chance = result.predict(data.pool.images), akd.seeding.generator(0, "selection", 0)
    picks = akd.STRATEGIES["pcoreset"](
        predictions, result.state, data.pool.num_classes, generator=chance
    )
    return predictions, result.state.labeled_indices, picks


def study_curves() -> pd.DataFrame:
    """Mean and interval over the seeds, PCoreSet on `digits` with the zero-shot teacher and without one."""
    study = akd.sweep.load(akd.sweep.STUDY)
    of = (
        (study["dataset"] == "digits")
        & (study["strategy"] == "pcoreset")
        & (study["teacher"] != "clap")
    )
    return curves_frame(study[of])


def fitted(xy: np.ndarray) -> np.ndarray:
    """The map (N, 2) in pixels of its panel: each axis is stretched to fill it, since the axes of a UMAP mean nothing."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    return FRAME + (xy - low) / (high - low) * (np.array(PANEL) - 2 * FRAME)


def moved_apart(xy: np.ndarray, gap: float) -> np.ndarray:
    """Centres (n, 2) of squares, each pair at least `gap` apart along one axis; those that are close enough already stay."""
    xy = xy.copy()
    for _ in range(200):
        for i in range(len(xy)):
            for j in range(i):
                step = xy[i] - xy[j]
                if (short := gap - np.abs(step).max()) > 0:
                    push = step / max(1e-9, np.linalg.norm(step)) * short / 2
                    xy[i], xy[j] = xy[i] + push, xy[j] - push
    return xy.clip(FRAME / 2, np.array(PANEL) - FRAME / 2)


def add_answers(figure: go.Figure, xy: np.ndarray, distance: np.ndarray) -> None:
    order = distance.argsort()  # the far ones above
    bar = dict(
        title=dict(text="distance to the nearest labelled image", side="top", font_size=21), orientation="h", x=0.1,
        xanchor="left", y=-0.03, yanchor="top", len=0.38, thickness=14, tickfont_size=19,
        tickvals=[0, 0.2, 0.4, 0.6], outlinewidth=0,
    )  # fmt: skip
    look = dict(
        color=distance[order],
        colorscale=DISTANCES,
        cmin=0,
        cmax=float(distance.max()),
        size=11,
        colorbar=bar,
    )
    look["line"] = dict(color="white", width=0.7)
    figure.add_scatter(x=xy[order, 0], y=xy[order, 1], mode="markers", marker=look, row=1, col=1)


def add_images(
    figure: go.Figure, xy: np.ndarray, at: np.ndarray, images: torch.Tensor, tint: str
) -> None:
    """Small framed pictures of images (n, 3, H, W), with lines to where they are on the map."""
    half = TILE / 2
    for (x0, y0), (x, y) in zip(xy, at, strict=True):
        figure.add_scatter(
            x=[x0, x], y=[y0, y], mode="lines", line=dict(color=tint, width=2), row=1, col=1
        )
    for tile, (x, y) in zip(squares(images, range(len(images)), 64), at, strict=True):
        uri = data_uri(255 - tile.permute(1, 2, 0).numpy())  # ink on paper
        place = dict(
            x=x, y=y, sizex=TILE, sizey=TILE, xanchor="center", yanchor="middle", sizing="stretch"
        )
        figure.add_layout_image(source=uri, **place, row=1, col=1)
        frame = dict(
            x0=x - half, x1=x + half, y0=y - half, y1=y + half, line=dict(color=tint, width=4)
        )
        figure.add_shape(type="rect", **frame, row=1, col=1)


def add_order(figure: go.Figure, at: np.ndarray) -> None:
    for place, (x, y) in enumerate(at, 1):
        badge = dict(
            text=f"<b>{place}</b>",
            font=dict(size=19, color="white"),
            bgcolor=PICKED,
            borderpad=1,
            showarrow=False,
        )
        figure.add_annotation(x=x + TILE / 2, y=y + TILE / 2, **badge, row=1, col=1)


def add_curves(figure: go.Figure, table: pd.DataFrame, teacher_accuracy_pct: float) -> None:
    for distill, tint, dash in ((False, GREY, "dash"), (True, COLOURS[0], "solid")):
        of = table[table["distill"] == distill]
        x, low, high = (
            of["labeled_count"],
            of["mean"] - of["half_width"],
            of["mean"] + of["half_width"],
        )
        band = dict(
            x=[*x, *x[::-1]], y=[*high, *low[::-1]], fill="toself", line_width=0, mode="lines"
        )
        figure.add_scatter(**band, fillcolor=tint, opacity=0.18, row=1, col=2)
        figure.add_scatter(
            x=x, y=of["mean"], mode="lines", line=dict(color=tint, width=5, dash=dash), row=1, col=2
        )
    figure.add_hline(
        teacher_accuracy_pct, line=dict(color=INK, width=2.5, dash="dot"), row=1, col=2
    )
    for x, y, text, tint in ((11, 97.5, "with the teacher", COLOURS[0]), (31, 75, "labels alone", GREY),
                             (44, teacher_accuracy_pct - 1.8, "the teacher alone", INK)):  # fmt: skip
        said = dict(
            text=f"<b>{text}</b>", font=dict(size=23, color=tint), showarrow=False, xanchor="left"
        )
        figure.add_annotation(x=x, y=y, **said, row=1, col=2)


def picture() -> go.Figure:
    data = akd.load_dataset("digits", ROOT / "data", cache_root=ROOT / ".cache")
    predictions, labeled, picks = first_query(data)
    probs = predictions.probs.cpu()
    xy = fitted(umap.UMAP(random_state=0, n_jobs=1, min_dist=0.4).fit_transform(probs.numpy()))
    shown = torch.cat([labeled, picks])
    at = moved_apart(xy[shown], TILE + 16)
    figure = go.Figure().set_subplots(
        1, 2, column_widths=[SHARE, 1 - SHARE - 0.1], horizontal_spacing=0.1
    )
    add_answers(figure, xy, torch.cdist(probs, probs[labeled]).amin(dim=1).numpy())
    for part, tint in ((slice(len(labeled)), INK), (slice(len(labeled), None), PICKED)):
        add_images(figure, xy[shown[part]], at[part], data.pool.images[shown[part]], tint)
    add_order(figure, at[len(labeled) :])
    add_curves(figure, study_curves(), akd.sweep.teachers(akd.sweep.STUDY)["digits", "zero-shot"])
    return with_axes(figure)


def with_axes(figure: go.Figure) -> go.Figure:
    for text, x in ((LEFT, 0.0), (RIGHT, SHARE + 0.1)):
        place = dict(
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            y=1.04,
            align="left",
            showarrow=False,
        )
        figure.add_annotation(text=f"<b>{text}</b>", x=x, font_size=24, **place)
    figure.update_xaxes(**HIDDEN, range=[0, PANEL[0]], row=1, col=1).update_yaxes(
        **HIDDEN, range=[0, PANEL[1]], row=1, col=1
    )
    figure.update_xaxes(title="labels", range=[8, 92], row=1, col=2)
    figure.update_yaxes(title="test accuracy (%)", range=[57, 100], row=1, col=2)
    return figure.update_layout(
        template=TEMPLATE, showlegend=False, font_size=22, margin=MARGIN, width=WIDTH, height=HEIGHT
    )


def main() -> None:
    picture().write_image(PICTURE, width=WIDTH, height=HEIGHT)
    few = Image.open(PICTURE).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(PICTURE, optimize=True)
    size = PICTURE.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(
            f"{PICTURE} has {size} bytes, more than {MOST_BYTES}: fewer points or a smaller picture"
        )
    print(f"{PICTURE.relative_to(ROOT)}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
