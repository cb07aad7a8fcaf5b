"""k_center_greedy against the obvious float64 brute force, on every path it can take."""

import random
import tracemalloc
import warnings

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from activekd_lite import kcenter
from activekd_lite.kcenter import k_center_greedy

PATHS = {
    "plain": kcenter._plain,
    "pruned": kcenter._pruned,
    "running minimum": kcenter._running_minimum,
    "running minimum, float32 bound": lambda *args: kcenter._running_minimum(*args, wide=torch.float32),
}
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


def brute_force(points, centers, k, cosine=False):
    """All distances again at each pick, in float64: picks and squared radii."""
    points = np.ascontiguousarray(torch.as_tensor(points).double().numpy())
    centers = torch.as_tensor(centers).double().numpy()
    if cosine:
        points, centers = (x * (1 / np.sqrt((x**2).sum(1)))[:, None] for x in (points, centers))
    picks, radii = [], []
    with np.errstate(over="ignore", under="ignore"):
        for _ in range(k):
            m = np.full(len(points), np.inf)
            for c in [*centers, *points[picks]]:
                m = np.minimum(m, ((points - c) ** 2).sum(1))
            m[picks] = -1
            picks.append(int(np.argmax(m)))
            radii.append(m[picks[-1]])
    return picks, radii


def softmax_clusters(n, width, seed, noise=0.3):
    rng = np.random.default_rng(seed)
    logits = 4 * rng.standard_normal((6, width))[rng.integers(6, size=n)] + noise * rng.standard_normal((n, width))
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def simplex(n, width, seed):
    return np.eye(width)[np.random.default_rng(seed).integers(width, size=n)]


def one_ulp_apart(n, width, seed):
    """A few rows; every copy is moved by -1, 0 or 1 ulp in each column."""
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(width), 4)[rng.integers(4, size=n)]
    return np.nextafter(rows, rows + rng.integers(-1, 2, size=rows.shape))


def permuted_columns(n, width, seed):
    return np.random.default_rng(seed).permuted(np.tile(softmax_clusters(1, width, seed), (n, 1)), axis=1)


ADVERSARIAL = {
    "clusters": lambda n, c: softmax_clusters(n, c, 0),
    "duplicates": lambda n, c: softmax_clusters(12, c, 1)[np.random.default_rng(2).integers(12, size=n)],
    "simplex vertices": lambda n, c: simplex(n, c, 3),
    "vertices and their midpoints": lambda n, c: (simplex(n, c, 4) + simplex(n, c, 5)) / 2,
    "all equal": lambda n, c: np.full((n, c), 1 / 3),
    "one ulp apart": lambda n, c: one_ulp_apart(n, c, 6),
    "permuted columns": lambda n, c: permuted_columns(n, c, 7),
    "no structure": lambda n, c: np.random.default_rng(9).standard_normal((n, c)),
    "far from the origin": lambda n, c: 1e6 + np.random.default_rng(10).standard_normal((n, c)),
    "squares overflow": lambda n, c: 1e160 * np.random.default_rng(11).standard_normal((n, c)),
    "squares underflow": lambda n, c: 1e-160 * np.random.default_rng(12).standard_normal((n, c)),
    "one huge row": lambda n, c: np.vstack([softmax_clusters(n - 1, c, 13), np.full((1, c), 1e30)]),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("family", ADVERSARIAL)
def test_same_picks_and_radii_as_brute_force(family, path):
    for n, width, labelled, k in ((60, 3, 4, 60), (90, 20, 0, 15), (300, 270, 9, 12)):
        points = ADVERSARIAL[family](n, width)
        centers = points[np.random.default_rng(1).permutation(n)[:labelled]]
        with np.errstate(over="ignore", under="ignore"):
            indices, squared = PATHS[path](points, centers, k, False, False)
        expected, radii = brute_force(points, centers, k)
        assert indices.tolist() == expected
        assert squared.tolist() == radii  # to the bit


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cosine", [False, True])
def test_every_dtype_and_cosine(dtype, cosine, path):
    points = torch.from_numpy(softmax_clusters(400, 33, 0)).to(DTYPES[dtype])
    centers = points[::40].double().numpy() + 1e-3  # centres need not share the points' grid
    unit = centers * (1 / np.sqrt((centers**2).sum(1)))[:, None] if cosine else centers
    indices, squared = PATHS[path](points, unit, 25, cosine, False)
    expected, radii = brute_force(points, centers, 25, cosine)
    assert (indices.tolist(), squared.tolist()) == (expected, radii)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), width=st.integers(1, 5), labelled=st.integers(0, 4))
