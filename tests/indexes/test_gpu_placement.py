"""Which designs go to GPUs: every one that documentation and tuning name, for each build of FAISS. No GPU is needed."""

from __future__ import annotations

import pytest

from xmc.indexes.engines.faiss import STORAGES, factory_of
from xmc.indexes.engines.faiss_parts import empty_faiss_index
from xmc.indexes.engines.gpu_placement import GpuBuild, GpuPlacement, gpu_placement
from xmc.indexes.engines.gpu_resources import gpu_numbers
from xmc.indexes.library import faiss
from xmc.indexes.tuning.candidates import candidates

if faiss is None:
    pytest.skip("FAISS is not installed; pip install faiss-cpu", allow_module_level=True)

PROCESSOR = GpuBuild("faiss-cpu", 0, False, False)
NO_CARD = GpuBuild("faiss-gpu", 0, True, False)
OWN = GpuBuild("faiss-gpu", 1, True, False)
CUVS = GpuBuild("faiss-gpu-cuvs", 1, True, True)
DIMENSION = 64
STAYS = ""

TABLE = {
    "Flat": ("GpuIndexFlat", "GpuIndexFlat"),
    "SQfp16": ("GpuIndexFlat", "GpuIndexFlat"),
    "SQ8": (STAYS, STAYS),
    "SQ4": (STAYS, STAYS),
    "SQbf16": (STAYS, STAYS),
    "RaBitQ": (STAYS, STAYS),
    "PQ16": (STAYS, STAYS),
    "PQ16x4fs": (STAYS, STAYS),
    "PQ32x4fs,Refine(SQ8)": (STAYS, STAYS),
    "HNSW8": (STAYS, STAYS),
    "HNSW32": (STAYS, STAYS),
    "HNSW32,SQ8": (STAYS, STAYS),
    "HNSW32_PQ16": (STAYS, STAYS),
    "NSG32,Flat": (STAYS, STAYS),
    "CAGRA32": (STAYS, "GpuIndexCagra"),
    "CAGRA64": (STAYS, "GpuIndexCagra"),
    "IVF256,Flat": ("GpuIndexIVFFlat", "GpuIndexIVFFlat"),
    "IVF4096,Flat": ("GpuIndexIVFFlat", "GpuIndexIVFFlat"),
    "IVF64_HNSW8,Flat": (STAYS, STAYS),
    "IVF64,FlatPanorama": (STAYS, STAYS),
    "IVF256,PQ16": ("GpuIndexIVFPQ", "GpuIndexIVFPQ"),
    "IVF256,PQ64": ("GpuIndexIVFPQ", "GpuIndexIVFPQ"),
    "IVF256,PQ16x4": (STAYS, "GpuIndexIVFPQ"),
    "IVF256,PQ16x6": (STAYS, "GpuIndexIVFPQ"),
    "IVF256,PQ1x4": (STAYS, STAYS),
    "IVF256,PQ16x10": (STAYS, STAYS),
    "IVF256,PQ32x4fs": (STAYS, STAYS),
    "IVF256,PQ32x4fs,Refine(SQ8)": (STAYS, STAYS),
    "IVF4096,PQ32x4fs,RFlat": (STAYS, STAYS),
    "IVF256,SQ8": ("GpuIndexIVFScalarQuantizer", "GpuIndexIVFScalarQuantizer"),
    "IVF256,SQ4": ("GpuIndexIVFScalarQuantizer", "GpuIndexIVFScalarQuantizer"),
    "IVF256,SQ6": ("GpuIndexIVFScalarQuantizer", "GpuIndexIVFScalarQuantizer"),
    "IVF256,SQfp16": ("GpuIndexIVFScalarQuantizer", "GpuIndexIVFScalarQuantizer"),
    "IVF256,SQbf16": (STAYS, STAYS),
    "IVF256,RaBitQ": (STAYS, STAYS),
    "IVF256,PQ16,Refine(Flat)": ("GpuIndexIVFPQ", "GpuIndexIVFPQ"),
    "IVF256,PQ16,Refine(SQ8)": ("GpuIndexIVFPQ", "GpuIndexIVFPQ"),
    "OPQ16,IVF256,PQ16": ("GpuIndexIVFPQ", "GpuIndexIVFPQ"),
    "PCA32,IVF256,Flat": ("GpuIndexIVFFlat", "GpuIndexIVFFlat"),
    "PCA32,SQfp16": (STAYS, STAYS),
    "PCA32,Flat": ("GpuIndexFlat", "GpuIndexFlat"),
}
"""The class of a design by FAISS's own kernels, and by a build with cuVS."""


