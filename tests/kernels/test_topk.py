"""Exact top-k against a full stable sort in float64."""

from __future__ import annotations

import pytest
import torch
from peak_memory import number_printed
from random_kernel_inputs import ENGINES, needs_triton
from torch import Tensor

from xmc.errors import ConfigError, InputError
from xmc.kernels.positives import Positives
from xmc.kernels.reference import topk_inner_product as reference
from xmc.kernels.topk import topk_inner_product


def integers(rows: int, columns: int, seed: int) -> Tensor:
    """Small whole numbers: sums are exact in any order, and there are many ties."""
    return torch.randint(-2, 3, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("queries", "labels"), [(1, 1), (1, 50), (7, 1), (13, 129), (41, 1271)])
@pytest.mark.parametrize("k", [1, 5, 64, 2000])
def test_equals_a_full_sort_with_ties_and_exclusions(
    engine: tuple[str, str], queries: int, labels: int, k: int
) -> None:
    impl, device = engine
    if engine == ("triton", "cpu") and labels > 1000 and k > 5:
        queries, labels = 17, 301  # the interpreter takes its time
    q, z = integers(queries, 4, seed=queries), integers(labels, 4, seed=labels + 1000)
    bias = integers(labels, 1, seed=labels)[:, 0]
    generator = torch.Generator().manual_seed(5)
    excluded = [
        torch.randperm(labels, generator=generator)[: int(torch.randint(0, 9, (1,), generator=generator))].tolist()
        for _ in range(queries)
    ]
    excluded[-1] = list(range(labels))
    pairs = Positives.from_lists(excluded)
    for label_bias, exclude in ((None, None), (bias, pairs)):
        expected_scores, expected_indices = reference(q, z, k, label_bias, exclude)
        for tile_bytes in (600, 3000, 2**25) if impl == "torch" else (600,):  # the Triton engine keeps no tile
            scores, indices = topk_inner_product(
                q.to(device),
                z.to(device),
                k,
                label_bias=None if label_bias is None else label_bias.to(device),
                exclude=exclude,
                tile_bytes=tile_bytes,
                impl=impl,
            )
            assert torch.equal(scores.double().cpu(), expected_scores)
            assert torch.equal(indices.cpu(), expected_indices)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(engine: tuple[str, str], dtype: torch.dtype) -> None:
    impl, device = engine
    q, z = integers(9, 4, 0).to(dtype), integers(300, 4, 1).to(dtype)
    if impl == "triton" and dtype == torch.float64:
        with pytest.raises(ConfigError, match="float32, not float64"):
            topk_inner_product(q, z, 10, impl=impl)
        return
    scores, indices = topk_inner_product(q.to(device), z.to(device), 10, impl=impl)
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(indices.cpu(), reference(q, z, 10)[1])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_sorted_labels(engine: tuple[str, str], order: str) -> None:
    """Scores that rise beat every threshold and overflow every buffer; scores that fall beat none."""
    impl, device = engine
    q, z = torch.ones(3, 1, device=device), torch.arange(2500.0, device=device)[:, None]
    orders = {"ascending": z, "descending": z.flip(0), "random": z[torch.randperm(2500).to(device)]}
    scores, indices = topk_inner_product(q, orders[order], 7, tile_bytes=4000, impl=impl)
    assert torch.equal(indices.cpu(), reference(q, orders[order], 7)[1].cpu())
    assert scores[0].tolist() == [2499.0, 2498.0, 2497.0, 2496.0, 2495.0, 2494.0, 2493.0]


def test_wider_of_two_dtypes() -> None:
    q, z = integers(3, 4, 0), integers(20, 4, 1).double() + 1e-12 * torch.arange(20.0, dtype=torch.float64)[:, None]
    scores, indices = topk_inner_product(q, z, 5)
    assert scores.dtype == torch.float64
    assert torch.equal(indices, reference(q, z, 5)[1])
    assert torch.equal(topk_inner_product(q.half(), integers(20, 4, 1), 5)[1], reference(q, integers(20, 4, 1), 5)[1])


