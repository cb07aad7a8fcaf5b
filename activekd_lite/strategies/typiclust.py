"""TypiClust: the most typical image of each large cluster (Hacohen et al. 2022, arXiv:2202.02794).

The paper clusters once per query, by k-means into labels + query_size clusters. Here the cluster of
largest inertia is split in two at each pick (bisecting k-means), so the first picks do not depend
on query_size.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from activekd_lite.pool import LabelState, Predictions
from activekd_lite.strategies.contract import draw_seed, unlabeled_indices


def typiclust(
    predictions: Predictions, state: LabelState, query_size: int, *, generator: torch.Generator
) -> Tensor:
    """Choose the most typical image of the largest cluster without a label; repeat.

    The number of clusters is the number of labels and picks so far, plus one. Typical: the smallest
    mean distance to the 20 nearest in the cluster. Ties between copies of one image are decided by
    rounding.
    """
    taken = len(state.labels) - len(unlabeled_indices(predictions, state, query_size))
    x = F.normalize(predictions.features.double(), dim=1).cpu().numpy()
    free = state.labels.numpy() < 0
    seed = draw_seed(generator)
    clusters = [(_inertia(x), np.arange(len(x)))]
    picks: list[int] = []
    while len(picks) < query_size:
        while len(clusters) <= taken + len(picks) and _split(clusters, x, seed):
            pass
        open_clusters = (members for _, members in clusters if free[members].any())
        cluster = min(open_clusters, key=lambda m: ((~free[m]).sum(), -len(m)))
        candidates = np.flatnonzero(free[cluster])
        typical = _mean_distance(x[cluster])[candidates].argmin()
        picks.append(int(cluster[candidates[typical]]))
        free[picks[-1]] = False
    return torch.tensor(picks)


def _split(clusters: list[tuple[float, np.ndarray]], x: np.ndarray, seed: int) -> bool:
    """Split the cluster (inertia, members) of largest inertia in two, in place.

    Returns False if every cluster holds copies of one point.
    """
    from sklearn.cluster import KMeans  # slow to import

    inertia, members = max(clusters, key=lambda cluster: cluster[0])
    if inertia < 1e-9:
        return False
    side = KMeans(2, n_init=1, random_state=seed).fit_predict(x[members]) == 1
    clusters[:] = [cluster for cluster in clusters if cluster[1] is not members]
    clusters += [(_inertia(x[part]), part) for part in (members[side], members[~side])]
    return True


def _inertia(x: np.ndarray) -> float:
    return float(((x - x.mean(axis=0)) ** 2).sum())


def _mean_distance(x: np.ndarray, neighbors: int = 20) -> np.ndarray:
    """Return the mean distance (n,) of each point of x (n, F) to its nearest neighbours in x."""
    from sklearn.neighbors import NearestNeighbors

    if len(x) == 1:
        return np.zeros(1)
    nearest = NearestNeighbors(n_neighbors=min(neighbors, len(x) - 1)).fit(x)
    return nearest.kneighbors()[0].mean(axis=1)
