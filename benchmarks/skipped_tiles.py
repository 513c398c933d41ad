"""Table skipped_tiles: the share of tiles that the Triton engine's backward pass computes on trained embeddings.

A static encoder is trained on LF-WordNet for four epochs; 4,096 training queries meet all labels, in tiles of 128 queries and
256 labels. Counted on a CPU, from scores in float32, for embeddings in bfloat16.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import lf_wordnet
import numpy as np
import torch
from measurements import Measurement
from torch import Tensor
from torch.nn.functional import normalize

import xmc
from xmc.config import TrainConfig
from xmc.kernels.triton_tiles.skipping import active_tiles, label_order

__all__ = ["run"]

ROWS, LABELS = 128, 256
TEMPERATURES = (None, 0.03, 0.02)
"""None: the one that it was trained with."""


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Each order of labels at each temperature."""
    data = lf_wordnet.dataset()
    config = TrainConfig.load(lf_wordnet.CONFIG, ["epochs=4", f"seed={seed}"])
    with tempfile.TemporaryDirectory() as folder:
        xmc.train(data, config, Path(folder) / "run")
        retriever = xmc.Retriever.load(Path(folder) / "run")
    split = data.split("train")
    rows = np.random.default_rng(seed).choice(len(split), 4096, replace=False)
    queries = torch.from_numpy(retriever.embed_queries(split.take(rows).texts.to_pylist()))
    labels = torch.from_numpy(np.array(retriever.embeddings, dtype=np.float32))
    generator = torch.Generator().manual_seed(seed)
    label_group, query_group = _groups(labels, queries, generator)
    orders = {
        "labels in random order": (torch.randperm(len(labels), generator=generator), torch.arange(len(queries))),
        "labels by mean score": (label_order(queries, labels), torch.arange(len(queries))),
        "labels by cluster": (label_group.argsort(stable=True), torch.arange(len(queries))),
        "labels and queries by cluster": (label_group.argsort(stable=True), query_group.argsort(stable=True)),
    }
    for temperature in TEMPERATURES:
        tau = temperature or config.objective.temperature
        for name, (order, row_order) in orders.items():
            if methods and not name.startswith(tuple(methods)):
                continue
            share = 100 * _active(queries[row_order], labels[order], tau)
            yield [Measurement("skipped_tiles", f"{name}, temperature {tau}", "computed", share, "percent", seed)]


def _active(queries: Tensor, labels: Tensor, temperature: float) -> float:
    """The share of tiles that are not skipped."""
    sums = torch.stack([(queries @ part.T / temperature).logsumexp(1) for part in labels.split(LABELS)])
    masses = (sums - sums.logsumexp(0)).exp()
    occupied = torch.zeros(-(-len(queries) // ROWS), len(masses), dtype=torch.bool)
    return active_tiles(masses, torch.ones(len(queries)), occupied, ROWS, torch.bfloat16).float().mean().item()


def _groups(labels: Tensor, queries: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of 512 clusters (spherical k-means, five rounds), numbered along a path of nearest neighbours, that of each vector."""
    centres = labels[torch.randperm(len(labels), generator=generator)[:512]]
    for _ in range(5):
        nearest = (labels @ centres.T).argmax(1)
        centres = normalize(torch.zeros_like(centres).index_add_(0, nearest, labels), dim=1)
    likeness = centres @ centres.T
    rank = torch.zeros(len(centres), dtype=torch.int64)
    open_ = torch.ones(len(centres), dtype=torch.bool)
    at = 0
    for step in range(len(centres)):
        rank[at], open_[at] = step, False
        at = int(likeness[at].masked_fill(~open_, -torch.inf).argmax())
    return rank[(labels @ centres.T).argmax(1)], rank[(queries @ centres.T).argmax(1)]
