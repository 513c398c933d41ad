"""Metrics of the queries whose predictions people have judged, where every label that is right counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from xmc.data.judgements import Judgements
from xmc.data.targets import Targets
from xmc.evaluation.predicted import Predicted
from xmc.metrics import KS, Measure, evaluate_predictions
from xmc.metrics.truth import pairs_of

__all__ = ["JudgedMetrics", "judge", "judged_depth"]


@dataclass(frozen=True)
class JudgedMetrics:
    """What judgements say of predictions, in percent.

    A label is right for a query where it is judged correct, or where it is true and not judged unclear or wrong. A label that
    is judged unclear is taken out of a query's predictions: it neither helps nor hurts.

    queries: number of queries with a judged pair; all values are over them. without: number of these for which no label is
    right, which "top-1" and "RPrec" leave out. pairs: number of judged pairs by judgement. values: "top-1", the share of
    queries whose first label is right; "RPrec", R-precision: the share of right labels among the first m of a query with m
    right labels; "judged@k", the share of the first k labels that are judged at all. What cannot be told from lists that are
    too short is left out.
    """

    queries: int
    without: int
    pairs: dict[str, int]
    values: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"queries": self.queries, "without": self.without, "pairs": self.pairs, "values": self.values}


def judged_depth(judgements: Judgements, targets: Targets) -> int:
    """The number of places of a ranking that `judge` looks at, at most."""
    rows = judgements.queries
    if not len(rows):
        return 1
    judged, asked = judgements.take(rows), targets.take(rows)
    left_out = np.diff(csr_matrix(asked.excluded + judged.unclear).indptr)
    return max(1, int((np.diff(judged.valid(asked).indptr) + left_out).max()))


def judge(
    predicted: Predicted, judgements: Judgements, targets: Targets, ks: Sequence[int] = KS, complete: bool = False
) -> JudgedMetrics:
    """Metrics of the judged queries. predicted, judgements, targets: of the same queries.

    ks: of the coverage. complete: predictions are as many as `judged_depth`, or all that there are.
    """
    rows = judgements.queries
    judged, asked = judgements.take(rows), targets.take(rows)
    labels, scores = predicted.labels[rows], predicted.scores[rows]
    columns = labels.shape[1]
    valid = judged.valid(asked)
    with_valid = np.flatnonzero(np.diff(valid.indptr))
    values = {}
    if len(with_valid):
        measures = {"top-1": Measure("p", 1), "RPrec": Measure("rprec", 1)}
        if not complete and columns < judged_depth(judgements, targets):
            del measures["RPrec"]
        found = evaluate_predictions(
            labels[with_valid],
            scores[with_valid],
            valid[with_valid],
            filter=pairs_of(csr_matrix(asked.excluded + judged.unclear)[with_valid]),
            measures=list(measures.values()),
        )
        values = {name: found[measure.title] for name, measure in measures.items()}
    coverage = [Measure("p", k) for k in ks if complete or k <= columns]
    if len(rows) and coverage:
        found = evaluate_predictions(labels, scores, judged.all, filter=pairs_of(asked.excluded), measures=coverage)
        values |= {f"judged@{measure.k}": found[measure.title] for measure in coverage}
    return JudgedMetrics(len(rows), len(rows) - len(with_valid), judgements.counts, values)
