"""Exact top-k by group maxima: a product that keeps the best score of each group of labels, and the best groups once more.

The k best labels of a row are in its k first groups, ordered by maximum and then by the lowest label that has it. For if a
label is in another group, each of those k groups has a label before it: the lowest label of that group's maximum comes before
that of the label's own group, which is the label or comes before it.

The maxima do not say which label has them, so groups are ordered by maximum and then by number. Labels of a lower block of four
groups are lower, and only the groups of one block interleave (`maxima`). So a group that comes before another one by number,
and not by label, is one of the three beside it in its block; and the k + 3 first groups by number hold the k first by label.
Where the last block is not whole, its four groups may have too large a maximum, and come first undeserved: k + 7 are taken.

The labels of these groups are scored again in float32, and ranked by score and number. The groups were chosen by scores of the
product, whose sums have another order: labels whose scores differ by less than its rounding, or TF32's where that is
allowed, may change places at the end of the result.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.positives import Positives
from xmc.kernels.triton_tiles.candidates import candidate_keys
from xmc.kernels.triton_tiles.heuristics import dot_precision, machine_of, tile_shape
from xmc.kernels.triton_tiles.keys import unpack
from xmc.kernels.triton_tiles.masks import Masks
from xmc.kernels.triton_tiles.maxima import multiplied_maxima, product_maxima
from xmc.kernels.triton_tiles.pairs import Pairs
from xmc.kernels.triton_tiles.product import Product
from xmc.kernels.triton_tiles.search_plan import SearchPlan
from xmc.kernels.triton_tiles.selection import first_groups

__all__ = ["DEFAULT_TILE_BYTES", "search", "topk"]

DEFAULT_TILE_BYTES = 32 * 2**20
"""A tile of scores of the vendor's product: it fills a GPU several times, and stays in the second-level cache of one."""


def topk(
    queries: Tensor,
    labels: Tensor,
    k: int,
    label_bias: Tensor | None,
    exclude: Positives | None,
    tile_bytes: int | None,
) -> tuple[Tensor, Tensor]:
    """See xmc.kernels.topk.topk_inner_product, which checks the arguments; k is at most L, itself less than 2^32.

    Scores come from the product kernel, but those of exact float32 from the vendor's product, which is faster there, and those
    of two dtypes too, whose labels it converts a tile at a time. Nothing here waits for the device.
    """
    multiplied = queries.dtype != labels.dtype or (queries.dtype == torch.float32 and dot_precision() == "ieee")
    if multiplied:
        machine = machine_of(queries.device)
        product = Product(queries, labels, tile_shape(torch.float32, machine), machine)
    else:
        product = Product.of(queries, labels)
    pairs = None if exclude is None or not len(exclude.indices) else exclude
    plan = SearchPlan.of(product, k, 0 if pairs is None else len(pairs.indices)) if k and len(queries) else None
    return search(product, k, label_bias, pairs, plan, (tile_bytes or DEFAULT_TILE_BYTES) if multiplied else None)


def search(
    product: Product,
    k: int,
    bias: Tensor | None,
    exclude: Positives | None,
    plan: SearchPlan | None,
    tile_bytes: int | None,
) -> tuple[Tensor, Tensor]:
    """Scores [B, k] and indices [B, k] by a plan; None where there is nothing to search.

    tile_bytes: size of a tile of the vendor's product; None for the product kernel.
    """
    count, device = len(product.queries), product.queries.device
    scores = torch.empty((count, k), device=device)
    indices = torch.empty((count, k), dtype=torch.int64, device=device)
    if plan is None:
        return scores, indices
    bias = None if bias is None else bias.contiguous()
    for top in range(0, count, plan.rows):
        block = slice(top, top + plan.rows)
        part = Product(product.queries[block], product.labels, product.shape, product.machine)
        masks = None if exclude is None else _masks(exclude, top, part)
        keys = candidate_keys(part, bias, masks, _first_groups(part, bias, masks, plan, tile_bytes), plan.size)
        unpack(keys.topk(k, dim=1).values, scores[block], indices[block])
    return scores, indices


def _first_groups(
    product: Product, bias: Tensor | None, masks: Masks | None, plan: SearchPlan, tile_bytes: int | None
) -> Tensor:
    """Keys of the groups that hold the best labels, int64 [B, kept]; of all groups, one row for all queries."""
    if plan.searches_all:
        numbers = torch.arange(plan.groups, device=product.queries.device)
        return (0xFFFFFFFF - numbers).expand(len(product.queries), -1)
    if tile_bytes is None:
        maxima = product_maxima(product, bias, masks, plan.size)
    else:
        maxima = multiplied_maxima(product, bias, masks, plan.size, tile_bytes)
    return first_groups(maxima, plan.kept)


def _masks(exclude: Positives, top: int, product: Product) -> Masks:
    """Masks of the excluded pairs of the product's queries, whose first is number `top` of those that have the pairs."""
    rows = exclude.rows - top
    inside = (rows >= 0) & (rows < len(product.queries))
    columns = torch.where(inside, exclude.indices.long(), -1)
    return Masks.of(Pairs(rows, columns, torch.full_like(rows, -1), 0), product, 0, keep_positives=False)
