"""Labels of queries that nobody labelled: whichever of two models is surer names one.

Source: Cho, Joshi & Dimitriadis, Local or Global: Selective Knowledge Assimilation for Federated Learning with Limited Labels
(FedLabel), ICCV 2023; threshold and weights here are our own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from xmc.arrays import Rows
from xmc.data.tokens import RaggedTokens
from xmc.encoders.dual import DualEncoder
from xmc.kernels.positives import Positives
from xmc.kernels.statistics import label_statistics
from xmc.kernels.topk import topk_inner_product
from xmc.training.embedding import CHUNK, embed_queries
from xmc.training.supervision.known import KnownPairs
from xmc.training.supervision.pair_entries import PairEntries

__all__ = ["Named", "agreed", "name_labels", "with_pseudo_labels"]


@dataclass(frozen=True)
class Named:
    """The labels that a model finds the most probable for n queries, best first: int64 and float32 [n, k]."""

    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]


@torch.no_grad()
def name_labels(model: DualEncoder, queries: RaggedTokens, labels: Tensor, count: int) -> Named:
    """By the softmax over all labels of scores q·z / τ. labels: embeddings float32 [L, D] on the CPU."""
    temperature = float(model.temperature.detach())
    found, probabilities = [np.zeros((0, count), np.int64)], [np.zeros((0, count), np.float32)]
    for start in range(0, len(queries), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(queries)))
        embedded = torch.from_numpy(embed_queries(model, queries.take(rows)))
        scores, places = topk_inner_product(embedded / temperature, labels, count)
        none = Positives(torch.zeros(len(rows) + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
        level, _ = label_statistics(embedded, labels, none, temperature)
        found.append(places.numpy())
        probabilities.append((scores - level[:, None]).exp().numpy())
    return Named(np.concatenate(found), np.concatenate(probabilities))


def with_pseudo_labels(known: KnownPairs, rows: Rows, local: Named, average: Named, threshold: float) -> PairEntries:
    """What is known, and for each of `rows` (int64 [n]) the label that one of two models is surer of, from a probability on.

    Pairs that the data set says something of stay as they are.
    """
    surer = local.probabilities[:, 0] >= average.probabilities[:, 0]
    labels = np.where(surer, local.labels[:, 0], average.labels[:, 0])
    sure = np.maximum(local.probabilities[:, 0], average.probabilities[:, 0]) >= threshold
    given = known.given
    keys = np.setdiff1d(rows[sure] * given.count + labels[sure], given.keys)
    joined = np.concatenate([given.keys, keys])
    order = np.argsort(joined)
    pull = np.concatenate([given.pull, np.ones(len(keys), np.float32)])[order]
    push = np.concatenate([given.push, np.zeros(len(keys), np.float32)])[order]
    return PairEntries.from_keys(joined[order], pull, push, len(given), given.count)


def agreed(rows: Rows, local: Named, average: Named, queries: int, labels: int) -> csr_matrix:
    """CSR float32 [queries, labels]: the average's best labels of each of `rows` for which both models' best is the same.

    The values of a query are in proportion to the probabilities, and sum to one.
    """
    same = local.labels[:, 0] == average.labels[:, 0]
    named, weights = average.labels[same], average.probabilities[same]
    weights = weights / weights.sum(axis=1, keepdims=True)
    of_queries = np.repeat(rows[same], named.shape[1])
    return csr_matrix((weights.ravel(), (of_queries, named.ravel())), (queries, labels), dtype=np.float32)
