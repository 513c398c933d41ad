"""The similarity of query and label by another encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xmc.arrays import Embeddings, Ids
from xmc.encoders.dual import DualEncoder
from xmc.errors import InputError
from xmc.search.other_encoder import OtherEncoder
from xmc.search.rerank.encoded_labels import EncodedLabels
from xmc.search.rerank.features import Feature, FeatureContext, FeatureValues
from xmc.search.stages import SearchState

__all__ = ["CosineFeature"]

FILE, ENCODER = "labels.arrow", "encoder"
NEEDS_TEXTS = "The run's re-ranker has an encoder of its own, which needs texts; give texts, or rerank=False."
GATHERED = 1 << 20
"""Numbers of label vectors that are gathered at a time."""


class CosineFeature(Feature):
    """q · z by another encoder, whose label vectors are stored in half precision, and the same less the best of the candidates.

    Encoding the queries is what it costs: 1.3 ms of a processor core for a short text by a MiniLM of six layers.
    """

    name = "cosine"
    columns = ("similarity", "to_best")

    def __init__(self, labels: EncodedLabels) -> None:
        self._labels = labels

    @classmethod
    def from_context(cls, context: FeatureContext) -> CosineFeature:
        """See Feature."""
        if context.encoder is None:
            raise InputError("The feature 'cosine' needs another encoder; name the directory of one with encoder=.")
        return cls(EncodedLabels.from_labels(context.encoder, context.labels))

    @classmethod
    def load(cls, directory: Path, beside: DualEncoder) -> CosineFeature:
        """See Feature."""
        encoder = OtherEncoder.load(directory / ENCODER, beside)
        return cls(EncodedLabels.load(encoder, directory / FILE))

    def save(self, directory: Path) -> None:
        """See Feature."""
        (directory / ENCODER).mkdir()
        self._labels.encoder.save(directory / ENCODER)
        self._labels.save(directory / FILE)

    @property
    def digest(self) -> str:
        """Of the encoder, by which the vectors follow from the labels' texts."""
        return self._labels.encoder.fingerprint

    def values(self, state: SearchState, ids: Ids) -> FeatureValues:
        """See Feature."""
        queries = self._labels.encoder.embed_queries(state, NEEDS_TEXTS)
        unique, places = np.unique(ids, return_inverse=True)
        there = unique >= 0
        vectors = np.zeros((len(unique), queries.shape[1]), np.float32)
        vectors[there] = self._labels.vectors_of(state.labels, unique[there])
        similarity = _inner_products(queries, vectors, places.reshape(ids.shape))
        similarity[ids < 0] = np.nan
        best = np.fmax.reduce(similarity, axis=1, keepdims=True, initial=-np.inf)
        return np.stack([similarity, similarity - best], axis=2).astype(np.float32)


def _inner_products(queries: Embeddings, vectors: Embeddings, places: Ids) -> Embeddings:
    """q_i · z_places[i, j], float32 [n, m], some queries at a time."""
    products = np.empty(places.shape, np.float32)
    step = max(1, GATHERED // max(1, places.shape[1] * queries.shape[1]))
    for start in range(0, len(places), step):
        rows = slice(start, start + step)
        products[rows] = np.einsum("nd,nmd->nm", queries[rows], vectors[places[rows]])
    return products
