"""Exact search on devices of torch's: labels split evenly between them, each searched by the streaming top-k kernel."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from xmc.arrays import Embeddings, Mask, Rows
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.contract import Devices
from xmc.indexes.scan import best_of
from xmc.kernels.forks import refuse_device_of_parent
from xmc.kernels.topk import topk_inner_product

__all__ = ["DTYPES", "ShardedEngine"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class ShardedEngine:
    """Shards of the labels, one a device: the first device has the first rows."""

    exact = True

    def __init__(self, shards: Sequence[Tensor]) -> None:
        """shards: floating [rows, D]; their rows in turn are those of the index."""
        self.shards = tuple(shards)
        self.covered = sum(map(len, self.shards))

    @classmethod
    def from_embeddings(cls, embeddings: EmbeddingBlocks, devices: Devices, dtype: torch.dtype) -> ShardedEngine:
        """Copy embeddings to devices, in equal parts."""
        bounds = [len(embeddings) * number // len(devices) for number in range(len(devices) + 1)]
        shards = []
        for device, first, last in zip(devices, bounds[:-1], bounds[1:], strict=True):
            shard = torch.empty((last - first, embeddings.dimension), dtype=dtype, device=device)
            for start, block in embeddings:
                low, high = max(first, start), min(last, start + len(block))
                if low < high:
                    shard[low - first : high - first] = torch.tensor(block[low - start : high - start])
            shards.append(shard)
        return cls(shards)

    def search(self, queries: Embeddings, k: int, allowed: Mask | None, share: float) -> tuple[Embeddings, Rows]:
        """Scores and rows [n, k], of embeddings and queries rounded to the shards' type, summed up in float32."""
        firsts = np.cumsum([0, *map(len, self.shards)])

        def shard_best(number: int) -> tuple[Embeddings, Rows]:
            labels, first = self.shards[number], int(firsts[number])
            refuse_device_of_parent(str(labels.device))
            bias = None
            if allowed is not None:
                mask = torch.from_numpy(allowed[first : first + len(labels)]).to(labels.device)
                bias = torch.zeros(len(labels), device=labels.device).masked_fill_(~mask, -torch.inf)
            asked = torch.tensor(queries).to(labels.device, labels.dtype)
            scores, shard_rows = topk_inner_product(asked, labels, k, label_bias=bias)
            rows = shard_rows.cpu().numpy()
            return scores.cpu().numpy(), np.where(rows >= 0, rows + first, -1)

        if len(self.shards) == 1:
            return shard_best(0)
        with ThreadPoolExecutor(len(self.shards)) as pool:
            return best_of(list(pool.map(shard_best, range(len(self.shards)))), k)
