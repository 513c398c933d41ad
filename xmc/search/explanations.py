"""Why labels were given, as far as the model itself can say it: the parts of a query, and what a new label is like."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xmc.arrays import Embeddings
from xmc.encoders.dual import DualEncoder, unit_rows
from xmc.search.label_columns import values_at
from xmc.search.labels import LabelVersion
from xmc.search.queries import Query, query_list
from xmc.search.reasons import Reason
from xmc.search.stages import SearchState

__all__ = ["with_nearest_trained_labels", "with_parts_of_queries"]

WORDS = 8
"""Number of words, those with the greatest shares, that are listed one by one; the others are counted together."""


def with_parts_of_queries(state: SearchState, model: DualEncoder) -> SearchState:
    """A state after the last stage, with the share that each part of a query has in the inner product with each label.

    Reasons of the kinds "word", of texts, where the encoder's embeddings are sums over words; "text" where they are not, of
    queries of several parts; "label" and "vector" of such queries. The values of a label's reasons sum to the inner product of
    its embedding and the query's, to float32; a query that is one text for another encoder, an embedding, or one with images
    has none, nor has one of several vectors, of passages or with something subtracted.
    """
    labels, queries = state.labels, state.queries
    composed = set() if state.composed is None else set(state.composed.rows.tolist())
    embedded = isinstance(queries, np.ndarray) and queries.dtype.kind not in "OUST"
    if labels.held is None or embedded or state.images is not None:
        return state
    ids, _ = state.ranked()
    index_rows = labels.index_rows_of_ids(ids)
    reasons = np.full(ids.shape, None, object)
    for row, query in enumerate(query_list(queries, allow_empty=True)):
        kept = np.flatnonzero(index_rows[row] >= 0)
        parts = [] if row in composed else list(_parts(query, model, labels))
        if not parts or not len(kept):
            continue
        vectors = np.stack([vector for _, vector in parts])
        shares = vectors @ labels.held.blocks.take(index_rows[row, kept]).T
        for column, place in enumerate(kept.tolist()):
            reasons[row, place] = _shortened(
                [(part, share) for (part, _), share in zip(parts, shares[:, column], strict=True)]
            )
    return state.explained(reasons)


def with_nearest_trained_labels(state: SearchState) -> SearchState:
    """A state after the last stage, with the trained label that is most like each label that was not trained on.

    The reason is of the kind "trained label"; its value is the inner product of the trained label's embedding and the new
    label's, divided by the length of the latter: a label's scale says nothing of what it is like.
    """
    labels = state.labels
    ids, _ = state.ranked()
    index_rows = labels.index_rows_of_ids(ids)
    trained = labels.trained
    if trained is None or labels.held is None:
        return state
    new = np.setdiff1d(index_rows, np.append(np.flatnonzero(trained), -1))
    scores, nearest = labels.held.search(unit_rows(labels.held.blocks.take(new)), 1, allowed=trained)
    if not (nearest >= 0).any():
        return state
    texts = values_at(labels.everything["text"], nearest[:, 0]).to_pylist()
    said = zip(texts, labels.uids_at(nearest[:, 0]), scores[:, 0].tolist(), strict=True)
    named = {
        int(row): (Reason("trained label", score, text, uid),)
        for row, (text, uid, score) in zip(new, said, strict=True)
    }
    reasons = np.full(ids.shape, None, object)
    for place in zip(*np.nonzero(np.isin(index_rows, new)), strict=True):
        reasons[place] = named[int(index_rows[place])]
    return state.explained(reasons)


Part = tuple[str, str, str | None]
"""Kind, text and uid of a reason."""


def _parts(query: str | Query, model: DualEncoder, labels: LabelVersion) -> Iterator[tuple[Part, Embeddings]]:
    """The parts of a query, and vectors [D] whose sum is its embedding."""
    parts = Query({query: 1.0}) if isinstance(query, str) else query
    for text, weight in parts.texts.items():  # type: ignore[union-attr]
        words = _words(text, model)
        if words is not None:
            for word, vector in words:
                yield ("word", word, None), np.float32(weight) * vector
        elif not isinstance(query, str):
            yield ("text", text, None), np.float32(weight) * model.embed_queries([text])[0]
    uids = list(parts.labels)
    vectors = labels.index.blocks.take(labels.known_index_rows(uids))
    for uid, text, vector in zip(uids, labels.texts_of(labels.known_rows(uids)), vectors, strict=True):
        yield ("label", text, uid), np.float32(parts.labels[uid]) * vector  # type: ignore[call-overload]
    for given, weight in parts.embeddings:
        yield ("vector", "", None), np.float32(weight) * np.asarray(given, np.float32)


def _words(text: str, model: DualEncoder) -> list[tuple[str, Embeddings]] | None:
    """The words of a text with their vectors [D] in its embedding; None where the encoder cannot say."""
    found = model.query_encoder.word_vectors(text)
    if found is None:
        return None
    words, vectors = found
    cut = vectors[:, : model.dimension].numpy()
    norm = float(np.linalg.norm(cut.sum(axis=0))) if model.normalize else 1.0
    sums: dict[str, Embeddings] = {}
    for word, vector in zip(words, cut / np.float32(norm or 1.0), strict=True):
        sums[word] = sums.get(word, np.float32(0)) + vector
    return list(sums.items())


def _shortened(parts: list[tuple[Part, np.float32]]) -> tuple[Reason, ...]:
    """All parts, the greatest shares first; of words the first WORDS and the sum of the others."""
    ordered = sorted(parts, key=lambda part: -abs(part[1]))
    words = [part for part in ordered if part[0][0] == "word"]
    listed = [part for part in ordered if part[0][0] != "word"] + words[:WORDS]
    reasons = [
        Reason(kind, float(share), text, uid) for (kind, text, uid), share in sorted(listed, key=lambda p: -p[1])
    ]
    others = words[WORDS:]
    if others:
        reasons.append(Reason("words", float(sum(share for _, share in others)), f"{len(others)} other words"))
    return tuple(reasons)