def test_brute_force_on_grids_full_of_ties(data, width, labelled):
    n, dtype = data.draw(st.integers(1, 14)), data.draw(st.sampled_from(["float32", "float64"]))
    rows = st.lists(st.integers(-2, 2), min_size=width, max_size=width)
    points = np.array(data.draw(st.lists(rows, min_size=n, max_size=n)), dtype) / 3
    centers = np.array(data.draw(st.lists(rows, min_size=labelled, max_size=labelled)), float).reshape(-1, width) / 3
    k = data.draw(st.integers(0, n))
    expected = brute_force(points, centers, k)
    for name, path in PATHS.items():
        indices, squared = path(points, centers, k, False, False)
        assert (indices.tolist(), squared.tolist()) == expected, name
        shorter = path(points, centers, max(0, k - 1), False, False)[0]
        assert indices[: k - 1].tolist() == shorter[: k - 1].tolist(), name  # the first q of q + 1


def test_the_definition_is_numpy_to_the_bit():
    rng = np.random.default_rng(0)
    for width in (1, 2, 7, 8, 9, 15, 47, 127, 128, 129, 136, 255, 257, 1000, 1003, 4099):
        x, c = rng.standard_normal((20, width)), rng.standard_normal((1, width))
        expected = ((x - c) ** 2).sum(1)
        assert (kcenter._pairwise(torch.from_numpy((x - c) ** 2)).numpy() == expected).all(), width
        indices, squared = kcenter._pruned(x, c, 1, False, False)
        assert (indices[0], squared[0]) == (expected.argmax(), expected.max()), width


def test_pruning_and_its_run_time_switch_keep_the_picks(monkeypatch):
    clustered, flat = softmax_clusters(3000, 40, 0), np.random.default_rng(1).random((1500, 40))
    for points in (clustered, flat):  # flat: hardly anything can be skipped
        expected = brute_force(points, points[:30], 40)
        for parallel in (0, 10**9):
            monkeypatch.setattr(kcenter, "PARALLEL", parallel)
            indices, squared = kcenter._pruned(points, points[:30], 40, False, False)
            assert (indices.tolist(), squared.tolist()) == expected
    assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS  # the setting is put back


def test_picks_follow_a_permutation_of_the_pool():
    points, order = softmax_clusters(2500, 20, 3), np.random.default_rng(4).permutation(2500)
    a = kcenter._pruned(points, points[:5], 60, False, False)[0]
    b = kcenter._pruned(points[order], points[:5], 60, False, False)[0]
    assert order[b].tolist() == a.tolist()


def test_five_by_three_by_hand():
    points = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0.9, 0.1, 0]])
    indices, radii = k_center_greedy(points, np.array([[1.0, 0, 0]]), 3)
    assert indices.tolist() == [1, 2, 3]  # 1 and 2 tie at sqrt(2): the lower index first
    assert (indices.dtype, radii.dtype) == (torch.int64, torch.float64)
    np.testing.assert_allclose(radii, [2**0.5, 2**0.5, 0.5**0.5])
    cosine = k_center_greedy(7 * points, np.array([[2.0, 0, 0]]), 3, metric="cosine")
    assert cosine[0].tolist() == [1, 2, 3]
    np.testing.assert_allclose(cosine[1], [1, 1, 1 - 0.5**0.5])


def test_nothing_labelled_starts_at_index_0():
    indices, radii = k_center_greedy(np.array([[0.0], [5.0], [2.0]]), np.empty((0, 1)), 2)
    assert indices.tolist() == [0, 1]
    assert radii.tolist() == [np.inf, 5.0]


