"""The bridge to scikit-activeml, both ways."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch

import activekd_lite as akd
from activekd_lite.strategies import get_strategy
from activekd_lite.utils.seeding import generator

pool = pytest.importorskip("skactiveml.pool")
from skactiveml.classifier import ParzenWindowClassifier  # noqa: E402
from skactiveml.utils import is_unlabeled  # noqa: E402
from sklearn.naive_bayes import GaussianNB  # noqa: E402

from activekd_lite.strategies import scikit_activeml  # noqa: E402

WORKING = [
    name
    for name in pool.__all__
    if inspect.isclass(c := getattr(pool, name)) and scikit_activeml._problem(c) is None
]


def situation(n=60, classes=2, labeled=7, seed=0):
    g = generator(seed, "situation")
    predictions = akd.Predictions(
        (2 * torch.randn(n, classes, generator=g)).softmax(1), torch.randn(n, 8, generator=g)
    )
    index = torch.randperm(n, generator=g)[:labeled]
    return predictions, akd.LabelState.empty(n).with_labels(
        index, torch.arange(labeled) % classes, round=0
    )


def pick(name, predictions, state, q, seed=0):
    return get_strategy(f"skactiveml:{name}")(
        predictions, state, q, generator=generator(seed, "pick")
    )


@pytest.mark.parametrize("name", WORKING)
def test_scikit_activemls_strategies_keep_the_contract(name):
    """Picks are unique, unlabelled and seeded; two classes, for EpistemicUncertaintySampling."""
    predictions, state = situation()
    picks = pick(name, predictions, state, 5)
    assert picks.shape == (5,)
    assert picks.dtype == torch.int64
    assert len(picks.unique()) == 5
    assert (state.labels[picks] < 0).all()
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    assert torch.equal(picks, pick(name, predictions, state, 5))


def test_most_of_scikit_activemls_strategies_are_available():
    assert len(WORKING) >= 20
    assert {
        "TypiClust",
        "ProbCover",
        "CoreSet",
        "Badge",
        "UncertaintySampling",
        "BatchBALD",
        "DropQuery",
        "MaxHerding",
    } <= set(WORKING)


def test_a_strategy_gets_the_student_as_its_classifier():
    predictions, state = situation(classes=5)
    picks = pick("UncertaintySampling", predictions, state, 10)  # least confident by default
    assert set(picks.tolist()) == set(
        akd.STRATEGIES["least_confidence"](predictions, state, 10, generator=None).tolist()
    )


def test_scikit_activemls_core_set_agrees_with_this_one():
    predictions, state = situation(classes=5)
    unit = akd.Predictions(
        predictions.probs, torch.nn.functional.normalize(predictions.features.double(), dim=1)
    )
    ours = akd.STRATEGIES["coreset"](unit, state, 20, generator=None)
    assert torch.equal(pick("CoreSet", unit, state, 20), ours)


def test_a_strategy_of_scikit_activeml_in_the_loop_and_in_a_cold_start(
    small, teacher, quick, tmp_path
):
    settings = {
        "rounds": 1,
        "query_size": 5,
        "train": quick,
        "strategy": "skactiveml:TypiClust",
        "progress": False,
    }
    result = akd.run_active_learning(small, teacher, out=tmp_path, shots=0, **settings)
    assert result.config["strategy"] == "skactiveml:TypiClust"
    assert [r.labeled_count for r in result.records] == [5, 10]
    assert len(akd.load_run(tmp_path).records) == 2


def test_classes_that_cannot_choose_labels_are_refused_by_name():
    for name, why in (
        ("ExpectedModelOutputChange", "is for regression.* Choose from RandomSampling, "),
        ("SubSamplingWrapper", "is a base of other strategies"),
        ("ExpectedErrorReduction", "is a base of other strategies"),
        ("Typiclust", r"is not a strategy of skactiveml.pool; did you mean TypiClust\?"),
        ("utils", "is not a strategy"),
    ):
        with pytest.raises(ValueError, match=f"skactiveml:{name} {why}"):
            get_strategy(f"skactiveml:{name}")


@pytest.mark.slow
def test_the_missing_extra_is_named_only_when_it_is_needed():
    program = """
import sys
sys.modules["skactiveml"] = None
import activekd_lite
get = activekd_lite.strategies.get_strategy
for ask in (lambda: activekd_lite.PCoreSetQuery, lambda: get("skactiveml:TypiClust")):
    try:
        ask()
    except ImportError as error:
        print(error)
