"""What scikit-learn's callers give as X and y: texts, and one label each, lists of labels or an indicator matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, issparse

from xmc.errors import InputError

__all__ = ["Target", "read_texts"]

LISTS = (list, tuple, set, frozenset, np.ndarray)
"""Types of a collection of one text's labels."""
DENSE_UP_TO = 1_000
"""Predictions over more labels that were given as lists are a sparse matrix."""


@dataclass(frozen=True)
class Target:
    """Labels of n texts.

    kind: one label each ("single"), or several, which predictions have as a "dense" or "sparse" indicator matrix.
    classes: the labels [L], sorted; of an indicator matrix its column numbers. is_matrix: whether it was given as one.
    positives: bool CSR [n, L], which texts have which.
    """

    kind: Literal["single", "dense", "sparse"]
    classes: npt.NDArray[Any]
    positives: csr_matrix
    is_matrix: bool = False

    @classmethod
    def read(cls, y: Any) -> Target:
        """Labels as a caller gives them; see XMCClassifier.fit.

        Raises InputError for labels of several types or none, ValueError, as scikit-learn does, for continuous numbers.
        """
        from sklearn.preprocessing import MultiLabelBinarizer
        from sklearn.utils import check_array, column_or_1d
        from sklearn.utils.multiclass import check_classification_targets, type_of_target

        if y is None:
            raise ValueError("XMCClassifier requires y to be passed, but the target y is None.")
        values: Any = y if issparse(y) else _array(y)
        if values.ndim == 2:
            indicator = check_array(values, accept_sparse="csr", dtype=None)
            if indicator.shape[1] == 1 and not issparse(indicator):
                return cls.read(column_or_1d(indicator, warn=True))
            if type_of_target(indicator) != "multilabel-indicator":
                raise InputError(
                    "y is a matrix with other values than 0 and 1, or a single column; give an indicator matrix, a list of "
                    "lists of labels, or one label for each text."
                )
            kind: Literal["dense", "sparse"] = "sparse" if issparse(y) else "dense"
            positives = csr_matrix(indicator).astype(bool)
            positives.eliminate_zeros()
            return cls(kind, np.arange(positives.shape[1]), positives, is_matrix=True)
        if len(values) and all(isinstance(row, LISTS) for row in values):
            lists = [list(row) for row in values]
            _check_types(label for row in lists for label in row)
            binarizer = MultiLabelBinarizer(sparse_output=True)
            positives = csr_matrix(binarizer.fit_transform(lists)).astype(bool)
            return cls("dense" if positives.shape[1] <= DENSE_UP_TO else "sparse", binarizer.classes_, positives)
        single = column_or_1d(y, warn=True)
        check_classification_targets(single)
        if single.dtype == object:
            _check_types(single)
        classes, rows = np.unique(single, return_inverse=True)
        ones = np.ones(len(single), bool)
        return cls("single", classes, csr_matrix((ones, rows, np.arange(len(rows) + 1)), (len(rows), len(classes))))

    def rows(self) -> list[list[int]]:
        """For each text, the rows of its labels in `classes`."""
        return [row.tolist() for row in np.split(self.positives.indices, self.positives.indptr[1:-1])]

    def labels(self) -> list[list[Any]]:
        """For each text, its labels."""
        return [self.classes[row].tolist() for row in self.rows()]


def read_texts(X: Any) -> list[str]:
    """Texts from a list, a one-dimensional array or a pandas Series; InputError, with the place, for what is no string."""
    if isinstance(X, str):
        raise InputError("X must be a list of texts; put a single text into a list.")
    texts = list(X)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"X must be a list of texts, but at {place} is {text!r:.100}, a {type(text).__name__}.")
    return [str(text) for text in texts]


def _array(y: Any) -> npt.NDArray[Any]:
    """A one-dimensional array of lists, for lists of labels of any lengths; else an array as numpy makes it."""
    if not isinstance(y, (list, tuple)) or not y or not isinstance(y[0], LISTS) or _is_indicator(y):
        return np.asarray(y)
    for place, row in enumerate(y):
        if not isinstance(row, LISTS):
            raise InputError(
                f"y begins with a list of labels, but at {place} is {row!r:.100}; give a list for each text."
            )
    array = np.empty(len(y), object)
    array[:] = [list(row) for row in y]
    return array


def _is_indicator(rows: Sequence[Any]) -> bool:
    """Whether nested lists are an indicator matrix, as scikit-learn takes them: 0 and 1 alone, and one of these repeated.

    A list of labels repeats none. InputError where it could be either.
    """
    try:
        matrix = np.asarray([list(row) for row in rows])
    except (TypeError, ValueError):  # rows of different lengths
        return False
    if matrix.ndim != 2 or matrix.shape[1] < 2 or matrix.dtype.kind not in "biu" or not np.isin(matrix, (0, 1)).all():
        return False
    if matrix.shape[1] == 2 and (matrix.sum(1) == 1).all():
        raise InputError("y could be an indicator matrix or lists of the labels 0 and 1; give a matrix as an array.")
    return True


def _check_types(labels: Any) -> None:
    kinds: set[type] = set()
    for label in labels:
        kinds.add(str if isinstance(label, str) else int if isinstance(label, (int, np.integer)) else type(label))
    if not kinds:
        raise InputError("y holds no labels; give some texts at least one.")
    if len(kinds) > 1 or not kinds & {str, int}:
        names = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"Labels must be all strings or all ints, but y holds {names}.")
