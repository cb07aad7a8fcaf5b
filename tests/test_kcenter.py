"""k_center_greedy against its definition: a float64 brute force over all centres at each pick."""

import doctest
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from activekd_lite.kcenter import k_center_greedy, k_center_in_pool
from activekd_lite.utils import exact_k_center as kcenter


def brute_force(points, centers, k, cosine=False):
    points = np.ascontiguousarray(torch.as_tensor(points).double().numpy())
    centers = np.ascontiguousarray(torch.as_tensor(centers).double().numpy())
    if cosine:
        points, centers = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (points, centers))
    picks, radii = [], []
    with np.errstate(over="ignore"):
        for _ in range(k):
            distance = np.full(len(points), np.inf)
            for c in np.concatenate([centers, points[picks]]):
                distance = np.minimum(distance, ((points - c) ** 2).sum(axis=1))
            distance[picks] = -1
            picks.append(int(distance.argmax()))
            radii.append(distance[picks[-1]])
    return picks, np.array(radii) / 2 if cosine else np.sqrt(radii)


def clusters(n, c, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    logits = 4 * rng.standard_normal((6, c))[rng.integers(6, size=n)]
    logits += noise * rng.standard_normal((n, c))
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def vertices(n, c, seed):
    return np.eye(c)[np.random.default_rng(seed).integers(c, size=n)]


def one_ulp_apart(n, c, seed):
    """Copies of a few rows, each column moved by -1, 0 or 1 ulp."""
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(c), 4)[rng.integers(4, size=n)]
    return np.nextafter(rows, rows + rng.integers(-1, 2, size=rows.shape))


ADVERSARIAL = {
    "clusters": clusters,
    "duplicates": lambda n, c: clusters(12, c, 1)[np.random.default_rng(2).integers(12, size=n)],
    "simplex vertices": lambda n, c: vertices(n, c, 3),
    "vertices and their midpoints": lambda n, c: (vertices(n, c, 4) + vertices(n, c, 5)) / 2,
    "all equal": lambda n, c: np.full((n, c), 1 / 3),
    "one ulp apart": lambda n, c: one_ulp_apart(n, c, 6),
    "same entries, other order": lambda n, c: np.random.default_rng(7).permuted(
        np.tile(clusters(1, c), (n, 1)), axis=1
    ),
    "no structure": lambda n, c: np.random.default_rng(9).standard_normal((n, c)),
    "far from the origin": lambda n, c: 1e6 + np.random.default_rng(10).standard_normal((n, c)),
    "squares overflow": lambda n, c: 1e160 * np.random.default_rng(11).standard_normal((n, c)),
    "squares underflow": lambda n, c: 1e-160 * np.random.default_rng(12).standard_normal((n, c)),
    "float32 squares underflow": lambda n, c: (
        1e-25 * np.random.default_rng(12).standard_normal((n, c))
    ),
    "one huge row": lambda n, c: np.vstack([clusters(n - 1, c, 13), np.full((1, c), 1e30)]),
}


CONSTANTS = {
    "as shipped": {},
    "tiny fronts and chunks": {"FRONT": 3, "REACH": 7, "CHUNK_NUMBERS": 90},
    "float64 products": {"_product_dtype": lambda *_: torch.float64},
    "sweep": {"FRONT": 3, "REACH": 7, "TRIED": 0, "SWEEP": 10**9},
    "late sweep": {"FRONT": 3, "REACH": 7, "TRIED": 2, "SWEEP": 10**9},
}


@pytest.fixture(params=CONSTANTS)
def sizes(request, monkeypatch):
    """Constants that make small inputs take every path that large inputs take."""
    for name, value in CONSTANTS[request.param].items():
        monkeypatch.setattr(kcenter, name, value)


