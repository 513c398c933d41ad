"""Exact top-k against a full stable sort in float64."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from xmc.errors import InputError
from xmc.kernels.topk import topk_inner_product


def reference(
    queries: Tensor, labels: Tensor, k: int, excluded: list[list[int]] | None = None
) -> tuple[Tensor, Tensor]:
    scores = queries.double() @ labels.double().T
    for row, columns in enumerate(excluded or []):
        scores[row, columns] = -torch.inf
    values, order = scores.sort(dim=1, descending=True, stable=True)
    values, order = values[:, :k], order[:, :k].clone()
    order[values == -torch.inf] = -1
    return values, order


def integers(rows: int, columns: int, seed: int) -> Tensor:
    """Small whole numbers: sums are exact in any order, and there are many ties."""
    return torch.randint(-2, 3, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize(("queries", "labels"), [(1, 1), (1, 50), (7, 1), (13, 129), (41, 1271)])
@pytest.mark.parametrize("k", [1, 5, 64, 2000])
@pytest.mark.parametrize("tile_bytes", [600, 3000, 2**25])
def test_equals_a_full_sort_with_ties_and_exclusions(queries: int, labels: int, k: int, tile_bytes: int) -> None:
    q, z = integers(queries, 4, seed=queries), integers(labels, 4, seed=labels + 1000)
    generator = torch.Generator().manual_seed(5)
    excluded = [
        torch.randperm(labels, generator=generator)[: int(torch.randint(0, 9, (1,), generator=generator))].tolist()
        for _ in range(queries)
    ]
    excluded[-1] = list(range(labels))
    indptr = torch.tensor([0, *map(len, excluded)]).cumsum(0)
    pairs = (indptr, torch.tensor([label for row in excluded for label in row], dtype=torch.int64))
    for exclude, lists in ((None, None), (pairs, excluded)):
        scores, indices = topk_inner_product(q, z, k, exclude=exclude, tile_bytes=tile_bytes)
        expected_scores, expected_indices = reference(q, z, k, lists)
        assert torch.equal(scores.double(), expected_scores)
        assert torch.equal(indices, expected_indices)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    q, z = integers(9, 4, 0).to(dtype), integers(300, 4, 1).to(dtype)
    scores, indices = topk_inner_product(q, z, 10)
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(indices, reference(q, z, 10)[1])


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_sorted_labels(order: str) -> None:
    """Scores that rise beat every threshold; scores that fall beat none."""
    q, z = torch.ones(3, 1), torch.arange(5000.0)[:, None]
    z = z if order == "ascending" else z.flip(0)
    scores, indices = topk_inner_product(q, z, 7, tile_bytes=4000)
    assert torch.equal(indices, reference(q, z, 7)[1])
    assert scores[0].tolist() == [4999.0, 4998.0, 4997.0, 4996.0, 4995.0, 4994.0, 4993.0]


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


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([0, 1], [1], r"indptr \[3\]"),
        ([0, 1, 3], [1, 2], "rise from 0 to 2"),
        ([0, 2, 1], [1], "rise from 0 to 1"),
        ([0, 1, 2], [1, 5], "names the label 5, but there are 5 labels"),
        ([0, 1, 2], [-1, 2], "names the label -1"),
    ],
)
def test_bad_exclusions(indptr: list[int], indices: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        topk_inner_product(
            integers(2, 4, 0), integers(5, 4, 1), 2, exclude=(torch.tensor(indptr), torch.tensor(indices))
        )


def test_infinite_scores_rank_first() -> None:
    q, z = torch.tensor([[1.0]]), torch.tensor([[0.0], [torch.inf], [3.0]])
    assert topk_inner_product(q, z, 2)[1].tolist() == [[1, 2]]


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
    z[3, 2] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        topk_inner_product(q, z, 1)


MEMORY = """
import resource, sys, torch
from xmc.kernels.topk import topk_inner_product
rows, columns, width, dtype, grad = *map(int, sys.argv[1:4]), getattr(torch, sys.argv[4]), sys.argv[5] == "grad"
q, z = torch.ones(rows, width, dtype=dtype), torch.ones(columns, width, dtype=dtype)
topk_inner_product(q[:4], z[:100], 10)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
topk_inner_product(q.requires_grad_(grad), z, 10)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("case", [["2000", "60000", "8", "float32", "grad"], ["1", "400000", "256", "float16", "-"]])
def test_peak_memory(case: list[str]) -> None:
    """2,000 x 60,000 scores are 457 MiB in float32, with gradients or without; so are 400,000 x 256 labels, 390 MiB."""
    run = subprocess.run([sys.executable, "-c", MEMORY, *case], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 150
