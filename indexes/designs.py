"""Index designs by name: storages, candidates for tuning, and what a design costs before it is built."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from xmc.indexes.faiss import empty_faiss_index, parts_of
from xmc.indexes.library import faiss

__all__ = ["EXACT_BELOW", "STORAGES", "Candidate", "bytes_per_label", "candidates", "factory_of", "is_exact"]

STORAGES = {"float32": "Flat", "float16": "SQfp16", "int8": "SQ8", "binary": "RaBitQ"}
"""Designs that score every label, by how they store an embedding: 4, 2, 1 and about 1/8 bytes for each dimension."""
EXACT_BELOW = 50_000
"""So few labels are searched exactly by default: that takes about as long as an approximate search of a million."""
APPROXIMATE_FROM = 1_000
"""Fewer labels are scored in the time that looking them up would take."""
LABELS_PER_CELL = 64
"""Cells of an inverted file with fewer labels cost more to find than to read."""
LARGEST_CELLS = 65_536


@dataclass(frozen=True)
class Candidate:
    """A design that tuning may choose.

    walk: the search parameter that trades speed for recall, "" where there is none; values: its values, in rising order.
    depths: values of k_factor_rf where the design has a Refine stage, else of rescore.
    rescore: of a design with a Refine stage: what is ranked by its 8 bits is ranked again by full embeddings, which costs
        little and raises recall much.
    """

    design: str
    walk: str = ""
    values: tuple[int, ...] = ()
    depths: tuple[int, ...] = (0,)
    rescore: int = 0

    @property
    def refines(self) -> bool:
        """Whether depths are those of a Refine stage."""
        return "Refine(" in self.design


def factory_of(design: str) -> str:
    """The FAISS factory string of a design, which may be the name of a storage."""
    return STORAGES.get(design, design)


def is_exact(design: str, labels: int) -> bool:
    """Whether a design, which may be "auto", scores all of so many labels with their full embeddings."""
    return design == "exact" or (design == "auto" and labels < EXACT_BELOW)


def candidates(labels: int, dimension: int) -> list[Candidate]:
    """Designs worth measuring for so many labels, the most promising first; none for a few hundred."""
    if labels < APPROXIMATE_FROM:
        return []
    cells = _power_of_two(min(8 * math.sqrt(labels), labels / LABELS_PER_CELL, LARGEST_CELLS))
    few_cells = _power_of_two(min(4 * math.sqrt(labels), cells / 2))
    graph = tuple(round(16 * 2 ** (step / 4)) for step in range(29))
    found = []
    for count in dict.fromkeys((cells, few_cells)):
        probes = _steps(count)
        if dimension % 2 == 0:
            coarse = f"IVF{count},PQ{dimension // 2}x4fs"
            found.append(Candidate(f"{coarse},Refine(SQ8)", "nprobe", probes, (6, 10, 16, 32), rescore=2))
            found.append(Candidate(coarse, "nprobe", probes, (10, 16, 32)))
    found += [
        Candidate("HNSW32,SQ8", "efSearch", graph, (0, 2)),
        Candidate("HNSW32", "efSearch", graph),
        Candidate(f"IVF{few_cells},Flat", "nprobe", _steps(few_cells)),
        Candidate("int8", depths=(0, 2)),
        Candidate("float16"),
        Candidate("binary", depths=(10, 40)),
    ]
    return found


def bytes_per_label(design: str, dimension: int, labels: int) -> float:
    """Memory of an index for each label, from its design alone; float32 embeddings on disk are not part of it.

    Of the graphs NSG and NNDescent it is the most: they keep only the neighbours that they find worth it.

    Raises ConfigError for a design that FAISS does not know.
    """
    if design == "exact":
        return 4.0 * dimension
    return _bytes(empty_faiss_index(factory_of(design), dimension), max(1, labels))


def _bytes(index: Any, labels: int) -> float:
    total = 0.0
    for part in parts_of(index):
        if isinstance(part, faiss.IndexRefine):
            total += _bytes(part.refine_index, labels)
        elif isinstance(part, faiss.IndexHNSW):
            links = part.hnsw.nb_neighbors(0) + part.hnsw.nb_neighbors(1) / max(1, part.hnsw.nb_neighbors(1) - 1)
            total += _bytes(part.storage, labels) + 4 * links + 12  # and its level and the place of its links
        elif isinstance(part, faiss.IndexIVF):
            total += part.code_size + 8 + 4 * part.nlist * part.d / labels
            if isinstance(part, faiss.IndexIVFFastScan):  # cells are filled up to whole blocks
                total += part.bbs / 2 * part.nlist * part.code_size / labels
        elif isinstance(part, faiss.IndexNSG):
            total += _bytes(part.storage, labels) + 4 * part.nsg.R
        elif isinstance(part, faiss.IndexNNDescent):
            total += _bytes(part.storage, labels) + 4 * part.nndescent.K
        elif not isinstance(part, faiss.IndexPreTransform):
            total += part.sa_code_size()
        quantizer = getattr(part, "pq", None)
        if quantizer is not None:
            total += 4 * quantizer.ksub * quantizer.d / labels
    return total


def _power_of_two(value: float) -> int:
    return 1 << max(2, round(math.log2(max(value, 1))))


def _steps(most: int) -> tuple[int, ...]:
    """1 ... most, each step up by an eighth of a doubling: few are measured, since recall grows with them."""
    return tuple(sorted({min(most, round(2 ** (step / 8))) for step in range(8 * most.bit_length())}))
