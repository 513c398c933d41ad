"""FAISS indexes on GPUs: what can be tried without one, and, where there is one, the contract of every class."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xmc.arrays import Embeddings
from xmc.errors import ConfigError
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.engines.faiss import FaissDesign, FaissEngine
from xmc.indexes.engines.faiss_gpu import GpuFaissEngine
from xmc.indexes.engines.faiss_parts import empty_faiss_index, set_parameters
from xmc.indexes.engines.gpu_copies import copy_to_processor, flat_in_16_bits, has_whole_graph, joined_shards, shard_of
from xmc.indexes.engines.gpu_placement import GpuBuild, GpuPlacement
from xmc.indexes.factory import build_index, load_index
from xmc.indexes.label_index import LabelIndex
from xmc.indexes.library import faiss
from xmc.indexes.versions import IndexVersion

if faiss is None:
    pytest.skip("FAISS is not installed; pip install faiss-cpu", allow_module_level=True)

DIMENSION, COUNT = 16, 3000
RANDOM = np.random.default_rng(0)


def unit(count: int) -> Embeddings:
    vectors = RANDOM.normal(size=(count, DIMENSION)).astype(np.float32)
    scaled: Embeddings = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


LABELS, QUERIES = unit(COUNT), unit(50)
SOME = RANDOM.random(COUNT) < 0.3


def index_of(factory: str) -> Any:
    index = empty_faiss_index(factory, DIMENSION)
    index.train(LABELS)
    index.add(LABELS)
    return index


def best(k: int, allowed: np.ndarray[Any, Any] | None = None) -> Any:
    scores = QUERIES @ LABELS.T
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def recall(rows: Any, truth: Any) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(rows.tolist(), truth.tolist(), strict=True)]))


@pytest.mark.parametrize("selects", [False, True])
@pytest.mark.parametrize(("factory", "gpu_class"), [("Flat", "GpuIndexFlat"), ("IVF4,Flat", "GpuIndexIVFFlat")])
def test_a_filter_holds_whether_or_not_the_class_selects(factory: str, gpu_class: str, selects: bool) -> None:
    """The engine asks an index of FAISS in the same words wherever that index is; here it is on the processor."""
    index = index_of(factory)
    if factory.startswith("IVF"):
        index.nprobe = 4
    engine = GpuFaissEngine(index, GpuPlacement(gpu_class, selects=selects), (), COUNT)
    np.testing.assert_array_equal(engine.search(QUERIES, 5, None, 1.0)[1], best(5))
    scores, rows = engine.search(QUERIES, 5, SOME, float(SOME.mean()))
    np.testing.assert_array_equal(rows, best(5, SOME))
    np.testing.assert_allclose(scores, np.take_along_axis(QUERIES @ LABELS.T, rows, 1), rtol=1e-5)


def test_an_index_that_passes_over_a_selection_breaks_no_filter() -> None:
    """FAISS's own kernels take a selector and do not look at it; here the selector lets everything pass."""

    class Deaf(GpuFaissEngine):
        def _parameters(self, k: int, allowed: Any, share: float) -> Any:
            return None

    engine = Deaf(index_of("Flat"), GpuPlacement("GpuIndexFlat", selects=True), (), COUNT)
    scores, rows = engine.search(QUERIES, 5, SOME, 0.3)
    assert SOME[rows[rows >= 0]].all()
    assert np.isneginf(scores[rows < 0]).all()


def test_more_results_than_the_class_gives_are_left_to_the_exact_scan() -> None:
    engine = GpuFaissEngine(index_of("Flat"), GpuPlacement("GpuIndexFlat", largest_k=20), (), COUNT)
    scores, rows = engine.search(QUERIES, 30, None, 1.0)
    np.testing.assert_array_equal(rows[:, :20], best(20))
    assert (rows[:, 20:] == -1).all()
    assert np.isneginf(scores[:, 20:]).all()
    version = IndexVersion.from_embeddings(FaissDesign(DIMENSION, "Flat"), EmbeddingBlocks([LABELS]))
    np.testing.assert_array_equal(replace(version, engine=engine).search(QUERIES, 30)[1], best(30))
    refined = index_of("IVF4,Flat,Refine(Flat)")
    refined.k_factor = 4
    engine = GpuFaissEngine(refined, GpuPlacement("GpuIndexIVFFlat", largest_k=20), (), COUNT)
    assert (engine.search(QUERIES, 8, None, 1.0)[1][:, 5:] == -1).all()  # it asks for 4 candidates a result


