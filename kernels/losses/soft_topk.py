"""Soft top-k: the probability that a positive is among the k best, with a threshold that each query solves for."""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from xmc.errors import InputError
from xmc.kernels.devices import values_are_free
from xmc.kernels.dispatch import choose_backend
from xmc.kernels.entries import flagged_pairs
from xmc.kernels.losses.loss import LOSSES, Loss
from xmc.kernels.losses.passing import PassingCurve
from xmc.kernels.losses.rows import Options, label_count, mean_over_rows
from xmc.kernels.positives import Positives, require_positives
from xmc.kernels.reductions import Sigmoid
from xmc.kernels.row_statistics import block_moments, row_statistics

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["soft_topk"]

CPU_PASSES = 3
"""Largest number of passes before the last that a threshold takes on a CPU."""

PRECISE_PASSES = 7
"""The same for float64."""

NEAR = 0.03
"""A threshold that moves by less, in units of 1/slope, is good to some 1e-5 of them, and exact after one more step."""

PRECISE_STEP = 1e-8
"""A float64 threshold that moves by less, in units of 1/slope, is exact to rounding after one more step."""

FAR = 5.0
"""A threshold too high by more, in units of 1/slope, says little about the solution."""

GROUPS, LEAST_GROUPS = 4, 64
"""The blocks of labels that are kept apart: 4·k, and at least 64."""

ALL_PASS = 1e30
"""The threshold of a row with no more than k labels."""


