"""The parts of the Triton engine's top-k, each on its own, and what its public form does not reach."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from random_kernel_inputs import needs_triton
from torch import Tensor

from xmc.errors import NotFiniteError
from xmc.kernels.positives import Positives
from xmc.kernels.reference import topk_inner_product as reference
from xmc.kernels.topk import topk_inner_product

pytest.importorskip("triton", reason="triton is not installed; pip install triton")

from xmc.kernels.triton_tiles.heuristics import Machine, TileShape
from xmc.kernels.triton_tiles.product import Product
from xmc.kernels.triton_tiles.search_plan import SEARCH_BYTES, SearchPlan
from xmc.kernels.triton_tiles.selection import first_groups, selection_block, selection_bytes
from xmc.kernels.triton_tiles.topk import search

DEVICES = [
    pytest.param("cpu", id="interpreter", marks=needs_triton),
    pytest.param("cuda", id="cuda", marks=pytest.mark.cuda),
]
WAYS = [pytest.param(None, id="product kernel"), pytest.param(2000, id="vendor's product")]
"""Size of a tile of the vendor's product."""


def integers(*sizes: int, seed: int, most: int = 2) -> Tensor:
    """Small whole numbers: sums are exact in any order, and there are many ties."""
    return torch.randint(-most, most + 1, sizes, generator=torch.Generator().manual_seed(seed)).float()


def found(
    queries: Tensor,
    labels: Tensor,
    k: int,
    size: int,
    way: int | None,
    *,
    device: str = "cpu",
    bias: Tensor | None = None,
    exclude: Positives | None = None,
    rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """A search with groups of a given size, `rows` queries at a time, on float16 where the product kernel needs it."""
    product = Product.of(queries.to(device, torch.float16), labels.to(device, torch.float16))
    if way is not None:
        product = Product(queries.to(device), labels.to(device), product.shape, product.machine)
    plan = SearchPlan.with_size(product, k, 0 if exclude is None else len(exclude.indices), size)
    plan = plan if rows is None else replace(plan, rows=rows)
    bias = None if bias is None else bias.to(device)
    exclude = None if exclude is None else exclude.to(device)
    scores, indices = search(product, k, bias, exclude, plan, way)
    return scores.cpu(), indices.cpu()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [4, *(pytest.param(size, marks=pytest.mark.slow) for size in (2, 8, 16))])
def test_every_size_of_group(size: int, way: int | None, device: str) -> None:
    """With bias and exclusions, among them the best labels of each query; with fewer groups than are asked for."""
    q, z, bias = integers(17, 4, seed=1), integers(203, 4, seed=2), integers(203, seed=3)
    best = reference(q, z, 12, bias, None)[1].tolist()
    exclude = Positives.from_lists([*best[:-1], range(203)])
    for k, label_bias, excluded, rows in ((6, None, None, None), (1, bias, exclude, 7), (150, bias, exclude, None)):
        actual = found(q, z, k, size, way, device=device, bias=label_bias, exclude=excluded, rows=rows)
        expected = reference(q, z, k, label_bias, excluded)
        assert torch.equal(actual[0].double(), expected[0])
        assert torch.equal(actual[1], expected[1])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [8, 16])
def test_ties_between_groups_that_interleave(size: int, way: int | None, device: str) -> None:
    """The best label of group 3 of each block comes first, then that of 2, 1, 0: by number alone it is the other way."""
    z = torch.zeros(8 * 40, 1)
    for group in range(4):
        z[8 * (3 - group) + 2 * group :: 4 * size] = 1.0
    q = torch.tensor([[1.0], [-1.0], [2.0]])
    for k in (1, 2, 3, 4, 5, 9):
        expected = reference(q, z, k, None, None)[1]
        assert torch.equal(found(q, z, k, size, way, device=device)[1], expected)
    everything = found(torch.zeros(3, 1), z, 30, size, way, device=device)[1]
    assert torch.equal(everything, torch.arange(30).expand(3, -1))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", [0, 150, 202])
