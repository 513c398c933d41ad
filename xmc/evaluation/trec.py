"""Predictions and the truth as trec_eval reads them: a run file and a qrels file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from xmc.data.dataset import Dataset
from xmc.data.targets import Targets
from xmc.errors import DataError, StoreError
from xmc.evaluation.judging import excluded_predictions
from xmc.evaluation.predicted import Predicted
from xmc.storage.files import atomic_file

__all__ = ["QRELS", "RUN", "write_trec"]

RUN, QRELS = "run.trec", "qrels.trec"
TAG = "xmc"
_BREAKING = re.compile(r"[\s%]")


def write_trec(predicted: Predicted, dataset: Dataset, split: str, directory: str | Path) -> tuple[Path, Path]:
    """Write run.trec and qrels.trec into a directory, for trec_eval, pytrec_eval and ranx; returns both paths.

    A line of the run is `query Q0 label rank score xmc`, one of the qrels `query 0 label relevance`, by uids: 1 for each true
    pair, 0 for each that the data set rejects. Excluded pairs are in neither. Blanks and % in a uid are percent-encoded, as the
    formats separate by blanks. Tools rank by score, and break ties each in its own way: a score that is not below the one
    before it is written as the next smaller float32, so that every tool has the ranking of `xmc evaluate`.

    Raises DataError for an empty uid, and for query uids that stand twice, StoreError where the files cannot be written.
    """
    queries, targets = dataset.split(split), dataset.targets(split)
    query_names = _names(queries.uids, f"a query of the split {split!r}")
    if len(set(query_names)) < len(query_names):
        raise DataError(
            f"The split {split!r} of {dataset.name!r} has a query uid twice, which TREC files cannot tell apart."
        )
    directory = Path(directory)
    files = (directory / RUN, directory / QRELS)
    lines = (
        _run_lines(predicted, targets, query_names),
        _qrels_lines(targets, query_names, _names(dataset.labels.uids, "a label")),
    )
    try:
        for file, content in zip(files, lines, strict=True):
            with atomic_file(file) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as out:
                out.writelines(content)
    except OSError as error:
        raise StoreError(f"{directory} cannot be written to: {error}.") from error
    return files


def _names(uids: pa.ChunkedArray | pa.Array, what: str) -> list[str]:
    """Uids without blanks."""
    names = [_BREAKING.sub(lambda match: quote(match[0]), uid) for uid in uids.to_pylist()]
    if "" in names:
        raise DataError(f"The uid of {what} is empty, which cannot stand in a TREC file.")
    return names


def _run_lines(predicted: Predicted, targets: Targets, query_names: list[str]) -> Iterator[str]:
    label_names = _names(predicted.uids, "a predicted label")
    left = (predicted.places >= 0) & ~excluded_predictions(predicted.labels, targets)
    unknown_last = np.where(predicted.labels < 0, np.iinfo(np.int64).max, predicted.labels)
    order = np.lexsort((unknown_last, -predicted.scores), axis=1)
    for query, name in enumerate(query_names):
        places = predicted.places[query, order[query]]
        scores = predicted.scores[query, order[query]]
        kept = left[query, order[query]]
        seen: set[int] = set()
        before = np.float32(np.inf)
        for place, score in zip(places[kept].tolist(), scores[kept], strict=True):
            if place in seen:
                continue
            seen.add(place)
            before = score if score < before else np.nextafter(before, np.float32(-np.inf))
            yield f"{name} Q0 {label_names[place]} {len(seen)} {float(before)!r} {TAG}\n"


def _qrels_lines(targets: Targets, query_names: list[str], label_names: list[str]) -> Iterator[str]:
    rejected = targets.judged_negative
    for query, name in enumerate(query_names):
        for matrix, relevance in ((targets.truth, 1), (rejected, 0)):
            for label in matrix.indices[matrix.indptr[query] : matrix.indptr[query + 1]]:
                yield f"{name} 0 {label_names[label]} {relevance}\n"
