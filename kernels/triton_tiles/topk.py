"""Exact top-k: a product whose epilogue keeps only what beats a query's k-th best so far.

Labels are gone through in a few phases, the first of 2·k labels. In each, a score above the row's threshold is appended
to the row's candidates; after each, the k best stay, and the k-th of them is the next threshold. A phase is eight times
as long as all labels before it, so that labels in random order bring about 8·k candidates a row; where a row's buffer
overflows all the same, the phase is done again in two halves.

A candidate is one int64: the score's bits in an order of integers, then the label's complement. So the largest
key is the best score of the lowest label, and the result does not depend on the order in which candidates arrive.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xmc.kernels.entries import Entries
from xmc.kernels.positives import Positives
from xmc.kernels.triton_tiles.buckets import Buckets
from xmc.kernels.triton_tiles.heuristics import TileShape, dot_precision, interpreting
from xmc.kernels.triton_tiles.scores import locate

__all__ = ["topk"]

EMPTY = -(2**63)
BUFFER_BYTES = 256 * 2**20
"""Largest size of the candidates; more queries are done one block after the other."""


@triton.jit
def score_tile(
    queries,
    labels,
    rows,
    places,
    row_mask,
    label_mask,
    depth,
    stride_qb,
    stride_qd,
    stride_zl,
    stride_zd,
    ROWS: tl.constexpr,
    LABELS: tl.constexpr,
    DEPTH: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Inner products of `rows` of queries with `places` of labels, float32 [ROWS, LABELS]; zero where masked."""
    dimensions = tl.arange(0, DEPTH)
    q_at = queries + rows.to(tl.int64)[:, None] * stride_qb + dimensions[None, :] * stride_qd
    z_at = labels + places.to(tl.int64)[None, :] * stride_zl + dimensions[:, None] * stride_zd
    scores = tl.zeros((ROWS, LABELS), dtype=tl.float32)
    for start in range(0, depth, DEPTH):
        inside = dimensions < depth - start
        q = tl.load(q_at, mask=row_mask[:, None] & inside[None, :], other=0.0)
        z = tl.load(z_at, mask=label_mask[None, :] & inside[:, None], other=0.0)
        if UPCAST:
            q, z = q.to(tl.float32), z.to(tl.float32)
        scores = tl.dot(q, z, scores, input_precision=PRECISION)
        q_at += DEPTH * stride_qd
        z_at += DEPTH * stride_zd
    return scores


