"""A data set: label table, query splits with their positives, filters. The canonical directory on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix

from xmc.data.huggingface import LabelTexts, read_huggingface
from xmc.data.images.files import content_of, digest_of, dimension_of, read_images, write_images
from xmc.data.images.ragged import RaggedImages
from xmc.errors import DataError, InputError
from xmc.storage.directories import atomic_file
from xmc.storage.fingerprints import ContentHash, fingerprint_of

__all__ = ["FORMAT", "LABEL_SCHEMA", "QUERY_SCHEMA", "ContentHash", "Dataset", "LabelTable", "Split", "pairs_of_rows"]

FORMAT = 1
SHIPPED = Path(__file__).parent / "shipped"
LABEL_SCHEMA = pa.schema([("uid", pa.string()), ("text", pa.string())])
QUERY_SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("text", pa.string()),
        ("labels", pa.list_(pa.int32())),
        ("relevance", pa.list_(pa.float32())),
    ]
)
FILTER_SCHEMA = pa.schema([("query", pa.int32()), ("label", pa.int32())])
Lists = Sequence[Sequence[int]]


@dataclass(frozen=True)
class LabelTable:
    """The L labels, by row: uids and texts, Arrow strings, further columns, perhaps none, and images, None without any."""

    uids: pa.ChunkedArray
    texts: pa.ChunkedArray
    columns: pa.Table
    images: RaggedImages | None = None

    def __len__(self) -> int:
        return len(self.uids)


@dataclass(frozen=True)
class Split:
    """The n queries of a split, by row.

    uids, texts: Arrow strings. positives: scipy CSR float32 [n, L], sorted, the value is the relevance (1 without any).
    images: embeddings of the images of each query; None where the data set has none.
    """

    uids: pa.ChunkedArray
    texts: pa.ChunkedArray
    positives: csr_matrix
    images: RaggedImages | None = None

    def __len__(self) -> int:
        return len(self.uids)

    def take(self, rows: npt.NDArray[np.integer]) -> Split:
        """The queries `rows`, in that order."""
        places = pa.array(rows)
        images = None if self.images is None else self.images.take(rows)
        return Split(self.uids.take(places), self.texts.take(places), self.positives[rows], images)


class Dataset:
    """Queries with their positive labels, by split, and the labels. Columns are read when they are first asked for.

    >>> data = Dataset.load("wordnet-8k")
    >>> len(data.labels), len(data.split("train")), data.splits
    (7488, 11313, ('train', 'test'))
    """

    def __init__(
        self,
        properties: Mapping[str, Any],
        directory: Path | None,
        tables: Mapping[str, pa.Table],
        images: Mapping[str, RaggedImages] | None = None,
    ) -> None:
        """Use `load` or `from_lists`. `tables` by file stem; what is not there is read from `directory`."""
        self.properties = dict(properties)
        self.directory = directory
        self._tables = dict(tables)
        self._images: dict[str, RaggedImages | None] = dict(images or {})
        self._split_cache: dict[str, Split] = {}

    @classmethod
    def load(cls, name_or_directory: str | Path) -> Dataset:
        """Open a shipped data set by name, or a canonical directory. Raises DataError when there is neither."""
        directory = Path(name_or_directory)
        shipped = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
        if str(name_or_directory) in shipped:
            directory = SHIPPED / str(name_or_directory)
        file = directory / "dataset.json"
        try:
            properties = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DataError(
                f"{name_or_directory} is neither a shipped data set ({', '.join(shipped)}) nor a directory with a "
                f"dataset.json; `xmc data convert` makes one from other formats."
            ) from error
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read: {error}") from error
        kinds = {"format": int, "name": str, "labels": int, "splits": dict}
        known = isinstance(properties, dict) and all(isinstance(properties.get(key), kinds[key]) for key in kinds)
        if not known or properties["format"] != FORMAT:
            raise DataError(
                f"{file} is not of format {FORMAT} with {', '.join(kinds)}; "
                f"convert the data set again with `xmc data convert`."
            )
        return cls(properties, directory, {})

    @classmethod
    def from_lists(
        cls,
        name: str,
        label_texts: Sequence[str],
        splits: Mapping[str, tuple[Sequence[str], Lists]],
        *,
        label_uids: Sequence[str] | None = None,
        query_uids: Mapping[str, Sequence[str]] | None = None,
        filters: Mapping[str, npt.NDArray[np.integer]] | None = None,
        propensity: tuple[float, float] = (0.55, 1.5),
        images: Mapping[str, RaggedImages] | None = None,
    ) -> Dataset:
        """Build from lists: for each split the query texts and, for each query, the rows of its labels.

        Uids are row numbers unless given. images: by split, and of "labels". Raises InputError for lengths that do not match
        or label rows out of range.
        """
        uids = [str(row) for row in range(len(label_texts))] if label_uids is None else list(label_uids)
        tables = {"labels": pa.table({"uid": uids, "text": list(label_texts)}, schema=LABEL_SCHEMA)}
        for split, (texts, lists) in splits.items():
            if len(texts) != len(lists):
                raise InputError(f"The split {split!r} has {len(texts)} texts and {len(lists)} lists of labels.")
            own = (query_uids or {}).get(split) or [str(row) for row in range(len(texts))]
            labels = [sorted(set(row)) for row in lists]
            tables[f"queries-{split}"] = pa.table(
                {"uid": own, "text": list(texts), "labels": labels, "relevance": [None] * len(texts)},
                schema=QUERY_SCHEMA,
            )
        for split, pairs in (filters or {}).items():
            array = np.asarray(pairs, np.int32).reshape(-1, 2)
            tables[f"filter-{split}"] = pa.table({"query": array[:, 0], "label": array[:, 1]}, schema=FILTER_SCHEMA)
        return cls._of_tables(name, tables, list(splits), propensity, images)

    @classmethod
    def from_huggingface(
        cls,
        dataset: Any,
        text: str = "text",
        labels: str = "labels",
        *,
        uid: str | None = None,
        label_texts: LabelTexts | None = None,
        name: str = "huggingface",
        propensity: tuple[float, float] = (0.55, 1.5),
    ) -> Dataset:
        """Build from a datasets.Dataset, which becomes the split "train", or from a DatasetDict with all its splits.

        text, labels, uid: names of columns; without `uid`, a query's is its row number.
        labels: one label or a list for each row: ClassLabel, strings or ints. A null, and a ClassLabel of -1, is no label.
        label_texts: texts by label (of a ClassLabel by name), or a list in the order of label numbers. Without it, a label's
            text is its uid, and labels other than ClassLabel are those that occur, sorted.
        Raises DataError for columns that are not there or of another type, and labels that label_texts does not have,
        InputError for a streamed data set, DependencyError without the package datasets.
        """
        label_table, queries = read_huggingface(dataset, text, labels, uid, label_texts)
        tables = {"labels": label_table.cast(LABEL_SCHEMA)}
        for split, table in queries.items():
            whole = table.append_column("relevance", pa.nulls(len(table), pa.list_(pa.float32())))
            tables[f"queries-{split}"] = whole.cast(QUERY_SCHEMA)
        return cls._of_tables(name, tables, list(queries), propensity)

    @classmethod
    def _of_tables(
        cls,
        name: str,
        tables: Mapping[str, pa.Table],
        splits: Sequence[str],
        propensity: tuple[float, float],
        images: Mapping[str, RaggedImages] | None = None,
    ) -> Dataset:
        """From tables by file stem, checked."""
        properties = {
            "format": FORMAT,
            "name": name,
            "propensity": list(propensity),
            "labels": len(tables["labels"]),
            "splits": {split: len(tables[f"queries-{split}"]) for split in splits},
        }
        dataset = cls(properties, None, tables, images)
        for split in splits:
            dataset.split(split)
        for stem in images or {}:
            dataset.images(stem)
        return dataset

    @property
    def name(self) -> str:
        """The data set's name."""
        return str(self.properties["name"])

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.properties["splits"])

    @property
    def propensity(self) -> tuple[float, float]:
        """A and B of the propensity model of Jain et al. (KDD 2016) for this data set's family."""
        a, b = self.properties.get("propensity", (0.55, 1.5))
        return float(a), float(b)

    @cached_property
    def labels(self) -> LabelTable:
        """The label table. DataError for a further column that is called id."""
        table = self._table("labels", LABEL_SCHEMA)
        columns = table.drop_columns(LABEL_SCHEMA.names)
        if "id" in columns.column_names:
            raise DataError(
                f"The label table of {self.directory or self.name} has a column called id, which a run has of its own; "
                f"give it another name."
            )
        return LabelTable(table["uid"], table["text"], columns, self.images("labels"))

    def split(self, name: str) -> Split:
        """The queries of a split. Raises DataError for an unknown split or label rows out of range."""
        self._check_split(name)
        if name not in self._split_cache:
            table = self._table(f"queries-{name}", QUERY_SCHEMA)
            where = f"{self.directory or self.name}: queries-{name}.parquet"
            positives = _positives(table, len(self.labels), where)
            self._split_cache[name] = Split(table["uid"], table["text"], positives, self.images(name))
        return self._split_cache[name]

    def images(self, name: str) -> RaggedImages | None:
        """Image embeddings of a split's queries, or of "labels"; None where there are none.

        Raises DataError for as many as are not its rows, and for embeddings of another length than its others'.
        """
        if name not in self._images:
            file = self._image_file(name)
            self._images[name] = None if file is None else read_images(file)
        found = self._images[name]
        if found is None:
            return None
        self.check_images(name, len(found), found.dimension)
        return found

    def check_images(self, name: str, rows: int, dimension: int) -> None:
        """Raise DataError where images of so many texts, of so many numbers each, cannot be those of a split or of "labels".

        Images of others, read or not, must have as many numbers.
        """
        stem, schema = ("labels", LABEL_SCHEMA) if name == "labels" else (f"queries-{name}", QUERY_SCHEMA)
        where, expected = self.directory or self.name, len(self._table(stem, schema))
        if rows != expected:
            raise DataError(f"{where}: there are images of {rows} of {name}, but {expected} rows in {stem}.parquet.")
        for other in ("labels", *self.splits):
            images, file = self._images.get(other), self._image_file(other)
            numbers = images.dimension if images is not None else None if file is None else dimension_of(file)
            if other != name and numbers not in (None, dimension):
                raise DataError(
                    f"{where}: images of {name} have embeddings of {dimension} numbers, those of {other} {numbers}; "
                    f"make all of them with one model. To change it, remove images-{other}.arrow first."
                )

    def writable_directory(self) -> Path:
        """The directory, for images to be added. DataError where there is none, or it is xmc's own."""
        if self.directory is None:
            raise DataError(f"The data set {self.name!r} has no directory; save it first.")
        if SHIPPED.resolve() in self.directory.resolve().parents:
            raise DataError(
                f"{self.directory} is shipped with xmc and stays as it is; `xmc data convert` makes a copy to add images to."
            )
        return self.directory

    @property
    def image_names(self) -> tuple[str, ...]:
        """The splits, and "labels", that have images."""
        names = ("labels", *self.splits)
        return tuple(name for name in names if self._images.get(name) is not None or self._image_file(name) is not None)

    def filter(self, name: str = "test") -> npt.NDArray[np.int64]:
        """Pairs (query row, label row), int64 [m, 2], to remove from a split's predictions and ground truth."""
        stem = f"filter-{name}"
        if stem not in self._tables and not (self.directory and (self.directory / f"{stem}.parquet").exists()):
            return np.zeros((0, 2), np.int64)
        table = self._table(stem, FILTER_SCHEMA)
        return np.stack([table["query"].to_numpy(), table["label"].to_numpy()], axis=1).astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over labels, queries, positives and filters, independent of how the files are compressed.

        Further columns of the labels do not count: nothing learns from them.
        """
        contents = self._image_contents()
        if "fingerprint" in self.properties and self.properties.get("images", {}) == contents:
            return str(self.properties["fingerprint"])
        hashes = {f"images-{name}": content for name, content in contents.items()}
        for stem, schema in self._stems():
            content = ContentHash()
            content.update(self._table(stem, schema).select(schema.names))
            hashes[stem] = content.hexdigest()
        return fingerprint_of(hashes)

    def save(self, directory: str | Path) -> None:
        """Write the canonical directory; dataset.json comes last, so an interrupted save is never taken for whole."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "dataset.json").unlink(missing_ok=True)
        for stem, schema in self._stems():
            with atomic_file(directory / f"{stem}.parquet") as temporary:
                pq.write_table(self._table(stem, schema), temporary, compression="zstd")
        for name in ("labels", *self.splits):
            images, file = self.images(name), directory / f"images-{name}.arrow"
            if images is None:
                file.unlink(missing_ok=True)
            else:
                write_images(images, file)
        write_properties(directory, self._described())

    def add_images(self, name: str, images: RaggedImages) -> None:
        """Write the images of a split, or of "labels", into the data set's directory, in place of those it has.

        Raises DataError for a data set without a directory, an unknown split, and images that do not fit.
        """
        directory = self.writable_directory()
        if name != "labels":
            self._check_split(name)
        self.check_images(name, len(images), images.dimension)
        write_images(images, directory / f"images-{name}.arrow")
        self._images.pop(name, None)
        self._split_cache.pop(name, None)
        for cached in ("fingerprint", "labels"):
            self.__dict__.pop(cached, None)
        self.properties = self._described()
        write_properties(directory, self.properties)

    def _check_split(self, name: str) -> None:
        if name not in self.splits:
            raise DataError(f"The data set {self.name!r} has no split {name!r}, only {', '.join(self.splits)}.")

    def _described(self) -> dict[str, Any]:
        """What dataset.json holds: with the fingerprint, and what names the content of the images that it is of."""
        contents = self._image_contents()
        properties = {name: value for name, value in self.properties.items() if name != "images"}
        return {**properties, **({"images": contents} if contents else {}), "fingerprint": self.fingerprint}

    def _image_contents(self) -> dict[str, str]:
        """The SHA-256 of each file of images, as it says it, or of images in memory."""
        found = {}
        for name in self.image_names:
            file, images = self._image_file(name), self._images.get(name)
            if file is not None:
                found[name] = content_of(file)
            elif images is not None:
                found[name] = digest_of(images)
        return found

    def _image_file(self, name: str) -> Path | None:
        file = None if self.directory is None else self.directory / f"images-{name}.arrow"
        return file if file is not None and file.exists() else None

    def _stems(self) -> list[tuple[str, pa.Schema]]:
        stems = [("labels", LABEL_SCHEMA)]
        for split in self.splits:
            stems.append((f"queries-{split}", QUERY_SCHEMA))
            if len(self.filter(split)):
                stems.append((f"filter-{split}", FILTER_SCHEMA))
        return stems

    def _table(self, stem: str, schema: pa.Schema) -> pa.Table:
        if stem not in self._tables:
            if self.directory is None:
                raise DataError(f"The data set {self.name!r} has no table {stem!r}.")
            file = self.directory / f"{stem}.parquet"
            try:
                table = pq.read_table(file, memory_map=True)
                if "relevance" in schema.names and "relevance" not in table.schema.names:
                    table = table.append_column("relevance", pa.nulls(len(table), pa.list_(pa.float32())))
                further = (
                    [] if stem != "labels" else [field for field in table.schema if field.name not in schema.names]
                )
                whole = pa.schema([*schema, *further])
                self._tables[stem] = table.select(whole.names).cast(whole)
            except (OSError, KeyError, pa.ArrowException) as error:
                raise DataError(f"{file} cannot be read as {', '.join(schema.names)}: {error}") from error
        return self._tables[stem]


