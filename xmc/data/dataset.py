"""A data set: labels, queries by split with what is known of their pairs, filters. The canonical directory on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from typing_extensions import Self

from xmc.cached import cached_property
from xmc.data.directory import SHIPPED, data_set_directory, found_data_set
from xmc.data.drawing import TRAIN, DrawnSplits, Splitting, draw_splits, require_new_splits
from xmc.data.evidence import Evidence
from xmc.data.evidenced import EvidencedDataset
from xmc.data.images.collection import ImageCollection
from xmc.data.images.ragged import RaggedImages
from xmc.data.judgements import JUDGED_SCHEMA, Judgements
from xmc.data.listing import Listing
from xmc.data.split_tables import groups_of_rows, spread_images, spread_tables
from xmc.data.splits import DataLabels, Split
from xmc.data.tables import (
    FILES,
    FILTER_SCHEMA,
    GROUP,
    LABEL_SCHEMA,
    QUERY_SCHEMA,
    RUN_COLUMNS,
    TableContent,
    format_of,
    judged_pairs,
    labelled_queries,
    read_table,
    write_properties,
)
from xmc.data.targets import Targets
from xmc.errors import DataError
from xmc.storage.fingerprints import fingerprint_of
from xmc.storage.locks import alone
from xmc.storage.parquet import write_parquet

__all__ = ["SHIPPED", "Dataset", "opened"]


class Dataset(EvidencedDataset):
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
        """Use `load` or `from_lists`. `tables` by file stem; what is not there is read from `directory`, once verified."""
        self.properties = {name: value for name, value in properties.items() if name != FILES}
        self.directory, self.listing = directory, Listing(directory, properties)
        self._tables = dict(tables)
        self._images = ImageCollection(directory, images or {}, self._where(), self.listing.require)
        self._split_cache: dict[str, Split] = {}
        self._evidence_cache: dict[str, Evidence] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickled with what was read, and with a directory that other working directories find."""
        return {**vars(self), "directory": self.directory and self.directory.absolute()}

    @classmethod
    def load(cls, name_or_directory: str | Path) -> Dataset:
        """Open a shipped data set by name, or a canonical directory.

        Files are verified when they are first read, see xmc.data.listing. Raises DataError when there is neither, and for a
        directory with a file that it does not list, or without one that it does; InputError for what is neither a name nor a
        path.
        """
        directory, properties = found_data_set(name_or_directory)
        return cls(properties, directory, {})

    @classmethod
    def _from_tables(
        cls,
        name: str,
        tables: Mapping[str, pa.Table],
        splits: Sequence[str],
        propensity: tuple[float, float],
        images: Mapping[str, RaggedImages] | None = None,
        further: Mapping[str, Any] | None = None,
    ) -> Self:
        """See DatasetConstructors."""
        properties = {
            "format": max(format_of(stem, table) for stem, table in tables.items() if len(table) or stem == "labels"),
            "name": name,
            "propensity": list(propensity),
            "labels": len(tables["labels"]),
            "splits": {split: len(tables[f"queries-{split}"]) for split in splits},
            **(further or {}),
        }
        dataset = cls(properties, None, tables, images)
        for split in splits:
            dataset.split(split)
            dataset.judgements(split)
            dataset.evidence(split)
        for stem in images or {}:
            dataset.images(stem)
        return dataset

    def __repr__(self) -> str:
        """Name, sizes, and the directory, without reading a table."""
        labels = self.properties.get("labels")
        sizes = [] if labels is None else [f"{labels:,} labels"]
        sizes += [f"{count:,} {split} queries" for split, count in self.properties["splits"].items()]
        return f"<{type(self).__name__} {self.name!r}: {', '.join(sizes)}; {self.directory or 'in memory'}>"

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

    @property
    def source_columns(self) -> dict[str, str]:
        """What the source called its columns, by their names in xmc.data.sources.TabularColumns; empty where it had none."""
        columns = self.properties.get("columns")
        return {str(key): str(name) for key, name in columns.items()} if isinstance(columns, dict) else {}

    @cached_property
    def labels(self) -> DataLabels:
        """The label table. DataError for a further column that is called as one of RUN_COLUMNS."""
        table = self._table("labels", LABEL_SCHEMA)
        columns = table.drop_columns(LABEL_SCHEMA.names)
        if taken := [name for name in RUN_COLUMNS if name in columns.column_names]:
            raise DataError(
                f"The label table of {self.directory or self.name} has a column called {taken[0]}, which a run has of its "
                f"own; give it another name."
            )
        return DataLabels(table["uid"], table["text"], columns, self.images("labels"))

    def split(self, name: str) -> Split:
        """The queries of a split.

        Raises DataError for an unknown split, label rows out of range, labels that are positive and rejected, and labels of a
        query that is not labelled.
        """
        self._check_split(name)
        if name not in self._split_cache:
            table = self._table(f"queries-{name}", QUERY_SCHEMA)
            where = f"{self._where()}: queries-{name}.parquet"
            positives, rejected = judged_pairs(table, len(self.labels), where)
            labelled = labelled_queries(table, positives, rejected, where)
            images = self.images(name)
            self._split_cache[name] = Split(table["uid"], table["text"], positives, rejected, images, labelled)
        return self._split_cache[name]

    def targets(self, split: str) -> Targets:
        """What is known of the pairs of a split's queries and the labels, with the pairs of its filter excluded.

        Raises DataError as `split` does, and InputError for filter pairs outside of the split.
        """
        return self.split(split).targets(self.filter(split))

    def images(self, name: str) -> RaggedImages | None:
        """Image embeddings of a split's queries, or of "labels"; None where there are none.

        Raises DataError where their number is not that of the rows, or their embeddings are of another length than
        others'.
        """
        images = self._images[name]
        if images is not None:
            self.check_images(name, len(images), images.dimension)
        return images

    def check_images(self, name: str, rows: int, dimension: int) -> None:
        """Raise DataError where images cannot be those of a split, or of "labels".

        rows: number of texts that the images are of, which must be that of the table. dimension: numbers of one
        embedding, the same as in the images of other names, whether they have been read or not.
        """
        stem, schema = ("labels", LABEL_SCHEMA) if name == "labels" else (f"queries-{name}", QUERY_SCHEMA)
        where, expected = self.directory or self.name, len(self._table(stem, schema))
        if rows != expected:
            raise DataError(f"{where}: there are images of {rows} of {name}, but {expected} rows in {stem}.parquet.")
        self._images.check_dimension(name, dimension, ("labels", *self.splits))

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
        return tuple(name for name in ("labels", *self.splits) if name in self._images)

    def filter(self, name: str = "test") -> npt.NDArray[np.int64]:
        """Pairs (query row, label row), int64 [m, 2], to remove from a split's predictions and ground truth."""
        stem = f"filter-{name}"
        if not self._has(stem):
            return np.zeros((0, 2), np.int64)
        table = self._table(stem, FILTER_SCHEMA)
        return np.stack([table["query"].to_numpy(), table["label"].to_numpy()], axis=1).astype(np.int64)

    def judgements(self, split: str = "test") -> Judgements | None:
        """What people say of pairs of a split, from judged-SPLIT.parquet; None where there is no such file.

        Raises DataError for an unknown split, and for what is no judgement of its queries and the labels.
        """
        self._check_split(split)
        stem = f"judged-{split}"
        if not self._has(stem):
            return None
        table = self._table(stem, JUDGED_SCHEMA)
        where = f"{self._where()}: {stem}.parquet"
        queries = self._table(f"queries-{split}", QUERY_SCHEMA)
        return Judgements.from_table(table, queries["uid"], self.labels.uids, where)

    def _where(self) -> str:
        """What messages about tables begin with."""
        return str(self.directory or self.properties["name"])

    def _number_of_labels(self) -> int:
        """As dataset.json says it, where it does: labels are not read for it."""
        return int(self.properties["labels"]) if "labels" in self.properties else len(self.labels)

    def _has(self, stem: str) -> bool:
        """Whether there is a table, in memory or as a file."""
        return stem in self._tables or bool(self.directory and (self.directory / f"{stem}.parquet").exists())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over labels, queries, judged pairs and filters, independent of how the files are compressed.

        Further columns of the labels do not count: nothing learns from them.
        """
        contents = self._images.contents(self.image_names)
        if "fingerprint" in self.properties and self.properties.get("images", {}) == contents:
            return str(self.properties["fingerprint"])
        digests = {f"images-{name}": content for name, content in contents.items()}
        for stem, schema in self._stems():
            content = TableContent(stem)
            content.update(self._table(stem, schema).select(schema.names))
            digests.update(content.digests())
        return fingerprint_of(digests)

    def save(self, directory: str | Path, overwrite: bool = False) -> None:
        """Write the canonical directory: whole or not at all.

        overwrite: replace a data set that is there. Raises StoreError where there is one and it is not set, and where there is
        anything else.
        """
        stems = self._stems()
        with data_set_directory(directory, overwrite, [f"{stem}.parquet" for stem, _ in stems]) as temporary:
            for stem, schema in stems:
                write_parquet(self._table(stem, schema), temporary / f"{stem}.parquet", compression="zstd")
            self._images.write(("labels", *self.splits), temporary)
            write_properties(temporary, self.described())

    def with_splits(
        self, test: float = 0.0, validation: float = 0.0, seed: int = 0, groups: Sequence[Any] | str | None = None
    ) -> Dataset:
        """The data set, in memory, with its training queries spread over train and new splits; the log says how that went.

        test, validation: shares of the training queries; 0 for no such split. Every label with a positive query keeps one
        in train. groups: a value for each training query, or the name of a column; queries of one value stay together.
        Filters, judgements, images and rejected labels go with their queries. The same arguments give the same splits.

        Raises ConfigError for shares that do not fit, InputError for another number of groups, DataError for a data set
        without train or with a new split's name already, and where no query can be taken.
        """
        splitting = Splitting(test, validation, seed)
        require_new_splits(self.name, self.splits, splitting)
        queries = self._table(f"queries-{TRAIN}", QUERY_SCHEMA)
        groups = GROUP if isinstance(groups, str) and groups == self.source_columns.get(GROUP) else groups
        drawn = draw_splits(
            self.split(TRAIN).positives, splitting, groups_of_rows(groups, queries), self.labelled(TRAIN)
        )
        tables = {stem: self._table(stem, schema) for stem, schema in self._stems()}
        every = {name: self.images(name) for name in self.image_names}
        names = (*drawn.rows, *(split for split in self.splits if split != TRAIN))
        spread, images = spread_tables(tables, drawn), spread_images(every, drawn)
        return self._again(spread, names, images, split_by=splitting.to_dict())

    def with_training_queries(self, rows: npt.NDArray[np.int64]) -> Dataset:
        """The data set, in memory, with some of its training queries and no other split. rows: int64, ascending."""
        drawn = DrawnSplits({TRAIN: rows}, {}, {TRAIN: len(np.unique(self.split(TRAIN).positives[rows].indices))}, 0)
        kept = [(stem, schema) for stem, schema in self._stems() if stem == "labels" or stem.endswith(f"-{TRAIN}")]
        images = spread_images(
            {name: self.images(name) for name in self.image_names if name in ("labels", TRAIN)}, drawn
        )
        tables = {stem: self._table(stem, schema) for stem, schema in kept}
        return self._again(spread_tables(tables, drawn), (TRAIN,), images)

    def _again(
        self,
        tables: Mapping[str, pa.Table],
        splits: Sequence[str],
        images: Mapping[str, RaggedImages] | None = None,
        **further: Any,
    ) -> Self:
        """A data set in memory like this one, of other tables. images: None for those there are. further: properties."""
        every = {name: self.images(name) for name in self.image_names} if images is None else images
        there = {name: given for name, given in every.items() if given is not None}
        dataset = self._from_tables(self.name, tables, splits, self.propensity, there)
        properties = {**self.properties, **dataset.properties, **further}
        dataset.properties = {k: value for k, value in properties.items() if k not in ("images", "fingerprint")}
        return dataset

    def add_images(self, name: str, images: RaggedImages) -> None:
        """Write the images of a split, or of "labels", into the data set's directory, in place of those it has.

        Raises DataError for a data set without a directory, an unknown split, and images that do not fit.
        """
        directory = self.writable_directory()
        if name != "labels":
            self._check_split(name)
        self.check_images(name, len(images), images.dimension)
        with alone(directory):
            place = f"images-{name}.arrow"
            with self.listing.replacing(place) as file:
                self._images.replace(name, images, file, directory / place)
            self._split_cache.pop(name, None)
            for cached in ("fingerprint", "labels"):
                self.__dict__.pop(cached, None)
            self.properties = self.described()
            write_properties(directory, self.properties, self.listing.entries)

    def _check_split(self, name: str) -> None:
        if name not in self.splits:
            raise DataError(f"The data set {self.name!r} has no split {name!r}, only {', '.join(self.splits)}.")

    def described(self) -> dict[str, Any]:
        """What dataset.json holds but for its list of files: fingerprint, and digests of the images that it covers, too."""
        contents = self._images.contents(self.image_names)
        properties = {name: value for name, value in self.properties.items() if name != "images"}
        properties["format"] = max(format_of(stem, self._table(stem, schema)) for stem, schema in self._stems())
        return {**properties, **({"images": contents} if contents else {}), "fingerprint": self.fingerprint}

    def _stems(self) -> list[tuple[str, pa.Schema]]:
        stems = [("labels", LABEL_SCHEMA)]
        for split in self.splits:
            stems.append((f"queries-{split}", QUERY_SCHEMA))
            if len(self.filter(split)):
                stems.append((f"filter-{split}", FILTER_SCHEMA))
            if self._has(f"judged-{split}"):
                stems.append((f"judged-{split}", JUDGED_SCHEMA))
            stems += [(f"{name}-{split}", evidence.schema) for name, evidence in self.evidence(split).items()]
        return stems

    def _table(self, stem: str, schema: pa.Schema) -> pa.Table:
        if stem not in self._tables:
            if self.directory is None:
                raise DataError(f"The data set {self.name!r} has no table {stem!r}.")
            file = self.listing.require(f"{stem}.parquet")
            table = read_table(file, schema, further=stem == "labels" or stem.startswith("queries-"))
            sizes = {f"queries-{split}": size for split, size in self.properties["splits"].items()}
            sizes |= {"labels": self.properties["labels"]} if "labels" in self.properties else {}
            if sizes.get(stem, len(table)) != len(table):
                raise DataError(
                    f"{file} has {len(table):,} rows, and dataset.json says {sizes[stem]}; convert it again."
                )
            self._tables[stem] = table
        return self._tables[stem]


def opened(dataset: Dataset | str | Path) -> Dataset:
    """The data set, loaded where it is a name or a directory, as by `Dataset.load`, whose errors it raises."""
    return dataset if isinstance(dataset, Dataset) else Dataset.load(dataset)
