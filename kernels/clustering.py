"""Balanced clustering: a tree of 2-means splits of equal sizes, in numba."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from xmc.errors import InputError, NotFiniteError
from xmc.kernels.parallel import parallel_kernel
from xmc.progress import progress

__all__ = ["balanced_clusters"]

Floats = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]
CHUNK = 4096
"""Points that one task sums up; fixed, so that results do not depend on the number of threads."""


def balanced_clusters(
    points: npt.NDArray[np.floating], clusters: int, *, iterations: int = 8, seed: int = 0
) -> npt.NDArray[np.int32]:
    """Clusters whose sizes differ by at most one, by recursive balanced 2-means.

    A node of points splits into two halves (of as many clusters each as they will hold): two random points are the first
    centres; then, `iterations` times, the points are ordered by x·(c₁ - c₂), the first part goes to c₁, and centres become
    the parts' means. For unit vectors this is spherical 2-means with balanced parts.

    Parameters
    ----------
    points: floating [N, D]; computed in float32. clusters: from 1 to N. iterations: largest number of rounds of each split.
    seed: of the first centres.

    Returns int32 [N], the cluster of each point, in [0, clusters); neighbouring clusters are near each other in the tree.
    The same arguments give the same result, whatever the number of threads.

    Raises InputError for shapes or numbers that do not fit, and NotFiniteError, an InputError, for NaN or infinite points.
    Source: Prabhu et al., Parabel, WWW 2018, section 3.1; as batches, Dahiya et al., NGAME, WSDM 2023.
    """
    points = np.ascontiguousarray(points, np.float32)
    if points.ndim != 2:
        raise InputError(f"points must be a matrix [N, D], but have the shape {points.shape}.")
    count = len(points)
    if not 1 <= clusters <= max(count, 1):
        raise InputError(f"clusters must be from 1 to the number of points, {count}, but is {clusters}.")
    if iterations < 1:
        raise InputError(f"iterations must be at least 1, but is {iterations}.")
    if not np.isfinite(points).all():
        raise NotFiniteError("points hold NaN or infinities, which cannot be clustered.")
    order = np.arange(count)
    leaf_starts = np.arange(clusters + 1, dtype=np.int64) * count // clusters
    edges = np.array([0, clusters], np.int64)  # nodes of a level: leaves [edges[n], edges[n + 1])
    random = np.random.default_rng(seed)
    with progress("clustering", clusters, done=1, unit="clusters") as line:
        while (np.diff(edges) > 1).any():
            middles = (edges[:-1] + edges[1:]) // 2
            _split(points, order, leaf_starts[edges], leaf_starts[middles], np.diff(edges) > 1, iterations, random)
            line.advance(-len(edges))
            edges = np.unique(np.concatenate([edges, middles]))
            line.advance(len(edges))
    out = np.empty(count, np.int32)
    out[order] = np.repeat(np.arange(clusters, dtype=np.int32), np.diff(leaf_starts))
    return out


def _split(
    points: Floats,
    order: Int64s,
    starts: Int64s,
    middles: Int64s,
    open_nodes: npt.NDArray[np.bool_],
    iterations: int,
    random: np.random.Generator,
) -> None:
    """Reorder the points of each node [starts[n], starts[n + 1]) so that its halves meet at middles[n]."""
    nodes = np.flatnonzero(open_nodes)
    sizes = np.diff(starts)[nodes]
    # Two different points of each node.
    first = (random.random(len(nodes)) * sizes).astype(np.int64)
    second = (first + 1 + (random.random(len(nodes)) * (sizes - 1)).astype(np.int64)) % sizes
    directions = points[order[starts[nodes] + first]] - points[order[starts[nodes] + second]]
    task_counts = -(-sizes // CHUNK)
    task_nodes = np.repeat(np.arange(len(nodes)), task_counts)
    within = np.arange(len(task_nodes)) - np.repeat(np.cumsum(task_counts) - task_counts, task_counts)
    task_starts = starts[nodes][task_nodes] + within * CHUNK
    task_ends = np.minimum(task_starts + CHUNK, starts[nodes + 1][task_nodes])
    margins = np.empty(len(order), np.float32)
    for _ in range(iterations):
        _margins(points, order, task_nodes, task_starts, task_ends, directions, margins)
        changed = _partition(order, margins, starts[nodes], middles[nodes], starts[nodes + 1])
        if not changed.any():
            break
        directions = _directions(
            points, order, task_nodes, task_starts, task_ends, middles[nodes], starts[nodes], starts[nodes + 1]
        )


@parallel_kernel(fastmath=True)
def _margins(
    points: Floats, order: Int64s, task_nodes: Int64s, task_starts: Int64s, task_ends: Int64s, directions: Floats,
    margins: Floats,
) -> None:  # fmt: skip
    """margins[place] = -x·(c₁ - c₂) of the point at that place, by its node."""
    for task in numba.prange(len(task_nodes)):
        direction = directions[task_nodes[task]]
        for place in range(task_starts[task], task_ends[task]):
            point = points[order[place]]
            total = np.float32(0)
            for column in range(len(point)):
                total += point[column] * direction[column]
            margins[place] = -total


@parallel_kernel()
def _partition(order: Int64s, margins: Floats, starts: Int64s, middles: Int64s, ends: Int64s) -> npt.NDArray[np.bool_]:
    """Bring the points of least margin, ties by number, to the front of each node; whether that changed its halves."""
    changed = np.zeros(len(starts), np.bool_)
    for node in numba.prange(len(starts)):
        start, middle, end = starts[node], middles[node], ends[node]
        size, half = end - start, middle - start
        values = margins[start:end].copy()
        threshold = np.partition(values, half - 1)[half - 1]
        below = 0
        for place in range(size):
            if values[place] < threshold:
                below += 1
        # Of those at the threshold, the ones that already stand in front go first.
        ties = half - below
        left = np.empty(half, np.int64)
        right = np.empty(size - half, np.int64)
        lefts = rights = 0
        for place in range(size):
            goes_left = values[place] < threshold
            if values[place] == threshold and ties > 0:
                goes_left = True
                ties -= 1
            if goes_left:
                left[lefts] = order[start + place]
                lefts += 1
                if place >= half:
                    changed[node] = True
            else:
                right[rights] = order[start + place]
                rights += 1
        order[start:middle] = left
        order[middle:end] = right
    return changed


def _directions(
    points: Floats,
    order: Int64s,
    task_nodes: Int64s,
    task_starts: Int64s,
    task_ends: Int64s,
    middles: Int64s,
    starts: Int64s,
    ends: Int64s,
) -> Floats:
    """c₁ - c₂ of each node, float32 [nodes, D]: the difference of its halves' means."""
    partial = np.zeros((len(task_nodes), points.shape[1]))
    weights = np.stack([1.0 / (middles - starts), -1.0 / (ends - middles)])
    _weighted_sums(points, order, task_nodes, task_starts, task_ends, middles, weights, partial)
    first_task = np.searchsorted(task_nodes, np.arange(len(middles)))
    return np.add.reduceat(partial, first_task, axis=0).astype(np.float32)


@parallel_kernel()
def _weighted_sums(
    points: Floats, order: Int64s, task_nodes: Int64s, task_starts: Int64s, task_ends: Int64s, middles: Int64s,
    weights: npt.NDArray[np.float64], partial: npt.NDArray[np.float64],
) -> None:  # fmt: skip
    """partial[task] = Σ weight · x over the task's points, the weight by the half that a point is in."""
    for task in numba.prange(len(task_nodes)):
        node = task_nodes[task]
        sums = np.zeros(points.shape[1], np.float32)
        for half in range(2):
            sums[:] = 0
            start = task_starts[task] if half == 0 else max(task_starts[task], middles[node])
            end = min(task_ends[task], middles[node]) if half == 0 else task_ends[task]
            for place in range(start, end):
                point = points[order[place]]
                for column in range(len(point)):
                    sums[column] += point[column]
            for column in range(len(sums)):
                partial[task, column] += weights[half, node] * sums[column]
