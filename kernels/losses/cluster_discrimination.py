"""Multi-label cluster discrimination: positives and negatives of a query in two separate terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from xmc.kernels.losses.loss import LOSSES, Loss
from xmc.kernels.losses.pushes import logaddexp, pushed_scores
from xmc.kernels.losses.rows import Options, mean_over_counted_rows, row_logsumexp, weights_of
from xmc.kernels.positives import Positives
from xmc.kernels.softplus import softplus
from xmc.kernels.statistics import label_statistics

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["multi_label_cluster_discrimination"]


def multi_label_cluster_discrimination(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor = 0.05,
    *,
    log_inclusion: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Negatives are pushed below zero, positives pulled above it, without being set against each other.

    mean_i [ log(1 + Σ_{j∉P_i} exp(s_ij)) + log(1 + Σ_{p∈P_i} w_p exp(-s_ip)) ], s_ij = q_i·z_j / τ + b_j, w the relevance
    weights, 1 where there are none. A row without positives (or with weights of sum 0) does not count.

    Entries of pull y and push n add n_e exp(s_ie) / π_e to the first sum (π as in `decoupled_softmax`), and y_e exp(-s_ie) to
    the second: an uncertain pair is in both.

    Arguments, errors and result as in `decoupled_softmax`; the sampled negatives of `log_inclusion` are those of the paper.
    Source: An et al., Multi-label Cluster Discrimination for Visual Representation Learning, ECCV 2024.
    """
    negative_logsumexp, positive_scores = label_statistics(
        queries, labels, positives, temperature, log_inclusion=log_inclusion, **options
    )
    if positives.push is not None:
        pushed = pushed_scores(positives, positives.push, positive_scores, log_inclusion)
        negative_logsumexp = logaddexp(negative_logsumexp, row_logsumexp(pushed, positives))
    pulled = weights_of(positives, positive_scores).log() - positive_scores
    values = softplus(negative_logsumexp) + softplus(row_logsumexp(pulled, positives))
    return mean_over_counted_rows(values, positives)


LOSSES.register("multi_label_cluster_discrimination", Loss(multi_label_cluster_discrimination))
