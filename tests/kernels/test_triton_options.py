"""What changes how the Triton engine computes: weights that are kept, sums in eight bits, chunks of a memory budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from random_kernel_inputs import DEVIATIONS, NAMES, Problem, evaluate, needs_triton, problem, rounding_noise
from torch import Tensor
from torch.nn.functional import normalize

from xmc.errors import ConfigError
from xmc.kernels.budget import share_of, tile_budget
from xmc.kernels.losses import decoupled_softmax
from xmc.kernels.positives import Positives
from xmc.kernels.reductions import REDUCTIONS, LogSumExp, Sigmoid

pytest.importorskip("triton", reason="triton is not installed; pip install triton")

from xmc.kernels.triton_tiles.chunks import backward_chunks, forward_chunks
from xmc.kernels.triton_tiles.eight_bit import eight_bit_rows
from xmc.kernels.triton_tiles.heuristics import Machine, tile_shape
from xmc.kernels.triton_tiles.product import Product

DEVICES = [
    pytest.param("cpu", id="interpreter", marks=needs_triton),
    pytest.param("cuda", id="cuda", marks=pytest.mark.cuda),
]


CHOSEN = [name if name == "log_sum_exp" else pytest.param(name, marks=pytest.mark.slow) for name in REDUCTIONS]
"""One of them by the interpreter in the quick tests."""


def relative(one: Tensor, other: Tensor) -> float:
    """Largest difference over the largest number, where the other is finite."""
    finite = other.isfinite()
    assert torch.equal(one.isfinite(), finite)
    if not finite.any():
        return 0.0
    highest = other[finite].abs().max().item()
    return (one - other)[finite].abs().max().item() / max(highest, 1e-30)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_kept_weights_give_the_same(name: str, dtype: torch.dtype, device: str) -> None:
    """However many of them are kept, and whatever the budget for the rest.

    Three roundings of the scores' gradients lie between them, two of kept weights and one of the others, and two of results.
    """
    one = problem((41, 401, 96), seed=3).to(dtype, device)
    expected = evaluate(name, one, impl="triton", keep_bytes=0)
    noise = rounding_noise(name, one, dtype)
    for keep_bytes, tile_bytes in ((2**14, 2**13), (2**15, 2**26), (2**26, 2**13)):
        found = evaluate(name, one, impl="triton", keep_bytes=keep_bytes, tile_bytes=tile_bytes)
        for label, left, right, deviation in zip(NAMES, found, expected, noise, strict=True):
            units = 8 * torch.finfo(torch.float32).eps + torch.finfo(left.dtype).eps
            assert torch.equal(left.isfinite(), right.isfinite())
            left, right = (tensor.double()[right.isfinite()] for tensor in (left, right))
            allowed = DEVIATIONS * 3**0.5 * deviation + units * right.abs().max()
            assert (left - right).abs().max() <= allowed, label


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_eight_bit_rows(dtype: torch.dtype, device: str) -> None:
    """What torch's own rounding to float8 makes of rows that are divided by their scale."""
    generator = torch.Generator().manual_seed(0)
    matrix = (torch.randn(37, 203, generator=generator) * torch.rand(37, 1, generator=generator)).to(device, dtype)
    matrix[3] = 0.0
    matrix[5] *= 1e-4 / matrix[5].abs().max()
    rows, scales = eight_bit_rows(matrix.float() if device == "cpu" else matrix)
    expected = (matrix.float() / scales[:, None]).to(torch.float8_e4m3fn)
    assert rows.shape == (37, 208)
    assert torch.equal(rows[:, :203].float(), expected.float())
    assert not rows[:, 203:].float().any()
    torch.testing.assert_close(scales[5].item(), 1e-4 / 448, rtol=1e-2, atol=0.0)
    matrix[7, 11] = torch.nan
    assert eight_bit_rows(matrix.float() if device == "cpu" else matrix)[1][7].isnan()


SUMMED = {"cpu": 1e-5, "cuda": 2.0**-13}
"""Rounding of a sum of products in eight bits: the interpreter's is that of float32; Hopper's tensor cores, which keep 13 bits
behind the point of the largest product, came to 5e-5."""


def eight_bits(one: Problem) -> Problem:
    """The same with queries and labels as eight bits hold them."""
    rounded = []
    for tensor in one.tensors[:2]:
        rows, scales = eight_bit_rows(tensor.detach().float())
        rounded.append((rows[:, : tensor.shape[1]].float() * scales[:, None]).to(tensor.dtype).requires_grad_())
    return replace(one, tensors=[*rounded, *one.tensors[2:]])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CHOSEN)
