"""Copies of FAISS indexes on GPUs, and back: an index is saved, and extended on other machines, in its processor's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xmc.arrays import Embeddings
from xmc.indexes.engines.gpu_placement import GpuPlacement
from xmc.indexes.engines.gpu_resources import resources_of
from xmc.indexes.library import faiss

__all__ = [
    "copy_to_gpus",
    "copy_to_processor",
    "flat_in_16_bits",
    "graph_on_gpu",
    "has_whole_graph",
    "joined_shards",
    "shard_of",
]

BLOCK = 65_536
"""Rows that are decoded or coded at a time."""
LEAST_GRAPH = 1_000
"""A CAGRA graph of fewer labels is left to the processor: cuVS's way of building one needs more rows than neighbours."""
DETOURS = 2
"""A CAGRA graph is thinned out from this multiple of its neighbours a label, as cuVS does by default."""


def copy_to_gpus(index: Any, placement: GpuPlacement, numbers: Sequence[int]) -> Any:
    """A copy of a FAISS index on devices, by the classes of `placement`; a CAGRA graph reads `index` on, so keep it.

    Raises RuntimeError, FAISS's, where it cannot be: too little memory, say.
    """
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        base = copy_to_gpus(index.base_index, placement, numbers)
        outer = faiss.IndexRefine(base, faiss.clone_index(faiss.downcast_index(index.refine_index)))
        outer.k_factor, outer.is_trained = index.k_factor, index.is_trained
        return outer
    if placement.gpu_class == "GpuIndexCagra":
        if has_whole_graph(index):
            return faiss.index_cpu_to_gpu(resources_of(numbers[0]), numbers[0], index, _options(placement))
        rows = faiss.rev_swig_ptr(faiss.downcast_index(index.storage).get_xb(), index.ntotal * index.d)
        return graph_on_gpu(rows.reshape(-1, index.d), index.hnsw.nb_neighbors(0), numbers[0])
    if placement.gpu_class == "GpuIndexFlat" and placement.float16:
        return _flat_on_gpus(index, placement, numbers)
    if len(numbers) == 1:
        return faiss.index_cpu_to_gpu(resources_of(numbers[0]), numbers[0], index, _options(placement))
    # FAISS's own index_cpu_to_gpu_multiple copies in threads, and an error in one, such as too little memory, ends the process
    shards = []
    for place, number in enumerate(numbers):
        shard = shard_of(index, place, len(numbers))
        shards.append(faiss.index_cpu_to_gpu(resources_of(number), number, shard, _options(placement)))
    return joined_shards(shards)


def copy_to_processor(index: Any, placement: GpuPlacement) -> Any:
    """The processor's form of an index on devices, in memory of its own, all its rows in one piece."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        base = copy_to_processor(index.base_index, placement)
        outer = faiss.IndexRefine(base, faiss.clone_index(faiss.downcast_index(index.refine_index)))
        outer.k_factor, outer.is_trained = index.k_factor, index.is_trained
        return outer
    copy = faiss.index_gpu_to_cpu(index)  # of its own class: downcast_index would not keep it alive
    return flat_in_16_bits(copy) if placement.gpu_class == "GpuIndexFlat" and placement.float16 else copy


def shard_of(index: Any, place: int, count: int) -> Any:
    """One of `count` parts of a flat index, whose rows are next to each other, or of an inverted file, whose ids are kept.

    A part of an inverted file uses the cells of the whole, which must live as long.
    """
    index = faiss.downcast_index(index)
    if not isinstance(index, faiss.IndexIVF):
        first, last = (index.ntotal * edge // count for edge in (place, place + 1))
        part = faiss.IndexFlat(index.d, index.metric_type)
        for start in range(first, last, BLOCK):
            part.add(index.reconstruct_n(start, min(BLOCK, last - start)))
        return part
    sizes = index.quantizer, index.d, index.nlist
    if isinstance(index, faiss.IndexIVFPQ):
        part = faiss.IndexIVFPQ(*sizes, index.pq.M, index.pq.nbits, index.metric_type)
        part.pq, part.use_precomputed_table = index.pq, 0
    elif isinstance(index, faiss.IndexIVFScalarQuantizer):
        part = faiss.IndexIVFScalarQuantizer(*sizes, index.sq.qtype, index.metric_type, index.by_residual)
        part.sq = index.sq
    else:
        part = faiss.IndexIVFFlat(*sizes, index.metric_type)
    part.own_fields = False
    part.is_trained, part.nprobe = index.is_trained, index.nprobe
    index.copy_subset_to(part, faiss.InvertedLists.SUBSET_TYPE_ID_MOD, count, place)
    return part


def joined_shards(shards: Sequence[Any]) -> Any:
    """An index over shards, which are searched at the same time; rows of flat ones are numbered through."""
    first = faiss.downcast_index(shards[0])
    joined = faiss.IndexShards(first.d, True, not hasattr(first, "nlist"))
    for shard in shards:
        joined.add_shard(shard)
    return joined


def flat_in_16_bits(flat: Any) -> Any:
    """A flat index of the processor's in 16 bits, as SQfp16 stores it; values that fit into 16 bits stay as they are."""
    coded = faiss.IndexScalarQuantizer(flat.d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for start in range(0, flat.ntotal, BLOCK):
        coded.add(flat.reconstruct_n(start, min(BLOCK, flat.ntotal - start)))
    return coded


def has_whole_graph(index: Any) -> bool:
    """Whether each row of an IndexHNSWCagra has all its neighbours, as the GPU demands; those of HNSW's making have not."""
    if not index.ntotal:
        return False
    links = index.hnsw.nb_neighbors(0)
    starts = faiss.vector_to_array(index.hnsw.offsets)[: index.ntotal].astype(np.int64)
    neighbours = faiss.rev_swig_ptr(index.hnsw.neighbors.data(), index.hnsw.neighbors.size())
    return bool((neighbours[starts + links - 1] >= 0).all())  # they are filled from the front


def graph_on_gpu(embeddings: Embeddings, links: int, number: int) -> Any:
    """A CAGRA graph over embeddings float32 [n, D], which must live as long, with this number of links a label."""
    if len(embeddings) < LEAST_GRAPH:
        raise RuntimeError(f"a CAGRA graph on a GPU needs {LEAST_GRAPH:,} labels")
    config = faiss.GpuIndexCagraConfig()
    config.device = number
    config.graph_degree, config.intermediate_graph_degree = links, DETOURS * links
    graph = faiss.GpuIndexCagra(resources_of(number), embeddings.shape[1], faiss.METRIC_INNER_PRODUCT, config)
    graph.train(embeddings)
    return graph


def _options(placement: GpuPlacement) -> Any:
    options = faiss.GpuClonerOptions()
    options.use_cuvs, options.useFloat16 = placement.cuvs, placement.float16
    return options


def _flat_on_gpus(index: Any, placement: GpuPlacement, numbers: Sequence[int]) -> Any:
    """A flat index in 16 bits: FAISS itself copies it neither for cuVS nor split."""
    shards = []
    bounds = [index.ntotal * place // len(numbers) for place in range(len(numbers) + 1)]
    for number, first, last in zip(numbers, bounds[:-1], bounds[1:], strict=True):
        config = faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16, config.use_cuvs = number, True, placement.cuvs
        shard = faiss.GpuIndexFlat(resources_of(number), index.d, faiss.METRIC_INNER_PRODUCT, config)
        for start in range(first, last, BLOCK):
            shard.add(index.reconstruct_n(start, min(BLOCK, last - start)))
        shards.append(shard)
    return shards[0] if len(shards) == 1 else joined_shards(shards)
