"""The log-sum-exp over a row's negatives, which the softmax family is made of."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.reductions.reduction import REDUCTIONS, Combined, Reduction, Sums

__all__ = ["LogSumExp"]


class LogSumExp(Reduction):
    """N_i = log Σ_j exp(s_ij) over the labels that are not positive; -inf for a row without any."""

    takes_positives = False
    logarithmic = True
    device_module = "xmc.kernels.triton_tiles.reductions.log_sum_exp"

    def add(self, sums: Sums, block: slice, scores: Tensor) -> Tensor:
        """Weights exp(s_ij - m_i), with the running maximum m_i; the rescaling of Milakov and Gimelshein (2018)."""
        highest = torch.maximum(sums.maximum[block], scores.amax(1))
        # A row of positives only has no finite maximum; any finite shift keeps its exponentials at zero.
        base = _finite(highest)
        rescale = (sums.maximum[block] - base).exp_()
        scores.sub_(base[:, None]).exp_()
        sums.value[block] = sums.value[block] * rescale + scores.sum(1)
        sums.maximum[block] = highest
        return rescale

    def finish(self, sums: Sums, weighted: Tensor | None) -> Tensor:
        """The log-sum-exp; `weighted` becomes the mean of the label embeddings under the softmax."""
        if weighted is not None:
            weighted /= sums.value.clamp_min(torch.finfo(weighted.dtype).tiny)[:, None]
        return sums.value.log() + _finite(sums.maximum)

    def gradient(self, value: Tensor, block: slice, scores: Tensor) -> Tensor:
        """The softmax over the negatives, exp(s_ij - N_i)."""
        return scores.sub_(_finite(value[block])[:, None]).exp_()

    def gradient_into(self, value: Tensor, block: slice, scores: Tensor, out: Tensor) -> Tensor:
        """The exponential is written to `out` at once."""
        return torch.exp(scores.sub_(_finite(value[block])[:, None]), out=out)

    def combine(self, values: Tensor, derivatives: Tensor | None) -> Combined:
        """The log-sum-exp of the parts'."""
        base = _finite(values.amax(0)) if len(values) else values.sum(0)
        total = values.sub_(base).exp_().sum(0)
        return Combined(total.log() + base, torch.zeros_like(total))

    def combine_gradient(self, value: Tensor, total: Tensor) -> Tensor:
        """The softmax of the part among all parts."""
        return (value - _finite(total)).exp()

    def row_constant(self, value: Tensor) -> Tensor:
        """N_i, and 0 where it is -inf."""
        return _finite(value)

    def reference(self, scores: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """torch.logsumexp of the scores that count."""
        zeros = scores.detach().new_zeros(len(scores))
        value = zeros - torch.inf
        # A row without negatives is cut out before the reduction: the gradient of logsumexp over nothing is NaN.
        some = counted.any(1)
        if scores.shape[1]:
            value = value.masked_scatter(some, scores.masked_fill(~counted, -torch.inf)[some].logsumexp(1))
        return value, zeros


def _finite(logarithms: Tensor) -> Tensor:
    """The same with 0 in place of -inf, to be subtracted without making NaN."""
    return torch.where(logarithms == -torch.inf, 0.0, logarithms)


REDUCTIONS.register("log_sum_exp", LogSumExp)