def soft_topk(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor = 0.05,
    *,
    k: int = 5,
    slope: float = 2.0,
    threshold: Tensor | None = None,
    warm: bool | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Soft top-k loss: positives should be among the k labels that pass a smooth threshold.

    -mean_i (1/|P_i|) Σ_{p∈P_i} log σ(α (s_ip + t_i)), where t_i solves Σ_j σ(α (s_ij + t_i)) = k over all labels, and
    s_ij = q_i·z_j / τ + b_j. t_i is differentiated implicitly. Relevance weights and rows without positives as in
    `decoupled_softmax`, and all other arguments and errors too.

    Entries of pull y and push n: every label that is not excluded takes its place among the k, as often as any other; that is
    a push of 1. What a push has above 1 is a cross-entropy to not passing: Σ_e max(0, n_e - 1) · -log σ(-α (s_ie + t_i)) is
    added to Σ_e y_e · -log σ(α (s_ie + t_i)), both over Σ_e y_e. A push of at most 1 changes nothing, nor does any where no
    more than k labels are left.

    k: number of labels that pass, 1 ≤ k < L. slope: α > 0.
    threshold: optional float tensor [B], the solution of an earlier step for these queries, NaN where there is none; it is
        overwritten with this step's. A start near the solution saves a pass over the scores.

    On a device the passes over the scores that find thresholds are a fixed number, so that nothing waits for a value: two
    from nothing and one from known thresholds, before the forward pass proper; one more each in float32, and
    PRECISE_PASSES in float64. On a CPU, passes end as soon as thresholds are near enough, and far ones take more.
    Each pass measures blocks of labels, draws a curve of what passes and solves it; the forward pass improves the last
    solution once more. Rows with NaN begin from nothing.

    warm: whether every row of `threshold` is known, which decides how many passes there are on a device; by default it is
        looked up on a CPU and False elsewhere. A row that is NaN all the same is solved as well as those passes can; one
        that is far too high is NaN afterwards, where it has not come near the solution.

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
    search = _Search(queries.detach(), labels.detach(), positives, temperature, k, slope, options)
    start, curve, lost = search.run(threshold, warm)
    total, derivative, positive_scores = row_statistics(
        Sigmoid(start, slope), queries, labels, positives, temperature, **options
    )
    with torch.no_grad():
        solution = search.solve(curve, start, total, derivative)
        if threshold is not None:
            threshold.copy_(torch.where(lost, torch.nan, solution))
    # The implicit function's gradient: dt = -dF / F'.
    change = (total - total.detach()) / derivative.clamp_min(torch.finfo(total.dtype).tiny)
    passed = slope * (positive_scores + (solution - change)[positives.rows])
    pushed = None
    if positives.push is not None:
        above = (positives.push.to(passed) - 1).clamp_min(0)
        pushed = torch.where(search.all_pass[positives.rows], 0.0, above * -logsigmoid(-passed))
    return mean_over_rows(-logsigmoid(passed), positives, pushed)


class _Search:
    """Finds thresholds near enough for one last improvement."""

    def __init__(
        self,
        queries: Tensor,
        labels: Tensor,
        positives: Positives,
        temperature: float | Tensor,
        k: int,
        slope: float,
        options: Options,
    ) -> None:
        self.queries, self.labels, self.positives, self.options = queries, labels, positives, options
        self.temperature, self.k, self.slope = temperature, k, slope
        self.dtype = torch.promote_types(queries.dtype, torch.float32)
        self.all_pass = _counted(positives, options.get("exclude"), label_count(labels, options)) <= k

    @torch.no_grad()
    def run(self, known: Tensor | None, warm: bool | None) -> tuple[Tensor, PassingCurve, Tensor]:
        """Thresholds [B], the curve that they solve, and bool [B], true where a threshold is not to be trusted."""
        guess = torch.full((len(self.queries),), torch.nan, dtype=self.dtype, device=self.queries.device)
        if known is not None:  # one of a row where all labels passed says nothing
            known = known.to(self.dtype)
            guess = torch.where(known.abs() < ALL_PASS / 2, known, guess)
        on_cpu = values_are_free(guess)
        for left in range(self._passes(known is not None and bool(warm), on_cpu) - 1, -1, -1):
            before, (guess, curve) = guess, self._step(guess)
            # So far too high that most of what passed was alike: such a row begins from nothing.
            lost = self.slope * (before - guess) > FAR
            if not left or (on_cpu and self._near(before, guess)):
                break
            guess = torch.where(lost, torch.nan, guess)
        return guess, curve, lost

    def _passes(self, warm: bool, on_cpu: bool) -> int:
        """How many passes there are at most before the last."""
        if self.dtype == torch.float64:
            return PRECISE_PASSES
        if on_cpu:
            return CPU_PASSES
        return 2 - warm + (self.queries.dtype == torch.float32)

    def _near(self, before: Tensor, after: Tensor) -> bool:
        """Whether a last step from `after` is exact enough, since the one from `before` was short."""
        farthest = self.slope * (after - before).abs().nan_to_num_(torch.inf).max() if len(after) else 0.0
        return bool(farthest < (PRECISE_STEP if self.dtype == torch.float64 else NEAR))

    def _step(self, guess: Tensor) -> tuple[Tensor, PassingCurve]:
        """Better thresholds from a pass over the scores at `guess`."""
        shard = self.options.get("shard")
        values, seconds = block_moments(
            Sigmoid(guess, self.slope),
            self.queries,
            self.labels,
            self.positives,
            self.temperature,
            label_bias=self.options.get("label_bias"),
            exclude=self.options.get("exclude"),
            tile_bytes=self.options.get("tile_bytes", "auto"),
            impl=self.options.get("impl"),
            shard=shard,
        )
        groups = max(LEAST_GROUPS, GROUPS * self.k)
        curve, total, derivative = PassingCurve.of(values, seconds, self.slope * guess, self.k + 1, groups, shard)
        return self.solve(curve, guess, total, self.slope * derivative), curve

    def solve(self, curve: PassingCurve, guess: Tensor, total: Tensor, derivative: Tensor) -> Tensor:
        """The thresholds where the curve, brought to agree with a measurement at `guess`, is k."""
        solve = PassingCurve.solve
        if choose_backend(self.options.get("impl"), self.queries) == "triton":
            solve = importlib.import_module("xmc.kernels.triton_tiles.curves").solve
        solution = solve(curve, self.k, self.slope * guess, total, derivative / self.slope) / self.slope
        return torch.where(self.all_pass, ALL_PASS, solution)


def _counted(positives: Positives, exclude: Positives | None, labels: int) -> Tensor:
    """The number of labels that count for each query, int64 [B]."""
    rows, _, slots = flagged_pairs(positives, exclude, labels)
    left = torch.full((len(positives),), labels, device=rows.device)
    return left.index_add(0, rows, (slots < 0).long(), alpha=-1)


LOSSES.register("soft_topk", Loss(soft_topk, over_all_labels=True))
