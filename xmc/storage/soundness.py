"""What stands in an Arrow or Parquet file is checked before anything touches it: damaged offsets would end the process."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["require_possible", "require_sound_batch", "require_sound_group", "require_sound_parquet"]

MOST_ROWS_A_BYTE = 1 << 22
"""Rows for which a byte of a file may stand: more than columns of nulls or of one value take, packed as well as can be."""
_SEAM = b"PAR1PAR1"
"""Where one Parquet file ends and another begins."""
_BLOCK = 1 << 20
SMALLEST_FILE = 64
"""Bytes that a file is taken to have at least."""


def require_sound_batch(batch: pa.RecordBatch, size: int | None = None) -> None:
    """Raise pa.ArrowInvalid for a batch whose offsets, indices or lengths do not fit what it holds, in any type.

    Strings that are not UTF-8, and times that no calendar has, are sound here: they cost their row. size: bytes of the file,
    against which the number of rows is held.
    """
    require_possible(batch.num_rows, size)
    batch.validate()
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        for column in batch.columns:
            _of_bytes(column).validate(full=True)


def require_sound_parquet(parquet: pq.ParquetFile, opened: pa.NativeFile) -> None:
    """Raise ValueError for a Parquet file whose parts do not add up to what its end says, or say more than it can hold; and for
    two files one behind the other, whose end counts from the beginning of the second.

    opened: the file.
    """
    metadata, size = parquet.metadata, opened.size()
    rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    for number in rows:
        require_possible(number, size)
    if sum(rows) != metadata.num_rows:
        raise ValueError(f"its {len(rows):,} row groups have {sum(rows):,} rows, but it says {metadata.num_rows:,}")
    if rows and metadata.num_columns and _can_be_described(parquet, len(rows) - 1):
        group = metadata.row_group(len(rows) - 1)
        chunks = (group.column(place) for place in range(group.num_columns))
        behind = max(min(max(0, _start(chunk) + chunk.total_compressed_size), size) for chunk in chunks)
        for start in range(behind, size, _BLOCK):
            if _SEAM in opened.read_at(_BLOCK + len(_SEAM), start):
                raise ValueError("it is two files, one behind the other")


def require_sound_group(parquet: pq.ParquetFile, number: int, size: int) -> None:
    """Raise ValueError for a row group with a column that lies outside of the file, or has other rows than the group."""
    group = parquet.metadata.row_group(number)
    if not group.num_rows:  # then writers set offsets as they like
        return
    _probe(parquet, number)
    for place in range(group.num_columns):
        chunk = group.column(place)
        first = _start(chunk)
        if not 4 <= first <= first + chunk.total_compressed_size <= size or chunk.total_compressed_size < 0:
            raise ValueError(f"the column {chunk.path_in_schema} of row group {number} lies outside of the file")
        flat = parquet.schema.column(place).max_repetition_level == 0
        if chunk.num_values != group.num_rows if flat else chunk.num_values < group.num_rows:
            raise ValueError(
                f"the column {chunk.path_in_schema} of row group {number} has {chunk.num_values:,} values for "
                f"{group.num_rows:,} rows"
            )


def _can_be_described(parquet: pq.ParquetFile, number: int) -> bool:
    """Whether a row can be read of a group. Where none can, that is told with the row when the group is read, behind those
    before it, which are whole."""
    try:
        _probe(parquet, number)
    except (pa.ArrowException, OSError, ValueError, MemoryError):
        return False
    return True


def _probe(parquet: pq.ParquetFile, number: int) -> None:
    """Read the first row of a group. What Arrow raises for a damaged description of columns, it raises here: where the
    description alone is asked for, it ends the process."""
    next(parquet.iter_batches(1, row_groups=[number]), None)


def _start(chunk: pq.ColumnChunkMetaData) -> int:
    """Where the pages of a column begin; offsets that are not set are 0, or None."""
    offsets = [chunk.data_page_offset, chunk.dictionary_page_offset if chunk.has_dictionary_page else None]
    return min((int(offset) for offset in offsets if offset), default=0)


def require_possible(rows: int, size: int | None) -> None:
    """Raise pa.ArrowInvalid for a number of rows that a file of this size, in bytes, cannot hold; None: not known."""
    most = MOST_ROWS_A_BYTE * max(SMALLEST_FILE, size or 0)
    if rows < 0 or (size is not None and rows > most):
        raise pa.ArrowInvalid(f"it says that it has {rows:,} rows, which {size or 0:,} bytes cannot hold")


def _of_bytes(column: pa.Array) -> pa.Array:
    """The same buffers, in which strings are bytes and times are numbers, at every level of nesting."""
    kind = _kind_of_bytes(column.type)
    if kind == column.type:
        return column
    _, values = column.__arrow_c_array__()
    return pa.Array._import_from_c_capsule(kind.__arrow_c_schema__(), values)


def _kind_of_bytes(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return _kind_of_bytes(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _kind_of_bytes(kind.value_type), kind.ordered)
    if pa.types.is_struct(kind):
        return pa.struct([_field_of_bytes(field) for field in kind.fields])
    if pa.types.is_map(kind):
        return pa.map_(_field_of_bytes(kind.key_field), _field_of_bytes(kind.item_field))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_field_of_bytes(kind.value_field), kind.list_size)
    for test, make in _LISTS:
        if test(kind):
            return make(_field_of_bytes(kind.value_field))
    return next((plain for test, plain in _PLAIN if test(kind)), kind)


def _field_of_bytes(field: pa.Field) -> pa.Field:
    return field.with_type(_kind_of_bytes(field.type))


_LISTS = (
    (pa.types.is_list, pa.list_),
    (pa.types.is_large_list, pa.large_list),
    (pa.types.is_list_view, pa.list_view),
    (pa.types.is_large_list_view, pa.large_list_view),
)
_PLAIN = (
    (pa.types.is_string, pa.binary()),
    (pa.types.is_large_string, pa.large_binary()),
    (pa.types.is_string_view, pa.binary_view()),
    (pa.types.is_date64, pa.int64()),
    (pa.types.is_time32, pa.int32()),
    (pa.types.is_time64, pa.int64()),
)
