"""Means over seeds of what benchmarks/imperfect.py has measured: python benchmarks/imperfect_table.py [--seeds 0 1].

"won back" is (method - plain) / (clean - plain) of the means over the seeds that all three have. Beside it stands the 95%
interval of the mean gain over plain, from 10,000 bootstrap samples of the seeds and of the test queries, drawn together for
both methods.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from imperfect import METHODS, METRICS, baselines, file_of

from xmc.evaluation.per_query import QueryMetrics

__all__ = ["Gain", "gain_of", "rows_of"]

SAMPLES = 10_000
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """Of a metric, in percentage points: a method's mean over plain training, its interval, and the share won back."""

    mean: float
    low: float
    high: float
    won_back: float


def gain_of(method: Values, plain: Values, clean: Values, samples: int = SAMPLES, seed: int = 0) -> Gain:
    """From what each test query adds to a metric, float64 [seeds, n] of each of three methods, in percent.

    won_back is NaN where the clean mean is that of plain.
    """
    differences = method - plain
    seeds, queries = differences.shape
    generator = np.random.default_rng(seed)
    means = np.empty(samples)
    for sample in range(samples):
        weights = np.bincount(generator.integers(0, queries, queries), minlength=queries)
        chosen = np.bincount(generator.integers(0, seeds, seeds), minlength=seeds)
        means[sample] = chosen @ (differences @ weights) / (seeds * queries)
    low, high = np.percentile(means, [2.5, 97.5])
    lost = float(clean.mean() - plain.mean())
    return Gain(
        float(differences.mean()), float(low), float(high), float(differences.mean()) / lost if lost else np.nan
    )


def rows_of(values: Mapping[str, Mapping[int, Mapping[str, Values]]]) -> Iterator[list[str]]:
    """Cells of the table's rows, from each method's values by seed and metric, float64 [n] each."""
    for name, by_seed in values.items():
        seeds = sorted(by_seed)
        means = [f"{np.mean([by_seed[seed][metric].mean() for seed in seeds]):.2f}" for metric in METRICS]
        plain, clean = baselines(name)
        shared = [seed for seed in seeds if seed in values.get(plain, {}) and seed in values.get(clean, {})]
        gains = ["", "", ""]
        if name not in (plain, clean) and shared:
            gains = [_cell(metric, *([values[one][seed][metric] for seed in shared] for one in (name, plain, clean)))
                     for metric in ("P@1", "P@5", "PSP@5")]  # fmt: skip
        yield [name, ", ".join(map(str, seeds)), *means, *gains]


def _cell(metric: str, *methods: Sequence[Values]) -> str:
    gain = gain_of(*(np.stack(values) for values in methods))
    back = "" if np.isnan(gain.won_back) else f", {100 * gain.won_back:.0f}%"
    return f"{gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]{back}"


def main() -> None:
    """Print the table of what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    chosen = parser.parse_args().seeds
    values: dict[str, dict[int, dict[str, Values]]] = {}
    for name in METHODS:
        for seed in (seed for seed in chosen if file_of(name, seed).exists()):
            queries = QueryMetrics.load(file_of(name, seed, ".parquet")).values
            values.setdefault(name, {})[seed] = {metric: queries[metric].of_queries for metric in METRICS}
    heading = [
        "method",
        "seeds",
        *METRICS,
        *(f"gain in {metric} [95%], won back" for metric in ("P@1", "P@5", "PSP@5")),
    ]
    for cells in (heading, ["---"] * len(heading), *rows_of(values)):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
