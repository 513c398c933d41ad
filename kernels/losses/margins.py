"""Margin losses on the hardest negatives, found by a streaming top-k over all labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xmc.errors import InputError, NotFiniteError
from xmc.kernels.devices import values_are_free
from xmc.kernels.losses.loss import LOSSES, Loss
from xmc.kernels.losses.rows import mean_over_rows, row_sum
from xmc.kernels.pairs import pair_scores
from xmc.kernels.positives import Positives, require_positives
from xmc.kernels.topk import topk_unchecked

__all__ = ["prototype_regularisation", "triplet_margin"]


def triplet_margin(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    *,
    k: int = 10,
    margins: tuple[float, float] = (0.1, 0.3),
    temperature: float = 0.1,
    exclude: Positives | None = None,
    impl: str | None = None,
) -> Tensor:
    """Triplet loss on the k hardest negatives of each query, with a margin that adapts and hard violators first.

    mean_i (1/|P_i|) Σ_{p∈P_i} Σ_n ω_pn v_pn with v_pn = max(0, s_in - s_ip + m_pn), where n runs over the k labels of largest
    s_in that are not positive, m_pn = clamp(|s_ip - s_in|, *margins) is a constant to the gradient, and ω_p. is the softmax of
    s_in / `temperature` over the violators (v_pn > 0). s_ij = q_i·z_j, cosines in the papers. A margin fixed at m is
    margins=(m, m). Relevance weights and rows without positives as in `decoupled_softmax`. The papers draw one positive a
    query and step; this is the expectation of that.

    Entries of pull y and push n: every entry of a push above 0 is a negative of the row's other positives too, beside the k
    hardest labels without an entry, and its terms count n times: n_n ω_pn v_pn. An entry of push 0 never is.

    queries [B, D], labels [L, D], positives, exclude, impl: as in `label_statistics`, with its errors. Returns a scalar.
    Raises InputError also for k < 1, margins that are not 0 ≤ least ≤ most, and a temperature that is not positive.
    Sources: Dahiya et al., Prototypical Extreme Multi-label Classification with a Dynamic Margin Loss (PRIME), NAACL 2025;
    online hard negatives and weights from Dahiya et al., NGAME, WSDM 2023.
    """
    least, most = margins
    if not (0 <= least <= most and temperature > 0):
        raise InputError(f"margins {margins} must be 0 <= least <= most, and temperature {temperature} positive.")
    negatives = _hardest(queries, labels, positives, k, exclude, impl)
    rows, exists = positives.rows, negatives.exists
    scores = pair_scores(
        queries,
        labels,
        torch.cat([rows, negatives.rows]),
        torch.cat([positives.indices.long(), negatives.labels]),
    )
    positive, candidate = scores[: len(rows), None], exists[rows]
    negative = torch.where(exists, scores[len(rows) :].view(exists.shape), -torch.inf)[rows]
    highest = negative[:, :1].detach()
    if positives.push is not None:
        places, is_other = _pushed_beside(positives, positives.push)
        beside = torch.where(is_other, scores[places], -torch.inf)
        negative, candidate = torch.cat([negative, beside], 1), torch.cat([candidate, is_other], 1)
        highest = negative.detach().amax(1, keepdim=True)
    margin = (positive - negative).detach().abs().clamp(least, most)
    violation = torch.where(candidate, (negative - positive + margin).clamp_min(0), 0.0)
    violators = violation > 0
    # Shifted by the row's largest score before masking, so that a row without violators has weights of zero, not NaN.
    shifted = torch.where(violators, negative - highest, 0.0) / temperature
    weights = torch.where(violators, shifted.exp(), 0.0)
    weights = weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    if positives.push is not None:
        push = torch.where(is_other, positives.push.to(weights)[places], 0.0)
        weights = weights * torch.cat([torch.ones_like(weights[:, : exists.shape[1]]), push], 1)
    return negatives.marked(mean_over_rows((weights * violation).sum(1), positives))


def prototype_regularisation(
    queries: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    positives: Positives,
    *,
    margin: float = 0.1,
    k: int = 10,
    exclude: Positives | None = None,
    impl: str | None = None,
) -> Tensor:
    """A label's prototype should beat its text embedding by a margin, on positives and on the hardest negatives.

    ½ mean⁺_{(i,p)} max(0, q_i·z_p - q_i·c_p + m) + ½ mean⁺_{(i,n)} max(0, q_i·c_n - q_i·z_n + m), where p runs over the
    positives of i, n over the k labels of largest q_i·c_n that are not positive, and mean⁺ is the mean over the terms that
    are not zero. Relevance weights are not used, but a positive of weight 0 does not count. An entry without a pull and with a
    push above 0 is one of the n, however it scores, in a row that has a positive; an entry with a pull is one of the p alone.

    queries [B, D]; labels z [L, D], from the text encoder alone; prototypes c [L, D], what the label network makes of them;
    positives, exclude, impl: as in `label_statistics`, with its errors. Returns a scalar.
    Source: Dahiya et al., Prototypical Extreme Multi-label Classification with a Dynamic Margin Loss (PRIME), NAACL 2025.
    """
    if prototypes.shape != labels.shape:
        raise InputError(f"prototypes {tuple(prototypes.shape)} must have the shape of labels {tuple(labels.shape)}.")
    negatives = _hardest(queries, prototypes, positives, k, exclude, impl)
    rows = torch.cat([positives.rows, negatives.rows])
    columns = torch.cat([positives.indices.long(), negatives.labels])
    lead = pair_scores(queries, prototypes, rows, columns) - pair_scores(queries, labels, rows, columns)
    first = len(positives.rows)
    pulled, pushed = (margin - lead[:first]).clamp_min(0), (margin + lead[first:]).clamp_min(0)
    pushed = torch.where(negatives.exists.flatten(), pushed, 0.0)
    if positives.weights is not None:
        pulled = torch.where(positives.weights > 0, pulled, 0.0)
        if positives.push is not None:
            rejected = (positives.weights == 0) & (positives.push > 0) & _counted(positives)[positives.rows]
            pushed = torch.cat([pushed, torch.where(rejected, (margin + lead[:first]).clamp_min(0), 0.0)])
    return negatives.marked((_mean_of_nonzero(pulled) + _mean_of_nonzero(pushed)) / 2)


@dataclass(frozen=True)
class _Negatives:
    """The k' hardest negatives of each query, or label 0 where there is none.

    exists: bool [B, k'], whether there is one, of a query that counts. rows, labels: int64 [B·k']. sound: bool [], whether the
    scores that they were chosen by were numbers.
    """

    exists: Tensor
    rows: Tensor
    labels: Tensor
    sound: Tensor

    def marked(self, loss: Tensor) -> Tensor:
        """The loss, NaN where NaN was among the scores of all labels."""
        return torch.where(self.sound, loss, torch.nan)


def _hardest(
    queries: Tensor, labels: Tensor, positives: Positives, k: int, exclude: Positives | None, impl: str | None
) -> _Negatives:
    """The k hardest negatives of each query, by a search over all labels."""
    if k < 1:
        raise InputError(f"k must be at least 1, but is {k}.")
    require_positives(positives, "positives")
    positives.check(len(queries), len(labels))
    if exclude is not None:
        require_positives(exclude, "exclude")
        exclude.check(len(queries), len(labels), "exclude")
    left_out = positives.joined(exclude, len(labels))
    scores, chosen = topk_unchecked(queries.detach(), labels.detach(), k, exclude=left_out, impl=impl)
    sound = ~scores.isnan().any()
    if values_are_free(scores) and not bool(sound):
        raise NotFiniteError("queries or labels hold NaN, or infinities that cancel, which cannot be ranked.")
    exists = (chosen >= 0) & _counted(positives)[:, None]
    rows = torch.arange(len(queries), device=chosen.device)[:, None].expand_as(chosen)
    return _Negatives(exists, rows.flatten(), chosen.clamp_min(0).flatten(), sound)


def _counted(positives: Positives) -> Tensor:
    """Which rows have an entry with a pull, bool [B]."""
    if positives.weights is None:
        return positives.counts > 0
    return row_sum(positives.weights, positives) > 0


def _pushed_beside(positives: Positives, push: Tensor) -> tuple[Tensor, Tensor]:
    """For each entry the entries of its row: places [nnz, W], and which are others that have a push, bool [nnz, W]."""
    rows, count = positives.rows, len(push)
    numbers = torch.arange(positives.widest, device=push.device)
    places = (positives.indptr[:-1][rows][:, None] + numbers).clamp_max(max(count - 1, 0))
    is_inside = numbers < positives.counts[rows][:, None]
    is_other = places != torch.arange(count, device=push.device)[:, None]
    return places, is_inside & is_other & (push > 0)[places]


def _mean_of_nonzero(terms: Tensor) -> Tensor:
    return terms.sum() / (terms > 0).sum().clamp_min(1)


LOSSES.register("triplet_margin", Loss(triplet_margin, takes_temperature=False, splits_labels=False))
