"""Several processes, one run: queries data-parallel, labels split by rank. torch.distributed under torchrun."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from xmc.encoders.static.encoder import FeatureTable
from xmc.encoders.static.feature_table import Bags
from xmc.kernels.shards import LabelShard

__all__ = ["World", "distributed"]

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: longer than embedding and saving a large label set takes. torchrun ends a job
in which a process died at once, whatever this is."""
LINGER = 0.2
"""Seconds before a process leaves. A thread of gloo's that still holds a tensor then aborts the process as it exits, and the
whole job with it (github.com/pytorch/pytorch/pull/179291). Threads end with their group, but torch's caches may keep that."""
BUCKET = 2**25
"""Numbers that are summed over the processes in one call."""


class World:
    """The processes of a run, and which part of everything is this one's. A world of one does nothing."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def is_root(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def own(self, count: int) -> slice:
        """This process's part of `count` rows: contiguous, sizes differing by at most one."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def chunks(self, count: int, size: int) -> Iterator[npt.NDArray[np.int64]]:
        """This process's part of `count` rows, at most `size` at a time; as many times in every process, perhaps with none."""
        own = self.own(count)
        for start in range(own.start, own.start - (-count // self.size), size):
            yield np.arange(start, max(start, min(start + size, own.stop)))

    def own_of(self, rows: Tensor, count: int) -> slice:
        """Which of the ascending `rows` (int64 [C]) lie in this process's part of `count`."""
        own = self.own(count)
        start, stop = torch.searchsorted(rows, torch.tensor([own.start, own.stop])).tolist()
        return slice(start, stop)

    def shard(self, start: int, total: int) -> LabelShard | None:
        """What a loss is told of labels that are split over the processes."""
        return None if self.size == 1 else LabelShard(start, total)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, one's after another's, [sum of n, ...]. Gradients are summed and come back to their rows.

        Processes may have different numbers of rows.
        """
        if self.size == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self)  # type: ignore[no-untyped-call]
        return gathered

    def parts(self, rows: Tensor) -> list[Tensor]:
        """The rows of each process, without gradient."""
        if self.size == 1:
            return [rows]
        rows = rows.detach()
        count = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.empty_like(count) for _ in range(self.size)]
        dist.all_gather(counts, count)
        sizes = [int(one) for one in counts]
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(found, padded)
        return [part[:size] for part, size in zip(found, sizes, strict=True)]

    def to_root(self, rows: Tensor) -> Tensor | None:
        """The rows of all processes on the root's host; None elsewhere. One process's rows are in transit at a time.

        Of a tensor that is split over the processes, the whole.
        """
        if self.size == 1:
            return rows.detach()
        own = (rows.to_local() if isinstance(rows, DTensor) else rows).detach().cpu().contiguous()
        counts = [int(part) for part in self.parts(torch.tensor([len(own)]))]
        if not self.is_root:
            dist.send(own, 0)
            return None
        whole = own.new_empty((sum(counts), *own.shape[1:]))
        whole[: counts[0]] = own
        place = counts[0]
        for rank, count in enumerate(counts[1:], start=1):
            dist.recv(whole[place : place + count], rank)
            place += count
        return whole

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter], tables: Iterable[FeatureTable]) -> None:
        """Give every process the sum of all processes' gradients of replicated parameters and feature tables.

        Those of parameters that are split over the processes are summed already.
        """
        if self.size == 1:
            return
        wanted = [one for one in parameters if one.requires_grad and not isinstance(one, DTensor)]
        for parameter in wanted:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([parameter.grad for parameter in wanted if parameter.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, total in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):
                gradient.copy_(total.view_as(gradient))
        for table in tables:
            table.pending[:] = self._everyones(*_merged(table))

    def mean(self, *values: float, weight: float = 1.0) -> list[float]:
        """Means over the processes of some numbers, each process counting `weight`."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor([*(value * weight for value in values), weight], dtype=torch.float64)
        dist.all_reduce(sums)
        return [float(total) for total in sums[:-1] / sums[-1].clamp_min(1e-300)]

    def most(self, count: int) -> int:
        """The largest of the processes' counts."""
        if self.size == 1:
            return count
        largest = torch.tensor(count)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def from_root(self, value: Any) -> Any:
        """A plain value that the root has, in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def _everyones(self, bags: Bags, gradient: Tensor) -> list[tuple[Bags, Tensor]]:
        """The factors of a table's gradient from all processes."""
        lengths = self.parts(torch.from_numpy(np.diff(bags.offsets)))
        values = self.parts(torch.from_numpy(bags.values.astype(np.int64)))
        rows = self.parts(torch.from_numpy(bags.rows))
        coefficients = self.parts(torch.from_numpy(bags.coefficients))
        gradients = self.parts(gradient)
        return [
            (
                Bags(value.numpy().astype(np.uint32), row.numpy(), coefficient.numpy(), _offsets(length)),
                one.contiguous(),
            )
            for value, row, coefficient, length, one in zip(values, rows, coefficients, lengths, gradients, strict=True)
        ]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: World) -> Tensor:
        parts = world.parts(rows)
        start = sum(len(part) for part in parts[: world.rank])
        ctx.own = slice(start, start + len(rows))
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.own], None


@contextlib.contextmanager
def distributed(device: torch.device) -> Iterator[World]:
    """The world that torchrun's environment describes, or one process. Ends the process group on leaving."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield World()
        return
    ours = not dist.is_initialized()
    if ours:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Some of what crosses is on the host, whatever the device.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
        # None leaves while the root still writes; and the group's threads let go of the last tensors before one leaves.
        dist.barrier(device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None)
        time.sleep(LINGER)
    finally:
        if ours:
            gc.collect()
            dist.destroy_process_group()


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
    """All factors that this process has of a table's gradient, as one pair, so that processes agree on how many there are."""
    bags = [one for one, _ in table.pending]
    lengths = torch.from_numpy(np.concatenate([np.diff(one.offsets) for one in bags] or [np.zeros(0, np.int64)]))
    together = Bags(
        np.concatenate([one.values for one in bags] or [np.zeros(0, np.uint32)]),
        np.concatenate([one.rows for one in bags] or [np.zeros(0, np.int32)]),
        np.concatenate([one.coefficients for one in bags] or [np.zeros(0, np.float32)]),
        _offsets(lengths),
    )
    gradients = [gradient for _, gradient in table.pending] or [torch.zeros(0, table.vectors.shape[1])]
    return together, torch.cat(gradients)


def _offsets(lengths: Tensor) -> Any:
    return np.concatenate([[0], np.cumsum(lengths.numpy())]).astype(np.int64)
