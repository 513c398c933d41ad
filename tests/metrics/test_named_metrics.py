"""Metrics that are asked for by name, against definitions written out in float64, and how they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
from families import members_restored
from scipy.sparse import csr_matrix
from slow_metrics import matrix, predict, slow_global_average_precision, slow_ranking, slow_ranking_metrics

from xmc.errors import ConfigError, InputError
from xmc.metrics import METRICS, NO_PREDICTION, UNKNOWN_LABEL, Measure, Metric, evaluate_predictions, measures_of
from xmc.metrics.ranked import RankedPairs
from xmc.metrics.values import QueryValues


def test_global_average_precision_is_that_of_youtube_8m() -> None:
    """On 1,000 random cases, with more classes than the 20 predictions of a video that count."""
    generator = np.random.default_rng(0)
    for _ in range(1000):
        videos, classes = int(generator.integers(1, 9)), int(generator.integers(15, 40))
        scores = generator.permutation(videos * classes).reshape(videos, classes).astype(np.float32)
        actual = generator.random((videos, classes)) < generator.choice([0.0, 0.05, 0.3])
        labels = np.argsort(generator.random((videos, classes)), axis=1)  # in any order
        found = evaluate_predictions(
            labels, np.take_along_axis(scores, labels, 1), csr_matrix(actual), measures=measures_of("gap")
        )
        assert list(found.values) == ["GAP@20"]
        assert found["GAP@20"] == pytest.approx(slow_global_average_precision(scores, actual), rel=1e-12, abs=1e-12)


def test_global_average_precision_by_hand() -> None:
    # Query 0 predicts 4 (0.9, true) and 1 (0.5, wrong); query 1 predicts 2 (0.7, wrong) and 3 (0.6, true), and misses 5.
    labels = np.array([[1, 4], [2, 3]])
    scores = np.array([[0.5, 0.9], [0.7, 0.6]], np.float32)
    truth = matrix([[4], [3, 5]], 6)
    # The pool is 4 2 3 1: precision 1 at the first place and 2/3 at the third, of three positives.
    assert evaluate_predictions(labels, scores, truth, measures=measures_of("gap"))["gap@20"] == pytest.approx(
        100 * (1 + 2 / 3) / 3
    )
    # With the first prediction of each query alone, nothing of query 1 is a hit.
    assert evaluate_predictions(labels, scores, truth, measures=measures_of("gap@1"))["gap@1"] == pytest.approx(100 / 3)


def test_places_without_a_prediction_are_not_in_the_pool_and_unknown_labels_are() -> None:
    truth, measures = matrix([[0], [1]], 2), measures_of("gap")
    scores = np.array([[0.9, 0.3], [0.8, 0.2]], np.float32)
    for filler, expected in ((NO_PREDICTION, 100.0), (UNKNOWN_LABEL, 100 * (1 / 3 + 2 / 4) / 2)):
        labels = np.array([[filler, 0], [filler, 1]])
        assert evaluate_predictions(labels, scores, truth, measures=measures)["GAP@20"] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_other_metrics_match_their_definitions(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for k in (1, 5, 12):
        queries, columns, label_count = (int(generator.integers(1, high)) for high in (30, 25, 30))
        labels = generator.integers(-2, label_count, (queries, columns))
        scores = generator.choice(np.float32([-np.inf, -1.5, -0.0, 0.0, 0.25, np.inf]), labels.shape)
        truth = csr_matrix(generator.random((queries, label_count)) < generator.choice([0.02, 0.2, 0.7]))
        size = int(generator.integers(0, 2 * queries))
        pairs = np.stack([generator.integers(0, queries, size), generator.integers(0, label_count, size)], axis=1)
        measures = measures_of("mrr,map,f1,rprec", k)
        found = evaluate_predictions(labels, scores, truth, filter=pairs, measures=measures)
        removed = [set(pairs[pairs[:, 0] == query, 1].tolist()) for query in range(queries)]
        positives = [set(truth[query].indices.tolist()) - removed[query] for query in range(queries)]
        rankings = [slow_ranking(labels[q].tolist(), scores[q].tolist(), removed[q]) for q in range(queries)]
        assert found.values == pytest.approx(slow_ranking_metrics(rankings, positives, k), rel=1e-12, abs=1e-12)


def test_what_queries_add_has_each_metric_as_its_mean() -> None:
    generator = np.random.default_rng(3)
    labels, scores = generator.integers(-2, 30, (40, 25)), generator.random((40, 25), dtype=np.float32)
    truth = csr_matrix(generator.random((40, 30)) < 0.1)
    found = evaluate_predictions(
        labels,
        scores,
        truth,
        training_counts=generator.integers(0, 90, 30),
        training_queries=100,
        measures=measures_of(",".join(METRICS), [1, 5]),
    )
    values = found.query_values()
    assert list(values) == list(found.values)
    assert {"PSP@5", "PSnDCG@1", "RPrec", "GAP@20"} <= set(values)
    for name, of_queries in values.items():
        assert len(of_queries.of_queries) == 40
        assert of_queries.of_queries.mean() == pytest.approx(found[name], rel=1e-12)
    hits = [bool(truth[query, row[0]]) for query, row in enumerate(found.pairs.labels)]
    assert values["P@1"].of_queries.tolist() == [100.0 * hit for hit in hits]


def test_measures_by_name() -> None:
    def titles(*arguments: object) -> list[str]:
        return [measure.title for measure in measures_of(*arguments)]  # type: ignore[arg-type]

    assert titles() == [
        *("P@1", "P@3", "P@5", "nDCG@1", "nDCG@3", "nDCG@5"),
        *("PSP@1", "PSP@3", "PSP@5", "PSnDCG@1", "PSnDCG@3", "PSnDCG@5"),
        *("R@10", "R@100"),
    ]
    assert titles("P, recall", [10, 1, 10]) == ["P@1", "P@10", "R@1", "R@10"]
    assert titles(["ndcg", "recall@7"], 2) == ["nDCG@2", "R@7"]
    assert titles("mrr,map,f1,rprec,gap") == ["MRR@10", "MAP@100", "F1@1", "F1@3", "F1@5", "RPrec", "GAP@20"]
    assert titles("rprec,gap,gap@50", [1, 5]) == ["RPrec", "GAP@20", "GAP@50"]
    assert titles(None, 5) == ["P@5", "nDCG@5", "PSP@5", "PSnDCG@5", "R@5"]
    assert Measure("rprec", 1).depth(17) == 17


@pytest.mark.parametrize(
    ("metrics", "k", "error", "message"),
    [
        ("precison", None, ConfigError, "There is no metric 'precison'; choose one of p, ndcg"),
        ("ndgc", 1, ConfigError, "Did you mean 'ndcg'?"),
        (" , ", None, InputError, "Name at least one metric: p, ndcg"),
        ("p@0", None, InputError, "p@0 has a k that is not an integer from 1; write p@5"),
        ("p@x", None, InputError, "p@x has a k"),
        ("rprec@3", None, InputError, "The metric 'rprec' has no k"),
        ("p", [], InputError, "integers from 1, not \\[\\]"),
        ("p", [1.5], InputError, "integers from 1, not \\[1.5\\]"),
        ("p", True, InputError, "integers from 1, not \\[True\\]"),
    ],
)
def test_wrong_measures(metrics: str, k: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        measures_of(metrics, k)  # type: ignore[arg-type]


def test_a_value_that_was_not_computed() -> None:
    labels, scores = predict([0])
    found = evaluate_predictions(labels, scores, matrix([[0]], 2), measures=measures_of("p,psp", 1))
    assert found["p@1"] == 100
    with pytest.raises(InputError, match=r"There is no 'PSP@1' among the metrics; there are P@1"):
        found["PSP@1"]  # there are no training counts


def test_only_metrics_that_need_training_queries_are_refused_without_them() -> None:
    labels, scores = predict([0])
    with pytest.raises(InputError, match=r"PSP@1, PSnDCG@1 need training queries, .* and there are none"):
        evaluate_predictions(labels, scores, matrix([[0]], 2), measures=measures_of("psp,psndcg", 1))


def test_a_metric_is_added_by_its_name() -> None:
    def first_is_zero(pairs: RankedPairs, k: int) -> QueryValues:
        return QueryValues.mean_of((pairs.labels[:, 0] == 0).astype(np.float64) * k)

    with members_restored():
        METRICS.register("zero", Metric("Zero", "whether the first label is 0", first_is_zero))
        labels, scores = predict([0], [1])
        found = evaluate_predictions(labels, scores, matrix([[0], [0]], 2), measures=measures_of("zero", [1, 2]))
    assert found.values == {"Zero@1": 50.0, "Zero@2": 100.0}
