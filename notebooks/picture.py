"""Draw the picture in README.md (`make picture`).

Needs kaleido, a Chromium and half a minute; no network.
Both panels show `digits`. Left: a UMAP of the first student's class probabilities, after training
on one label per class and its teacher's predictions, with the ten images that PCoreSet queries.
Right: test accuracy with and without the teacher, from the PCoreSet runs of the embedded study.
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
MARGIN = dict(t=90, r=20, b=90, l=10)  # pixels
SHARE = 0.56  # of the width between the margins, for the left panel
PANEL = (SHARE * (WIDTH - 30), HEIGHT - 180)  # pixels
TILE = 42  # pixels: side of a small image
FRAME = 34  # pixels: border of the panel without points
PICKED, GREY = COLOURS[1], "#5F5F5F"
LEFT = (
    "The student's predictions: labelled images (black),<br>"
    f"and <span style='color:{PICKED}'>the queries of PCoreSet, in order</span>"
)
RIGHT = "Learning curves on the<br>same digits, 10 seeds"
DISTANCES = ["#E3E7EC", "#A9B8CC", "#5B7FB0", "#0B3C7A"]  # colour scale, near to far


def first_query(data: akd.Dataset) -> tuple[akd.Predictions, torch.Tensor, torch.Tensor]:
    """Return the first student's predictions on the pool, the labelled images and the first query.

    The query of PCoreSet is in pick order.
    """
    model = akd.load_vlm()
    cache = akd.TeacherCache.build(model, data.pool, root=ROOT / ".cache", progress=False)
    teacher = akd.ZeroShotTeacher(cache, model.text_weights(data.classnames, data.templates))
    result = akd.run_active_learning(data, teacher, rounds=0, seed=0, progress=False)
    predictions = result.predict(data.pool.images)
    generator = akd.seeding.generator(0, "selection", 0)
    picks = akd.STRATEGIES["pcoreset"](
        predictions, result.state, data.pool.num_classes, generator=generator
    )
    return predictions, result.state.labeled_indices, picks


def study_curves() -> pd.DataFrame:
    """Return learning curves of PCoreSet on `digits`, with the zero-shot teacher and without."""
    study = akd.sweep.load(akd.sweep.STUDY)
    study = study[(study["dataset"] == "digits") & (study["strategy"] == "pcoreset")]
    return curves_frame(study[study["teacher"] != "clap"])


def fitted(xy: np.ndarray) -> np.ndarray:
    """Scale a map (N, 2) to the pixels of its panel, each axis by itself.

    The axes of a UMAP have no meaning, so their ratio need not be kept.
    """
    low, high = xy.min(axis=0), xy.max(axis=0)
    return FRAME + (xy - low) / (high - low) * (np.array(PANEL) - 2 * FRAME)


def moved_apart(xy: np.ndarray, gap: float) -> np.ndarray:
    """Move centres of squares (n, 2) until each pair is `gap` apart along at least one axis."""
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
    order = distance.argsort()  # distant points are drawn last, on top
    title = dict(text="distance to the nearest labelled image", side="top", font_size=21)
    bar = dict(title=title, orientation="h", x=0.1, xanchor="left", y=-0.03, yanchor="top")
    bar |= dict(len=0.38, thickness=14, outlinewidth=0)
    bar |= dict(tickvals=[0, 0.2, 0.4, 0.6], tickfont_size=19)
    look = dict(color=distance[order], colorscale=DISTANCES, cmin=0, cmax=float(distance.max()))
    look |= dict(size=11, colorbar=bar, line=dict(color="white", width=0.7))
    figure.add_scatter(x=xy[order, 0], y=xy[order, 1], mode="markers", marker=look, row=1, col=1)


def add_images(
    figure: go.Figure, xy: np.ndarray, at: np.ndarray, images: torch.Tensor, tint: str
) -> None:
    """Draw images (n, 3, H, W) with frames at `at`, and lines to their points `xy` on the map."""
    for (x0, y0), (x, y) in zip(xy, at, strict=True):
        line = dict(color=tint, width=2)
        figure.add_scatter(x=[x0, x], y=[y0, y], mode="lines", line=line, row=1, col=1)
    half, size = TILE / 2, dict(sizex=TILE, sizey=TILE, sizing="stretch")
    for tile, (x, y) in zip(squares(images, range(len(images)), 64), at, strict=True):
        uri = data_uri(255 - tile.permute(1, 2, 0).numpy())  # dark digits on white
        place = dict(x=x, y=y, xanchor="center", yanchor="middle")
        figure.add_layout_image(source=uri, **place, **size, row=1, col=1)
        frame = dict(x0=x - half, x1=x + half, y0=y - half, y1=y + half)
        frame["line"] = dict(color=tint, width=4)
        figure.add_shape(type="rect", **frame, row=1, col=1)


def add_order(figure: go.Figure, at: np.ndarray) -> None:
    badge = dict(font=dict(size=19, color="white"), bgcolor=PICKED, borderpad=1, showarrow=False)
    for number, (x, y) in enumerate(at + TILE / 2, 1):
        figure.add_annotation(text=f"<b>{number}</b>", x=x, y=y, **badge, row=1, col=1)


def add_curves(figure: go.Figure, table: pd.DataFrame, teacher_accuracy_pct: float) -> None:
    panel = dict(row=1, col=2)
    for distill, tint, dash in ((False, GREY, "dash"), (True, COLOURS[0], "solid")):
        rows = table[table["distill"] == distill]
        x, mean, half = rows["labeled_count"], rows["mean"], rows["half_width"]
        band = dict(x=[*x, *x[::-1]], y=[*(mean + half), *(mean - half)[::-1]], fill="toself")
        look = dict(mode="lines", line_width=0, fillcolor=tint, opacity=0.18)
        figure.add_scatter(**band, **look, **panel)
        line = dict(color=tint, width=5, dash=dash)
        figure.add_scatter(x=x, y=mean, mode="lines", line=line, **panel)
    figure.add_hline(teacher_accuracy_pct, line=dict(color=INK, width=2.5, dash="dot"), **panel)
    for x, y, text, tint in (
        (11, 97.5, "with the teacher", COLOURS[0]),
        (31, 75, "labels alone", GREY),
        (44, teacher_accuracy_pct - 1.8, "the teacher alone", INK),
    ):
        look = dict(font=dict(size=23, color=tint), showarrow=False, xanchor="left")
        figure.add_annotation(text=f"<b>{text}</b>", x=x, y=y, **look, **panel)


def picture() -> go.Figure:
    data = akd.load_dataset("digits", ROOT / "data", cache_root=ROOT / ".cache")
    predictions, labeled, picks = first_query(data)
    probs = predictions.probs.cpu()
    xy = fitted(umap.UMAP(random_state=0, n_jobs=1, min_dist=0.4).fit_transform(probs.numpy()))
    shown = torch.cat([labeled, picks])
    at = moved_apart(xy[shown], TILE + 16)
    widths = [SHARE, 1 - SHARE - 0.1]
    figure = go.Figure().set_subplots(1, 2, column_widths=widths, horizontal_spacing=0.1)
    add_answers(figure, xy, torch.cdist(probs, probs[labeled]).amin(dim=1).numpy())
    for part, tint in ((slice(len(labeled)), INK), (slice(len(labeled), None), PICKED)):
        add_images(figure, xy[shown[part]], at[part], data.pool.images[shown[part]], tint)
    add_order(figure, at[len(labeled) :])
    add_curves(figure, study_curves(), akd.sweep.teachers(akd.sweep.STUDY)["digits", "zero-shot"])
    return with_axes(figure)


def with_axes(figure: go.Figure) -> go.Figure:
    place = dict(xref="paper", yref="paper", xanchor="left", yanchor="bottom", y=1.04)
    for text, x in ((LEFT, 0.0), (RIGHT, SHARE + 0.1)):
        look = dict(font_size=24, align="left", showarrow=False)
        figure.add_annotation(text=f"<b>{text}</b>", x=x, **place, **look)
    figure.update_xaxes(**HIDDEN, range=[0, PANEL[0]], row=1, col=1)
    figure.update_yaxes(**HIDDEN, range=[0, PANEL[1]], row=1, col=1)
    figure.update_xaxes(title="labels", range=[8, 92], row=1, col=2)
    figure.update_yaxes(title="test accuracy (%)", range=[57, 100], row=1, col=2)
    size = dict(margin=MARGIN, width=WIDTH, height=HEIGHT)
    return figure.update_layout(template=TEMPLATE, showlegend=False, font_size=22, **size)


def main() -> None:
    picture().write_image(PICTURE, width=WIDTH, height=HEIGHT)
    reduced = Image.open(PICTURE).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    reduced.save(PICTURE, optimize=True)
    size = PICTURE.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(
            f"{PICTURE} has {size} bytes, more than {MOST_BYTES}; draw fewer points or a smaller "
            "picture"
        )
    print(f"{PICTURE.relative_to(ROOT)}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
