"""What a file of FAISS's may not say, and designs that no machine holds."""

from __future__ import annotations

import numpy as np
import pytest

from xmc.errors import ConfigError, StoreError
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.checks import require_rows
from xmc.indexes.designs import design_of
from xmc.indexes.engines.faiss import FILE, FaissDesign
from xmc.indexes.factory import build_index, load_index

faiss = pytest.importorskip("faiss", reason="faiss is not installed")
ROWS, DIMENSION = 300, 16
VECTORS = np.random.default_rng(0).standard_normal((ROWS, DIMENSION), np.float32)
BLOCKS = EmbeddingBlocks([VECTORS])


@pytest.mark.parametrize(
    "design",
    [
        "HNSW99999999", "HNSW1025", "IVF99999999999,Flat", "IVF262145,Flat", "PQ1000000", "PQ8x24", "IVF64,PQ8x20",
        "NSG5000", "CAGRA99999", "RR99999999,Flat", "OPQ16_9999999999,Flat", "IMI9x9,PQ4", "RQ9999x16", "PRQ60000x60000x8",
        "IVF99999999999999999999999,Flat", "Refine(" * 5000, "PQ16,Refine(PQ99999999)", "IVF16_HNSW99999999,Flat",
    ],
)  # fmt: skip
def test_absurd_designs_are_refused_before_anything_is_allocated(design):
    with pytest.raises(ConfigError) as refused:
        design_of(design, DIMENSION)
    assert "index design" in str(refused.value)


@pytest.mark.parametrize("dimension", [2**40, 0, -1, 1 << 21])
def test_absurd_dimensions(dimension):
    with pytest.raises(ConfigError, match="numbers cannot be indexed"):
        design_of("Flat", dimension)


def test_rotations_of_absurd_size():
    with pytest.raises(ConfigError, match="GiB of memory before it holds a label"):
        design_of("OPQ16,PQ16", 1 << 20)


@pytest.mark.parametrize("value", [1e18, float("nan"), float("inf"), "64", True, None, [64], 0, -3])
def test_absurd_parameters(value):
    with pytest.raises(ConfigError, match="search parameter efSearch must be"):
        FaissDesign(DIMENSION, "HNSW8", {"efSearch": value}).build(BLOCKS, ())


def test_absurd_numbers_of_results_are_as_many_as_there_are_labels():
    index = build_index("IVF4,Flat", DIMENSION)
    index.build(VECTORS, np.arange(ROWS))
    ids, scores = index.search(VECTORS[:2], 10**18, rescore=10**18)
    assert ids.shape == scores.shape == (2, ROWS)
    assert sorted(ids[0].tolist()) == list(range(ROWS))


def saved(tmp_path, name):
    """A design, and the FAISS index that it wrote there, in memory."""
    design = design_of(name, DIMENSION)
    design.save(design.build(BLOCKS, ()), tmp_path)
    return design, faiss.read_index(str(tmp_path / FILE))


def loaded(design, tmp_path):
    return design.load(tmp_path, BLOCKS, ROWS, ())


@pytest.mark.parametrize("place", [-7, ROWS, 2**40])
@pytest.mark.parametrize("name", ["IVF4,Flat", "IVF4,SQ8", "PCA8,IVF4,Flat", "IVF4,RaBitQ"])
def test_lists_with_rows_that_are_not_there(tmp_path, name, place):
    design, index = saved(tmp_path, name)
    lists = faiss.extract_index_ivf(index).invlists
    number = max(range(4), key=lists.list_size)
    lists.update_entry(number, 0, place, lists.get_codes(number))
    faiss.write_index(index, str(tmp_path / FILE))
    with pytest.raises(StoreError, match=f"has a row {place} of {ROWS}"):
        loaded(design, tmp_path)


def test_lists_with_a_row_twice(tmp_path):
    design, index = saved(tmp_path, "IVF4,Flat")
    lists = index.invlists
    number = max(range(4), key=lists.list_size)
    lists.update_entry(number, 0, lists.get_single_id(number, 1), lists.get_codes(number))
    faiss.write_index(index, str(tmp_path / FILE))
    with pytest.raises(StoreError, match="twice"):
        loaded(design, tmp_path)


