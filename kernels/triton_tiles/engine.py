"""Forward and backward pass of the row statistics on Triton kernels; the interface of `torch_tiles`."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.entries import flagged_pairs
from xmc.kernels.problem import Gradients, Problem, Result
from xmc.kernels.triton_tiles.chunks import backward_chunks, forward_chunks
from xmc.kernels.triton_tiles.gradient import score_gradients
from xmc.kernels.triton_tiles.masks import Masks
from xmc.kernels.triton_tiles.pairs import Pairs, pair_scores, put_pair_gradients
from xmc.kernels.triton_tiles.product import Product
from xmc.kernels.triton_tiles.reduce import combine_tiles, reduce_scores

__all__ = ["backward", "forward"]


def forward(
    problem: Problem, queries: Tensor, labels: Tensor, bias: Tensor | None, needs: tuple[bool, bool, bool]
) -> Result:
    """Row statistics: one product whose tiles are reduced at once, 2·B·L·D flops.

    needs: whether a backward pass will ask for the gradients of queries, labels and bias.
    """
    product, pairs, scale = Product.of(queries, labels), _pairs(problem), _scale(problem, queries)
    bias = None if bias is None else bias.contiguous()
    reduction, masked = problem.reduction, _masked(problem, pairs)
    values, derivatives = [], []
    for first, tiles in forward_chunks(product, len(pairs.rows) if masked else 0, reduction, problem.tile_bytes):
        part, left = product.part(first, tiles), first * product.shape.labels
        masks = Masks.of(pairs, part, left, keep_positives=reduction.takes_positives) if masked else None
        part_bias = None if bias is None else bias[left : left + len(part.labels)]
        value, derivative = reduce_scores(part, part_bias, scale, reduction, masks)
        values.append(combine_tiles(value, logarithms=reduction.logarithmic))
        if derivative is not None:
            derivatives.append(combine_tiles(derivative, logarithms=False))
    value = _all_parts(values, queries, logarithms=reduction.logarithmic)
    derivative = _all_parts(derivatives, queries, logarithms=False) * reduction.slope
    return Result(
        value / reduction.unit if reduction.logarithmic else value, derivative, pair_scores(product, pairs, bias, scale)
    )


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

    For some labels at a time: scores once more, turned into their gradients in a buffer, and two products with that;
    6·B·L·D flops.
    """
    product, pairs, scale = Product.of(queries, labels), _pairs(problem), _scale(problem, queries)
    reduction, width = problem.reduction, queries.shape[1]
    needs_queries, needs_labels, needs_bias = needs
    enlarged, factor = _range_of(product.queries.dtype, value_gradient, positive_gradient, scale)
    row_gradient = (value_gradient * (enlarged * reduction.slope)).contiguous()
    pair_gradient = (positive_gradient * enlarged).contiguous()
    constant = reduction.row_constant(result.value).float() * reduction.unit
    query_gradient = product.queries.new_zeros(product.queries.shape, dtype=torch.float32) if needs_queries else None
    label_gradient = labels.new_empty(labels.shape) if needs_labels else None
    bias_gradient = labels.new_empty(len(labels), dtype=torch.float32) if needs_bias else None
    chunks = backward_chunks(product, problem.tile_bytes)
    columns = max((tiles for _, tiles in chunks), default=0) * product.shape.labels
    buffer = product.queries.new_empty((len(queries), columns))
    for first, tiles in chunks:
        part, left = product.part(first, tiles), first * product.shape.labels
        chosen, gradients = slice(left, left + len(part.labels)), buffer[:, : len(part.labels)]
        part_bias = None if bias is None else bias[chosen].contiguous()
        score_gradients(part, part_bias, scale, reduction, constant, row_gradient, gradients)
        put_pair_gradients(
            pairs, reduction, result.positive_scores, constant, row_gradient, pair_gradient, left, gradients
        )
        if bias_gradient is not None:
            torch.sum(gradients, 0, dtype=torch.float32, out=bias_gradient[chosen])
        if query_gradient is not None:
            query_gradient += _product(gradients, part.labels)
        if label_gradient is not None:
            of_labels = (
                gradients.T @ product.queries if factor is None else _product(gradients.T, product.queries) * factor
            )
            label_gradient[chosen] = of_labels[:, :width]
    if query_gradient is not None and factor is not None:
        query_gradient *= factor
    if bias_gradient is not None:
        bias_gradient *= (1.0 if factor is None else factor) / scale
    return Gradients(None if query_gradient is None else query_gradient[:, :width], label_gradient, bias_gradient)


def _pairs(problem: Problem) -> Pairs:
    pairs = flagged_pairs(problem.positives, problem.exclude, problem.labels)
    return Pairs(*pairs, len(problem.positives.indices))


def _masked(problem: Problem, pairs: Pairs) -> bool:
    """Whether there may be pairs that the sum leaves out."""
    return len(pairs.rows) > (pairs.positives if problem.reduction.takes_positives else 0)


def _scale(problem: Problem, like: Tensor) -> Tensor:
    """1/τ, float32 [1], made without a copy from the host."""
    if isinstance(problem.scale, Tensor):
        return problem.scale.float().reshape(1)
    return torch.full((1,), problem.scale, dtype=torch.float32, device=like.device)


def _all_parts(parts: list[Tensor], like: Tensor, *, logarithms: bool) -> Tensor:
    """The statistic [B] of all labels from those of parts."""
    if not parts:
        return torch.full((len(like),), -torch.inf if logarithms else 0.0, dtype=torch.float32, device=like.device)
    return parts[0] if len(parts) == 1 else combine_tiles(torch.stack(parts), logarithms=logarithms)


def _range_of(
    dtype: torch.dtype, value_gradient: Tensor, positive_gradient: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor | None]:
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