def test_a_search_that_fails_on_the_gpu_is_answered_exactly(caplog: pytest.LogCaptureFixture) -> None:
    """An index that refuses its parameters stands for one that runs out of memory."""
    engine = GpuFaissEngine(index_of("IVF4,Flat"), GpuPlacement("GpuIndexFlat", selects=True), (), COUNT)
    held = IndexVersion.from_embeddings(FaissDesign(DIMENSION, "Flat"), EmbeddingBlocks([LABELS]))
    with caplog.at_level(logging.WARNING):
        found = replace(held, engine=engine).search(QUERIES, 5, allowed=~SOME)[1]
    np.testing.assert_array_equal(found, best(5, ~SOME))
    assert "every label is scored on the processor: FAISS cannot" in caplog.text


def test_the_design_stays_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    if GpuBuild.of_this_process().gpus:
        pytest.skip("a machine without a GPU that FAISS sees is needed")
    design = FaissDesign(DIMENSION, "IVF4,Flat")
    engine = design.build(EmbeddingBlocks([LABELS]), ())
    with caplog.at_level(logging.INFO):
        assert design.place(engine, EmbeddingBlocks([LABELS]), ("cuda:0",)) is engine
        built = design.build(EmbeddingBlocks([LABELS]), ("cuda:0",))
    assert isinstance(built, FaissEngine)
    assert "the index stays on the processor: the FAISS that is installed" in caplog.text
    assert design.where(built, ("cuda:0",)) == "cpu"


def test_16_bits_there_and_back() -> None:
    """What a GPU holds in 16 bits is decoded for the way back, and coded again to the same bytes."""
    coded = index_of("SQfp16")
    flat = faiss.IndexFlatIP(DIMENSION)
    flat.add(coded.reconstruct_n(0, COUNT))
    again = flat_in_16_bits(flat)
    np.testing.assert_array_equal(faiss.vector_to_array(again.codes), faiss.vector_to_array(coded.codes))


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "IVF16,PQ8x4", "IVF16,SQ8", "IVF16,SQfp16"])
def test_shards_find_what_the_whole_finds(factory: str) -> None:
    """As several GPUs share an index; here its parts are on the processor."""
    index = index_of(factory)
    if factory.startswith("IVF"):
        index.nprobe = 16
    shards = [shard_of(index, place, 3) for place in range(3)]
    assert sum(shard.ntotal for shard in shards) == COUNT
    joined = joined_shards(shards)
    scores, rows = index.search(QUERIES, 10)
    found_scores, found = joined.search(QUERIES, 10)
    np.testing.assert_array_equal(found, rows)
    np.testing.assert_allclose(found_scores, scores, rtol=1e-5)
    engine = GpuFaissEngine(joined, GpuPlacement("GpuIndexFlat" if factory == "Flat" else "GpuIndexIVF"), (), COUNT)
    np.testing.assert_array_equal(engine.search(QUERIES, 10, None, 1.0)[1], rows)
    if factory.startswith("IVF"):
        engine.set_parameters(factory, {"nprobe": 99})  # more cells than there are
        assert [faiss.downcast_index(joined.at(place)).nprobe for place in range(3)] == [16] * 3


@pytest.mark.parametrize(
    "factory", ["Flat", "SQfp16", "IVF16,Flat", "IVF16,PQ8", "IVF16,SQ8", "IVF16,Flat,Refine(SQ8)"]
)
def test_shards_come_back_whole(factory: str) -> None:
    """The way back from several GPUs, which a build for GPUs goes without one too: here the parts are on the processor."""
    if not hasattr(faiss, "index_gpu_to_cpu"):
        pytest.skip("the FAISS that is installed is built for the processor; pip install faiss-gpu in its place")
    index = index_of(factory)
    base = faiss.downcast_index(index.base_index) if "Refine" in factory else index
    split = joined_shards([shard_of(base, place, 3) for place in range(3)])
    if "Refine" in factory:
        split = faiss.IndexRefine(split, faiss.clone_index(faiss.downcast_index(index.refine_index)))
        split.k_factor = index.k_factor
    float16 = factory == "SQfp16"
    back = copy_to_processor(
        split, GpuPlacement("GpuIndexFlat" if base is index else "GpuIndexIVFFlat", float16=float16)
    )
    assert type(back) is type(index) or factory == "Flat"
    for one in (index, back):
        set_parameters(one, factory, {"nprobe": 16} if "IVF" in factory else {})
    np.testing.assert_array_equal(back.search(QUERIES, 10)[1], index.search(QUERIES, 10)[1])


