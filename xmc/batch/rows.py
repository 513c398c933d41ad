"""What becomes of each row of a job's input: good, bad for a reason, or good with a remark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xmc.batch.options import PAYLOAD, UID, Columns
from xmc.data.files import REASON, REMARK
from xmc.data.files.columnar import is_list

__all__ = ["LONGEST_TEXT", "Rows", "check_rows"]

LONGEST_TEXT = 1 << 20
"""Bytes of UTF-8; a longer text is cut there, between characters."""
_CONTROL = "[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]|\\x00"

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Some rows of input.

    uids: strings [n], null for a row without. good: bool [n], the rows that can be used. payload: texts, or lists of tokens or
    of numbers, of the good rows alone. bad: number of rows by the reason why they cannot be used. remarks: number of good rows
    by what was noticed.
    """

    uids: pa.StringArray
    good: Mask
    payload: pa.Array
    bad: Counter[str]
    remarks: Counter[str]


def check_rows(batch: pa.RecordBatch, columns: Columns, dimension: int) -> Rows:
    """Sort the rows of a batch, of the columns UID and PAYLOAD, into good and bad ones.

    dimension: numbers that an embedding must have.
    """
    uids = batch.column(UID)
    good = np.ones(len(batch), bool)
    bad: Counter[str] = Counter()
    remarks: Counter[str] = Counter()

    def out(reason: str, rows: Mask) -> None:
        count = int((rows & good).sum())
        if count:
            bad[reason] += count
            good[rows] = False

    reasons = batch.column(REASON)
    for reason in pc.unique(reasons).to_pylist() if reasons.null_count < len(batch) else ():
        if reason is not None:
            out(reason, _mask(pc.equal(reasons, reason)))
    out("null uid", _mask(pc.is_null(uids)))
    column = batch.column(PAYLOAD)
    if columns.embedding is not None:
        payload = _check_embeddings(column, dimension, out)
    elif columns.tokens is not None:
        out("null tokens", _mask(pc.is_null(column)))
        out("null token", _any_null_item(column))
        payload = column
    else:
        payload = _check_texts(column, out, remarks, good)
    noticed = batch.column(REMARK).filter(pa.array(good)).drop_null()
    remarks.update(noticed.to_pylist())
    return Rows(uids, good, payload.filter(pa.array(good)), bad, remarks)


def _check_texts(
    texts: pa.StringArray, out: Callable[[str, Mask], None], remarks: Counter[str], good: Mask
) -> pa.StringArray:
    out("null text", _mask(pc.is_null(texts)))
    out("empty text", _mask(pc.equal(pc.utf8_trim_whitespace(texts), "")))
    control = _mask(pc.match_substring_regex(texts, _CONTROL)) & good
    if control.any():
        remarks["control characters"] += int(control.sum())
    long = _mask(pc.greater(pc.binary_length(texts), LONGEST_TEXT)) & good
    if long.any():
        remarks[f"text cut to {LONGEST_TEXT:,} bytes"] += int(long.sum())
        cut = [
            text.encode()[:LONGEST_TEXT].decode(errors="ignore") for text in texts.filter(pa.array(long)).to_pylist()
        ]
        texts = pc.replace_with_mask(texts, pa.array(long), pa.array(cut, texts.type))
    return texts


def _check_embeddings(column: pa.Array, dimension: int, out: Callable[[str, Mask], None]) -> pa.Array:
    """Of type fixed-size list of float32, null where a row is bad."""
    out("null embedding", _mask(pc.is_null(column)))
    if pa.types.is_null(column.type):
        return column.cast(pa.list_(pa.float32(), dimension))
    lengths = pc.list_value_length(column)
    out("embedding of another length", _mask(pc.not_equal(lengths, dimension)))
    out("null in an embedding", _any_null_item(column))
    fits = _mask(pc.equal(lengths, dimension))
    values = pc.list_flatten(column.filter(pa.array(fits))).cast(pa.float32(), safe=False)
    matrix = values.fill_null(0).to_numpy(zero_copy_only=False).reshape(-1, dimension)
    finite = np.ones(len(column), bool)
    finite[fits] = np.isfinite(matrix).all(axis=1)
    out("embedding with NaN or infinity", ~finite)
    positions = np.cumsum(fits) - 1
    vectors = pa.FixedSizeListArray.from_arrays(values.fill_null(0), dimension)
    return vectors.take(pa.array(np.where(fits, positions, 0), mask=~fits))


def _any_null_item(column: pa.Array) -> Mask:
    """Rows with a null among their items."""
    has_null = np.zeros(len(column), bool)
    if is_list(column.type) and column.flatten().null_count:
        parents = pc.list_parent_indices(column).to_numpy()
        has_null[parents[_mask(pc.is_null(pc.list_flatten(column)))]] = True
    return has_null


def _mask(column: pa.Array) -> Mask:
    mask: Mask = pc.fill_null(column, False).to_numpy(zero_copy_only=False)
    return mask
