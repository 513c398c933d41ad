"""Another encoder than the run's beside a search: it encodes the texts of queries once, however many stages ask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from xmc.arrays import Embeddings
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import device_of
from xmc.encoders.dual import DualEncoder
from xmc.errors import InputError, StoreError
from xmc.search.placement import place_model
from xmc.search.queries import embed
from xmc.search.sentence_transformers import read_encoder
from xmc.search.stages import SearchState
from xmc.storage.fingerprints import fingerprint_of, sha256_file

__all__ = ["OtherEncoder"]


class OtherEncoder:
    """An encoder that a stage has for itself. fingerprint: of its files, by which stages that have the same one share its work.

    `embed_queries` raises InputError for queries without texts: embeddings, columns of tokens, and a Query of labels.
    """

    def __init__(self, model: DualEncoder, fingerprint: str) -> None:
        self.model, self.fingerprint = model, fingerprint

    @classmethod
    def from_directory(cls, directory: str | Path) -> OtherEncoder:
        """The encoder of a sentence-transformers directory. ConfigError for one that cannot be used."""
        model, _ = read_encoder(directory, (), "exact", "auto")
        return cls(model, _fingerprint(Path(directory)))

    @classmethod
    def load(cls, directory: Path, beside: DualEncoder) -> OtherEncoder:
        """What `save` wrote, placed where another model runs. StoreError for files that do not fit together."""
        try:
            model = DualEncoder.load(directory).eval()
        except (OSError, SafetensorError) as error:
            raise StoreError(f"The encoder in {directory} cannot be read: {error}") from error
        place_model(model, str(device_of(beside.query_encoder)))
        return cls(model, (directory / "fingerprint.txt").read_text(encoding="utf-8").strip())

    def save(self, directory: Path) -> None:
        """Write the encoder into an existing directory."""
        self.model.save(directory)
        (directory / "fingerprint.txt").write_text(self.fingerprint + "\n", encoding="utf-8")

    def embed_queries(self, state: SearchState) -> Embeddings:
        """Unit embeddings [n, D'] of the state's queries; what an earlier stage has encoded is taken."""
        queries, embeddings = state.encoded_by.get(self.fingerprint, (None, None))
        if embeddings is None or queries is not state.queries:
            embeddings = self._embedded(state.queries)
            state.encoded_by[self.fingerprint] = (state.queries, embeddings)
        return embeddings

    def embed_labels(self, texts: Sequence[str]) -> Embeddings:
        """Unit embeddings [n, D'] of the texts of labels."""
        return self.model.embed_labels(texts)

    def _embedded(self, queries: Any) -> Embeddings:
        is_array = isinstance(queries, np.ndarray) and queries.dtype.kind not in "OUST"
        if is_array or isinstance(queries, RaggedTokens):
            raise InputError(
                "A stage of the run has an encoder of its own, which needs the texts of queries, but these are embeddings or "
                "tokens. Give texts, or leave the stage out, as with rerank=False."
            )
        return embed(queries, self.model.embed_queries, _no_labels, self.model.dimension, allow_empty=True)


def _no_labels(uids: list[str]) -> Embeddings:
    raise InputError(
        f"A Query of labels, such as {uids[0]!r}, cannot be encoded by another encoder than the run's. Give texts alone, or "
        f"leave the stage out, as with rerank=False."
    )


def _fingerprint(directory: Path) -> str:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return fingerprint_of({path.relative_to(directory).as_posix(): sha256_file(path) for path in files})
