"""All of `akd.plots`: functions that return a `Figure` with its data and an alternative text."""

from activekd_lite.analysis.statistics import curves_frame
from activekd_lite.plots import report
from activekd_lite.plots.balls import ball_shrinkage
from activekd_lite.plots.base import Figure
from activekd_lite.plots.comparisons import (
    aulc_intervals,
    critical_differences,
    diagnostics,
    first_counts,
    gain_intervals,
    interval_dots,
    learning_curves,
    win_tie_loss,
)
from activekd_lite.plots.inheritance import inheritance
from activekd_lite.plots.maps import maps, pick_by_pick, picks_on_map, simplex
from activekd_lite.plots.runs import (
    confusions,
    image_rows,
    loop_picture,
    query_montage,
    reliability_diagram,
    selected_probabilities,
)
from activekd_lite.plots.tasks import task_leads

__all__ = [
    "Figure",
    "aulc_intervals",
    "ball_shrinkage",
    "confusions",
    "critical_differences",
    "curves_frame",
    "diagnostics",
    "first_counts",
    "gain_intervals",
    "image_rows",
    "inheritance",
    "interval_dots",
    "learning_curves",
    "loop_picture",
    "maps",
    "pick_by_pick",
    "picks_on_map",
    "query_montage",
    "reliability_diagram",
    "report",
    "selected_probabilities",
    "simplex",
    "task_leads",
    "win_tie_loss",
]
