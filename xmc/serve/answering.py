"""Answers of a retriever as JSON: for each request of a batch the bytes of its response."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import orjson

from xmc.arrays import Embeddings
from xmc.calibration.decisions import Policy
from xmc.calibration.sets import Wanted
from xmc.errors import InputError
from xmc.search.answers import Answer
from xmc.search.label_columns import values_at
from xmc.search.passages import PassageOptions
from xmc.search.retriever import Retriever
from xmc.serve.bodies import EmbedBody, PredictBody

__all__ = ["answers_as_json", "embeddings_as_json", "key_of", "predicted"]

_QUERIES = {"texts", "vectors", "include", "exclude"}
"""Fields that may differ between the requests of a batch."""
_SIMPLE = {"texts", "k"}


def key_of(body: PredictBody | EmbedBody) -> Hashable:
    """Requests with the same key may be answered in one batch."""
    if isinstance(body, EmbedBody):
        return "embed"
    if body.model_fields_set <= _SIMPLE:
        return body.k
    options = body.model_dump_json(exclude=_QUERIES)
    return options, body.vectors is None, body.include is None, body.exclude is None


def predicted(retriever: Retriever, bodies: Sequence[PredictBody]) -> Answer:
    """The answer to all queries of some requests with the same key, in their order; InputError as of Retriever.answer."""
    first = bodies[0]
    queries = [text for body in bodies for text in body.texts or ()] if first.vectors is None else _vectors(bodies)
    options: dict[str, Any] = {}
    if not first.model_fields_set <= _SIMPLE:
        for name in ("where", "rescore", "diversity", "rerank", "probabilities", "explain"):
            options[name] = getattr(first, name)
        for name in ("include", "exclude"):
            options[name] = _of_each(bodies, name)
        for name, kind in (("passages", PassageOptions), ("sets", Wanted), ("decide", Policy)):
            asked = getattr(first, name)
            options[name] = None if asked is None else kind(**asked.model_dump())
    return retriever.answer(queries, first.k, **options)


def _of_each(bodies: Sequence[PredictBody], name: str) -> Any:
    """Uids for all queries, or a list of them for each, where requests differ."""
    uids = getattr(bodies[0], name)
    if uids is None or all(getattr(body, name) == uids for body in bodies[1:]):
        return uids
    return [getattr(body, name) for body in bodies for _ in _queries(body)]


def _queries(body: PredictBody) -> Sequence[Any]:
    return body.texts if body.texts is not None else body.vectors or ()


def _vectors(bodies: Sequence[PredictBody]) -> Embeddings:
    """The vectors of some requests, float32 [n, D]. InputError where they have several lengths, or do not fit into 32 bits."""
    listed = [vector for body in bodies for vector in body.vectors or ()]
    lengths = sorted({len(vector) for vector in listed})
    if len(lengths) > 1:
        raise InputError(f"vectors must have one length, but have {lengths[0]:,} and {lengths[-1]:,} numbers.")
    with np.errstate(over="ignore"):
        vectors = np.array(listed, np.float32).reshape(len(listed), lengths[0] if lengths else 0)
    if not np.isfinite(vectors).all():
        raise InputError("vectors hold a number that does not fit into 32 bits.")
    return vectors


def answers_as_json(answer: Answer, sizes: Sequence[int], version: int) -> list[bytes]:
    """The response to each of some requests, of these numbers of queries, whose queries one answer holds."""
    listed = _listed(answer)
    out, start = [], 0
    for size in sizes:
        content = {"answers": listed[start : start + size], "version": version}
        out.append(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))
        start += size
    return out


def _listed(answer: Answer) -> list[dict[str, Any]]:
    """The answer to each query."""
    kept = answer.ids >= 0
    rows = answer.labels.index_rows_of_ids(answer.ids[kept])
    everything = answer.labels.everything
    uids = values_at(everything["uid"], rows).to_pylist()
    texts = values_at(everything["text"], rows).to_pylist()
    scores = list(answer.scores[kept])  # numbers of numpy: orjson writes as many digits as 32 bits have
    labels: list[dict[str, Any]] = [
        {"uid": uid, "text": text, "score": score} for uid, text, score in zip(uids, texts, scores, strict=True)
    ]
    for name, values in _beside(answer):
        for label, value in zip(labels, values[kept], strict=True):
            label[name] = value
    stops = np.cumsum(kept.sum(axis=1)).tolist()
    found = [{"labels": labels[start:stop]} for start, stop in zip([0, *stops], stops, strict=False)]
    _add_sets(answer, found)
    return found


def _beside(answer: Answer) -> list[tuple[str, Any]]:
    """Further values of each label, [n, k], by name."""
    named: list[tuple[str, Any]] = [("probability", answer.probabilities), ("decision", answer.decisions)]
    if answer.explanation is not None:
        said = np.empty(answer.explanation.shape, object)
        for place in np.ndindex(said.shape):
            said[place] = [reason.to_dict() for reason in answer.explanation[place] or ()]
        named.append(("explanation", said))
    return [(name, values) for name, values in named if values is not None]


def _add_sets(answer: Answer, found: list[dict[str, Any]]) -> None:
    """The label sets of each query."""
    if answer.sets is not None:
        for entry, label_set in zip(found, answer.sets, strict=True):
            entry["set"] = {
                "labels": list(label_set.labels),
                "probabilities": list(map(float, label_set.probabilities)),
            }
    if answer.regions is not None:
        for entry, region in zip(found, answer.regions, strict=True):
            entry["sets"] = {
                "sets": [list(labels) for labels in region.sets],
                "p_values": list(map(float, region.p_values)),
                "count": region.count if region.count.bit_length() < 64 else float("inf"),
                "confidence": region.confidence,
                "credibility": region.credibility,
            }


def embeddings_as_json(retriever: Retriever, bodies: Sequence[EmbedBody]) -> list[bytes]:
    """The response to each of some requests for embeddings."""
    vectors = retriever.embed_queries([text for body in bodies for text in body.texts])
    out, start = [], 0
    for body in bodies:
        stop = start + len(body.texts)
        content = {"embeddings": vectors[start:stop]}
        out.append(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))
        start = stop
    return out
