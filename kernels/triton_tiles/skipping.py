"""Which tiles of the gradient matter: those without which a row loses more than rounding takes from it anyway."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["active_tiles", "label_order"]


def label_order(queries: Tensor, labels: Tensor) -> Tensor:
    """Labels by falling mean score, int64 [L]: what many rows give weight to stands together, in few tiles.

    As the vocabulary order of Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models, ICLR 2025.
    """
    mean = queries.float().mean(0).to(labels.dtype)
    return torch.mv(labels, mean).argsort(descending=True, stable=True)


def active_tiles(
    masses: Tensor | None, row_gradient: Tensor, occupied: Tensor, rows: int, dtype: torch.dtype
) -> Tensor:
    """Bool [row blocks, label tiles], the tiles that have to be computed.

    masses: [label tiles, B], the share of each tile in the row's sum of weights, or None if nothing may be skipped.
    row_gradient: [B]; a row of gradient zero asks for nothing. occupied: bool [row blocks, label tiles], the tiles that
    hold special pairs. rows: queries of a row block. dtype: of the embeddings.

    Of each row the lightest tiles are left out, as many as weigh at most ε/4 together, ε the distance from 1 to the next
    number of `dtype`: half of what rounding the weights to `dtype` may change. (Wijmans et al. drop every weight below a
    threshold, and many such weights may have a sum that matters.) Other rows may still ask for the tile.
    """
    blocks, tiles = occupied.shape
    wanted = row_gradient != 0
    if masses is None:
        active = wanted.expand(tiles, -1)
    else:
        least = torch.finfo(dtype).eps / 4
        threshold = torch.full_like(row_gradient, least / max(tiles, 1))
        for step in range(math.ceil(math.log(max(tiles, 2), 4))):
            higher = least * 4.0 ** (step + 1) / max(tiles, 1)
            lost = torch.where(masses < higher, masses, 0.0).sum(0)
            threshold = torch.where(lost <= least, higher, threshold)
        active = (masses >= threshold) & wanted
    padded = torch.nn.functional.pad(active, (0, blocks * rows - len(row_gradient)))
    return padded.view(tiles, blocks, rows).any(2).T | occupied
