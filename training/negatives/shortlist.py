"""Hard negatives of every training query, mined from an index of the labels, in the background."""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from typing_extensions import Self

from xmc.arrays import Rows
from xmc.config import ShortlistConfig, TrainConfig
from xmc.data.tokens import RaggedTokens
from xmc.encoders.dual import DualEncoder
from xmc.indexes.factory import build_index
from xmc.progress import tracked
from xmc.training.background import Background
from xmc.training.batch import Batch
from xmc.training.checkpoints import Checkpoint
from xmc.training.distributed import World
from xmc.training.embedding import CHUNK, embed_labels, embed_queries
from xmc.training.negatives.base import NegativeSource
from xmc.training.parts import PartState, Sizes, TrainingRun
from xmc.training.randomness import Purpose, numpy_random

__all__ = ["Shortlist", "mine"]

logger = logging.getLogger("xmc.training")
Lists = npt.NDArray[np.int32]


class Shortlist(NegativeSource):
    """For each query of a batch, some of a window of its best-scoring labels that are neither positive nor excluded.

    The window is mined at the start, then every `refresh_steps` steps from the model as it is at that step, by a thread
    that works on a copy while training goes on; what it finds is used `refresh_steps` later. So which shortlist a
    step sees does not depend on how fast the thread is, and a run can be repeated. (Several processes mine between steps,
    without a thread, and so does the static encoder where numba has no thread-safe layer.)
    """

    name = kind = "shortlist"

    def __init__(self, config: ShortlistConfig, seed: int, world: World) -> None:
        self.config, self.seed, self.world = config, seed, world
        self.lists: Lists = np.zeros((0, 0), np.int32)
        self.coming: Lists | None = None
        self._background: Background[Lists] = Background("xmc-shortlist")

    @classmethod
    def from_run(cls, run: TrainingRun) -> Self:
        """An empty shortlist."""
        return cls(run.config.negatives_of(ShortlistConfig), run.config.seed, run.world)

    @classmethod
    def memory(cls, sizes: Sizes) -> dict[str, float]:
        """A window of each training query, twice: that in use, and the one that is being mined."""
        options = sizes.config.negatives_of(ShortlistConfig)
        window = options.window_end - options.window_start
        return {"shortlists (host)": 2.0 * 4 * sizes.queries * min(window, sizes.labels)}

    @classmethod
    def count(cls, config: TrainConfig, labels: int, queries: float, positives: float) -> tuple[float, float]:
        """Those drawn of each query's window."""
        options = config.negatives_of(ShortlistConfig)
        return queries * options.size, queries * options.size

    def before_step(self, run: TrainingRun, batch: Batch) -> None:
        """Mine where it is time to."""
        data = run.data
        self.refresh(batch.step, run.model, data.query_features, data.label_features, data.known.entries.never_negative)

    def refresh(
        self, step: int, model: DualEncoder, queries: RaggedTokens, labels: RaggedTokens, known: csr_matrix
    ) -> None:
        """To be called before every step; mines where it is time to. known: CSR [N, L], the pairs that are never negatives."""
        if not len(self.lists):
            self.lists = mine(model, queries, labels, known, self.config, self.world)
            return
        if step % self.config.refresh_steps:
            return
        coming = self.settle()
        if coming is not None:
            self.lists, self.coming = coming, None
        work = (queries, labels, known, self.config, self.world)
        if self.world.size == 1 and all(encoder.is_thread_safe for encoder in model.encoders):
            self._background.start(mine, copy.deepcopy(model), *work)
        else:
            self.coming = mine(model, *work)

    def settle(self) -> Lists | None:
        """The shortlist that is being mined, once it is; None where none is."""
        mined = self._background.result()
        if mined is not None:
            self.coming = mined
        return self.coming

    def rows(self, batch: Batch) -> Rows:
        """`size` labels of each query's window, drawn without replacement."""
        window = self.lists[batch.rows]
        size = min(self.config.size, window.shape[1])
        keys = numpy_random(self.seed, batch.step, Purpose.SHORTLIST).random(window.shape)
        keys[window < 0] = 2.0  # where a query has fewer labels than the window, its row begins with -1
        chosen = np.take_along_axis(window, np.argpartition(keys, size - 1, axis=1)[:, :size], axis=1)
        return chosen[chosen >= 0].astype(np.int64)

    def state(self) -> PartState:
        """The lists in use and those to come; waits for what is being mined."""
        windows = {"shortlist.lists": self.lists, "shortlist.coming": self.settle()}
        held = {name: lists for name, lists in windows.items() if lists is not None and len(lists)}
        return PartState({name: torch.from_numpy(lists) for name, lists in held.items()})

    def load_state(self, run: TrainingRun, checkpoint: Checkpoint) -> None:
        """Take up what `state` gave."""
        for name in ("lists", "coming"):
            if f"shortlist.{name}" in checkpoint.names:
                setattr(self, name, checkpoint.tensor(f"shortlist.{name}").numpy())

    def close(self) -> None:
        """End the thread."""
        self._background.close()


def mine(
    model: DualEncoder,
    queries: RaggedTokens,
    labels: RaggedTokens,
    known: csr_matrix,
    config: ShortlistConfig,
    world: World,
) -> Lists:
    """For each query, the labels at ranks window_start to window_end of those that are not `known` [N, L]: int32 [N, m].

    In ascending order, -1 first where there are fewer. Embeds all queries and labels with the model as it is; each process
    of the world embeds its own labels, and mines for its part of the queries.
    """
    embeddings = torch.cat(world.parts(embed_labels(model, labels, world))).numpy()
    index = build_index(config.index, model.dimension, device="cpu")
    index.build(embeddings, np.arange(len(labels)))
    own = world.own(len(queries))
    lists = np.full(
        (own.stop - own.start, max(min(config.window_end, len(labels)) - config.window_start, 0)), -1, np.int32
    )
    chunks = world.chunks(len(queries), CHUNK)
    for rows in tracked(chunks, "mining hard negatives", own.stop - own.start, unit="queries", size=len):
        embedded = embed_queries(model, queries.take(rows))
        if len(rows):
            pairs = known[rows]
            excluded: Any = np.split(pairs.indices.astype(np.int64), pairs.indptr[1:-1])
            hits, _ = index.search(embedded, config.window_end, exclude=excluded)
            # In order of labels, so that which of them a step draws does not hang on how nearly equal scores are rounded.
            lists[rows - own.start] = np.sort(np.asarray(hits)[:, config.window_start :], axis=1)
    return torch.cat(world.parts(torch.from_numpy(lists))).numpy()
