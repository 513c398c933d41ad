"""The tables of a canonical directory: their columns, reading, content, and the matrices that lists of labels stand for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix

from xmc.arrays import Mask
from xmc.data.evidence import EVIDENCE
from xmc.data.targets import first_contradiction, split_relevance
from xmc.errors import DataError, InputError, boundary
from xmc.storage.arrow import read_columns
from xmc.storage.content_hash import ContentHash
from xmc.storage.exchange import restore
from xmc.storage.files import atomic_file, read_json
from xmc.storage.fingerprints import sha256_file

__all__ = [
    "FILES",
    "FILTER_SCHEMA",
    "FORMATS",
    "GROUP",
    "GROUPED_SCHEMA",
    "LABEL_SCHEMA",
    "QUERY_SCHEMA",
    "RUN_COLUMNS",
    "TableContent",
    "file_entry",
    "filter_table",
    "format_of",
    "judged_pairs",
    "labelled_queries",
    "names_read",
    "read_properties",
    "read_table",
    "with_columns",
    "write_properties",
]

FILES = "files"
"""Key of dataset.json: the files that are read, see xmc.data.listing."""
FORMATS = (1, 2, 3)
"""Versions of dataset.json that are read. Format 2 is format 1 with at least one label in a column `rejected`; format 3 is what
has evidence beside labels (xmc.data.evidence), or a query that is not labelled."""
LABEL_SCHEMA = pa.schema([("uid", pa.string()), ("text", pa.string())])
RUN_COLUMNS = ("id", "xmc_scale", "xmc_examples")
"""Columns that the labels of a run have of their own, so that further columns of a data set's labels have other names."""
QUERY_SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("text", pa.string()),
        ("labels", pa.list_(pa.int32())),
        ("relevance", pa.list_(pa.float32())),
        ("rejected", pa.list_(pa.int32())),
        ("labelled", pa.bool_()),
    ]
)
GROUP = "group"
"""A further column of queries, strings: queries of one value stay together where a data set is split."""
GROUPED_SCHEMA = QUERY_SCHEMA.append(pa.field(GROUP, pa.string()))
OPTIONAL = ("relevance", "rejected", "labelled")
"""Columns that a file may lack; they are null then."""
FILTER_SCHEMA = pa.schema([("query", pa.int32()), ("label", pa.int32())])


class TableContent:
    """The digests of a table's content, fed in batches, by the names under which a data set's fingerprint has them.

    The columns `rejected` and `labelled` have digests of their own, and none where the one holds no label and the other says
    `false` of no query: data sets without them keep the fingerprint that they had before there were such columns.
    """

    def __init__(self, stem: str) -> None:
        """stem: the name of the table's file without its ending."""
        self.stem = stem
        self.format = 1
        """What dataset.json names at least: the lowest format whose readers understand all of the table."""
        self._content = ContentHash()
        self._apart = {name: ContentHash() for name in _FORMAT_OF_COLUMN}
        self._says: set[str] = set()

    def update(self, table: pa.Table | pa.RecordBatch) -> None:
        """Add rows."""
        self._content.update(table.select([name for name in table.schema.names if name not in self._apart]))
        self.format = max(self.format, format_of(self.stem, table))
        for name, (column, says) in _columns_apart(table).items():
            self._apart[name].update(pa.table({name: column}))
            self._says |= {name} if says else set()

    def digests(self) -> dict[str, str]:
        """By name, such as "queries-train", and "queries-train/rejected" where there is a rejected pair."""
        apart = {f"{self.stem}/{name}": self._apart[name].hexdigest() for name in sorted(self._says)}
        return {self.stem: self._content.hexdigest(), **apart}


_FORMAT_OF_COLUMN = {"rejected": 2, "labelled": 3}
"""Columns of queries with digests of their own, and the format that what they say needs."""


def format_of(stem: str, table: pa.Table | pa.RecordBatch) -> int:
    """The lowest format whose readers understand all that a table says. stem: the name of its file without its ending."""
    if stem.partition("-")[0] in EVIDENCE:
        return 3
    return max([1, *(_FORMAT_OF_COLUMN[name] for name, (_, says) in _columns_apart(table).items() if says)])


