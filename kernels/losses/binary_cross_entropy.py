"""One-vs-all binary cross-entropy over all labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xmc.errors import InputError
from xmc.kernels.devices import values_are_free
from xmc.kernels.losses.loss import LOSSES, Loss
from xmc.kernels.losses.rows import Options, label_count, mean_over_counted_rows, row_sum, weights_of
from xmc.kernels.positives import Positives
from xmc.kernels.reductions import Softplus
from xmc.kernels.row_statistics import row_statistics
from xmc.kernels.softplus import softplus

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["binary_cross_entropy"]


def binary_cross_entropy(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor = 0.05,
    *,
    propensities: Tensor | None = None,
    bound: bool = False,
    **options: Unpack[Options],
) -> Tensor:
    """Every label its own yes-or-no question, summed over labels, averaged over queries.

    mean_i [ Σ_j ℓ⁻(s_ij) + Σ_e (n_ie - 1) ℓ⁻(s_ie) + y_ie ℓ⁺(s_ie) ], ℓ⁻(s) = softplus(s), ℓ⁺(s) = softplus(-s), with
    s_ij = q_i·z_j / τ + b_j, and y, n the pull and push of the row's entries. The sum over all labels streams; the entries
    correct it sparsely. A row without positives (or with a pull of sum 0) does not count.

    A positive without a push (n_e = 0 < y_e, or no push given at all) has the target y_e, its relevance weight, 1 where there
    are none: n_e is 1 - y_e for it, so that it contributes ℓ⁻(s) - y s.

    propensities: optional [L], in (0, 1], the probability p that a relevant label was marked as one. Each positive without a
    push then has the target y/p: y/p · ℓ⁺ + (1 - y/p) · ℓ⁻, an unbiased estimate of the loss on complete marks. It is
    convex, for ℓ⁺(s) - ℓ⁻(s) is -s, but not bounded from below: a positive of small propensity is pulled without end, so
    keep scores bounded. Entries with a push, and those without a pull, stay as they are: they tell what is known of a pair.
    bound: take a bound of it that is bounded from below: a target a = y/p above 1 has the pull 2a - 1 and the push 0. The
    unbiased 0-1 loss is a [s < 0] + (1 - a) [s ≥ 0] = (2a - 1) [s < 0] + 1 - a, and ℓ⁺ / log 2 bounds [s < 0]. Needs
    propensities.
    Sources: Qaraei et al., Convex Surrogates for Unbiased Loss Functions in Extreme Classification with Missing Labels, WWW
    2021, whose idea the bound of the unbiased 0-1 loss is (the formula is derived here); propensities of Jain et al., KDD 2016.

    Other arguments and errors as in `decoupled_softmax`; InputError also for propensities outside of (0, 1]. On a GPU those are
    not looked for: the loss of a positive that has one is NaN.
    """
    if bound and propensities is None:
        raise InputError("bound needs propensities, whose unbiased loss it bounds.")
    if propensities is not None:
        propensities = _checked(propensities, label_count(labels, options))
    total, _, scores = row_statistics(Softplus(), queries, labels, positives, temperature, **options)
    given = weights_of(positives, scores)
    # Of an entry there is y s to take off and (n + y - 1) ℓ⁻ to add, `excess`, which is 0 for a positive without a push.
    targets, excess = given, None
    if propensities is not None:
        targets = given / propensities.to(given)[positives.indices.long()]
        if bound:
            above = (targets - 1).clamp_min(0)
            targets, excess = targets + above, 2 * above
    if positives.push is not None:
        push = positives.push.to(scores)
        plain = (push == 0) & (given > 0)
        targets = torch.where(plain, targets, given)
        excess = torch.where(plain, 0.0 if excess is None else excess, push + given - 1)
    terms = targets * scores
    if excess is not None:
        terms = terms - excess * softplus(scores)
    return mean_over_counted_rows(total - row_sum(terms, positives), positives)


def _checked(propensities: Tensor, count: int) -> Tensor:
    """The propensities of `count` labels; on a device NaN for those that are none, elsewhere InputError."""
    if propensities.shape != (count,):
        raise InputError(f"propensities must have shape ({count},), not {tuple(propensities.shape)}.")
    allowed = (propensities > 0) & (propensities <= 1)
    if not values_are_free(propensities):
        return torch.where(allowed, propensities, torch.nan)
    if not bool(allowed.all()):
        raise InputError("propensities must be in (0, 1].")
    return propensities


LOSSES.register("binary_cross_entropy", Loss(binary_cross_entropy, over_all_labels=True))
