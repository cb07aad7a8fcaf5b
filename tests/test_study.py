"""The embedded study is complete and paired, and texts about it agree with its table."""

import re

import nbformat
import pytest

from activekd_lite.analysis import metrics, statistics
from activekd_lite.experiments import sweep
from activekd_lite.utils.files import PACKAGE

ROOT = PACKAGE.parent
INTERVAL = re.compile(r"[+-]?\d+\.\d ± \d+\.\d")


@pytest.fixture(scope="module")
def study():
    return sweep.load(sweep.STUDY)


def test_every_run_of_the_grid_is_complete_and_there_are_no_others(study):
    runs = sweep.Grid.read(sweep.STUDY / "grid.yaml").runs()
    assert set(study["run"]) == set(runs)
    assert (
        study.groupby("run")["round"].agg(lambda rounds: sorted(rounds) == list(range(9)))
    ).all()
    assert statistics.missing(study).empty
    assert set(sweep.teachers(sweep.STUDY)) == {
        (d, t) for d in ("digits", "shapes") for t in ("zero-shot", "clap")
    }
    assert sum(path.stat().st_size for path in sweep.STUDY.iterdir()) < 500_000


def test_within_a_seed_all_strategies_start_equal(study):
    first = study[study["round"] == 0].groupby(["dataset", "teacher", "seed"])
    assert (first["accuracy_pct"].nunique() == 1).all()
    assert (study.groupby(["dataset", "round"])["labeled_count"].nunique() == 1).all()


def test_the_readmes_table_is_the_studys(study):
    summary = statistics.summary(study).set_index(["data set", "strategy"])
    rows = [
        line.strip("| ").split(" | ")
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    ]
    shown = {row[0]: row[1:] for row in rows if len(row) == 9}
    for strategy in study["strategy"].unique():
        wanted = []
        for data in ("digits", "shapes"):
            zero_shot, few_shot = (
                summary.loc[(f"{data}, {teacher}", strategy)] for teacher in ("zero-shot", "clap")
            )
            wanted += [zero_shot["with"], few_shot["with"], zero_shot["without"], zero_shot["gain"]]
        assert shown[strategy] == wanted
    assert len(shown) == 6


def section(text, heading):
    return re.split(r"^## ", text.split(f"## {heading}\n", 1)[1], maxsplit=1, flags=re.M)[0]


def notebook_05():
    cells = nbformat.read(next((ROOT / "notebooks").glob("05_*.ipynb")), 4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("text", [
    lambda: (sweep.STUDY / "README.md").read_text(encoding="utf-8"),
    lambda: section((ROOT / "README.md").read_text(encoding="utf-8"), "What comes out"),
    lambda: section(notebook_05(), "What we measured"),
], ids=["data/study", "README", "notebook 05"])  # fmt: skip
def test_every_interval_in_the_texts_is_in_the_table(intervals, text):
    written = INTERVAL.findall(text())
    assert len(written) > 5
    assert set(written) <= intervals, sorted(set(written) - intervals)


@pytest.fixture(scope="module")
def intervals(study):
    """All means, gains and paired differences of all settings as text, with and without sign."""
    found = {
        statistics.interval_text(r.mean, r.half_width, "+")
        for r in statistics.gains(study).itertuples()
    }
    for part in statistics.settings(study).values():
        for distill in (True, False):
            for value in statistics.VALUES:
                table = statistics.paired(part, value, distill=distill)
                found |= {
                    statistics.interval_text(*metrics.mean_interval(column))
                    for _, column in table.items()
                }
                for r in metrics.paired_comparisons(table).itertuples():
                    found |= {
                        statistics.interval_text(s * r.difference, r.half_width, "+")
                        for s in (1, -1)
                    }
    return found | {text.lstrip("+-") for text in found}