def _columns_apart(table: pa.Table | pa.RecordBatch) -> dict[str, tuple[pa.Array | pa.ChunkedArray, bool]]:
    """The columns with digests of their own, as they are hashed, and whether each says anything of any row."""
    columns: dict[str, tuple[pa.Array | pa.ChunkedArray, bool]] = {}
    if "rejected" in table.schema.names:
        column = table["rejected"]
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        columns["rejected"] = column, any(len(chunk.flatten()) for chunk in chunks)
    if "labelled" in table.schema.names:
        labelled = pc.fill_null(table["labelled"], True)
        columns["labelled"] = labelled, pc.all(labelled).as_py() is False
    return columns


def read_table(file: Path, schema: pa.Schema, further: bool = False) -> pa.Table:
    """The columns of `schema`, those of OPTIONAL null where the file lacks them; with `further` all other columns after
    them.

    Raises DataError for a file that cannot be read as such a table.
    """
    what = f"{file} cannot be read as {', '.join(schema.names)}"
    with boundary(DataError, what):
        return with_columns(read_columns(file, kind=DataError, what=what), schema, further)


def with_columns(table: pa.Table, schema: pa.Schema, further: bool = False) -> pa.Table:
    """As `read_table`, of a table in memory; KeyError for a column that it lacks, pa.ArrowException for one of another type."""
    for name in OPTIONAL:
        if name in schema.names and name not in table.schema.names:
            table = table.append_column(name, pa.nulls(len(table), schema.field(name).type))
    others = [field for field in table.schema if field.name not in schema.names] if further else []
    wanted = pa.schema([*schema, *others])
    return table.select(wanted.names).cast(wanted)


def filter_table(pairs: npt.NDArray[np.integer]) -> pa.Table:
    """The table of filter pairs (query row, label row), int [m, 2]."""
    array = np.asarray(pairs, np.int32).reshape(-1, 2)
    return pa.table({"query": array[:, 0], "label": array[:, 1]}, schema=FILTER_SCHEMA)


def read_properties(directory: Path) -> dict[str, Any] | None:
    """What dataset.json says; None where there is no such file. Raises DataError for one that is not of a known format."""
    file = directory / "dataset.json"
    restore(directory)
    if not file.exists():
        return None
    properties = read_json(file, DataError)
    kinds = {"format": int, "name": str, "labels": int, "splits": dict}
    known = isinstance(properties, dict) and all(isinstance(properties.get(key), kinds[key]) for key in kinds)
    if not known or properties["format"] not in FORMATS:
        raise DataError(
            f"{file} is not of format {', '.join(map(str, FORMATS[:-1]))} or {FORMATS[-1]} with {', '.join(kinds)}; "
            f"convert the data set again with `xmc data convert`."
        )
    return dict(properties)


def names_read(splits: Iterable[str]) -> list[str]:
    """Names of all files that are read of a data set with these splits, whether they are there or not."""
    names = ["labels.parquet", "images-labels.arrow"]
    for split in splits:
        names += [f"{kind}-{split}.parquet" for kind in ("queries", "filter", "judged", *EVIDENCE)]
        names.append(f"images-{split}.arrow")
    return names


def file_entry(file: Path) -> dict[str, Any]:
    """What dataset.json lists of a file."""
    return {"size": file.stat().st_size, "sha256": sha256_file(file)}