def test_a_cagra_graph_on_the_processor(tmp_path: Path) -> None:
    """Its saved form is HNSW over the same links, which any machine searches, extends and filters."""
    index = build_index("CAGRA32", DIMENSION, device="cpu")
    index.build(LABELS[:2000], np.arange(2000))
    index.save(tmp_path / "index")
    loaded = load_index(tmp_path / "index", device="cpu")
    np.testing.assert_array_equal(loaded.search(QUERIES, 5)[0], index.search(QUERIES, 5)[0])
    mapped = loaded.snapshot().held.engine
    assert isinstance(mapped, FaissEngine)
    assert has_whole_graph(mapped.index)
    loaded.add(LABELS[2000:], np.arange(2000, COUNT))
    loaded.compact()
    assert recall(loaded.search(QUERIES, 5)[0], best(5)) > 0.95
    held = loaded.snapshot().held
    assert isinstance(held.engine, FaissEngine)
    assert isinstance(held.engine.index, faiss.IndexHNSWCagra)
    assert held.engine.covered == COUNT
    assert has_whole_graph(held.engine.index)
    loaded.save(tmp_path / "again")
    assert len(load_index(tmp_path / "again", device="cpu")) == COUNT
    wanted = np.flatnonzero(SOME)
    found = loaded.search(QUERIES, 5, include=wanted)[0]
    np.testing.assert_array_equal(found, best(5, SOME))
    with pytest.raises(ConfigError, match="needs at least 2 links"):
        build_index("CAGRA0", DIMENSION)


def test_a_graph_with_gaps_is_known() -> None:
    """Where labels are fewer than the links of one, places of links are empty: on a GPU such a graph is built anew."""
    index = empty_faiss_index("CAGRA32", DIMENSION)
    assert not has_whole_graph(index)
    index.add(LABELS[:20])
    assert not has_whole_graph(index)
    index.add(LABELS[20:])
    assert has_whole_graph(index)


DESIGNS = (
    "Flat",
    "SQfp16",
    "IVF16,Flat",
    "IVF16,PQ8",
    "IVF16,SQ8",
    "OPQ8,IVF16,PQ8",
    "IVF16,PQ8,Refine(Flat)",
    "CAGRA32",
)


@pytest.mark.cuda
@pytest.mark.parametrize("factory", DESIGNS)
def test_the_contract_on_a_gpu(factory: str, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("a CUDA device is missing")
    build = GpuBuild.of_this_process()
    if not build.gpus:
        pytest.skip(
            f"a build of FAISS that sees the GPU is missing: {build.name} sees none; pip install faiss-gpu in its place"
        )
    if factory.startswith("CAGRA") and not build.cuvs:
        pytest.skip(f"cuVS is missing in {build.name}; pip install faiss-gpu-cuvs in its place")
    parameters = {"nprobe": 16} if "IVF" in factory else None
    index = LabelIndex(FaissDesign(DIMENSION, factory, parameters), 0, ("cuda:0",))
    index.build(LABELS[:2000], np.arange(2000))
    assert isinstance(index.snapshot().held.engine, GpuFaissEngine)
    assert "as GpuIndex" in repr(index)
    index.add(LABELS[2000:], np.arange(2000, COUNT))
    index.compact()
    engine = index.snapshot().held.engine
    assert isinstance(engine, GpuFaissEngine)
    assert engine.covered == COUNT
    here = LabelIndex(FaissDesign(DIMENSION, factory, parameters))
    here.build(LABELS, np.arange(COUNT))
    expected = recall(here.search(QUERIES, 5)[0], best(5))
    assert recall(index.search(QUERIES, 5)[0], best(5)) >= expected - 0.1
    index.save(tmp_path / "index")
    for device in ("cpu", "cuda:0"):
        opened = load_index(tmp_path / "index", device=device)
        np.testing.assert_array_equal(opened.search(QUERIES, 1)[0], index.search(QUERIES, 1)[0])
    wanted = np.flatnonzero(SOME)
    assert np.isin(index.search(QUERIES, 5, include=wanted)[0], wanted).all()
    index.remove(wanted)
    assert not np.isin(index.search(QUERIES, 5)[0], wanted).any()
    assert index.search(QUERIES, COUNT)[0].shape == (len(QUERIES), len(index))  # more than any class gives
