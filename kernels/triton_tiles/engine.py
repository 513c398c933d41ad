"""Forward and backward pass of the row statistics on Triton kernels; the interface of `torch_tiles`."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.problem import Gradients, Problem, Result
from xmc.kernels.triton_tiles.buckets import Buckets
from xmc.kernels.triton_tiles.gradient import score_gradients
from xmc.kernels.triton_tiles.heuristics import operands, tile_shape
from xmc.kernels.triton_tiles.reduce import reduce_scores

__all__ = ["backward", "forward"]


def forward(
    problem: Problem, queries: Tensor, labels: Tensor, bias: Tensor | None, needs: tuple[bool, bool, bool]
) -> Result:
    """Row statistics: one product whose tiles are reduced at once, 2·B·L·D flops.

    needs: whether a backward pass will ask for the gradients of queries, labels and bias.
    """
    queries, labels = operands(queries, labels)
    bias = None if bias is None else bias.contiguous()
    shape = tile_shape(queries.dtype, heavy=problem.reduction.heavy)
    buckets = Buckets.of(problem.entries, len(queries), len(labels), shape)
    sums = reduce_scores(
        queries, labels, bias, None, problem.reduction, problem.scale, buckets, problem.entries.positives, shape
    )
    combined = problem.reduction.combine(sums.values, sums.derivatives)
    return Result(combined.value, combined.derivative, sums.positive_scores)


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
    with that; 6·B·L·D flops.
    """
    label_dtype = labels.dtype
    queries, labels = operands(queries, labels)
    shape = tile_shape(queries.dtype, heavy=problem.reduction.heavy)
    count, total = len(queries), len(labels)
    needs_queries, needs_labels, needs_bias = needs
    buckets = Buckets.of(problem.entries, count, total, shape)
    enlarged, factor = _range_of(queries.dtype, value_gradient, positive_gradient, problem.scale)
    row_gradient, pair_gradient = (value_gradient * enlarged).contiguous(), (positive_gradient * enlarged).contiguous()
    constant = problem.reduction.row_constant(result.value).float().contiguous()

    query_gradient = queries.new_zeros(queries.shape, dtype=torch.float32) if needs_queries else None
    label_gradient = labels.new_zeros(labels.shape) if needs_labels else None
    bias_gradient = labels.new_zeros(total, dtype=torch.float32) if needs_bias else None
    chunk = max(1, problem.tile_bytes // max(1, count * queries.element_size() * shape.labels))  # in label tiles
    buffer = queries.new_empty((count, min(chunk * shape.labels, buckets.label_tiles * shape.labels)))
    for first in range(0, buckets.label_tiles, chunk):
        tiles = torch.arange(first, min(first + chunk, buckets.label_tiles), device=queries.device)
        blocks = torch.arange(buckets.row_blocks, device=queries.device).repeat(len(tiles))
        chosen = slice(first * shape.labels, min(total, (first + chunk) * shape.labels))
        z = labels[chosen]
        gradients = buffer[:, : len(z)]
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
            blocks,
            tiles.repeat_interleave(buckets.row_blocks),
            first,
            gradients,
            shape,
        )
        if bias_gradient is not None:
            bias_gradient[chosen] = gradients.sum(0, dtype=torch.float32)
        if query_gradient is not None:
            query_gradient += _product(gradients, z)
        if label_gradient is not None:
            product = gradients.T @ queries if factor is None else _product(gradients.T, queries) * factor
            label_gradient[chosen] = product.to(queries.dtype)
    if query_gradient is not None and factor is not None:
        query_gradient *= factor
    if bias_gradient is not None:
        bias_gradient *= (1.0 if factor is None else factor) / problem.scale
    return Gradients(query_gradient, None if label_gradient is None else label_gradient.to(label_dtype), bias_gradient)


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