def test_no_graph_and_no_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    q, z = torch.randn(6, 32, generator=generator), torch.randn(500, 32, generator=generator)
    expected, _ = reference(q, z, 8)
    with torch.autocast("cpu", torch.bfloat16):
        scores, _ = topk_inner_product(q.requires_grad_(), z.requires_grad_(), 8)
    assert not scores.requires_grad
    torch.testing.assert_close(scores.double(), expected, rtol=0, atol=1e-5)


def test_bad_exclusions() -> None:
    q, z = integers(2, 4, 0), integers(5, 4, 1)
    with pytest.raises(InputError, match=r"exclude must be Positives, not list"):
        topk_inner_product(q, z, 2, exclude=[[1], [2]])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"exclude has 1 rows for 2 queries"):
        topk_inner_product(q, z, 2, exclude=Positives.from_lists([[1]]))
    with pytest.raises(InputError, match=r"exclude.indices range from 1 to 5, outside of the 5 labels"):
        topk_inner_product(q, z, 2, exclude=Positives.from_lists([[1], [5]]))
    with pytest.raises(InputError, match=r"label_bias must have shape \(5,\)"):
        topk_inner_product(q, z, 2, label_bias=torch.zeros(4))


@pytest.mark.parametrize("engine", ENGINES)
def test_infinite_scores_rank_first(engine: tuple[str, str]) -> None:
    impl, device = engine
    q, z = torch.tensor([[1.0]], device=device), torch.tensor([[0.0], [torch.inf], [3.0]], device=device)
    assert topk_inner_product(q, z, 2, impl=impl)[1].tolist() == [[1, 2]]


def test_bad_arguments() -> None:
    q, z = integers(2, 4, 0), integers(5, 4, 1)
    assert topk_inner_product(q, z, 0)[1].shape == (2, 0)
    assert topk_inner_product(q[:0], z, 3)[1].shape == (0, 3)
    assert topk_inner_product(q, z[:0], 3)[1].shape == (2, 0)
    with pytest.raises(InputError, match="k must be at least 0"):
        topk_inner_product(q, z, -1)
    with pytest.raises(InputError, match="same D"):
        topk_inner_product(q, z[:, :3], 1)
    with pytest.raises(InputError, match="floating"):
        topk_inner_product(q.int(), z, 1)
    many = integers(4000, 4, 1)
    for row in (3, 3999):  # where everything is looked at, and where only the best is
        many[row, 2] = torch.nan
        for impl in ("torch", "reference"):
            with pytest.raises(InputError, match="NaN"):
                topk_inner_product(q, many, 1, tile_bytes=4000, impl=impl)


@needs_triton
def test_nan_in_triton() -> None:
    q, many = integers(2, 4, 0), integers(400, 4, 1)
    many[399, 2] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        topk_inner_product(q, many, 1, impl="triton")


MEMORY = """
import sys, torch
from xmc.kernels.topk import topk_inner_product
rows, columns, width, dtype, grad = *map(int, sys.argv[1:4]), getattr(torch, sys.argv[4]), sys.argv[5] == "grad"
q, z = torch.ones(rows, width, dtype=dtype), torch.ones(columns, width, dtype=dtype)
topk_inner_product(q[:4], z[:100], 10)
before = peak()
topk_inner_product(q.requires_grad_(grad), z, 10)
print(peak() - before)
"""


@pytest.mark.parametrize("case", [["2000", "60000", "8", "float32", "grad"], ["1", "400000", "256", "float16", "-"]])
def test_peak_memory(case: list[str]) -> None:
    """2,000 x 60,000 scores are 457 MiB in float32, with gradients or without; so are 400,000 x 256 labels, 390 MiB."""
    assert number_printed(MEMORY, *case) < 150
