"""Gradients of all processes together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from xmc.encoders.static.encoder import FeatureTable
from xmc.encoders.static.feature_table import Bags
from xmc.training.distributed.sharding import is_split
from xmc.training.distributed.world import World

__all__ = ["sum_gradients"]

BUCKET = 2**25
"""Numbers that are summed over the processes in one call."""


def sum_gradients(world: World, parameters: Iterable[torch.nn.Parameter], tables: Iterable[FeatureTable]) -> None:
    """Give every process the sum of all processes' gradients of replicated parameters and feature tables.

    Those of parameters that are split over the processes are summed already.
    """
    if world.size == 1:
        return
    replicated = [p for p in parameters if p.requires_grad and not is_split(p)]
    for parameter in replicated:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([parameter.grad for parameter in replicated if parameter.grad is not None]):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        dist.all_reduce(flat)
        for gradient, total in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(total.view_as(gradient))
    for table in tables:
        table.pending[:] = _of_all_processes(world, *_merged(table))


def _of_all_processes(world: World, bags: Bags, gradient: Tensor) -> list[tuple[Bags, Tensor]]:
    """The factors of a table's gradient from all processes."""
    lengths = world.parts(torch.from_numpy(np.diff(bags.offsets)))
    values = world.parts(torch.from_numpy(bags.values.astype(np.int64)))
    rows = world.parts(torch.from_numpy(bags.rows))
    coefficients = world.parts(torch.from_numpy(bags.coefficients))
    gradients = world.parts(gradient)
    return [
        (
            Bags(value.numpy().astype(np.uint32), row.numpy(), coefficient.numpy(), _offsets(length)),
            factor.contiguous(),
        )
        for value, row, coefficient, length, factor in zip(values, rows, coefficients, lengths, gradients, strict=True)
    ]


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (size + gradient.numel() > BUCKET or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel()
    if bucket:
        yield bucket


def _merged(table: FeatureTable) -> tuple[Bags, Tensor]:
    """All factors that this process has of a table's gradient, as one pair, so that processes agree on their number."""
    pending = [bags for bags, _ in table.pending]
    lengths = torch.from_numpy(np.concatenate([np.diff(bags.offsets) for bags in pending] or [np.zeros(0, np.int64)]))
    together = Bags(
        np.concatenate([bags.values for bags in pending] or [np.zeros(0, np.uint32)]),
        np.concatenate([bags.rows for bags in pending] or [np.zeros(0, np.int32)]),
        np.concatenate([bags.coefficients for bags in pending] or [np.zeros(0, np.float32)]),
        _offsets(lengths),
    )
    gradients = [gradient for _, gradient in table.pending] or [torch.zeros(0, table.vectors.shape[1])]
    return together, torch.cat(gradients)


def _offsets(lengths: Tensor) -> Any:
    return np.concatenate([[0], np.cumsum(lengths.numpy())]).astype(np.int64)
