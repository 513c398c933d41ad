"""A saved slice of major mistakes, on which later runs are measured: are the same mistakes made again?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix

from xmc.arrays import Mask, Rows
from xmc.data.dataset import Dataset
from xmc.data.splits import Split
from xmc.errors import DataError, InputError, StoreError, boundary
from xmc.evaluation.judging import Ranking
from xmc.evaluation.predicted import Predicted
from xmc.metrics import NO_PREDICTION
from xmc.metrics.truth import hits, pairs_of, truth_without
from xmc.storage.arrow import read_columns
from xmc.storage.files import atomic_file
from xmc.storage.parquet import write_parquet

__all__ = ["MajorMistakes", "Repeated"]

COLUMNS = ("query", "label")


@dataclass(frozen=True)
class Repeated:
    """How often the mistakes of a slice are made again.

    mistakes: number of mistakes whose query is in the split. repeated: of these, those whose wrong label is predicted first
    again. right: those where a right label is first now. other: those where another label is first that is not right, or none.
    absent: mistakes whose query the split does not have.
    """

    mistakes: int
    repeated: int
    right: int
    other: int
    absent: int

    def to_dict(self) -> dict[str, int]:
        """Plain values for JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """The counts in words."""
        text = (
            f"Of {self.mistakes:,} major mistakes, {self.repeated:,} are repeated "
            f"({100 * self.repeated / self.mistakes:.1f}%); a right label is first in {self.right:,}, another wrong one in "
            f"{self.other:,}."
        )
        return text + (f" {self.absent:,} more are of queries that the split does not have." if self.absent else "")


@dataclass(frozen=True)
class MajorMistakes:
    """Pairs of a query and the wrong label that was predicted first for it.

    table: columns `query` and `label`, strings, the uids, and others for readers.
    """

    table: pa.Table

    def __len__(self) -> int:
        return len(self.table)

    @classmethod
    def from_predictions(cls, predicted: Predicted, dataset: Dataset, split: str) -> MajorMistakes:
        """The first predictions that somebody has called wrong: in the judgements of the split, or as rejected pairs.

        Excluded and unclear labels are passed over. Raises DataError where nobody has called any pair of the split wrong.
        """
        queries, targets, judgements = dataset.split(split), dataset.targets(split), dataset.judgements(split)
        wrong = targets.judged_negative
        if judgements is not None:
            said_otherwise = pairs_of(judgements.correct + judgements.unclear)
            wrong = truth_without(csr_matrix(judgements.wrong + wrong), said_otherwise)
        if not wrong.nnz:
            raise DataError(
                f"No pair of the split {split!r} of {dataset.name!r} is judged wrong or rejected, so that no mistake is known "
                f"to be a major one; say so of some predictions in judged-{split}.parquet (columns query, label, judgement), "
                f"or take what `xmc report --major-mistakes` finds by texts."
            )
        first = _first(predicted, dataset, split)
        rows = np.flatnonzero(hits(first.labels, wrong).any(axis=1))
        return cls.from_labels(dataset, queries.take(rows), first.labels[rows, 0])

    @classmethod
    def from_labels(cls, dataset: Dataset, queries: Split, labels: Rows) -> MajorMistakes:
        """Of each of some queries the label, a row of the data set, int64 [n], that is predicted first and wrong."""
        rows = pa.array(labels)
        return cls(
            pa.table(
                {
                    "query": queries.uids,
                    "label": dataset.labels.uids.take(rows),
                    "query_text": queries.texts,
                    "label_text": dataset.labels.texts.take(rows),
                }
            )
        )

    @classmethod
    def load(cls, path: str | Path) -> MajorMistakes:
        """From a Parquet file with the columns `query` and `label`; DataError for another file, or one without rows."""
        what = f"{path} cannot be read as major mistakes, columns {' and '.join(COLUMNS)}"
        with boundary(DataError, what):
            named = pa.schema([(name, pa.string()) for name in COLUMNS])
            mistakes = read_columns(Path(path), COLUMNS, kind=DataError, what=what).cast(named)
        if not len(mistakes):
            raise DataError(f"{path} has no mistake to measure a run by.")
        return cls(mistakes)

    def save(self, path: str | Path) -> None:
        """Write as Parquet; InputError for a name without .parquet, StoreError where it cannot be written."""
        path = Path(path)
        if path.suffix != ".parquet":
            raise InputError(
                f"Major mistakes are written as Parquet; name the file {path.stem}.parquet, not {path.name}."
            )
        try:
            with atomic_file(path) as temporary:
                write_parquet(self.table, temporary, compression="zstd")
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error}.") from error

    def repeated(self, predicted: Predicted, dataset: Dataset, split: str) -> Repeated:
        """How often predictions for a split make these mistakes again.

        A label is right where it is true or judged correct, and not judged otherwise. Raises DataError where the split has none
        of the queries.
        """
        targets, judgements = dataset.targets(split), dataset.judgements(split)
        rows = pc.index_in(self.table["query"], value_set=dataset.split(split).uids)
        known = pc.is_valid(rows).to_numpy(zero_copy_only=False).astype(bool)
        if not known.any():
            raise DataError(
                f"None of the {len(self):,} mistakes is of a query of the split {split!r} of {dataset.name!r}."
            )
        first = _first(predicted, dataset, split)
        queries = rows.drop_null().to_numpy().astype(np.int64)
        labels = self.table["label"].filter(pa.array(known))
        again = _same(predicted, first.ids, queries, labels)
        valid = targets.truth if judgements is None else judgements.valid(targets)
        right = np.zeros(len(again), bool)
        if first.labels.shape[1]:
            right = hits(first.labels, valid)[queries, 0] & ~again
        return Repeated(
            mistakes=len(queries),
            repeated=int(again.sum()),
            right=int(right.sum()),
            other=int((~again & ~right).sum()),
            absent=int((~known).sum()),
        )


def _first(predicted: Predicted, dataset: Dataset, split: str) -> Ranking:
    """The first prediction of each query, without excluded and unclear labels; `ids` are rows of `predicted.uids`."""
    targets, judgements = dataset.targets(split), dataset.judgements(split)
    labels = predicted.labels
    if judgements is not None and judgements.unclear.nnz:
        labels = np.where(hits(labels, judgements.unclear), NO_PREDICTION, labels)
    return Ranking.from_search(predicted.places, labels, predicted.scores, targets, 1)


def _same(predicted: Predicted, places: Rows, queries: npt.NDArray[np.int64], labels: pa.ChunkedArray) -> Mask:
    """Whether the first prediction of each query is the label of that uid, bool [m]."""
    if not places.shape[1]:
        return np.zeros(len(queries), bool)
    rows = pc.fill_null(pc.index_in(labels, value_set=predicted.uids).cast(pa.int64()), -2).to_numpy()
    return np.asarray(places[queries, 0] == rows, bool)
