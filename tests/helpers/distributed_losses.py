"""Run by torchrun: every loss with labels split over the processes, against the dense float64 reference in one process.

Prints the names of what was compared; an assertion that fails ends the job.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.distributed as dist
from random_kernel_inputs import random_entries
from torch import Tensor

from xmc.kernels.losses import LOSSES, Positives
from xmc.kernels.shards import LabelShard
from xmc.training.distributed import World

NAMES = [name for name, loss in LOSSES.items() if loss.splits_labels]


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def compare(world: World, name: str, impl: str, sizes: tuple[int, int, int], case: str) -> None:
    torch.manual_seed(sum(sizes))
    queries, labels = (
        torch.randn(sizes[0], sizes[2], dtype=torch.float64),
        torch.randn(sizes[1], sizes[2], dtype=torch.float64),
    )
    bias, temperature = torch.randn(sizes[1], dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    lists = [torch.randperm(sizes[1])[: torch.randint(0, 4, ())].tolist() for _ in range(sizes[0])]
    if case == "positives in the first shard alone":
        lists = [[label % max(sizes[1] // world.size, 1) for label in row] for row in lists]
    positives = Positives.from_lists(lists)
    if case == "entries with a push":
        positives = random_entries(sizes[0], sizes[1], seed=sum(sizes))
    others = Positives.from_lists([[(3 * i) % sizes[1]] for i in range(sizes[0])])
    options: dict[str, Any] = {"exclude": others, "tile_bytes": 4096}
    if not LOSSES[name].over_all_labels and case in ("sampled", "entries with a push"):
        options["log_inclusion"] = -torch.rand(sizes[1], dtype=torch.float64)
    if name == "binary_cross_entropy" and case in ("sampled", "entries with a push"):
        options |= {"propensities": 1 - 0.9 * torch.rand(sizes[1], dtype=torch.float64), "bound": case == "sampled"}
    if name == "soft_topk":
        options["k"] = 2
    loss = LOSSES[name]
    # How near soft_topk's threshold is to the solution depends on the engine.
    against = impl if name == "soft_topk" else "reference"
    whole = leaves(queries, labels, bias, temperature)
    expected = loss(*whole[:2], positives, whole[3], label_bias=whole[2], impl=against, **options)
    expected.backward()

    own = world.own(sizes[1])
    mine = leaves(queries, labels[own], bias, temperature)
    shard = LabelShard(own.start, sizes[1])
    found = loss(*mine[:2], positives, mine[3], label_bias=mine[2], impl=impl, shard=shard, **options)
    found.backward()
    for part in (mine[0], mine[2], mine[3]):
        dist.all_reduce(part.grad)
    message = f"{name} {impl} {sizes} {case}"
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, msg=message)
    wanted = [whole[0].grad, whole[1].grad[own], whole[2].grad, whole[3].grad]
    for part, gradient in zip(mine, wanted, strict=True):
        torch.testing.assert_close(part.grad, gradient, rtol=1e-7, atol=1e-9, msg=message)


def main() -> None:
    dist.init_process_group("gloo")
    world = World(dist.get_rank(), dist.get_world_size())
    count = 0
    cases = ("plain", "sampled", "positives in the first shard alone", "entries with a push")
    for name, impl, case in itertools.product(NAMES, ("torch", "reference"), cases):
        for sizes in ((7, 23, 5), (1, 5, 3), (16, 100, 8)):
            compare(world, name, impl, sizes, case)
            count += 1
    if world.size == 3:  # the last process of three has the third of two labels: none in one of them
        for name in (name for name in NAMES if not LOSSES[name].over_all_labels):
            compare(world, name, "torch", (4, 2, 3), "a process without labels")
            count += 1
    gathered()
    dist.barrier()
    if world.is_root:
        print(f"compared {count}")
    dist.destroy_process_group()


def gathered() -> None:
    """Rows of all processes, uneven; gradients are summed and go back."""
    world = World(dist.get_rank(), dist.get_world_size())
    rows = torch.full((world.rank * 2, 3), float(world.rank), requires_grad=True)
    whole = world.gather(rows)
    assert whole[:, 0].tolist() == [float(rank) for rank in range(world.size) for _ in range(2 * rank)]
    (whole * (world.rank + 1)).sum().backward()
    assert rows.grad is not None
    assert (rows.grad == sum(range(1, world.size + 1))).all()
    collected = world.to_root(rows)
    assert (collected is None) == (world.rank > 0)
    if collected is not None:
        assert torch.equal(collected, whole.detach())
    assert world.mean(float(world.rank), weight=float(world.rank))[0] == sum(r * r for r in range(world.size)) / sum(
        range(world.size)
    )


if __name__ == "__main__":
    main()
