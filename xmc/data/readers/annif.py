"""Annif's layout: documents with the URIs (or names) of their subjects, and a vocabulary in TSV, CSV or SKOS.

The vocabulary is a file whose name has "vocab" or "subjects" in it, or else one that ends like SKOS. The documents of a split
are in a TSV file ("text<tab><uri> <uri>"), a CSV file (text, subject_uris, document_id) or a JSON lines file (text, subjects,
document_id), or in a folder: a .txt file each, and its subjects beside it in a .tsv ("<uri><tab>name") or .key (a name a line)
file, or a .json file each. Names of files and folders have train, dev or test in them; documents.* and fulltext/ are of train.
A subject that is not in the vocabulary is left out with a warning, as Annif does it. Source: github.com/NatLibFi/Annif, wiki
pages "Document corpus formats" and "Subject vocabulary formats".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from xmc.data.files import LINE, MESSAGE, REASON, WantedColumn, open_file
from xmc.data.files.addresses import ending_of, local_file
from xmc.data.files.cells import CELLS, CellProblem
from xmc.data.files.json_lines import objects, parse_line
from xmc.data.files.lines import text_lines, whole_text
from xmc.data.files.undecodable import undecodable
from xmc.data.named.labels import NamedLabelsSource, NamedRow
from xmc.data.readers.split_files import WORDS, first_lines, only_file, split_of
from xmc.data.readers.vocabulary import SKOS_ENDINGS, read_vocabulary, without_brackets
from xmc.data.rows import Defect, Row, read_lines, without_blank_end
from xmc.data.sources import TabularColumns
from xmc.errors import DataError

__all__ = ["AnnifSource"]


class AnnifSource(NamedLabelsSource):
    """See the module. A query's uid is its document_id, the name of its file, or its row number, from 0."""

    format = "annif"
    unknown_label = "warning"

    def __init__(self, path: Path, columns: TabularColumns) -> None:
        """See RowSource. Raises DataError where there are no vocabulary or no documents, or two of them for one purpose."""
        self.directory, self.name, self.form, self.language = path, path.name, columns.form, columns.language
        vocabularies, documents = _vocabularies(path), _documents(path)
        if not vocabularies or not documents:
            missing = "vocabulary (vocab.tsv, subjects.csv, a .ttl or .rdf file)" if documents else "documents"
            raise DataError(f"{path} holds no {missing} of Annif's layout.")
        self.label_file = only_file(vocabularies, "the vocabulary")
        self.documents = {split: only_file(entries, split) for split, entries in documents.items()}
        self.splits = tuple(self.documents)
        self._by_name: dict[str, str] = {}

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Whether there are a vocabulary and documents."""
        if not path.is_dir() or not _vocabularies(path):
            return False
        return any(_shows_subjects(entry) for entries in _documents(path).values() for entry in entries)

    @classmethod
    def readable(cls, path: Path) -> bool:
        """Any directory, so that what is missing can be said."""
        return path.is_dir()

    def _table(self, file: Path) -> Iterator[Row | Defect]:
        """See NamedLabelsSource."""
        self._by_name = {}
        for item in read_vocabulary(file, self.form, self.language):
            if isinstance(item, Row):
                self._by_name.setdefault(item.text, item.uid)
            yield item

    def _queries(self, split: str, texts: bool) -> Iterator[NamedRow | Defect]:
        """See NamedLabelsSource."""
        path = self.documents[split]
        if path.is_dir():
            return self._folder(path)
        return {".csv": self._csv, ".jsonl": self._json_lines}.get(ending_of(path.name), self._tsv)(path)

    def _tsv(self, file: Path) -> Iterator[NamedRow | Defect]:
        for row, item in enumerate(without_blank_end(read_lines(file, self.form))):
            if isinstance(item, Defect):
                yield item
                continue
            line, content = item
            text, tab, uris = content.partition("\t")
            if tab:
                yield NamedRow(file, line, str(row), text.strip(), [without_brackets(uri) for uri in uris.split()])
            else:
                message = "the line has no tab between the text and the URIs of its subjects."
                yield Defect("error", file, line, "malformed line", message, row_lost=True)

    def _csv(self, path: Path) -> Iterator[NamedRow | Defect]:
        wanted = [WantedColumn("text", "text"), WantedColumn("subject_uris", "text"),
                  WantedColumn("document_id", "uid", required=False)]  # fmt: skip
        file = open_file(path, wanted, self.form)
        row = -1
        for batch in file.batches():
            for values in batch.to_pylist():
                row += 1
                if values[REASON] is not None:
                    yield Defect("error", path, values[LINE], values[REASON], values[MESSAGE], True, file.unit)
                    continue
                labels = [without_brackets(uri) for uri in (values["subject_uris"] or "").split()]
                uid = values["document_id"] or str(row)
                yield NamedRow(path, values[LINE], uid, (values["text"] or "").strip(), labels)

    def _json_lines(self, file: Path) -> Iterator[NamedRow | Defect]:
        for row, (line, values) in enumerate(objects(text_lines(local_file(file), self.form))):
            yield self._parsed(file, line, values, str(row))

    def _parsed(self, file: Path, line: int, values: dict[str, Any] | str, uid: str) -> NamedRow | Defect:
        if isinstance(values, str):
            return Defect("error", file, line, "malformed line", f"the line {values}.", row_lost=True)
        try:
            return self._document(file, line, values, uid)
        except CellProblem as problem:
            return Defect("error", file, line, problem.reason, problem.message, row_lost=True)

    def _document(self, file: Path, line: int, values: dict[str, Any], uid: str) -> NamedRow:
        """A JSON object as a query; without a text it is the values of its metadata."""
        subjects, metadata = values.get("subjects") or [], values.get("metadata") or {}
        if not isinstance(subjects, list) or not all(isinstance(subject, dict) for subject in subjects):
            raise CellProblem(
                "malformed subjects", 'the subjects are no list of objects such as {"uri": "http://..."}.'
            )
        if not isinstance(metadata, dict):
            raise CellProblem("malformed metadata", "the metadata are no object.")
        text = CELLS["text"](values.get("text"), None)
        if text is None:
            text = " ".join(filter(None, (CELLS["text"](value, None) for value in metadata.values())))
        uid = CELLS["uid"](values.get("document_id"), None) or uid
        return NamedRow(file, line, uid, text.strip(), [self._subject(subject) for subject in subjects])

    def _subject(self, subject: dict[str, Any]) -> str:
        uri, name = (CELLS["text"](subject.get(key), None) for key in ("uri", "label"))
        if uri is None and name is None:
            raise CellProblem("malformed subjects", "a subject has neither uri nor label.")
        return without_brackets(uri) if uri is not None else self._by_name.get(name, name)

    def _folder(self, folder: Path) -> Iterator[NamedRow | Defect]:
        for file in [*sorted(folder.glob("*.txt")), *sorted(folder.glob("*.json"))]:
            text = whole_text(local_file(file), self.form).strip()
            if file.suffix == ".json":
                yield self._parsed(file, 1, parse_line(text), file.stem)
                continue
            wrong = undecodable(text)
            subjects = next((path for end in (".tsv", ".key") if (path := file.with_suffix(end)).is_file()), None)
            if wrong is not None:
                yield Defect("error", file, 1, "broken UTF-8", f"the text {wrong}.", True)
                continue
            labels: list[str] = []
            for item in read_lines(subjects, self.form) if subjects is not None else ():
                if isinstance(item, Defect):
                    yield replace(item, row_lost=False)
                elif item[1].strip():
                    first = item[1].split("\t")[0].strip()
                    is_uri = first.startswith("<") and first.endswith(">")
                    labels.append(without_brackets(first) if is_uri else self._by_name.get(first, first))
            yield NamedRow(file, 1, file.stem, text, labels)


def _vocabularies(path: Path) -> list[Path]:
    """The files that are named like a vocabulary; without such ones, those that end like SKOS."""
    files = sorted(file for file in path.iterdir() if file.is_file())
    named = [file for file in files if file.suffix in (".csv", ".tsv", *SKOS_ENDINGS) and _is_vocabulary(file.name)]
    return named or [file for file in files if file.suffix in SKOS_ENDINGS and file.suffix != ".xml"]


def _is_vocabulary(name: str) -> bool:
    return "vocab" in name.lower() or "subjects" in name.lower()


def _documents(path: Path) -> dict[str, list[Path]]:
    """The files and folders of each split."""
    found: dict[str, list[Path]] = {split: [] for split in WORDS}
    for entry in sorted(path.iterdir()):
        whole = entry.name.lower().startswith(("documents", "fulltext", "corpus"))
        split = split_of(entry.name) or ("train" if whole else None)
        if split is None or _is_vocabulary(entry.name):
            continue
        if _has_documents(entry) if entry.is_dir() else ending_of(entry.name) in (".tsv", ".csv", ".jsonl"):
            found[split].append(entry)
    return {split: entries for split, entries in found.items() if entries}


def _has_documents(folder: Path) -> bool:
    return any(file.suffix in (".txt", ".json") for file in folder.iterdir())


def _shows_subjects(entry: Path) -> bool:
    """Whether documents are Annif's: a folder, or a file whose first lines have URIs or name the column of subjects."""
    if entry.is_dir():
        return True
    marks = {".csv": ("subject_uris",), ".jsonl": ('"subjects"',)}.get(ending_of(entry.name), ("\t<", "://", "\turn:"))
    return any(mark in line for line in first_lines(entry) for mark in marks)
