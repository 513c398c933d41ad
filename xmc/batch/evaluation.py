"""Written predictions against a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xmc.batch.finished import finished_job
from xmc.batch.output import JOB
from xmc.batch.spreadsheets import restored, restored_lists
from xmc.data.dataset import Dataset
from xmc.data.files import TextForm, WantedColumn, open_file
from xmc.data.files.addresses import ending_of
from xmc.data.targets import Targets
from xmc.errors import DataError, InputError, StoreError
from xmc.evaluation.evaluate import compare, depth_of, ks_of
from xmc.evaluation.evaluated import WrittenEvaluation
from xmc.evaluation.judged import judge
from xmc.evaluation.judging import most_excluded
from xmc.evaluation.labelled import LabelledPart
from xmc.evaluation.predicted import Predicted
from xmc.metrics import KS, NO_PREDICTION, RECALL_KS, UNKNOWN_LABEL, Measure, measures_of, usual_measures
from xmc.progress import progress
from xmc.storage.files import read_json

__all__ = ["evaluate_files", "is_predictions"]


def is_predictions(path: str | Path) -> bool:
    """Whether a path is a file of records, or a folder that a job wrote to."""
    path = Path(path)
    return (bool(ending_of(path.name)) and not path.is_dir()) or (path / JOB).is_file()


@progress("evaluating written predictions")
def evaluate_files(
    predictions: str | Path,
    dataset: Dataset,
    split: str = "test",
    *,
    k: int | Iterable[int] | None = None,
    metrics: str | Iterable[str] | None = None,
    keep_predictions: bool = False,
    separator: str | None = None,
) -> WrittenEvaluation:
    """Evaluate what xmc.batch.predict.predict_files wrote, or a file of records with the columns uid, labels and scores.

    k, metrics: what to compute, see `measures_of`; without them the usual metrics, at the k that the lists are long enough for.
    keep_predictions: keep what was read, for `write_trec`. separator: what cuts labels and scores in a cell of a CSV file, by
        default what a job says of its files, else ",".

    Queries and labels are matched by uid, with the split's filter file, and propensities from the training split where there
    is one. Raises StoreError for a job that is not finished, or files that are not as it wrote them, DataError for columns that
    lack, uids that stand twice, and where the two share no query or no label, InputError for a k that is longer than the lists.
    """
    asked = None if k is None and metrics is None else measures_of(metrics, k)
    table = _read(Path(predictions), separator)
    every = dataset.split(split)
    part = LabelledPart.from_split(every, dataset.targets(split), dataset.judgements(split))
    queries, targets, judgements = part.queries, part.targets, part.judgements
    uids = table["uid"]
    row = pc.index_in(queries.uids, value_set=uids)
    missing = int(row.null_count)
    known = int(pc.sum(pc.is_in(uids, value_set=queries.uids)).as_py() or 0)
    unknown = len(uids) - int(pc.sum(pc.is_in(uids, value_set=every.uids)).as_py() or 0)
    if not known:
        raise DataError(
            f"{predictions} and the split {split!r} of {dataset.name!r} share no query uid; is it another split?"
        )
    if known > len(queries) - missing:
        raise DataError(
            f"{predictions} has {known:,} lists for {len(queries) - missing:,} queries: some uids stand twice in it."
        )
    lists = table.take(row)
    predicted = _predicted(lists, dataset, predictions)
    longest = predicted.labels.shape[1]
    training = dataset.split("train") if "train" in dataset.splits else None
    measures = _measures(asked, targets, longest, predictions)
    found = compare(predicted.labels, predicted.scores, dataset, targets, training, measures)
    return WrittenEvaluation(
        found,
        len(queries),
        longest,
        missing,
        unknown,
        most_excluded(targets),
        uids=queries.uids,
        judged=None if judgements is None else judge(predicted, judgements, targets, ks_of(measures)),
        predicted=part.spread(predicted, len(every)) if keep_predictions else None,
    )


def _measures(
    asked: Sequence[Measure] | None, targets: Targets, longest: int, predictions: str | Path
) -> Sequence[Measure]:
    """What is asked for, or the usual metrics at the k that lists of `longest` labels are long enough for."""
    if asked is None:
        return usual_measures([k for k in KS if k <= longest], [k for k in RECALL_KS if k <= longest] or [longest])
    for measure in asked:
        if (depth := depth_of([measure], targets)) > longest:
            raise InputError(
                f"{measure.title} looks at {depth} labels of each query, but the longest list of {predictions} has {longest}; "
                f"predict with --k {depth + most_excluded(targets)}, or ask for a smaller k."
            )
    return asked


def _predicted(lists: pa.Table, dataset: Dataset, predictions: str | Path) -> Predicted:
    """The lists of each query of a split, null for none; DataError where they have no label of the data set."""
    lengths = pc.fill_null(pc.list_value_length(lists["labels"]), 0).to_numpy()
    longest = int(lengths.max(initial=0))
    encoded = pc.list_flatten(lists["labels"]).dictionary_encode().combine_chunks()
    row_of_uid = pc.index_in(encoded.dictionary, value_set=dataset.labels.uids)
    if len(row_of_uid) == row_of_uid.null_count:
        raise DataError(f"{predictions} and {dataset.name!r} share no label uid; is it the right data set?")
    rows_of_uids = pc.fill_null(row_of_uid.cast(pa.int64()), UNKNOWN_LABEL).to_numpy()
    filled = np.arange(longest)[None, :] < lengths[:, None]
    places = np.full(filled.shape, -1, np.int64)
    scores = np.full(filled.shape, -np.inf, np.float32)
    places[filled] = encoded.indices.to_numpy(zero_copy_only=False)
    scores[filled] = pc.list_flatten(lists["scores"]).to_numpy()
    labels = np.where(places < 0, NO_PREDICTION, rows_of_uids[places])
    return Predicted(encoded.dictionary, places, labels, scores)


def _read(path: Path, separator: str | None) -> pa.Table:
    """uid, labels list<string>, scores list<float32> of a file, or of the parts of a job."""
    files, job = [path], {}
    if path.is_dir():
        job = finished_job(path)
        separator = separator or job.get("separator")
        files = [path / part["name"] for part in job["parts"]]
    elif (path.parent / JOB).is_file():  # one part
        job = read_json(path.parent / JOB, StoreError)
    are_escaped = isinstance(job, dict) and job.get("formulas") == "escape"
    return pa.concat_tables([_lists(file, TextForm(separator=separator), are_escaped) for file in files])


def _lists(path: Path, form: TextForm, are_escaped: bool) -> pa.Table:
    """The predictions of a file. are_escaped: whether their texts are, see xmc.batch.spreadsheets."""
    wanted = [WantedColumn("uid", "uid"), WantedColumn("labels", "labels"), WantedColumn("scores", "relevance")]
    uids, labels, scores = open_file(path, wanted, form).columns()
    if are_escaped:
        uids, labels = restored(uids), restored_lists(labels)
    lengths = [pc.fill_null(pc.list_value_length(column), 0) for column in (labels, scores)]
    differ = pc.index(pc.not_equal(*lengths), True).as_py()
    if differ >= 0:
        counts = [length[differ].as_py() for length in lengths]
        raise DataError(
            f"{path}, row {differ + 1:,}: there are {counts[0]} labels and {counts[1]} scores; is the separator right?"
        )
    return pa.table({"uid": uids, "labels": labels, "scores": scores.cast(pa.list_(pa.float32()))})
