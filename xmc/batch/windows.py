"""A stream of rows, cut into windows that do not depend on how the rows come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xmc.data.files.columnar import is_list, is_text

__all__ = ["windows"]


def windows(
    batches: Iterable[pa.RecordBatch], columns: Sequence[str], rows: int, largest: int
) -> Iterator[pa.RecordBatch]:
    """The rows in batches of `rows`, or of fewer, as soon as their values in some columns take about `largest` bytes.

    Where a window ends depends on the rows alone: what is computed of a window as a whole is then the same in every process.
    """
    held: list[pa.RecordBatch] = []
    count = size = 0
    for batch in batches:
        ends = np.cumsum(np.sum([_sizes(batch.column(column)) for column in columns], axis=0))
        start = 0
        while start < len(batch):
            before = int(ends[start - 1]) if start else 0
            full = int(np.searchsorted(ends, before + largest - size)) + 1
            stop = min(start + rows - count, full, len(batch))
            held.append(batch[start:stop])
            count, size = count + stop - start, size + int(ends[stop - 1]) - before
            start = stop
            if count == rows or size >= largest:
                yield _joined(held)
                held, count, size = [], 0, 0
    if held:
        yield _joined(held)


def _sizes(column: pa.Array) -> npt.NDArray[np.int64]:
    """Bytes of each value, about."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return np.zeros(len(column), np.int64)
    if is_list(column.type):
        lengths = pc.multiply(pc.list_value_length(column), 4)
    elif is_text(column.type):
        lengths = pc.binary_length(column)
    else:
        return np.full(len(column), 8, np.int64)
    return np.asarray(pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False), np.int64)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