@pytest.mark.filterwarnings("ignore:pool exhausted")
@pytest.mark.parametrize("case", ADVERSARIAL)
def test_picks_and_radii_are_those_of_brute_force(case, sizes):
    for n, c, labelled, k in ((60, 3, 4, 60), (90, 20, 0, 15), (300, 270, 9, 12)):
        points = ADVERSARIAL[case](n, c)
        centers = points[np.random.default_rng(1).permutation(n)[:labelled]]
        picks, radii = k_center_greedy(points, centers, k)
        expected, expected_radii = brute_force(points, centers, k)
        assert picks.tolist() == expected
        assert radii.tolist() == expected_radii.tolist()  # to the bit


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_every_dtype_and_both_metrics(dtype, metric, sizes):
    points = torch.from_numpy(clusters(400, 33)).to(dtype)
    centers = torch.from_numpy(clusters(10, 33, 1) + 1e-3)  # not rounded to the points' dtype
    picks, radii = k_center_greedy(points, centers, 25, metric=metric)
    expected, expected_radii = brute_force(points, centers, 25, metric == "cosine")
    np.testing.assert_allclose(radii, expected_radii, rtol=1e-9)
    assert picks.tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scales", [(1e-25, 1.0), (1e-17, 1e17), (1.0, 1e25)])
def test_cosine_of_rows_whose_squares_leave_float32(scales, dtype, sizes):
    """Angles do not depend on lengths, but squared lengths overflow or underflow float32."""
    points = torch.from_numpy(clusters(300, 12) + 1e-3).to(dtype)
    length = torch.tensor(scales, dtype=dtype)[torch.arange(300) % 2, None]
    points = points * length
    picks, radii = k_center_greedy(points, points[:5], 30, metric="cosine")
    expected, expected_radii = brute_force(points, points[:5], 30, cosine=True)
    np.testing.assert_allclose(radii, expected_radii, rtol=1e-9)
    assert picks.tolist() == expected


@pytest.mark.filterwarnings("ignore:pool exhausted")
@pytest.mark.parametrize("case", ADVERSARIAL)
def test_centres_among_the_points(case, sizes):
    points = torch.from_numpy(ADVERSARIAL[case](90, 20))
    order = np.random.default_rng(1).permutation(90)
    labeled, rest = torch.from_numpy(order[:7]), torch.from_numpy(np.sort(order[7:]))
    for k in (1, 20, 83):
        expected = rest[k_center_greedy(points[rest], points[labeled], k)[0]]
        assert torch.equal(k_center_in_pool(points, labeled, k), expected)
    with pytest.raises(ValueError, match=r"k = 84 picks from 83 points; k must be in 0..83"):
        k_center_in_pool(points, labeled, 84)


@pytest.mark.filterwarnings("ignore:pool exhausted")
@given(data=st.data(), c=st.integers(1, 5), labelled=st.integers(0, 4))
def test_grids_full_of_ties_and_the_first_q_of_more(data, c, labelled):
    n = data.draw(st.integers(1, 14))
    rows = st.lists(st.integers(-2, 2), min_size=c, max_size=c)
    points = np.array(data.draw(st.lists(rows, min_size=n, max_size=n)), "float32") / 3
    centers = data.draw(st.lists(rows, min_size=labelled, max_size=labelled))
    centers = np.array(centers, float).reshape(-1, c) / 3
    k = data.draw(st.integers(1, n))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kcenter, "FRONT", data.draw(st.integers(1, 4)))
        patch.setattr(kcenter, "REACH", data.draw(st.integers(1, 6)))
        picks, radii = k_center_greedy(points, centers, k)
        shorter = k_center_greedy(points, centers, k - 1)[0]
    expected, expected_radii = brute_force(points, centers, k)
    assert (picks.tolist(), radii.tolist()) == (expected, expected_radii.tolist())
    assert picks[:-1].tolist() == shorter.tolist()
    assert (radii[1:] <= radii[:-1]).all()


def test_large_pools_clustered_or_not():
    for points, k in (
        (clusters(6000, 40, noise=1), 60),
        (np.random.default_rng(1).random((4000, 2)), 60),
    ):
        picks = k_center_greedy(points, points[:30], k)[0].tolist()
        assert picks == brute_force(points, points[:30], k)[0]


