"""A bridge to scikit-activeml (Kottke et al. 2021, https://scikit-activeml.github.io), both ways; an optional extra.

`adapt("TypiClust")`, in the loop `strategy="skactiveml:TypiClust"`, makes a strategy of theirs one of ours; `PCoreSetQuery` is
PCoreSet for people of their library.
"""

import inspect
from difflib import get_close_matches

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from activekd_lite.kcenter import k_center_greedy
from activekd_lite.pool import LabelState, Predictions

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
        "scikit-activeml is not installed; get it by `pip install scikit-activeml`"
    ) from error

# Those that train a model or ask it about other rows than the pool's: the student cannot serve, the library's own models do.
OWN_MODEL = {
    "ProbabilisticAL": ParzenWindowClassifier, "EpistemicUncertaintySampling": ParzenWindowClassifier,
    "MonteCarloEER": ParzenWindowClassifier, "ValueOfInformationEER": ParzenWindowClassifier,
    "DropQuery": ParzenWindowClassifier, "FourDs": MixtureModelClassifier,
}  # fmt: skip


def adapt(name: str, **settings):
    """A strategy of skactiveml.pool under our contract: `adapt("CoreSet", metric="cosine")`; settings: its own parameters.

    X are the student's features; where a classifier is asked for it is the student, or, where one is trained (OWN_MODEL, an
    ensemble, a discriminator), a standard one of theirs on these features. Unlike ours, their picks for q may not be the first
    of those for q + 1. Quire, MonteCarloEER and ValueOfInformationEER try every label of every candidate: minutes a query for a
    thousand images. Raises ValueError for an unknown name, and for what is made for regression or is a base for others.
    """
    known = [
        n
        for n in pool.__all__
        if inspect.isclass(getattr(pool, n)) and _problem(getattr(pool, n)) is None
    ]
    if name not in known:
        theirs = getattr(pool, name, None)
        why = _problem(theirs) if inspect.isclass(theirs) else "is no strategy of skactiveml.pool"
        near = [n for n in known if n.lower() == name.lower()] or get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise ValueError(f"skactiveml:{name} {why}{hint} These work: {', '.join(known)}")
    theirs = getattr(pool, name)

    def strategy(
        predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
    ) -> Tensor:
        unlabeled = state.unlabeled_indices.numpy()
        if not 1 <= query_size <= len(unlabeled):
            raise ValueError(
                f"query_size = {query_size}, but {len(unlabeled)} images are unlabelled; ask for 1 to {len(unlabeled)}"
            )
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        X, probs = (t.double().cpu().numpy() for t in (predictions.features, predictions.probs))
        y = np.where(state.labels.numpy() < 0, np.nan, state.labels.numpy())
        classes = list(range(probs.shape[1]))
        own = {
            "classes": classes,
            "cluster_algo_dict": {"random_state": seed},
        }  # they leave some clusterings unseeded
        own = {
            name: value
            for name, value in own.items()
            if name in inspect.signature(theirs).parameters
        }
        query = theirs(**own | settings, random_state=seed)
        models = _models(theirs, X, probs, classes, seed)
        picks = query.query(X=X, y=y, candidates=unlabeled, batch_size=query_size, **models)
        return torch.tensor([int(i) for i in picks])

    strategy.__module__, strategy.__qualname__ = "skactiveml", name
    return strategy


def _problem(theirs: type) -> str | None:
    """Why a class of skactiveml.pool cannot choose images to label, or None."""
    if not issubclass(theirs, SingleAnnotatorPoolQueryStrategy) or inspect.isabstract(theirs):
        return "is no strategy of skactiveml.pool"
    words = inspect.signature(theirs.query).parameters
    if "reg" in words:
        return "is made for regression"
    if "query_kwargs" in words or "enforce_mapping" in inspect.signature(theirs).parameters:
        return "is a base for other strategies"
    return None