def test_nan_is_never_lost(place: int, way: int | None, device: str) -> None:
    """Wherever it is, and however many infinite scores there are; of an excluded pair it says nothing."""
    q, z = torch.ones(2, 4), torch.ones(203, 4)
    z[:, 0] = torch.inf
    z[place, 1] = torch.nan
    scores, _ = found(q, z, 3, 4, way, device=device)
    assert scores.isnan().any(1).all()
    exclude = Positives.from_lists([[place], []])
    scores, indices = found(q, z, 3, 4, way, device=device, exclude=exclude)
    assert scores.isnan().any(1).tolist() == [False, True]
    assert indices[0].tolist() == [label for label in range(4) if label != place][:3]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [65, 69, 75])
def test_past_the_last_label(count: int, way: int | None, device: str) -> None:
    """What a tile has there is zero: above all scores of the last query, and NaN times the infinity of the first."""
    q, z = torch.tensor([[torch.inf, 1.0], [1.0, 1.0], [-1.0, -1.0]]), 1 + torch.arange(2.0 * count).reshape(count, 2)
    for k in (1, 2, 5):
        scores, indices = found(q, z, k, 4, way, device=device)
        expected = [range(k), range(count - 1, count - 1 - k, -1), range(k)]
        assert indices.tolist() == [list(row) for row in expected]
        assert scores[0].tolist() == [torch.inf] * k


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("width", "kept"), [(1, 1), (64, 5), (1000, 7), (4100, 3), (4100, 900)])
def test_selection(width: int, kept: int, device: str) -> None:
    """The first by value and place, as a stable sort has them, of few different values, NaN and infinities among them."""
    values = integers(5, width, seed=width, most=3)
    values[values == -3] = -torch.inf
    values[0] = -torch.inf
    values[1, width // 2 :] = torch.nan
    values[2, ::2] *= -0.0
    places = 0xFFFFFFFF - (first_groups(values.to(device), kept) & 0xFFFFFFFF)
    order = values.nan_to_num(nan=torch.inf, posinf=9.0, neginf=-9.0)
    expected = order.sort(dim=1, descending=True, stable=True).indices[:, :kept]
    assert torch.equal(places.cpu().sort(1).values, expected.sort(1).values)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float16), (torch.bfloat16, torch.float32)])
def test_two_dtypes(dtypes: tuple[torch.dtype, torch.dtype], device: str) -> None:
    """Products are those of float32: queries that only float32 tells apart stay apart."""
    q, z = integers(3, 4, seed=1), integers(150, 4, seed=2)
    if dtypes[0] == torch.float32:
        q += 2.0**-14 * integers(3, 4, seed=3)
    bias, exclude = integers(150, seed=4), Positives.from_lists([[1, 2], [], [149]])
    expected = reference(q, z, 9, bias, exclude)
    scores, indices = topk_inner_product(
        q.to(device, dtypes[0]), z.to(device, dtypes[1]), 9, label_bias=bias.to(device), exclude=exclude, impl="triton"
    )
    assert torch.equal(indices.cpu(), expected[1])
    assert torch.equal(scores.cpu().double(), expected[0])


@needs_triton
def test_any_strides() -> None:
    """Columns of a wider matrix, and labels that are a transposed one; a bias that is every second number."""
    wide, labels, bias = integers(6, 9, seed=1), integers(4, 130, seed=2), integers(260, seed=3)[::2]
    for dtype in (torch.float32, torch.float16):
        q, z = wide.to(dtype)[:, 3:7], labels.to(dtype).T
        actual = topk_inner_product(q, z, 11, label_bias=bias, impl="triton")
        assert torch.equal(actual[1], reference(q, z, 11, bias, None)[1])


