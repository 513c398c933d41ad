"""From a model in training to a run directory: all labels embedded, an index, what the run was."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xmc.encoders.dual import DualEncoder
from xmc.search.retriever import Retriever
from xmc.search.run_metrics import RunMetrics, TrainingRecord
from xmc.training.distributed.sharding import whole_model
from xmc.training.embedding import embed_labels
from xmc.training.parts import TrainingRun

__all__ = ["retriever_of", "save_run"]

TUNING_QUERIES = 2_000
"""Queries whose embeddings are kept with a run, for tuning its index: they make the recall certain to a fifth of a percent."""


def retriever_of(run: TrainingRun, index: str = "") -> Retriever | None:
    """The model with all labels, in the root process, None elsewhere; every process gives its labels to it.

    index: the design of the index; by default the configured one.
    """
    with contextlib.ExitStack() as stack:
        for part in run.parts:
            stack.enter_context(part.as_saved(run))
        embeddings = run.world.to_root(embed_labels(run.model, run.data.label_features, run.world))
    vectors = None if run.model.label_vectors is None else run.world.to_root(run.model.label_vectors)
    model = whole_model(run.model, vectors, run.config, run.world)
    if embeddings is None or model is None:
        return None
    table = run.data.dataset.labels
    uids, texts = table.uids.to_pylist(), table.texts.to_pylist()
    trained = None
    if all(kind.only_positives for kind in run.config.negatives):  # labels without queries were never seen
        trained = run.data.known.pulled
    queries = None if index and (trained is None or trained.all()) else _tuning_queries(run, model)
    return Retriever.from_model(
        model, uids, texts, run.config, index, embeddings.numpy(), table.columns, queries, trained
    )


def save_run(
    run: TrainingRun,
    retriever: Retriever | None,
    out: Path,
    interrupted: bool,
    validation: dict[str, float] | None = None,
) -> None:
    """Write the run directory, over one that is there; nothing in processes that have no retriever."""
    if retriever is None:
        return
    if not len(retriever.tuning_queries):
        retriever.tuning_queries = _tuning_queries(run, retriever.model)
    progress, dataset = run.progress, run.data.dataset
    record = TrainingRecord(
        progress.steps,
        progress.seconds,
        progress.loss,
        dataset.name,
        dataset.fingerprint,
        interrupted,
        dataset.source_columns,
    )
    retriever.metrics = RunMetrics(record, validation)
    retriever.save(out, overwrite=True)


def _tuning_queries(run: TrainingRun, model: DualEncoder) -> npt.NDArray[np.float32]:
    """Embeddings of queries to tune the index with: held out from training where some are."""
    split = run.data.validation or run.data.training
    drawn = np.random.default_rng(run.config.seed).permutation(len(split))[:TUNING_QUERIES]
    some = split.take(np.sort(drawn))
    return model.embed_queries(some.texts.to_pylist(), model.query_encoder.images_of(some.images))
