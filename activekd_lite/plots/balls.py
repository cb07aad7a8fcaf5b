"""What became of the teacher's balls: the student's radii against the teacher's."""

from collections.abc import Sequence

import numpy as np

from activekd_lite.analysis.structure import BallShrinkage
from activekd_lite.plots.base import COLOURS, INK, MARKERS, Figure

KINDS = {True: "the teacher is right", False: "the teacher is wrong"}


def ball_shrinkage(
    shrinkage: BallShrinkage,
    classnames: Sequence[str],
    *,
    kd_weight: float = 0.5,
    title: str = "",
) -> Figure:
    """Plot the student's radius of each ball and label against the teacher's.

    Dashed: what the proposition of arXiv:2506.00910 expects of an ideal student with this
    kd_weight. Grey: the teacher's own radius. Markers grow with the number of images.
    Raises ValueError if no part was large enough to be measured.
    """
    parts = shrinkage.parts.drop(columns=["teacher_apart", "student_apart"])
    if len(parts) == 0:
        raise ValueError("no ball has enough images of one label; measure with a smaller `least`")
    right = parts["answer"] == parts["label"]
    for name in ("answer", "label"):
        parts[name] = [classnames[place] for place in parts[name]]
    figure = Figure(table=parts, alt=_alt(shrinkage, kd_weight))
    end = 1.08 * float(parts[["teacher_radius", "student_radius"]].max().max())
    lines = ((1.0, "the teacher's radius", "solid", "#999999"),)
    lines += ((kd_weight, f"the proposition: × {kd_weight:g}", "dash", INK),)
    for slope, name, dash, tint in lines:
        line = dict(dash=dash, color=tint, width=2)
        figure.add_scatter(x=[0, end], y=[0, slope * end], mode="lines", name=name, line=line)
    for place, (kind, name) in enumerate(KINDS.items()):
        shown = parts[right == kind]
        look = dict(color=COLOURS[place], symbol=MARKERS[place], opacity=0.8)
        look["size"] = 5 + 22 * np.sqrt(shown["images"] / parts["images"].max())
        figure.add_scatter(
            x=shown["teacher_radius"],
            y=shown["student_radius"],
            mode="markers",
            name=name,
            marker=look,
            customdata=shown[["answer", "label", "images", "ratio"]],
            hovertemplate="teacher %{customdata[0]}, truly %{customdata[1]}<br>"
            "%{customdata[2]} images, × %{customdata[3]:.2f}<extra></extra>",
        )
    figure.update_xaxes(title="teacher's radius", range=[0, end])
    figure.update_yaxes(title="student's radius", range=[0, end])
    legend = dict(orientation="h", y=-0.2, yanchor="top", itemsizing="constant")
    return figure.update_layout(title=title, legend=legend)


def _alt(shrinkage: BallShrinkage, kd_weight: float) -> str:
    ratios = shrinkage.parts["ratio"]
    words = (
        f"The student's radius against the teacher's for {len(ratios)} balls, one per teacher's "
        f"answer and label: × {ratios.median():.2f} in the median, from {ratios.min():.2f} to "
        f"{ratios.max():.2f}; the proposition says × {kd_weight:.2f}."
    )
    if np.isnan(shrinkage.split_share):
        return words
    return f"{words} {100 * shrinkage.split_share:.0f} % of the balls with several labels split."