def pairs_of_rows(pairs: npt.NDArray[np.int64], rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Filter pairs (query, label), int64 [m, 2], of some ascending query rows, which are numbered from 0 in the result."""
    kept = pairs[np.isin(pairs[:, 0], rows)]
    return np.stack([np.searchsorted(rows, kept[:, 0]), kept[:, 1]], axis=1)


def write_properties(directory: Path, properties: Mapping[str, Any]) -> None:
    """Write dataset.json."""
    with atomic_file(directory / "dataset.json") as temporary:
        temporary.write_text(json.dumps(properties, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _positives(table: pa.Table, labels: int, where: str) -> csr_matrix:
    column = table["labels"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], pa.list_(pa.int32()))
    if column.null_count:
        raise DataError(f"{where} has {column.null_count} rows whose labels are null; an empty list is meant.")
    indptr = np.asarray(column.offsets.to_numpy(), np.int64)
    indices = column.flatten().to_numpy()
    if len(indices) and not 0 <= indices.min() <= indices.max() < labels:
        bad = int(np.flatnonzero((indices < 0) | (indices >= labels))[0])
        row = int(np.searchsorted(indptr, bad, side="right")) - 1
        raise DataError(f"{where}, row {row}: label {indices[bad]} is outside of the {labels} labels.")
    relevance = table["relevance"].combine_chunks()
    if isinstance(relevance, pa.ChunkedArray):
        relevance = relevance.chunk(0) if relevance.num_chunks else pa.array([], pa.list_(pa.float32()))
    values = np.ones(len(indices), np.float32)
    given = np.repeat(relevance.is_valid().to_numpy(zero_copy_only=False), np.diff(indptr))  # a null row is all ones
    flat = relevance.flatten().to_numpy()
    if len(flat) != given.sum():
        raise DataError(f"{where}: labels and relevance have lists of different lengths.")
    values[given] = flat
    matrix = csr_matrix((values, indices, indptr - indptr[0]), shape=(len(table), labels))
    matrix.sort_indices()
    if not matrix.has_canonical_format:
        raise DataError(f"{where} has a query with the same label twice.")
    return matrix
