"""How sure metrics are: bootstrap intervals over queries, and a paired test of two rankings of the same queries.

Both draw from a seed. The interval is the percentile bootstrap (Efron 1979): n queries are drawn from the n with replacement.
The test is Fisher's randomisation test, which Smucker et al. (CIKM 2007) recommend for retrieval: were the two rankings equally
good, each query's two values could as well be exchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmc.errors import InputError
from xmc.metrics.values import QueryValues
from xmc.progress import tracked

__all__ = ["PairedDifference", "bootstrap_intervals", "paired_differences", "require_samples"]

Float64s = npt.NDArray[np.float64]
CELLS_AT_ONCE = 1 << 22
LEAST_SAMPLES, MOST_SAMPLES = 100, 1_000_000
SIGNS_STREAM = 1
"""A random stream of its own for exchanges."""


@dataclass(frozen=True)
class PairedDifference:
    """By how much the first of two rankings is better in a metric, in percentage points.

    low, high: its bootstrap interval. p_value: how often a difference as large, of either sign, comes about where each query's
    two values are exchanged by a coin; at least 1 / (samples + 1).
    """

    difference: float
    low: float
    high: float
    p_value: float


def bootstrap_intervals(
    values: Mapping[str, QueryValues], *, samples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """The interval of each metric, (low, high) in percent, from the same samples of the queries for all.

    Raises InputError for fewer than 100 samples or more than a million, and a confidence that is not between 0 and 1.
    """
    tails = _tails(samples, confidence)
    drawn = _resampled(values, samples, seed)
    return {name: _between(drawn[name], tails) for name in values}


def paired_differences(
    first: Mapping[str, QueryValues],
    second: Mapping[str, QueryValues],
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, PairedDifference]:
    """The difference of each metric that both have, of the same queries in the same order.

    What is exchanged are the values that queries add to a metric (`QueryValues.of_queries`); of GAP, each query's precisions
    stay as they were in the pooled ranking. Raises InputError as `bootstrap_intervals`.
    """
    tails = _tails(samples, confidence)
    names = [name for name in first if name in second]
    drawn_first = _resampled({name: first[name] for name in names}, samples, seed)
    drawn_second = _resampled({name: second[name] for name in names}, samples, seed)
    differences = {name: first[name].of_queries - second[name].of_queries for name in names}
    p_values = _exchanged(differences, samples, seed)
    return {
        name: PairedDifference(
            first[name].value - second[name].value,
            *_between(drawn_first[name] - drawn_second[name], tails),
            p_values[name],
        )
        for name in names
    }


def require_samples(samples: int, confidence: float) -> None:
    """InputError for fewer than 100 samples or more than a million, and a confidence that is not between 0 and 1."""
    if not LEAST_SAMPLES <= samples <= MOST_SAMPLES:
        raise InputError(f"The number of samples must be from {LEAST_SAMPLES} to {MOST_SAMPLES:,}, but is {samples}.")
    if not 0 < confidence < 1:
        raise InputError(f"The confidence must be between 0 and 1, such as 0.95, but is {confidence}.")


def _tails(samples: int, confidence: float) -> tuple[float, float]:
    require_samples(samples, confidence)
    return 50 * (1 - confidence), 50 * (1 + confidence)


def _between(drawn: Float64s, tails: tuple[float, float]) -> tuple[float, float]:
    low, high = np.percentile(drawn, tails)
    return float(low), float(high)


def _resampled(values: Mapping[str, QueryValues], samples: int, seed: int) -> dict[str, Float64s]:
    """Each metric over each sample of the queries, float64 [samples]."""
    drawn: dict[str, Float64s] = {name: np.zeros(samples) for name in values}
    if not values:
        return drawn
    queries = len(next(iter(values.values())).gains)
    generator = np.random.default_rng(seed)
    for rows in _chunks(samples, queries):
        size = len(rows)
        picked = generator.integers(0, queries, (size, queries)) + queries * np.arange(size)[:, None]
        weights = np.bincount(picked.ravel(), minlength=size * queries).reshape(size, queries).astype(np.float64)
        for name, metric in values.items():
            drawn[name][rows] = metric.resampled(weights)
    return drawn


def _exchanged(differences: Mapping[str, Float64s], samples: int, seed: int) -> dict[str, float]:
    """The two-sided p-value of each mean difference under random signs."""
    extreme = dict.fromkeys(differences, 0)
    if not differences:
        return {}
    queries = len(next(iter(differences.values())))
    generator = np.random.default_rng([seed, SIGNS_STREAM])
    for rows in _chunks(samples, queries):
        signs = 2.0 * generator.integers(0, 2, (len(rows), queries), dtype=np.int8) - 1
        for name, of_queries in differences.items():
            found = abs(of_queries.sum())
            sums = np.abs(signs @ of_queries)
            extreme[name] += int(
                np.sum(sums >= found - 1e-9 * max(1.0, found))
            )  # sums in another order round differently
    return {name: (count + 1) / (samples + 1) for name, count in extreme.items()}


def _chunks(samples: int, queries: int) -> Iterator[range]:
    step = max(1, CELLS_AT_ONCE // max(1, queries))
    chunks = (range(first, min(samples, first + step)) for first in range(0, samples, step))
    yield from tracked(chunks, "resampling queries", samples, unit="samples", size=len)
