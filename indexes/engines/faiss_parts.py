"""FAISS indexes and what they are made of: by factory string, their search parameters, their memory."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from xmc.errors import ConfigError, DependencyError, missing_package
from xmc.indexes.engines.faiss_sizes import require_modest_design, require_modest_parameters
from xmc.indexes.library import faiss, why_no_faiss

__all__ = [
    "bytes_of",
    "can_select",
    "empty_faiss_index",
    "learning_quietly",
    "parts_of",
    "search_parameters",
    "set_parameters",
    "wrapped_parameters",
]

CELL_ROUNDS = 10
"""Rounds of k-means; more take longer and change recall little."""
GRAPH_EFFORT = 100
"""Candidates for the links of a label in an HNSW graph (efConstruction); FAISS's own 40 gives graphs of low recall."""
CAGRA = re.compile(r"CAGRA(\d+)")
"""The name of a graph that cuVS builds and searches on a GPU, by its links a label; on the processor it is searched as HNSW.
FAISS's factory has no name for it."""
POINTS_PER_CELL = 64
"""The cells of an inverted file are learned from this number of rows for each of them at most."""


def empty_faiss_index(factory: str, dimension: int) -> Any:
    """faiss.index_factory for inner product; DependencyError without FAISS.

    Raises ConfigError for a design that FAISS does not have, and for numbers in it that no machine has the memory for.
    """
    if faiss is None and why_no_faiss:
        raise DependencyError(
            f"The index design is {factory!r}, which needs FAISS, and the FAISS that is installed cannot be loaded: "
            f'{why_no_faiss} See xmc doctor; the design "exact" works without FAISS.'
        )
    if faiss is None:
        raise missing_package(
            "faiss",
            f"The index design is {factory!r}",
            'faiss-cpu (or, for indexes on a GPU, faiss-gpu); the design "exact" works without it.',
        )
    require_modest_design(factory, dimension)
    graph = CAGRA.fullmatch(factory) if isinstance(factory, str) else None
    try:
        if graph:
            index = faiss.IndexHNSWCagra(dimension, int(graph[1]) // 2, faiss.METRIC_INNER_PRODUCT)
        else:
            index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except Exception as error:
        raise ConfigError(
            f"{factory!r} is not an index design that faiss has for inner product in dimension "
            f'{dimension}; examples: exact, Flat, HNSW32, "IVF256,Flat", "IVF256,PQ16".'
        ) from error
    if isinstance(index, faiss.IndexIDMap):
        raise ConfigError(f"Leave IDMap out of the index design {factory!r}: ids are kept without it.")
    _require_sound(index, factory)
    for part in parts_of(index):
        if isinstance(part, faiss.IndexIVF):
            part.cp.max_points_per_centroid, part.cp.niter = POINTS_PER_CELL, CELL_ROUNDS
        elif isinstance(part, faiss.IndexHNSW):
            part.hnsw.efConstruction = GRAPH_EFFORT
    _accept_few_points(index)
    return index


def _accept_few_points(index: Any) -> None:
    """Let every k-means that an index learns by take one point for each centroid: FAISS warns on standard error otherwise.

    The sub-quantizers of PRQ designs cannot be reached from Python, and still warn.
    """
    for part in parts_of(index):
        learners: list[Any] = [part, getattr(part, "pq", None), getattr(part, "rq", None)]
        for learner in learners:
            if hasattr(learner, "cp"):
                learner.cp.min_points_per_centroid = 1
        for name in ("quantizer", "storage", "refine_index"):
            inner = getattr(part, name, None)
            if isinstance(inner, faiss.Index):
                _accept_few_points(inner)


@contextlib.contextmanager
def learning_quietly(index: Any) -> Iterator[None]:
    """A context in which the rotations of OPQ learn without FAISS's warnings of few points on standard error."""
    rotations = []
    for part in parts_of(index):
        if isinstance(part, faiss.IndexPreTransform):
            chain = [faiss.downcast_VectorTransform(part.chain.at(place)) for place in range(part.chain.size())]
            rotations += [transform for transform in chain if isinstance(transform, faiss.OPQMatrix)]
    codebooks = [faiss.ProductQuantizer(rotation.d_out, rotation.M, 8) for rotation in rotations]
    for rotation, codebook in zip(rotations, codebooks, strict=True):
        codebook.cp.min_points_per_centroid = 1
        rotation.pq = codebook
    try:
        yield
    finally:
        for rotation in rotations:
            rotation.pq = None  # FAISS does not own it


def _require_sound(index: Any, factory: str) -> None:
    """Raise ConfigError for what FAISS makes an index of and then fails on, or ends the process."""
    for part in parts_of(index):
        if part.d < 1:
            raise ConfigError(f"The index design {factory!r} leaves no dimension of the embeddings.")
        if isinstance(part, faiss.IndexHNSW) and part.hnsw.cum_nneighbor_per_level.size() < 3:
            raise ConfigError(
                f"The graph of the index design {factory!r} needs at least 2 links a label, as HNSW32 has 32."
            )
        if isinstance(part, faiss.IndexIVF):
            if part.nlist < 1:
                raise ConfigError(f"The index design {factory!r} needs at least 1 cell, as IVF256,Flat has 256.")
            _require_sound(part.quantizer, factory)


def set_parameters(index: Any, factory: str, parameters: dict[str, float] | None) -> None:
    """Set search-time parameters by FAISS's names; ConfigError for one that the design lacks or a value out of range."""
    space = getattr(faiss, "GpuParameterSpace", faiss.ParameterSpace)()  # which knows the processor's classes too
    require_modest_parameters(parameters or {})
    for name, value in (_defaults(index) if parameters is None else parameters).items():
        try:
            space.set_index_parameter(index, name, value)
        except RuntimeError as error:
            raise ConfigError(f"The index design {factory!r} has no search parameter {name!r}.") from error


def parts_of(index: Any) -> list[Any]:
    """The FAISS index, and what it wraps, from the outside in."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return [index, *parts_of(index.index)]
    if isinstance(index, faiss.IndexRefine):
        return [index, *parts_of(index.base_index)]
    return [index]


def _defaults(index: Any) -> dict[str, float]:
    *outer, inner = parts_of(index)
    defaults: dict[str, float] = {}
    if any(isinstance(part, faiss.IndexRefine) for part in outer):
        defaults["k_factor_rf"] = 8
    if isinstance(inner, faiss.IndexIVF):
        defaults["nprobe"] = min(inner.nlist, math.ceil(2 * math.sqrt(inner.nlist)))
    elif isinstance(inner, faiss.IndexHNSW):
        defaults["efSearch"] = 128
    return defaults


def search_parameters(index: Any, bits: Any, effort: float) -> Any:
    """FAISS's parameters for one search: the index's own, with `effort` times the places looked into, under a filter."""
    *outer, inner = parts_of(index)
    selector = faiss.IDSelectorBitmap(bits)
    if isinstance(inner, faiss.IndexIVF):
        probes = min(inner.nlist, math.ceil(inner.nprobe * effort))
        kind = faiss.IVFPQSearchParameters if isinstance(inner, faiss.IndexIVFPQ) else faiss.SearchParametersIVF
        parameters = kind(sel=selector, nprobe=probes)
    elif isinstance(inner, faiss.IndexHNSW):
        most = max(inner.ntotal, inner.hnsw.efSearch)  # FAISS sets memory apart for each
        candidates = min(most, math.ceil(inner.hnsw.efSearch * effort))
        parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=candidates)
    elif isinstance(inner, faiss.IndexRaBitQ):
        parameters = faiss.RaBitQSearchParameters(sel=selector, qb=inner.qb, centered=inner.centered)
    else:
        parameters = faiss.SearchParameters(sel=selector)
    return wrapped_parameters(outer, parameters)


def wrapped_parameters(outer: list[Any], parameters: Any) -> Any:
    """Search parameters of the innermost part of an index as all of it takes them; outer: its other parts, see parts_of."""
    for part in reversed(outer):
        if isinstance(part, faiss.IndexPreTransform):
            parameters = faiss.SearchParametersPreTransform(index_params=parameters)
        else:
            parameters = faiss.IndexRefineSearchParameters(k_factor=part.k_factor, base_index_params=parameters)
    return parameters


def can_select(index: Any) -> bool:
    """Whether FAISS can filter in a search of this design; otherwise more is asked for, and dropped afterwards."""
    if not index.ntotal:
        return False
    try:
        index.search(
            np.zeros((1, index.d), np.float32), 1, params=search_parameters(index, np.full(1, 255, np.uint8), 1.0)
        )
    except RuntimeError:
        return False
    return True


def bytes_of(index: Any, labels: int) -> float:
    """Memory of an index for each label, at this number of labels; an upper bound for the graphs NSG and NNDescent."""
    total = 0.0
    for part in parts_of(index):
        if isinstance(part, faiss.IndexRefine):
            total += bytes_of(part.refine_index, labels)
        elif isinstance(part, faiss.IndexHNSW):
            links = part.hnsw.nb_neighbors(0) + part.hnsw.nb_neighbors(1) / max(1, part.hnsw.nb_neighbors(1) - 1)
            total += bytes_of(part.storage, labels) + 4 * links + 12  # and its level and the place of its links
        elif isinstance(part, faiss.IndexIVF):
            total += part.code_size + 8 + 4 * part.nlist * part.d / labels
            if isinstance(part, faiss.IndexIVFFastScan):  # cells are filled up to whole blocks
                total += part.bbs / 2 * part.nlist * part.code_size / labels
        elif isinstance(part, faiss.IndexNSG):
            total += bytes_of(part.storage, labels) + 4 * part.nsg.R
        elif isinstance(part, faiss.IndexNNDescent):
            total += bytes_of(part.storage, labels) + 4 * part.nndescent.K
        elif not isinstance(part, faiss.IndexPreTransform):
            total += part.sa_code_size()
        quantizer = getattr(part, "pq", None)
        if quantizer is not None:
            total += 4 * quantizer.ksub * quantizer.d / labels
    return total
