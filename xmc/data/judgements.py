"""What people say of predicted pairs: `judged-SPLIT.parquet`, pairs by uid that are correct, unclear or wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix

from xmc.cached import cached_property
from xmc.data.targets import Targets, no_pairs
from xmc.errors import DataError
from xmc.metrics.truth import pairs_of, truth_without

__all__ = ["JUDGED_SCHEMA", "JUDGEMENTS", "Judgements", "judged_table"]

JUDGED_SCHEMA = pa.schema([("query", pa.string()), ("label", pa.string()), ("judgement", pa.string())])
JUDGEMENTS = ("correct", "unclear", "wrong")


@dataclass(frozen=True)
class Judgements:
    """What was said of pairs of n queries and L labels: three CSR bool matrices [n, L] that share no pair."""

    correct: csr_matrix
    unclear: csr_matrix
    wrong: csr_matrix

    @classmethod
    def from_table(cls, table: pa.Table, queries: pa.ChunkedArray, labels: pa.ChunkedArray, where: str) -> Judgements:
        """From a table with JUDGED_SCHEMA, which may say the same of a pair twice.

        queries, labels: uids by row. where: what messages begin with. Raises DataError, which names the row, for another word
        than JUDGEMENTS, a uid that is not there, and a pair that two things are said about.
        """
        columns = [pc.index_in(table[name], value_set=uids) for name, uids in (("query", queries), ("label", labels))]
        words = pc.index_in(table["judgement"], value_set=pa.array(JUDGEMENTS))
        for indices, name in (*zip(columns, ("query", "label"), strict=True), (words, "judgement")):
            if indices.null_count:
                row = int(np.flatnonzero(pc.is_null(indices).to_numpy(zero_copy_only=False))[0])
                known = f"it must be {', '.join(JUDGEMENTS)}" if name == "judgement" else f"there is no such {name} uid"
                raise DataError(f"{where}, row {row}: {name} is {table[name][row].as_py()!r}; {known}.")
        rows, places, said = (indices.to_numpy().astype(np.int64) for indices in (*columns, words))
        keys = rows * len(labels) + places
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        contradiction = np.flatnonzero(said != said[first][inverse])
        if len(contradiction):
            row = int(contradiction[0])
            pair = f"query {table['query'][row].as_py()!r} and label {table['label'][row].as_py()!r}"
            one, other = (JUDGEMENTS[said[number]] for number in (first[inverse[row]], row))
            raise DataError(f"{where}, row {row}: the pair of {pair} is {one} and {other}; decide for one.")
        shape = (len(queries), len(labels))
        kept = [first[said[first] == number] for number in range(len(JUDGEMENTS))]
        return cls(*(_pairs(rows[chosen], places[chosen], shape) for chosen in kept))

    def __len__(self) -> int:
        """Number of pairs."""
        return int(self.all.nnz)

    @property
    def counts(self) -> dict[str, int]:
        """Number of pairs by what is said of them."""
        return {name: int(getattr(self, name).nnz) for name in JUDGEMENTS}

    @cached_property
    def all(self) -> csr_matrix:
        """CSR bool [n, L], the pairs that something is said about."""
        pairs = csr_matrix(self.correct + self.unclear + self.wrong)
        pairs.sum_duplicates()
        return pairs

    @cached_property
    def queries(self) -> npt.NDArray[np.int64]:
        """The rows of the queries with a judged pair, ascending."""
        return np.flatnonzero(np.diff(self.all.indptr)).astype(np.int64)

    def take(self, rows: npt.NDArray[np.integer]) -> Judgements:
        """The judgements of the queries `rows`, in that order."""
        return Judgements(self.correct[rows], self.unclear[rows], self.wrong[rows])

    def valid(self, targets: Targets) -> csr_matrix:
        """CSR bool [n, L], every label that is right for a query: judged correct, or true and judged nothing else."""
        return truth_without(
            csr_matrix(targets.truth + self.correct), pairs_of(self.unclear + self.wrong + targets.excluded)
        )


def judged_table(rows: Iterable[tuple[str, str, str]]) -> pa.Table:
    """The table of (query uid, label uid, judgement)."""
    queries, labels, words = zip(*rows, strict=True) if (rows := list(rows)) else ((), (), ())
    return pa.table({"query": list(queries), "label": list(labels), "judgement": list(words)}, schema=JUDGED_SCHEMA)


def _pairs(rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], shape: tuple[int, int]) -> csr_matrix:
    if not len(rows):
        return no_pairs(*shape)
    return csr_matrix((np.ones(len(rows), bool), (rows, columns)), shape=shape)
