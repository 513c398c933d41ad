"""What teachers say of the training queries: the best labels of each, weighted."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from scipy.sparse import csr_matrix, vstack
from scipy.special import softmax

from xmc.arrays import Mask, Rows
from xmc.config import DistillationConfig
from xmc.data.splits import DataLabels, Split
from xmc.errors import ConfigError, StoreError
from xmc.progress import tracked
from xmc.search.retriever import Retriever
from xmc.search.stages import SearchRequest

__all__ = ["taught_labels"]

logger = logging.getLogger("xmc.training")
Sureness = npt.NDArray[np.float64]
QUERIES_AT_ONCE = 4096


def taught_labels(config: DistillationConfig, queries: Split, labels: DataLabels) -> csr_matrix:
    """CSR float32 [N, L]: for each training query the best labels by its teachers, with weights that sum to 1.

    A teacher weights its best labels by the softmax of its scores. Labels are matched by uid; those that the data set does not
    have are left out before the softmax. Of several teachers each query has the mean, or what the surest says, see `_margins`
    (FedLabel so chooses between a client's model and the global one, by the greatest probability; Cho, Joshi & Dimitriadis,
    "Local or Global: Selective Knowledge Assimilation for Federated Learning with Limited Labels", ICCV 2023). The scores of
    all labels are never held: a teacher searches exactly, some queries at a time, with all stages that it has; where it
    remembers a query, that one does not vote for itself.
    Raises ConfigError where a teacher cannot be read, or shares no label with the data set.
    Source: soft labels as in Hinton et al., Distilling the Knowledge in a Neural Network, 2015, on the best labels.
    """
    said = [_taught_by(directory, config, queries, labels) for directory in config.teacher]
    if len(said) == 1:
        return said[0][0]
    return _of_the_surest(config, said) if config.choose == "surest" else _in_the_mean([weights for weights, _ in said])


def _of_the_surest(config: DistillationConfig, said: Sequence[tuple[csr_matrix, Sureness]]) -> csr_matrix:
    chosen = np.argmax([sureness for _, sureness in said], axis=0)
    for number, directory in enumerate(config.teacher):
        share = float((chosen == number).mean()) if len(chosen) else 0.0
        logger.info("%s is the surest teacher of %.1f%% of the queries", directory, 100 * share)
    return _sum([_only(weights, chosen == number) for number, (weights, _) in enumerate(said)])


def _in_the_mean(said: Sequence[csr_matrix]) -> csr_matrix:
    """Of the teachers that say something of a query."""
    total = _sum(said)
    sums = np.asarray(total.sum(axis=1), np.float32).ravel()
    total.data /= np.repeat(sums, np.diff(total.indptr))
    return total


def _sum(said: Sequence[csr_matrix]) -> csr_matrix:
    total = csr_matrix(sum(said[1:], start=said[0]))
    total.sort_indices()
    return total


def _taught_by(
    directory: str, config: DistillationConfig, queries: Split, labels: DataLabels
) -> tuple[csr_matrix, Sureness]:
    """What one teacher says, CSR float32 [N, L], and how sure it is of each query, float64 [N]."""
    try:
        teacher = Retriever.load(directory).exact()
    except StoreError as error:
        raise ConfigError(f"objective.distillation.teacher must name a finished run: {error}") from error
    known = pc.index_in(teacher.labels.uids, value_set=labels.uids)
    if known.null_count == len(known):
        raise ConfigError(f"objective.distillation.teacher {directory} shares no label uid with the data set.")
    rows_of = np.append(pc.fill_null(known.cast("int64"), -1).to_numpy(), -1)
    temperature = float(teacher.model.temperature.detach())
    count, chunks, sureness = min(config.labels, len(teacher)), [], [np.zeros(0)]
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
        sureness.append(_margins(scores / temperature, is_known))
        queries_of = np.repeat(np.arange(len(some)), count).reshape(rows.shape)[is_known]
        shape = (len(some), len(labels))
        chunks.append(csr_matrix((weights[is_known].astype(np.float32), (queries_of, rows[is_known])), shape))
    logger.info("learning from %s too: its %d best labels of each query", directory, count)
    return csr_matrix(vstack(chunks, format="csr")), np.concatenate(sureness)


def _margins(logits: npt.NDArray[np.floating], is_known: Mask) -> Sureness:
    """How far the best of each row of logits is above the mean of what is known of it, float64 [n]; -inf where nothing is.

    The greatest probability would say less: a query's several right labels share it, and a sure teacher of such a query would
    seem less sure than one that knows nothing of it.
    """
    counts = is_known.sum(axis=1)
    means = np.where(is_known, logits, 0).sum(axis=1, dtype=np.float64) / np.maximum(counts, 1)
    return np.where(counts > 0, np.where(is_known, logits, -np.inf).max(axis=1, initial=-np.inf) - means, -np.inf)


def _only(weights: csr_matrix, rows: Mask) -> csr_matrix:
    """The rows of a mask [N]; others are empty."""
    kept = np.repeat(rows, np.diff(weights.indptr))
    indptr: Rows = np.concatenate([[0], np.cumsum(kept)])[weights.indptr]
    return csr_matrix((weights.data[kept], weights.indices[kept], indptr), shape=weights.shape)
