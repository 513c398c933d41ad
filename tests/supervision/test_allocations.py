"""An estimate holds no array of queries x labels, and a step none of its batch x labels."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from worlds import tiny_config, wordnet_part

from xmc.training.distributed import World
from xmc.training.negatives import JoinedNegatives, NegativeSource
from xmc.training.parts import TrainingRun
from xmc.training.step import Step
from xmc.training.trainer import prepare_run

QUERIES, LABELS, CANDIDATES, BATCH = 1500, 7488, 16, 512
ENTRY_BYTES = 1000
"""What the operations of a step make for one entry, all of them together: some hundred numbers."""


class Largest(TorchDispatchMode):
    """Notes the bytes of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.bytes = max(self.bytes, leaf.numel() * leaf.element_size())
        return made


class Total(Largest):
    """Adds up the bytes of all tensors that operations make."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.bytes += sum(
            leaf.numel() * leaf.element_size() for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)
        )
        return made


def prepared(**supervision: Any) -> tuple[TrainingRun, Step]:
    config = tiny_config(supervision=supervision, batch_size=BATCH, tile_bytes=1 << 18)
    run = prepare_run(wordnet_part(QUERIES), config, torch.device("cpu"), World())
    run.begin()
    sources = [part for part in run.parts if isinstance(part, NegativeSource)]
    return run, Step(run, JoinedNegatives(sources, LABELS))


def bytes_of_step(run: TrainingRun, step: Step, mode: Largest) -> int:
    batch = run.data.known.batch(0, np.arange(BATCH))
    features = step.dropped_queries(batch)
    with mode:
        step(batch, features)
    return mode.bytes


def test_neither_an_estimate_nor_a_step_holds_all_scores() -> None:
    run, step = prepared(estimator="posterior", wrong="estimate", recorded=0.5, candidates=CANDIDATES)
    supervision = next(part for part in run.parts if part.name == "supervision")
    first = run.config.supervision.first_epoch
    tracemalloc.start()
    supervision.before_epoch(run, first)
    _, arrays = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    with Largest() as estimate:
        supervision.before_epoch(run, first + 1)
    scores = 4 * QUERIES * LABELS
    assert estimate.bytes <= 8 << 20 < scores / 4  # one tile of the search, whatever the number of queries
    assert arrays < scores / 4  # numpy's, all of them together
    state = supervision.state().shared
    held = sum(
        state[name].numel() * state[name].element_size() for name in ("supervision.labels", "supervision.candidates")
    )
    assert held == 6 * CANDIDATES * QUERIES
    plain, plain_step = prepared()
    # The largest tensor of a step is no larger, and all of them together by what more entries take.
    assert bytes_of_step(run, step, Largest()) <= bytes_of_step(plain, plain_step, Largest()) < 4 * BATCH * LABELS / 4
    more = len(run.data.known.entries.labels) + len(plain.data.known.entries.labels)
    grown = bytes_of_step(run, step, Total()) - bytes_of_step(plain, plain_step, Total())
    assert grown < ENTRY_BYTES * more