@pytest.mark.parametrize("path", PATHS)
def test_exhausted_pool_warns_and_goes_on_in_index_order(path, monkeypatch):
    monkeypatch.setattr(kcenter, "_plain", PATHS[path])
    points = np.array([[0.0], [3.0], [3.0], [0.0], [1.0], [3.0]])
    with pytest.warns(UserWarning, match="pool exhausted at pick 2 of 6"):
        indices, radii = k_center_greedy(points, np.array([[0.0]]), 6)
    assert indices.tolist() == [1, 4, 0, 2, 3, 5]  # each once; rows equal to a centre (labelled ones too) come last
    assert radii.tolist() == [3, 1, 0, 0, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        k_center_greedy(points, np.array([[0.0]]), 2)


def test_zero_picks_and_empty_pools():
    for n in (0, 4):
        indices, radii = k_center_greedy(np.zeros((n, 3)), np.zeros((1, 3)), 0)
        assert indices.shape == radii.shape == (0,)


def test_float16_values_that_overflow_when_squared():
    points = np.array([[300.0, 0.0], [-60000.0, 0.0], [60000.0, 100.0], [0.0, 400.0]], np.float16)
    with np.errstate(over="ignore"):
        naive = ((points - points[0]) ** 2).sum(1)
    assert np.isinf(naive).sum() > 1  # what this guards against
    for path in PATHS.values():
        assert path(points, points[:1].astype(float), 3, False, False)[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["numpy float16", "torch bfloat16", "numpy float64"])
def test_nan_and_infinite_rows_are_named(path, kind, monkeypatch):
    monkeypatch.setattr(kcenter, "_plain", PATHS[path])
    points = np.ones((50, 4))
    points[[7, 30], 2], points[9, 0] = np.nan, -np.inf
    points = torch.from_numpy(points).bfloat16() if "torch" in kind else points.astype(kind.split()[1])
    with pytest.raises(ValueError, match=r"points: 3 of 50 rows have NaN.*\[7, 9, 30\]"):
        k_center_greedy(points, np.ones((1, 4)), 2)


def test_errors_say_the_values():
    points, centers = np.ones((5, 3)), np.ones((2, 3))
    for k in (6, -1):
        with pytest.raises(ValueError, match=f"k = {k} picks asked of 5 points"):
            k_center_greedy(points, centers, k)
    with pytest.raises(ValueError, match=r"\(5, 3\) and centers \(2, 4\)"):
        k_center_greedy(points, np.ones((2, 4)), 1)
    with pytest.raises(ValueError, match="int64"):
        k_center_greedy(np.ones((5, 3), np.int64), centers, 1)
    with pytest.raises(ValueError, match=r"\(5,\)"):
        k_center_greedy(np.ones(5), centers, 1)
    with pytest.raises(ValueError, match=r"'manhattan'.*'euclidean' or 'cosine'"):
        k_center_greedy(points, centers, 1, metric="manhattan")
    with pytest.raises(ValueError, match=r"centers: 1 of 2 rows have NaN"):
        k_center_greedy(points, np.array([[1.0, 1, 1], [np.nan, 1, 1]]), 1)
    points[3] = 0
    with pytest.raises(ValueError, match=r"points: 1 of 5 rows have no usable norm.*\[3\]"):
        k_center_greedy(points, centers, 1, metric="cosine")


def test_layouts_and_containers_agree():
    base = softmax_clusters(600, 24, 5).astype(np.float32)
    wide = np.zeros((600, 48), np.float32)
    wide[:, :24] = base
    frozen = base.copy()
    frozen.flags.writeable = False
    variants = [base, torch.from_numpy(base).requires_grad_(), wide[:, :24], np.asfortranarray(base), frozen]
    variants += [torch.from_numpy(wide)[:, :24], base.astype(">f4")]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        picks = [k_center_greedy(x, base[:3], 400)[0].tolist() for x in variants]
    assert all(p == picks[0] for p in picks)
    reversed_picks = k_center_greedy(base[::-1], base[:3], 400)[0]
    assert (599 - reversed_picks).tolist() == picks[0]


def global_random_state():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


def test_global_random_state_is_neither_read_nor_moved():
    points = softmax_clusters(3000, 30, 0)
    seen = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        before = global_random_state()
        seen.append(k_center_greedy(points, points[:20], 50)[0].tolist())
        assert global_random_state() == before
    assert seen[0] == seen[1]


def test_no_distance_matrix_is_held():
    """20,000 x 3,000 distances would be 240 MB in float32 (ImageNet: 40-107 GB)."""
    points = np.random.default_rng(0).random((20_000, 8), np.float32)
    k_center_greedy(points, points[:10], 50)  # compile outside the measurement
    tracemalloc.start()
    k_center_greedy(points, points[:3_000], 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


def test_everyday_sizes_do_not_wait_for_a_compiler(monkeypatch):
    monkeypatch.setattr(kcenter, "_pruned", None)
    monkeypatch.setattr(kcenter, "_running_minimum", None)
    points = softmax_clusters(1100, 10, 0)
    assert len(k_center_greedy(points, points[:10], 10)[0]) == 10
