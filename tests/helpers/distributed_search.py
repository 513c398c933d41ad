"""Run by torchrun: labels split over the processes, against one index over all of them in one process."""

from __future__ import annotations

import numpy as np
import torch.distributed as dist

from xmc.indexes.factory import build_index
from xmc.indexes.sharding import search_shards


def main() -> None:
    dist.init_process_group("gloo")
    rank, processes = dist.get_rank(), dist.get_world_size()
    random = np.random.default_rng(0)
    labels, queries = (random.normal(size=(count, 16)).astype(np.float32) for count in (501, 20))
    ids = 7 * np.arange(501) - 100
    whole, shard = build_index("exact", 16), build_index("exact", 16)
    whole.build(labels, ids)
    own = (
        slice(0, 3) if rank == 0 else slice(3 + (rank - 1) * 498 // (processes - 1), 3 + rank * 498 // (processes - 1))
    )
    shard.build(labels[own], ids[own])
    gone = ids[::5]
    for k, options in ((10, {}), (30, {"exclude": gone}), (1000, {"include": gone}), (5, {"include": [-100]})):
        expected, found = whole.search(queries, k, **options), search_shards(shard, queries, k, **options)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-5)
    dist.barrier()
    if rank == 0:
        print("equal")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
