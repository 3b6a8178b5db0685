"""k-means by Lloyd's algorithm: assign every point to its nearest centroid, move the centroids to the means, repeat.

It is what IVF cuts the space with and what product quantisation makes its codebooks with. As in FAISS: points beyond
256 a centroid are left out (they hardly change the result), fewer than 39 a centroid bring a warning, fewer points than
centroids are an error, and a centroid without points takes half of the largest cluster.

Source: Lloyd 1982; the thresholds are those of faiss/Clustering.h.
"""

import warnings

import numpy as np

from labkit.errors import LabError
from labkit.progress import progress

FEWEST, MOST = 39, 256  # training points per centroid
BLOCK = 512  # points assigned at once


class TooFewPoints(UserWarning):
    """There are fewer than 39 training points a centroid."""


def check_enough(points: int, centroids: int, what: str = "k-means") -> None:
    """Explain beforehand what too few points lead to.

    Raises:
        LabError: fewer points than centroids.
    """
    if points < centroids:
        raise LabError(
            f"{what} wants {centroids} centroids from {points} points", f"at most {max(1, points // FEWEST)} centroids"
        )
    if points < FEWEST * centroids:
        warnings.warn(
            f"{what}: {points} points for {centroids} centroids; fewer than {FEWEST} * {centroids} = "
            f"{FEWEST * centroids} fit the noise of the sample. More points, or fewer centroids (bits).",
            TooFewPoints,
            stacklevel=3,
        )


def assign(points: np.ndarray, centroids: np.ndarray, metric: str = "l2") -> np.ndarray:
    """The nearest centroid of every point; the lowest number wins a tie.

    Args:
        points: (N, D).
        centroids: (C, D).
        metric: "l2", or "inner_product" for the centroid with the largest inner product.

    Returns:
        int64 (N,).
    """
    # |x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2), and |x|^2 is the same for all: one product of [x, 1] and [c, -|c|^2 / 2]
    halves = np.einsum("cd,cd->c", centroids, centroids) / (-2 if metric == "l2" else np.inf)
    weights = np.concatenate([centroids, halves[:, None]], axis=1).astype(np.float32).T  # (D + 1, C)
    out = np.empty(len(points), np.int64)
    rows = np.ones((min(BLOCK, len(points)), len(weights)), np.float32)
    likeness = np.empty((len(rows), len(centroids)), np.float32)  # one block, which stays in the cache
    for start in range(0, len(points), BLOCK):
        count = min(BLOCK, len(points) - start)
        rows[:count, :-1] = points[start : start + count]
        np.matmul(rows[:count], weights, out=likeness[:count])
        likeness[:count].argmax(axis=1, out=out[start : start + count])
    return out


# exercise: vector_index.update_centroids
def update_centroids(points: np.ndarray, labels: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Move every centroid to the mean of its points; one without points stays.

    Args:
        points: (N, D).
        labels: (N,), which centroid each point belongs to.
        centroids: (C, D), the old ones.

    Returns:
        float32 (C, D).
    """
    size = len(centroids)
    counts = np.bincount(labels, minlength=size)[:, None]
    sums = [np.bincount(labels, weights=column, minlength=size) for column in points.T]  # in float64
    return np.where(counts, np.stack(sums, axis=1) / np.maximum(counts, 1), centroids).astype(np.float32)
# end exercise


def split_empty(centroids: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Give every empty cluster half of the largest one: two copies of its centroid, pushed slightly apart."""
    counts = counts.copy()
    for empty in np.flatnonzero(counts == 0):
        largest = counts.argmax()
        push = np.where(np.arange(centroids.shape[1]) % 2, 1 - 1 / 1024, 1 + 1 / 1024).astype(np.float32)
        centroids[empty] = centroids[largest] * push
        centroids[largest] *= 2 - push
        counts[empty] = counts[largest] // 2
        counts[largest] -= counts[empty]
    return centroids


def kmeans(
    points: np.ndarray, centroids: int, iterations: int = 10, metric: str = "l2", seed: int = 1, what: str = "k-means"
) -> np.ndarray:
    """Centroids of the points.

    Args:
        points: float32 (N, D).
        centroids: how many, at most N.
        metric: "l2"; "inner_product" assigns by inner product and keeps the centroids at unit length (spherical).
        what: named in warnings and errors.

    Returns:
        float32 (centroids, D).

    Raises:
        LabError: fewer points than centroids.
    """
    check_enough(len(points), centroids, what)
    draw = np.random.default_rng(seed)
    if len(points) > MOST * centroids:
        points = points[draw.choice(len(points), MOST * centroids, replace=False)]
    points = np.ascontiguousarray(points, np.float32)
    means = points[draw.choice(len(points), centroids, replace=False)].copy()
    with progress(total=iterations, description=what) as bar:
        for _ in range(iterations):
            labels = assign(points, means, metric)
            means = update_centroids(points, labels, means)
            means = split_empty(means, np.bincount(labels, minlength=centroids))
            if metric == "inner_product":
                means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.float32(1e-30))
            bar.advance()
    return means
