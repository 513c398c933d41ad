"""Soft top-k: the probability that a positive is among the k best, with a threshold that each query solves for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from xmc.errors import InputError
from xmc.kernels.budget import tile_budget
from xmc.kernels.entries import Entries
from xmc.kernels.losses.loss import LOSSES, Loss
from xmc.kernels.losses.rows import Options, label_count, mean_over_rows
from xmc.kernels.positives import Positives, require_positives
from xmc.kernels.reductions import Sigmoid
from xmc.kernels.row_statistics import row_statistics, temperature_of
from xmc.kernels.topk import topk_inner_product
from xmc.kernels.torch_topk import DEFAULT_TILE_BYTES as TOPK_TILE_BYTES

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["soft_topk"]

PRECISE_PASSES = 4
"""Largest number of passes that a float64 threshold takes beyond those of a float32 one."""

PRECISE_STEP = 1e-8
"""A float64 threshold that moves by less, in units of 1/slope, is exact to rounding after one more step."""


def soft_topk(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor = 0.05,
    *,
    k: int = 5,
    slope: float = 2.0,
    threshold: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Soft top-k loss: positives should be among the k labels that pass a smooth threshold.

    -mean_i (1/|P_i|) Σ_{p∈P_i} log σ(α (s_ip + t_i)), where t_i solves Σ_j σ(α (s_ij + t_i)) = k over all labels, and
    s_ij = q_i·z_j / τ + b_j. t_i is differentiated implicitly. Relevance weights and rows without positives as in
    `decoupled_softmax`, and all other arguments and errors too.

    k: number of labels that pass, 1 ≤ k < L. slope: α > 0.
    threshold: optional float tensor [B], the solution of an earlier step for these queries, NaN where there is none; it is
        overwritten with this step's. A start near the solution saves passes over the scores.

    The threshold costs at most four passes, the last one the forward pass proper: the best 16·k labels give a first
    guess; each further pass measures the sum and its derivative at the guess, and the next guess solves for the sum over the
    best labels, exactly, plus an exponential for all others that fits both measurements. Four passes are enough for float32;
    in float64 up to four more take the threshold, and with it the gradient, to the rounding of float64.

    Raises InputError for k or slope out of range, and for a threshold of another shape.
    Source: Gupta et al., Dual-encoders for Extreme Multi-label Classification, ICLR 2024, section 4.3, whose code bisects in
    32 passes.
    """
    count = label_count(labels, options)
    if not 1 <= k < count:
        raise InputError(f"k must be at least 1 and less than the {count} labels, but is {k}.")
    if not 0 < slope < math.inf:
        raise InputError(f"slope must be positive, but is {slope}.")
    if threshold is not None and threshold.shape != (len(queries),):
        raise InputError(f"threshold must have shape ({len(queries)},), not {tuple(threshold.shape)}.")
    require_positives(positives, "positives")
    exclude = options.get("exclude")
    if exclude is not None:
        require_positives(exclude, "exclude")
        positives.check(len(queries), count)
        exclude.check(len(queries), count, "exclude")
        options["exclude"] = Entries.of(positives, exclude, count).excluded
    search = _Search(queries.detach(), labels.detach(), temperature, k, slope, options)
    with torch.no_grad():
        start, best = search.run(threshold)
    total, derivative, positive_scores = search.measure(start, queries, labels, temperature, positives)
    with torch.no_grad():
        solution = search.improve(start, total, derivative, best)
        if threshold is not None:
            threshold.copy_(solution)
    # The implicit function's gradient: dt = -dF / F'.
    change = (total - total.detach()) / derivative.clamp_min(torch.finfo(total.dtype).tiny)
    passed = slope * (positive_scores + (solution - change)[positives.rows])
    return mean_over_rows(-logsigmoid(passed), positives)