@pytest.mark.parametrize(
    ("said", "stored", "reason"),
    [
        ("HNSW8", "HNSW16", "links a label"),
        ("HNSW8", "Flat", "is IndexFlat, not IndexHNSWFlat"),
        ("IVF4,Flat", "IVF8,Flat", "has nlist 8, not 4"),
        ("IVF4,SQ8", "IVF4,SQ4", "has code_size"),
        ("SQ8", "SQfp16", "has code_size"),
        ("PCA8,Flat", "RR8,IVF4,Flat", "its index is IndexIVFFlat"),
        ("PCA8,Flat", "PCA4,Flat", "begins with a LinearTransform of 16 to 4 numbers"),
        ("SQ8,RFlat", "SQ8,Refine(SQ8)", "Refine"),
        ("RaBitQ", "Flat", "is IndexFlat, not IndexRaBitQ"),
    ],
)
def test_a_file_of_another_design(tmp_path, said, stored, reason):
    saved(tmp_path, stored)
    with pytest.raises(StoreError, match=reason):
        loaded(design_of(said, DIMENSION), tmp_path)


def test_a_file_of_another_metric(tmp_path):
    design, _ = saved(tmp_path, "Flat")
    other = faiss.IndexFlatL2(DIMENSION)
    other.add(VECTORS)
    faiss.write_index(other, str(tmp_path / FILE))
    with pytest.raises(StoreError, match="has metric_type 1, not 0"):
        loaded(design, tmp_path)


@pytest.mark.parametrize(("name", "setting"), [("PQ4x4fs", "implem"), ("PQ4x4fs", "qbs"), ("IVF4,PQ4x4fs", "qbs2")])
def test_a_way_of_scanning_that_there_is_not(tmp_path, name, setting):
    design, index = saved(tmp_path, name)
    setattr(index, setting, 77)
    faiss.write_index(index, str(tmp_path / FILE))
    with pytest.raises(StoreError, match=f"has {setting} 77, not 0"):
        loaded(design, tmp_path)


def test_codes_that_are_too_short_or_a_center_that_is(tmp_path):
    design, index = saved(tmp_path, "RaBitQ")
    faiss.copy_array_to_vector(np.zeros(3, np.float32), index.center)
    faiss.write_index(index, str(tmp_path / FILE))
    with pytest.raises(StoreError, match=r"index\.faiss"):
        loaded(design, tmp_path)


def test_links_to_labels_that_are_not_there(tmp_path):
    design, index = saved(tmp_path, "HNSW8")
    links = faiss.vector_to_array(index.hnsw.neighbors)
    links[0] = ROWS + 5
    faiss.copy_array_to_vector(links, index.hnsw.neighbors)
    faiss.write_index(index, str(tmp_path / FILE))
    with pytest.raises(StoreError, match="cannot be read by faiss"):
        loaded(design, tmp_path)


def test_every_design_is_what_it_was_saved_as(tmp_path):
    for name in (
        "Flat",
        "HNSW8",
        "IVF4,PQ4x4",
        "OPQ4,PQ4x4",
        "SQ8,RFlat",
        "PQ4x4fs",
        "IVF4,PQ4x4fs",
        "RQ2x4",
        "IVF4_HNSW8,Flat",
    ):
        design, _ = saved(tmp_path, name)
        assert loaded(design, tmp_path).covered == ROWS


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"dimension": 2**40}, "where the dimension is"),
        ({"dimension": 1e300}, "where the dimension is"),
        ({"dimension": "many"}, "does not describe an index"),
        ({"covered": 10**20}, "covers"),
        ({"covered": -1}, "covers"),
        ({"rescore": -2}, "rescore -2"),
        ({"rescore": None}, "does not describe an index"),
        ({"measured": 7}, "does not describe an index"),
        ({"factory": "IVF99999999,Flat"}, "cells"),
        ({"factory": "HNSW99999999"}, "links a label"),
        ({"factory": ["Flat"]}, "does not describe an index"),
        ({"parameters": {"nprobe": 1e18}}, "nprobe must be at most"),
        ({"parameters": {"nprobe": "all"}}, "nprobe must be a number"),
        ({"parameters": 4}, "does not describe an index"),
    ],
)
def test_manifests_with_absurd_properties(tmp_path, edit_json, properties, reason):
    index = build_index("IVF4,Flat", DIMENSION)
    index.build(VECTORS, np.arange(ROWS))
    index.save(tmp_path / "index")
    edit_json(tmp_path / "index" / "manifest.json", lambda manifest: manifest["properties"].update(properties))
    with pytest.raises(StoreError, match=reason):
        load_index(tmp_path / "index")


def test_rows_that_an_engine_does_not_have():
    allowed = np.array([True, False, True])
    require_rows(np.array([[0, 2, -1]]), allowed, 3)
    require_rows(np.zeros((0, 4), np.int64), allowed, 3)
    for rows in ([[3]], [[-2]], [[1]]):
        with pytest.raises(StoreError, match="rows that it does not have"):
            require_rows(np.array(rows), allowed, 3)


@pytest.fixture
def edit_json():
    import json

    def edit(file, change):
        values = json.loads(file.read_text(encoding="utf-8"))
        change(values)
        file.write_text(json.dumps(values), encoding="utf-8")

    return edit
