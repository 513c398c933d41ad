"""Metrics against a slow implementation written from the definitions, and against numbers worked out by hand."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from slow_metrics import KS, RECALL_KS, matrix, predict, slow_macro, slow_metrics, slow_ranking

from xmc.errors import InputError
from xmc.metrics import (
    NO_PREDICTION,
    UNKNOWN_LABEL,
    Metrics,
    evaluate_predictions,
    propensities,
    propensity_parameters,
)

# ------------------------------------------------------------------------------------------- the slow implementation


@pytest.mark.parametrize("seed", range(40))
def test_random_ragged_predictions_match_the_definitions(seed: int) -> None:
    generator = np.random.default_rng(seed)
    queries, columns, label_count = (int(generator.integers(1, high)) for high in (40, 25, 30))
    labels = generator.integers(-2, label_count, (queries, columns))
    # Few different scores make ties; -0.0 and the infinities are legal scores.
    scores = generator.choice(np.float32([-np.inf, -1.5, -0.0, 0.0, 1e-40, 0.25, 0.250001, np.inf]), labels.shape)
    truth = csr_matrix(generator.random((queries, label_count)) < generator.choice([0.02, 0.2, 0.7]))
    size = int(generator.integers(0, 2 * queries))
    filtered = np.stack([generator.integers(0, queries, size), generator.integers(0, label_count, size)], axis=1)
    counts = generator.integers(0, 100, label_count)

    metrics = evaluate_predictions(
        labels,
        scores,
        truth,
        training_counts=counts,
        training_queries=120,
        propensity=(0.6, 2.6),
        filter=filtered,
        ks=KS,
        recall_ks=RECALL_KS,
    )

    removed: list[set[int]] = [set() for _ in range(queries)]
    for query, label in filtered.tolist():
        removed[query].add(label)
    positives = [set(truth[query].indices.tolist()) - removed[query] for query in range(queries)]
    rankings = [slow_ranking(labels[q].tolist(), scores[q].tolist(), removed[q]) for q in range(queries)]
    weights = np.array([1 + (math.log(120) - 1) * 3.6**0.6 * math.exp(-0.6 * math.log(c + 2.6)) for c in counts])
    assert metrics.values == pytest.approx(slow_metrics(rankings, positives, weights), rel=1e-12, abs=1e-12)
    assert metrics.macro == pytest.approx(slow_macro(rankings, positives, label_count), rel=1e-12, abs=1e-12)
    assert metrics.queries_without_positives == sum(not row for row in positives)
    assert metrics.queries == queries
    for k in KS:
        for name in (f"P@{k}", f"PSP@{k}"):
            assert sum(part.values[name] for part in metrics.deciles) == pytest.approx(metrics.values[name])
    assert sum(part.positives for part in metrics.deciles) == sum(map(len, positives))
    assert sum(part.labels for part in metrics.deciles) == label_count


def test_many_rows_and_columns_cross_the_blocks_of_the_kernel() -> None:
    generator = np.random.default_rng(7)
    labels = generator.integers(0, 300, (1100, 130))
    scores = generator.random(labels.shape, dtype=np.float32)
    truth = csr_matrix(generator.random((1100, 300)) < 0.02)
    metrics = evaluate_predictions(labels, scores, truth, ks=KS, recall_ks=RECALL_KS)
    rankings = [slow_ranking(labels[query].tolist(), scores[query].tolist(), set()) for query in range(1100)]
    positives = [set(truth[query].indices.tolist()) for query in range(1100)]
    assert metrics.values == pytest.approx(slow_metrics(rankings, positives, None), rel=1e-12)


# ------------------------------------------------------------------------------------------------- worked out by hand


def test_precision_ndcg_and_recall_by_hand() -> None:
    # Query 0: positives {1, 4}, ranking 4 0 1.  Query 1: positives {2, 3, 5, 6}, ranking 5 2 7.
    labels, scores = predict([4, 0, 1], [5, 2, 7])
    values = evaluate_predictions(labels, scores, matrix([[1, 4], [2, 3, 5, 6]], 8), ks=(1, 3), recall_ks=(2,)).values
    assert values["P@1"] == pytest.approx(100)
    # P@3: (2/3 + 2/3) / 2.
    assert values["P@3"] == pytest.approx(200 / 3)
    # Discounts 1, 1/log2(3), 1/2. Query 0: (1 + 1/2) / (1 + 1/log2(3)), since it has two positives;
    # query 1: (1 + 1/log2(3)) / (1 + 1/log2(3) + 1/2), since it has more than three.
    second = 1 / math.log2(3)
    assert values["nDCG@3"] == pytest.approx(100 * (1.5 / (1 + second) + (1 + second) / (1.5 + second)) / 2)
    # R@2: query 0 finds 1 of 2, query 1 finds 2 of 4.
    assert values["R@2"] == pytest.approx(50)


def test_propensity_scored_metrics_by_hand() -> None:
    # A = 1, B = 1 and N = 7: C = (log 7 - 1) · 2 = 1.8918.
    # Label 0 has 1 training query, w = 1 + C/2 = 1.9459; label 1 has 3, w = 1 + C/4 = 1.4730.
    scale = (math.log(7) - 1) * 2
    rare, frequent = 1 + scale / 2, 1 + scale / 4
    assert propensities(np.array([1, 3]), 7, 1, 1) == pytest.approx([1 / rare, 1 / frequent])
    # Query 0 has both labels and gets the frequent one first; query 1 has the frequent one and gets the rare one first.
    labels, scores = predict([1, 0], [0, 1])
    values = evaluate_predictions(
        labels,
        scores,
        matrix([[0, 1], [1]], 2),
        training_counts=np.array([1, 3]),
        training_queries=7,
        propensity=(1, 1),
        ks=(1, 2),
        recall_ks=(1,),
    ).values
    # At 1 we have `frequent` + 0; the best is `rare` + `frequent`.
    assert values["PSP@1"] == values["PSnDCG@1"] == pytest.approx(100 * frequent / (rare + frequent))
    # At 2 all is found, so PSP@2 is 100 although the order is not the best.
    assert values["PSP@2"] == pytest.approx(100)
    # PSnDCG@2: with d = 1/log2(3), query 0 has (frequent + d·rare) / (1 + d) of (rare + d·frequent) / (1 + d), and
    # query 1, with one positive and so the normaliser 1, has d·frequent of frequent.
    d = 1 / math.log2(3)
    got = (frequent + d * rare) / (1 + d) + d * frequent
    best = (rare + d * frequent) / (1 + d) + frequent
    assert values["PSnDCG@2"] == pytest.approx(100 * got / best)


def test_a_tie_goes_to_the_lower_label_wherever_it_stands() -> None:
    labels = np.array([[3, 1, 2], [2, 3, 1]])
    scores = np.full((2, 3), 0.5, np.float32)
    values = evaluate_predictions(labels, scores, matrix([[1], [1]], 4), ks=(1,), recall_ks=(1,)).values
    assert values["P@1"] == 100
    values = evaluate_predictions(labels, scores, matrix([[3], [3]], 4), ks=(1,), recall_ks=(2,)).values
    assert values == {"P@1": 0, "nDCG@1": 0, "R@2": 0}


def test_predictions_may_come_in_any_order() -> None:
    labels = np.array([[0, 1, 2]])
    scores = np.float32([[-3, 2, -1]])
    for k, found in ((1, 0), (2, 0), (3, 100)):
        assert evaluate_predictions(labels, scores, matrix([[0]], 3), ks=(1,), recall_ks=(k,)).values[f"R@{k}"] == found


def test_filtered_pairs_leave_predictions_and_truth() -> None:
    # Label 0 is query 0 itself: without it the ranking is 2 1, and label 0 no longer counts as a positive.
    labels, scores = predict([0, 2, 1], [0, 2, 1])
    truth = matrix([[0, 2], [0]], 3)
    pairs = np.array([[0, 0], [0, 0], [1, 1]])
    metrics = evaluate_predictions(labels, scores, truth, filter=pairs, ks=(1, 2), recall_ks=(1,))
    assert metrics.values["P@1"] == 100
    # Query 0: 2 is right, 1 is wrong; query 1 keeps 0 (its positive) and 2.
    assert metrics.values["P@2"] == 50
    assert metrics.values["R@1"] == 100
    assert truth.nnz == 3, "the caller's truth must not change"


def test_a_query_without_positives_scores_zero_and_is_counted() -> None:
    labels, scores = predict([0], [1], [1], [0])
    truth = matrix([[0], [], [1], [0]], 2)
    metrics = evaluate_predictions(labels, scores, truth, filter=np.array([[3, 0]]), ks=(1,), recall_ks=(1,))
    # Query 1 never had a positive and query 3 loses its only one to the filter: 2 of 4 are right.
    assert metrics.queries_without_positives == 2
    assert metrics.values == {"P@1": 50, "nDCG@1": 50, "R@1": 50}


def test_no_positives_at_all_is_zero_and_not_nan() -> None:
    labels, scores = predict([0])
    metrics = evaluate_predictions(
        labels, scores, matrix([[]], 2), training_counts=np.array([3, 0]), training_queries=9
    )
    assert set(metrics.values.values()) | set(metrics.macro.values()) == {0.0}
    assert metrics.queries_without_positives == 1


def test_a_repeated_label_counts_once_at_its_best_score() -> None:
    labels, scores = predict([0, 0, 0, 1])
    values = evaluate_predictions(labels, scores, matrix([[0, 1]], 3), ks=(1, 2), recall_ks=(2,)).values
    # The ranking is 0 1, not 0 0 0 1.
    assert values["P@2"] == values["R@2"] == 100


def test_k_beyond_the_predictions_and_the_labels() -> None:
    labels, scores = predict([1], [0])
    values = evaluate_predictions(labels, scores, matrix([[1], [1]], 2), ks=(5,), recall_ks=(100,)).values
    assert values == {"P@5": pytest.approx(10), "nDCG@5": 50, "R@100": 50}


def test_no_prediction_is_skipped_and_an_unknown_label_holds_its_rank() -> None:
    scores = np.float32([[0.9, 0.8, 0.7, 0.6]])
    truth = matrix([[0]], 2)
    for fill, found in ((NO_PREDICTION, 100), (UNKNOWN_LABEL, 0)):
        values = evaluate_predictions(np.array([[fill, fill, 0, 1]]), scores, truth, ks=(1,), recall_ks=(3,)).values
        assert values["P@1"] == found
        assert values["R@3"] == 100
    nothing = np.full((1, 3), NO_PREDICTION)
    assert evaluate_predictions(nothing, np.full((1, 3), np.nan, np.float32), truth).values["P@1"] == 0
    assert evaluate_predictions(np.zeros((1, 0), np.int64), np.zeros((1, 0), np.float32), truth).values["P@1"] == 0


def test_truth_counts_entries_greater_than_zero() -> None:
    labels, scores = predict([0, 1, 2])
    stored = csr_matrix((np.float32([0.3, 0.0, 2.0]), np.array([0, 1, 2]), np.array([0, 3])), shape=(1, 3))
    unsorted_twice = csr_matrix((np.ones(3), np.array([2, 0, 2]), np.array([0, 3])), shape=(1, 3))
    for truth in (stored, unsorted_twice):
        assert evaluate_predictions(labels, scores, truth, ks=(3,)).values["P@3"] == pytest.approx(200 / 3)


# ------------------------------------------------------------------------------------------- deciles, macro averages


def test_deciles_hold_equal_parts_of_the_training_pairs() -> None:
    # 100 training pairs: 50 labels with one, five with ten. The rare half fills deciles 1-5, ten labels each; each
    # frequent label fills one of 6-10; three labels are not in training.
    counts = np.array([0] * 3 + [1] * 50 + [10] * 5)
    truth = matrix([[0, 3], [57]], 58)
    labels, scores = predict([3, 57], [57, 0])
    deciles = evaluate_predictions(
        labels, scores, truth, training_counts=counts, training_queries=100, ks=(1, 2), recall_ks=(2,)
    ).deciles
    assert [part.decile for part in deciles] == list(range(11))
    assert [part.labels for part in deciles] == [3] + [10] * 5 + [1] * 5
    assert [part.training_counts for part in deciles] == [(0, 0)] + [(1, 1)] * 5 + [(10, 10)] * 5
    # Label 0 (unseen) is a positive and not found; label 3 is in the first decile, label 57 in the last.
    assert deciles[0].positives == 1
    nothing = {"P@1": 0, "P@2": 0, "PSP@1": 0, "PSP@2": 0, "R@2": 0}
    assert deciles[0].values == deciles[5].values == nothing
    # Each found pair is one of 2 queries · k places, and counts by its inverse propensity, of which the best ranking has
    # labels 0 and 57 in the first places, and label 3 in the second.
    unseen, rare, frequent = 1 / propensities(np.array([0, 1, 10]), 100, 0.55, 1.5)
    for part, weight in ((deciles[1], rare), (deciles[10], frequent)):
        expected = {"P@1": 50, "P@2": 25, "R@2": 100}
        expected["PSP@1"] = 100 * weight / (unseen + frequent)
        expected["PSP@2"] = 100 * weight / (unseen + rare + frequent)
        assert part.values == pytest.approx(expected)


def test_macro_averages_by_hand() -> None:
    # Label 0 is positive in queries 0 and 1 and predicted in all three: precision 2/3, recall 1, F1 4/5.
    # Label 1 is positive in query 2 and never predicted: 0, 0, 0. Label 2 has no positive and is left out.
    labels, scores = predict([0], [0], [0])
    macro = evaluate_predictions(labels, scores, matrix([[0], [0], [1]], 3), ks=(1,)).macro
    assert macro == {"P@1": pytest.approx(100 / 3), "R@1": pytest.approx(50), "F1@1": pytest.approx(40)}


# -------------------------------------------------------------------------------------------------------- propensities


def test_propensity_parameters_by_family() -> None:
    assert propensity_parameters("LF-Wikipedia-500K") == (0.5, 0.4)
    assert propensity_parameters("LF-WikiTitles-500K") == (0.5, 0.4)
    assert propensity_parameters("WikiLSHTC-325K") == (0.5, 0.4)
    assert propensity_parameters("lf-amazontitles-1.3m") == (0.6, 2.6)
    assert propensity_parameters("AmazonCat-13K") == (0.6, 2.6)
    for name in ("EURLex-4K", "LF-WikiSeeAlso-320K", "LF-WikiSeeAlsoTitles-320K", "Wiki10-31K", "wordnet-8k"):
        assert propensity_parameters(name) == (0.55, 1.5)


def test_propensities_rise_with_frequency_and_stay_in_the_unit_interval() -> None:
    values = propensities(np.arange(0, 1000), 1000, 0.55, 1.5)
    assert values.dtype == np.float64
    assert np.all(np.diff(values) > 0)
    assert 0 < values[0] < values[-1] < 1
    assert np.all(propensities(np.array([0, 1, 2]), 2, 0.55, 1.5) == 1), "log 2 < 1 leaves no meaning to C"


def test_propensities_refuse_impossible_counts() -> None:
    with pytest.raises(InputError, match="Label 1 has 11 training queries"):
        propensities(np.array([3, 11]), 10, 0.55, 1.5)
    with pytest.raises(InputError, match="Label 0 has -1 training queries"):
        propensities(np.array([-1, 1]), 10, 0.55, 1.5)
    with pytest.raises(InputError, match="at least 1, not 0"):
        propensities(np.array([0]), 0, 0.55, 1.5)
    with pytest.raises(InputError, match="must be positive"):
        propensities(np.array([0]), 5, 0.55, 0.0)


# ---------------------------------------------------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([[0, 4], [1, 0]])}, "Query 0 has the predicted label 4, outside of the 3 labels"),
        ({"labels": np.array([[0, 1], [-3, 0]])}, "Query 1 has the predicted label -3"),
        ({"labels": np.array([[0.0, 1.0], [2.0, 0.0]])}, "Labels must be integers"),
        ({"labels": np.array([[0], [1]])}, r"\[2, 1\] and scores \[2, 2\]"),
        ({"scores": np.float32([[1, 0], [np.nan, 0]])}, "Query 1 has the score NaN for the label 1"),
        ({"scores": np.array([[1, 0], [1, 0]])}, "scores floats"),
        ({"truth": matrix([[0]], 3)}, "predictions for 2 queries and a truth for 1"),
        ({"filter": np.array([[0, 0], [2, 0]])}, r"Filter pair 1 is \(query 2, label 0\)"),
        ({"filter": np.array([[0, 3]])}, r"Filter pair 0 is \(query 0, label 3\)"),
        ({"filter": np.array([[0, 1, 2]])}, r"pairs of integers \[m, 2\]"),
        ({"training_counts": np.array([1, 1, 1])}, "belong together"),
        ({"training_queries": 3}, "belong together"),
        ({"training_counts": np.array([1, 1]), "training_queries": 3}, "2 training counts for the 3 labels"),
        ({"ks": ()}, "integers from 1"),
        ({"recall_ks": (0,)}, "integers from 1"),
    ],
)
def test_wrong_input_is_a_sentence(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "labels": np.array([[0, 1], [1, 0]]),
        "scores": np.float32([[1, 0], [1, 0]]),
        "truth": matrix([[0], [1]], 3),
    }
    with pytest.raises(InputError, match=message):
        evaluate_predictions(**{**arguments, **change})  # type: ignore[arg-type]


def test_no_queries_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        evaluate_predictions(np.zeros((0, 2), np.int64), np.zeros((0, 2), np.float32), csr_matrix((0, 3)))


# ------------------------------------------------------------------------------------------------------------ all of it


def test_to_dict_is_json() -> None:
    labels, scores = predict([0, 1])
    metrics = evaluate_predictions(
        labels, scores, matrix([[1]], 2), training_counts=np.array([1, 2]), training_queries=10
    )
    assert isinstance(metrics, Metrics)
    again = json.loads(json.dumps(metrics.to_dict()))
    assert again["values"] == metrics.values
    assert again["deciles"][0]["labels"] == metrics.deciles[0].labels
    assert list(metrics.values) == [
        *("P@1", "P@3", "P@5", "nDCG@1", "nDCG@3", "nDCG@5"),
        *("PSP@1", "PSP@3", "PSP@5", "PSnDCG@1", "PSnDCG@3", "PSnDCG@5"),
        *("R@10", "R@100"),
    ]


def test_metrics_do_not_import_torch() -> None:
    code = "import sys, xmc.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
