"""Table topk: exact top-k search against its floor, matmul + topk, and the peers' brute force.

The floor is 2·B·L·D flops at the rate of torch.mm in this run. Extra memory is what comes on top of the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from device_turns import Clock, measure, reason
from kernel_peers import UNSEEN_MEMORY, searches
from kernel_problems import Size, Worker, embeddings, in_turns, matmul_rate, quantiles
from measurements import Measurement
from torch import Tensor

from xmc.errors import InputError
from xmc.kernels.topk import topk_inner_product

__all__ = ["method_of", "run"]

CPU_CASES = ((Size(256, 1_000_000, 128), 100), (Size(1, 1_000_000, 128), 100), (Size(1024, 100_000, 256), 10))
GPU_CASES = tuple(
    (Size(queries, 1_310_720, dimension, dtype, "cuda"), k)
    for queries, dimension, dtype, k in (
        (1024, 768, "bf16", 100),
        (1024, 768, "fp32", 100),
        (1024, 768, "bf16", 2048),
        (4096, 768, "bf16", 10),
        (1024, 384, "bf16", 100),
    )
)
GPU_SECONDS = 160.0
"""Time limit of all cases of one call on a GPU; the method that runs when it ends is ended by itself."""

EXACT_SCORES = 2**28
"""Number of float32 scores that are held at once to find out which labels are right."""

Search = Callable[[], tuple[Tensor, Tensor]]


def methods(size: Size, k: int, seed: int) -> dict[str, Search]:
    """Every method that runs here, by name."""
    return _methods(*embeddings(size, seed, positives=1)[:2], k)


def _methods(queries: Tensor, labels: Tensor, k: int) -> dict[str, Search]:
    found: dict[str, Search] = {}
    for kind in ("triton", "torch") if queries.is_cuda else ("torch",):
        found[f"xmc {kind}"] = lambda kind=kind: topk_inner_product(queries, labels, k, impl=kind)  # type: ignore[misc]
    found["matmul + topk"] = lambda: tuple((queries @ labels.T).topk(k, dim=1))
    return found | searches(queries, labels, k)


def method_of(size: Size, method: str, seed: int) -> Search:
    """One method's search, for a process of its own."""
    name, k = method.split(", k=")
    return methods(size, int(k), seed)[name]


def run(seed: int, names: Sequence[str], gpu: bool = False, sizes: Sequence[str] = ()) -> Iterator[list[Measurement]]:
    """Measure each case, those of the table unless `sizes` are given as text, all methods in turns.

    The labels found are compared with those of float32 scores.
    """
    cases = [_parse(text, "cuda" if gpu else "cpu") for text in sizes] or (GPU_CASES if gpu else CPU_CASES)
    clock = Clock(GPU_SECONDS)
    for number, (size, k) in enumerate(cases):
        share = clock.share(len(cases) - number)
        floor = 2.0 * size.queries * size.labels * size.dimension / matmul_rate(size)
        queries, labels, _ = embeddings(size, seed, positives=1)
        calls = {n: f for n, f in _methods(queries, labels, k).items() if not names or n.startswith(tuple(names))}
        right = _shares_right(calls, queries, labels, k)
        if gpu:
            measured = measure({name: call for name, call in calls.items() if name in right}, share, f"k={k} {size}")
            seconds, memory = measured.seconds, measured.memory
        else:
            seconds, memory = _on_cpu(size, k, list(right), seed)
        for name, samples in seconds.items():
            p20, p50, p80 = quantiles(samples)
            method = f"{name}, k={k} {size}"
            rows = [
                Measurement("topk", method, "time", p50 * 1e3, "ms", seed, p20 * 1e3, p80 * 1e3),
                Measurement("topk", method, "time / floor", p50 / floor, "", seed, p20 / floor, p80 / floor),
                Measurement("topk", method, "labels as in float32", 100 * right[name], "percent", seed),
            ]
            if not (gpu and name.startswith(UNSEEN_MEMORY)):
                rows.append(Measurement("topk", method, "extra memory", memory[name] / 2**20, "MiB", seed))
            yield rows


def _parse(text: str, device: str) -> tuple[Size, int]:
    """A case from `k=100 B=1024 L=131072 D=768 bf16`."""
    first, _, rest = text.partition(" ")
    name, _, k = first.partition("=")
    if name != "k" or not k.isdecimal():
        raise InputError(f"{text!r} is no case of topk; write one as k=100 B=1024 L=131072 D=768 bf16.")
    return Size.parse(rest, device), int(k)


def _on_cpu(size: Size, k: int, names: Sequence[str], seed: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    workers = {name: Worker("topk", size, f"{name}, k={k}", seed) for name in names}
    seconds = in_turns({name: worker.seconds for name, worker in workers.items()}, 9)
    for worker in workers.values():
        worker.close()
    return seconds, {name: worker.memory for name, worker in workers.items()}


def _shares_right(calls: dict[str, Search], queries: Tensor, labels: Tensor, k: int) -> dict[str, float]:
    """The share of labels that stand where float32 scores rank them, by method; what fails is named and left out."""
    exact, shares = _exact(queries, labels, k), {}
    for name, call in calls.items():
        try:
            if queries.is_cuda:
                torch.cuda.empty_cache()  # some peers allocate beside torch
            found = call()[1].to(exact.device)
            shares[name] = (found == exact).float().mean().item()
        except Exception as error:
            print(f"{name} left out at k={k}, {len(queries)} queries: {reason(error)}", flush=True)
    return shares


def _exact(queries: Tensor, labels: Tensor, k: int) -> Tensor:
    """The rows of the k best labels by float32 scores, int64 [B, k]."""
    held = labels.float().T
    parts = queries.float().split(max(1, EXACT_SCORES // len(labels)))
    return torch.cat([(part @ held).topk(k, dim=1).indices for part in parts])
