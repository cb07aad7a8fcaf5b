"""Data sets by name: `load_dataset` returns the pool, oracle, test set, class names and prompts."""

from activekd_lite.datasets.embedded import EMBEDDED
from activekd_lite.datasets.loading import check_name, load_dataset
from activekd_lite.datasets.paper import LAYOUTS, missing_parts
from activekd_lite.datasets.sources import KINDS, find, short_name
from activekd_lite.datasets.spec import TaskSpec, canonical_name
from activekd_lite.datasets.subset import only_classes
from activekd_lite.pool import Dataset, TestSet, make_dataset

__all__ = [
    "EMBEDDED",
    "KINDS",
    "LAYOUTS",
    "Dataset",
    "TaskSpec",
    "TestSet",
    "canonical_name",
    "check_name",
    "find",
    "load_dataset",
    "make_dataset",
    "missing_parts",
    "only_classes",
    "short_name",
]
