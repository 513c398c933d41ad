"""BEIR's layout: corpus.jsonl with what is to be found, queries.jsonl, and qrels/*.tsv with a judgement a line.

A label is a document of the corpus (_id, title, text; its text is title and text, joined by a space), a query has _id and text,
and a judgement query-id, corpus-id and score. A score above 0 is a relevance; 0 or less says that the document was judged not
relevant. The name of a file of judgements is the split: train, dev (here called validation), test. A split has the queries that
it judges. Source: github.com/beir-cellar/beir, wiki page "Load your custom dataset".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmc.data.files import LINE, MESSAGE, REASON, WantedColumn, open_file
from xmc.data.files.addresses import ending_of
from xmc.data.named.labels import NamedLabelsSource, NamedRow
from xmc.data.readers.split_files import WORDS, split_of
from xmc.data.rows import Defect, Row, find_file
from xmc.data.sources import TabularColumns
from xmc.errors import DataError

__all__ = ["BeirSource"]


class BeirSource(NamedLabelsSource):
    """See the module."""

    format = "beir"

    def __init__(self, path: Path, columns: TabularColumns) -> None:
        """See RowSource. Raises DataError for two files of judgements of one split."""
        self.directory, self.name, self.form = path, path.name, columns.form
        corpus, queries = find_file(path, "corpus.jsonl"), find_file(path, "queries.jsonl")
        assert corpus is not None
        assert queries is not None
        self.label_file, self.query_file = corpus, queries
        self.qrels: dict[str, Path] = {}
        for file in _judgements(path):
            split = split_of(file.name) or file.name.partition(".")[0]
            if split in self.qrels:
                raise DataError(
                    f"{self.qrels[split]} and {file} are both judgements of the split {split}; move one of them away."
                )
            self.qrels[split] = file
        usual = [split for split in WORDS if split in self.qrels]
        self.splits = (*usual, *(split for split in self.qrels if split not in usual))

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Whether there are a corpus, queries, and judgements."""
        return bool(find_file(path, "corpus.jsonl") and find_file(path, "queries.jsonl") and _judgements(path))

    def _table(self, file: Path) -> Iterator[Row | Defect]:
        """See NamedLabelsSource."""
        for values in self._records(file, "title"):
            if isinstance(values, Defect):
                yield values
            else:
                text = " ".join(filter(None, (values["title"], values["text"])))
                yield Row(file, values[LINE], values["_id"], text, [])

    def _queries(self, split: str, texts: bool) -> Iterator[NamedRow | Defect]:
        """See NamedLabelsSource."""
        judged: dict[str, tuple[int, list[str], list[float]]] = {}
        for item in self._pairs(self.qrels[split]):
            if isinstance(item, Defect):
                yield item
            else:
                line, query, label, score = item
                _, labels, relevance = judged.setdefault(query, (line, [], []))
                labels.append(label)
                relevance.append(score)
        asked = set(judged)
        for values in self._records(self.query_file):
            if isinstance(values, Defect):
                if split == self.splits[0]:  # whichever split it is of
                    yield values
            elif values["_id"] in judged:
                _, labels, relevance = judged[values["_id"]]
                yield NamedRow(self.query_file, values[LINE], values["_id"], values["text"] or "", labels, relevance)
                asked.discard(values["_id"])
        for query, (line, _, _) in judged.items():
            if query in asked:
                message = f"the query {query!r} is not in {self.query_file}."
                yield Defect("error", self.qrels[split], line, "unknown query", message)

    def _pairs(self, file: Path) -> Iterator[tuple[int, str, str, float] | Defect]:
        """(line, query, label, relevance) of each judgement of a label that there is; a bad one loses itself only."""
        wanted = [
            WantedColumn("query-id", "uid"),
            WantedColumn("corpus-id", "uid"),
            WantedColumn("score", "relevance"),
        ]
        table = open_file(file, wanted, self.form)
        for batch in table.batches():
            for values in batch.to_pylist():
                line, query, label, score = values[LINE], values["query-id"], values["corpus-id"], values["score"]
                if values[REASON] is not None or not query or not label or score is None or len(score) != 1:
                    reason = values[REASON] or "malformed judgement"
                    message = values[MESSAGE] or "the line is not a query, a document and a score."
                    yield Defect("error", file, line, reason, message, unit=table.unit)
                elif label not in self._rows:
                    message = f"the document {label!r} is not in {self.label_file}."
                    yield Defect("error", file, line, "unknown label", message, unit=table.unit)
                else:
                    yield line, query, label, max(0.0, score[0])

    def _records(self, path: Path, *further: str) -> Iterator[dict[str, Any] | Defect]:
        """The objects of a file with _id, text, and what else is asked for."""
        wanted = [WantedColumn("_id", "uid"), WantedColumn("text", "text")]
        file = open_file(path, [*wanted, *(WantedColumn(name, "text", required=False) for name in further)], self.form)
        for batch in file.batches():
            for values in batch.to_pylist():
                if values[REASON] is not None or values["_id"] is None:
                    reason, message = values[REASON] or "null uid", values[MESSAGE] or "the line has no _id."
                    yield Defect("error", path, values[LINE], reason, message, True, file.unit)
                else:
                    yield values


def _judgements(path: Path) -> list[Path]:
    folder = path / "qrels"
    return sorted(file for file in folder.iterdir() if ending_of(file.name)) if folder.is_dir() else []