def test_the_engine_sweeps_where_turns_do_not_pay(monkeypatch):
    """On a line one pick uses up a front, and a distance costs no more than a bound."""
    sweeps, original = [], kcenter._Nearest.sweep

    def counted(self, most, bar):
        sweeps.append(most)
        return original(self, most, bar)

    monkeypatch.setattr(kcenter._Nearest, "sweep", counted)
    points = np.random.default_rng(0).random((20_000, 1))
    picks, radii = k_center_greedy(points, points[:1], 100)
    expected, expected_radii = brute_force(points, points[:1], 100)
    assert (picks.tolist(), radii.tolist()) == (expected, expected_radii.tolist())
    assert 0 < sum(sweeps) < 100
    k_center_greedy(clusters(20_000, 40, noise=1), clusters(60, 40), 100)
    assert len(sweeps) == 1


def test_most_clustered_points_are_skipped(monkeypatch):
    """The reason for the speed: of 100,000 points hardly any needs a distance to the 40 picks."""
    numbers, products = [], kcenter._products

    def counted(x, xx, c, *buffer):
        numbers.append(len(x) * len(c))
        return products(x, xx, c, *buffer)

    monkeypatch.setattr(kcenter, "_products", counted)
    points = clusters(100_000, 40, noise=1)
    k_center_greedy(points, points[:60], 40)
    assert sum(numbers) - 100_000 * 60 < 0.25 * 100_000 * 40


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_layout_in_memory_does_not_matter(metric, sizes):
    points = np.random.default_rng(1).integers(1, 4, size=(3000, 8)) / 3
    rows = k_center_greedy(points, points[:2], 150, metric=metric)
    points = np.asfortranarray(points)
    columns = k_center_greedy(points, np.asfortranarray(points[:2]), 150, metric=metric)
    assert torch.equal(rows[0], columns[0])
    assert torch.equal(rows[1], columns[1])


def test_picks_follow_a_permutation_of_the_pool():
    points, order = clusters(2500, 20, 3), np.random.default_rng(4).permutation(2500)
    direct, permuted = (k_center_greedy(p, points[:5], 60)[0] for p in (points, points[order]))
    assert order[permuted].tolist() == direct.tolist()


def test_four_points_by_hand():
    """On a line with the centre at 0: first 10, then 4 (4 from 0, 6 from 10), 6 (2 from 4), 1."""
    picks, radii = k_center_greedy(np.array([[1.0], [4.0], [6.0], [10.0]]), np.array([[0.0]]), 4)
    assert picks.tolist() == [3, 1, 2, 0]
    assert radii.tolist() == [10.0, 4.0, 2.0, 1.0]
    assert doctest.testmod(kcenter, extraglobs={"np": np}).failed == 0


def test_five_points_by_hand_with_a_tie():
    points = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0.9, 0.1, 0]])
    picks, radii = k_center_greedy(points, np.array([[1.0, 0, 0]]), 3)
    assert picks.tolist() == [1, 2, 3]  # 1 and 2 are both sqrt(2) away: the lower index first
    np.testing.assert_allclose(radii, [2**0.5, 2**0.5, 0.5**0.5])
    picks, radii = k_center_greedy(7 * points, np.array([[2.0, 0, 0]]), 3, metric="cosine")
    assert picks.tolist() == [1, 2, 3]
    np.testing.assert_allclose(radii, [1, 1, 1 - 0.5**0.5])


def test_nothing_labelled_starts_at_index_0():
    picks, radii = k_center_greedy(np.array([[0.0], [5.0], [2.0]]), np.empty((0, 1)), 2)
    assert picks.tolist() == [0, 1]
    assert radii.tolist() == [np.inf, 5.0]


