"""What is known of the training queries' pairs, and which positives each step draws."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix

from xmc.arrays import Mask, Rows
from xmc.config import TrainConfig
from xmc.data.targets import Targets
from xmc.metrics.propensity import propensities
from xmc.training.batch import Batch
from xmc.training.randomness import Purpose, numpy_random
from xmc.training.targets import StepTargets

__all__ = ["KnownPairs"]

REJECTED, EXCLUDED = 0.0, -1.0
"""Values that stand for a pair that was judged not relevant, and for one that counts nowhere; a positive has its weight."""


class KnownPairs:
    """The known pairs of N training queries and L labels; makes the batch of each step from them.

    What a teacher names is pulled by its weight, except where it is excluded or judged not relevant: data outrank the teacher.
    Excluded pairs, and positives that the teacher does not name, count nowhere in what it says.
    """

    def __init__(self, targets: Targets, config: TrainConfig, taught: csr_matrix | None = None) -> None:
        """taught: CSR float32 [N, L], the teacher's weights; None without a teacher."""
        self.targets, self.taught = targets, taught
        self.values = _coded(targets)
        """CSR float32 [N, L]: the weight of a positive, or REJECTED, or EXCLUDED."""
        self._every = self.values
        objective = config.objective
        self.seed, self.limit, self.in_batch = config.seed, objective.positives_per_query, objective.in_batch_positives
        self.weighted = objective.relevance_weights
        self.chances: npt.NDArray[np.float64] | None = None
        """float64 [L], to which the chance of a positive to be drawn is proportional; None for equal chances."""
        if objective.positives_drawn == "inverse_propensity" and len(targets):
            self.chances = 1 / propensities(targets.positive_counts, len(targets), *objective.positives_propensity)

    @property
    def positive_pairs(self) -> tuple[Rows, Rows]:
        """The query and the label of each positive, whether it is trained on or not, int64 [n] each."""
        positive = self._every.data > 0
        queries = np.repeat(np.arange(self._every.shape[0]), np.diff(self._every.indptr))
        return queries[positive], self._every.indices[positive].astype(np.int64)

    def train_on(self, chosen: npt.NDArray[np.bool_]) -> None:
        """From now on, only these of `positive_pairs`, bool [n], are positives; the others count nowhere."""
        values = self._every.data.copy()
        values[values > 0] = np.where(chosen, values[values > 0], EXCLUDED)
        self.values = csr_matrix((values, self._every.indices, self._every.indptr), shape=self._every.shape)

    def batch(self, step: int, rows: Rows) -> Batch:
        """The queries `rows`, with the positives that this step trains on."""
        known = self.values[rows]
        drawn = positive = np.asarray(known.data > 0)
        if self.limit is not None:
            drawn = self._drawn(known, positive, self.limit, step)
        targets = self._targets(known, drawn)
        every = self._targets(known, positive) if self.in_batch else targets
        taught = None if self.taught is None else _taught(known, self.taught[rows])
        return Batch(step, rows, targets, every, taught)

    @property
    def pulled(self) -> Mask:
        """The labels that a query pulls, as its positive or because the teacher names them: bool [L]."""
        pulled = np.zeros(self.values.shape[1], bool)
        pulled[self.values.indices[self.values.data > 0]] = True
        if self.taught is not None:
            pulled[self.taught.indices] = True
        return pulled

    def brought(self) -> csr_matrix:
        """CSR float64 [N, L]: the chance that a step with the query must score the label.

        That is 1 for what was judged not relevant and for what the teacher names. A positive has the chance to be drawn: exact
        for draws with equal chances, and as if they were equal for draws by inverse propensity.
        """
        known = self.values
        positive = known.data > 0
        chances = (known.data != EXCLUDED).astype(np.float64)
        if self.limit is not None:
            queries = np.repeat(np.arange(known.shape[0]), np.diff(known.indptr))[positive]
            counts = np.bincount(queries, minlength=known.shape[0])
            chances[positive] = np.minimum(1, self.limit / counts[queries])
        brought = csr_matrix((chances, known.indices, known.indptr), shape=known.shape)
        if self.taught is None:
            return brought
        taught = _taught(known, self.taught)
        named = (taught.pull > 0).numpy().astype(np.float64)
        return brought.maximum(csr_matrix((named, taught.labels.numpy(), taught.indptr.numpy()), shape=known.shape))

    def _targets(self, known: csr_matrix, trained: npt.NDArray[np.bool_]) -> StepTargets:
        """The entries of some queries, among which the positives of a mask are trained on."""
        weights = known.data if self.weighted else np.float32(1)
        return _entries(
            known.indptr, known.indices, np.where(trained, weights, 0), known.data == REJECTED, known.shape[1]
        )

    def _drawn(
        self, known: csr_matrix, positive: npt.NDArray[np.bool_], limit: int, step: int
    ) -> npt.NDArray[np.bool_]:
        """Which entries are drawn: at most `limit` positives of each query, without replacement.

        The smallest exponential waiting times are a weighted draw (Efraimidis and Spirakis 2006).
        """
        queries = np.repeat(np.arange(known.shape[0]), np.diff(known.indptr))[positive]
        keys = numpy_random(self.seed, step, Purpose.POSITIVES).random(len(queries))
        if self.chances is not None:
            keys = -np.log1p(-keys) / self.chances[known.indices[positive]]
        order = np.lexsort((keys, queries))
        starts = np.concatenate([[0], np.cumsum(positive)])[known.indptr]
        kept = np.zeros(len(queries), bool)
        kept[order[np.arange(len(queries)) - starts[queries] < limit]] = True
        drawn: npt.NDArray[np.bool_] = positive.copy()
        drawn[positive] = kept
        return drawn