"""
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert out.count("pip install scikit-activeml") == 2


class TestPCoreSetQuery:
    """scikit-activeml's checks of a strategy; see also test_scikit_activeml_conformance.py."""

    def setup_method(self):
        rng = np.random.default_rng(0)
        self.X = rng.standard_normal((30, 2))
        self.y = np.where(np.arange(30) < 4, np.arange(30) % 2, np.nan)
        self.clf = ParzenWindowClassifier(classes=[0, 1], random_state=0)

    def query(self, **changed):
        words = {"X": self.X, "y": self.y, "clf": self.clf} | changed
        return akd.PCoreSetQuery(random_state=0).query(**words)

    def test_queries_are_those_of_pcoreset(self):
        probs = self.clf.fit(self.X, self.y).predict_proba(self.X)
        predictions = akd.Predictions(torch.from_numpy(probs), torch.zeros(30, 1))
        state = akd.LabelState.empty(30).with_labels(torch.arange(4), torch.arange(4) % 2, 0)
        expected = akd.STRATEGIES["pcoreset"](predictions, state, 6, generator=None)
        assert self.query(batch_size=6).tolist() == expected.tolist()
        fitted = self.clf.fit(self.X, self.y)
        assert self.query(batch_size=6, clf=fitted, fit_clf=False).tolist() == expected.tolist()

    def test_each_query_is_the_candidate_of_largest_utility(self):
        for y in (self.y, np.where(np.arange(30) < 9, np.arange(30) % 2, np.nan)):
            queries, utilities = self.query(y=y, batch_size=5, return_utilities=True)
            assert utilities.shape == (5, 30)
            assert np.nanargmax(utilities, axis=1).tolist() == queries.tolist()
            assert np.isnan(utilities[0]).sum() == (~np.isnan(y)).sum()
            for t in range(5):
                assert np.isnan(utilities[t, queries[:t]]).all()

    def test_utilities_of_confident_classifiers_agree_with_the_queries(self):
        """With near-equal probabilities, |x|^2 + |c|^2 - 2 x.c would round the distances away."""
        probs = np.eye(2)[np.arange(40) % 2] + 1e-9 * np.random.default_rng(0).standard_normal(
            (40, 2)
        )
        X, y = np.arange(40.0)[:, None], np.where(np.arange(40) < 2, np.arange(40) % 2, np.nan)
        student = scikit_activeml._Student(X, probs, classes=[0, 1])
        queries, utilities = self.query(
            X=X, y=y, clf=student, fit_clf=False, batch_size=20, return_utilities=True
        )
        assert np.nanargmax(utilities, axis=1).tolist() == queries.tolist()

    def test_candidates_as_none_indices_and_samples_agree(self):
        unlabeled = np.flatnonzero(np.isnan(self.y))
        whole = self.query(batch_size=3, return_utilities=True)
        by_index = self.query(candidates=unlabeled, batch_size=3, return_utilities=True)
        np.testing.assert_array_equal(whole[0], by_index[0])
        np.testing.assert_allclose(whole[1], by_index[1])
        samples = self.query(candidates=self.X[unlabeled], batch_size=3, return_utilities=True)
        np.testing.assert_array_equal(whole[0], unlabeled[samples[0]])
        np.testing.assert_allclose(whole[1][:, unlabeled], samples[1])
        one = self.query(candidates=unlabeled[:1], return_utilities=True)
        assert one[0].tolist() == unlabeled[:1].tolist()
        assert np.isnan(one[1]).sum() == 29

    def test_a_cold_start_and_every_missing_label(self):
        nothing = np.full(30, np.nan)
        clf = self.clf.fit(self.X, self.y)
        queries, utilities = self.query(
            y=nothing, clf=clf, fit_clf=False, batch_size=4, return_utilities=True
        )
        probs = clf.predict_proba(self.X)
        assert queries[0] == np.linalg.norm(probs - probs.mean(axis=0), axis=1).argmin()
        assert np.nanargmax(utilities, axis=1).tolist() == queries.tolist()
        for missing, labels, kind in (
            (0, [1, 2], int),
            (None, ["A", "B"], object),
            ("", ["A", "B"], str),
        ):
            y = np.full(30, missing, dtype=kind)
            y[:2] = labels
            clf = ParzenWindowClassifier(classes=labels, missing_label=missing)
            query = akd.PCoreSetQuery(missing_label=missing).query(self.X, y, clf)
            assert is_unlabeled(y, missing)[query].all()

    def test_the_classifier_given_is_not_changed(self):
        clf = ParzenWindowClassifier(classes=[0, 1])
        self.query(clf=clf)
        assert not hasattr(clf, "classes_")

    @pytest.mark.parametrize(
        ("changed", "error"),
        [
            ({"clf": GaussianNB()}, TypeError),
            ({"clf": "clf"}, TypeError),
            ({"fit_clf": np.nan}, TypeError),
            ({"X": "X"}, ValueError),
            ({"X": np.zeros((60, 2))}, ValueError),
            ({"y": np.nan}, TypeError),
            ({"candidates": np.nan}, ValueError),
            ({"batch_size": 0}, ValueError),
            ({"batch_size": 1.2}, TypeError),
            ({"return_utilities": "yes"}, TypeError),
            ({"sample_weight": np.ones(31)}, ValueError),
        ],
    )
    def test_bad_parameters_are_refused(self, changed, error):
        with pytest.raises(error):
            self.query(**changed)

    def test_a_batch_larger_than_the_candidates_is_cut_with_a_warning(self):
        with pytest.warns(Warning, match="batch_size"):
            assert len(self.query(batch_size=40)) == 26
