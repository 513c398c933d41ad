"""What a label index is: maximum inner product search over label embeddings that carry the user's own ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xmc.data.embeddings import read_embeddings, write_embeddings
from xmc.errors import InputError, StoreError
from xmc.store import atomic_directory, read_manifest

__all__ = ["Embeddings", "ExcludedRows", "Ids", "LabelIndex"]

Embeddings = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64] | npt.NDArray[np.object_]
Rows = npt.NDArray[np.int64]
ExcludedRows = tuple[Rows, Rows]
"""Rows that a query must not get, as compressed rows: indptr [n + 1], rows [nnz]."""


class LabelIndex(ABC):
    """Top-k labels by inner product. Ids are all int64 or all strings, and unique; labels may be added and removed.

    The base class owns ids, embeddings, validation and storage; an index supplies the search over row numbers.
    """

    kind: ClassVar[str]

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.ids: Ids = np.zeros(0, np.int64)
        self.embeddings: Embeddings = np.zeros((0, dimension), np.float32)
        self._row_of: dict[int | str, int] | None = None

    def build(self, embeddings: Embeddings, ids: Sequence[int | str] | Ids) -> None:
        """Replace the content by `embeddings` [L, D] float32 with `ids` [L].

        Raises InputError for shapes that do not fit, NaN or infinite embeddings (with their rows), ids of mixed type or
        given twice, or too few labels for the index's design.
        """
        embeddings, new = self._checked(embeddings, ids)
        self._build(embeddings)
        self.embeddings, self.ids, self._row_of = embeddings, new, None

    def add(self, embeddings: Embeddings, ids: Sequence[int | str] | Ids) -> None:
        """Add labels; raises InputError as `build`, and for an id that is there already. An index never built is built."""
        embeddings, new = self._checked(embeddings, ids)
        if not len(new):
            return
        if len(self) and new.dtype != self.ids.dtype:
            raise InputError(
                f"New ids are of type {_type_name(new)}, those in the index of type {_type_name(self.ids)}."
            )
        present = [label for label in new.tolist() if label in self._rows_by_id()]
        if present:
            raise InputError(f"The label id {present[0]!r} is in the index already ({len(present)} such ids).")
        together = np.concatenate([self.embeddings, embeddings])
        self._add(together, first=len(self))
        self.ids = np.concatenate([self.ids, new]) if len(self) else new
        self.embeddings, self._row_of = together, None

    def remove(self, ids: Sequence[int | str] | Ids) -> None:
        """Remove labels; raises InputError for an id that is not there."""
        rows_by_id = self._rows_by_id()
        given = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
        missing = [label for label in given if label not in rows_by_id]
        if missing:
            raise InputError(f"The label id {missing[0]!r} is not in the index ({len(missing)} such ids).")
        kept = np.ones(len(self), bool)
        kept[[rows_by_id[label] for label in given]] = False
        remaining = self.embeddings[kept]
        self._remove(remaining, kept)
        self.embeddings, self.ids, self._row_of = remaining, self.ids[kept], None

    def search(
        self, queries: Embeddings, k: int, exclude: Sequence[Sequence[int | str]] | None = None
    ) -> tuple[Ids, Embeddings]:
        """The k best labels of each query [n, D]: ids [n, k'] and float32 scores [n, k'], best first, k' = min(k, labels).

        `exclude[i]` are ids never returned for query i; ids that are not in the index are ignored. Where fewer than k'
        labels are found for a query, its row ends with id -1 (or "") and score -inf.

        Raises InputError for another dimension, NaN or infinite queries, k < 0, or `exclude` of another length.
        """
        queries = self._matrix(queries, "queries")
        if k < 0:
            raise InputError(f"k must be at least 0, but is {k}.")
        k = min(k, len(self))
        excluded = self._excluded(exclude, len(queries))
        if len(queries) and k:
            scores, rows = self._search(queries, k, excluded)
        else:
            scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        found: Any = np.full(rows.shape, "" if self.ids.dtype == object else -1, self.ids.dtype)
        found[rows >= 0] = self.ids[rows[rows >= 0]]
        return found, scores

    def __len__(self) -> int:
        """Number of labels."""
        return len(self.ids)

    def save(self, directory: str | Path) -> None:
        """Write the index as a stored directory: whole or not at all."""
        with atomic_directory(
            directory, "index", index=self.kind, dimension=self.dimension, **self._settings()
        ) as path:
            write_embeddings(self.embeddings, path / "embeddings.arrow")
            table = pa.table(
                {"id": pa.array(self.ids.tolist(), pa.string() if self.ids.dtype == object else pa.int64())}
            )
            with pa.OSFile(str(path / "ids.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            self._save(path)

    @classmethod
    def load(cls, directory: str | Path) -> LabelIndex:
        """Read an index written by `save`; StoreError names a file that is missing, truncated or changed."""
        directory = Path(directory)
        settings = read_manifest(directory, "index")["properties"]
        if settings.get("index") != cls.kind:
            raise StoreError(f"{directory} holds an index of the kind {settings.get('index')!r}, not {cls.kind!r}.")
        index = cls._restored(settings)
        index.embeddings = read_embeddings(directory / "embeddings.arrow")
        try:
            column = pa.ipc.open_file(pa.memory_map(str(directory / "ids.arrow"))).read_all()["id"]
        except (OSError, KeyError, pa.ArrowException) as error:
            raise StoreError(f"{directory / 'ids.arrow'} cannot be read: {error}") from error
        strings = pa.types.is_string(column.type)
        index.ids = np.array(column.to_pylist(), object) if strings else column.to_numpy().astype(np.int64)
        if index.embeddings.shape != (len(index.ids), index.dimension):
            raise StoreError(
                f"{directory} has {len(index.ids)} ids, but embeddings of shape {index.embeddings.shape} "
                f"where the dimension is {index.dimension}."
            )
        index._load(directory)
        return index

    # Each change is made by the index first, and by the base class when that raised nothing: a refused change changes nothing.

    @abstractmethod
    def _build(self, embeddings: Embeddings) -> None:
        """Replace everything."""

    @abstractmethod
    def _add(self, embeddings: Embeddings, first: int) -> None:
        """All embeddings, of which the rows from `first` on are new."""

    @abstractmethod
    def _remove(self, embeddings: Embeddings, kept: npt.NDArray[np.bool_]) -> None:
        """The embeddings that are left: the old rows where `kept`, in their order."""

    @abstractmethod
    def _search(self, queries: Embeddings, k: int, exclude: ExcludedRows | None) -> tuple[Embeddings, Rows]:
        """Scores and rows [n, k] of checked input, 0 < k <= labels; -inf and -1 where too few are left."""

    def _settings(self) -> dict[str, Any]:
        """JSON values from which `_restored` makes an empty index of the same design."""
        return {}

    @classmethod
    def _restored(cls, settings: dict[str, Any]) -> LabelIndex:
        return cls(int(settings["dimension"]))

    def _save(self, directory: Path) -> None:  # noqa: B027
        """Write what the index holds besides ids and embeddings."""

    def _load(self, directory: Path) -> None:  # noqa: B027
        """Read what `_save` wrote."""

    def _checked(self, embeddings: Embeddings, ids: Sequence[int | str] | Ids) -> tuple[Embeddings, Ids]:
        embeddings = self._matrix(embeddings, "label embeddings")
        array = _as_ids(ids)
        if len(array) != len(embeddings):
            raise InputError(f"{len(array)} ids were given for {len(embeddings)} label embeddings.")
        values, counts = np.unique(array, return_counts=True)
        if (counts > 1).any():
            raise InputError(f"The label id {values[counts > 1].tolist()[0]!r} is given more than once.")
        return embeddings, array

    def _matrix(self, values: Embeddings, name: str) -> Embeddings:
        try:
            matrix = np.ascontiguousarray(values, np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"The {name} are not a matrix of numbers: {error}.") from error
        if matrix.ndim != 2 or matrix.shape[1] != self.dimension:
            raise InputError(f"The {name} must have the shape (n, {self.dimension}), but have {matrix.shape}.")
        finite = np.isfinite(matrix).all(axis=1)
        if not finite.all():
            bad = np.flatnonzero(~finite)
            shown = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
            raise InputError(f"The {name} are NaN or infinite in {len(bad)} rows: {shown}.")
        return matrix

    def _excluded(self, exclude: Sequence[Sequence[int | str]] | None, queries: int) -> ExcludedRows | None:
        if exclude is None:
            return None
        if len(exclude) != queries:
            raise InputError(f"exclude has {len(exclude)} lists of ids for {queries} queries.")
        rows_by_id = self._rows_by_id()
        rows = [sorted({rows_by_id[label] for label in labels if label in rows_by_id}) for labels in exclude]
        indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return indptr, np.array([row for found in rows for row in found], np.int64)

    def _rows_by_id(self) -> dict[int | str, int]:
        if self._row_of is None:
            self._row_of = {label: row for row, label in enumerate(self.ids.tolist())}
        return self._row_of


def _as_ids(ids: Sequence[int | str] | Ids) -> Ids:
    values = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if all(isinstance(value, str) for value in values) and values:
        array = np.empty(len(values), object)
        array[:] = values
        return array
    if all(isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in values):
        try:
            return np.array(values, np.int64)
        except OverflowError as error:
            raise InputError("A label id does not fit into 64 bits; use strings.") from error
    kinds = sorted({type(value).__name__ for value in values})
    raise InputError(f"Label ids must be all int64 or all strings, but are of type {', '.join(kinds)}.")


def _type_name(ids: Ids) -> str:
    return "string" if ids.dtype == object else "int64"
