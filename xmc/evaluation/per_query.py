"""Metrics of each query: a table in a Parquet file, bootstrap intervals over queries, and the paired test of two tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

from xmc.errors import DataError, InputError, StoreError, boundary
from xmc.evaluation.evaluated import Evaluated
from xmc.metrics.resampling import PairedDifference, bootstrap_intervals, paired_differences
from xmc.metrics.values import QueryValues
from xmc.storage.arrow import column_names, read_columns
from xmc.storage.files import atomic_file
from xmc.storage.parquet import write_parquet

__all__ = ["QueryMetrics"]

UID = "uid"


@dataclass(frozen=True)
class QueryMetrics:
    """What each of n queries adds to each metric.

    name: where the numbers are from, for messages. uids: Arrow strings [n]. values: by the metric's name.
    """

    name: str
    uids: pa.ChunkedArray
    values: Mapping[str, QueryValues]

    @classmethod
    def from_evaluated(cls, name: str, evaluated: Evaluated) -> QueryMetrics:
        """Of the queries of an evaluation."""
        return cls(name, evaluated.uids, evaluated.metrics.query_values())

    @classmethod
    def load(cls, path: str | Path) -> QueryMetrics:
        """What `save` wrote, or a Parquet file of others: a column uid, and a column of finite numbers, in percent, a metric.

        Raises DataError for a file that is none.
        """
        what = f"{path} cannot be read as metrics of queries, uid and numbers"
        with boundary(DataError, what):
            table = read_columns(Path(path), kind=DataError, what=what)
            uids = table[UID].cast(pa.string())
            columns = {name: table[name].cast(pa.float64()).to_numpy() for name in table.column_names if name != UID}
        for name, column in columns.items():
            if not np.isfinite(column).all():
                row = int(np.flatnonzero(~np.isfinite(column))[0])
                raise DataError(f"{path}, row {row}: {name} is not a finite number; write 0 for a query without a hit.")
        if not columns or not len(uids):
            raise DataError(f"{path} has no metric of any query; `xmc evaluate --per-query` writes such a file.")
        return cls(str(path), uids, {name: QueryValues.mean_of(column / 100) for name, column in columns.items()})

    @staticmethod
    def is_file(path: str | Path) -> bool:
        """Whether a path is a Parquet file with a column uid and none that is called labels, as predictions have."""
        path = Path(path)
        if path.suffix != ".parquet" or not path.is_file():
            return False
        try:
            names = column_names(path, kind=DataError)
        except DataError:
            return False
        return UID in names and "labels" not in names

    def __len__(self) -> int:
        return len(self.uids)

    @property
    def means(self) -> dict[str, float]:
        """Each metric over all queries, in percent."""
        return {name: values.value for name, values in self.values.items()}

    def table(self) -> pa.Table:
        """uid, and a float64 column a metric: what each query adds to it, in percent, so that its mean is the metric."""
        columns = {name: values.of_queries for name, values in self.values.items()}
        return pa.table({UID: self.uids, **columns})

    def save(self, path: str | Path) -> None:
        """Write `table` as Parquet. InputError for a name without .parquet, StoreError where it cannot be written."""
        path = Path(path)
        if path.suffix != ".parquet":
            raise InputError(
                f"Metrics of queries are written as Parquet; name the file {path.stem}.parquet, not {path.name}."
            )
        try:
            with atomic_file(path) as temporary:
                write_parquet(self.table(), temporary, compression="zstd")
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error}.") from error

    def intervals(self, samples: int = 1000, confidence: float = 0.95, seed: int = 0) -> dict[str, tuple[float, float]]:
        """The bootstrap interval of each metric, see `bootstrap_intervals`."""
        return bootstrap_intervals(self.values, samples=samples, confidence=confidence, seed=seed)

    def against(
        self, other: QueryMetrics, samples: int = 1000, confidence: float = 0.95, seed: int = 0
    ) -> dict[str, PairedDifference]:
        """By how much these metrics are better than those of `other`, of the same queries, see `paired_differences`.

        Raises DataError where the queries are not the same, or no metric is.
        """
        values = other._in_order_of(self)
        if not set(values) & set(self.values):
            raise DataError(
                f"{self.name} and {other.name} share no metric: {', '.join(self.values)} against {', '.join(values)}; "
                f"choose the same --metrics and --k."
            )
        return paired_differences(self.values, values, samples=samples, confidence=confidence, seed=seed)

    def _in_order_of(self, other: QueryMetrics) -> Mapping[str, QueryValues]:
        """The values, query by query as in `other`."""
        if self.uids.equals(other.uids):
            return self.values
        for table in (self, other):
            if pc.count_distinct(table.uids).as_py() < len(table):
                raise DataError(f"{table.name} has the same query uid twice, so that queries cannot be matched by uid.")
        order = pc.index_in(other.uids, value_set=self.uids)
        if order.null_count or len(self) != len(other):
            raise DataError(
                f"{other.name} has {len(other):,} queries and {self.name} {len(self):,}, of them "
                f"{len(other) - order.null_count:,} in both; compare on the same split."
            )
        rows = order.to_numpy()
        return {name: QueryValues(values.gains[rows], values.ideals[rows]) for name, values in self.values.items()}
