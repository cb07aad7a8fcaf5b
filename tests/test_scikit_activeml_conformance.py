"""scikit-activeml's own checks of a pool strategy, run on PCoreSetQuery.

They need a checkout of its repository (`pip install -e scikit-activeml`): the wheel on PyPI leaves
the templates for tests out.
"""

import unittest

import numpy as np
import pytest

template = pytest.importorskip(
    "skactiveml.tests.template_query_strategy",
    reason="scikit-activeml's wheel leaves its tests out",
)
from skactiveml.classifier import ParzenWindowClassifier  # noqa: E402

from activekd_lite import PCoreSetQuery  # noqa: E402


class TestConformance(template.TemplateSingleAnnotatorPoolQueryStrategy, unittest.TestCase):
    def setUp(self):
        X = np.random.default_rng(0).standard_normal((10, 2))
        y = np.array([0.0, 1.0] + 8 * [np.nan])
        words = {
            "X": X,
            "y": y,
            "clf": ParzenWindowClassifier(classes=[0, 1], random_state=0),
            "fit_clf": True,
        }
        super().setUp(
            qs_class=PCoreSetQuery, init_default_params={}, query_default_params_clf=words
        )

    def test_query_param_clf(self):
        super().test_query_param_clf(test_cases=[])

    def test_query(self):
        words = self.query_default_params_clf
        assert PCoreSetQuery().query(**words).shape == (1,)
