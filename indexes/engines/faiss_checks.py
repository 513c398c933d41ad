"""FAISS indexes from files, read and checked before a search touches them: what FAISS itself does not look at.

FAISS checks sizes of vectors and links of graphs against each other as it reads. Checked here is that an index is of the design
that the run names, that its lists hold each label once, and that codes and codebooks are as long as searches take them to be.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xmc.errors import StoreError, boundary
from xmc.indexes.library import faiss
from xmc.kernels.forks import renew_in_children

__all__ = ["read_faiss_index", "require_design"]

SETTINGS = ("d", "metric_type", "code_size", "nlist", "bbs", "M2", "nbits", "by_residual", "implem", "qbs", "qbs2")
"""What an index must have as the empty index of its design has it."""
PART_SETTINGS = {
    "pq": ("d", "M", "nbits", "code_size"),
    "sq": ("d", "qtype", "code_size"),
    "aq": ("d", "M", "code_size", "total_codebook_size"),
    "rabitq": ("d", "code_size", "nb_bits"),
    "nsg": ("R",),
    "nndescent": ("K",),
}  # fmt: skip
"""The same, of parts that are no indexes, by their names."""
INSIDE = ("index", "base_index", "refine_index", "quantizer", "storage")
"""Attributes that are indexes themselves."""
LEAST_LIMIT = 1 << 30


class _Limit:
    """The number of bytes that FAISS may set apart for one vector of a file: as much as the largest file that was read has."""

    def __init__(self) -> None:
        self.bytes = LEAST_LIMIT
        self.renew_locks()
        renew_in_children(self)

    def renew_locks(self) -> None:
        """See xmc.kernels.forks.Renewable."""
        self._changing = threading.Lock()

    def allow(self, size: int) -> None:
        """Let files of this size be read."""
        with self._changing:
            self.bytes = max(self.bytes, size)
            faiss.set_deserialization_vector_byte_limit(self.bytes)


_limit = _Limit()


def read_faiss_index(file: Path) -> Any:
    """The index of a file, which stays on disk, memory-mapped; StoreError for one that FAISS refuses."""
    with boundary(StoreError, f"{file} cannot be read by faiss {faiss.__version__}"):
        _limit.allow(file.stat().st_size)
        return faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)


def require_design(index: Any, empty: Any, rows: int, file: Path) -> None:
    """Raise StoreError unless an index from a file is of the design of an empty one, and holds this number of rows, whole."""
    with boundary(StoreError, f"{file} is damaged"):
        for name, part, as_made, count in _pairs("index", index, empty, rows):
            wrong = _difference(part, as_made) or _damage(part, count)
            if wrong:  # before what is inside of it is looked at
                raise StoreError(
                    f"{file} is damaged, or not of the design that the index is said to have: its {name} {wrong}. Index the "
                    f"labels again."
                )


def _pairs(name: str, part: Any, as_made: Any, rows: int) -> Iterator[tuple[str, Any, Any, int]]:
    """An index and all that it consists of, each with its name, what it is in the empty index, and its number of rows."""
    part, as_made = faiss.downcast_index(part), faiss.downcast_index(as_made)
    yield name, part, as_made, rows
    for inner in INSIDE:
        if isinstance(getattr(as_made, inner, None), faiss.Index):
            count = as_made.nlist if inner == "quantizer" else rows
            yield from _pairs(inner, getattr(part, inner), getattr(as_made, inner), count)


def _difference(part: Any, as_made: Any) -> str:
    """How an index differs from the empty one of its design, in words; "" where it does not."""
    if _class_of(part) != _class_of(as_made):
        return f"is {_class_of(part)}, not {_class_of(as_made)}"
    for name in SETTINGS:
        if getattr(part, name, None) != getattr(as_made, name, None):
            return f"has {name} {getattr(part, name)}, not {getattr(as_made, name)}"
    for inner, names in PART_SETTINGS.items():
        mine, made = getattr(part, inner, None), getattr(as_made, inner, None)
        if (mine is None) != (made is None):
            return f"has {'no' if mine is None else 'a'} {inner}"
        for name in names:
            if getattr(mine, name, None) != getattr(made, name, None):
                return f"has {inner}.{name} {getattr(mine, name)}, not {getattr(made, name)}"
    if isinstance(part, faiss.IndexHNSW):
        links = [[graph.hnsw.nb_neighbors(level) for level in (0, 1)] for graph in (part, as_made)]
        if links[0] != links[1]:
            return f"has {links[0]} links a label, not {links[1]}"
    if isinstance(part, faiss.IndexPreTransform):
        return _difference_of_chains(part.chain, as_made.chain)
    return ""


def _class_of(part: Any) -> str:
    """The name of a class: one for plain vectors, whose metric is a setting, and one for rotations, alike in files."""
    families = (
        (faiss.IndexFlatIP, "IndexFlat"),
        (faiss.IndexFlatL2, "IndexFlat"),
        (faiss.LinearTransform, "LinearTransform"),
    )
    return next((name for family, name in families if isinstance(part, family)), type(part).__name__)


def _difference_of_chains(chain: Any, as_made: Any) -> str:
    if chain.size() != as_made.size():
        return f"has {chain.size()} transforms, not {as_made.size()}"
    for place in range(chain.size()):
        mine, made = (faiss.downcast_VectorTransform(transforms.at(place)) for transforms in (chain, as_made))
        sizes = [
            f"{_class_of(transform)} of {transform.d_in} to {transform.d_out} numbers" for transform in (mine, made)
        ]
        if sizes[0] != sizes[1]:
            return f"begins with a {sizes[0]}, not a {sizes[1]}"
        if isinstance(mine, faiss.LinearTransform) and (
            mine.A.size() != mine.d_in * mine.d_out or mine.b.size() != (mine.d_out if mine.have_bias else 0)
        ):
            return f"has a rotation of {mine.A.size()} numbers for {mine.d_in} x {mine.d_out}"
    return ""


def _damage(part: Any, rows: int) -> str:
    """What of an index is shorter than searches take it to be, in words; "" where nothing is."""
    if part.ntotal != rows:
        return f"holds {part.ntotal} vectors, not {rows}"
    if not part.is_trained:
        return "has learned nothing"
    for what, size, wanted in _sizes(part):
        if size != wanted:
            return f"has {what} of {size} numbers, not {wanted}"
    return _damage_of_lists(part) if isinstance(part, faiss.IndexIVF) else ""


def _sizes(part: Any) -> Iterator[tuple[str, int, int]]:
    """What vectors of an index are called, how long each is, and how long it must be."""
    if isinstance(part, faiss.IndexFlatCodes):
        yield "codes", part.codes.size(), part.ntotal * part.code_size
    if isinstance(part, faiss.IndexFastScan):
        rows = math.ceil(part.ntotal / part.bbs) * part.bbs
        yield "codes", part.codes.size(), rows * part.M2 // 2 if part.nbits == 4 else part.codes.size()
    if isinstance(part, faiss.IndexRaBitQ):
        yield "a center", part.center.size(), part.d
    if getattr(part, "pq", None) is not None:
        yield "codebooks", part.pq.centroids.size(), part.pq.d * part.pq.ksub
    if getattr(part, "aq", None) is not None and part.aq.codebooks.size():
        yield "codebooks", part.aq.codebooks.size(), part.aq.total_codebook_size * part.aq.d
    if getattr(part, "sq", None) is not None:
        wide = {faiss.ScalarQuantizer.QT_8bit, faiss.ScalarQuantizer.QT_6bit, faiss.ScalarQuantizer.QT_4bit}
        uniform = {faiss.ScalarQuantizer.QT_8bit_uniform, faiss.ScalarQuantizer.QT_4bit_uniform}
        numbers = 2 * part.sq.d if part.sq.qtype in wide else 2 if part.sq.qtype in uniform else 0
        yield "ranges", part.sq.trained.size(), numbers


def _damage_of_lists(part: Any) -> str:
    """Whether the lists of an inverted file hold each row once; in words, "" where they do."""
    lists = part.invlists
    if lists.nlist != part.nlist or (
        lists.code_size != part.code_size and not isinstance(part, faiss.IndexIVFFastScan)
    ):
        return f"has {lists.nlist} lists of codes of {lists.code_size} bytes, not {part.nlist} of {part.code_size}"
    sizes = [lists.list_size(number) for number in range(part.nlist)]
    if sum(sizes) != part.ntotal:
        return f"has {sum(sizes)} rows in its lists, not {part.ntotal}"
    held = np.zeros(part.ntotal, bool)
    for number, size in enumerate(sizes):
        if size:
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
            if ids.min() < 0 or ids.max() >= len(held):
                return f"has a row {int(ids.min() if ids.min() < 0 else ids.max())} of {part.ntotal}"
            held[ids] = True
    return "" if held.all() else "lacks rows, or has some of them twice"
