"""What is asked for: metrics at their k, from names such as "ndcg" or "recall@10"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from xmc.errors import InputError
from xmc.metrics.definitions import METRICS, Metric

__all__ = ["Measure", "check_ks", "measures_of", "usual_measures"]


@dataclass(frozen=True)
class Measure:
    """A metric at k: `Measure("ndcg", 5)`."""

    name: str
    k: int

    @property
    def metric(self) -> Metric:
        """The metric; ConfigError for a name that none has."""
        return METRICS[self.name]

    @property
    def title(self) -> str:
        """What its value is called.

        >>> Measure("ndcg", 5).title, Measure("rprec", 1).title
        ('nDCG@5', 'RPrec')
        """
        metric = self.metric
        return metric.title if metric.every_positive else f"{metric.title}@{self.k}"

    def depth(self, positives: int) -> int:
        """The number of places that it looks at, where no query has more than `positives` positives."""
        return max(1, positives) if self.metric.every_positive else self.k


def usual_measures(ks: Sequence[int], recall_ks: Sequence[int]) -> tuple[Measure, ...]:
    """The metrics that are computed where none is asked for: recall at `recall_ks`, the others at `ks`."""
    usual = [name for name, metric in METRICS.items() if metric.usual]
    return tuple(Measure(name, k) for name in usual for k in check_ks(recall_ks if name == "recall" else ks))


def measures_of(
    metrics: str | Iterable[str] | None = None, k: int | Iterable[int] | None = None
) -> tuple[Measure, ...]:
    """The measures that are asked for, each once.

    metrics: names of METRICS, in upper or lower case, separated by commas, or a list of them; "recall@10" is one at a k of its
    own. None for the usual ones. k: of all metrics without one of their own; None for the k that each metric has where none is
    asked for. GAP is at 20 whatever `k` says, as its definition is; "gap@50" is another one.

    Raises ConfigError for a name that no metric has, InputError for a k that is not a positive integer.

    >>> [measure.title for measure in measures_of("p,recall@10,gap", k=[1, 5])]
    ['P@1', 'P@5', 'R@10', 'GAP@20']
    """
    ks = None if k is None else check_ks([k] if isinstance(k, int) else list(k))
    names = [name for name, metric in METRICS.items() if metric.usual]
    if metrics is not None:
        given = (
            metrics.split(",") if isinstance(metrics, str) else [part for name in metrics for part in name.split(",")]
        )
        names = [name.strip().lower() for name in given if name.strip()]
        if not names:
            raise InputError(f"Name at least one metric: {', '.join(METRICS)}.")
    measures = [measure for name in names for measure in _measures(name, ks)]
    return tuple(dict.fromkeys(measures))


def check_ks(ks: Sequence[int]) -> tuple[int, ...]:
    """The k in ascending order, each once; InputError for none, or one that is not an integer from 1."""
    if not ks or any(isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1 for k in ks):
        raise InputError(f"The k of a metric are one or more integers from 1, not {list(ks)}.")
    return tuple(sorted({int(k) for k in ks}))


def _measures(name: str, ks: tuple[int, ...] | None) -> list[Measure]:
    name, at, own = name.partition("@")
    metric = METRICS[name]
    if at:
        if metric.every_positive:
            raise InputError(f"The metric {name!r} has no k: it looks at as many places as a query has positives.")
        if not re.fullmatch(r"[0-9]{1,9}", own) or int(own) < 1:
            raise InputError(f"The metric {name}@{own} has a k that is not an integer from 1; write {name}@5, say.")
        return [Measure(name, int(own))]
    fixed = metric.own_k or metric.every_positive or ks is None
    return [Measure(name, k) for k in (metric.ks if fixed or ks is None else ks)]
