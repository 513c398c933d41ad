"""What a data set says of pairs beside its lists of labels: evidence by kind, and which queries are labelled at all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import csr_matrix, issparse
from typing_extensions import Self

from xmc.arrays import Mask
from xmc.data.constructors import DatasetConstructors
from xmc.data.evidence import EVIDENCE, CandidateSets, Evidence, LabelBags, Votes, evidence_tables
from xmc.data.lists import filter_of_pairs, labelled_column
from xmc.data.splits import Split
from xmc.data.tables import QUERY_SCHEMA
from xmc.errors import InputError

__all__ = ["EvidencedDataset"]

Kind = TypeVar("Kind", bound=Evidence)


class EvidencedDataset(DatasetConstructors):
    """The part of xmc.data.dataset.Dataset that is about evidence."""

    def votes(self, split: str = "train") -> Votes | None:
        """What weak sources say of pairs of a split, from votes-SPLIT.parquet; None where they say nothing.

        Raises DataError for an unknown split, and for a vote that does not fit its queries and the labels.
        """
        return self._evidence(Votes, split)

    def candidate_sets(self, split: str = "train") -> CandidateSets | None:
        """Sets of labels, some of them true of a query of a split, from sets-SPLIT.parquet; None where there are none.

        Raises DataError as `votes`.
        """
        return self._evidence(CandidateSets, split)

    def label_bags(self, split: str = "train") -> LabelBags | None:
        """Bags of queries of a split with counts of labels, from bags-SPLIT.parquet; None where there are none.

        Raises DataError as `votes`.
        """
        return self._evidence(LabelBags, split)

    def evidence(self, split: str = "train") -> dict[str, Evidence]:
        """All evidence of a split, by kind, as in xmc.data.evidence.EVIDENCE; without kinds that there is none of.

        Raises DataError as `votes`.
        """
        found = {name: self._evidence(kind, split) for name, kind in EVIDENCE.items()}
        return {name: evidence for name, evidence in found.items() if evidence is not None}

    def labelled(self, split: str = "train") -> Mask | None:
        """Whether anything is known of the labels of each query of a split, bool [n]; None where all are labelled."""
        return self.split(split).labelled

    def with_evidence(
        self,
        split: str,
        *,
        positives: csr_matrix | None = None,
        rejected: csr_matrix | None = None,
        labelled: Sequence[bool] | Mask | None = None,
        excluded: npt.NDArray[np.integer] | None = None,
        votes: Votes | None = None,
        candidate_sets: CandidateSets | None = None,
        label_bags: LabelBags | None = None,
    ) -> Self:
        """The data set, in memory, with other evidence of a split; what is None stays, and what is empty goes.

        positives: relevances above 0, CSR [n, L]. rejected: CSR [n, L] of the pairs that were judged not relevant. labelled:
        whether anything is known of each query, bool [n]. excluded: pairs (query, label) that count nowhere, int [m, 2], which
        the split's filter is then.

        Raises InputError for matrices and lists of another type or size, and evidence of another kind; DataError for an unknown
        split, a pair that is positive and rejected, labels of a query that is not labelled, and as `votes`.
        """
        known = self.split(split)
        tables = {stem: self._table(stem, schema) for stem, schema in self._stems()}
        queries = tables[f"queries-{split}"]
        shape = (len(queries), known.positives.shape[1])
        if positives is not None or rejected is not None:
            columns = _label_columns(known, positives, rejected, shape)
            for name, column in columns.items():
                queries = queries.set_column(queries.column_names.index(name), QUERY_SCHEMA.field(name), column)
        if labelled is not None:
            place = queries.column_names.index("labelled")
            column = labelled_column(split, labelled, len(queries))
            queries = queries.set_column(place, QUERY_SCHEMA.field("labelled"), column)
        tables[f"queries-{split}"] = queries
        if excluded is not None:
            tables[f"filter-{split}"] = filter_of_pairs(split, excluded)
        given = {"votes": votes, "candidate_sets": candidate_sets, "label_bags": label_bags}
        for argument, evidence in given.items():
            tables |= evidence_tables(argument, {split: evidence})
        return self._again(tables, self.splits)

    def _evidence(self, kind: type[Kind], split: str) -> Kind | None:
        """Evidence of one kind; None where there is no table, or no row in it."""
        self._check_split(split)
        stem = f"{kind.kind}-{split}"
        cached = self._evidence_cache.get(stem)
        if cached is None and self._has(stem):
            sizes = self.properties["splits"][split], self._number_of_labels()
            cached = kind.from_table(self._table(stem, kind.schema), *sizes, f"{self._where()}: {stem}.parquet")
            self._evidence_cache[stem] = cached
        return cached if isinstance(cached, kind) and len(cached) else None

    properties: dict[str, Any]
    _evidence_cache: dict[str, Evidence]

    @property
    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""

    @abstractmethod
    def split(self, name: str) -> Split:
        """The queries of a split."""

    @abstractmethod
    def _where(self) -> str:
        """What messages about tables begin with."""

    @abstractmethod
    def _check_split(self, name: str) -> None: ...

    @abstractmethod
    def _number_of_labels(self) -> int: ...

    @abstractmethod
    def _has(self, stem: str) -> bool: ...

    @abstractmethod
    def _table(self, stem: str, schema: pa.Schema) -> pa.Table: ...

    @abstractmethod
    def _stems(self) -> list[tuple[str, pa.Schema]]: ...

    @abstractmethod
    def _again(self, tables: Mapping[str, pa.Table], splits: Sequence[str], **further: Any) -> Self:
        """A data set in memory like this one, of other tables. further: properties."""


def _label_columns(
    known: Split, positives: csr_matrix | None, rejected: csr_matrix | None, shape: tuple[int, int]
) -> dict[str, pa.Array]:
    """The columns of a table of queries that say these positives and rejected pairs; None for those that are known."""
    given = {"positives": known.positives if positives is None else positives}
    given["rejected"] = known.rejected if rejected is None else rejected
    for name, matrix in given.items():
        if not issparse(matrix):
            raise InputError(
                f"{name} must be a sparse matrix, but is of type {type(matrix).__name__}; scipy.sparse.csr_matrix makes one "
                f"of an array."
            )
        if tuple(matrix.shape) != shape:
            raise InputError(
                f"{name} must be of {shape[0]} queries and {shape[1]} labels, but is of {tuple(matrix.shape)}."
            )
    if not bool((given["positives"].data > 0).all()):
        raise InputError(
            "positives must store values above 0 alone; take pairs that are none out with eliminate_zeros()."
        )
    positives, rejected = (csr_matrix(matrix).sorted_indices() for matrix in given.values())
    types = {name: QUERY_SCHEMA.field(name).type.value_type for name in ("labels", "relevance", "rejected")}
    ends = pa.array(positives.indptr, pa.int32())
    labels = pa.ListArray.from_arrays(ends, pa.array(positives.indices, types["labels"]))
    relevance = pa.array(np.asarray(positives.data, np.float32), types["relevance"])
    of_rejected = pa.array(rejected.indices, types["rejected"])
    lists = {
        "labels": labels,
        "relevance": pa.ListArray.from_arrays(ends, relevance),
        "rejected": pa.ListArray.from_arrays(pa.array(rejected.indptr, pa.int32()), of_rejected),
    }
    if bool((positives.data == 1).all()):
        lists["relevance"] = pa.nulls(shape[0], QUERY_SCHEMA.field("relevance").type)
    return lists
