"""How many labels pass a threshold, as a curve of the threshold: drawn from one pass over the scores, and solved."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from xmc.kernels.shards import LabelShard

__all__ = ["PassingCurve"]

PIECES, LEVELS = 8, 5
"""Pieces that the bracket of a solution is cut into, and how often."""

POLISHES = {torch.float32: 2, torch.float64: 4}
"""Newton's steps after that, until the solution is exact to rounding."""

MARGIN = 3.0
"""exp(-MARGIN) of what must pass may be missing at the upper end of a bracket."""


@dataclass(frozen=True)
class PassingCurve:
    """F(y) = Σ_m n_m σ(x_m + y), the labels that pass at y = α t: some groups of n_m equal labels that stand for all.

    Two moments fix a group: those of the sigmoids of its labels at one y, or, where that is not known, at y -> -∞. There the
    curve has the true value and derivative; a group of one label, and one of equals, is exact everywhere. counts, places:
    n and x [B, M], x finite.
    """

    counts: Tensor
    places: Tensor

    @classmethod
    def of(
        cls, values: Tensor, seconds: Tensor, at: Tensor, least: int, groups: int, shard: LabelShard | None = None
    ) -> tuple[PassingCurve, Tensor, Tensor]:
        """The curve, and F and F' [B] at y, from the `block_moments` [blocks, B] at y [B], NaN for y -> -∞.

        The `groups` blocks in which most passes remain groups, and the others are one. There are at least `least` labels.
        """
        values, seconds = _largest(values.T, seconds.T, groups)
        if shard is not None:
            values, seconds = _largest(shard.beside(values, groups + 1), shard.beside(seconds, groups + 1), groups)
        empty = values == -torch.inf
        log_counts = torch.where(empty, -torch.inf, 2 * values - seconds)
        # The logarithm of a label's exponential, or of its sigmoid σ(x + y), which gives x.
        weight = torch.where(empty, 0.0, seconds - values)
        share = weight.clamp_max(-torch.finfo(values.dtype).eps)
        logit = share - torch.log(-torch.expm1(share))
        places = torch.where(at.isnan()[:, None], weight, logit - torch.nan_to_num(at)[:, None])
        # Two moments may stand for fewer labels than there are.
        missing = (math.log(least) - log_counts.logsumexp(1, keepdim=True)).clamp(0, math.log(least))
        curve = cls((log_counts + missing).exp(), torch.where(empty, 0.0, places - missing))
        total = values.exp().sum(1)
        return curve, total, total - seconds.exp().sum(1)

    def passing(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """F and its derivative at y [B, G], [B, G] each."""
        passed = torch.sigmoid(self.places[:, None] + y[:, :, None])
        weighted = self.counts[:, None] * passed
        return weighted.sum(2), weighted.mul_(passed.neg_().add_(1)).sum(2)

    def solve(self, k: int, at: Tensor, total: Tensor, derivative: Tensor) -> Tensor:
        """y [B] where F, brought to agree with a measurement F, F' [B] at y = `at` [B], is k; NaN for no measurement."""
        tiny = torch.finfo(total.dtype).tiny
        known = ~at.isnan()
        at = torch.nan_to_num(at)
        found, slope = (part[:, 0].clamp_min(tiny) for part in self.passing(at[:, None]))
        total = total.clamp_min(tiny)
        factor = torch.where(known, (total / found).log(), 0.0)[:, None]
        tilt = torch.where(known, derivative / total - slope / found, 0.0)[:, None]

        def excess(y: Tensor) -> tuple[Tensor, Tensor]:
            """log F - log k and its derivative."""
            value, slope = (part.clamp_min(tiny) for part in self.passing(y))
            bent = tilt * (y - at[:, None])
            return value.log() + factor + bent.clamp(-1, 1) - math.log(k), slope / value + tilt * (bent.abs() < 1)

        low, high = self._bracket(k, 1 + factor.abs())
        steps = torch.arange(1, PIECES, device=at.device) / PIECES
        width = high - low
        for _ in range(LEVELS):
            below = (excess(low + width * steps)[0] < 0).sum(1, keepdim=True)
            width = width / PIECES
            low = low + below * width
        y = low + width / 2
        for _ in range(POLISHES[y.dtype]):
            value, slope = excess(y)
            step = (value / slope.clamp_min(tiny)).minimum(width).maximum(-width)
            y = y - step
        return y[:, 0]

    def _bracket(self, k: int, margin: Tensor) -> tuple[Tensor, Tensor]:
        """Both ends [B, 1] of where F, times at most exp(±margin), is k."""
        # No sigmoid is above its exponential.
        low = math.log(k) - (self.counts.log() + self.places).logsumexp(1, keepdim=True)
        order = self.places.sort(dim=1, descending=True)
        counts = self.counts.gather(1, order.indices).cumsum(1)
        enough = counts[:, -1:].mul(1 - 1e-5).clamp_max(2 * k)
        last = (counts < enough).sum(1, keepdim=True).clamp_max(counts.shape[1] - 1)
        high = math.log(k) + MARGIN - order.values.gather(1, last)
        return low - 2 * margin, torch.maximum(low, high) + 2 * margin


def _largest(values: Tensor, seconds: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` columns with the largest values [B, N] in each row, and one more for the sum of all others."""
    if values.shape[1] <= count + 1:
        return values, seconds
    best, chosen = values.topk(count, dim=1)
    rest = [part.scatter(1, chosen, -torch.inf).logsumexp(1, keepdim=True) for part in (values, seconds)]
    return torch.cat([best, rest[0]], 1), torch.cat([seconds.gather(1, chosen), rest[1]], 1)