@triton.jit
def _collect(
    queries,
    labels,
    bias,
    threshold,
    offsets,
    entry_rows,
    entry_columns,
    counts,
    candidates,
    flag,
    count,
    first_tile,
    end,
    depth,
    capacity,
    row_blocks,
    phase_tiles,
    label_tiles,
    stride_qb,
    stride_qd,
    stride_zl,
    stride_zd,
    BIASED: tl.constexpr,
    ROWS: tl.constexpr,
    LABELS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    block, within = locate(tl.program_id(0), row_blocks, phase_tiles, GROUP)
    tile = first_tile + within
    rows = block * ROWS + tl.arange(0, ROWS)
    columns = tile * LABELS + tl.arange(0, LABELS)
    row_mask, label_mask = rows < count, columns < end
    scores = score_tile(
        queries, labels, rows, columns, row_mask, label_mask, depth,
        stride_qb, stride_qd, stride_zl, stride_zd, ROWS, LABELS, DEPTH, UPCAST, PRECISION,
    )  # fmt: skip
    if BIASED:
        scores += tl.load(bias + columns, mask=label_mask, other=0.0).to(tl.float32)[None, :]
    number = block * label_tiles + tile
    for entry in range(tl.load(offsets + number), tl.load(offsets + number + 1)):
        hit = (rows == tl.load(entry_rows + entry))[:, None] & (columns == tl.load(entry_columns + entry))[None, :]
        scores = tl.where(hit, float("-inf"), scores)
    inside = row_mask[:, None] & label_mask[None, :]
    tl.store(flag, 1, mask=tl.sum(tl.sum((inside & (scores != scores)).to(tl.int32), 1), 0) > 0)
    numbers = tl.arange(0, LABELS)
    scores = tl.where(inside & (scores == scores), scores, float("-inf"))
    least = tl.load(threshold + rows, mask=row_mask, other=float("inf"))
    best, at = tl.max(scores, 1, return_indices=True)
    better = best > least
    # Seldom more than a few rounds: each takes the best score that is left of every row that has one.
    while tl.max(better.to(tl.int32), 0) > 0:
        place = tl.atomic_add(counts + rows, 1, mask=better, sem="relaxed")
        bits = tl.where(best == 0.0, 0.0, best).to(tl.int32, bitcast=True)
        ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
        key = (ordered.to(tl.int64) << 32) | (4294967295 - (tile * LABELS + at).to(tl.int64))
        tl.store(candidates + rows.to(tl.int64) * capacity + place, key, mask=better & (place < capacity))
        scores = tl.where(better[:, None] & (numbers[None, :] == at[:, None]), float("-inf"), scores)
        best, at = tl.max(scores, 1, return_indices=True)
        better = better & (place < capacity) & (best > least)


def topk(
    queries: Tensor,
    labels: Tensor,
    k: int,
    label_bias: Tensor | None,
    exclude: Positives | None,
    tile_bytes: int,
) -> tuple[Tensor, Tensor]:
    """See xmc.kernels.topk.topk_inner_product, which checks the arguments; k is at most L, itself less than 2^32."""
    if interpreting():
        queries, labels = queries.float(), labels.float()
    scores = torch.full((len(queries), k), -torch.inf, device=queries.device)
    indices = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    if not scores.numel():
        return scores, indices
    capacity = max(16 * k, 2048)
    height = max(1, BUFFER_BYTES // (8 * capacity))
    for top in range(0, len(queries), height):
        block = slice(top, min(top + height, len(queries)))
        block_exclude = None if exclude is None else _rows_of(exclude, block)
        search = _Search(queries[block], labels, k, capacity, label_bias, block_exclude)
        scores[block], indices[block] = search.run()
    return scores, indices


class _Search:
    """Candidates of some queries: int64 [B, capacity], the first `counts` [B] of each row taken."""

    def __init__(
        self,
        queries: Tensor,
        labels: Tensor,
        k: int,
        capacity: int,
        bias: Tensor | None,
        exclude: Positives | None,
    ) -> None:
        self.queries, self.labels, self.k = queries, labels, k
        self.bias = None if bias is None else bias.contiguous()
        self.upcast = queries.dtype != labels.dtype
        self.shape: TileShape = _shape(torch.float32 if self.upcast else queries.dtype)
        device, count = queries.device, len(queries)
        entries = Entries.of(exclude or Positives.none(count, device), None, len(labels))
        self.buckets = Buckets.of(entries, count, len(labels), self.shape)
        self.candidates = torch.full((count, capacity), EMPTY, dtype=torch.int64, device=device)
        self.counts = torch.zeros(count, dtype=torch.int32, device=device)
        self.flag = torch.zeros(1, dtype=torch.int32, device=device)  # whether there was NaN
        self.threshold = torch.full((count,), -torch.inf, device=device)

    def run(self) -> tuple[Tensor, Tensor]:
        """Scores and indices [B, k]."""
        tiles, seen = self.buckets.label_tiles, 0
        while seen < tiles:
            length = 8 * seen if seen else -(-2 * self.k // self.shape.labels)
            self._phase(seen, min(tiles, seen + length))
            seen = min(tiles, seen + length)
        best = self.candidates[:, : self.k]
        empty = best == EMPTY
        indices = torch.where(empty, -1, 0xFFFFFFFF - (best & 0xFFFFFFFF))
        scores = torch.where(empty, -torch.inf, _score_of(best))
        return torch.where(self.flag > 0, torch.nan, scores), indices

    def _phase(self, first: int, last: int) -> None:
        """Take label tiles [first, last) into account."""
        before = self.counts.clone()
        end = min(len(self.labels), last * self.shape.labels)
        _collect[(self.buckets.row_blocks * (last - first),)](
            self.queries,
            self.labels,
            self.bias,
            self.threshold,
            self.buckets.offsets,
            self.buckets.rows,
            self.buckets.columns,
            self.counts,
            self.candidates,
            self.flag,
            len(self.queries),
            first,
            end,
            self.queries.shape[1],
            self.candidates.shape[1],
            self.buckets.row_blocks,
            last - first,
            self.buckets.label_tiles,
            *self.queries.stride(),
            *self.labels.stride(),
            BIASED=self.bias is not None,
            ROWS=self.shape.rows,
            LABELS=self.shape.labels,
            DEPTH=self.shape.depth,
            GROUP=self.shape.group,
            UPCAST=self.upcast,
            PRECISION=dot_precision(),
            num_warps=self.shape.warps,
            num_stages=self.shape.stages,
        )
        most = int(self.counts.max())
        if most > self.candidates.shape[1]:
            taken = torch.arange(self.candidates.shape[1], device=before.device) >= before[:, None]
            self.candidates.masked_fill_(taken, EMPTY)
            self.counts = before
            middle = (first + last) // 2
            self._phase(first, middle)
            self._phase(middle, last)
            return
        used = self.candidates[:, :most]
        best = used.topk(min(self.k, most), dim=1).values
        used.fill_(EMPTY)
        self.candidates[:, : best.shape[1]] = best
        self.counts = (best != EMPTY).sum(1, dtype=torch.int32)
        if best.shape[1] == self.k:
            last_best = best[:, -1]
            self.threshold = torch.where(last_best == EMPTY, -torch.inf, _score_of(last_best))


def _shape(dtype: torch.dtype) -> TileShape:
    if interpreting():
        return TileShape(rows=16, labels=64, depth=32, warps=1, stages=1, group=2)
    if dtype == torch.float32:
        return TileShape(rows=64, labels=128, depth=32, warps=4, stages=3)
    return TileShape(rows=128, labels=128, depth=64, warps=8, stages=3)


def _score_of(keys: Tensor) -> Tensor:
    """The float32 score in the upper half of a key."""
    ordered = (keys >> 32).to(torch.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)


def _rows_of(pairs: Positives, block: slice) -> Positives:
    """The lists of some queries."""
    first, last = int(pairs.indptr[block.start]), int(pairs.indptr[block.stop])
    return Positives(pairs.indptr[block.start : block.stop + 1] - first, pairs.indices[first:last])