@needs_triton
def test_tf32_where_it_is_allowed() -> None:
    """Then float32 goes through the product kernel, and what is returned is summed up in float32 all the same."""
    q, z = integers(7, 4, seed=1), integers(130, 4, seed=2)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert torch.equal(topk_inner_product(q, z, 9, impl="triton")[1], reference(q, z, 9, None, None)[1])
        z[100] = torch.nan
        with pytest.raises(NotFiniteError):
            topk_inner_product(q, z, 9, impl="triton")
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("dimension", [24, 20])  # 20 numbers of 16 bits are padded
def test_many_tiles(dtype: torch.dtype, dimension: int) -> None:
    q, z, bias = integers(300, dimension, seed=1), integers(20_011, dimension, seed=2), integers(20_011, seed=3)
    best = reference(q, z, 50, bias, None)[1]
    exclude = Positives.from_lists(best[:, ::2].tolist())
    for k in (1, 100, 3000):
        expected = reference(q, z, k, bias, exclude)
        scores, indices = topk_inner_product(
            q.to("cuda", dtype), z.to("cuda", dtype), k, label_bias=bias.cuda(), exclude=exclude, impl="triton"
        )
        assert torch.equal(indices.cpu(), expected[1])
        assert torch.equal(scores.cpu().double(), expected[0])


@pytest.mark.cuda
def test_memory_that_is_taken() -> None:
    """No more than is planned; all scores would be 4 GiB."""
    q, z = (torch.randn(rows, 64, device="cuda", dtype=torch.bfloat16) for rows in (4096, 262_144))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    scores, indices = topk_inner_product(q, z, 100, impl="triton")
    taken = torch.cuda.max_memory_allocated() - before
    assert taken - scores.nbytes - indices.nbytes <= SEARCH_BYTES


def product_of(queries: int, labels: int, dimension: int, dtype: torch.dtype) -> Product:
    """Of tensors without memory, with the shapes of a GPU of capability 9.0."""
    shape = TileShape(128, 256, 64, 8, 3) if dtype == torch.bfloat16 else TileShape(64, 128, 16, 8, 2)
    q, z = (torch.empty(rows, dimension, dtype=dtype, device="meta") for rows in (queries, labels))
    return Product(q, z, shape, Machine(90, 132))


@pytest.mark.parametrize(
    ("queries", "labels", "dimension", "k", "size"),
    [
        (1024, 1_310_720, 768, 100, 8),
        (4096, 1_310_720, 768, 10, 32),
        (1024, 1_310_720, 768, 2048, 4),
        (1, 1_310_720, 768, 10, 16),
        (100_000, 1_310_720, 384, 10, 32),
        (4096, 2000, 64, 2000, 4),
        (64, 1_000_000, 64, 500_000, 4),
    ],
)
@pytest.mark.parametrize("pairs", [0, 10_000_000])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_plan_fits_its_memory(
    queries: int, labels: int, dimension: int, k: int, size: int, pairs: int, dtype: torch.dtype
) -> None:
    """What tensors of a block of queries take together, counted one by one."""
    product = product_of(queries, labels, dimension, dtype)
    plan = SearchPlan.of(product, k, pairs)
    if dtype == torch.bfloat16 and not pairs:
        assert plan.size == size
    rows, shape = min(plan.rows, queries), product.shape
    assert plan.groups * plan.size >= labels
    assert plan.kept * plan.size >= k
    blocks, tiles = -(-rows // shape.rows), product.label_tiles
    masks = 4 * blocks * tiles + (min(pairs, blocks * tiles) + 1) * shape.rows * shape.labels // 8 if pairs else 0
    if plan.searches_all:
        maxima = selection = 0
    else:
        maxima, block = 4 * rows * plan.groups, selection_block(plan.groups, plan.kept)
        first, chosen = 8 * rows * -(-plan.groups // block), 16 * rows * plan.kept
        selection = first + chosen + (0 if block == 1 else chosen + 8 * rows * plan.kept * block)
        assert selection == rows * selection_bytes(plan.groups, plan.kept)
    candidates = rows * (8 * plan.kept * plan.size + 16 * k)
    assert masks + maxima + selection + candidates <= SEARCH_BYTES
