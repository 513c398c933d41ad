"""Forward and backward pass of the row statistics on Triton kernels; the interface of `torch_tiles`."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.problem import Gradients, Problem, Result
from xmc.kernels.products import add_product
from xmc.kernels.products import product as matrix_product
from xmc.kernels.triton_tiles.chunks import backward_chunks, forward_chunks, kept_tiles
from xmc.kernels.triton_tiles.gradient import score_gradients
from xmc.kernels.triton_tiles.kept import kept_gradients
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
    product, pairs, scale = Product.of(queries, labels), Pairs.of(problem), problem.scale_on(queries.device)
    scored = Product.eight_bit(queries, labels) if problem.eight_bit else product
    bias = None if bias is None else bias.contiguous()
    reduction, masked = problem.reduction, _masked(problem, pairs)
    # In eight bits the product again is cheap, and keeping its weights beside it would take more registers than there are.
    keeping = kept_tiles(product, problem.keep_bytes) if any(needs) and not problem.eight_bit else 0
    kept = product.queries.new_empty((len(queries), keeping * product.shape.labels)) if keeping else None
    kept_values, values, derivatives = [], [], []
    chunks = forward_chunks(scored, len(pairs.rows) if masked else 0, reduction, problem.tile_bytes, keeping)
    for first, tiles in chunks:
        part, left = scored.part(first, tiles), first * scored.shape.labels
        chosen = slice(left, left + len(part.labels))
        # Masks are held for one chunk: nothing here keeps them for the next.
        value, derivative = reduce_scores(
            part,
            None if bias is None else bias[chosen],
            scale,
            reduction,
            Masks.of(pairs, part, left, keep_positives=reduction.takes_positives) if masked else None,
            None if kept is None or first >= keeping else kept[:, chosen],
        )
        values.append(combine_tiles(value, logarithms=reduction.logarithmic))
        if derivative is not None:
            derivatives.append(combine_tiles(derivative, logarithms=False))
        if reduction.logarithmic and first < keeping:
            kept_values.append(value)
        del value, derivative
    value = _all_parts(values, queries, logarithms=reduction.logarithmic)
    return Result(
        value / reduction.unit if reduction.logarithmic else value,
        _all_parts(derivatives, queries, logarithms=False) * reduction.slope,
        pair_scores(product, pairs, bias, scale),
        kept=kept,
        kept_values=torch.cat(kept_values) if kept_values else None,
        logarithms=value if reduction.logarithmic else None,
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
    6·B·L·D flops, 4 where the forward pass kept the scores' weights.
    """
    product, pairs, scale = Product.of(queries, labels), Pairs.of(problem), problem.scale_on(queries.device)
    needs_queries, needs_labels, needs_bias = needs
    width = queries.shape[1]
    enlarged, factor = _range_of(product.queries.dtype, value_gradient, positive_gradient, scale)
    write = _Writer(problem, product, pairs, scale, result, value_gradient * enlarged, positive_gradient * enlarged)
    query_gradient = product.queries.new_zeros(product.queries.shape, dtype=torch.float32) if needs_queries else None
    label_gradient = labels.new_empty(labels.shape) if needs_labels else None
    bias_gradient = labels.new_empty(len(labels), dtype=torch.float32) if needs_bias else None
    # Tiles are those of the scores that are computed again, which in eight bits may be wider than the embeddings' own.
    size = write.scored.shape.labels
    chunks = backward_chunks(write.scored, product.queries.dtype, problem.tile_bytes, write.keeping)
    buffer = product.queries.new_empty((len(queries), max((tiles for _, tiles in chunks), default=0) * size))
    for first, tiles in chunks:
        chosen = slice(first * size, min(len(labels), (first + tiles) * size))
        gradients, z = buffer[:, : chosen.stop - chosen.start], product.labels[chosen]
        write(first, tiles, None if bias is None else bias[chosen].contiguous(), gradients)
        if bias_gradient is not None:
            torch.sum(gradients, 0, dtype=torch.float32, out=bias_gradient[chosen])
        if query_gradient is not None:
            add_product(query_gradient, gradients, z)
        if label_gradient is not None:
            _multiply_into(label_gradient[chosen], gradients.T, product.queries, factor)
    if query_gradient is not None and factor is not None:
        query_gradient *= factor
    if bias_gradient is not None:
        bias_gradient *= (1.0 if factor is None else factor) / scale
    return Gradients(None if query_gradient is None else query_gradient[:, :width], label_gradient, bias_gradient)


class _Writer:
    """Writes the gradients of scores, for some label tiles at a time."""

    def __init__(
        self,
        problem: Problem,
        product: Product,
        pairs: Pairs,
        scale: Tensor,
        result: Result,
        row_gradient: Tensor,
        pair_gradient: Tensor,
    ) -> None:
        self.reduction, self.pairs, self.scale, self.result = problem.reduction, pairs, scale, result
        self.scored = Product.eight_bit(product.queries, product.labels) if problem.eight_bit else product
        self.row_gradient = (row_gradient * self.reduction.slope).contiguous()
        self.pair_gradient = pair_gradient.contiguous()
        if result.logarithms is None:
            self.constant = self.reduction.row_constant(result.value).float() * self.reduction.unit
        else:
            self.constant = self.reduction.row_constant(result.logarithms)
        self.keeping = 0 if result.kept is None else result.kept.shape[1] // product.shape.labels

    def __call__(self, first: int, tiles: int, bias: Tensor | None, out: Tensor) -> None:
        """Fill `out` [B, C], of the labels of `tiles` tiles from the `first` on; bias: [C]."""
        rows, left = (self.constant, self.row_gradient), first * self.scored.shape.labels
        if self.result.kept is not None and first < self.keeping:
            values = self.result.kept_values
            kept = self.result.kept[:, left : left + out.shape[1]]
            kept_gradients(self.scored, kept, None if values is None else values[first : first + tiles], *rows, out)
        else:
            score_gradients(self.scored.part(first, tiles), bias, self.scale, self.reduction, *rows, out)
        scores = self.result.positive_scores
        put_pair_gradients(self.pairs, self.reduction, scores, *rows, self.pair_gradient, left, out)


def _masked(problem: Problem, pairs: Pairs) -> bool:
    """Whether there may be pairs that the sum leaves out."""
    return len(pairs.rows) > (pairs.positives if problem.reduction.takes_positives else 0)


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


def _multiply_into(out: Tensor, left: Tensor, right: Tensor, factor: Tensor | None) -> None:
    """out = the first columns of factor · left @ right; without a copy where `out` has all of them."""
    if factor is None and out.dtype == left.dtype and out.shape[1] == right.shape[1]:
        torch.mm(left, right, out=out)
    else:
        result = left @ right if factor is None else matrix_product(left, right).mul_(factor)
        out.copy_(result[:, : out.shape[1]])
