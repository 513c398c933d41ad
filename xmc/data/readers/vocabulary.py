"""Vocabularies as Annif has them: a URI and its names, in TSV ("<uri><tab>name"), CSV (uri, label_en, ...) or SKOS."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from xmc.data.files import LINE, MESSAGE, REASON, TextForm, WantedColumn, open_file
from xmc.data.rows import Defect, Row, read_lines, without_blank_end
from xmc.errors import DataError, require_package

__all__ = ["SKOS_ENDINGS", "read_vocabulary", "without_brackets"]

SKOS_ENDINGS = {".ttl": "turtle", ".rdf": "xml", ".xml": "xml", ".owl": "xml", ".nt": "nt"}
"""Endings of names of SKOS files, and what rdflib calls their formats."""
USUAL = "en"
"""The language of names where none is asked for and there are several."""


def read_vocabulary(file: Path, form: TextForm, language: str | None) -> Iterator[Row | Defect]:
    """The subjects as rows of a label table: uid is the URI.

    A subject without a name is deprecated, and left out with a warning. SKOS is held in memory, and sorted by URI.
    Raises DataError for a file that cannot be read, and for a language that it does not have.
    """
    if file.suffix in SKOS_ENDINGS:
        return _skos(file, language)
    return _csv(file, form, language) if ".csv" in file.suffixes else _tsv(file, form)


def without_brackets(uri: str) -> str:
    """A URI without the angle brackets around it."""
    uri = uri.strip()
    return uri[1:-1].strip() if uri.startswith("<") and uri.endswith(">") else uri


def _tsv(file: Path, form: TextForm) -> Iterator[Row | Defect]:
    for item in without_blank_end(read_lines(file, form)):
        if isinstance(item, Defect):
            yield item
            continue
        line, content = item
        uri, name, *_ = [*(part.strip() for part in content.split("\t")), ""]
        yield _subject(file, line, without_brackets(uri), name)


def _csv(file: Path, form: TextForm, language: str | None) -> Iterator[Row | Defect]:
    names = open_file(file, [], form).names
    chosen = _language(file, [name.removeprefix("label_") for name in names if name.startswith("label_")], language)
    wanted = [WantedColumn("uri", "uid"), WantedColumn(f"label_{chosen}", "text", key="name")]
    table = open_file(file, wanted, form)
    for batch in table.batches():
        for values in batch.to_pylist():
            if values[REASON] is not None:
                yield Defect("error", file, values[LINE], values[REASON], values[MESSAGE], unit=table.unit)
            else:
                yield _subject(file, values[LINE], without_brackets(values["uri"] or ""), values["name"] or "")


def _subject(file: Path, line: int, uri: str, name: str) -> Row | Defect:
    if not uri:
        return Defect("error", file, line, "null uid", "the subject has no URI.")
    if not name:
        message = f"the subject {uri} has no name, as deprecated ones have none; it is left out."
        return Defect("warning", file, line, "subject without a name", message)
    return Row(file, line, uri, name, [])


def _skos(file: Path, language: str | None) -> Iterator[Row | Defect]:
    require_package("rdflib", f"{file.name} is a vocabulary in SKOS", "rdflib")
    from rdflib import Graph, Literal
    from rdflib.namespace import OWL, RDF, RDFS, SKOS

    graph, log = Graph(), logging.getLogger("rdflib.term")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it warns of each date that is not one, with a traceback
    try:
        graph.parse(file, format=SKOS_ENDINGS[file.suffix])
    except Exception as error:  # parsers of rdflib raise what they like
        raise DataError(f"{file} cannot be read as SKOS: {' '.join(str(error).split())[:300]}") from error
    finally:
        log.setLevel(level)
    names: dict[str, dict[str | None, str]] = {}
    for concept in graph.subjects(RDF.type, SKOS.Concept, unique=True):
        if (concept, OWL.deprecated, Literal(True)) not in graph:
            kinds = (SKOS.prefLabel, RDFS.label)
            labels = [label for kind in kinds for label in sorted(graph.objects(concept, kind), key=str)]
            names[str(concept)] = _by_language(labels)
    if not names:
        raise DataError(f"{file} has no skos:Concept that is not deprecated.")
    chosen = _language(file, {tag for of_one in names.values() for tag in of_one if tag is not None}, language)
    for row, uri in enumerate(sorted(names), 1):
        of_one = names[uri]
        name = of_one.get(chosen) or of_one.get(None)
        if name is None and of_one:
            other = min(tag for tag in of_one if tag is not None)
            name = of_one[other]
            message = f"the subject {uri} has no name in the language {chosen}; that in {other} is taken."
            yield Defect("warning", file, row, "name in another language", message, unit="row")
        yield replace(_subject(file, row, uri, name or ""), unit="row")


def _by_language(labels: Iterable[Any]) -> dict[str | None, str]:
    """The first name in each language (None: without one); prefLabels stand before other ones."""
    found: dict[str | None, str] = {}
    for label in labels:
        found.setdefault(getattr(label, "language", None), str(label).strip())
    return found


def _language(file: Path, languages: Iterable[str], asked: str | None) -> str | None:
    """The language whose names are taken; None where names have none."""
    known = sorted(set(languages))
    if asked is not None:
        if asked not in known:
            raise DataError(f"{file} has no names in the language {asked!r}, only in {', '.join(known) or 'none'}.")
        return asked
    if USUAL in known or len(known) <= 1:
        return USUAL if USUAL in known else next(iter(known), None)
    raise DataError(f"{file} has names in {', '.join(known)}; choose by --language.")
