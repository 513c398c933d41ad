"""The static encoder: its features, its sums and its gradients, against plain python and plain torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from xmc.config import StaticConfig
from xmc.encoders.static.encoder import FeatureTable, StaticEncoder
from xmc.encoders.static.feature_table import Bags, transpose
from xmc.encoders.static.formulas import KINDS
from xmc.encoders.static.hashing import hash_features
from xmc.errors import StoreError
from xmc.training.optimizers import FeatureTableAdam, RowAdam

SMALL = StaticConfig(dimension=6, table_rows=37, weight_slots=53)


def expected_counts(text: str) -> list[int]:
    """How many features of each kind a lower-case ASCII text has, written out."""
    words = "".join(c if c.isalnum() else " " for c in text).split()
    counts = [len(words), max(0, len(words) - 1), 0, 0, 0]
    for word in words:
        marked = f" {word} "
        for length in (3, 4, 5):
            if length < len(marked):
                counts[length - 1] += len(marked) - length + 1
    return counts


@pytest.mark.parametrize(
    "text", ["", "a", "ab", "abc", "boat", "a boat with two hulls", "  x--y  ", "catamarans, sail"]
)
def test_counts_of_each_kind(text: str) -> None:
    kinds = hash_features([text]).values & 7
    assert np.bincount(kinds, minlength=len(KINDS)).tolist() == expected_counts(text)


def test_features_are_those_of_the_text_alone() -> None:
    texts = ["a boat", "", "Été à la plage", "naïve café 東京タワー", "boat"]
    together = hash_features(texts)
    for row, text in enumerate(texts):
        alone = hash_features([text])
        assert together.take(np.array([row])).values.tolist() == alone.values.tolist()
    assert set(together.take(np.array([4])).values) < set(together.take(np.array([0])).values)


def test_normalisation_and_arrow_input() -> None:
    composed, decomposed = "CAFÉ", "cafe\u0301"
    assert hash_features([composed]).values.tolist() == hash_features([decomposed]).values.tolist()
    chunked = pa.chunked_array([pa.array(["zero", "a boat"]).slice(1), pa.array(["Boat", None])])
    assert hash_features(chunked).values.tolist() == hash_features(["a boat", "boat", ""]).values.tolist()


def test_word_order_and_neighbours_matter_only_to_bigrams() -> None:
    one, two = hash_features(["red wine glass"]).values, hash_features(["glass wine red"]).values
    assert sorted(one[one & 7 != 1]) == sorted(two[two & 7 != 1])
    assert not set(one[one & 7 == 1]) & set(two[two & 7 == 1])


def test_long_text_and_multibyte_words() -> None:
    features = hash_features(["x" * 100_000, "é" * 10])
    assert features.lengths[0] == 1 + (100_002 - 2) + (100_002 - 3) + (100_002 - 4)
    assert features.lengths[1] == 1 + 10 + 9 + 8


def scrambled(value: int, seed: int) -> int:
    """The hash that places features, in plain integers; runs of any version must agree on it."""
    odd, bits = 0xD6E8FEB86659FD93, 2**64 - 1
    mixed = ((value + 1) * 0x9E3779B97F4A7C15 & bits) ^ (seed * odd & bits)
    mixed = (mixed ^ mixed >> 32) * odd & bits
    return mixed ^ mixed >> 32


def dense_sums(encoder: StaticEncoder, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The definition, in float64 torch with autograd: table, log weights, sums."""
    table = encoder.table.vectors.detach().double().requires_grad_()
    weights = encoder.table.log_weights.detach().double().requires_grad_()
    rows = []
    for text in texts:
        features = encoder.featurize([text])
        scales = torch.tensor([encoder.config.kind_scales[kind] for kind in features.values & 7], dtype=torch.float64)
        places = torch.tensor([scrambled(int(value), 1) % len(table) for value in features.values], dtype=torch.int64)
        slots = torch.tensor([scrambled(int(value), 0) % len(weights) for value in features.values], dtype=torch.int64)
        rows.append((scales * weights[slots].exp()) @ table[places])
    return table, weights, torch.stack(rows)


