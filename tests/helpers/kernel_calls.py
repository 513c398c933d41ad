"""A small call of each parallel kernel of the package, and a program that makes them all, from threads or in a forked child."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["CALLS", "THREADS", "in_threads"]

THREADS = 4
ROUNDS = 20


def _texts() -> tuple[Any, Any]:
    data = np.frombuffer(b"a boat with two hulls, tea", np.uint8)
    return data, np.array([0, 6, 12, 21, len(data)])


def _count() -> list[Any]:
    from xmc.encoders.static.hashing import _count

    data, offsets = _texts()
    counts = np.zeros(len(offsets), np.int64)
    _count(data, offsets, counts)
    return [counts]


def _fill() -> list[Any]:
    from xmc.encoders.static.hashing import _fill

    data, offsets = _texts()
    starts = np.cumsum(_count()[0])
    values = np.empty(starts[-1], np.uint32)
    _fill(data, offsets, starts, values)
    return [values]


def _locate() -> list[Any]:
    from xmc.encoders.static.feature_table import locate

    rows = np.empty(40, np.int32)
    locate(np.arange(40, dtype=np.uint32), 16, rows)
    return [rows]


def _weigh() -> list[Any]:
    from xmc.encoders.static.feature_table import weigh

    coefficients, weights = np.empty(40, np.float32), np.linspace(1, 2, 16, dtype=np.float32)
    weigh(np.arange(40, dtype=np.uint32), np.arange(8, dtype=np.float32), weights, coefficients)
    return [coefficients]


def _bag_sums() -> list[Any]:
    from xmc.encoders.static.feature_table import bag_sums

    out = np.empty((4, 8), np.float32)
    table = np.arange(128, dtype=np.float32).reshape(16, 8)
    bag_sums(table, _locate()[0], _weigh()[0], np.arange(0, 50, 10), out)
    return [out]


def _points() -> tuple[Any, ...]:
    points = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    return points, np.arange(40), np.array([0, 1]), np.array([0, 20]), np.array([20, 40])


def _margins() -> list[Any]:
    from xmc.kernels.clustering import _margins

    points, *tasks = _points()
    margins = np.empty(40, np.float32)
    _margins(points, *tasks, points[:2], margins)
    return [margins]


def _partition() -> list[Any]:
    from xmc.kernels.clustering import _partition

    order = np.arange(40)
    changed = _partition(order, _margins()[0], np.array([0, 20]), np.array([10, 30]), np.array([20, 40]))
    return [order, changed]


def _weighted_sums() -> list[Any]:
    from xmc.kernels.clustering import _weighted_sums

    points, *tasks = _points()
    partial = np.zeros((2, 8))
    _weighted_sums(points, *tasks, np.array([10, 30]), np.array([[0.1, 0.1], [-0.1, -0.1]]), partial)
    return [partial]


def _best_ranks() -> list[Any]:
    from xmc.metrics.ranking import best_ranks

    return [best_ranks(np.array([0, 3, 5]), np.array([1.0, 3.0, 2.0, 5.0, 4.0]))]


def _rank_rows() -> list[Any]:
    from xmc.metrics.ranking import positive_ranks

    labels, scores = np.arange(2000).reshape(1000, 2), np.tile(np.array([1, 2], np.float32), (1000, 1))
    none, ones = np.zeros(1001, np.int64), np.arange(1001)
    return list(positive_ranks(labels, scores, ones, labels[:, 0].copy(), none, np.zeros(0, np.int64), 2, 1))


def _moments() -> tuple[Any, ...]:
    return tuple(np.ones((6, 8), np.float32) * scale for scale in (1, 0.5, 0.25))


def _adam_rows() -> list[Any]:
    from xmc.training.optimizers.row_kernels import adam_rows

    arrays = _moments()
    adam_rows(*arrays, np.array([0, 2, 5]), np.full((3, 8), 0.5, np.float32), 0.1, 0.9, 0.999, 0.5)
    return list(arrays)


def _adam_factored_rows() -> list[Any]:
    from xmc.training.optimizers.row_kernels import adam_factored_rows

    arrays, entries = _moments(), np.arange(3, dtype=np.int32)
    gradients, alignments = np.full((3, 8), 0.5, np.float32), np.empty(3, np.float32)
    parts = (np.ones(3, np.float32),), (gradients,), np.array([0, 3]), np.array([0, 3])
    touched = np.array([0, 2, 5], np.int32)
    adam_factored_rows(*arrays, touched, np.arange(4), entries, entries, *parts, alignments, 0.1, 0.9, 0.999, 0.5)
    return [*arrays, alignments]


def _sum_of_trees() -> list[Any]:
    from xmc.kernels.trees import sum_of_trees

    values = np.random.default_rng(0).standard_normal((600, 2)).astype(np.float32)  # three blocks of rows
    values[::7, 0] = np.nan
    feature, threshold = np.array([0, -1, -1], np.int32), np.array([0.1, 0, 0], np.float32)
    left, right = np.array([1, 0, 0], np.int32), np.array([2, 0, 0], np.int32)
    total = np.zeros(600)
    missing_left, value = np.array([True, False, False]), np.array([0, -1.5, 2.5])
    sum_of_trees(values, np.array([0, 0], np.int32), feature, threshold, left, right, missing_left, value, total)
    return [total]


CALLS: dict[str, Callable[[], list[Any]]] = {
    "xmc.encoders.static.hashing._count": _count,
    "xmc.encoders.static.hashing._fill": _fill,
    "xmc.encoders.static.feature_table.locate": _locate,
    "xmc.encoders.static.feature_table.weigh": _weigh,
    "xmc.encoders.static.feature_table.bag_sums": _bag_sums,
    "xmc.kernels.clustering._margins": _margins,
    "xmc.kernels.clustering._partition": _partition,
    "xmc.kernels.clustering._weighted_sums": _weighted_sums,
    "xmc.kernels.trees.sum_of_trees": _sum_of_trees,
    "xmc.metrics.ranking.best_ranks": _best_ranks,
    "xmc.metrics.ranking._rank_rows": _rank_rows,
    "xmc.training.optimizers.row_kernels.adam_rows": _adam_rows,
    "xmc.training.optimizers.row_kernels.adam_factored_rows": _adam_factored_rows,
}
"""By the full name of the kernel: what calls it, and returns arrays that depend on it."""


def in_threads() -> None:
    """Every call from several threads at once, many times, compared with the results of one thread."""
    expected = {name: call() for name, call in CALLS.items()}
    together, wrong = threading.Barrier(THREADS), []

    def work(first: int) -> None:
        names = list(CALLS)
        together.wait()
        for number in range(ROUNDS * len(names)):
            name = names[(first + number) % len(names)]
            if not all(map(np.array_equal, CALLS[name](), expected[name])):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(3 * number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong


def in_child() -> None:
    """Every call in a child that is forked after all of them ran in several threads of the parent."""
    expected = {name: call() for name, call in CALLS.items()}
    child = os.fork()
    if not child:
        right = [
            np.allclose(*arrays, rtol=1e-6)
            for name, call in CALLS.items()
            for arrays in zip(call(), expected[name], strict=True)
        ]
        os._exit(0 if all(right) else 3)
    _, status = os.waitpid(child, 0)
    assert status == 0, status


if __name__ == "__main__":
    {"threads": in_threads, "child": in_child}[sys.argv[1]]()
    import numba

    print(numba.threading_layer())
