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
    z[3, 2] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        topk_inner_product(q, z, 1)


MEMORY = """
import resource, torch
from xmc.kernels.topk import topk_inner_product
q, z = torch.randn(2000, 8), torch.randn(60_000, 8)
topk_inner_product(q[:4], z, 10)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
topk_inner_product(q, z, 10)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_scores_are_never_held() -> None:
    """2,000 x 60,000 scores are 457 MiB in float32."""
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 200
