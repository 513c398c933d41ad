"""Data sets of the package `datasets`, through Arrow: what their columns and features say becomes tables of texts and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute as pc
from scipy.sparse import csr_matrix

from xmc.errors import DataError, InputError, require_package

__all__ = ["LabelTexts", "read_huggingface"]

LabelTexts = Mapping[Any, str] | Sequence[str]
"""Texts by label, or in the order of label numbers."""
NO_LABEL = -1
"""The number that `datasets` gives to a missing class label."""


def read_huggingface(
    dataset: Any, text: str, labels: str, uid: str | None, label_texts: LabelTexts | None, rejected: str | None = None
) -> tuple[pa.Table, dict[str, pa.Table]]:
    """The label table (uid, text), and for each split its queries (uid, text, labels, and where asked for rejected); see
    Dataset.from_huggingface."""
    splits = _splits(dataset)
    of_labels = [labels, *([] if rejected is None else [rejected])]
    wanted = list(dict.fromkeys([text, *of_labels, *([] if uid is None else [uid])]))
    for split, rows in splits.items():
        for column in wanted:
            if column not in rows.column_names:
                names_there = ", ".join(rows.column_names)
                raise DataError(f"The split {split} has no column {column!r}, only {names_there}; name the right one.")
    tables = {split: rows.select_columns(wanted).with_format("arrow")[:] for split, rows in splits.items()}
    names = _class_names({(split, name): rows.features[name] for split, rows in splits.items() for name in of_labels})
    given = {
        (split, name): _lists(table[name], names is not None, f"{split}, column {name}")
        for split, table in tables.items()
        for name in of_labels
    }
    known = _known_labels([lists.values for lists in given.values()], names, label_texts, labels)
    label_table = pa.table({"uid": pa.array(known.uids, pa.string()), "text": pa.array(known.texts, pa.string())})
    queries = {}
    for split, table in tables.items():
        uids = pa.array(np.arange(len(table))) if uid is None else table[uid]
        columns = {"uid": uids.cast(pa.string()), "text": _texts(table[text], f"{split}, column {text}")}
        columns["labels"] = _label_rows(given[split, labels], known, split)
        if rejected is not None:
            columns["rejected"] = _label_rows(given[split, rejected], known, split)
        queries[split] = pa.table(columns)
    return label_table, queries


@dataclass(frozen=True)
class _Lists:
    """Labels of each row: values [nnz]; row i has the values from indptr[i] to indptr[i + 1]."""

    values: pa.ChunkedArray
    indptr: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Known:
    """All labels: the values that the column has for them, their uids, and their texts."""

    values: pa.Array
    uids: list[str]
    texts: list[str]


def _splits(dataset: Any) -> dict[str, Any]:
    """The Dataset of each split; a Dataset alone is the split "train"."""
    require_package("datasets", "Dataset.from_huggingface reads data sets of Hugging Face", "datasets")
    import datasets

    if isinstance(dataset, Mapping):
        splits = {str(name): rows for name, rows in dataset.items()}
    else:
        splits = {"train": dataset}
    for name, rows in splits.items():
        if isinstance(rows, datasets.IterableDataset):
            raise InputError(
                f"The split {name} is streamed, but training goes over its rows many times; load it without streaming=True, "
                f"or make a datasets.Dataset of some of it, as with Dataset.from_list(list(dataset.take(100_000)))."
            )
        if not isinstance(rows, datasets.Dataset):
            kind = type(rows).__name__
            raise InputError(
                f"A datasets.Dataset, or a dict of these by split, is needed, but {name} is of type {kind}."
            )
    if not splits:
        raise InputError("The DatasetDict has no splits.")
    return splits


def _class_names(features: Mapping[tuple[str, str], Any]) -> list[str] | None:
    """The names of columns of ClassLabel, or of lists of it, by split and column; None for other columns.

    Raises DataError where they differ.
    """
    import datasets

    names_of: dict[tuple[str, str], list[str] | None] = {}
    for place, feature in features.items():
        inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
        names_of[place] = list(inner.names) if isinstance(inner, datasets.ClassLabel) else None
    ((first, column), names), *others = names_of.items()
    for (split, other), other_names in others:
        if other_names != names:
            where = f"the column {column!r}" if other == column else f"the columns {column!r} and {other!r}"
            raise DataError(f"The splits {first} and {split} have other classes in {where}; cast one of them.")
    return names


def _lists(column: pa.ChunkedArray, classes: bool, where: str) -> _Lists:
    """Lists, or one value a row; a null, and of a column of classes -1, is no label. DataError for other values."""
    parts = [_flat(chunk, where) for chunk in column.chunks] or [_flat(pa.array([], column.type), where)]
    values = pa.chunked_array([values for values, _ in parts])
    missing = pc.is_null(values)
    if classes:
        missing = pc.or_(missing, pc.fill_null(pc.equal(values, NO_LABEL), False))
    indptr = np.concatenate([[0], np.cumsum(np.concatenate([lengths for _, lengths in parts]))])
    lost = np.concatenate([[0], np.cumsum(missing.to_numpy())])
    return _Lists(values.filter(pc.invert(missing)), indptr - lost[indptr])


def _flat(array: pa.Array, where: str) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Values, int64 or large_string, and the number of values of each row."""
    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
        values = array.flatten()
    else:
        lengths, values = np.ones(len(array), np.int64), array
    if pa.types.is_integer(values.type):
        return values.cast(pa.int64()), lengths
    known = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary, pa.types.is_null)
    if not any(is_known(values.type) for is_known in known):
        raise DataError(f"{where} must hold strings, ints or lists of these, but is of type {array.type}.")
    return values.cast(pa.large_string()), lengths


