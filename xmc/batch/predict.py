"""Prediction as a job: rows of texts, tokens or embeddings in, labels and scores out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from xmc.batch.job import run_job
from xmc.batch.options import JobOptions
from xmc.batch.search import Embeddings, Ids, LabelSearch, load_search
from xmc.batch.summary import Summary
from xmc.batch.work import Chunk, Work, WorkSpecification, encode, run_fingerprint, spread, tokenise
from xmc.errors import InputError

__all__ = ["Prediction", "predict_files"]


def predict_files(
    run: str | Path,
    source: str | Path,
    destination: str | Path,
    k: int = 10,
    *,
    where: str | None = None,
    label_texts: bool = False,
    options: JobOptions | None = None,
) -> Summary:
    """Predict the k best labels of every row of some files into a folder of Parquet files.

    source: a Parquet, Arrow, CSV or JSONL file, the last two perhaps gzipped, a folder of such, a glob, or the address of one
        of these (s3://, gs://, abfs://, and whatever fsspec knows).
    destination: a folder, new or empty, or with options.resume that of the same job. See xmc.batch.output for what is in it.
        Columns: uid string, labels list<string>, scores list<float32>, best first, and with `label_texts` texts list<string>.
    where: a condition over the label columns, as of Retriever.predict; where it leaves fewer than k labels, lists are shorter.

    A part, `options.rows_per_part` rows of one file, appears whole or not at all, with its rows in their order; memory does not
    depend on the size of the input. A job that was killed is resumed without a row lost or doubled.

    Raises DataError for input that cannot be read or, as options.on_bad_row says, a bad row, with the file and the row;
    StoreError for a run that cannot be loaded and a destination that is another job's, or being written to; InputError for a
    condition that does not fit the labels.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, but is {k}.")
    options = options or JobOptions()
    prediction = Prediction(str(Path(run).absolute()), options.columns, k, where, label_texts)
    return run_job(prediction, str(source), str(destination), options)


@dataclass(frozen=True)
class Prediction(WorkSpecification):
    """The k best labels of each row, of those that a condition allows."""

    k: int
    where: str | None
    label_texts: bool

    def describe(self) -> dict[str, Any]:
        """See WorkSpecification."""
        own = {"k": self.k, "where": self.where, "label_texts": self.label_texts}
        return {"work": "predict", "run": run_fingerprint(self.run), **own}

    def load(self, shards: tuple[Any, ...] = ()) -> Work:
        """See WorkSpecification."""
        return _Predicting(load_search(self.run, self.where, shards), self)


class _Predicting(Work):
    def __init__(self, search: LabelSearch, asked: Prediction) -> None:
        self._search, self._k = search, asked.k
        model = search.model
        self.device, self.dimension = next(model.parameters()).device, model.dimension
        self._uids = search.labels.uids.combine_chunks()
        self._texts = search.labels.texts.combine_chunks() if asked.label_texts else None
        fields = [("uid", pa.string()), ("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))]
        self.schema = pa.schema(fields + ([("texts", pa.list_(pa.string()))] if asked.label_texts else []))
        self.stages = (
            ("tokenise", tokenise(model.query_encoder, asked.columns, "query")),
            ("encode", encode(model, asked.columns, "query")),
            ("search", self._found),
        )

    def _found(self, chunk: Chunk) -> Chunk:
        ids, scores = self._search.search(chunk.value, self._k)
        return Chunk(chunk.rows, self._batch(chunk, self._search.labels.rows_of_ids(ids), scores))

    def _batch(self, chunk: Chunk, rows: Ids, scores: Embeddings) -> pa.RecordBatch:
        """Labels by their row, -1 for none, as lists."""
        kept = rows >= 0
        offsets, missing = spread(chunk.rows, kept.sum(axis=1))
        places = pa.array(rows[kept])
        lists = [self._uids.take(places), pa.array(scores[kept])]
        if self._texts is not None:
            lists.append(self._texts.take(places))
        columns = [pa.ListArray.from_arrays(offsets, values, mask=missing) for values in lists]
        return pa.record_batch([chunk.rows.uids, *columns], schema=self.schema)
