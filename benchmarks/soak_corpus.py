"""What the table soak makes labels of: texts with their vectors, by a model that makes them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filters import index_of
from titles import CACHE, encoded_titles, titles

from xmc.config import StaticConfig, TrainConfig
from xmc.data.dataset import Dataset
from xmc.encoders.dual import DualEncoder, build_encoder
from xmc.search.memory.queries import QueryMemory
from xmc.search.memory.stage import RecallQueries
from xmc.search.memory.votes import VotingRule
from xmc.search.retriever import Retriever
from xmc.training.trainer import train

__all__ = ["Corpus", "small_corpus", "title_corpus"]

Embeddings = npt.NDArray[np.float32]

WEIGHT = 5.0
"""Of votes: a query that is remembered word for word has its label first."""


@dataclass(frozen=True)
class Corpus:
    """Texts, and their vectors float32 [T, D] by the model; a label has one of them. queries: other texts.

    design: of the index. options: of `filters.index_of`. exact: whether the index finds the best labels always.
    """

    texts: Sequence[str]
    vectors: Embeddings
    queries: Sequence[str]
    model: DualEncoder
    config: TrainConfig
    design: str
    options: Mapping[str, Any]

    def retriever(
        self, uids: Sequence[str], rows: Sequence[int], columns: Mapping[str, Any], remembered: int, choose: Any
    ) -> Retriever:
        """Labels with the texts of some rows, indexed, and a memory of a few queries, each with a label at random."""
        texts = [self.texts[row] for row in rows]
        vectors = self.vectors[np.asarray(rows)]
        retriever = Retriever.from_model(self.model, uids, texts, self.config, "exact", vectors, columns)
        index = index_of(self.design, vectors.shape[1], dict(self.options))
        index.build(vectors, retriever.labels.ids)
        retriever.use_index(index)
        asked = [f"{self.queries[row]} 0" for row in range(remembered)]
        ids = [choose.integers(0, len(uids), 1) for _ in asked]
        memory = QueryMemory.from_lists(self.model.embed_queries(asked), ids, asked, index="exact")
        retriever.use_memory(memory, RecallQueries(VotingRule(weight=WEIGHT)))
        return retriever


def title_corpus() -> Corpus:
    """A million titles, by a static encoder of 256 dimensions that was trained on wordnet-8k; queries are their summaries."""
    run = CACHE / "runs" / "soak-static-256"
    if not run.exists():
        train(Dataset.load("wordnet-8k"), TrainConfig(encoder=StaticConfig(dimension=256), epochs=2), run)
    trained = Retriever.load(run, "cpu")
    model = trained.model.with_all_vectors(None).eval()
    texts = titles()
    vectors = encoded_titles("titles-soak", None, lambda: model.embed_labels).labels
    queries = [text.partition(": ")[2] for text in texts[:: len(texts) // 4_000] if ": " in text]
    options = {"parameters": {"nprobe": 48, "k_factor_rf": 8}, "rescore": 2}
    return Corpus(texts, vectors, queries, model, trained.config, "IVF1024,PQ128x4fs,Refine(SQ8)", options)


def small_corpus(seed: int) -> Corpus:
    """The labels and some training queries of wordnet-8k, by an encoder that was not trained."""
    data = Dataset.load("wordnet-8k")
    config = TrainConfig(encoder=StaticConfig(dimension=64, table_rows=65_536, weight_slots=65_536))
    model = build_encoder(config, 0, torch.Generator().manual_seed(seed)).eval()
    texts = data.labels.texts.to_pylist()
    queries = data.split("train").texts.to_pylist()[:2_000]
    options = {"parameters": {"nprobe": 16}, "rescore": 2}
    return Corpus(
        texts, model.embed_labels(texts), queries, model.with_all_vectors(None), config, "IVF64,Flat", options
    )
