"""A bridge to scikit-activeml (Kottke et al. 2021, https://scikit-activeml.github.io).

scikit-activeml is an optional extra. `adapt("TypiClust")` returns one of its strategies; a run gets
it by `strategy="skactiveml:TypiClust"`. `PCoreSetQuery` is PCoreSet for users of scikit-activeml.
"""

import inspect
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.base import clone
from torch import Tensor

from activekd_lite.kcenter import k_center_greedy
from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import Strategy, unlabeled_indices

try:
    from skactiveml import pool
    from skactiveml.base import SingleAnnotatorPoolQueryStrategy, SkactivemlClassifier
    from skactiveml.classifier import (
        MixtureModelClassifier,
        ParzenWindowClassifier,
        SklearnClassifier,
    )
    from skactiveml.utils import MISSING_LABEL, check_scalar, check_type, is_labeled
except ImportError as error:
    raise ImportError(
        "scikit-activeml is not installed; run `pip install scikit-activeml`"
    ) from error

# These train a model, or apply one to rows that are not in the pool, which the student cannot do;
# they get one of scikit-activeml's own models.
OWN_MODEL = dict.fromkeys(
    (
        "DropQuery",
        "EpistemicUncertaintySampling",
        "MonteCarloEER",
        "ProbabilisticAL",
        "ValueOfInformationEER",
    ),
    ParzenWindowClassifier,
) | {"FourDs": MixtureModelClassifier}


def adapt(name: str, **settings: object) -> Strategy:
    """Return a strategy of `skactiveml.pool` under the contract of this package.

    settings: parameters of that class, as in `adapt("CoreSet", metric="cosine")`.

    X are the student's features, and the classifier is the student. If a strategy trains a
    classifier (OWN_MODEL, ensembles, discriminators), it gets a standard one of scikit-activeml,
    trained on these features. Unlike with the strategies here, a query of q need not be a prefix
    of a query of q + 1. Quire, MonteCarloEER and ValueOfInformationEER try every label of every
    candidate, which takes minutes per query with a thousand images.

    Raises ValueError for an unknown name, for regression, and for bases of other strategies.
    """
    _check_name(name)
    kind = getattr(pool, name)

    def strategy(
        predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
    ) -> Tensor:
        unlabeled = unlabeled_indices(predictions, state, query_size).numpy()
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        X, probs = (t.double().cpu().numpy() for t in (predictions.features, predictions.probs))
        y = np.where(state.labels.numpy() < 0, np.nan, state.labels.numpy())
        classes = list(range(probs.shape[1]))
        # Some strategies leave their clustering unseeded unless they are told otherwise.
        defaults = {"classes": classes, "cluster_algo_dict": {"random_state": seed}}
        known = inspect.signature(kind).parameters
        defaults = {name: value for name, value in defaults.items() if name in known}
        query = kind(**defaults | settings, random_state=seed)
        models = _models(kind, X, probs, classes, seed)
        picks = query.query(X=X, y=y, candidates=unlabeled, batch_size=query_size, **models)
        return torch.tensor([int(i) for i in picks])

    strategy.__module__, strategy.__qualname__ = "skactiveml", name
    return strategy


def _check_name(name: str) -> None:
    """Raise ValueError unless `name` is a class of skactiveml.pool that chooses images to label."""
    kinds = {n: kind for n in pool.__all__ if inspect.isclass(kind := getattr(pool, n))}
    known = [n for n, kind in kinds.items() if _problem(kind) is None]
    if name in known:
        return
    problem = _problem(kinds[name]) if name in kinds else NO_STRATEGY
    near = [n for n in known if n.lower() == name.lower()] or get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise ValueError(f"skactiveml:{name} {problem}{hint} Choose from {', '.join(known)}")


NO_STRATEGY = "is not a strategy of skactiveml.pool"


def _problem(kind: Any) -> str | None:
    """Return why a class of skactiveml.pool cannot choose images to label, or None."""
    if not issubclass(kind, SingleAnnotatorPoolQueryStrategy) or inspect.isabstract(kind):
        return NO_STRATEGY
    query = inspect.signature(kind.query).parameters
    if "reg" in query:
        return "is for regression"
    if "query_kwargs" in query or "enforce_mapping" in inspect.signature(kind).parameters:
        return "is a base of other strategies"
    return None


def _models(kind: Any, X: np.ndarray, probs: np.ndarray, classes: list[int], seed: int) -> dict:
    """Return the models that `kind.query` has parameters for, and whether to fit them."""
    from sklearn.ensemble import RandomForestClassifier  # slow

    student = _Student(X, probs, classes=classes)
    own = OWN_MODEL.get(kind.__name__)
    seeded = {"classes": classes, "random_state": seed}
    models = {
        "clf": own(**seeded) if own else student,
        "estimator": student,
        "ensemble": SklearnClassifier(RandomForestClassifier(50, random_state=seed), **seeded),
        "discriminator": ParzenWindowClassifier(classes=[0, 1], random_state=seed),
    }
    parameters = inspect.signature(kind.query).parameters
    models = {name: model for name, model in models.items() if name in parameters}
    trained = [f"fit_{name}" for name, model in models.items() if model is student]
    return models | {name: False for name in trained if name in parameters}


