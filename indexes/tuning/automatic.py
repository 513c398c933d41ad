"""The index that nobody named: exact over few labels, a scan of short codes over more, tuned over many."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict

import numpy as np

from xmc.arrays import Embeddings
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.checks import require_matrix
from xmc.indexes.contract import Devices
from xmc.indexes.designs import TUNED_FROM, is_exact
from xmc.indexes.engines.exact import ExactDesign
from xmc.indexes.engines.faiss import FaissDesign
from xmc.indexes.library import faiss
from xmc.indexes.tuning.candidates import CODE_DEPTHS, short_codes
from xmc.indexes.tuning.choice import tune_version
from xmc.indexes.tuning.goal import Goal
from xmc.indexes.tuning.trial import Trial
from xmc.indexes.versions import IndexVersion
from xmc.progress import progress

__all__ = ["automatic_version"]

logger = logging.getLogger("xmc.indexes.tuning")

CHECKED = 1_000
"""Queries on which a scan is checked, spread evenly over all."""


def automatic_version(blocks: EmbeddingBlocks, queries: Embeddings, devices: Devices = ()) -> IndexVersion:
    """The default index, which finds 99% of the ten best labels, by its size.

    Exact below EXACT_BELOW labels, and without FAISS or queries to check with. Below TUNED_FROM a scan of all labels by 4-bit
    codes whose best candidates are scored again by their embeddings, where it finds as much on the queries, which it does
    on all but strange embeddings, else exact; on devices exact. Above, tuned for `Goal()`.

    blocks: embeddings that are finite. queries, and errors: those of `tune_version`.
    """
    exact = IndexVersion.from_embeddings(ExactDesign(blocks.dimension), blocks, 0, devices)
    if is_exact("auto", len(exact)) or faiss is None or not len(queries):
        return exact
    if len(exact) < TUNED_FROM:
        return exact if devices else _scanned(exact, require_matrix(queries, exact.dimension, "queries"))
    goal = Goal()
    with progress(f"tuning the index, {goal.budget:.0f} s at most") as line:
        return tune_version(exact, queries, goal, report=line.say).version


def _scanned(exact: IndexVersion, queries: Embeddings) -> IndexVersion:
    """The same rows searched by 4-bit codes, and the least depth that reaches the goal; exact where none does."""
    goal = Goal()
    name = short_codes(exact.dimension)
    if name is None:
        return exact
    rows = np.unique(np.linspace(0, len(queries) - 1, min(CHECKED, len(queries))).astype(np.int64))
    trial = Trial(exact, queries[rows], goal)
    start = time.perf_counter()
    design = FaissDesign(exact.dimension, name)
    engine = design.build(exact.blocks, ())
    seconds = time.perf_counter() - start
    for depth in CODE_DEPTHS:
        scanned = exact.with_design(design, depth, engine)
        point = trial.point(scanned, name, seconds)
        if point.reaches(goal.recall):
            logger.info("the index is %s, rescore %d: recall %.4f", name, depth, point.recall)
            return scanned.noting({**asdict(point), "goal": asdict(goal), "pareto": [asdict(point)]})
    logger.info("no scan of codes reaches a recall of %s on these embeddings: the index is exact", goal.recall)
    return exact
