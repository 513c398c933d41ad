"""Prediction as a job: rows of texts, tokens or embeddings in, labels and scores out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from xmc.batch.calibrated import CalibratedColumns, read_calibration
from xmc.batch.job import run_job
from xmc.batch.options import JobOptions
from xmc.batch.search import LabelSearch, load_search
from xmc.batch.summary import Summary
from xmc.batch.work import Chunk, Work, WorkSpecification, encode, spread, tokenise
from xmc.calibration.calibration import require_calibration
from xmc.calibration.decisions import Policy
from xmc.calibration.sets import Wanted
from xmc.errors import InputError
from xmc.search.run_directory import RunDirectory

__all__ = ["Prediction", "predict_files"]

logger = logging.getLogger("xmc.batch")


def predict_files(
    run: str | Path,
    source: str | Path,
    destination: str | Path,
    k: int = 10,
    *,
    where: str | None = None,
    label_texts: bool = False,
    probabilities: bool = False,
    sets: Wanted | str | None = None,
    decide: Policy | str | None = None,
    options: JobOptions | None = None,
) -> Summary:
    """Predict the k best labels of every row of some files into a folder of Parquet files.

    source: a Parquet, Arrow, CSV or JSONL file, the last two perhaps gzipped, a folder of such, a glob, or the address of one
        of these (s3://, gs://, abfs://, and whatever fsspec knows).
    destination: a folder, new or empty, or with options.resume that of the same job. See xmc.batch.output for what is in it.
        Columns: uid string, labels list<string>, scores list<float32>, best first, and with `label_texts` texts list<string>.
    where: a condition over the label columns, as of Retriever.predict; where it leaves fewer than k labels, lists are shorter.
    probabilities, sets, decide: of a calibrated run, over all labels by its own index: the probability of each of `labels`;
        label sets with a guarantee, "recall=0.9", "false-positive-share=0.1" or "significance=0.1"; what to do with each of
        `labels`, "automatic=0.9,person=0.1". See xmc.batch.calibrated.CalibratedColumns for the columns.

    A part, `options.rows_per_part` rows of one file, appears whole or not at all, with its rows in their order; memory does not
    depend on the size of the input. A job that was killed is resumed without a row lost or doubled.

    Raises DataError for input that cannot be read or, as options.on_bad_row says, a bad row, with the file and the row;
    StoreError for a run that cannot be loaded and a destination that is another job's, or being written to; InputError for a
    condition that does not fit the labels, and, before the input is looked at, for a run that is not calibrated, where it must
    be, and what its calibration cannot give.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, but is {k}.")
    options = options or JobOptions()
    calibrated = CalibratedColumns.of(probabilities, sets, decide)
    if calibrated:
        _require_calibrated(calibrated, run, k, where, options)
    prediction = Prediction(str(Path(run).absolute()), options.columns, k, where, label_texts, calibrated)
    return run_job(prediction, str(source), str(destination), options)


@dataclass(frozen=True)
class Prediction(WorkSpecification):
    """The k best labels of each row, of those that a condition allows."""

    k: int
    where: str | None
    label_texts: bool
    calibrated: CalibratedColumns

    def describe(self) -> dict[str, Any]:
        """See WorkSpecification."""
        own = {"k": self.k, "where": self.where, "label_texts": self.label_texts, **self.calibrated.describe()}
        return {"work": "predict", "run": RunDirectory(self.run).fingerprint, **own}

    def load(self, shards: tuple[Any, ...] = ()) -> Work:
        """See WorkSpecification."""
        return _Predicting(load_search(self.run, self.where, shards, bool(self.calibrated)), self)


class _Predicting(Work):
    def __init__(self, search: LabelSearch, asked: Prediction) -> None:
        self._search, self._asked = search, asked
        self._calibration = (
            require_calibration(search.calibration, f"The run {asked.run}") if asked.calibrated else None
        )
        model = search.model
        self.device, self.dimension = next(model.parameters()).device, model.dimension
        self._uids = search.labels.uids.combine_chunks()
        self._texts = search.labels.texts.combine_chunks() if asked.label_texts else None
        fields = [("uid", pa.string()), ("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))]
        fields += [("texts", pa.list_(pa.string()))] if asked.label_texts else []
        self.schema = pa.schema(fields + asked.calibrated.fields)
        self.stages = (
            ("tokenise", tokenise(model.query_encoder, asked.columns, "query")),
            ("encode", encode(model, asked.columns, "query")),
            ("search", self._found),
            ("columns", self._batch),
        )

    def _found(self, chunk: Chunk) -> Chunk:
        count = self._asked.k if self._calibration is None else self._calibration.candidates
        return Chunk(chunk.rows, self._search.search(chunk.value, count))

    def _batch(self, chunk: Chunk) -> Chunk:
        """Labels by their row, -1 for none, as lists."""
        ids, scores = chunk.value
        k, labels = self._asked.k, self._search.labels
        rows = labels.rows_of_ids(ids[:, :k])
        kept = rows >= 0
        offsets, missing = spread(chunk.rows, kept.sum(axis=1))
        places = pa.array(rows[kept])
        lists = [self._uids.take(places), pa.array(scores[:, :k][kept])]
        if self._texts is not None:
            lists.append(self._texts.take(places))
        columns = [pa.ListArray.from_arrays(offsets, values, mask=missing) for values in lists]
        if self._calibration is not None:
            columns += self._asked.calibrated.arrays(self._calibration, labels, chunk.rows, (ids, scores), k)
        return Chunk(chunk.rows, pa.record_batch([chunk.rows.uids, *columns], schema=self.schema))


def _require_calibrated(
    wanted: CalibratedColumns, run: str | Path, k: int, where: str | None, options: JobOptions
) -> None:
    """Raise InputError where a job cannot have these columns. Says what a policy is to expect."""
    names = ", ".join(wanted.describe())
    if where is not None:
        raise InputError(f"A run is calibrated for all of its labels; leave out the condition where, or {names}.")
    if options.index_shards:
        raise InputError(f"A run is calibrated with its own index; leave out index_shards, or {names}.")
    calibration = read_calibration(run)
    wanted.require(calibration, k)
    if wanted.decide is not None:
        expected = calibration.histogram.expect(wanted.decide)
        logger.info("expected, of all %d candidates of a row: %s", calibration.candidates, expected.sentence())
