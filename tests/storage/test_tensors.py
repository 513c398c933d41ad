"""Safetensors files as numpy reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from xmc.errors import StoreError
from xmc.storage.arrow import place_embeddings, read_embeddings, write_embeddings
from xmc.storage.tensors import stored_tensors


def test_tensors_and_rows_are_those_that_were_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written = {
        "matrix": rng.normal(size=(20, 3)).astype(np.float32),
        "ids": rng.integers(0, 9, 7),
        "flag": np.array(True),
        "empty": np.zeros((0, 3), np.float32),
    }
    save_file(written, tmp_path / "t.safetensors", metadata={"format": "np"})
    tensors = stored_tensors(tmp_path / "t.safetensors")
    assert tensors.keys() == written.keys()
    for name, values in written.items():
        np.testing.assert_array_equal(tensors[name].read(), values)
    with tensors["matrix"].open() as matrix:
        np.testing.assert_array_equal(matrix.rows(np.array([19, 0, 0])), written["matrix"][[19, 0, 0]])
        np.testing.assert_array_equal(np.concatenate([part.copy() for _, part in matrix.slices(6)]), written["matrix"])
        with pytest.raises(StoreError, match="ends before its numbers do"):
            matrix.rows(np.array([10_000]))
    with tensors["empty"].open() as empty:
        assert list(empty.slices(4)) == []


@pytest.mark.parametrize(
    "described",
    [
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [200], "data_offsets": [0, 800]}},
        {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]}},
        {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32"}},
        ["a"],
    ],
)
def test_descriptions_that_do_not_fit_are_refused(described: object, tmp_path: Path) -> None:
    header = json.dumps(described).encode()
    (tmp_path / "t").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(StoreError, match="cannot be read as a safetensors file"):
        stored_tensors(tmp_path / "t")
    (tmp_path / "t").write_bytes(bytes(4))
    with pytest.raises(StoreError, match="cannot be read as a safetensors file"):
        stored_tensors(tmp_path / "t")


def test_embeddings_are_found_in_their_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(size, 5)).astype(np.float32) for size in (7, 1, 30)]
    for number, some in enumerate((blocks, blocks[:1], [])):
        write_embeddings(some, 5, tmp_path / f"{number}.arrow")
        placed = [tensor.read() for tensor in place_embeddings(tmp_path / f"{number}.arrow")]
        read = read_embeddings(tmp_path / f"{number}.arrow")
        np.testing.assert_array_equal(np.concatenate(placed), np.concatenate(read))
        np.testing.assert_array_equal(np.concatenate(placed), np.concatenate([*some, np.zeros((0, 5), np.float32)]))
    (tmp_path / "other.arrow").write_bytes(b"no Arrow file")
    with pytest.raises(StoreError, match="cannot be read as embeddings"):
        place_embeddings(tmp_path / "other.arrow")
