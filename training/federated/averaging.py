"""What clients send, and the average that they get back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from xmc.encoders.dual import DualEncoder
from xmc.training.distributed import World
from xmc.training.weights import shared_tensors

__all__ = ["Average", "Update", "copy_weights"]


@dataclass(frozen=True)
class Update:
    """The rows of a client's tensors that its work changed, on the CPU: by name int64 [n], and values [n, width].

    size: the client's number of training queries, its weight in the average.
    """

    size: int
    rows: dict[str, Tensor]
    values: dict[str, Tensor]

    @classmethod
    @torch.no_grad()
    def between(cls, before: DualEncoder, after: DualEncoder, size: int) -> Update:
        """What a client sends that began with the weights of one model and ended with another's; label vectors stay."""
        rows, values, start = {}, {}, shared_tensors(before)
        for name, tensor in shared_tensors(after).items():
            table = _table(tensor)
            changed = (table != _table(start[name]).to(table.device)).any(dim=1).nonzero()[:, 0]
            rows[name], values[name] = changed.cpu(), table[changed].cpu()
        return cls(size, rows, values)

    @property
    def bytes(self) -> int:
        """Bytes that are sent."""
        return sum(some.numel() * some.element_size() for some in (*self.rows.values(), *self.values.values()))


class Average:
    """The weighted mean of clients' weights, in float64 and in the order of the clients, so that it does not depend on the
    number of processes.

    Source: McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017 (FedAvg).
    """

    def __init__(self, server: DualEncoder, world: World) -> None:
        """server: the model that clients begin with, the same in every process."""
        self.tensors, self.world, self.weight = shared_tensors(server), world, 0
        self.totals: dict[str, Tensor] = {}
        """Sums of weighted differences from the server's, float64, in the root process."""

    @torch.no_grad()
    def add(self, update: Update | None) -> None:
        """Let every process give the update of one client, or None; those of earlier processes come first."""
        world = self.world
        sizes = [int(size) for size in world.parts(torch.tensor([0 if update is None else update.size]))]
        self.weight += sum(sizes)
        for name, tensor in self.tensors.items():
            table = _table(tensor).cpu()
            given_rows = torch.zeros(0, dtype=torch.int64) if update is None else update.rows[name]
            given_values = table[:0] if update is None else update.values[name]
            counts = [int(count) for count in world.parts(torch.tensor([len(given_rows)]))]
            rows, values = world.to_root(given_rows), world.to_root(given_values)
            if rows is None or values is None:
                continue
            if name not in self.totals:
                self.totals[name] = torch.zeros(table.shape, dtype=torch.float64)
            for size, some, numbers in zip(sizes, rows.split(counts), values.split(counts), strict=True):
                self.totals[name].index_add_(0, some, (numbers.double() - table[some].double()) * size)

    @torch.no_grad()
    def finish(self) -> None:
        """Give the server's model the average, in every process."""
        for name, tensor in self.tensors.items():
            averaged = _table(tensor).cpu()
            if self.world.is_root and name in self.totals:
                averaged = self.totals.pop(name).div_(self.weight).add_(averaged).to(tensor.dtype)
            if self.world.size > 1:
                averaged = averaged.contiguous()
                dist.broadcast(averaged, 0)
            tensor.copy_(averaged.view(tensor.shape))


@torch.no_grad()
def copy_weights(source: DualEncoder, target: DualEncoder) -> None:
    """Give a model the weights of another; label vectors stay."""
    weights = shared_tensors(source)
    for name, tensor in shared_tensors(target).items():
        tensor.copy_(weights[name])


def _table(tensor: Tensor) -> Tensor:
    """A tensor as rows [n, width]."""
    tensor = tensor.detach()
    return tensor.reshape(len(tensor) if tensor.dim() else 1, -1)
