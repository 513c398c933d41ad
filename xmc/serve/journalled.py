"""Changes as a journal keeps them: what was asked, and the vectors that were made of it, so that no text is encoded again."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xmc.arrays import Embeddings
from xmc.errors import InputError
from xmc.search.changes import Change, Remembered
from xmc.search.label_columns import ORIGIN
from xmc.search.label_edits import LabelEdits, PreparedEdits
from xmc.search.label_examples import LabelSources
from xmc.search.labels import LabelVersion
from xmc.search.new_labels import NewVectors, Scoring, origin_of
from xmc.search.retriever import Retriever

__all__ = ["change_of", "content_of_edits", "content_of_remembered"]

LABELS, QUERIES = "labels", "queries"
"""The two kinds of a change."""


def content_of_edits(edits: LabelEdits, prepared: PreparedEdits, source: str) -> dict[str, Any]:
    """JSON values. source: names the model that made the vectors."""
    vectors = [_vectors_to_json(uids, new) for uids, new in prepared.vectors]
    asked = {"add": list(edits.add), "update": list(edits.update), "remove": list(edits.remove)}
    scoring = {"score": edits.scoring.score, "expected_rate": edits.scoring.expected_rate}
    return {"kind": LABELS, **asked, **scoring, "source": source, "vectors": vectors}


def content_of_remembered(remembered: Remembered, source: str) -> dict[str, Any]:
    """JSON values. source: names the model that made the vectors."""
    asked = {"texts": list(remembered.texts), "labels": [list(uids) for uids in remembered.uids]}
    return {"kind": QUERIES, **asked, "source": source, "vectors": _to_json(remembered.embeddings)}


def change_of(content: Mapping[str, Any], retriever: Retriever) -> tuple[Change | None, list[str]]:
    """The change for a retriever as it is now, and where that differs from the one that was asked for, in words.

    None where nothing of it makes sense any more. For the model that made its vectors these are taken, for another one they are
    made anew. InputError where the change cannot be made.
    """
    if content["kind"] == QUERIES:
        return _remembered(content, retriever)
    scoring = Scoring(content["score"], content["expected_rate"])
    asked = LabelEdits.read(content["add"], content["update"], content["remove"], scoring)
    edits, said = asked.fitted(retriever.labels)
    if not len(edits):
        return None, said
    if content["source"] != retriever.source:
        return retriever.prepare_edits(edits).change, said
    known = [_vectors_from_json(vectors) for vectors in content["vectors"]]
    return retriever.prepare_edits(edits, _Known(known)).change, said


class _Known:
    """Vectors by uid, which were made before."""

    def __init__(self, parts: Sequence[tuple[Sequence[str], NewVectors]]) -> None:
        self._parts = parts
        self._places = {uid: (part, row) for part, (uids, _) in enumerate(parts) for row, uid in enumerate(uids)}

    def __call__(self, labels: LabelVersion, given: LabelSources) -> NewVectors:
        """See VectorsOf."""
        chosen = [self._places[uid] for uid in given.uids]
        embeddings = np.stack([self._parts[part][1].embeddings[row] for part, row in chosen])
        origins = [self._parts[part][1].origin.slice(row, 1).to_pylist()[0] for part, row in chosen]
        scales, examples = ([origin[name] for origin in origins] for name in ORIGIN.names)
        return NewVectors(embeddings, origin_of(np.array(scales, np.float32), np.array(examples, np.int32)), ())


def _remembered(content: Mapping[str, Any], retriever: Retriever) -> tuple[Change | None, list[str]]:
    memory, labels = retriever.memory, retriever.labels
    if memory is None:
        return None, [f"the run has no memory for {len(content['texts'])} queries"]
    listed = [uid for uids in content["labels"] for uid in uids]
    there = {uid for uid, row in zip(listed, labels.index_rows(listed).tolist(), strict=True) if row >= 0}
    uids = [[uid for uid in uids if uid in there] for uids in content["labels"]]
    said = [f"there is no label {uid!r} any more" for uid in dict.fromkeys(listed) if uid not in there]
    kept = [row for row, before in enumerate(content["labels"]) if uids[row] or not before]
    texts, uids = [content["texts"][row] for row in kept], [uids[row] for row in kept]
    if not texts:
        return None, said
    if content["source"] != source_of_memory(retriever):
        return retriever.prepare_remembered(texts, uids), said
    return Remembered(_from_json(content["vectors"])[kept], texts, uids), said


def source_of_memory(retriever: Retriever) -> str:
    """Names the model that makes the vectors of remembered queries."""
    memory = retriever.memory
    return retriever.source if memory is None or not memory.encoder else memory.encoder


def _to_json(vectors: Embeddings) -> dict[str, Any]:
    """float32 [n, D], little-endian, in base64."""
    content = np.ascontiguousarray(vectors, "<f4").tobytes()
    return {"shape": list(vectors.shape), "float32": base64.b64encode(content).decode()}


def _from_json(values: Mapping[str, Any]) -> Embeddings:
    try:
        flat = np.frombuffer(base64.b64decode(values["float32"], validate=True), "<f4").astype(np.float32)
        vectors: Embeddings = flat.reshape(values["shape"])
        return vectors
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"Vectors of a change cannot be read: {error!r}.") from error


def _vectors_to_json(uids: Sequence[str], vectors: NewVectors) -> dict[str, Any]:
    scales, examples = (vectors.origin[name].to_pylist() for name in ORIGIN.names)
    return {"uids": list(uids), "scales": scales, "examples": examples, **_to_json(vectors.embeddings)}


def _vectors_from_json(values: Mapping[str, Any]) -> tuple[Sequence[str], NewVectors]:
    origin = origin_of(np.array(values["scales"], np.float32), np.array(values["examples"], np.int32))
    return values["uids"], NewVectors(_from_json(values), origin, ())
