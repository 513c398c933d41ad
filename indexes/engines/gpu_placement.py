"""Which FAISS designs have a class on GPUs, and how it is used: decided from the design and the build of FAISS alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from xmc.indexes.library import faiss
from xmc.storage.libraries import faiss_distributions

__all__ = ["GpuBuild", "GpuPlacement", "gpu_placement"]

LARGEST_K, LARGEST_K_CUVS, LARGEST_K_CAGRA = 2048, 16_384, 512
"""Results that a class on a GPU gives at most: FAISS's own kernels, cuVS's, and those of a CAGRA graph in one thread block."""
RANGED_TYPES = ("QT_8bit", "QT_4bit", "QT_6bit")
"""Scalar codes whose range is each dimension's own: FAISS's kernels copy two float32 a dimension to shared memory."""
SELECTION_BYTES, SHARED_BYTES = 48, 48 * 1024
"""Shared memory of FAISS's scan of inverted files: what a block of four warps holds for each result, up to 1,024 of them (for
2,048 it has two warps), and all that it is given. What does not fit ends the process (seen on an H200 with FAISS 1.15.1)."""
CODE_LENGTHS = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
"""Bytes of a label's product codes that FAISS's own kernels read."""
WIDE_CODES = 48
"""With more bytes, lookup tables fit into a multiprocessor's shared memory in 16 bits only."""
SCALAR_TYPES = (
    "QT_8bit", "QT_8bit_uniform", "QT_8bit_direct", "QT_4bit", "QT_4bit_uniform", "QT_6bit", "QT_fp16",
)  # fmt: skip
FLAT = ("IndexFlat", "IndexFlatIP", "IndexFlatL2")


@dataclass(frozen=True)
class GpuBuild:
    """What the FAISS of this process has for GPUs.

    name: of the distribution. gpus: that it sees. classes: whether it is built for GPUs. cuvs: whether it has cuVS.
    """

    name: str
    gpus: int
    classes: bool
    cuvs: bool

    @classmethod
    def of_this_process(cls) -> GpuBuild:
        """By the names that the module has, which a build for the processor lacks."""
        classes = hasattr(faiss, "StandardGpuResources")
        name = next(iter(faiss_distributions()), "faiss")
        return cls(name, faiss.get_num_gpus() if classes else 0, classes, hasattr(faiss, "GpuIndexCagra"))


@dataclass(frozen=True)
class GpuPlacement:
    """Where an index of a design goes.

    gpu_class: the class that searches on a GPU; "" where the design stays on the processor, for a `reason`.
    cuvs: whether cuVS searches. float16: embeddings (of a flat index) or lookup tables are of 16 bits.
    largest_k: results at most. selects: whether a search can be told which rows to return; FAISS's own kernels pass over
        what they are told. splits: whether several devices can share the rows; otherwise the first has them all.
    remark: what of the design stays on the processor all the same.
    """

    gpu_class: str
    reason: str = ""
    cuvs: bool = False
    float16: bool = False
    largest_k: int = LARGEST_K
    selects: bool = False
    splits: bool = True
    remark: str = ""


def gpu_placement(index: Any, build: GpuBuild) -> GpuPlacement:
    """Where a FAISS index of the processor's, empty or not, goes, by its classes and its sizes."""
    if not build.classes:
        return GpuPlacement("", f"the FAISS that is installed, {build.name}, is built for the processor")
    if not build.gpus:
        return GpuPlacement("", f"the FAISS that is installed, {build.name}, sees no GPU")
    return _of_class(faiss.downcast_index(index), build)