def placed(design: str, build: GpuBuild, dimension: int = DIMENSION) -> GpuPlacement:
    return gpu_placement(empty_faiss_index(factory_of(design), dimension), build)


@pytest.mark.parametrize("design", TABLE)
def test_where_a_design_goes(design: str) -> None:
    own, cuvs = placed(design, OWN), placed(design, CUVS)
    assert (own.gpu_class, cuvs.gpu_class) == TABLE[design]
    for placement in (own, cuvs):
        assert bool(placement.gpu_class) != bool(placement.reason)
    assert not own.cuvs
    assert not own.selects  # FAISS's own kernels pass over what they are told to select
    assert placed(design, PROCESSOR).reason == "the FAISS that is installed, faiss-cpu, is built for the processor"
    assert placed(design, NO_CARD).reason == "the FAISS that is installed, faiss-gpu, sees no GPU"


@pytest.mark.parametrize("labels", [1_000, 60_000, 1_040_000, 10_000_000])
def test_every_design_of_tuning_is_decided(labels: int) -> None:
    for dimension in (64, 256):
        for candidate in candidates(labels, dimension):
            for build in (PROCESSOR, NO_CARD, OWN, CUVS):
                placement = placed(candidate.design, build, dimension)
                assert bool(placement.gpu_class) != bool(placement.reason), candidate
    for storage in STORAGES:
        assert bool(placed(storage, OWN).gpu_class) == (storage in ("float32", "float16"))


def test_what_a_placement_says() -> None:
    assert placed("SQfp16", CUVS) == GpuPlacement(
        "GpuIndexFlat", cuvs=True, float16=True, largest_k=16_384, selects=True
    )
    assert not placed("IVF256,PQ16", OWN).float16
    assert placed("IVF256,PQ64", OWN).float16  # tables of 32 bits do not fit
    assert not placed("CAGRA64", CUVS).splits
    assert placed("CAGRA64", CUVS).largest_k == 512
    assert placed("IVF256,SQ8", CUVS).selects
    ranges = {"IVF256,SQ8": 512, "IVF256,SQ4": 512, "IVF256,SQ6": 512, "IVF256,SQfp16": 2_048, "IVF256,Flat": 2_048}
    assert {design: placed(design, OWN).largest_k for design in ranges} == ranges
    assert [placed("IVF16,SQ8", OWN, dimension).largest_k for dimension in (3_072, 3_080, 4_608)] == [512, 256, 256]
    assert placed("IVF16,SQ8", OWN, 8_192).reason == "on GPUs, the ranges of 8,192 dimensions do not fit beside results"
    assert not placed("IVF256,SQ4", CUVS).selects
    assert not placed("OPQ16,IVF256,PQ16", OWN).splits
    assert placed("OPQ16,IVF256,PQ16", OWN).remark == "its rotation stays on the processor"
    assert placed("IVF256,PQ16,Refine(SQ8)", OWN).remark == "its refinement stays on the processor"
    assert "CAGRA64" in placed("HNSW32", CUVS).reason
    assert "no cuVS" in placed("CAGRA64", OWN).reason
    assert "bytes, not 60" in placed("IVF256,PQ60", OWN, 120).reason


def test_devices_that_are_gpus() -> None:
    assert gpu_numbers(()) == gpu_numbers(("cpu", "cpu")) == gpu_numbers(("cuda:0", "cpu")) == ()
    assert gpu_numbers(("cuda:1", "cuda:0", "cuda:1")) == (1, 0)
