"""Which labels a step scores, which of them it encodes, and which pairs count nowhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from xmc.config import TrainConfig
from xmc.kernels.statistics import Positives
from xmc.metrics.propensity import propensities
from xmc.training.randomness import Purpose, numpy_random

__all__ = ["AllLabels", "BankedLabels", "Batch", "Candidates", "Known", "LabelSubset", "Negatives", "Sampled", "Source"]

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """The queries of one step.

    rows: int64 [B], training queries. positives: CSR [B, L] of those this step trains on (values: relevance).
    known: CSR [B, L] of pairs that must not be negatives: all positives, and the pairs of the filter file.
    others: CSR [B, L] of all positives, where those that happen to be scored are trained on as well; else None.
    taught: CSR [B, L] of what a teacher says; None without one.
    """

    step: int
    rows: Rows
    positives: csr_matrix
    known: csr_matrix
    others: csr_matrix | None = None
    taught: csr_matrix | None = None


@dataclass(frozen=True)
class Candidates:
    """The labels of one step.

    rows: int64 [C], the label rows that are scored, ascending. fresh: int64 [F], those among them that are encoded,
    ascending; the others come from the bank. positives, exclude: of the batch, as positions in `rows`; `exclude` None for
    no pairs. log_inclusion: None, or float32 [C], see xmc.kernels.losses. weights: None, or float32 [F], how many times the
    gradient of each encoded label's text counts. taught: what a teacher says of the batch, as positions in `rows`, weighted.
    """

    rows: Tensor
    fresh: Tensor
    positives: Positives
    exclude: Positives | None
    log_inclusion: Tensor | None = None
    weights: Tensor | None = None
    taught: Positives | None = None


class Known:
    """The pairs of training queries and labels that are true, or filtered; draws the positives of a step."""

    def __init__(
        self,
        positives: csr_matrix,
        filtered: npt.NDArray[np.int64],
        config: TrainConfig,
        taught: csr_matrix | None = None,
    ) -> None:
        """positives: CSR [N, L]. filtered: pairs int64 [m, 2] that are neither positives nor negatives. taught: CSR [N, L]."""
        self.positives, self.taught = positives, taught
        ones = csr_matrix((np.ones(len(filtered), np.float32), (filtered[:, 0], filtered[:, 1])), shape=positives.shape)
        self.pairs = csr_matrix(positives + ones) if len(filtered) else positives
        self.seed, self.limit, self.in_batch = config.seed, config.positives_per_query, config.in_batch_positives
        self.chances: npt.NDArray[np.float64] | None = None
        """float64 [L], to which the chance of a positive to be drawn is proportional; None for equal chances."""
        if config.positives_drawn == "inverse_propensity" and positives.shape[0]:
            counts = np.asarray(positives.getnnz(axis=0))
            self.chances = 1 / propensities(counts, positives.shape[0], *config.positives_propensity)

    def batch(self, step: int, rows: Rows) -> Batch:
        """The queries `rows`, with the positives that this step trains on."""
        positives = self.positives[rows]
        if self.limit is not None:
            positives = _draw(positives, self.limit, numpy_random(self.seed, step, Purpose.POSITIVES), self.chances)
        others = self.positives[rows] if self.in_batch else None
        taught = None if self.taught is None else self.taught[rows]
        return Batch(step, rows, positives, self.pairs[rows], others, taught)


class Negatives(ABC):
    """Chooses the candidates of each batch."""

    hard: int = 0
    """How many of the labels that score highest by the bank `candidates` wants of each query."""

    @abstractmethod
    def candidates(self, batch: Batch, hard: Tensor | None = None) -> Candidates:
        """The labels that the step scores and encodes. hard: label rows int64, repeats allowed."""


class AllLabels(Negatives):
    """Every label, at every step (Gupta et al., DEXML, ICLR 2024)."""

    def __init__(self, labels: int, weighted: bool) -> None:
        self.rows, self.weighted = torch.arange(labels), weighted

    def candidates(self, batch: Batch, hard: Tensor | None = None) -> Candidates:
        """All labels, encoded."""
        positives = Positives.from_scipy(batch.positives, self.weighted)
        return Candidates(self.rows, self.rows, positives, _others(batch.known, batch.positives), taught=_taught(batch))


class BankedLabels(Negatives):
    """Every label at every step, of which the step encodes its positives, the hardest negatives and some in rotation."""

    def __init__(self, labels: int, config: TrainConfig) -> None:
        self.rows, self.weighted, self.seed = torch.arange(labels), config.relevance_weights, config.seed
        self.hard, self.refresh = config.bank.hard, min(config.bank.refresh, labels)
        self.share, self.unbiased = config.bank.positives, config.bank.unbiased
        self.order = np.random.default_rng(config.seed).permutation(labels)

    def candidates(self, batch: Batch, hard: Tensor | None = None) -> Candidates:
        """All labels."""
        labels = len(self.rows)
        turn = self.order[(batch.step * self.refresh + np.arange(self.refresh)) % max(labels, 1)]
        own = np.unique(batch.positives.indices).astype(np.int64)
        if self.share < 1:
            random = numpy_random(self.seed, batch.step, Purpose.POSITIVES)
            own = random.choice(own, round(self.share * len(own)), replace=False)
        parts = [own, turn.astype(np.int64)]
        if hard is not None:
            parts.append(hard.numpy())
        fresh = torch.from_numpy(np.unique(np.concatenate(parts)))
        weights = None
        if self.unbiased:
            in_rotation = torch.from_numpy(~np.isin(fresh.numpy(), np.concatenate([parts[0], *parts[2:]])))
            drawn = int(in_rotation.sum())
            weights = torch.where(in_rotation, (labels - len(fresh) + drawn) / max(drawn, 1), 1.0)
        positives = Positives.from_scipy(batch.positives, self.weighted)
        exclude = _others(batch.known, batch.positives)
        return Candidates(self.rows, fresh, positives, exclude, None, weights, _taught(batch))


class Source(ABC):
    """Labels to score besides the positives of the batch."""

    @abstractmethod
    def rows(self, batch: Batch) -> Rows:
        """Label rows int64, repeats allowed."""


class Sampled(Source):
    """Labels drawn uniformly without replacement.

    The inclusion probability of label j with n_j of N training queries, in a batch of B, is
    π_j = 1 - (1 - count / L) · (1 - n_j / N)^B: drawn, or a positive of some query of the batch.
    """

    def __init__(self, training: csr_matrix, count: int, batch_size: float, seed: int) -> None:
        queries, self.labels = training.shape
        self.count, self.seed = min(count, self.labels), seed
        share = np.asarray(training.getnnz(axis=0)) / queries
        missed = (1 - self.count / self.labels) * (1 - share) ** batch_size
        self.log_inclusion = np.log1p(-missed).astype(np.float32)

    def rows(self, batch: Batch) -> Rows:
        """A fresh sample."""
        random = numpy_random(self.seed, batch.step, Purpose.SAMPLED)
        return random.choice(self.labels, self.count, replace=False, shuffle=False).astype(np.int64)


class LabelSubset(Negatives):
    """The positives of the batch and what some sources give; all of them encoded."""

    def __init__(self, sources: list[Source], weighted: bool) -> None:
        """With `Sampled` among the sources, scores are corrected; labels of the other sources are in any sample."""
        self.sources, self.weighted = sources, weighted

    def candidates(self, batch: Batch, hard: Tensor | None = None) -> Candidates:
        """The union, once each."""
        given = {source: source.rows(batch) for source in self.sources}
        own = [part.indices.astype(np.int64) for part in (batch.positives, batch.taught) if part is not None]
        rows = np.unique(np.concatenate([*own, *given.values()]))
        chosen = batch.positives if batch.others is None else _inside(batch.others, rows)
        log_inclusion = None
        for source in self.sources:
            if isinstance(source, Sampled):
                values = source.log_inclusion[rows]
                for other, others in given.items():
                    if other is not source:
                        values[np.isin(rows, others)] = 0.0
                log_inclusion = torch.from_numpy(values)
        exclude, taught = _others(batch.known, chosen), _taught(batch)
        return Candidates(
            torch.from_numpy(rows),
            torch.from_numpy(rows),
            _placed(Positives.from_scipy(chosen, self.weighted), rows),
            None if exclude is None else _kept(exclude, rows),
            log_inclusion,
            taught=None if taught is None else _placed(taught, rows),
        )


def _draw(
    positives: csr_matrix, limit: int, random: np.random.Generator, chances: npt.NDArray[np.float64] | None
) -> csr_matrix:
    """At most `limit` positives of each row, drawn without replacement, uniformly or with `chances` [L] of each label.

    The smallest exponential waiting times are a weighted draw (Efraimidis and Spirakis 2006).
    """
    keys = random.random(positives.nnz)
    if chances is not None:
        keys = -np.log1p(-keys) / chances[positives.indices]
    rows = np.repeat(np.arange(positives.shape[0]), np.diff(positives.indptr))
    order = np.lexsort((keys, rows))
    kept = np.zeros(positives.nnz, bool)
    kept[order[np.arange(positives.nnz) - positives.indptr[rows] < limit]] = True
    return _filtered(positives, kept)


def _inside(pairs: csr_matrix, candidates: Rows) -> csr_matrix:
    """Those of the pairs whose labels are candidates."""
    return _filtered(pairs, np.isin(pairs.indices, candidates))


def _filtered(pairs: csr_matrix, kept: npt.NDArray[np.bool_]) -> csr_matrix:
    indptr = np.concatenate([[0], np.cumsum(kept)])[pairs.indptr]
    return csr_matrix((pairs.data[kept], pairs.indices[kept], indptr), shape=pairs.shape)


def _others(known: csr_matrix, chosen: csr_matrix) -> Positives | None:
    """Known pairs that the step does not train on, as labels; None where there are none."""
    if known.nnz == chosen.nnz:
        return None
    labels = known.shape[1]
    rows = np.repeat(np.arange(known.shape[0]), np.diff(known.indptr))
    own = np.repeat(np.arange(chosen.shape[0]), np.diff(chosen.indptr)) * labels + chosen.indices
    return Positives.from_scipy(_filtered(known, ~np.isin(rows * labels + known.indices, own)))


def _taught(batch: Batch) -> Positives | None:
    return None if batch.taught is None else Positives.from_scipy(batch.taught, weighted=True)


def _placed(pairs: Positives, candidates: Rows) -> Positives:
    """The pairs as positions in the candidates, among which their labels are."""
    return Positives(pairs.indptr, torch.from_numpy(np.searchsorted(candidates, pairs.indices.numpy())), pairs.weights)


def _kept(pairs: Positives, candidates: Rows) -> Positives:
    """Those of the pairs whose labels are candidates, as positions in these."""
    inside = np.isin(pairs.indices.numpy(), candidates)
    indptr = np.concatenate([[0], np.cumsum(inside)])[pairs.indptr.numpy()]
    return _placed(
        Positives(torch.from_numpy(indptr.astype(np.int64)), pairs.indices[torch.from_numpy(inside)]), candidates
    )
