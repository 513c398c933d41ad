"""Balanced clustering: sizes, determinism, and clusters that are there."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import pytest

from xmc.errors import InputError
from xmc.kernels.clustering import balanced_clusters


def blobs(
    count: int, each: int, dimension: int, seed: int = 0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    which = random.permutation(np.repeat(np.arange(count), each))
    return 10 * random.standard_normal((count, dimension))[which] + random.standard_normal(
        (len(which), dimension)
    ), which


@pytest.mark.parametrize(
    ("points", "clusters"), [(1, 1), (7, 7), (1000, 7), (1000, 16), (999, 500), (20_000, 3), (5, 1)]
)
def test_sizes_differ_by_at_most_one(points: int, clusters: int) -> None:
    found = balanced_clusters(np.random.default_rng(1).standard_normal((points, 9)), clusters)
    sizes = np.bincount(found, minlength=clusters)
    assert found.dtype == np.int32
    assert len(sizes) == clusters
    assert sizes.max() - sizes.min() <= 1


def test_equal_blobs_are_found() -> None:
    points, which = blobs(4, 1500, 5)
    found = balanced_clusters(points, 4)
    for cluster in range(4):
        assert np.bincount(which[found == cluster]).max() >= 0.99 * 1500


def test_finer_clusters_are_tighter_and_nested_neighbours_are_near() -> None:
    points, _ = blobs(64, 64, 16)
    spreads = []
    for count in (1, 8, 64):
        found = balanced_clusters(points, count)
        means = np.stack([points[found == cluster].mean(0) for cluster in range(count)])
        spreads.append(float(((points - means[found]) ** 2).sum()))
    assert spreads[2] < 0.25 * spreads[0]
    assert spreads[1] < spreads[0]


def test_same_result_whatever_the_threads_and_another_with_another_seed() -> None:
    points = np.random.default_rng(2).standard_normal((30_000, 24)).astype(np.float32)
    once = balanced_clusters(points, 100, seed=5)
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        alone = balanced_clusters(points, 100, seed=5)
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(once, alone)
    assert (balanced_clusters(points, 100, seed=6) != once).any()


def test_points_that_are_all_alike_are_still_balanced() -> None:
    assert sorted(np.bincount(balanced_clusters(np.ones((10_001, 3)), 8))) == [1250] * 7 + [1251]


def test_mistakes_are_named() -> None:
    points = np.zeros((4, 2))
    for clusters in (0, 5):
        with pytest.raises(InputError, match=f"from 1 to the number of points, 4, but is {clusters}"):
            balanced_clusters(points, clusters)
    with pytest.raises(InputError, match="must be a matrix"):
        balanced_clusters(points[0], 1)
    with pytest.raises(InputError, match="iterations"):
        balanced_clusters(points, 2, iterations=0)
    points[2, 1] = np.nan
    with pytest.raises(InputError, match="NaN or infinities"):
        balanced_clusters(points, 2)