TEXTS = ["a boat with two hulls", "boat", "", "two sails, two hulls"]


def test_sums_equal_the_definition() -> None:
    encoder = StaticEncoder(SMALL, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(encoder.table.log_weights, generator=torch.Generator().manual_seed(1))
    _, _, expected = dense_sums(encoder, TEXTS)
    torch.testing.assert_close(encoder(encoder.featurize(TEXTS)).double(), expected, rtol=1e-5, atol=1e-5)
    assert not expected[2].any()


def test_two_steps_equal_torch_adam() -> None:
    """Forward, factored gradients and the fused update against autograd and torch.optim.SparseAdam, in two passes a step."""
    encoder = StaticEncoder(SMALL, torch.Generator().manual_seed(0))
    optimizer = FeatureTableAdam(encoder.table)
    states = {}
    for step in range(1, 3):
        targets = torch.randn(len(TEXTS), 6, generator=torch.Generator().manual_seed(step))
        for part in (slice(0, 2), slice(2, 4)):
            (encoder(encoder.featurize(TEXTS[part])) * targets[part]).sum().backward()
        dense_table, dense_weights, sums = dense_sums(encoder, TEXTS)
        (sums * targets).sum().backward()
        expected = []
        for name, value, gradient in (
            ("table", dense_table, dense_table.grad),
            ("weights", dense_weights, dense_weights.grad),
        ):
            assert gradient is not None
            touched = gradient.reshape(len(gradient), -1).abs().sum(1) > 0
            first, second = states.get(name, (torch.zeros_like(gradient), torch.zeros_like(gradient)))
            first[touched] = 0.9 * first[touched] + 0.1 * gradient[touched]
            second[touched] = 0.99 * second[touched] + 0.01 * gradient[touched] ** 2
            states[name] = (first, second)
            moved = value.detach().clone()
            rate = 0.05 if name == "table" else 0.2
            update = (first / (1 - 0.9**step)) / ((second / (1 - 0.99**step)).sqrt() + 1e-8)
            moved[touched] -= rate * update[touched]
            expected.append(moved)
        optimizer.step(0.05, 0.2)
        torch.testing.assert_close(encoder.table.vectors.detach().double(), expected[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder.table.log_weights.detach().double(), expected[1], rtol=1e-4, atol=1e-5)
    assert not encoder.table.pending


def test_row_adam_equals_torch_sparse_adam() -> None:
    torch.manual_seed(0)
    start = torch.randn(11, 5)
    ours, theirs = start.clone(), torch.nn.Parameter(start.clone())
    same = start.clone()
    row_adam, in_torch = RowAdam(ours, betas=(0.9, 0.99)), RowAdam(same, betas=(0.9, 0.99))
    sparse_adam = torch.optim.SparseAdam([theirs], lr=0.1, betas=(0.9, 0.99), eps=1e-8)
    for step in range(5):
        rows = torch.randperm(11)[: 3 + step]
        gradients = torch.randn(len(rows), 5)
        row_adam.step(rows, gradients, 0.1)
        rate, root = in_torch.advance(0.1)
        in_torch.update(rows, gradients, rate, root)
        theirs.grad = torch.sparse_coo_tensor(rows[None], gradients, (11, 5)).coalesce()
        sparse_adam.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(same, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_transpose_is_the_transposed_matrix() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 9, 50).astype(np.int32)
    coefficients = rng.normal(size=50).astype(np.float32) * (rng.random(50) < 0.7)
    offsets = np.array([0, 10, 10, 37, 50])
    values = rows.astype(np.uint32)
    whole = Bags(values, rows, coefficients.astype(np.float32), offsets)
    parts = [
        Bags(values[:10], rows[:10], whole.coefficients[:10], offsets[:3]),
        Bags(values[10:], rows[10:], whole.coefficients[10:], offsets[2:] - 10),
    ]
    entries, one = transpose(parts, 9), transpose([whole], 9)
    for name in ("touched", "starts", "bags", "features"):
        np.testing.assert_array_equal(getattr(entries, name), getattr(one, name))
    found = set()
    for place, row in enumerate(entries.touched):
        for entry in range(entries.starts[place], entries.starts[place + 1]):
            feature = entries.features[entry]
            assert offsets[entries.bags[entry]] <= feature < offsets[entries.bags[entry] + 1]
            assert rows[feature] == row
            found.add(int(feature))
    assert found == set(np.flatnonzero(coefficients).tolist())


def test_save_and_load(tmp_path: Path) -> None:
    encoder = StaticEncoder(SMALL, torch.Generator().manual_seed(0))
    encoder.save(tmp_path)
    loaded = StaticEncoder.load(tmp_path)
    assert loaded.config == SMALL
    assert torch.equal(loaded(loaded.featurize(TEXTS)), encoder(encoder.featurize(TEXTS)))
    (tmp_path / "encoder.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    with pytest.raises(StoreError, match="does not hold a static encoder"):
        StaticEncoder.load(tmp_path)


def test_loading_draws_no_table_and_what_is_loaded_learns(tmp_path: Path) -> None:
    encoder = StaticEncoder(SMALL, torch.Generator().manual_seed(0))
    encoder.save(tmp_path)
    stored, state = (tmp_path / "encoder.safetensors").read_bytes(), torch.get_rng_state()
    loaded = StaticEncoder.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(loaded.named_parameters(), encoder.named_parameters(), strict=True))
    for (name, value), (same, fresh) in pairs:
        assert (name, value.dtype, value.device, value.requires_grad) == (same, fresh.dtype, fresh.device, True)
    for one in (loaded, encoder):
        one(one.featurize(TEXTS)).square().sum().backward()
        FeatureTableAdam(one.table).step(0.05, 0.2)
    for (_, value), (_, fresh) in pairs:
        assert torch.equal(value, fresh)
    assert (tmp_path / "encoder.safetensors").read_bytes() == stored  # steps do not write through to the file
    assert not torch.equal(StaticEncoder.load(tmp_path).table.vectors, loaded.table.vectors)


def test_a_table_of_another_size_or_precision(tmp_path: Path) -> None:
    encoder = StaticEncoder(SMALL, torch.Generator().manual_seed(0))
    encoder.save(tmp_path)
    half = {name: value.half() for name, value in encoder.state_dict().items()}
    save_file(half, tmp_path / "encoder.safetensors")
    assert torch.equal(StaticEncoder.load(tmp_path).table.vectors, half["table.vectors"].float())
    save_file(half | {"table.vectors": half["table.vectors"][1:].clone()}, tmp_path / "encoder.safetensors")
    with pytest.raises(StoreError, match="does not hold a static encoder"):
        StaticEncoder.load(tmp_path)


def test_a_forward_pass_without_gradient_leaves_nothing_pending() -> None:
    encoder = StaticEncoder(SMALL, torch.Generator().manual_seed(0))
    with torch.no_grad():
        encoder(encoder.featurize(TEXTS))
    encoder(encoder.featurize(TEXTS))
    assert isinstance(encoder.table, FeatureTable)
    assert encoder.table.pending == []


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_threads_may_encode_at_once(layer: str) -> None:
    """Numba's "workqueue" ends a process in which two threads call a parallel kernel at the same time."""
    code = (
        "import threading, numba, torch\n"
        "from xmc.config import StaticConfig\n"
        "from xmc.encoders.static.encoder import StaticEncoder\n"
        "encoder = StaticEncoder(StaticConfig(dimension=8, table_rows=512, weight_slots=512))\n"
        "texts = ['a boat with two hulls'] * 300\n"
        "def encode():\n"
        "    with torch.no_grad():\n"
        "        for _ in range(60): encoder(encoder.featurize(texts))\n"
        "threads = [threading.Thread(target=encode) for _ in range(4)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        "print(numba.threading_layer())"
    )
    environment = {**os.environ, "NUMBA_THREADING_LAYER": layer}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{layer}\n"), done.stderr
