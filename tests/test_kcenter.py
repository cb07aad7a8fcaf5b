import doctest
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from activekd_lite import kcenter
from activekd_lite.kcenter import k_center_greedy


def brute_force(points, centers, k, cosine=False):
    """Distances to all centres again at each pick, in float64: the definition."""
    points, centers = np.asarray(points, dtype=np.float64), np.asarray(centers, dtype=np.float64)
    if cosine:
        points = points / np.linalg.norm(points, axis=1, keepdims=True)
        centers = centers / np.linalg.norm(centers, axis=1, keepdims=True)
    picks, radii = [], []
    for _ in range(k):
        everything = np.concatenate([centers, points[picks]])
        distance = np.full(len(points), np.inf)
        for c in everything:
            distance = np.minimum(distance, ((points - c) ** 2).sum(axis=1))
        distance[picks] = -1
        picks.append(int(distance.argmax()))
        radii.append(distance[picks[-1]])
    return picks, np.array(radii) / 2 if cosine else np.sqrt(radii)


def simplex(n, c, seed, sharp=4.0):
    g = torch.Generator().manual_seed(seed)
    return (sharp * torch.randn(n, c, generator=g, dtype=torch.float64)).softmax(1)


@pytest.mark.filterwarnings("ignore:pool exhausted")
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 6), st.integers(0, 2**16), st.booleans(), st.data())
def test_picks_and_radii_are_those_of_brute_force(n, c, labelled, seed, cosine, data):
    k = data.draw(st.integers(0, n))
    points, centers = simplex(n, c, seed), simplex(labelled, c, seed + 1)
    picks, radii = k_center_greedy(points, centers, k, metric="cosine" if cosine else "euclidean")
    expected, expected_radii = brute_force(points, centers, k, cosine)
    np.testing.assert_allclose(radii, expected_radii, rtol=1e-9, atol=1e-9)
    if not cosine:  # a cosine of equal rows may differ in the last bit, and so may the order of ties
        assert picks.tolist() == expected


ADVERSARIAL = {
    "duplicates": np.repeat(np.eye(4), 5, axis=0),
    "all equal": np.full((9, 3), 1 / 3),
    "simplex vertices and edges": np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0, 1], [0, 0.5, 0.5], [0.5, 0, 0.5]]),
    "one ulp apart": np.array([[1.0], [np.nextafter(1.0, 2)], [-1.0], [np.nextafter(-1.0, -2)], [0.5]]),
    "ten orders of magnitude": np.array([[1e-10, 0], [1e10, 0], [0, 1e10], [1.0, 1.0]]),
}


@pytest.mark.filterwarnings("ignore:pool exhausted")
@pytest.mark.parametrize("case", ADVERSARIAL)
@pytest.mark.parametrize("labelled", [0, 1, 2])
def test_ties_duplicates_and_one_ulp(case, labelled):
    points = ADVERSARIAL[case]
    centers = points[:labelled] * 0.5
    picks, radii = k_center_greedy(points, centers, len(points))
    expected, expected_radii = brute_force(points, centers, len(points))
    assert picks.tolist() == expected
    np.testing.assert_allclose(radii, expected_radii, rtol=1e-15)  # square roots may differ in the last bit
    assert sorted(picks.tolist()) == list(range(len(points)))


def test_a_worked_example():
    """Four points on a line, the centre at 0: 10 is farthest, then 4 (4 from 0, 6 from 10), then 6 (2 from 4), then 1."""
    picks, radii = k_center_greedy(np.array([[1.0], [4.0], [6.0], [10.0]]), np.array([[0.0]]), 4)
    assert picks.tolist() == [3, 1, 2, 0]
    assert radii.tolist() == [10.0, 4.0, 2.0, 1.0]
    assert doctest.testmod(kcenter, extraglobs={"np": np}).failed == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_is_computed_in_float64(dtype):
    points, centers = simplex(200, 7, 0).to(dtype), simplex(5, 7, 1).to(dtype)
    picks, _ = k_center_greedy(points, centers, 30)
    assert picks.tolist() == brute_force(points.double(), centers.double(), 30)[0]


def test_float16_values_whose_squares_overflow():
    points = torch.tensor([[60000.0], [-60000.0], [0.0]], dtype=torch.float16)
    picks, radii = k_center_greedy(points, points[2:], 2)
    assert picks.tolist() == [0, 1]
    assert torch.isfinite(radii).all()


def test_chunks_do_not_matter_tails_included(monkeypatch):
    points, centers = simplex(103, 6, 2), simplex(3, 6, 3)
    whole = k_center_greedy(points, centers, 20)
    monkeypatch.setattr(kcenter, "CHUNK_NUMBERS", 6 * 10)
    split = k_center_greedy(points, centers, 20)
    assert torch.equal(whole[0], split[0])
    assert torch.equal(whole[1], split[1])


def test_the_first_q_of_more_and_shrinking_radii():
    points, centers = simplex(80, 5, 4), simplex(2, 5, 5)
    long, radii = k_center_greedy(points, centers, 30)
    assert torch.equal(long[:10], k_center_greedy(points, centers, 10)[0])
    assert (radii.diff() <= 0).all()


def test_an_exhausted_pool_says_so_and_goes_on_in_order():
    points = np.array([[0.0], [1.0], [0.0], [2.0], [1.0]])
    with pytest.warns(UserWarning, match="pool exhausted at pick 2 of 5"):
        picks, radii = k_center_greedy(points, points[:1], 5)
    assert picks.tolist() == [3, 1, 0, 2, 4]
    assert radii.tolist() == [2, 1, 0, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        k_center_greedy(points, points[:1], 2)


def test_numpy_and_torch_agree_and_the_global_random_state_rests():
    points, centers = simplex(50, 4, 6), simplex(2, 4, 7)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = k_center_greedy(points.numpy(), centers.numpy(), 9)
    assert torch.equal(first[0], k_center_greedy(points, centers, 9)[0])
    assert torch.equal(before, torch.random.get_rng_state())


def test_bad_input_is_refused_by_value():
    x = torch.rand(6, 3)
    with pytest.raises(ValueError, match=r"points: 1 of 6 rows hold NaN or infinite values, first \[4\]"):
        k_center_greedy(x.index_fill(0, torch.tensor([4]), float("nan")), x, 2)
    with pytest.raises(ValueError, match="k = 7 picks asked of 6 points"):
        k_center_greedy(x, x, 7)
    with pytest.raises(ValueError, match="k = -1"):
        k_center_greedy(x, x, -1)
    with pytest.raises(ValueError, match=r"\(6, 3\) and centers \(6, 2\) differ in columns"):
        k_center_greedy(x, x[:, :2], 1)
    with pytest.raises(ValueError, match=r"points are \(6,\)"):
        k_center_greedy(x[:, 0], x, 1)
    with pytest.raises(ValueError, match="metric 'l1' is unknown"):
        k_center_greedy(x, x, 1, metric="l1")
    with pytest.raises(ValueError, match="rows hold only zeros"):
        k_center_greedy(torch.zeros(2, 3), x, 1, metric="cosine")
