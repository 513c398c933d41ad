"""The labels of chosen groups scored again, in float32, by a kernel that gathers their embeddings."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xmc.kernels.triton_tiles.keys import key_of, number_of, ordered
from xmc.kernels.triton_tiles.masks import Masks, is_hidden
from xmc.kernels.triton_tiles.maxima import label_of
from xmc.kernels.triton_tiles.product import Product

__all__ = ["candidate_keys"]

BLOCK = 32
"""Labels whose embeddings a program gathers."""
DEPTH = 128
"""Dimensions of an embedding that it gathers at once."""


@triton.jit
def _candidate_keys(
    queries, labels, bias, words, index, groups, keys,
    count, total, depth, stride_q, stride_z, stride_zd, stride_g, label_tiles,
    SIZE: tl.constexpr, BIASED: tl.constexpr, MASKED: tl.constexpr,
    ROWS: tl.constexpr, LABELS: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    programs = tl.cdiv(count, BLOCK)
    row = (tl.program_id(0) // programs).to(tl.int64)
    numbers = tl.program_id(0) % programs * BLOCK + tl.arange(0, BLOCK)
    group = number_of(tl.load(groups + row * stride_g + numbers // SIZE, mask=numbers < count, other=0))
    label = label_of(group, numbers % SIZE, SIZE)
    exists = (numbers < count) & (label < total)
    products = tl.zeros((BLOCK, DEPTH), dtype=tl.float32)
    for start in range(0, depth, DEPTH):
        at = start + tl.arange(0, DEPTH)
        q = tl.load(queries + row * stride_q + at, mask=at < depth, other=0.0)
        inside = exists[:, None] & (at < depth)[None, :]
        z = tl.load(labels + label[:, None] * stride_z + at[None, :] * stride_zd, mask=inside, other=0.0)
        products += q.to(tl.float32)[None, :] * z.to(tl.float32)
    scores = tl.sum(products, 1)
    if BIASED:
        scores += tl.load(bias + label, mask=exists, other=0.0).to(tl.float32)
    if MASKED:
        exists = exists & (is_hidden(words, index, row, label, exists, label_tiles, ROWS, LABELS) == 0)
    scores = tl.where(exists, scores, float("-inf"))
    tl.store(keys + row * count + numbers, key_of(ordered(scores), label), mask=numbers < count)


def candidate_keys(product: Product, bias: Tensor | None, masks: Masks | None, groups: Tensor, size: int) -> Tensor:
    """Keys of all labels in groups, with the scores summed up in float32; int64 [B, m · size], in the order of the groups.

    groups: int64 [B, m], keys of numbers of groups of `size` labels; its rows may be one. Embeddings of any strides and dtypes.
    What is no label, or hidden by the masks, has a score of -inf. Gathers B·m·size embeddings.
    """
    queries, labels, shape = product.queries, product.labels, product.shape
    count = groups.shape[1] * size
    keys = torch.empty((len(queries), count), dtype=torch.int64, device=queries.device)
    _candidate_keys[(len(queries) * -(-count // BLOCK),)](
        queries,
        labels,
        bias,
        None if masks is None else masks.words,
        None if masks is None else masks.index,
        groups,
        keys,
        count,
        len(labels),
        queries.shape[1],
        queries.stride(0),
        labels.stride(0),
        labels.stride(1),
        groups.stride(0),
        product.label_tiles,
        SIZE=size,
        BIASED=bias is not None,
        MASKED=masks is not None,
        ROWS=shape.rows,
        LABELS=shape.labels,
        BLOCK=BLOCK,
        DEPTH=DEPTH,
    )
    return keys