def _coded(targets: Targets) -> csr_matrix:
    """All known pairs in one matrix; the positives themselves where nothing else is known."""
    if not targets.rejected.nnz and not targets.excluded.nnz:
        return targets.positives
    queries, labels = targets.positives.shape
    kinds = [
        (_keys(targets.excluded), np.full(targets.excluded.nnz, EXCLUDED)),
        (_keys(targets.rejected), np.full(targets.rejected.nnz, REJECTED)),
        (_keys(targets.positives), targets.positives.data),
    ]
    keys, first = np.unique(
        np.concatenate([keys for keys, _ in kinds]), return_index=True
    )  # what is excluded comes first
    values = np.concatenate([values for _, values in kinds])[first].astype(np.float32)
    indptr = np.searchsorted(keys, np.arange(queries + 1) * labels)
    return csr_matrix((values, keys % max(labels, 1), indptr), shape=(queries, labels))


def _taught(known: csr_matrix, taught: csr_matrix) -> StepTargets:
    """What a teacher says of some queries, given what is known of them."""
    queries, labels = known.shape
    known_keys, taught_keys = _keys(known), _keys(taught)
    keys = np.union1d(known_keys, taught_keys)
    pull, values = np.zeros(len(keys), np.float32), np.full(len(keys), np.nan, np.float32)
    pull[np.searchsorted(keys, taught_keys)] = taught.data
    values[np.searchsorted(keys, known_keys)] = known.data
    pull[values <= 0] = 0
    push = np.where(np.isnan(values), pull == 0, values == REJECTED)
    indptr = np.searchsorted(keys, np.arange(queries + 1) * labels)
    return _entries(indptr, keys % max(labels, 1), pull, push, labels)


def _keys(matrix: csr_matrix) -> Rows:
    """A number for each stored pair, ascending by query and label."""
    rows = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    return np.asarray(rows * matrix.shape[1] + matrix.indices, np.int64)


def _entries(
    indptr: npt.NDArray[np.integer],
    labels: npt.NDArray[np.integer],
    pull: npt.NDArray[np.floating],
    push: npt.NDArray[np.bool_],
    count: int,
) -> StepTargets:
    return StepTargets(
        torch.from_numpy(indptr.astype(np.int64)),
        torch.from_numpy(labels.astype(np.int64)),
        torch.from_numpy(pull.astype(np.float32)),
        torch.from_numpy(push.astype(np.float32)),
        count,
    )
