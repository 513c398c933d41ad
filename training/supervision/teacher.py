"""What a teacher says of the training queries: its best labels of each, weighted."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow.compute as pc
from scipy.sparse import csr_matrix, vstack
from scipy.special import softmax

from xmc.config import DistillationConfig
from xmc.data.splits import DataLabels, Split
from xmc.errors import ConfigError, StoreError
from xmc.progress import tracked
from xmc.search.retriever import Retriever
from xmc.search.stages import SearchRequest

__all__ = ["taught_labels"]

logger = logging.getLogger("xmc.training")
QUERIES_AT_ONCE = 4096


def taught_labels(config: DistillationConfig, queries: Split, labels: DataLabels) -> csr_matrix:
    """CSR float32 [N, L]: for each training query the teacher's best labels, with the softmax of its scores as values.

    Labels are matched by uid; those that the data set does not have are left out before the softmax. The teacher's scores
    of all labels are never held: it searches them exactly, some queries at a time, with all stages that it has; where it
    remembers a query, that one does not vote for itself.
    Raises ConfigError where the teacher cannot be read, or shares no label with the data set.
    Source: soft labels as in Hinton et al., Distilling the Knowledge in a Neural Network, 2015, on the best labels.
    """
    try:
        teacher = Retriever.load(config.teacher).exact()
    except StoreError as error:
        raise ConfigError(f"objective.distillation.teacher must name a finished run: {error}") from error
    known = pc.index_in(teacher.labels.uids, value_set=labels.uids)
    if known.null_count == len(known):
        raise ConfigError(f"objective.distillation.teacher {config.teacher} shares no label uid with the data set.")
    rows_of = np.append(pc.fill_null(known.cast("int64"), -1).to_numpy(), -1)
    count, chunks = min(config.labels, len(teacher)), []
    batches = (
        queries.take(np.arange(start, min(start + QUERIES_AT_ONCE, len(queries))))
        for start in range(0, len(queries), QUERIES_AT_ONCE)
    )
    for some in tracked(batches, "asking the teacher", len(queries), unit="queries", size=len):
        texts, images = pc.fill_null(some.texts, "").to_pylist(), teacher.model.query_encoder.images_of(some.images)
        request = SearchRequest(count, allow_empty=True, leave_one_out=True)
        ids, scores = teacher.corridor(teacher.corridor.begin(request, teacher.labels, texts, images)).ranked()
        rows = rows_of[teacher.labels.rows_of_ids(ids)]
        is_known = rows >= 0
        weights = softmax(np.where(is_known, scores / config.temperature, -1e30), axis=1) * is_known
        queries_of = np.repeat(np.arange(len(some)), count).reshape(rows.shape)[is_known]
        shape = (len(some), len(labels))
        chunks.append(csr_matrix((weights[is_known].astype(np.float32), (queries_of, rows[is_known])), shape))
    logger.info("learning from %s too: its %d best labels of each query", config.teacher, count)
    return csr_matrix(vstack(chunks, format="csr"))
