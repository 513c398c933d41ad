"""What is predicted for the queries of a split, whoever predicted it: labels by uid and by the data set's row, and scores."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute as pc

from xmc.arrays import Rows
from xmc.data.dataset import Dataset
from xmc.data.splits import Split
from xmc.errors import DataError
from xmc.metrics import NO_PREDICTION, UNKNOWN_LABEL
from xmc.search.labels import LabelVersion
from xmc.search.retriever import Retriever

__all__ = ["Predicted", "dataset_rows"]


@dataclass(frozen=True)
class Predicted:
    """Predictions for n queries.

    uids: Arrow strings, of the labels that can be predicted. places: int64 [n, columns], which of `uids` is predicted, -1 for
    none. labels: int64 [n, columns], the data set's rows of these labels, UNKNOWN_LABEL for one that it lacks, NO_PREDICTION
    for none. scores: float32 [n, columns], -inf for none. seconds: of encoding and search; 0 where they were read from files.
    """

    uids: pa.Array | pa.ChunkedArray
    places: Rows
    labels: Rows
    scores: npt.NDArray[np.float32]
    seconds: float = 0.0

    @classmethod
    def from_search(cls, retriever: Retriever, dataset: Dataset, split: Split, k: int) -> Predicted:
        """The first k labels of a retriever for each query; DataError where it shares no label with the data set."""
        texts = pc.fill_null(split.texts, "").to_pylist()
        images = retriever.model.query_encoder.images_of(split.images)
        start = time.perf_counter()
        answer = retriever.answer(texts, k, images=images, allow_empty=True)
        seconds = time.perf_counter() - start
        version, ids, scores = answer.labels, answer.ids, answer.scores
        places = version.rows_of_ids(ids) if ids.size else ids
        labels = dataset_rows(version, dataset)[places] if ids.size else ids
        return cls(version.uids, places, labels, np.asarray(scores, np.float32), seconds)


def dataset_rows(labels: LabelVersion, dataset: Dataset) -> npt.NDArray[np.int64]:
    """The data set's row of each row of a retriever's labels, int64 [L + 1], UNKNOWN_LABEL for a label that it lacks.

    The last entry is for the row -1, no prediction. Raises DataError where the two share no label.
    """
    indices = pc.index_in(labels.uids, value_set=dataset.labels.uids)
    if len(labels) and indices.null_count == len(indices):
        raise DataError(
            f"The retriever and the data set {dataset.name!r} share no label uid; is it the right data set?"
        )
    rows = pc.fill_null(indices.cast("int64"), UNKNOWN_LABEL).to_numpy()
    return np.append(rows, NO_PREDICTION)
