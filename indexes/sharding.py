"""Labels split between processes: each searches its own part, and all get the best of all parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from xmc.arrays import Embeddings
from xmc.errors import InputError
from xmc.indexes.identifiers import LabelIds
from xmc.indexes.label_index import IndexSnapshot, LabelIndex
from xmc.indexes.scan import best_of

__all__ = ["merge_shards", "search_shards"]


def merge_shards(results: list[tuple[LabelIds, Embeddings]], k: int) -> tuple[LabelIds, Embeddings]:
    """The k best [n, k'] of the results (ids [n, k_s], scores [n, k_s]) of several shards, k' = min(k, sum of k_s).

    Among equal scores that of the earlier shard comes first. InputError for shards whose ids are of different types.
    """
    if len({ids.dtype for ids, _ in results}) > 1:
        raise InputError("The shards hold ids of different types; use int64, or strings, in all of them.")
    scores, ids = best_of([(scores, ids) for ids, scores in results], k)
    return ids, scores


def search_shards(
    index: LabelIndex | IndexSnapshot,
    queries: Embeddings,
    k: int,
    group: dist.ProcessGroup | None = None,
    **options: Any,
) -> tuple[LabelIds, Embeddings]:
    """Search labels that are split between the processes of `group`: all of them call this with the same queries.

    index: of this process's labels, with int64 ids that no other process has. options: as of LabelIndex.search.

    Returns, in every process, what one index over all labels would: ids int64 [n, k'] and scores [n, k'], best first.
    Raises InputError for ids that are not int64.
    """
    held = index.snapshot() if isinstance(index, LabelIndex) else index
    ids, scores = held.search(queries, k, **options)
    if ids.dtype != np.int64:
        raise InputError("Labels that are split between processes need int64 ids, but these are strings.")
    padding = ((0, 0), (0, k - ids.shape[1]))  # a process with few labels sends as much as the others
    own_ids = torch.from_numpy(np.pad(ids, padding, constant_values=-1))
    own_scores = torch.from_numpy(np.pad(scores, padding, constant_values=-np.inf))
    processes = dist.get_world_size(group)
    all_ids = [torch.empty_like(own_ids) for _ in range(processes)]
    all_scores = [torch.empty_like(own_scores) for _ in range(processes)]
    dist.all_gather(all_ids, own_ids, group=group)
    dist.all_gather(all_scores, own_scores, group=group)
    labels = torch.tensor(len(held))
    dist.all_reduce(labels, group=group)
    merged = merge_shards([(a.numpy(), b.numpy()) for a, b in zip(all_ids, all_scores, strict=True)], k)
    width = min(k, int(labels))
    return merged[0][:, :width], merged[1][:, :width]
