"""Written predictions against a data set."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xmc.batch.output import JOB, SUCCESS
from xmc.data.dataset import Dataset
from xmc.errors import DataError, StoreError
from xmc.evaluation.evaluate import KS, RECALL_KS, compare
from xmc.evaluation.judging import most_excluded
from xmc.metrics import NO_PREDICTION, UNKNOWN_LABEL, Metrics
from xmc.storage.fingerprints import sha256_file

__all__ = ["WrittenEvaluation", "evaluate_files", "is_predictions"]


@dataclass(frozen=True)
class WrittenEvaluation:
    """Metrics in percent, over all queries of the split.

    longest: number of labels of the longest list. missing: number of queries without a list, which count as not answered.
    unknown: number of lists of queries that the split does not have, which are left out. filtered: number of labels that the
    filter takes from a list at most.
    """

    metrics: Metrics
    queries: int
    longest: int
    missing: int
    unknown: int
    filtered: int

    @property
    def values(self) -> dict[str, float]:
        """P@k, nDCG@k, PSP@k, PSnDCG@k and R@k by name, in percent, for the k that the lists are long enough for."""
        return self.metrics.values

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        counts = {name: getattr(self, name) for name in ("queries", "longest", "missing", "unknown", "filtered")}
        return {**self.metrics.to_dict(), **counts}


def is_predictions(path: str | Path) -> bool:
    """Whether a path is a Parquet file, or a folder that a job wrote to."""
    path = Path(path)
    return path.suffix == ".parquet" or (path / JOB).is_file()


def evaluate_files(predictions: str | Path, dataset: Dataset, split: str = "test") -> WrittenEvaluation:
    """Evaluate what xmc.batch.predict.predict_files wrote, or a Parquet file with the columns uid, labels and scores.

    Queries and labels are matched by uid, with the split's filter file, and propensities from the training split where there
    is one. Raises StoreError for a job that is not finished, or files that are not as it wrote them, DataError for columns that
    lack, uids that stand twice, and where the two share no query or no label.
    """
    table = _read(Path(predictions))
    queries = dataset.split(split)
    uids = table["uid"]
    row = pc.index_in(queries.uids, value_set=uids)
    missing = int(row.null_count)
    known = int(pc.sum(pc.is_in(uids, value_set=queries.uids)).as_py() or 0)
    if not known:
        raise DataError(
            f"{predictions} and the split {split!r} of {dataset.name!r} share no query uid; is it another split?"
        )
    if known > len(queries) - missing:
        raise DataError(
            f"{predictions} has {known:,} lists for {len(queries) - missing:,} queries: some uids stand twice in it."
        )
    lists = table.take(row)
    lengths = pc.fill_null(pc.list_value_length(lists["labels"]), 0).to_numpy()
    longest = int(lengths.max(initial=0))
    labels = pc.index_in(pc.list_flatten(lists["labels"]), value_set=dataset.labels.uids)
    if len(labels) == labels.null_count:
        raise DataError(f"{predictions} and {dataset.name!r} share no label uid; is it the right data set?")
    rows = np.full((len(queries), longest), NO_PREDICTION, np.int64)
    scores = np.full((len(queries), longest), -np.inf, np.float32)
    filled = np.arange(longest)[None, :] < lengths[:, None]
    rows[filled] = pc.fill_null(labels.cast(pa.int64()), UNKNOWN_LABEL).to_numpy()
    scores[filled] = pc.list_flatten(lists["scores"]).to_numpy()
    targets = dataset.targets(split)
    training = dataset.split("train") if "train" in dataset.splits else None
    ks = tuple(k for k in KS if k <= longest)
    recall_ks = tuple(k for k in RECALL_KS if k <= longest) or (longest,)
    metrics = compare(rows, scores, dataset, targets, training, ks, recall_ks)
    return WrittenEvaluation(metrics, len(queries), longest, missing, len(uids) - known, most_excluded(targets))


def _read(path: Path) -> pa.Table:
    files = [path]
    if path.is_dir():
        try:
            parts = json.loads((path / SUCCESS).read_text(encoding="utf-8"))["parts"]
            digests = {path / str(part["name"]): str(part["sha256"]) for part in parts}
        except FileNotFoundError as error:
            raise StoreError(f"{path} has no {SUCCESS}: its job is not finished; go on with it by --resume.") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path / SUCCESS} cannot be read: {error}") from error
        for file, digest in digests.items():
            if not file.is_file() or sha256_file(file) != digest:
                raise StoreError(f"{file} is missing or not as the job wrote it; predict into another folder.")
        files = list(digests)
    try:
        table = pa.concat_tables([pq.read_table(file, columns=["uid", "labels", "scores"]) for file in files])
        return table.cast(
            pa.schema([("uid", pa.string()), ("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])
        )
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as predictions, uid, labels and scores: {error}") from error
