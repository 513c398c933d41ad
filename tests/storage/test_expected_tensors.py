"""Tensors are compared with what is expected before they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from xmc.errors import StoreError
from xmc.storage.expected_tensors import Expected, numpy_tensors, torch_tensors
from xmc.storage.tensors import described_tensors

EXPECTED = {
    "a": Expected((2, None)),
    "b": Expected((), ("I64", "I32"), optional=True),
    "c": Expected((1,), finite=False),
}
READERS = [numpy_tensors, torch_tensors]
GOOD: dict[str, Any] = {"a": np.ones((2, 3), np.float32), "c": np.full(1, np.nan, np.float32)}


@pytest.mark.parametrize("read", READERS)
def test_what_is_expected_is_read(tmp_path: Path, read: Any) -> None:
    save_file(GOOD | {"b": np.array(7)}, tmp_path / "t.safetensors")
    tensors = read(tmp_path / "t.safetensors", EXPECTED)
    assert float(tensors["a"].sum()) == 6
    assert int(tensors["b"]) == 7
    save_file(GOOD, tmp_path / "t.safetensors")
    assert set(read(tmp_path / "t.safetensors", EXPECTED)) == {"a", "c"}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"a": np.ones((2, 3), np.int32)}, r"'a' as I32 \[2, 3\], where F32 \[2, any\] is expected"),
        ({"a": np.ones((2, 3), np.float16)}, "'a' as F16"),
        ({"a": np.float32(1)}, r"'a' as F32 \[\]"),
        ({"a": np.ones((3, 2), np.float32)}, r"'a' as F32 \[3, 2\]"),
        ({"a": np.array([[1, np.nan], [np.inf, 1]], np.float32)}, "holds NaN or infinities in the tensor 'a'"),
        ({"b": np.array(1.5)}, r"'b' as F64 \[\], where I64 or I32 \[\] is expected"),
        ({"d": np.ones(2)}, "holds the tensor 'd', which does not belong there"),
        ({"c": None}, "lacks the tensor 'c'"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, read: Any, change: dict[str, Any], reason: str) -> None:
    file = tmp_path / "t.safetensors"
    save_file({name: np.asarray(value) for name, value in (GOOD | change).items() if value is not None}, file)
    with pytest.raises(StoreError, match=rf"t\.safetensors .*{reason}"):
        read(file, EXPECTED)


def test_large_numbers_whose_sum_is_infinite_are_finite(tmp_path: Path) -> None:
    save_file(GOOD | {"a": np.full((2, 3), 3e38, np.float32)}, tmp_path / "t.safetensors")
    assert torch_tensors(tmp_path / "t.safetensors", EXPECTED)["a"].shape == (2, 3)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 2**82]},
        {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1e20], "data_offsets": [0, 4]},
        {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": "many", "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-8, -4]},
        [],
    ],
)
def test_descriptions_that_do_not_fit_the_file(tmp_path: Path, entry: Any) -> None:
    header = json.dumps({"a": entry}).encode()
    (tmp_path / "t.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(StoreError, match=r"t\.safetensors cannot be read as a safetensors file"):
        described_tensors(tmp_path / "t.safetensors")


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, (1 << 40).to_bytes(8, "little"), (200_000).to_bytes(8, "little") + b"[" * 200_000]
)
def test_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.safetensors").write_bytes(content)
    with pytest.raises(StoreError, match="cannot be read as a safetensors file"):
        described_tensors(tmp_path / "t.safetensors")
