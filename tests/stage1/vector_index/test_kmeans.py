"""Each test names the bug that it catches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from labkit.errors import LabError
from stage1_foundations.vector_index.kmeans import TooFewPoints, assign, kmeans, split_empty, update_centroids


def test_update_centroids_by_hand():
    """Catches: a mean over the wrong points; a centroid without points that becomes zero or NaN."""
    points = np.array([[0, 0], [2, 0], [10, 4]], np.float32)
    old = np.array([[5, 5], [7, 7], [9, 9]], np.float32)
    moved = update_centroids(points, np.array([0, 0, 2]), old)
    np.testing.assert_array_equal(moved, [[1, 0], [7, 7], [10, 4]])
    assert moved.dtype == np.float32


def test_assign_is_the_nearest_centroid(vectors, metric):
    """Catches: |c|^2 forgotten, a block that is cut off, the metric ignored."""
    centroids = 2 * vectors[:37] + 0.3
    if metric == "l2":
        expected = ((vectors[:, None] - centroids) ** 2).sum(axis=2).argmin(axis=1)
    else:
        expected = (vectors @ centroids.T).argmax(axis=1)
    np.testing.assert_array_equal(assign(vectors, centroids, metric), expected)


def test_one_step_equals_scikit_learn(vectors):
    """Catches: an error in Lloyd's iteration as a whole."""
    start = vectors[:30].copy()
    theirs = KMeans(30, init=start, n_init=1, max_iter=1, algorithm="lloyd").fit(vectors)
    ours = update_centroids(vectors, assign(vectors, start), start)
    np.testing.assert_allclose(ours, theirs.cluster_centers_, atol=1e-6)


def test_more_iterations_lower_the_error(vectors):
    """Catches: centroids that wander instead of settling."""
    errors = []
    for iterations in (1, 3, 10):
        centroids = kmeans(vectors, 50, iterations)
        errors.append(((vectors - centroids[assign(vectors, centroids)]) ** 2).sum())
    assert errors[0] > errors[1] > errors[2]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(0, 2**31))
def test_every_cluster_has_points_even_with_duplicates(copies, seed):
    """Catches: empty clusters that stay empty, NaN centroids."""
    points = np.random.default_rng(seed).standard_normal((200, 3)).astype(np.float32)
    points = np.repeat(points, copies, axis=0)[:400]
    centroids = kmeans(points, 5, 20, seed=seed)
    assert np.isfinite(centroids).all()
    assert (np.bincount(assign(points, centroids), minlength=5) > 0).all()


def test_split_empty_halves_the_largest():
    """Catches: two centroids on the same spot, which never part."""
    centroids = split_empty(np.array([[1, 1], [2, 2], [3, 3]], np.float32), np.array([10, 90, 0]))
    assert not np.array_equal(centroids[1], centroids[2])
    np.testing.assert_allclose(centroids[1:], 2, rtol=2e-3)
    np.testing.assert_array_equal(centroids[0], [1, 1])


def test_inner_product_keeps_centroids_on_the_sphere(vectors):
    """Catches: centroids of unequal length, of which the longest attracts all vectors."""
    centroids = kmeans(vectors, 20, metric="inner_product")
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-6)


def test_seed_decides(vectors):
    """Catches: a random state outside the seed."""
    np.testing.assert_array_equal(kmeans(vectors, 10, seed=5), kmeans(vectors, 10, seed=5))
    assert not np.array_equal(kmeans(vectors, 10, seed=5), kmeans(vectors, 10, seed=6))


def test_too_few_points(vectors):
    """Catches: silence below 39 points a centroid; a crash deep in NumPy below one."""
    with pytest.warns(TooFewPoints, match="39 \\* 200 = 7800"):
        kmeans(vectors, 200, iterations=1)
    with pytest.raises(LabError, match="11 centroids from 10 points"):
        kmeans(vectors[:10], 11)