class _Search:
    """Finds thresholds near enough for one last improvement, in at most three passes over scores of float32."""

    def __init__(
        self, queries: Tensor, labels: Tensor, temperature: float | Tensor, k: int, slope: float, options: Options
    ) -> None:
        self.queries, self.labels, self.k, self.slope, self.options = queries, labels, k, slope, options
        self.count = label_count(labels, options)
        self.temperature = temperature_of(temperature)

    def run(self, known: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Thresholds [B] and, where it took them, the best scores; from `known` thresholds if all are at hand and near."""
        guess, best = self._approach(known)
        if guess.dtype == torch.float64:
            for _ in range(PRECISE_PASSES):
                before, guess = guess, self.improve(guess, *self.measure(guess)[:2], best)
                # The error after a step is of the order of the square of the step.
                if not len(guess) or self.slope * float((guess - before).abs().max()) < PRECISE_STEP:
                    break
        return guess, best

    def _approach(self, known: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The same, as near as at most three passes bring it."""
        if known is None or bool(known.isnan().any()):
            best = self._best(16 * self.k)
            guess = self._solve(best)
            guess = self.improve(guess, *self.measure(guess)[:2], best)
            return self.improve(guess, *self.measure(guess)[:2], best), best
        guess = known.to(torch.promote_types(self.queries.dtype, torch.float32))
        total, derivative, _ = self.measure(guess)
        near = self.improve(guess, total, derivative)
        distance = self.slope * float((near - guess).abs().max()) if len(guess) else 0.0
        if distance < 0.5:
            return near if distance < 1e-3 else self.improve(near, *self.measure(near)[:2]), None
        # One pass fewer is left than from nothing, so more of the best labels are looked at. Without the rest they give
        # an upper bound; from a start below it, the rest is nearly an exponential.
        best = self._best(64 * self.k)
        bound = self._solve(best)
        guess = torch.where(total < self.k, self._solve(best, guess, total, derivative), guess).minimum(bound)
        return self.improve(guess, *self.measure(guess)[:2], best), best

    def measure(
        self,
        guess: Tensor,
        queries: Tensor | None = None,
        labels: Tensor | None = None,
        temperature: float | Tensor | None = None,
        positives: Positives | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The sum of sigmoids at the guess, its derivative, and the scores of the positives: one pass."""
        return row_statistics(
            Sigmoid(guess, self.slope),
            self.queries if queries is None else queries,
            self.labels if labels is None else labels,
            Positives.none(len(self.queries), self.queries.device) if positives is None else positives,
            self.temperature if temperature is None else temperature,
            **self.options,
        )

    def improve(self, guess: Tensor, total: Tensor, derivative: Tensor, best: Tensor | None = None) -> Tensor:
        """A better guess from a measurement: from the best scores, or else by Newton's method on the sum's logarithm.

        Where the sum is flat, rounding in it must not move the threshold, so a step has an end.
        """
        if best is not None:
            return self._solve(best, guess, total, derivative)
        tiny = torch.finfo(total.dtype).tiny
        step = (total / self.k).clamp_min(tiny).log() * total / derivative.clamp_min(tiny)
        return guess - step.clamp(-2 / self.slope, 2 / self.slope)

    def _best(self, count: int) -> Tensor:
        """The scores of the best labels of each query: one pass."""
        bias, exclude = self.options.get("label_bias"), self.options.get("exclude")
        shard = self.options.get("shard")
        if shard is not None:
            bias = None if bias is None else bias[shard.label_range(len(self.labels))]
            exclude = None if exclude is None else shard.pairs_inside(exclude, len(self.labels))[0]
        count = min(count, self.count)
        scores, _ = topk_inner_product(
            self.queries,
            self.labels,
            count,
            label_bias=None if bias is None else bias.detach() * self.temperature,
            exclude=exclude,
            tile_bytes=min(tile_budget(self.options.get("tile_bytes", "auto"), self.queries.device), TOPK_TILE_BYTES),
            impl=self.options.get("impl"),
        )
        return (scores if shard is None else shard.best(scores, count)) / self.temperature

    def _solve(
        self, best: Tensor, guess: Tensor | None = None, total: Tensor | None = None, derivative: Tensor | None = None
    ) -> Tensor:
        """The t with Σ_best σ(α (s + t)) + R exp(ρ (t - guess)) = k; R, ρ from a measurement at `guess`, else R = 0."""
        slope, k = self.slope, self.k
        best = best.clamp_min(-1e30)  # where there are fewer labels, -inf; where no more than k, all of them pass
        low, high = -best[:, 0] - 60 / slope, -best[:, -1] + 60 / slope
        high = torch.where(best[:, -1] == -1e30, 60 / slope - best[:, min(k, best.shape[1] - 1)], high)
        rest = rate = origin = torch.zeros_like(low)
        if guess is not None and total is not None and derivative is not None:
            near = torch.sigmoid(slope * (best + guess[:, None]))
            rest = (total - near.sum(1)).clamp_min(torch.finfo(best.dtype).tiny)
            rate = (derivative - slope * (near * (1 - near)).sum(1)) / rest
            rate = rate.clamp(0.05 * slope, slope)
            origin = guess
            low = torch.minimum(low, guess + (0.5 * k / rest).log() / rate)
        others = self.count - best.shape[1]  # the exponential is capped by their number
        for _ in range(64 if best.dtype == torch.float64 else 32):
            middle = (low + high) / 2
            sigmoids = torch.sigmoid(slope * (best + middle[:, None])).sum(1)
            above = sigmoids + (rest * (rate * (middle - origin)).clamp_max(80).exp()).clamp_max(others) >= k
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2


LOSSES.register("soft_topk", Loss(soft_topk, over_all_labels=True))
