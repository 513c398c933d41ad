"""Soft top-k's curves solved in one launch; `PassingCurve.solve` in plain torch is some hundreds."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from xmc.kernels.losses.passing import PassingCurve

__all__ = ["solve"]

ROWS = 4
"""Rows of a program."""


@triton.jit
def _passing(counts, places, y):
    """Σ n σ(x + y) and its derivative, [ROWS] each, at y [ROWS]."""
    passed = 1.0 / (1.0 + tl.exp(-(places + y[:, None])))
    weighted = counts * passed
    return tl.maximum(tl.sum(weighted, 1), 1e-37), tl.sum(weighted * (1.0 - passed), 1)


@triton.jit
def _solve(
    group_counts, group_places, known_at, totals, rates, solutions, count, group_total, wanted,
    ROWS: tl.constexpr, GROUPS: tl.constexpr, HALVINGS: tl.constexpr,
):  # fmt: skip
    log_wanted = tl.log(wanted)
    rows, columns = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, GROUPS)
    row_mask = rows < count
    inside = row_mask[:, None] & (columns < group_total)[None, :]
    offsets = rows.to(tl.int64)[:, None] * group_total + columns[None, :]
    n = tl.load(group_counts + offsets, mask=inside, other=0.0)
    x = tl.load(group_places + offsets, mask=inside, other=0.0)
    start = tl.load(known_at + rows, mask=row_mask, other=0.0)
    known = start == start
    start = tl.where(known, start, 0.0)
    measured = tl.maximum(tl.load(totals + rows, mask=row_mask, other=1.0), 1e-37)
    rate = tl.load(rates + rows, mask=row_mask, other=1.0) / measured
    found, slope = _passing(n, x, start)
    factor = tl.where(known, tl.log(measured / found), 0.0)
    tilt = tl.where(known, rate - slope / found, 0.0)
    # No sigmoid is above its exponential, and where all groups are far above, nearly all labels pass.
    margin = 2.0 * (1.0 + tl.abs(factor))
    logarithms = tl.where(n > 0.0, tl.log(n) + x, float("-inf"))
    highest = tl.max(logarithms, 1)
    low = log_wanted - highest - tl.log(tl.sum(tl.exp(logarithms - highest[:, None]), 1))
    high = tl.maximum(low, log_wanted + 3.0 - tl.min(tl.where(n > 0.0, x, float("inf")), 1)) + margin
    low -= margin
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        value, slope = _passing(n, x, middle)
        bent = tl.minimum(tl.maximum(tilt * (middle - start), -1.0), 1.0)
        below = tl.log(value) + factor + bent < log_wanted
        low = tl.where(below, middle, low)
        high = tl.where(below, high, middle)
    tl.store(solutions + rows, 0.5 * (low + high), mask=row_mask)


def solve(curve: PassingCurve, k: int, at: Tensor, total: Tensor, derivative: Tensor) -> Tensor:
    """See PassingCurve.solve; float32."""
    count, groups = curve.counts.shape
    out = curve.counts.new_empty(count)
    if count:
        _solve[(triton.cdiv(count, ROWS),)](
            group_counts=curve.counts.contiguous(),
            group_places=curve.places.contiguous(),
            known_at=at.contiguous(),
            totals=total.contiguous(),
            rates=derivative.contiguous(),
            solutions=out,
            count=count,
            group_total=groups,
            wanted=float(k),
            ROWS=ROWS,
            GROUPS=triton.next_power_of_2(groups),
            HALVINGS=32,
        )
    return out