def _models(theirs: type, X: np.ndarray, probs: np.ndarray, classes: list[int], seed: int) -> dict:
    """What `theirs.query` asks for beside the data."""
    student = _Student(X, probs, classes=classes)
    own = OWN_MODEL.get(theirs.__name__)
    trained = own(classes=classes, random_state=seed) if own else None
    forest = SklearnClassifier(
        RandomForestClassifier(50, random_state=seed), classes=classes, random_state=seed
    )
    models = {
        "clf": trained or student, "estimator": student, "ensemble": forest,
        "discriminator": ParzenWindowClassifier(classes=[0, 1], random_state=seed),
    }  # fmt: skip
    asked = inspect.signature(theirs.query).parameters
    words = {name: model for name, model in models.items() if name in asked}
    return words | {
        f"fit_{name}": False
        for name, model in words.items()
        if model is student and f"fit_{name}" in asked
    }


class _Student(SkactivemlClassifier):
    """The student as a classifier of theirs that is trained already; it knows the rows of the pool's features (N, F) only."""

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
        self._row = {row.tobytes(): i for i, row in enumerate(features)}

    def fit(self, X, y, sample_weight=None):
        return self

    def predict_proba(self, X):
        return self.probs[[self._row[row.tobytes()] for row in np.ascontiguousarray(X)]]


class PCoreSetQuery(SingleAnnotatorPoolQueryStrategy):
    """PCoreSet (Kang et al. 2025, arXiv:2506.00910): greedy k-center in the space of a classifier's probabilities.

    Of all candidates the one is queried whose class probabilities are farthest from those of any labelled sample, then the
    farthest from these and it, and so on; ties: the first. With nothing labelled the first query is the candidate nearest to
    the mean; a classifier that cannot tell them apart (unfitted, all probabilities equal) leaves them in their order.
    missing_label, random_state: as everywhere in scikit-activeml; nothing is drawn.
    """

    def __init__(self, missing_label=MISSING_LABEL, random_state=None):
        super().__init__(missing_label=missing_label, random_state=random_state)

    def query(
        self, X, y, clf, fit_clf=True, sample_weight=None, candidates=None, batch_size=1, return_utilities=False
    ):  # fmt: skip
        """X: (n, F); y: (n,), with missing labels; clf: a SkactivemlClassifier, trained on them unless fit_clf is False;
        candidates: indices of X, or samples (m, F), or None: all without a label.

        Returns (batch_size,) indices of X, or of `candidates` if these are samples; with return_utilities also (batch_size,
        n or m): each candidate's distance to the nearest labelled or queried one before that query (at first, with nothing
        labelled, minus that to the mean), NaN for the others.
        """
        X, y, candidates, batch_size, return_utilities = self._validate_data(
            X, y, candidates, batch_size, return_utilities, reset=True
        )
        X_cand, mapping = self._transform_candidates(candidates, X, y)
        check_type(clf, "clf", SkactivemlClassifier)
        check_scalar(fit_clf, "fit_clf", bool)
        if fit_clf:
            clf = (
                clone(clf).fit(X, y)
                if sample_weight is None
                else clone(clf).fit(X, y, sample_weight)
            )
        probs, labeled = clf.predict_proba(X_cand), is_labeled(y, missing_label=self.missing_label_)
        if labeled.any():
            started, centers = [], clf.predict_proba(X[labeled])
            utility = cdist(probs, centers).min(axis=1)
        else:
            utility = -np.linalg.norm(probs - probs.mean(axis=0), axis=1)
            started = [int(utility.argmax())]
            centers = probs[started]
        left = np.delete(np.arange(len(probs)), started)
        picks, _ = k_center_greedy(probs[left], centers, batch_size - len(started))
        picks = started + left[picks.numpy()].tolist()
        place, size = (np.arange(len(probs)), len(probs)) if mapping is None else (mapping, len(X))
        if not return_utilities:
            return place[picks]
        utilities = np.full((batch_size, size), np.nan)
        for t, pick in enumerate(picks):
            utilities[t, place] = utility
            utilities[t, place[picks[:t]]] = np.nan
            step = cdist(probs, probs[[pick]])[:, 0]
            utility = step if t == 0 and started else np.minimum(utility, step)
        return place[picks], utilities
