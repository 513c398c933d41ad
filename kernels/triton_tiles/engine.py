"""Forward and backward pass of the row statistics on Triton kernels; the interface of `torch_tiles`."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.problem import Gradients, Problem, Result
from xmc.kernels.triton_tiles.block_sparse import block_sparse_matmul
from xmc.kernels.triton_tiles.buckets import Buckets
from xmc.kernels.triton_tiles.gradient import score_gradients
from xmc.kernels.triton_tiles.heuristics import TileShape, operands, tile_shape
from xmc.kernels.triton_tiles.reduce import reduce_scores
from xmc.kernels.triton_tiles.skipping import active_tiles, label_order

__all__ = ["backward", "forward"]

DENSE_SHARE = 0.5
"""Share of a chunk's tiles; where more are active, the vendor's dense product is faster than one over blocks."""


def forward(
    problem: Problem, queries: Tensor, labels: Tensor, bias: Tensor | None, needs: tuple[bool, bool, bool]
) -> Result:
    """Row statistics: one product whose tiles are reduced at once, 2·B·L·D flops.

    needs: whether a backward pass will ask for the gradients of queries, labels and bias.
    """
    queries, labels = operands(queries, labels)
    bias = None if bias is None else bias.contiguous()
    shape = tile_shape(queries.dtype, heavy=problem.reduction.heavy)
    skip = problem.skip and any(needs) and problem.reduction.shares_tiles
    order = label_order(queries, labels) if skip else None
    buckets = Buckets.of(problem.entries, len(queries), len(labels), shape, _places(order))
    sums = reduce_scores(
        queries, labels, bias, order, problem.reduction, problem.scale, buckets, problem.entries.positives, shape
    )
    combined = problem.reduction.combine(sums.values, sums.derivatives)
    masses = combined.shares if skip else None
    return Result(combined.value, combined.derivative, sums.positive_scores, masses=masses, order=order)


def backward(
    problem: Problem,
    queries: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    result: Result,
    value_gradient: Tensor,
    positive_gradient: Tensor,
    needs: tuple[bool, bool, bool],
) -> Gradients:
    """Gradients of queries (float32), labels and bias, each where `needs` says so.

    For some labels at a time: scores once more, turned into their gradients in a buffer of `tile_bytes`, and two products
    with that; 6·B·L·D flops, less the share of skipped tiles.
    """
    label_dtype = labels.dtype
    queries, labels = operands(queries, labels)
    shape = tile_shape(queries.dtype, heavy=problem.reduction.heavy)
    order = result.order
    count, total = len(queries), len(labels)
    needs_queries, needs_labels, needs_bias = needs
    buckets = Buckets.of(problem.entries, count, total, shape, _places(order))
    active = active_tiles(result.masses, value_gradient, buckets.occupied(), shape.rows, queries.dtype)
    enlarged, factor = _range_of(queries.dtype, value_gradient, positive_gradient, problem.scale)
    row_gradient, pair_gradient = (value_gradient * enlarged).contiguous(), (positive_gradient * enlarged).contiguous()
    constant = problem.reduction.row_constant(result.value).float().contiguous()

    query_gradient = queries.new_zeros(queries.shape, dtype=torch.float32) if needs_queries else None
    label_gradient = labels.new_zeros(labels.shape) if needs_labels else None
    bias_gradient = labels.new_zeros(total, dtype=torch.float32) if needs_bias else None
    chunk = max(1, problem.tile_bytes // max(1, count * queries.element_size() * shape.labels))  # in label tiles
    buffer = queries.new_empty((count, min(chunk * shape.labels, buckets.label_tiles * shape.labels)))
    tiles, blocks = (numbers.contiguous() for numbers in active.T.nonzero().unbind(1))
    firsts = range(0, buckets.label_tiles, chunk)
    cuts = torch.searchsorted(tiles, torch.tensor([*firsts, buckets.label_tiles], device=tiles.device)).tolist()
    for number, first in enumerate(firsts):
        here = slice(cuts[number], cuts[number + 1])
        if here.start == here.stop:
            continue
        present = active[:, first : first + chunk]
        left = first * shape.labels
        label_range = slice(left, min(total, left + chunk * shape.labels))
        chosen = label_range if order is None else order[label_range]
        z = labels[chosen]
        gradients = buffer[:, : len(z)]
        computed = here.stop - here.start
        dense = computed > DENSE_SHARE * present.numel()
        if computed < present.numel() and (dense or needs_bias):
            gradients.zero_()
        score_gradients(
            queries,
            z,
            None if bias is None else bias[chosen].contiguous(),
            problem.reduction,
            problem.scale,
            constant,
            row_gradient,
            pair_gradient,
            buckets,
            blocks[here],
            tiles[here],
            first,
            gradients,
            shape,
        )
        if bias_gradient is not None:
            bias_gradient[chosen] = gradients.sum(0, dtype=torch.float32)
        blocks_present = None if dense else present
        if query_gradient is not None:
            _add_product(query_gradient, gradients, z, blocks_present, shape)
        if label_gradient is not None:
            label_gradient[chosen] = _label_gradient(gradients, queries, blocks_present, shape, factor)
    if query_gradient is not None and factor is not None:
        query_gradient *= factor
    if bias_gradient is not None:
        bias_gradient *= (1.0 if factor is None else factor) / problem.scale
    return Gradients(query_gradient, None if label_gradient is None else label_gradient.to(label_dtype), bias_gradient)


def _add_product(out: Tensor, gradients: Tensor, labels: Tensor, present: Tensor | None, shape: TileShape) -> None:
    """out [B, D], float32, += gradients [B, C] @ labels [C, D]; `present` says which blocks count, None for all."""
    if present is None:
        out += _product(gradients, labels)
    else:
        block_sparse_matmul(gradients, labels, out, present, (shape.rows, shape.labels), add=True)


def _label_gradient(
    gradients: Tensor, queries: Tensor, present: Tensor | None, shape: TileShape, factor: Tensor | None
) -> Tensor:
    """factor · gradients [B, C] transposed @ queries [B, D], [C, D] in the dtype of the queries."""
    if present is None:
        product = gradients.T @ queries if factor is None else _product(gradients.T, queries)
    else:
        dtype = queries.dtype if factor is None else torch.float32
        product = queries.new_empty((gradients.shape[1], queries.shape[1]), dtype=dtype)
        block_sparse_matmul(gradients.T, queries, product, present.T, (shape.labels, shape.rows), add=False)
    return product if factor is None else (product * factor).to(queries.dtype)


def _places(order: Tensor | None) -> Tensor | None:
    """Where each label stands in the order: the inverse permutation."""
    if order is None:
        return None
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    return places


def _range_of(
    dtype: torch.dtype, value_gradient: Tensor, positive_gradient: Tensor, scale: float
) -> tuple[Tensor | float, Tensor | None]:
    """Factor of incoming gradients, and what takes it out of the results again.

    The 1/τ of the scores is part of it. float16 has too small a range for a score's gradient, so its largest is brought
    near 1,024 by a power of two.
    """
    if dtype != torch.float16:
        return scale, None
    both = torch.cat([value_gradient.abs(), positive_gradient.abs()]) * scale
    power = torch.where(both.max() > 0, (1024 / both.max()).log2().floor(), 0.0) if len(both) else both.new_zeros(())
    return scale * torch.exp2(power), torch.exp2(-power)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right, summed up and returned in float32."""
    if left.dtype == torch.float32:
        return left @ right
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()
