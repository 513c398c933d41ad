"""Table metrics_speed: all metrics of a million queries with 100 predictions and five positives each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from measurements import Measurement, from_samples
from scipy.sparse import csr_matrix

from xmc.metrics import evaluate_predictions

__all__ = ["run"]

QUERIES, COLUMNS, LABELS, POSITIVES = 1_000_000, 100, 1_000_000, 5
REPEATS = 5


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Measure on random predictions, in order of score and not, with a filtered pair for every third query."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, LABELS, (QUERIES, COLUMNS))
    # Half of the positives are predicted somewhere, as in a real evaluation.
    predicted = np.take_along_axis(labels, generator.integers(0, COLUMNS, (QUERIES, POSITIVES)), axis=1)
    others = generator.integers(0, LABELS, (QUERIES, POSITIVES))
    positives = np.where(generator.random((QUERIES, POSITIVES)) < 0.5, predicted, others).ravel()
    indptr = np.arange(QUERIES + 1) * POSITIVES
    truth = csr_matrix((np.ones(len(positives), np.float32), positives, indptr), shape=(QUERIES, LABELS))
    rows = generator.integers(0, QUERIES, QUERIES // 3)
    pairs = np.stack([rows, labels[rows, generator.integers(0, COLUMNS, len(rows))]], axis=1)
    counts = generator.integers(0, 50, LABELS)
    scores = generator.random((QUERIES, COLUMNS), dtype=np.float32)
    for method, given in (("unsorted predictions", scores), ("sorted predictions", -np.sort(-scores, axis=1))):
        if methods and not method.startswith(tuple(methods)):
            continue
        seconds = []
        for repeat in range(REPEATS + 1):
            start = time.perf_counter()
            evaluate_predictions(labels, given, truth, training_counts=counts, training_queries=QUERIES, filter=pairs)
            if repeat:  # the first compiles
                seconds.append(time.perf_counter() - start)
        yield [from_samples("metrics_speed", method, "evaluation", seconds, "seconds", seed)]
