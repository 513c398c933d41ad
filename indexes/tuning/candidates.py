"""Designs that tuning measures."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xmc.errors import ConfigError
from xmc.indexes.engines.faiss import factory_of
from xmc.indexes.engines.faiss_parts import empty_faiss_index

__all__ = ["DEVICE_EXACT", "TriedDesign", "candidates", "device_candidates", "installed", "short_codes"]

logger = logging.getLogger("xmc.indexes.tuning")

APPROXIMATE_FROM = 1_000
"""Fewer labels are scored in the time that looking them up would take."""
LABELS_PER_CELL = 64
"""Cells of an inverted file with fewer labels cost more to find than to read."""
LARGEST_CELLS = 65_536
NARROW = 128
"""Codes have 4 bits for each dimension up to this one, and above, where it is enough, 4 bits for two dimensions."""
CODE_DEPTHS = (4, 8, 16, 32)
"""Multiples of k candidates of short codes that are scored again by their embeddings."""

MOST_PROBES = 2048
"""Cells of an inverted file that a search on a GPU looks into at most."""
PRODUCT_CODES = (96, 64, 48, 32, 16, 8)
"""Codes of 8 bits a label that FAISS's classes on GPUs take, the finest first."""
DEVICE_EXACT = (("exact", 0), ("exact:bfloat16", 4))
"""Designs that score every label on devices, with `rescore`: the second finds candidates in half the memory."""


@dataclass(frozen=True)
class TriedDesign:
    """A design that tuning may choose.

    walk: the search parameter that trades speed for recall, "" where there is none; values: its values, in rising order.
    depths: values of rescore. cells: of an inverted file; 0 for another design. is_graph: neighbours are looked for, label by
    label, when it is built. scans: every label is looked at, in a time that grows as their number.
    """

    design: str
    walk: str = ""
    values: tuple[int, ...] = ()
    depths: tuple[int, ...] = (0,)
    cells: int = 0
    is_graph: bool = False
    scans: bool = False


def candidates(labels: int, dimension: int) -> list[TriedDesign]:
    """Designs worth measuring for this number of labels, the most promising first; none for a few hundred."""
    if labels < APPROXIMATE_FROM:
        return []
    cells = _power_of_two(min(4 * math.sqrt(labels), labels / LABELS_PER_CELL, LARGEST_CELLS))
    few_cells = _power_of_two(min(2 * math.sqrt(labels), cells / 2))
    graph = tuple(round(16 * 2 ** (step / 4)) for step in range(29))
    codes, tried = short_codes(dimension), []
    if codes is None:
        tried.append(TriedDesign(f"IVF{cells},Flat", "nprobe", _steps(cells), cells=cells))
    else:
        tried += [
            TriedDesign(f"IVF{count},{codes}", "nprobe", _steps(count), CODE_DEPTHS, cells=count)
            for count in dict.fromkeys((cells, few_cells))
        ]
        tried.append(TriedDesign(codes, depths=CODE_DEPTHS, scans=True))
    tried += [
        TriedDesign("HNSW32,SQ8", "efSearch", graph, (0, 2), is_graph=True),
        TriedDesign("HNSW32", "efSearch", graph, is_graph=True),
        TriedDesign("int8", depths=(0, 2), scans=True),
        TriedDesign("float16", scans=True),
        TriedDesign("binary", depths=(10, 40), scans=True),
    ]
    return tried


def installed(tried: Iterable[TriedDesign], dimension: int) -> Iterator[TriedDesign]:
    """The designs that the installed FAISS has; the log names others. DependencyError without FAISS."""
    for candidate in tried:
        try:
            empty_faiss_index(factory_of(candidate.design), dimension)
        except ConfigError:
            logger.info("%s is left out: the FAISS that is installed does not have it", candidate.design)
        else:
            yield candidate


def short_codes(dimension: int) -> str | None:
    """Product quantisation in 4 bits, scanned in registers; None for an odd dimension above NARROW."""
    if dimension <= NARROW:
        return f"PQ{dimension}x4fs"
    return None if dimension % 2 else f"PQ{dimension // 2}x4fs"


def device_candidates(labels: int, dimension: int) -> list[TriedDesign]:
    """Designs worth measuring on a GPU, beside the exact ones, where FAISS has a class there; none for a few hundred labels."""
    if labels < APPROXIMATE_FROM:
        return []
    cells = _power_of_two(min(4 * math.sqrt(labels), labels / LABELS_PER_CELL, LARGEST_CELLS))
    probes = _steps(min(cells, MOST_PROBES))
    tried = [
        TriedDesign("float16"),
        TriedDesign("CAGRA64", "efSearch", (64, 96, 128, 192, 256, 384, 512), is_graph=True),
        TriedDesign(f"IVF{cells},Flat", "nprobe", probes, cells=cells),
        TriedDesign(f"IVF{cells},SQ8", "nprobe", probes, (0, 2), cells=cells),
    ]
    codes = next((count for count in PRODUCT_CODES if dimension % count == 0 and 4 * count <= dimension), None)
    if codes:
        tried.append(TriedDesign(f"IVF{cells},PQ{codes}", "nprobe", probes, (6, 10, 16, 32), cells=cells))
    return tried


def _power_of_two(value: float) -> int:
    return 1 << max(2, round(math.log2(max(value, 1))))


def _steps(most: int) -> tuple[int, ...]:
    """1 ... most, each step up by an eighth of a doubling: few are measured, since recall grows with them."""
    return tuple(sorted({min(most, round(2 ** (step / 8))) for step in range(8 * most.bit_length())}))
