"""What a retriever should answer, by plain numpy over all of its labels."""

from __future__ import annotations

from typing import Any

import numpy as np

import xmc

__all__ = ["expected"]


def expected(retriever: xmc.Retriever, queries: list[str], k: int, allowed: Any) -> tuple[list[list[Any]], Any]:
    """The k best labels by a plain product and sort; allowed: bool [n, L]."""
    scores = retriever.embed_queries(queries) @ retriever.embeddings.T
    scores = np.where(allowed, scores, -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, order, 1)
    uids = np.array(retriever.labels.uids.to_pylist(), object)[order]
    uids[np.isneginf(best)] = None
    return uids.tolist(), best
