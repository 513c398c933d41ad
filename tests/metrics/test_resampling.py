"""Bootstrap intervals and the paired test, against scipy's and against cases that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.sparse import csr_matrix

from xmc.errors import InputError
from xmc.metrics import evaluate_predictions, measures_of
from xmc.metrics.resampling import bootstrap_intervals, paired_differences
from xmc.metrics.values import PooledValues, QueryValues


def random_values(seed: int, queries: int = 300) -> dict[str, QueryValues]:
    generator = np.random.default_rng(seed)
    labels, scores = generator.integers(0, 40, (queries, 20)), generator.random((queries, 20), dtype=np.float32)
    truth = csr_matrix(np.random.default_rng(99).random((queries, 40)) < 0.1)
    counts = np.arange(40)
    measures = measures_of("p,psp,map,gap", 5)
    return evaluate_predictions(
        labels, scores, truth, training_counts=counts, training_queries=100, measures=measures
    ).query_values()


def test_intervals_are_those_of_scipy() -> None:
    values = random_values(0)
    found = bootstrap_intervals(values, samples=4000, confidence=0.9, seed=1)
    for name in ("P@5", "MAP@5"):
        of_queries = values[name].of_queries
        expected = stats.bootstrap(
            (of_queries,), np.mean, n_resamples=4000, confidence_level=0.9, method="percentile", random_state=2
        )
        spread = of_queries.std() / np.sqrt(len(of_queries))
        assert found[name] == pytest.approx(tuple(expected.confidence_interval), abs=0.12 * spread)
    for name, (low, high) in found.items():
        assert low < values[name].value < high


def test_intervals_of_ratios_and_of_pools_are_computed_anew_for_each_sample() -> None:
    """PSP is a ratio of sums, GAP one ranking of all queries: both against a loop over samples, and the same by its seed."""
    values = random_values(1, 30)
    generator = np.random.default_rng(0)
    counts = np.array([np.bincount(generator.integers(0, 30, 30), minlength=30) for _ in range(50)], np.float64)
    psp, gap = values["PSP@5"], values["GAP@20"]
    expected = [100 * (row @ psp.gains) / (row @ psp.ideals) for row in counts]
    assert psp.resampled(counts) == pytest.approx(expected, rel=1e-12)
    assert isinstance(gap, PooledValues)
    for row, found in zip(counts, gap.resampled(counts), strict=True):
        place = hits = total = 0.0
        for query, true in zip(gap.queries, gap.true, strict=True):
            place += row[query]
            hits += row[query] * true
            total += row[query] * true * hits / max(place, 1)
        assert found == pytest.approx(100 * total / (row @ gap.ideals), rel=1e-12)
    assert gap.resampled(np.ones((1, 30))) == pytest.approx([gap.value], rel=1e-12)
    assert bootstrap_intervals(values, seed=3) == bootstrap_intervals(values, seed=3)
    assert bootstrap_intervals(values, seed=3) != bootstrap_intervals(values, seed=4)


def test_p_values_are_those_of_scipy() -> None:
    first, second = random_values(2), random_values(3)
    found = paired_differences(first, second, samples=4000, seed=0)
    for name in ("P@5", "PSP@5", "MAP@5"):
        pair = (first[name].of_queries, second[name].of_queries)
        expected = stats.permutation_test(
            pair,
            lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples",
            n_resamples=4000,
            vectorized=True,
            random_state=1,
        )
        assert found[name].difference == pytest.approx(expected.statistic)
        assert found[name].p_value == pytest.approx(expected.pvalue, abs=0.04)
        assert found[name].low < found[name].difference < found[name].high


def test_a_better_ranking_is_seen_and_itself_is_not() -> None:
    worse = QueryValues.mean_of(np.tile([0.0, 1.0, 0.0, 1.0], 50))
    better = QueryValues.mean_of(np.tile([0.0, 1.0, 1.0, 1.0], 50))
    found = paired_differences({"x": better, "y": worse}, {"x": worse, "y": worse, "z": worse}, samples=999)
    assert list(found) == ["x", "y"]
    assert found["x"].difference == 25
    assert found["x"].low > 15
    assert found["x"].p_value == 1 / 1000
    same = found["y"]
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_the_smallest_p_value_of_few_queries() -> None:
    """With two queries one of four exchanges, and its mirror image, is as extreme: p is about a half, never less."""
    values = {"x": QueryValues.mean_of(np.array([1.0, 1.0]))}
    none = {"x": QueryValues.mean_of(np.zeros(2))}
    assert paired_differences(values, none, samples=10_000)["x"].p_value == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 99}, "must be from 100 to 1,000,000, but is 99"),
        ({"confidence": 1.0}, "must be between 0 and 1, such as 0.95, but is 1.0"),
        ({"confidence": 95.0}, "but is 95.0"),
    ],
)
def test_wrong_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bootstrap_intervals(random_values(0, 5), **options)  # type: ignore[arg-type]
