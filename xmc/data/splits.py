"""The two sides of a data set in memory: the queries of a split, and the labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import csr_matrix

from xmc.arrays import Mask
from xmc.data.images.ragged import RaggedImages
from xmc.data.targets import Targets

__all__ = ["DataLabels", "Split"]


@dataclass(frozen=True)
class DataLabels:
    """The L labels of a data set, by row.

    uids, texts: Arrow strings. columns: further columns, perhaps none. images: embeddings of the images of each label;
    None where the data set has none.
    """

    uids: pa.ChunkedArray
    texts: pa.ChunkedArray
    columns: pa.Table
    images: RaggedImages | None = None

    def __len__(self) -> int:
        return len(self.uids)

    def __repr__(self) -> str:
        """Number of labels, and what is known of them beside uid and text."""
        columns = f", columns {', '.join(self.columns.column_names)}" if self.columns.num_columns else ""
        return f"<{type(self).__name__}: {len(self):,} labels{columns}{', with images' if self.images is not None else ''}>"


@dataclass(frozen=True)
class Split:
    """The n queries of a split, by row.

    uids, texts: Arrow strings. positives: scipy CSR float32 [n, L], sorted; a stored value is the relevance, greater
    than 0, and 1 where the data set gives none. rejected: CSR bool [n, L], sorted, the pairs that were judged not
    relevant: those of relevance 0, and those of the column `rejected`. images: embeddings of the images of each query;
    None where the data set has none. labelled: bool [n], False for a query of whose labels nothing is known; None where all
    queries are labelled.
    """

    uids: pa.ChunkedArray
    texts: pa.ChunkedArray
    positives: csr_matrix
    rejected: csr_matrix
    images: RaggedImages | None = None
    labelled: Mask | None = None

    def __len__(self) -> int:
        return len(self.uids)

    def __repr__(self) -> str:
        """Number of queries, labels and pairs."""
        pairs = f"{self.positives.nnz:,} positive pairs" + (
            f", {self.rejected.nnz:,} rejected" if self.rejected.nnz else ""
        )
        images = ", with images" if self.images is not None else ""
        if self.labelled is not None:
            pairs += f", {int((~self.labelled).sum()):,} queries not labelled"
        return f"<{type(self).__name__}: {len(self):,} queries, {self.positives.shape[1]:,} labels, {pairs}{images}>"

    def take(self, rows: npt.NDArray[np.integer]) -> Split:
        """The queries `rows`, in that order."""
        arrow_rows = pa.array(rows)
        images = None if self.images is None else self.images.take(rows)
        labelled = None if self.labelled is None else self.labelled[rows]
        uids, texts = self.uids.take(arrow_rows), self.texts.take(arrow_rows)
        return Split(uids, texts, self.positives[rows], self.rejected[rows], images, labelled)

    def targets(self, excluded: npt.NDArray[np.integer] | None = None) -> Targets:
        """What is known of the pairs of these queries; `excluded`: filter pairs (query, label), int [m, 2].

        Raises InputError for filter pairs outside of the split.
        """
        return Targets.from_pairs(self.positives, self.rejected, excluded, self.labelled)
