"""What is particular to the Triton engine: which tiles it leaves out, and that this changes nothing but rounding."""

from __future__ import annotations

import pytest
import torch
from kernel_problems import needs_triton, random_positives
from torch import Tensor
from torch.nn.functional import normalize

from xmc.kernels.entries import Entries
from xmc.kernels.losses import decoupled_softmax
from xmc.kernels.positives import Positives
from xmc.kernels.reductions import LogSumExp

pytest.importorskip("triton", reason="triton is not installed; pip install triton")

from xmc.kernels.triton_tiles.block_sparse import block_sparse_matmul
from xmc.kernels.triton_tiles.buckets import Buckets
from xmc.kernels.triton_tiles.heuristics import TileShape, tile_shape
from xmc.kernels.triton_tiles.reduce import reduce_scores
from xmc.kernels.triton_tiles.skipping import active_tiles, label_order

DEVICES = [
    pytest.param("cpu", id="interpreter", marks=needs_triton),
    pytest.param("cuda", id="cuda", marks=pytest.mark.cuda),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_left_out_weighs_less_than_rounding(dtype: torch.dtype) -> None:
    """Of each row at most ε/4 in all; tiles with special pairs stay; a row without gradient asks for nothing."""
    torch.manual_seed(0)
    masses = (torch.randn(50, 37) * 9).softmax(0)  # tiles x rows, some rows peaked, some less
    gradient = torch.rand(37)
    gradient[:16] = 0.0
    occupied = torch.zeros(3, 50, dtype=torch.bool)
    occupied[0, 7] = True
    active = active_tiles(masses, gradient, occupied, 16, dtype)
    assert active[0].nonzero().tolist() == [[7]]
    assert not active[1:].all()
    left_out = ~active.repeat_interleave(16, 0)[:37].T
    lost = (masses * left_out).sum(0)[16:]
    assert (lost <= torch.finfo(dtype).eps / 4).all()
    assert active_tiles(None, gradient, occupied, 16, dtype)[1:].all()


def peaked(dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Positives]:
    """Labels of 12 groups, each of several tiles, each query near one label: most tiles weigh nothing in most rows."""
    generator = torch.Generator().manual_seed(1)
    size, step = (60, 5) if device == "cpu" else (1024, 8)
    centres = normalize(torch.randn(12, 24, generator=generator), dim=1)
    noise = torch.randn(12 * size, 24, generator=generator)
    labels = normalize(centres.repeat_interleave(size, 0) + 0.1 * noise, dim=1)
    chosen = torch.arange(0, 4 * size, step)
    queries = normalize(labels[chosen] + 0.05 * torch.randn(len(chosen), 24, generator=generator), dim=1)
    positives = Positives.from_lists([[int(one)] for one in chosen]).to(device)
    return queries.to(device, dtype), labels.to(device, dtype), positives


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_skipping_changes_nothing_beyond_rounding(device: str, dtype: torch.dtype) -> None:
    temperature = 0.02
    queries, labels, positives = peaked(dtype, device)
    gradients = []
    for skip, impl in ((True, "triton"), (False, "triton"), (True, "reference")):
        q, z = queries.clone().requires_grad_(), labels.clone().requires_grad_()
        decoupled_softmax(q, z, positives, temperature, skip=skip, impl=impl, tile_bytes=2**14).backward()
        gradients.append((q.grad, z.grad))
    # Rounding the weights, which sum up to 1 / (B τ) in each row, changes them by ε/2 in all, of vectors of this size.
    rounding = torch.finfo(dtype).eps / 2 / temperature / len(queries) * float(labels.abs().max())
    for skipped, whole, exact in zip(*gradients, strict=True):
        error, error_of_whole = ((one.double() - exact.double()).abs().max() for one in (skipped, whole))
        assert error <= error_of_whole + rounding
    # and something was skipped, or the test would say nothing
    shape = tile_shape(dtype)
    order = label_order(queries, labels)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=device)
    buckets = Buckets.of(Entries.of(positives, None, len(labels)), len(queries), len(labels), shape, places)
    sums = reduce_scores(queries, labels, None, order, LogSumExp(), 1 / temperature, buckets, len(queries), shape)
    masses = (sums.values - sums.values.logsumexp(0)).exp()
    ones = torch.ones(len(queries), device=device)
    active = active_tiles(masses, ones, buckets.occupied(), shape.rows, dtype)
    assert active.float().mean() < 0.8


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_block_sparse_product(device: str, add: bool, transposed: bool) -> None:
    """Ragged edges, rows of blocks without any, blocks of garbage where nothing is present."""
    torch.manual_seed(2)
    shape = tile_shape(torch.float32)
    left = torch.randn(53, 203, device=device)
    present = torch.rand(-(-53 // shape.rows), -(-203 // shape.labels), device=device) < 0.5
    present[1] = False
    mask = present.repeat_interleave(shape.rows, 0).repeat_interleave(shape.labels, 1)[:53, :203]
    kept = torch.where(mask, left, 0.0)
    left = torch.where(mask, left, torch.nan)
    block = (shape.rows, shape.labels)
    if transposed:
        left, kept, present, block = left.T, kept.T, present.T, block[::-1]
    right = torch.randn(left.shape[1], 37, device=device)
    out = torch.randn(len(left), 37, device=device)
    expected = kept @ right + (out if add else 0)
    block_sparse_matmul(left, right, out, present, block, add=add)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_buckets_hold_every_entry_in_its_tile() -> None:
    shape = TileShape(rows=4, labels=8, depth=16, warps=1, stages=1)
    positives, exclude = random_positives(11, 30, seed=1), random_positives(11, 30, seed=2)
    entries = Entries.of(positives, exclude, 30)
    places = torch.randperm(30)
    buckets = Buckets.of(entries, 11, 30, shape, places)
    found = set()
    for number in range(buckets.row_blocks * buckets.label_tiles):
        for entry in range(int(buckets.offsets[number]), int(buckets.offsets[number + 1])):
            row, column = int(buckets.rows[entry]), int(buckets.columns[entry])
            assert (row // 4, column // 8) == divmod(number, buckets.label_tiles)
            found.add((row, int((places == column).nonzero()), int(buckets.slots[entry])))
    wanted = {(int(r), int(c), n) for n, (r, c) in enumerate(zip(positives.rows, positives.indices, strict=True))}
    both = {(row, column) for row, column, _ in wanted}
    wanted |= {
        (int(r), int(c), -1) for r, c in zip(exclude.rows, exclude.indices, strict=True) if (int(r), int(c)) not in both
    }
    assert found == wanted


@pytest.mark.parametrize("device", DEVICES)
def test_results_are_the_same_from_run_to_run(device: str) -> None:
    queries, labels, positives = peaked(torch.float32, device)
    found = []
    for _ in range(2):
        q, z = queries.clone().requires_grad_(), labels.clone().requires_grad_()
        loss = decoupled_softmax(q, z, positives, 0.02, impl="triton")
        loss.backward()
        assert q.grad is not None
        assert z.grad is not None
        found.append((loss.detach(), q.grad, z.grad))
    assert all(torch.equal(left, right) for left, right in zip(*found, strict=True))
