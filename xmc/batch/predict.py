"""Prediction as a job: rows of texts, tokens or embeddings in, labels and scores out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from xmc.batch.calibrated import parse_parts, require_calibrated
from xmc.batch.columns import columns_of_input
from xmc.batch.form import OutputForm
from xmc.batch.job import run_job
from xmc.batch.options import JobOptions
from xmc.batch.search import JobSearch, load_search
from xmc.batch.summary import Summary
from xmc.batch.work import Chunk, Step, Work, WorkSpecification, embeddings_of, features_of, tokens_in
from xmc.calibration.decisions import Policy
from xmc.calibration.sets import Wanted
from xmc.errors import InputError
from xmc.search.answers import Answer, AnswerParts
from xmc.search.calibrated import with_parts
from xmc.search.passages import PassageOptions
from xmc.search.run_directory import RunDirectory
from xmc.search.stages import Stage

__all__ = ["Prediction", "predict_files"]


def predict_files(
    run: str | Path,
    source: str | Path,
    destination: str | Path,
    k: int = 10,
    *,
    where: str | None = None,
    rerank: bool | None = None,
    label_texts: bool = False,
    probabilities: bool = False,
    sets: Wanted | str | None = None,
    decide: Policy | str | None = None,
    passages: PassageOptions | None = None,
    keep_columns: bool | Sequence[str] = False,
    format: str = "parquet",
    separator: str | None = None,
    formulas: str | None = None,
    options: JobOptions | None = None,
) -> Summary:
    """Predict the k best labels of every row of some files into a folder of Parquet, CSV or JSON lines files.

    source: a Parquet, Arrow, CSV or JSONL file, the last two perhaps gzipped, a folder of such, a glob, or the address of one
        of these (s3://, gs://, abfs://, and whatever fsspec knows).
    destination: a folder, new or empty, or with options.resume that of the same job. See xmc.batch.output for what is in it.
        Columns: uid string, labels list<string>, scores list<float32>, best first, and with `label_texts` texts list<string>.
    where: a condition over the label columns, as of Retriever.predict; where it leaves fewer than k labels, lists are shorter.
    rerank: False leaves the run's re-ranker out, True refuses a run that has none; None uses what the run has.
    probabilities, sets, decide: of a calibrated run, over all labels by its own index: the probability of each of `labels`;
        label sets with a guarantee, "recall=0.9", "false-positive-share=0.1" or "significance=0.1"; what to do with each of
        `labels`, "automatic=0.9,person=0.1". See xmc.search.answers.AnswerParts for the columns.
    passages: how each text is cut into passages, as of Retriever.predict; not for tokens, embeddings and calibrated answers.
    keep_columns: True writes all columns of the input between uid and labels, a list those of these names. Those of text files
        are strings; a value of JSON lines that is no string is written as JSON. A bad row that is written keeps them too.
    format: "parquet", "csv" or "jsonl". In CSV a list is one cell, its items cut by `separator`, by default ",": labels that
        hold it, or begin or end with blanks, are refused, so that `xmc evaluate` reads exactly the labels that were written.
    formulas: of CSV, what becomes of texts that a spreadsheet would take for formulas: by default "escape", an apostrophe is
        put before them, which `xmc evaluate` takes away again; "keep" leaves them as they are, for programs.

    A part, `options.rows_per_part` rows of one file, appears whole or not at all, with its rows in their order; memory does not
    depend on the size of the input. A job that was killed is resumed without a row lost or doubled.

    Raises DataError for input that cannot be read or, as options.on_bad_row says, a bad row, with the file and the row, and for
    a column to keep that has the name of one of the result; StoreError for a run that cannot be loaded and a destination that
    is another job's, or being written to; InputError for a condition that does not fit the labels, and, before the input is
    looked at, for a run that is not calibrated, where it must be, and what its calibration or the format cannot give;
    ConfigError for a format that is none.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, but is {k}.")
    options = options or JobOptions()
    parts = parse_parts(probabilities, sets, decide)
    _require_texts(passages, parts, options)
    if parts:
        require_calibrated(parts, str(run), k, where, rerank, options)
    form = OutputForm.from_options(format, separator, keep_columns, formulas)
    _require_form(form, str(run), parts, label_texts)
    options = replace(options, columns=columns_of_input(options.columns, run, str(source)))
    place = str(Path(run).absolute())
    prediction = Prediction(place, options.columns, k, where, rerank, label_texts, parts, passages, options.device)
    return run_job(prediction, str(source), str(destination), options, form)


def _require_texts(passages: PassageOptions | None, parts: AnswerParts, options: JobOptions) -> None:
    """Raise InputError for passages of what is not text, and for answers that a calibration judges, which saw whole texts."""
    if passages is None:
        return
    if options.columns.tokens is not None or options.columns.embedding is not None:
        raise InputError("passages are cut of texts; name a column of texts, or leave passages out.")
    if parts:
        raise InputError(f"A run is calibrated for whole texts; leave out passages, or {', '.join(parts.describe())}.")


def _require_form(form: OutputForm, run: str, parts: AnswerParts, label_texts: bool) -> None:
    """Raise InputError where the format cannot hold the parts of an answer, or the labels of the run."""
    form.require_columns(parts.schema(label_texts))
    if form.separator:
        labels = RunDirectory(run).read_labels()
        form.require_items(labels.uids.to_pylist(), "label")
        if label_texts:
            form.require_items([text or "" for text in labels.texts.to_pylist()], "text of a label")


@dataclass(frozen=True)
class Prediction(WorkSpecification):
    """The k best labels of each row, of those that a condition allows."""

    k: int
    where: str | None
    rerank: bool | None
    label_texts: bool
    parts: AnswerParts
    passages: PassageOptions | None = None
    device: str | tuple[str, ...] = "auto"

    def describe(self) -> dict[str, Any]:
        """See WorkSpecification."""
        asked = {"k": self.k, "where": self.where, "label_texts": self.label_texts, **self.parts.describe()}
        if self.passages is not None:
            asked["passages"] = self.passages.describe()
        asked |= {} if self.rerank is None else {"rerank": self.rerank}
        return {"work": "predict", "run": RunDirectory(self.run).fingerprint, **asked}

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns of the result."""
        return pa.schema([pa.field("uid", pa.string()), *self.parts.schema(self.label_texts)])

    @property
    def names(self) -> tuple[str, ...]:
        """See WorkSpecification."""
        return tuple(self.schema.names)

    def load(self, shards: tuple[Any, ...] = ()) -> Work:
        """See WorkSpecification."""
        search = load_search(self.run, self.k, self.where, shards, bool(self.parts), self.rerank, self.device)
        return _Predicting(search.with_passages(self.passages), self)


class _Predicting(Work):
    def __init__(self, search: JobSearch, asked: Prediction) -> None:
        self._search, self._asked = search, asked
        self.device, self.dimension = next(search.model.parameters()).device, search.model.dimension
        self.schema = asked.schema
        stages: tuple[Step, ...] = tuple((stage.name, _step(stage)) for stage in search.corridor.stages)
        self.steps = (("tokenise", self._begin), *stages, ("columns", self._columns))

    def _begin(self, chunk: Chunk) -> Chunk:
        """The rows' embeddings, or texts with what the encoder makes of them, as the state before the first stage."""
        columns, rows = self._asked.columns, chunk.rows
        if columns.embedding is not None:
            return replace(chunk, value=self._search.begin(embeddings_of(rows, self.dimension), None))
        encoder = self._search.model.query_encoder
        if self._asked.passages is not None:
            return replace(chunk, value=self._search.begin(rows.payload.to_pylist(), None))
        features = features_of(rows, columns, encoder, "query")
        queries = features if columns.tokens is not None else rows.payload.to_pylist()
        return replace(chunk, value=self._search.begin(queries, features), tokens=tokens_in(features, encoder))

    def _columns(self, chunk: Chunk) -> Chunk:
        """The answer to the good rows as columns of all rows."""
        answer, calibration = Answer.from_state(chunk.value), self._search.calibration
        if calibration is not None:
            answer = with_parts(answer, calibration, self._asked.parts, self._asked.k)
        columns = answer.columns(self._asked.label_texts, chunk.rows.good)
        return replace(chunk, value=pa.record_batch([chunk.rows.uids, *columns.values()], schema=self.schema))


def _step(stage: Stage) -> Callable[[Chunk], Chunk]:
    return lambda chunk: replace(chunk, value=stage(chunk.value))
