"""New splits of a data set's files, in bounded memory: texts and images are streamed, label rows and groups are held."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from xmc.arrays import Rows
from xmc.data.checks import BATCH
from xmc.data.dataset import Dataset, opened
from xmc.data.directory import data_set_directory
from xmc.data.drawing import TRAIN, DrawnSplits, Splitting, draw_splits, groups_of_values, require_new_splits
from xmc.data.evidence import EVIDENCE
from xmc.data.images.files import content_of, gather_blocks, write_images
from xmc.data.images.ragged import RaggedImages
from xmc.data.judgements import JUDGED_SCHEMA
from xmc.data.split_tables import judged_of, warn_of_lost_bags
from xmc.data.tables import (
    FILTER_SCHEMA,
    GROUP,
    LABEL_SCHEMA,
    QUERY_SCHEMA,
    TableContent,
    filter_table,
    judged_pairs,
    labelled_queries,
    with_columns,
    write_properties,
)
from xmc.data.targets import pairs_of_rows
from xmc.errors import DataError, boundary
from xmc.progress import progress
from xmc.storage.arrow import column_names, read_batches, read_columns
from xmc.storage.fingerprints import fingerprint_of
from xmc.storage.parquet import parquet_writer, write_parquet

__all__ = ["SplitDataset", "split_data_set", "write_splits"]

JUDGED_COLUMNS = pa.schema([QUERY_SCHEMA.field(name) for name in ("labels", "relevance", "rejected", "labelled")])


@dataclass(frozen=True)
class SplitDataset:
    """The data set that was written, and how its splits were drawn."""

    dataset: Dataset
    drawn: DrawnSplits


@progress("splitting the data set")
def split_data_set(
    dataset: Dataset | str | Path, destination: str | Path, splitting: Splitting, overwrite: bool = False
) -> SplitDataset:
    """Write a data set whose training queries are spread over train and the new splits: whole or not at all.

    Filters, judgements, images, rejected labels and further columns go with their queries; other splits stay as they are.

    dataset: a data set with a directory, or its name or directory. overwrite: replace a data set that is at `destination`.

    Raises DataError for a data set without a split train or with a new one's name already, a group column that it does not
    have, and where no query can be taken; StoreError as `data_set_directory`.
    """
    dataset = opened(dataset)
    require_new_splits(dataset.name, dataset.splits, splitting)
    with data_set_directory(destination, overwrite) as temporary:
        drawn = write_splits(dataset, temporary, splitting)
    return SplitDataset(Dataset.load(destination), drawn)


def write_splits(dataset: Dataset, directory: Path, splitting: Splitting) -> DrawnSplits:
    """Write a data set, with new splits, into an empty directory; see `split_data_set`."""
    source = dataset.directory
    if source is None:
        raise DataError(f"The data set {dataset.name!r} has no directory; save it first, or use Dataset.with_splits.")
    dataset.listing.require_all()
    drawn = _draw(dataset, source / f"queries-{TRAIN}.parquet", splitting)
    others = [split for split in dataset.splits if split != TRAIN]
    _copy(source, directory, ["labels.parquet", "images-labels.arrow"])
    for split in others:
        names = [f"{stem}-{split}.parquet" for stem in ("queries", "filter", "judged", *EVIDENCE)]
        _copy(source, directory, [*names, f"images-{split}.arrow"])
    _write_queries(source / f"queries-{TRAIN}.parquet", directory, drawn)
    for split, rows in drawn.rows.items():
        pairs = pairs_of_rows(dataset.filter(TRAIN), rows)
        if len(pairs):
            write_parquet(filter_table(pairs), directory / f"filter-{split}.parquet", compression="zstd")
        _write_judgements(source / f"judged-{TRAIN}.parquet", directory, split)
    _write_evidence(dataset, directory, drawn)
    images = dataset.images(TRAIN)
    for split, rows in drawn.rows.items():
        if images is None:
            break
        write_images(_taken(images, rows, directory), directory / f"images-{split}.arrow")
    splits = {name: len(rows) for name, rows in drawn.rows.items()}
    splits |= {split: dataset.properties["splits"][split] for split in others}
    _describe(dataset, directory, splits, splitting)
    return drawn


def _draw(dataset: Dataset, file: Path, splitting: Splitting) -> DrawnSplits:
    what = f"{file} cannot be read as {', '.join(JUDGED_COLUMNS.names)}"
    names = column_names(file, kind=DataError, what=what)
    judged = [name for name in JUDGED_COLUMNS.names if name in names]
    with boundary(DataError, what):
        table = with_columns(read_columns(file, judged, kind=DataError, what=what), JUDGED_COLUMNS)
    groups = None
    if splitting.group is not None:
        column = GROUP if dataset.source_columns.get("group") == splitting.group else splitting.group
        if column not in names:
            raise DataError(
                f"{file} has no column {splitting.group!r}, only {', '.join(names)}. `xmc data convert --group` keeps a "
                f"column of the source for this."
            )
        groups = groups_of_values(read_columns(file, [column], kind=DataError, what=what)[column])
    positives, rejected = judged_pairs(table, dataset.properties["labels"], str(file))
    return draw_splits(positives, splitting, groups, labelled_queries(table, positives, rejected, str(file)))


def _copy(source: Path, directory: Path, names: list[str]) -> None:
    """Copy the files that there are."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)


