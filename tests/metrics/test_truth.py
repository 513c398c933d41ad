"""What is true: entries above 0 that no filter takes out."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from xmc.metrics import evaluate_predictions
from xmc.metrics.truth import hits, truth_without

GIVEN = csr_matrix(([1.0, 0.0, 0.5, 0.0], ([0, 0, 1, 2], [0, 1, 2, 2])), shape=(3, 3))
"""With stored zeros: labels that were judged not relevant."""


def test_a_stored_zero_is_not_true() -> None:
    assert GIVEN.nnz == 4
    truth = truth_without(GIVEN, None)
    assert truth.nnz == 2
    assert truth.toarray().tolist() == [[True, False, False], [False, False, True], [False, False, False]]
    assert truth_without(GIVEN, np.array([[1, 2]])).toarray().tolist()[1] == [False, False, False]
    predicted = np.array([[1, 0], [2, -1], [2, 0]])
    assert hits(predicted, truth).tolist() == [[False, True], [True, False], [False, False]]


def test_metrics_do_not_see_stored_zeros() -> None:
    without = GIVEN.copy()
    without.eliminate_zeros()
    labels, scores = np.array([[1, 0], [2, 0], [2, 1]]), np.array([[2.0, 1.0]] * 3, np.float32)
    counts = {"training_counts": np.array([3, 0, 1]), "training_queries": 5}
    expected = evaluate_predictions(labels, scores, without, ks=(1, 2), recall_ks=(1, 2), **counts)
    metrics = evaluate_predictions(labels, scores, GIVEN, ks=(1, 2), recall_ks=(1, 2), **counts)
    assert metrics.to_dict() == expected.to_dict()
    assert metrics.queries_without_positives == 1
    assert metrics.values["P@1"] == 100 / 3
