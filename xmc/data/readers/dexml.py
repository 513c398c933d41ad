"""The layout of the DEXML code: raw/trn_X.txt, raw/tst_X.txt, raw/Y.txt, and Y.trn.npz, Y.tst.npz (scipy CSR).

A stored value is a relevance, and a stored 0 a label that was judged not relevant.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from xmc.data.readers.raw_text import RawTextSource, text_rows
from xmc.data.readers.zipped_arrays import require_members_hold_their_arrays
from xmc.data.rows import Defect, Row
from xmc.errors import DataError, boundary

__all__ = ["DexmlSource"]


class DexmlSource(RawTextSource):
    """See the module."""

    format = "dexml"
    matrices: ClassVar[dict[str, str]] = {"train": "Y.trn.npz", "test": "Y.tst.npz"}

    def _columns(self) -> int | None:
        """See RawTextSource."""
        return _load(self._matrix(self.splits[0]))[3][1]

    def _joined(self, matrix: Path, texts: Path, labels: int) -> Iterator[Row | Defect]:
        """Texts beside the rows of the matrix."""
        indptr, indices, values, shape = _load(matrix)
        if shape[1] != labels:
            message = f"the matrix has {shape[1]} columns, but there are {labels} labels."
            yield Defect("error", matrix, 1, "header disagrees", message, unit="row")
        for row, text in zip_longest(range(shape[0]), text_rows(texts, self.form, shape[0])):
            if row is None or text is None:
                message = f"the matrix has {shape[0]} rows, but the texts {'go on' if row is None else 'end'}."
                yield Defect("error", texts, min(shape[0], row or shape[0]) + 1, "line counts differ", message)
                return
            if isinstance(text, Defect):
                yield text
                continue
            entries = slice(indptr[row], indptr[row + 1])
            yield Row(texts, text.line, text.uid, text.text, indices[entries].tolist(), values[entries].tolist())


def _load(file: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64], tuple[int, int]]:
    """The arrays of a scipy CSR file; object arrays (pickles) are refused."""
    with boundary(DataError, f"{file} cannot be read as a scipy CSR matrix without pickles"):
        require_members_hold_their_arrays(file)
        with np.load(file, allow_pickle=False) as arrays:
            if arrays["format"].item() not in (b"csr", "csr"):
                raise DataError(
                    f"{file} is not a CSR matrix; save it with scipy.sparse.save_npz(file, matrix.tocsr())."
                )
            indptr, indices = arrays["indptr"].astype(np.int64), arrays["indices"].astype(np.int64)
            values, shape = arrays["data"].astype(np.float64), arrays["shape"]
            rows, columns = int(shape[0]), int(shape[1])
    flat = indptr.ndim == indices.ndim == values.ndim == 1
    sound = (
        flat
        and len(indptr) == rows + 1
        and (np.diff(indptr) >= 0).all()
        and indptr[0] == 0
        and indptr[-1] == len(indices)
    )
    if not sound or len(values) != len(indices):
        raise DataError(f"{file} is damaged: its row pointers do not fit its {len(indices)} entries.")
    return indptr, indices, values, (rows, columns)