class _RowGroups:
    """Writes batches of any size as row groups of BATCH rows."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._waiting: list[pa.RecordBatch] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Write some rows, perhaps later."""
        if len(batch):
            self._waiting.append(batch)
        if sum(map(len, self._waiting)) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what is left."""
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting).combine_chunks())
        self._waiting = []


def _write_queries(file: Path, directory: Path, drawn: DrawnSplits) -> None:
    """Write queries-SPLIT.parquet of train and the new splits, with all columns that there are."""
    with boundary(DataError, f"{file} cannot be read"):
        schema = pq.read_schema(file)
    number_of = np.zeros(sum(map(len, drawn.rows.values())), np.int8)
    for number, rows in enumerate(drawn.rows.values()):
        number_of[rows] = number
    start = 0
    with contextlib.ExitStack() as stack:
        files = [directory / f"queries-{split}.parquet" for split in drawn.rows]
        writers = [_RowGroups(stack.enter_context(parquet_writer(file, schema, compression="zstd"))) for file in files]
        for batch in read_batches(file, BATCH, kind=DataError):
            numbers = number_of[start : start + len(batch)]
            start += len(batch)
            for number, writer in enumerate(writers):
                writer.add(batch.filter(pa.array(numbers == number)))
        for writer in writers:
            writer.flush()


def _write_judgements(file: Path, directory: Path, split: str) -> None:
    """The judgements of the training queries that are in a split now."""
    if not file.is_file():
        return
    uids = read_columns(directory / f"queries-{split}.parquet", ["uid"], kind=DataError)["uid"]
    kept = judged_of(read_columns(file, kind=DataError), uids)
    if len(kept):
        write_parquet(kept, directory / file.name.replace(TRAIN, split), compression="zstd")


def _write_evidence(dataset: Dataset, directory: Path, drawn: DrawnSplits) -> None:
    """The evidence of the training queries, in the splits that they are in now."""
    evidence = dataset.evidence(TRAIN)
    for name, given in evidence.items():
        for split, rows in drawn.rows.items():
            if len(taken := given.take(rows)):
                write_parquet(taken.table(), directory / f"{name}-{split}.parquet", compression="zstd")
    warn_of_lost_bags(evidence, drawn)


def _taken(images: RaggedImages, rows: Rows, folder: Path) -> RaggedImages:
    """The images of some rows, on disk in place of memory."""

    def blocks() -> Iterator[npt.NDArray[np.float16]]:
        for start in range(0, len(rows), BATCH):
            yield images.take(rows[start : start + BATCH]).values

    offsets = np.concatenate([[0], np.cumsum(images.counts[rows])]).astype(np.int64)
    return RaggedImages(gather_blocks(blocks(), images.dimension, folder), offsets)


def _describe(dataset: Dataset, directory: Path, splits: dict[str, int], splitting: Splitting) -> None:
    """Write dataset.json."""
    images = {name: directory / f"images-{name}.arrow" for name in ("labels", *splits)}
    contents = {name: content_of(file) for name, file in images.items() if file.is_file()}
    digests = {f"images-{name}": content for name, content in contents.items()}
    stems, format = {"labels": LABEL_SCHEMA}, 1
    for split in splits:
        stems |= {f"queries-{split}": QUERY_SCHEMA, f"filter-{split}": FILTER_SCHEMA, f"judged-{split}": JUDGED_SCHEMA}
        stems |= {f"{name}-{split}": kind.schema for name, kind in EVIDENCE.items()}
    for stem, schema in stems.items():
        if (directory / f"{stem}.parquet").is_file():
            content = TableContent(stem)
            for batch in read_batches(directory / f"{stem}.parquet", BATCH, kind=DataError):
                content.update(with_columns(pa.Table.from_batches([batch]), schema))
            digests.update(content.digests())
            format = max(format, content.format)
    kept = {name: value for name, value in dataset.properties.items() if name not in ("images", "fingerprint")}
    described = {**kept, "format": format, "splits": splits, "split_by": splitting.to_dict()}
    properties = {**described, **({"images": contents} if contents else {}), "fingerprint": fingerprint_of(digests)}
    write_properties(directory, properties)
