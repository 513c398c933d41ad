"""The processes of a run: which part of everything is whose, and what crosses between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from xmc.kernels.shards import LabelShard

__all__ = ["World"]


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
        """This process's part of `count` rows, at most `size` at a time; equally often in all processes."""
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
        sizes = [int(size) for size in counts]
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(gathered, padded)
        return [received[:size] for received, size in zip(gathered, sizes, strict=True)]

    def to_root(self, rows: Tensor) -> Tensor | None:
        """The rows of all processes on the root's host; None elsewhere. One process's rows are in transit at a time.

        A tensor that is split over the processes is put together.
        """
        if self.size == 1:
            return rows.detach()
        local = (rows.to_local() if isinstance(rows, DTensor) else rows).detach().cpu().contiguous()
        counts = [int(count) for count in self.parts(torch.tensor([len(local)]))]
        if not self.is_root:
            dist.send(local, 0)
            return None
        together = local.new_empty((sum(counts), *local.shape[1:]))
        together[: counts[0]] = local
        start = counts[0]
        for rank, count in enumerate(counts[1:], start=1):
            dist.recv(together[start : start + count], rank)
            start += count
        return together

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


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: World) -> Tensor:
        by_process = world.parts(rows)
        start = sum(len(others) for others in by_process[: world.rank])
        ctx.local = slice(start, start + len(rows))
        return torch.cat(by_process)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.local], None
