"""Another encoder than the run's beside a search: it encodes the texts of queries once, however many stages ask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xmc.arrays import Embeddings
from xmc.data.tokens import RaggedTokens
from xmc.encoders.dual import DualEncoder, unit_rows
from xmc.errors import InputError, StoreError, boundary
from xmc.search.composed import Layout
from xmc.search.memory.encoder import encoder_alone, name_of_encoder, placed_beside
from xmc.search.queries import Query, embed, query_list
from xmc.search.sentence_transformers import read_encoder
from xmc.search.state import SearchState

__all__ = ["OtherEncoder"]

FINGERPRINT = "fingerprint.txt"


class OtherEncoder:
    """An encoder that a stage has for itself.

    fingerprint: of its weights, by which stages that have the same one share its work on the queries of a search.
    """

    def __init__(self, model: DualEncoder, fingerprint: str) -> None:
        self.model, self.fingerprint = model, fingerprint

    @classmethod
    def from_directory(cls, directory: str | Path, beside: DualEncoder) -> OtherEncoder:
        """The encoder of a sentence-transformers directory, placed where another model runs. ConfigError where it is none."""
        model, _ = read_encoder(directory, (), "exact", "auto")
        alone = placed_beside(beside, encoder_alone(model))
        return cls(alone, name_of_encoder(alone))

    @classmethod
    def load(cls, directory: Path, beside: DualEncoder) -> OtherEncoder:
        """What `save` wrote, placed where another model runs. StoreError for files that do not fit together."""
        with boundary(StoreError, f"The encoder in {directory} cannot be read"):
            model = placed_beside(beside, DualEncoder.load(directory))
            return cls(model, (directory / FINGERPRINT).read_text(encoding="utf-8").strip())

    def save(self, directory: Path) -> None:
        """Write the encoder into an existing directory."""
        self.model.save(directory)
        (directory / FINGERPRINT).write_text(self.fingerprint + "\n", encoding="utf-8")

    def embed_queries(self, state: SearchState, remedy: str) -> Embeddings:
        """Unit embeddings [n, D'] of the texts of the state's queries, of passages their mean; zeros for those without any.

        What an earlier stage has encoded is taken. Raises InputError for embeddings and tokens, with the remedy: a sentence.
        """
        queries, embeddings = state.encoded_by.get(self.fingerprint, (None, None))
        if embeddings is None or queries is not state.queries:
            embeddings = self._embedded(state.queries, remedy)
            state.encoded_by[self.fingerprint] = (state.queries, embeddings)
        return embeddings

    def embed_labels(self, texts: Sequence[str]) -> Embeddings:
        """Unit embeddings [n, D'] of the texts of labels."""
        return self.model.embed_labels(texts)

    def _embedded(self, queries: Any, remedy: str) -> Embeddings:
        is_matrix = isinstance(queries, np.ndarray) and queries.dtype.kind not in "OUST"
        if is_matrix or isinstance(queries, RaggedTokens):
            raise InputError(f"{remedy} The queries are embeddings or tokens.")
        encode = self.model.embed_queries
        texts = [_of_texts(query) for query in query_list(queries, allow_empty=True)]
        layout = Layout.from_queries(texts)
        vectors = layout.embeddings(
            embed(layout.listed, encode, encode, self.model.dimension, allow_empty=True), unit_rows
        )
        vectors[[not text for text in texts]] = 0
        return vectors


def _of_texts(query: str | Query) -> str | Query:
    """The texts and passages of a query, without what is subtracted; "" where it has none."""
    if isinstance(query, str) or query.passages:
        return query if isinstance(query, str) else query.alone()
    return Query(query.texts) if query.texts else ""
