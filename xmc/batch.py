"""Batch prediction: Parquet in, Parquet out, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress

from xmc.errors import DataError
from xmc.filters import Condition, Mask, matching
from xmc.retriever import Retriever
from xmc.store import atomic_file

__all__ = ["predict_parquet"]

SCHEMA = pa.schema([("uid", pa.string()), ("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])


def predict_parquet(
    retriever: Retriever,
    source: str | Path,
    destination: str | Path,
    k: int = 10,
    batch_size: int = 4096,
    where: Condition | None = None,
) -> int:
    """Predict the k best labels of each row of `source` (columns uid, text) into `destination`; returns the rows.

    where: a condition over the label columns, as of Retriever.predict; where it leaves fewer than k labels, lists are shorter.
    Rows keep their order; a null text is predicted as an empty one. Columns written: uid string, labels list<string>,
    scores list<float32>. Raises DataError for a file that is not Parquet or lacks a column,
    and InputError for a condition that does not fit the labels.
    """
    try:
        file = pq.ParquetFile(source)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{source} cannot be read as Parquet: {error}") from error
    missing = {"uid", "text"} - set(file.schema_arrow.names)
    if missing:
        raise DataError(
            f"{source} has no column {sorted(missing)[0]!r}, only {', '.join(file.schema_arrow.names)}; "
            f"uid and text are needed."
        )
    allowed = None if where is None else matching(retriever.labels, where)
    console = Console(stderr=True)
    rows = 0
    with (
        Progress(console=console, disable=not console.is_terminal) as progress,
        atomic_file(destination) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer,
    ):
        task = progress.add_task("predicting", total=file.metadata.num_rows)
        for batch in file.iter_batches(batch_size, columns=["uid", "text"]):
            writer.write_batch(_predict(retriever, batch, k, allowed))
            rows += len(batch)
            progress.advance(task, len(batch))
    return rows


def _predict(retriever: Retriever, batch: pa.RecordBatch, k: int, allowed: Mask | None) -> pa.RecordBatch:
    texts = [text or "" for text in batch.column("text").cast(pa.string()).to_pylist()]
    labels, scores = retriever.predict(texts, k, include=allowed)
    found = [[uid for uid in row if uid is not None] for row in labels]
    kept = [row[: len(uids)] for row, uids in zip(scores, found, strict=True)]
    columns = [batch.column("uid").cast(pa.string()), pa.array(found, SCHEMA.field("labels").type)]
    return pa.record_batch([*columns, pa.array(kept, SCHEMA.field("scores").type)], schema=SCHEMA)
