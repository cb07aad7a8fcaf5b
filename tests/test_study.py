"""The embedded study is complete and paired, and texts about it agree with its table."""

import importlib.util
import re

import nbformat
import pytest

from activekd_lite.analysis import statistics
from activekd_lite.experiments import sweep
from activekd_lite.strategies import PAPER_STRATEGIES
from activekd_lite.utils.files import PACKAGE

ROOT = PACKAGE.parent
INTERVAL = re.compile(r"[+-]?\d+\.\d ± \d+\.\d")


@pytest.fixture(scope="module")
def study():
    return sweep.load(sweep.STUDY)


def test_the_study_has_every_run_of_its_grid_and_no_other(study):
    runs = sweep.Grid.read(sweep.STUDY / "grid.yaml").runs()
    assert set(study["run"]) == set(runs)
    assert (
        study.groupby("run")["round"].agg(lambda rounds: sorted(rounds) == list(range(9)))
    ).all()
    assert statistics.missing(study).empty
    assert set(sweep.teachers(sweep.STUDY)) == {
        (d, t) for d in ("digits", "shapes") for t in ("zero-shot", "clap")
    }
    assert sum(path.stat().st_size for path in sweep.STUDY.iterdir()) < 3_000_000


def test_within_a_seed_all_strategies_start_the_same(study):
    first = study[study["round"] == 0].groupby(["dataset", "teacher", "seed"])
    assert (first["accuracy_pct"].nunique() == 1).all()
    assert (study.groupby(["dataset", "round"])["labeled_count"].nunique() == 1).all()


@pytest.mark.parametrize("name", ["tasks", "structure"])
def test_the_study_over_tasks_has_whole_paired_runs_of_its_grid(name):
    study, grid = (
        sweep.load(sweep.STUDY / f"{name}.parquet"),
        sweep.Grid.read(sweep.STUDY / f"{name}.yaml"),
    )
    run = ["dataset", "teacher", "strategy", "seed"]
    planned = {
        (p.config.dataset, p.teacher, p.config.strategy, p.config.seed)
        for p in grid.runs().values()
    }
    assert set(study[run].itertuples(index=False, name=None)) <= planned
    assert (study.groupby(run)["round"].agg(lambda rounds: sorted(rounds) == list(range(6)))).all()
    first = study[study["round"] == 0].groupby(["dataset", "teacher", "seed"])["accuracy_pct"]
    assert (first.nunique() == 1).all()
    # Every task has all three strategies of the hypothesis, with the teacher.
    taught = study[study["distill"]].groupby("dataset")["strategy"].unique()
    assert [*taught.index] == sorted(grid.datasets)
    assert all({"random", "coreset", "pcoreset"} <= {*strategies} for strategies in taught)


def test_every_task_of_the_study_has_its_card(numbers):
    assert numbers.cards["dataset"].tolist() == [
        *sweep.Grid.read(sweep.STUDY / "tasks.yaml").datasets
    ]
    first = numbers.tasks.query("round == 0 and distill and seed == 0")
    measured = first.groupby("dataset")["accuracy_pct"].first()
    cards = numbers.cards.set_index("dataset")["student_accuracy_pct"]
    assert (measured - cards).abs().max() < 3  # the same student, of another processor


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "docs" / "make_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def numbers(tables):
    return tables.load_study()


def test_the_texts_that_report_the_study_are_up_to_date(tables, numbers):
    """`python docs/make_tables.py` would change nothing, and every block is used."""
    shown = set()
    for name in tables.TEXTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert tables.updated(text, numbers) == text, f"{name}: run python docs/make_tables.py"
        shown |= {block for _, block, _ in tables.BLOCK.findall(text)}
    assert shown == set(tables.BLOCKS)


def test_a_number_that_was_changed_by_hand_is_replaced(tables, numbers):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("| 94.1 ± 0.5 |") == 1
    assert tables.updated(text.replace("| 94.1 ± 0.5 |", "| 99.9 ± 0.1 |"), numbers) == text


def test_no_interval_is_written_by_hand(tables):
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), sweep.STUDY / "README.md"):
        rest = tables.BLOCK.sub("", path.read_text(encoding="utf-8"))
        assert not INTERVAL.findall(rest), path


def test_the_study_supports_what_the_texts_claim(numbers):
    """The words around the numbers: who is ahead of whom, and which differences are significant."""
    digits, shapes = "digits, zero-shot", "shapes, zero-shot"

    def ahead(setting, a, b, **side):
        row = numbers.pair(setting, a, b, **side)
        return row["difference"] > 0 and row["p_holm"] < 0.05

    def level(setting, a, b, **side):
        return numbers.pair(setting, a, b, **side)["p_holm"] > 0.05

    plain = {"distill": False}
    others = [name for name in PAPER_STRATEGIES if name != "pcoreset"]
    assert all(ahead(shapes, "pcoreset", other) for other in others)
    assert all(numbers.pair(shapes, "pcoreset", other)["wins"] == 10 for other in others)
    best = numbers.comparisons(shapes).loc[(slice(None), "pcoreset"), "difference"].idxmax()[0]
    assert best == "classbalanced"  # the second-best: the smallest lead
    for winner in ("pcoreset", "coreset", "badge"):
        assert ahead(digits, winner, "random")
    assert ahead(digits, "pcoreset", "uncertainty")
    assert level(digits, "pcoreset", "coreset")
    assert level(digits, "pcoreset", "badge")
    assert numbers.significant("digits, clap") == "0 of 15"
    for other in PAPER_STRATEGIES:
        if other != "coreset":
            assert ahead(digits, "coreset", other, **plain)
        if other not in ("random", "uncertainty"):
            assert level(shapes, "random", other, **plain)
            assert numbers.pair(shapes, "random", other, **plain)["difference"] > 0
        if other != "uncertainty":
            assert ahead(shapes, other, "uncertainty", **plain)
    assert numbers.significant(shapes, **plain) == "5 of 15"
    gains = numbers.gains.reset_index()
    gains = gains[gains["setting"] == digits].pivot(
        index="strategy", columns="value", values="mean"
    )
    assert (gains["aulc_pct"] > 0).all()
    without = numbers.comparisons(digits, **plain)
    assert gains["aulc_pct"].min() > without["difference"].abs().max()  # worth more than a strategy
    last = numbers.gains.xs(digits).xs("last_pct", level="value")
    for strategy in ("pcoreset", "coreset", "badge"):
        assert abs(last.loc[strategy, "mean"]) < last.loc[strategy, "half_width"]
    assert last.loc["random", "mean"] > last.loc["random", "half_width"]


def test_no_interval_of_the_study_is_typed_into_notebook_06():
    cells = nbformat.read(next((ROOT / "notebooks").glob("06_*.ipynb")), 4).cells
    typed = [INTERVAL.findall(cell.source) for cell in cells if cell.cell_type == "markdown"]
    assert not any(typed)
