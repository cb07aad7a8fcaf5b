"""The picture in README.md: `make picture`. Needs kaleido and a Chromium, two to three minutes, no network.

Left: the teacher's answers to 4,000 images of `shapes`, as a UMAP of its probabilities, and the first 36 images that PCoreSet
would ask for. Right: what a student makes of them on `digits`, with and without the teacher, over three seeds.
"""

from pathlib import Path

import numpy as np
import umap
from PIL import Image

import activekd_lite as akd
from activekd_lite.figures import INK, TEMPLATE, data_uri, squares

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "notebooks" / "picture.png"
WIDTH, HEIGHT, MOST_BYTES = 1200, 520, 300_000


def clusters() -> tuple[np.ndarray, np.ndarray, np.ndarray, akd.Dataset]:
    """A map (N, 2) of the teacher's probabilities, its answers (N,), PCoreSet's picks (36,) and the data."""
    data, model = akd.load_dataset("shapes", ROOT / "data", cache_root=ROOT / ".cache"), akd.load_vlm()
    cache = akd.TeacherCache.build(model, data.pool, root=ROOT / ".cache")
    probs = akd.ZeroShotTeacher(cache, model.text_weights(data.classnames, data.templates)).probs().cpu()
    surest = probs.amax(dim=1).argmax().item()
    picks, _ = akd.kcenter.k_center_greedy(probs, probs[[surest]], 36)
    xy = umap.UMAP(random_state=0, n_jobs=1, min_dist=0.25).fit_transform(probs.numpy())
    return xy, probs.argmax(dim=1).numpy(), picks.numpy(), data


def curves() -> list[akd.RunResult]:
    grid = akd.sweep.Grid(strategies=("pcoreset",), seeds=(0, 1, 2))
    return akd.sweep.run(grid, ROOT / "runs" / "picture", cache_root=ROOT / ".cache", data_root=ROOT / "data")


def picture() -> akd.plots.Figure:
    xy, answers, picks, data = clusters()
    figure = akd.plots.Figure(alt="A map of a teacher's predictions, and learning curves with and without it.")
    titles = ["A vision-language teacher's answers form clusters,<br>and PCoreSet asks for images that cover them",
              "A student that is also taught by it<br>needs fewer labels"]  # fmt: skip
    figure.set_subplots(1, 2, column_widths=[0.58, 0.42], horizontal_spacing=0.09, subplot_titles=titles)
    panel = akd.plots.maps({"": xy}, answers, data.classnames)
    for trace in panel.data:
        figure.add_trace(trace.update(marker_size=4, marker_opacity=0.6, showlegend=False), row=1, col=1)
    low, high = xy.min(axis=0), xy.max(axis=0)
    steps = (xy - low) * 10_000 / (high - low).max()
    side = 520
    for index in picks:
        tile = squares(data.pool.images, [int(index)], 32)[0].permute(1, 2, 0).numpy()
        figure.add_layout_image(source=data_uri(tile), x=steps[index, 0], y=steps[index, 1], sizex=side, sizey=side,
                                xanchor="center", yanchor="middle", xref="x", yref="y")  # fmt: skip
    half = side / 2
    for index in picks:
        x, y = (float(v) for v in steps[index])
        figure.add_shape(type="rect", x0=x - half, x1=x + half, y0=y - half, y1=y + half, line=dict(color=INK, width=1.2))
    results = curves()
    for trace in akd.plots.learning_curves(results).data:
        name = "with the teacher" if trace.line.dash == "solid" else "labels alone"
        figure.add_trace(trace.update(name=name, legendgroup=name), row=1, col=2)
    hidden = dict(showgrid=False, zeroline=False, showticklabels=False)
    figure.update_xaxes(**hidden, row=1, col=1).update_yaxes(**hidden, scaleanchor="x", row=1, col=1)
    figure.update_xaxes(title="labels", row=1, col=2).update_yaxes(title="test accuracy on digits (%)", row=1, col=2)
    legend = dict(x=0.98, y=0.06, xanchor="right", yanchor="bottom", bgcolor="rgba(255,255,255,0.8)")
    return figure.update_layout(template=TEMPLATE, margin=dict(t=80, l=10), height=HEIGHT, legend=legend)


def main() -> None:
    picture().write_image(PICTURE, width=WIDTH, height=HEIGHT)
    few = Image.open(PICTURE).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(PICTURE, optimize=True)
    size = PICTURE.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{PICTURE} has {size} bytes, more than {MOST_BYTES}: fewer points or a smaller picture")
    print(f"{PICTURE.relative_to(ROOT)}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
