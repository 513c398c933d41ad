"""Scores of the pairs that an estimate asks for: those with evidence, each query's best others, and pairs of chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import logsumexp
from torch import Tensor

from xmc.arrays import Rows
from xmc.data.tokens import RaggedTokens
from xmc.encoders.dual import DualEncoder
from xmc.kernels.positives import Positives
from xmc.kernels.topk import topk_inner_product
from xmc.progress import tracked
from xmc.training.distributed import World
from xmc.training.embedding import CHUNK, embed_labels, embed_queries
from xmc.training.supervision.pair_entries import PairEntries

__all__ = ["PairScores", "score_labels", "score_pairs"]

Scores = npt.NDArray[np.float32]
PAIRS_AT_ONCE = 65_536
"""Number of pairs whose embeddings are multiplied together."""


@dataclass(frozen=True)
class PairScores:
    """Scores q·z / τ of N queries' pairs.

    evidence: float32 [n], of the pairs with evidence. labels, best: int32 and float32 [N, m], the labels without evidence that
    score best, and their scores; -1 and -inf where a query has fewer. chance: float32 [N, c], of labels given by a caller.
    """

    evidence: Scores
    labels: npt.NDArray[np.int32]
    best: Scores
    chance: Scores

    @property
    def level(self) -> npt.NDArray[np.float64]:
        """The log-sum-exp of the best scores of each query, float64 [N]; 0 where it has none."""
        level: npt.NDArray[np.float64] = logsumexp(self.best, axis=1) if self.best.size else np.zeros(len(self.best))
        return np.where(np.isfinite(level), level, 0.0)


def score_pairs(
    model: DualEncoder,
    queries: RaggedTokens,
    labels: RaggedTokens,
    evidence: PairEntries,
    chance: Rows,
    candidates: int,
    world: World,
) -> PairScores:
    """Score by the model as it is. chance: int64 [N, c], labels that are drawn for each query.

    Each process of the world embeds its own labels, and scores its part of the queries; all get the scores of all. What is held
    in memory is the embeddings of all labels, those of a chunk of queries, and the scores that are returned.
    """
    embeddings = torch.cat(world.parts(embed_labels(model, labels, world)))
    return score_labels(model, queries, embeddings, evidence, chance, candidates, world)


def score_labels(
    model: DualEncoder,
    queries: RaggedTokens,
    embeddings: Tensor,
    evidence: PairEntries,
    chance: Rows,
    candidates: int,
    world: World,
) -> PairScores:
    """As `score_pairs`, of labels whose embeddings are known, float32 [L, D] on the CPU."""
    temperature = float(model.temperature.detach())
    own = world.own(len(queries))
    count = min(candidates, len(embeddings))
    of_evidence, found, best, of_chance = [], [], [], []
    for rows in tracked(
        world.chunks(len(queries), CHUNK), "scoring pairs", own.stop - own.start, unit="queries", size=len
    ):
        embedded = torch.from_numpy(embed_queries(model, queries.take(rows))) / temperature
        known = evidence.take(rows)
        of_evidence.append(_of_pairs(embedded, embeddings, known.queries, known.labels))
        exclude = Positives(torch.from_numpy(known.indptr), torch.from_numpy(known.labels.astype(np.int64)))
        scores, places = topk_inner_product(embedded, embeddings, count, exclude=exclude)
        found.append(places.int())
        best.append(scores.float())
        drawn = chance[rows]
        at = np.repeat(np.arange(len(rows)), drawn.shape[1])
        of_chance.append(_of_pairs(embedded, embeddings, at, drawn.ravel()).view(drawn.shape))

    def whole(parts: list[Tensor], empty: Tensor) -> npt.NDArray[np.float32]:
        values: npt.NDArray[np.float32] = torch.cat(world.parts(torch.cat(parts) if parts else empty)).numpy()
        return values

    none = torch.zeros(0, count)
    return PairScores(
        whole(of_evidence, torch.zeros(0)),
        whole(found, none.int()).astype(np.int32),
        whole(best, none),
        whole(of_chance, torch.zeros(0, chance.shape[1])),
    )


def _of_pairs(queries: Tensor, labels: Tensor, rows: Rows, columns: npt.NDArray[np.integer]) -> Tensor:
    """Inner products float32 [n] of the rows of one matrix with those of another."""
    scores = torch.empty(len(rows))
    of_rows, of_columns = torch.from_numpy(rows), torch.from_numpy(columns.astype(np.int64))
    for start in range(0, len(rows), PAIRS_AT_ONCE):
        some = slice(start, start + PAIRS_AT_ONCE)
        scores[some] = torch.linalg.vecdot(queries[of_rows[some]], labels[of_columns[some]])
    return scores
