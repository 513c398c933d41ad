"""Conversion of any source into the canonical directory, streaming."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xmc.data.checks import checked_filter
from xmc.data.cleaning import CleanedSource, LabelCleaning
from xmc.data.dataset import Dataset
from xmc.data.directory import data_set_directory
from xmc.data.drawing import DrawnSplits, Splitting, require_new_splits
from xmc.data.images.files import write_images
from xmc.data.row_tables import RowTables, require_policy
from xmc.data.rows import Defect
from xmc.data.sources import RowSource
from xmc.data.split_files import write_splits
from xmc.data.tables import (
    GROUP,
    GROUPED_SCHEMA,
    LABEL_SCHEMA,
    QUERY_SCHEMA,
    TableContent,
    filter_table,
    write_properties,
)
from xmc.errors import DataError
from xmc.metrics import propensity_parameters
from xmc.progress import progress
from xmc.storage.arrow import read_columns
from xmc.storage.files import atomic_file
from xmc.storage.fingerprints import fingerprint_of
from xmc.storage.parquet import parquet_writer, write_parquet

__all__ = ["Conversion", "convert"]


@dataclass
class Conversion:
    """What a conversion wrote and what it left out.

    dropped: rows left out, by reason; a query that loses only labels is not dropped. warnings: by reason, rows kept.
    positives: number of positive pairs, by split of the source. drawn: how new splits were drawn, where some were asked for.
    remarks: sentences about whole files, such as one whose labels hold a separator that does not cut them. again: options
        with which these are mended, in a conversion from the start.
    """

    dataset: Dataset
    dropped: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    positives: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)
    again: tuple[str, ...] = ()
    drawn: DrawnSplits | None = None


def convert(
    source: RowSource,
    destination: str | Path,
    *,
    name: str | None = None,
    on_bad_row: str = "error",
    overwrite: bool = False,
    splitting: Splitting | None = None,
    cleaning: LabelCleaning | None = None,
    propensity: tuple[float, float] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Conversion:
    """Write a source as a canonical directory, in bounded memory: whole or not at all.

    Further columns of a canonical source's labels are kept, and held in memory.

    A label of relevance 0 was judged not relevant: it is written into the column `rejected`, with the labels that the
    source rejects.

    on_bad_row: "error" refuses at the first unusable row; "drop" leaves such rows out and counts them by reason. A dropped
        label takes its positives along (counted as "positive of a dropped label"), later rows move up, and positives and
        filters are renumbered.
    overwrite: replace a data set that is at `destination`; until the new one is whole, the old one stays.
    splitting: draw new splits from the training queries, see xmc.data.split_files.split_data_set.
    cleaning: what is done to labels, see xmc.data.cleaning.LabelCleaning.
    propensity: A and B; by default those of the data set's family, from its name.
    provenance: further values for dataset.json, such as a licence.

    Raises DataError for a file that cannot be read, and, with "error", for the first bad row: file, line and reason;
    ConfigError for another `on_bad_row`; StoreError where `destination` holds a data set and `overwrite` is not set, or
    anything else, or cannot be written; DataError as `split_data_set`.
    """
    require_policy(on_bad_row)
    source = CleanedSource(source, cleaning) if cleaning else source
    further = {} if propensity is None else {"propensity": list(propensity)}
    further |= provenance or {}
    splits = (*source.splits, *({} if splitting is None else splitting.shares))
    kinds = {kind for split in source.splits for kind in source.evidence_kinds(split)}
    written = [f"{kind}-{split}.parquet" for kind in kinds for split in splits]
    with data_set_directory(destination, overwrite, written) as directory:
        if splitting is None:
            job, drawn = _convert(source, directory, name, on_bad_row, further), None
        else:
            require_new_splits(name or source.name, source.splits, splitting)
            undivided = directory / "undivided"
            undivided.mkdir()
            job = _convert(source, undivided, name, on_bad_row, further)
            drawn = write_splits(Dataset.load(undivided), directory, splitting)
            shutil.rmtree(undivided)
    return Conversion(
        Dataset.load(destination), job.dropped, job.warnings, job.positives, job.remarks, job.again, drawn
    )


def _convert(source: RowSource, directory: Path, name: str | None, on_bad_row: str, further: Mapping[str, Any]) -> _Job:
    """Write all files of the data set. further: values for dataset.json, in place of those it has by default."""
    job = _Job(source, directory, on_bad_row)
    name = name or source.name
    query_schema = GROUPED_SCHEMA if source.has_groups else QUERY_SCHEMA
    label_rows = job.write_table("labels", LABEL_SCHEMA, None, None)
    job.add_label_columns(label_rows)
    job.write_images("labels", label_rows)
    splits = {}
    for split in source.splits:
        query_rows = job.write_table(f"queries-{split}", query_schema, split, label_rows)
        splits[split] = int((query_rows >= 0).sum())
        job.write_filter(split, query_rows, label_rows)
        job.write_judgements(split)
        job.write_evidence(split, query_rows, label_rows)
        job.write_images(split, query_rows)
    properties = {
        "format": job.format,
        "name": name,
        "propensity": list(propensity_parameters(name)),
        "labels": int((label_rows >= 0).sum()),
        "splits": splits,
        "converted_from": source.format,
        **source.properties(),
        **further,
        **({"images": job.images} if job.images else {}),
        "fingerprint": fingerprint_of(job.hashes),
    }
    write_properties(directory, properties)
    return job


class _Job(RowTables):
    """Writes the files of a data set."""

    def __init__(self, source: RowSource, directory: Path, on_bad_row: str) -> None:
        super().__init__(source, on_bad_row)
        self.directory = directory
        self.hashes: dict[str, str] = {}
        self.format = 1
        self.images: dict[str, str] = {}

    def write_table(
        self, stem: str, schema: pa.Schema, split: str | None, label_rows: npt.NDArray[np.int64] | None
    ) -> npt.NDArray[np.int64]:
        """Write a table; returns, for each row of the source, its row in the table or -1."""
        content, kept, batches = TableContent(stem), 0, []
        writing = parquet_writer(self.directory / f"{stem}.parquet", schema, compression="zstd", compression_level=9)
        with progress(f"converting {stem}", unit="rows", keep=True) as line, writing as writer:
            for batch, usable in self.batches(schema, split, label_rows):
                writer.write_batch(batch)
                content.update(batch.select([name for name in batch.schema.names if name != GROUP]))
                batches.append(np.where(usable, kept + np.cumsum(usable) - 1, -1))
                kept += len(batch)
                line.advance(len(usable))
        self.hashes.update(content.digests())
        self.format = max(self.format, content.format)
        return np.concatenate(batches) if batches else np.zeros(0, np.int64)

    def add_label_columns(self, label_rows: npt.NDArray[np.int64]) -> None:
        """Write labels.parquet once more, with the further columns of the source, if it has some."""
        columns = self.source.label_columns()
        if columns is None or not columns.num_columns:
            return
        file = self.directory / "labels.parquet"
        table = read_columns(file, kind=DataError)
        kept = columns.filter(pa.array(label_rows >= 0))
        for name in kept.column_names:
            table = table.append_column(name, kept[name])
        with atomic_file(file) as temporary:  # the file that is read is written last
            write_parquet(table, temporary, compression="zstd", compression_level=9)

    def write_images(self, name: str, rows: npt.NDArray[np.int64]) -> None:
        """Write the images of a split's queries, or of the labels, without those of dropped rows, if there are any."""
        images = self.source.images(name)
        if images is None:
            return
        kept = images if bool((rows >= 0).all()) else images.take(np.flatnonzero(rows >= 0))
        digest = write_images(kept, self.directory / f"images-{name}.arrow")
        self.images[name] = self.hashes[f"images-{name}"] = digest

    def write_filter(self, split: str, query_rows: npt.NDArray[np.int64], label_rows: npt.NDArray[np.int64]) -> None:
        """Write a split's filter in the new row numbers, if it has one."""
        pairs = list(self._filter_pairs(split, query_rows, label_rows))
        if not pairs:
            return
        table = filter_table(np.array(pairs, np.int32))
        write_parquet(table, self.directory / f"filter-{split}.parquet", compression="zstd")
        content = TableContent(f"filter-{split}")
        content.update(table)
        self.hashes.update(content.digests())

    def write_judgements(self, split: str) -> None:
        """Write the judgements of a split, without those of dropped rows, if there are any."""
        table = self.source.judgements(split)
        if table is None:
            return
        for stem, column in ((f"queries-{split}", "query"), ("labels", "label")):
            uids = read_columns(self.directory / f"{stem}.parquet", ["uid"], kind=DataError)["uid"]
            table = table.filter(pc.is_in(table[column], value_set=uids))
        write_parquet(table, self.directory / f"judged-{split}.parquet", compression="zstd")
        content = TableContent(f"judged-{split}")
        content.update(table)
        self.hashes.update(content.digests())

    def write_evidence(self, split: str, query_rows: npt.NDArray[np.int64], label_rows: npt.NDArray[np.int64]) -> None:
        """Write the evidence about a split in the new row numbers, as far as it holds without dropped rows."""
        for kind in self.source.evidence_kinds(split):
            found = self.source.evidence(kind, split, len(query_rows)).checked(len(query_rows), len(label_rows))
            self.account(found.defects)
            moved = found.evidence.renumbered(query_rows, label_rows)
            if len(moved) < len(found.evidence):
                self.dropped[f"row of {kind} of a dropped query or label"] += len(found.evidence) - len(moved)
            if not len(moved):
                continue
            table, content = moved.table(), TableContent(f"{kind}-{split}")
            write_parquet(table, self.directory / f"{kind}-{split}.parquet", compression="zstd")
            content.update(table)
            self.hashes.update(content.digests())
            self.format = max(self.format, content.format)

    def _filter_pairs(
        self, split: str, query_rows: npt.NDArray[np.int64], label_rows: npt.NDArray[np.int64]
    ) -> Iterator[tuple[int, int]]:
        for item in checked_filter(self.source, split, len(query_rows), len(label_rows)):
            if isinstance(item, Defect):
                self.account([item])
            elif query_rows[item[0]] >= 0 and label_rows[item[1]] >= 0:
                yield int(query_rows[item[0]]), int(label_rows[item[1]])
