"""Designs by name, and one that is registered from outside of the package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from families import toys_registered
from processes import environment
from worlds import colours, tiny_config

import xmc
from xmc.errors import ConfigError
from xmc.indexes.designs import DESIGNS, bytes_per_label, design_of, is_exact
from xmc.indexes.factory import build_index, load_index


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[None]:
    """The design "toy-matrix", from outside of the package."""
    with toys_registered("toy_index"):
        yield


def test_names_stand_for_designs() -> None:
    assert list(DESIGNS)[:2] == ["exact", "faiss"]
    kinds = {
        name: design_of(name, 8).kind
        for name in ("exact", "int8", "HNSW8", "faiss:HNSW8", "toy-matrix", "toy-matrix:2")
    }
    assert kinds == {
        "exact": "exact",
        "int8": "faiss",
        "HNSW8": "faiss",
        "faiss:HNSW8": "faiss",
        "toy-matrix": "toy-matrix",
        "toy-matrix:2": "toy-matrix",
    }
    assert design_of("int8", 8).name == "SQ8"
    assert bytes_per_label("toy-matrix", 8, 100) == 32
    assert [is_exact("auto", 19_999), is_exact("auto", 20_000), is_exact("exact", 10**9)] == [True, False, True]
    with pytest.raises(ConfigError, match="'exakt' is not an index design"):
        design_of("exakt", 8)
    with pytest.raises(ConfigError, match="already"):
        DESIGNS.register("toy-matrix", DESIGNS["toy-matrix"])


def test_faiss_learns_from_few_labels_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    """Every codebook and cell of these designs is learned from fewer points than FAISS asks for on standard error."""
    points = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
    for design in (
        "IVF8,PQ4x4", "PQ4x4fs", "OPQ4,PQ4x4", "HNSW8_PQ4x4", "RQ2x4", "IVF16(RCQ2x2),Flat", "IVF8,Flat,Refine(PQ4x4)",
    ):  # fmt: skip
        index = build_index(design, dimension=16)
        index.build(points, np.arange(len(points)))
        assert index.search(points[:3], k=1)[0].shape == (3, 1)
    assert capfd.readouterr() == ("", "")


def test_a_registered_design_serves_a_run(tmp_path: Path) -> None:
    """It is chosen by name, saved, and found again by what the manifest says."""
    xmc.train(colours(), tiny_config(epochs=4), tmp_path / "run")
    retriever = xmc.Retriever.load(tmp_path / "run")
    uids, scores = retriever.predict(["red and blue", "pink"], k=4)
    retriever.reindex("toy-matrix:2")
    for run in (retriever, _saved(retriever, tmp_path / "toy")):
        assert run.index.design.name == run.config.index == "toy-matrix:2"
        assert run.predict(["red and blue", "pink"], k=4)[0].tolist() == uids.tolist()
        np.testing.assert_allclose(run.predict(["red and blue", "pink"], k=4)[1], 2 * scores, rtol=1e-5)
        run.add_labels(["magenta"])
        run.remove_labels(["RED"])
        assert "RED" not in run.predict(["red and blue"], k=12)[0][0]


def _saved(retriever: xmc.Retriever, directory: Path) -> xmc.Retriever:
    retriever.save(directory)
    return xmc.Retriever.load(directory)


def test_a_design_that_is_not_registered_is_named(tmp_path: Path) -> None:
    index = build_index("toy-matrix", 4)
    index.build(np.eye(4, dtype=np.float32), range(4))
    index.save(tmp_path / "index")
    assert load_index(tmp_path / "index").search(np.eye(4, dtype=np.float32), 1)[0].ravel().tolist() == [0, 1, 2, 3]
    code = f"from xmc.indexes.factory import load_index; load_index({str(tmp_path / 'index')!r})"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert "StoreError" in done.stderr
    assert "unknown kind 'toy-matrix'; import what registers this design" in done.stderr
