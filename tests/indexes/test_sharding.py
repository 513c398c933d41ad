"""Labels on several devices and in several processes; one file that several processes share."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import random_vectors
from processes import TESTS, environment, run

from xmc.errors import ConfigError, InputError
from xmc.indexes.engines.exact import ExactDesign
from xmc.indexes.factory import build_index, load_index
from xmc.indexes.label_index import LabelIndex
from xmc.indexes.sharding import merge_shards

vectors = partial(random_vectors.vectors, dimension=24)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_labels_split_over_processes(processes: int) -> None:
    assert "equal" in run(processes, [str(TESTS / "distributed_search.py")])


@pytest.mark.parametrize("devices", [("cpu",), ("cpu", "cpu", "cpu")])
def test_labels_split_over_devices(devices: tuple[str, ...], tmp_path: Path) -> None:
    labels, queries = vectors(700, 0), vectors(30, 1)
    whole, split = build_index("exact", 24), build_index("exact", 24, device=devices)
    for index in (whole, split):
        index.build(labels[:500], np.arange(500))
        index.add(labels[500:], np.arange(500, 700))
        index.remove(np.arange(0, 700, 9))
        index.update(labels[:5], np.arange(1, 6))
    masks = {"include": np.arange(len(whole)) % 3 == 0}
    for index in (split, *_saved_and_loaded(split, tmp_path / "index")):
        for options in ({}, masks, {"exclude": [[1, 2, 3]] * 30}, {"include": {5}}):
            expected, found = whole.search(queries, 12, **options), index.search(queries, 12, **options)
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-5)
    split.compact()
    np.testing.assert_array_equal(split.search(queries, 12)[0], whole.search(queries, 12)[0])


def _saved_and_loaded(index: LabelIndex, directory: Path) -> list[LabelIndex]:
    """The index where it is opened: on the processor, and on other devices."""
    index.save(directory)
    loaded = [load_index(directory, device="cpu"), load_index(directory, device=["cpu", "cpu"])]
    assert [len(index.devices) for index in loaded] == [0, 2]
    return loaded


def test_half_precision_is_rescored_to_exact_scores() -> None:
    labels, queries = vectors(2000, 0), vectors(50, 1)
    whole, half = build_index("exact", 24), build_index("exact:float16", 24, 4, ["cpu"])
    for index in (whole, half):
        index.build(labels, np.arange(2000))
    ids, scores = whole.search(queries, 10)
    found, rescored = half.search(queries, 10)
    np.testing.assert_array_equal(found, ids)
    np.testing.assert_allclose(rescored, scores, rtol=1e-6)
    rounded = half.search(queries, 10, rescore=0)[1]
    assert 1e-5 < np.abs(rounded - scores).max() < 5e-2
    with pytest.raises(ConfigError, match="dtype must be one of float32, bfloat16, float16, but is 'int8'"):
        ExactDesign(24, "int8")
    with pytest.raises(ConfigError, match="no device 'cuda:77'"):
        build_index("exact", 24, device=["cuda:77"])


def test_shards_of_different_ids_are_refused() -> None:
    scores = np.zeros((1, 1), np.float32)
    with pytest.raises(InputError, match="ids of different types"):
        merge_shards([(np.array([[1]]), scores), (np.array([["a"]], object), scores)], 1)


@pytest.mark.parametrize(
    "design", ["exact", *(pytest.param(one, marks=pytest.mark.slow) for one in ("IVF64,SQ8", "HNSW16"))]
)
def test_processes_share_one_copy(design: str, tmp_path: Path) -> None:
    """What a process reads of a loaded index is memory of the file, which the system keeps once for all of them.

    Not so the cells of fast-scan designs, which FAISS copies into memory.
    """
    index = build_index(design, 128)
    index.build(vectors(40_000, 0, dimension=128), np.arange(40_000))
    index.save(tmp_path / "index")
    megabytes = 40_000 * 128 * 4 / 2**20
    code = (
        "import re, sys, numpy as np; from xmc.indexes.factory import load_index\n"
        "def own(): return int(re.search(r'RssAnon:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024\n"
        "queries = np.random.default_rng(1).normal(size=(2000, 128)).astype(np.float32)\n"
        "load_index(sys.argv[2], device='cpu').search(queries[:1], 10)\n"
        "before = own(); index = load_index(sys.argv[1], device='cpu'); index.search(queries, 10); print(own() - before)"
    )
    small = build_index("exact", 128)
    small.build(vectors(10, 0, dimension=128), np.arange(10))
    small.save(tmp_path / "small")
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "index"), str(tmp_path / "small")],
        check=True,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert float(out.stdout) < megabytes / 2, f"{out.stdout} MiB of its own, of {megabytes} MiB of embeddings"