def test_a_sum_in_eight_bits_is_that_of_rounded_embeddings(name: str, device: str) -> None:
    """Values to rounding; positives' scores are those of the embeddings themselves. Chunks of one tile change nothing."""
    one = problem((41, 401, 96) if device == "cuda" else (5, 67, 64), seed=3).to(torch.float32, device)
    found = evaluate(name, one, impl="triton", negatives_dtype="float8")
    truth = evaluate(name, eight_bits(one).to(torch.float64, device), impl="reference")
    exact = evaluate(name, one, impl="triton")
    assert relative(found[0].double(), truth[0]) < SUMMED[device]
    assert relative(found[1].double(), truth[1]) < SUMMED[device]
    assert torch.equal(found[2], exact[2])
    in_parts = evaluate(name, one, impl="triton", negatives_dtype="float8", tile_bytes=1)
    assert max(relative(left, right) for left, right in zip(in_parts, found, strict=True)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_the_error_of_eight_bits(device: str) -> None:
    """Unit vectors of 128 dimensions at temperature 0.05: the loss within 1%, gradients within 10% in their norm.

    A score is off by a 28th of its spread (root mean square), 0.06 at that temperature; a sum over 700 labels averages most of
    that away.
    """
    generator = torch.Generator().manual_seed(1)
    queries = normalize(torch.randn(24, 128, generator=generator), dim=1).to(device).requires_grad_()
    labels = normalize(torch.randn(700, 128, generator=generator), dim=1).to(device).requires_grad_()
    positives = Positives.from_lists([[7 * i, 7 * i + 1] for i in range(24)]).to(device)
    losses, gradients = [], []
    for negatives_dtype in (None, "float8"):
        loss = decoupled_softmax(queries, labels, positives, 0.05, impl="triton", negatives_dtype=negatives_dtype)
        losses.append(loss.item())
        gradients.append(torch.autograd.grad(loss, [queries, labels]))
    assert 0 < abs(losses[1] - losses[0]) < 0.01 * losses[0]
    for exact, rough in zip(*gradients, strict=True):
        assert 0 < (rough - exact).norm() < 0.1 * exact.norm()


def test_refused_options() -> None:
    queries, labels, positives = torch.randn(2, 4), torch.randn(3, 4), Positives.from_lists([[0], [1]])
    with pytest.raises(ConfigError, match="negatives_dtype must be \"float8\" or None, but is 'int8'"):
        decoupled_softmax(queries, labels, positives, negatives_dtype="int8")
    with pytest.raises(ConfigError, match="is of the Triton engine, but this is computed by 'torch'; leave it out"):
        decoupled_softmax(queries, labels, positives, negatives_dtype="float8", impl="torch")
    for wrong in (0, -1, 2.5, True, "all"):
        with pytest.raises(ConfigError, match='tile_bytes must be "auto" or a number of bytes, at least 1, but is'):
            decoupled_softmax(queries, labels, positives, tile_bytes=wrong)  # type: ignore[arg-type]
    for wrong in (-1, 2.5, True, "all"):
        with pytest.raises(ConfigError, match="keep_bytes must be a number of bytes, at least 0, but is"):
            decoupled_softmax(queries, labels, positives, keep_bytes=wrong)  # type: ignore[arg-type]


def test_budgets() -> None:
    """64 MiB on a CPU; on a GPU a power of two, at most 1 GiB and an eighth of what is free, but 64 MiB at least."""
    assert tile_budget("auto", torch.device("cpu")) == 2**26
    assert tile_budget(77, torch.device("cpu")) == 77
    sizes = {2**20: 2**26, 2**30: 2**27, 6 * 2**30: 2**29, 8 * 2**30: 2**30, 80 * 2**30: 2**30}
    assert {free: share_of(free) for free in sizes} == sizes


@pytest.mark.parametrize("queries", [1, 100, 1024, 4096, 5000])
@pytest.mark.parametrize("keeping", [0, 3])
@pytest.mark.parametrize("tile_bytes", [1, 2**26, 2**30])
def test_chunks_cover_all_labels_within_the_budget(queries: int, keeping: int, tile_bytes: int) -> None:
    machine = Machine(90, 132)
    matrices = (torch.empty(n, 16, dtype=torch.bfloat16, device="meta") for n in (queries, 1_310_720 + 5))
    product = Product(*matrices, tile_shape(torch.bfloat16, machine), machine)
    one = queries * product.shape.labels * 2
    for chunks, size in (
        (backward_chunks(product, product.queries.dtype, tile_bytes, keeping), one),
        (forward_chunks(product, 5 * queries, LogSumExp(), tile_bytes, keeping), 4 * queries),
        (forward_chunks(product, 0, Sigmoid(torch.zeros(queries)), tile_bytes, keeping), 8 * queries),
    ):
        covered = [tile for first, tiles in chunks for tile in range(first, first + tiles)]
        assert covered == list(range(product.label_tiles))
        assert all(tiles == 1 or tiles * size <= tile_bytes for _, tiles in chunks)
        assert all(first >= keeping or first + tiles <= keeping for first, tiles in chunks)
    chunks = backward_chunks(product, product.queries.dtype, 2**30, 0)
    if len(chunks) > 1 and product.row_blocks * chunks[0][1] > machine.programs:
        assert product.row_blocks * chunks[0][1] % machine.programs == 0  # whole waves
