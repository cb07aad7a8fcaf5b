"""The paper's figures: what a run's labels are worth to a teacher, and the words of the study."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch
from test_statistics import run, table

import activekd_lite as akd
from activekd_lite.analysis import metrics
from activekd_lite.strategies import PAPER_STRATEGIES
from activekd_lite.utils.files import PACKAGE

LABELS = torch.tensor([0, 0, 1, 2])  # of the test set


def knows_labelled_classes(state):
    """Answer all test images of the classes that have a label, and nothing else, correctly."""
    known = torch.isin(LABELS, state.labels[state.labeled_indices])
    answers = LABELS.where(known, (LABELS + 1) % 3)
    return torch.zeros(5, 3), 9 * torch.eye(3)[answers]


def test_a_few_shot_teacher_is_fitted_to_the_labels_of_each_round():
    state = akd.LabelState.empty(5).with_labels(torch.tensor([0]), torch.tensor([1]), 0)
    state = state.with_labels(torch.tensor([3, 4]), torch.tensor([0, 2]), 1)
    first = torch.zeros(4, 3)
    teacher = akd.teacher.from_logits(torch.zeros(5, 3), refit=knows_labelled_classes, test=first)
    assert metrics.few_shot_accuracies_pct(teacher, state, LABELS) == [25, 100]
    with pytest.raises(ValueError, match="no answers for the test set"):
        metrics.few_shot_accuracies_pct(akd.teacher.from_logits(torch.zeros(5, 3)), state, LABELS)


@pytest.fixture(scope="module")
def tables():
    path = PACKAGE.parent / "docs" / "make_tables.py"
    spec = importlib.util.spec_from_file_location("make_tables", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figure_runs(losses, seeds=3):
    """Runs of seven strategies with these losses, on average, and queries of their own kind."""
    runs, lead = [], dict(zip(PAPER_STRATEGIES, (None, 0, 2, None, 1, 3), strict=True))
    for strategy, loss in losses.items():
        for seed in range(seeds):
            one = run(strategy, seed, [50.0, 60, 70])
            queries = np.full((3, 4), 0.4)
            if lead.get(strategy) is not None:
                queries[:, lead[strategy]] = 0.8
            queries[2] = np.nan
            columns = dict(zip(COLUMNS, queries.T, strict=True))
            columns["query_imbalance"] = 1 - columns["query_imbalance"]
            columns |= {"nearest_neighbor_loss_pct": loss + 0.1 * seed}
            runs.append(one.assign(cluster_purity_pct=50.0, few_shot_accuracy_pct=60.0, **columns))
    return table(*runs)


COLUMNS = (
    "query_uncertainty",
    "query_imbalance",
    "query_feature_diversity",
    "query_probability_diversity",
)
LOSSES = dict(zip(PAPER_STRATEGIES, (30, 31, 32, 33, 34, 20), strict=True))


def orders(tables, losses):
    study = tables.Study(pd.DataFrame(), {}, figure_runs(losses))
    return " ".join(tables.paper_orders(study).split())


def test_the_order_of_the_paper_is_found_where_it_is(tables):
    text = orders(tables, LOSSES | {"pcoreset_reversed": 50})
    assert "nearest-neighbour loss: **found**. PCoreSet is place 1 of 7, PCoreSet+R place 7" in text
    assert "-30.0 ± 0.0 points, minus random -10.0 ± 0.0 (n = 3)" in text
    assert "cluster purity: **not found**" in text  # all are equal
    assert "in 4 of 4 (uncertainty, class balance, feature diversity, probability" in text
    assert "**found in part**" in orders(tables, LOSSES | {"pcoreset_reversed": 31.5})
    assert "loss: **not found**" in orders(tables, LOSSES | {"pcoreset_reversed": 10})


def test_a_data_set_that_lacks_a_strategy_is_left_out(tables):
    assert orders(tables, LOSSES) == tables.NOT_YET.strip()
