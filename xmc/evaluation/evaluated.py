"""The result of an evaluation, of a retriever or of written predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from xmc.evaluation.judged import JudgedMetrics
from xmc.evaluation.predicted import Predicted
from xmc.metrics import Metrics

__all__ = ["Evaluated", "Evaluation", "WrittenEvaluation"]


@dataclass(frozen=True)
class Evaluated:
    """Metrics in percent over the queries of a split; `evaluated["P@1"]` is one of them.

    uids: Arrow strings, of the queries. judged: metrics of what people have judged; None where they have not. predicted: what
    the metrics are of, where it was asked to be kept.
    """

    metrics: Metrics
    queries: int
    uids: pa.ChunkedArray = field(compare=False, repr=False, kw_only=True)
    judged: JudgedMetrics | None = field(default=None, kw_only=True)
    predicted: Predicted | None = field(default=None, compare=False, repr=False, kw_only=True)

    @property
    def values(self) -> dict[str, float]:
        """Metrics by name, such as "P@1" and "nDCG@5", in percent."""
        return self.metrics.values

    def __getitem__(self, name: str) -> float:
        """A metric by its name in upper or lower case, in percent; InputError for one that was not computed."""
        return self.metrics[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        judged = {} if self.judged is None else {"judged": self.judged.to_dict()}
        return {**self.metrics.to_dict(), "queries": self.queries, **judged}


@dataclass(frozen=True)
class Evaluation(Evaluated):
    """Metrics of a retriever in percent, and how long its predictions took.

    queries_per_second: texts to ranked labels, with encoding and search. stages: the further stages of the search, such as
    "memory" and "rerank".
    """

    seconds: float
    stages: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """How long it took, and the metrics."""
        return f"<{type(self).__name__}: {self.seconds:.1f} s; {self.metrics!r}>"

    @property
    def queries_per_second(self) -> float:
        """Queries divided by seconds."""
        return self.queries / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        stages = {"stages": list(self.stages)} if self.stages else {}
        return {
            **super().to_dict(),
            "seconds": self.seconds,
            "queries_per_second": self.queries_per_second,
            **stages,
        }


@dataclass(frozen=True)
class WrittenEvaluation(Evaluated):
    """Metrics of written predictions in percent, over all queries of the split.

    longest: number of labels of the longest list. missing: number of queries without a list, which count as not answered.
    unknown: number of lists of queries that the split does not have, which are left out. filtered: number of labels that the
    filter takes from a list at most.
    """

    longest: int
    missing: int
    unknown: int
    filtered: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        counts = {name: getattr(self, name) for name in ("longest", "missing", "unknown", "filtered")}
        return {**super().to_dict(), **counts}