def write_properties(
    directory: Path, properties: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write dataset.json, with a list of the files that are read.

    files: the list; None for all files that are there, which are hashed.
    """
    if files is None:
        names = (name for name in sorted(names_read(properties["splits"])) if (directory / name).is_file())
        files = {name: file_entry(directory / name) for name in names}
    described = {**properties, FILES: files}
    with atomic_file(directory / "dataset.json") as temporary:
        temporary.write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def judged_pairs(table: pa.Table, labels: int, where: str) -> tuple[csr_matrix, csr_matrix]:
    """The positives, CSR float32 [n, labels], and the rejected pairs, CSR bool, of a table of queries.

    Raises DataError, which begins with `where`, for labels out of range, twice in a query, or positive and rejected,
    and for relevances that do not fit or are negative or no numbers.
    """
    column = _one_array(table["labels"])
    if column.null_count:
        raise DataError(f"{where} has {column.null_count} rows whose labels are null; an empty list is meant.")
    relevance = _matrix(column, labels, where, "label", _relevances(table, column, where))
    try:
        positives, rejected = split_relevance(relevance)
    except InputError as error:
        raise DataError(f"{where}: {error}") from error
    listed = _one_array(table["rejected"])
    if listed.null_count < len(listed):
        pairs = _matrix(listed, labels, where, "rejected label", None)
        rejected = pairs if not rejected.nnz else csr_matrix(rejected + pairs)
        rejected.sum_duplicates()
    contradiction = first_contradiction(positives, rejected)
    if contradiction is not None:
        row, label = contradiction
        raise DataError(f"{where}, row {row}: label {label} is positive and rejected; take it out of one of the lists.")
    return positives, rejected


def labelled_queries(table: pa.Table, positives: csr_matrix, rejected: csr_matrix, where: str) -> Mask | None:
    """Whether anything is known of the labels of each query of a table, bool [n]; None where all are labelled.

    Raises DataError, which begins with `where`, for a query that is not labelled and has labels all the same.
    """
    labelled = np.asarray(pc.fill_null(table["labelled"], True).to_numpy(), bool)
    if labelled.all():
        return None
    contradictions = np.flatnonzero(~labelled & (np.diff(positives.indptr) + np.diff(rejected.indptr) > 0))
    if len(contradictions):
        raise DataError(
            f"{where}, row {contradictions[0]}: the query has labels, but labelled says that nothing is known of it; empty its "
            f"lists, or set labelled to true."
        )
    return labelled


def _relevances(table: pa.Table, column: pa.Array, where: str) -> npt.NDArray[np.float32]:
    """The relevance of each label of the lists, one after the other, float32 [nnz]."""
    lengths = _lengths(column)
    relevance = _one_array(table["relevance"])
    values = np.ones(int(lengths.sum()), np.float32)
    given = np.repeat(relevance.is_valid().to_numpy(zero_copy_only=False), lengths)  # a null row is all ones
    _refuse_nulls(relevance, where, "relevance")
    flat = relevance.flatten().to_numpy()
    if len(flat) != given.sum():
        raise DataError(f"{where}: labels and relevance have lists of different lengths.")
    values[given] = flat
    return values


def _matrix(column: pa.Array, labels: int, where: str, what: str, values: npt.NDArray[np.float32] | None) -> csr_matrix:
    """Lists of label rows, null for none, as CSR [n, labels]; `values` None for a bool matrix."""
    indptr = np.concatenate([[0], np.cumsum(_lengths(column))])
    _refuse_nulls(column, where, what)
    indices = column.flatten().to_numpy()
    if len(indices) and not 0 <= indices.min() <= indices.max() < labels:
        bad = int(np.flatnonzero((indices < 0) | (indices >= labels))[0])
        row = int(np.searchsorted(indptr, bad, side="right")) - 1
        raise DataError(f"{where}, row {row}: {what} {indices[bad]} is outside of the {labels} labels.")
    data = np.ones(len(indices), bool) if values is None else values
    matrix = csr_matrix((data, indices, indptr), shape=(len(column), labels))
    if not matrix.has_sorted_indices:
        matrix = matrix.sorted_indices()
    if not matrix.has_canonical_format:
        raise DataError(f"{where} has a query with the same {what} twice.")
    return matrix


def _refuse_nulls(column: pa.Array, where: str, what: str) -> None:
    """Raise DataError for a null in a list."""
    flat = column.flatten()
    if flat.null_count:
        place = int(np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0])
        row = int(np.searchsorted(np.cumsum(_lengths(column)), place, side="right"))
        raise DataError(f"{where}, row {row}: a {what} is null; take it out of its list.")


def _lengths(column: pa.Array) -> npt.NDArray[np.int64]:
    """Number of items of each list, int64 [n]; a null has none."""
    return np.asarray(pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False), np.int64)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    """The column in one chunk."""
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        return combined.chunk(0) if combined.num_chunks else pa.array([], column.type)
    return combined
