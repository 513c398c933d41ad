"""What is known of the training queries' pairs, and which positives each step draws."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from xmc.arrays import Mask, Rows
from xmc.config import TrainConfig
from xmc.data.targets import Targets
from xmc.metrics.propensity import propensities
from xmc.training.batch import Batch
from xmc.training.randomness import Purpose, numpy_random
from xmc.training.supervision.pair_entries import PairEntries, keys_of
from xmc.training.targets import StepTargets

__all__ = ["KnownPairs"]


class KnownPairs:
    """The known pairs of N training queries and L labels; makes the batch of each step from them.

    What a teacher names is pulled by its weight, except where it is excluded or judged not relevant: data outrank the teacher.
    Excluded pairs, and positives that the teacher does not name, count nowhere in what it says.
    """

    def __init__(self, targets: Targets, config: TrainConfig, taught: csr_matrix | None = None) -> None:
        """taught: CSR float32 [N, L], the teacher's weights; None without a teacher."""
        self.targets, self.taught = targets, taught
        objective = config.objective
        self.given = PairEntries.of(targets, objective.relevance_weights, config.supervision.rejected_weight)
        """What the data set says."""
        self.entries = self.given
        """What is trained on from now on."""
        self.believed = self.given
        """What is taken for true from now on: a teacher is heard beside it."""
        self.version = 0
        """How often `entries` changed."""
        self.seed, self.limit, self.in_batch = config.seed, objective.positives_per_query, objective.in_batch_positives
        self.chances: npt.NDArray[np.float64] | None = None
        """float64 [L], to which the chance of a positive to be drawn is proportional; None for equal chances."""
        if objective.positives_drawn == "inverse_propensity" and len(targets):
            self.chances = 1 / propensities(targets.positive_counts, len(targets), *objective.positives_propensity)

    @property
    def positive_pairs(self) -> tuple[Rows, Rows]:
        """The query and the label of each given positive, whether it is trained on or not, int64 [n] each."""
        positive = self.given.pull > 0
        return self.given.queries[positive], self.given.labels[positive].astype(np.int64)

    def train_on(self, chosen: npt.NDArray[np.bool_]) -> None:
        """From now on, only these of `positive_pairs`, bool [n], are positives; the others count nowhere.

        That is a choice and not knowledge: a teacher may pull the others.
        """
        every = np.ones(len(self.given.labels), bool)
        every[self.given.pull > 0] = chosen
        self.use(self.given.pulling(every))
        self.believed = self.given

    def use(self, entries: PairEntries) -> None:
        """From now on, train on these entries of the same queries and labels."""
        self.entries = self.believed = entries
        self.version += 1

    def batch(self, step: int, rows: Rows) -> Batch:
        """The queries `rows`, with the positives that this step trains on."""
        known = self.entries.take(rows)
        every = known.for_step()
        targets = every
        if self.limit is not None:
            targets = known.pulling(self._drawn(known, self.limit, step)).for_step()
        taught = None if self.taught is None else _taught(self.believed.take(rows), self.taught[rows])
        return Batch(step, rows, targets, every if self.in_batch else targets, taught)

    @property
    def pulled(self) -> Mask:
        """The labels that a query pulls, as its positive or because the teacher names them: bool [L]."""
        pulled = np.zeros(self.entries.count, bool)
        pulled[self.entries.labels[self.entries.pull > 0]] = True
        if self.taught is not None:
            pulled[self.taught.indices] = True
        return pulled

    def brought(self) -> csr_matrix:
        """CSR float64 [N, L]: the chance that a step with the query must score the label.

        That is 1 for what was judged not relevant and for what the teacher names. A positive has the chance to be drawn: exact
        for draws with equal chances, and as if they were equal for draws by inverse propensity.
        """
        known = self.entries
        positive = known.pull > 0
        chances = (positive | (known.push >= 1)).astype(np.float64)
        if self.limit is not None:
            queries = known.queries[positive]
            counts = np.bincount(queries, minlength=len(known))
            chances[positive] = np.minimum(1, self.limit / counts[queries])
        brought = csr_matrix((chances, known.labels, known.indptr), shape=(len(known), known.count))
        if self.taught is None:
            return brought
        taught = _taught(self.believed, self.taught)
        named = (taught.pull > 0).numpy().astype(np.float64)
        return brought.maximum(csr_matrix((named, taught.labels.numpy(), taught.indptr.numpy()), shape=brought.shape))

    def _drawn(self, known: PairEntries, limit: int, step: int) -> npt.NDArray[np.bool_]:
        """Which entries are drawn: at most `limit` positives of each query, without replacement.

        The smallest exponential waiting times are a weighted draw (Efraimidis and Spirakis 2006).
        """
        positive = known.pull > 0
        queries = known.queries[positive]
        keys = numpy_random(self.seed, step, Purpose.POSITIVES).random(len(queries))
        if self.chances is not None:
            keys = -np.log1p(-keys) / self.chances[known.labels[positive]]
        order = np.lexsort((keys, queries))
        starts = np.concatenate([[0], np.cumsum(positive)])[known.indptr]
        kept = np.zeros(len(queries), bool)
        kept[order[np.arange(len(queries)) - starts[queries] < limit]] = True
        drawn: npt.NDArray[np.bool_] = positive.copy()
        drawn[positive] = kept
        return drawn


def _taught(known: PairEntries, taught: csr_matrix) -> StepTargets:
    """What a teacher says of some queries, given what is known of them."""
    taught_keys = keys_of(taught)
    keys = np.union1d(known.keys, taught_keys)
    pull, push = np.zeros(len(keys), np.float32), np.full(len(keys), np.nan, np.float32)
    pull[np.searchsorted(keys, taught_keys)] = taught.data
    places = np.searchsorted(keys, known.keys)
    push[places] = known.push
    pull[places[known.pull == 0]] = 0
    push = np.where(np.isnan(push), pull == 0, push)
    return PairEntries.from_keys(keys, pull, push, len(known), known.count).for_step()