def _known_labels(
    occurring: list[pa.ChunkedArray], names: list[str] | None, label_texts: LabelTexts | None, labels: str
) -> _Known:
    """The classes, or those of label_texts, or those that occur, sorted."""
    kinds = {values.type for values in occurring}
    if len(kinds) > 1:
        raise DataError(f"The column {labels!r} holds strings in one split, and ints in another.")
    kind = kinds.pop()
    if names is not None:
        texts = names if label_texts is None else _texts_in_order(label_texts, names)
        return _Known(pa.array(np.arange(len(names))), names, texts)
    if isinstance(label_texts, Mapping):
        try:
            keys = pa.array(list(label_texts), kind)
        except (pa.ArrowException, TypeError) as error:
            raise InputError(f"The keys of label_texts must be labels as in the column {labels!r}: {error}") from error
        return _Known(keys, [str(key) for key in label_texts], [str(text) for text in label_texts.values()])
    if label_texts is not None:
        if not pa.types.is_integer(kind):
            raise InputError("The labels are strings: give label_texts as a mapping from labels to texts.")
        texts = _texts_in_order(label_texts, None)
        return _Known(pa.array(np.arange(len(texts))), [str(row) for row in range(len(texts))], texts)
    values = pc.unique(pa.chunked_array([chunk for values in occurring for chunk in values.chunks], kind))
    ordered = values.take(pc.sort_indices(values))
    uids = [str(value) for value in ordered.to_pylist()]
    return _Known(ordered, uids, uids)


def _texts_in_order(label_texts: LabelTexts, names: list[str] | None) -> list[str]:
    """A text for each class by its name, or by its number."""
    if isinstance(label_texts, str):
        raise InputError("label_texts must be a mapping or a list of texts, but is a string.")
    if isinstance(label_texts, Mapping):
        classes = names or []
        if unknown := [key for key in label_texts if key not in classes]:
            raise InputError(
                f"label_texts has {unknown[0]!r}, which is not the name of a class; classes are {classes}."
            )
        return [str(label_texts.get(name, name)) for name in classes]
    if names is not None and len(label_texts) != len(names):
        raise InputError(f"label_texts has {len(label_texts)} texts for {len(names)} classes.")
    return [str(text) for text in label_texts]


def _label_rows(lists: _Lists, known: _Known, split: str) -> pa.Array:
    """The rows of labels in the label table; DataError for a label that is not there."""
    rows = pc.index_in(lists.values, value_set=known.values)
    if rows.null_count:
        label = lists.values.filter(pc.is_null(rows))[0].as_py()
        raise DataError(f"The split {split} has the label {label!r}, which label_texts does not have; add it there.")
    return _rows(rows.to_numpy(), lists.indptr, len(known.uids))


def _rows(rows: npt.NDArray[np.int32], indptr: npt.NDArray[np.int64], labels: int) -> pa.Array:
    """Lists of label rows, sorted, each once."""
    matrix = csr_matrix((np.ones(len(rows), bool), rows.copy(), indptr), shape=(len(indptr) - 1, labels))
    matrix.sum_duplicates()
    return pa.ListArray.from_arrays(pa.array(matrix.indptr, pa.int32()), pa.array(matrix.indices, pa.int32()))


def _texts(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Strings; a null is an empty one."""
    if not any(holds(column.type) for holds in (pa.types.is_string, pa.types.is_large_string, pa.types.is_null)):
        raise DataError(f"{where} must hold strings, but is of type {column.type}; make texts of it with dataset.map.")
    return pc.fill_null(column.cast(pa.string()), "")
