"""A first pass over many vectors in bfloat16, after which the best ones are compared exactly."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from xmc.arrays import Embeddings, Rows

__all__ = ["GROUPED", "lowered", "screened_rows"]

GROUPED = 16
"""Vectors of a group: the best of each group are found first, then the best vectors of the best groups."""
TILE = 1 << 23
"""Number of products that are held at a time."""


def lowered(vectors: Embeddings) -> Tensor:
    """Vectors [N, D] in bfloat16, with zeros behind up to a multiple of `GROUPED`."""
    count = -(-len(vectors) // GROUPED) * GROUPED
    low = torch.zeros(count, vectors.shape[1], dtype=torch.bfloat16)
    low[: len(vectors)] = torch.from_numpy(np.array(vectors))  # a copy: a memory map cannot be written
    return low


@torch.no_grad()
def screened_rows(queries: Embeddings, low: Tensor, count: int, total: int) -> Rows:
    """For each query [n, D] the rows of `count` vectors of about the largest products, int64 [n, count], in no order.

    low: what `lowered` made of `total` vectors, at least GROUPED · count. Rows are -1 where zeros are better than all vectors.
    """
    groups = len(low) // GROUPED
    height = max(1, TILE // len(low))
    rows = torch.empty(len(queries), count, dtype=torch.int64)
    for top in range(0, len(queries), height):
        tile = torch.from_numpy(queries[top : top + height]).bfloat16() @ low.T
        products = tile.view(len(tile), GROUPED, groups)
        best = products.amax(dim=1).topk(count, dim=1).indices
        members = products.gather(2, best[:, None, :].expand(-1, GROUPED, -1)).reshape(len(tile), -1)
        places = members.float().topk(count, dim=1).indices
        rows[top : top + height] = best.gather(1, places % count) + places // count * groups
    rows[rows >= total] = -1
    found: Rows = rows.numpy()
    return found