def test_float16_values_whose_squares_overflow():
    """In float16 both far points would be at infinity, with a distance of NaN between them."""
    points = torch.tensor([[30000.0], [-60000.0], [0.0]], dtype=torch.float16)
    picks, radii = k_center_greedy(points, points[2:], 2)
    assert picks.tolist() == [1, 0]
    assert radii.tolist() == [60000.0, 30000.0]


def test_an_exhausted_pool_warns_and_continues_in_order(sizes):
    points = np.array([[0.0], [1.0], [0.0], [2.0], [1.0], [0.0], [0.0], [0.0], [0.0]])
    with pytest.warns(UserWarning, match="pool exhausted at pick 2 of 7"):
        picks, radii = k_center_greedy(points, points[:1], 7)
    assert picks.tolist() == [3, 1, 0, 2, 4, 5, 6]
    assert radii.tolist() == [2, 1, 0, 0, 0, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        k_center_greedy(points, points[:1], 2)


def test_numpy_and_torch_agree_and_leave_the_global_random_state():
    points, centers = clusters(50, 4, 6), clusters(2, 4, 7)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = k_center_greedy(points, centers, 9)
    tensor = torch.from_numpy(points).requires_grad_()
    second = k_center_greedy(tensor, torch.from_numpy(centers), 9)
    assert torch.equal(first[0], second[0])
    assert torch.equal(before, torch.random.get_rng_state())


def test_no_distance_matrix_is_held_in_memory(largest_allocation):
    """100,000 points, 600 centres: all distances in float32 take 240 MB, float64 points 40 MB."""
    points = torch.rand(100_000, 50, generator=torch.Generator().manual_seed(0))
    with largest_allocation as seen:
        k_center_greedy(points, points[:500], 100)
    assert seen.bytes < 20 * 2**20


def test_products_of_rounded_factors_are_not_trusted(monkeypatch):
    """If torch rounds float32 factors to fewer bits, float64 is used; a wrong bound is an error."""
    points = torch.from_numpy(clusters(300, 20))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert kcenter._product_dtype(points, True) == torch.float64
        picks = k_center_greedy(points, points[:5], 20)[0].tolist()
        assert picks == brute_force(points, points[:5], 20)[0]
    finally:
        torch.set_float32_matmul_precision(before)
    assert kcenter._product_dtype(points, True) == torch.float32
    monkeypatch.setattr(kcenter._Nearest, "_least", lambda self, x, first: np.full(len(x), 1e-6))
    with pytest.raises(RuntimeError, match="less exact than the type"):
        k_center_greedy(points, points[:5], 20)


def test_bad_input_is_refused_by_value():
    x = torch.rand(6, 3)
    with pytest.raises(ValueError, match=r"points: 1 of 6 rows hold NaN or .*, first \[4\]"):
        k_center_greedy(x.index_fill(0, torch.tensor([4]), float("nan")), x, 2)
    with pytest.raises(ValueError, match=r"centers: 2 of 6 rows hold NaN or .*, first \[1, 3\]"):
        k_center_greedy(x, x.index_fill(0, torch.tensor([1, 3]), float("inf")), 2)
    with pytest.raises(ValueError, match="k = 7 picks from 6 points"):
        k_center_greedy(x, x, 7)
    with pytest.raises(ValueError, match="k = -1"):
        k_center_greedy(x, x, -1)
    with pytest.raises(ValueError, match=r"\(6, 3\) and centers \(6, 2\) differ in columns"):
        k_center_greedy(x, x[:, :2], 1)
    with pytest.raises(ValueError, match=r"points are \(6,\)"):
        k_center_greedy(x[:, 0], x, 1)
    with pytest.raises(ValueError, match=r"points are \(6, 0\)"):
        k_center_greedy(x[:, :0], x[:, :0], 1)
    with pytest.raises(ValueError, match="metric 'l1' is unknown"):
        k_center_greedy(x, x, 1, metric="l1")
    with pytest.raises(ValueError, match="rows hold only zeros"):
        k_center_greedy(torch.zeros(2, 3), x, 1, metric="cosine")