def _of_class(index: Any, build: GpuBuild) -> GpuPlacement:
    name = type(index).__name__
    largest = LARGEST_K_CUVS if build.cuvs else LARGEST_K
    if name in FLAT:
        return GpuPlacement("GpuIndexFlat", cuvs=build.cuvs, largest_k=largest, selects=build.cuvs)
    if name == "IndexScalarQuantizer" and index.sq.qtype == faiss.ScalarQuantizer.QT_fp16:
        return GpuPlacement("GpuIndexFlat", cuvs=build.cuvs, float16=True, largest_k=largest, selects=build.cuvs)
    if name == "IndexPreTransform":
        inner = _of_class(faiss.downcast_index(index.index), build)
        return replace(_outside(inner, "its rotation stays on the processor"), splits=False)
    if name in ("IndexRefine", "IndexRefineFlat"):
        return _outside(
            _of_class(faiss.downcast_index(index.base_index), build), "its refinement stays on the processor"
        )
    if name in ("IndexIVFFlat", "IndexIVFPQ", "IndexIVFScalarQuantizer"):
        return _of_cells(name, index, build)
    if name == "IndexHNSWCagra":
        if not build.cuvs:
            return GpuPlacement("", f"{build.name} has no cuVS, and CAGRA is cuVS's; its graph is searched as HNSW is")
        return GpuPlacement("GpuIndexCagra", cuvs=True, largest_k=LARGEST_K_CAGRA, selects=True, splits=False)
    if name.startswith("IndexHNSW"):
        return GpuPlacement(
            "", f"FAISS has no class on GPUs for {name}; the graph that has one is CAGRA, such as CAGRA64"
        )
    return GpuPlacement("", f"FAISS has no class on GPUs for {name}")


def _outside(inner: GpuPlacement, remark: str) -> GpuPlacement:
    """Of an index around another, which alone goes to the GPU."""
    if not inner.gpu_class:
        return inner
    if inner.gpu_class == "GpuIndexCagra" or (inner.gpu_class == "GpuIndexFlat" and inner.float16):
        return GpuPlacement("", f"FAISS moves no {inner.gpu_class} of this kind that stands inside another index")
    return replace(inner, remark=remark)


def _of_cells(name: str, index: Any, build: GpuBuild) -> GpuPlacement:
    """Of an inverted file."""
    quantizer = type(faiss.downcast_index(index.quantizer)).__name__
    if quantizer not in FLAT:
        return GpuPlacement("", f"its cells are found by {quantizer}, for which FAISS has no class on GPUs")
    largest = LARGEST_K_CUVS if build.cuvs else LARGEST_K
    if name == "IndexIVFFlat":
        return GpuPlacement("GpuIndexIVFFlat", cuvs=build.cuvs, largest_k=largest, selects=build.cuvs)
    if name == "IndexIVFPQ":
        return _of_product_codes(index, build)
    kinds = {getattr(faiss.ScalarQuantizer, kind): kind for kind in SCALAR_TYPES}
    if index.sq.qtype not in kinds:
        return GpuPlacement("", "FAISS has no class on GPUs for inverted files of its scalar codes")
    most = _most_results(index.d) if kinds[index.sq.qtype] in RANGED_TYPES else LARGEST_K
    if not most:
        return GpuPlacement("", f"on GPUs, the ranges of {index.d:,} dimensions do not fit beside results")
    by_cuvs = build.cuvs and kinds[index.sq.qtype] == "QT_8bit" and bool(index.by_residual)
    # without its cuVS form the class still finds cells by cuVS, and the smaller limit is right for both
    return GpuPlacement("GpuIndexIVFScalarQuantizer", cuvs=build.cuvs, largest_k=most, selects=by_cuvs)


def _most_results(dimension: int) -> int:
    """Results that a scan of inverted files can hold beside the ranges of each dimension: a power of two, or 0."""
    left = SHARED_BYTES - 8 * dimension
    return next((count for count in (512, 256, 128, 64, 32) if SELECTION_BYTES * count <= left), 0)


def _of_product_codes(index: Any, build: GpuBuild) -> GpuPlacement:
    count, bits = index.pq.M, index.pq.nbits
    if not index.by_residual:
        return GpuPlacement("", "on GPUs, product codes must be of residuals")
    if build.cuvs:
        if not 4 <= bits <= 8 or bits * count % 8:
            return GpuPlacement("", f"cuVS has no product codes of {count} times {bits} bits")
        return GpuPlacement("GpuIndexIVFPQ", cuvs=True, largest_k=LARGEST_K_CUVS, selects=True)
    if bits != 8:
        return GpuPlacement("", f"on GPUs without cuVS, product codes must be of 8 bits, not {bits}")
    if count not in CODE_LENGTHS:
        lengths = ", ".join(map(str, CODE_LENGTHS))
        return GpuPlacement("", f"on GPUs without cuVS, product codes must be of {lengths} bytes, not {count}")
    return GpuPlacement("GpuIndexIVFPQ", float16=count > WIDE_CODES)