class _Student(SkactivemlClassifier):
    """The student as a trained classifier of scikit-activeml.

    features: (N, F) and probs: (N, C) of the pool; it has no answer for other rows.
    """

    def __init__(
        self,
        features=None,
        probs=None,
        classes=None,
        missing_label=MISSING_LABEL,
        cost_matrix=None,
        random_state=None,
    ):
        super().__init__(classes, missing_label, cost_matrix, random_state)
        self.features, self.probs = features, probs
        self.classes_ = np.arange(probs.shape[1])
        self._index = {row.tobytes(): i for i, row in enumerate(features)}

    def fit(self, X, y, sample_weight=None):
        return self

    def predict_proba(self, X):
        return self.probs[[self._index[row.tobytes()] for row in np.ascontiguousarray(X)]]


class PCoreSetQuery(SingleAnnotatorPoolQueryStrategy):
    """PCoreSet (Kang et al. 2025, arXiv:2506.00910): greedy k-center on class probabilities.

    Each query is the candidate whose class probabilities are farthest from those of the nearest
    labelled or queried sample; ties go to the first candidate. With nothing labelled, the first
    query is the candidate nearest to the mean. If a classifier gives all candidates the same
    probabilities (for example because it is not fitted), they are queried in their order.

    Parameters
    ----------
    missing_label, random_state
        As everywhere in scikit-activeml; this strategy draws nothing at random.
    """

    def __init__(self, missing_label=MISSING_LABEL, random_state=None):
        super().__init__(missing_label=missing_label, random_state=random_state)

    def query(
        self,
        X,
        y,
        clf,
        fit_clf=True,
        sample_weight=None,
        candidates=None,
        batch_size=1,
        return_utilities=False,
    ):
        """Choose the samples to label next.

        Parameters
        ----------
        X
            Samples (n, F).
        y
            Labels (n,), with missing labels.
        clf
            A SkactivemlClassifier, fitted on X and y unless `fit_clf` is False.
        candidates
            Indices of X, or samples (m, F). None: every sample without a label.
        batch_size
            Number of queries.

        Returns
        -------
        query_indices
            (batch_size,) indices of X, or of `candidates` if these are samples.
        utilities
            Only with `return_utilities`: (batch_size, n or m), before each query the distance of
            each candidate to the nearest labelled or queried sample; NaN for all others. With
            nothing labelled, the first row is minus the distance to the mean.
        """
        X, y, candidates, batch_size, return_utilities = self._validate_data(
            X, y, candidates, batch_size, return_utilities, reset=True
        )
        X_cand, mapping = self._transform_candidates(candidates, X, y)
        clf = _fitted(clf, fit_clf, X, y, sample_weight)
        probs, labeled = clf.predict_proba(X_cand), is_labeled(y, missing_label=self.missing_label_)
        centers = clf.predict_proba(X[labeled]) if labeled.any() else None
        picks, first = _picks(probs, centers, batch_size)
        place, size = (np.arange(len(probs)), len(probs)) if mapping is None else (mapping, len(X))
        if not return_utilities:
            return place[picks]
        utilities = np.full((batch_size, size), np.nan)
        for t, row in enumerate(_utilities(probs, picks, first, cold=centers is None)):
            utilities[t, place] = row
            utilities[t, place[picks[:t]]] = np.nan
        return place[picks], utilities


def _fitted(clf, fit_clf, X, y, sample_weight):
    """Return the classifier, or a fitted copy of it."""
    check_type(clf, "clf", SkactivemlClassifier)
    check_scalar(fit_clf, "fit_clf", bool)
    weights = () if sample_weight is None else (sample_weight,)
    return clone(clf).fit(X, y, *weights) if fit_clf else clf


def _picks(
    probs: np.ndarray, centers: np.ndarray | None, batch_size: int
) -> tuple[list[int], np.ndarray]:
    """Return the picked rows of probs (m, C), and the first utilities (m,).

    centers: (L, C) of the labelled samples, None if there are none.
    """
    if centers is None:
        utility = -np.linalg.norm(probs - probs.mean(axis=0), axis=1)
        started = [int(utility.argmax())]
        centers = probs[started]
    else:
        utility, started = cdist(probs, centers).min(axis=1), []
    left = np.delete(np.arange(len(probs)), started)
    picks, _ = k_center_greedy(probs[left], centers, batch_size - len(started))
    return started + left[picks.numpy()].tolist(), utility


def _utilities(
    probs: np.ndarray, picks: list[int], utility: np.ndarray, cold: bool
) -> Iterator[np.ndarray]:
    """Yield the utilities (m,) before each pick. cold: nothing was labelled at first."""
    for t, pick in enumerate(picks):
        yield utility
        distance = cdist(probs, probs[[pick]])[:, 0]
        utility = distance if t == 0 and cold else np.minimum(utility, distance)
