"""Table losses: forward and backward pass of every loss against its floor, the dense formulas and the peers' kernels.

The floor is 8·B·L·D flops (scores twice, the gradients of queries and labels) at the rate of torch.matmul in this run.
Extra memory is what comes on top of inputs and gradients.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from kernel_problems import Size, Worker, embeddings, in_turns, matmul_rate, peak_memory, quantiles, seconds_of
from measurements import Measurement
from torch import Tensor

from xmc.kernels import losses
from xmc.kernels.positives import Positives

__all__ = ["method_of", "run"]

TEMPERATURE = 0.05
CPU_SIZES = (Size(256, 16_384, 128), Size(512, 65_536, 256))
GPU_SIZES = tuple(
    Size(queries, labels, dimension, "bf16", "cuda")
    for labels in (131_072, 1_310_720)
    for queries in (1024, 4096)
    for dimension in (384, 768)
)
LOSSES = (
    "decoupled_softmax",
    "softmax",
    "soft_topk",
    "binary_cross_entropy",
    "multi_label_cluster_discrimination",
)
Step = Callable[[], object]


def dense_mask(queries: Tensor, labels: Tensor, positives: Positives) -> Tensor:
    """Decoupled softmax as DEXML writes it: all scores, and a B x L mask of the positives; float32 scores."""
    mask = torch.zeros(len(queries), len(labels), dtype=torch.bool, device=queries.device)
    mask[positives.rows, positives.indices] = True
    return _dense_mask(queries.float(), labels.float(), mask)


def _dense_mask(queries: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    scores = queries @ labels.T / TEMPERATURE
    negative = torch.logsumexp(scores.masked_fill(mask, -torch.inf), dim=1, keepdim=True)
    terms = (torch.logaddexp(negative, scores) - scores).masked_fill(~mask, 0.0)
    return (terms.sum(1) / mask.sum(1)).mean()


def dense_sparse(queries: Tensor, labels: Tensor, positives: Positives) -> Tensor:
    """The same with all scores, but the positives taken out of them: the best that plain torch has."""
    return _dense_sparse(queries, labels, positives.rows, positives.indices, positives.counts)


def _dense_sparse(queries: Tensor, labels: Tensor, rows: Tensor, columns: Tensor, counts: Tensor) -> Tensor:
    scores = queries @ labels.T / TEMPERATURE
    chosen = scores[rows, columns].float()
    negative = torch.logsumexp(scores.index_put((rows, columns), scores.new_tensor(-torch.inf)).float(), dim=1)
    terms = torch.nn.functional.softplus(negative[rows] - chosen)
    return (terms / counts[rows]).sum() / len(counts)


def methods(size: Size, seed: int) -> dict[str, Callable[[], Tensor]]:
    """Every method that runs here, by name, as a function of nothing that gives a loss to differentiate."""
    queries, labels, positives = embeddings(size, seed)
    single = embeddings(size, seed, positives=1)[2]
    targets = single.indices.long()
    inputs = [tensor.requires_grad_() for tensor in (queries, labels)]
    threshold = torch.full((size.queries,), torch.nan, device=size.device)
    found: dict[str, Callable[[], Tensor]] = {}

    def engine(name: str, kind: str) -> Callable[[], Tensor]:
        function = getattr(losses, name)
        return lambda: function(*inputs, positives, TEMPERATURE, impl=kind)

    for kind in ("torch", "triton") if size.device == "cuda" else ("torch",):
        for name in LOSSES:
            if kind == "torch" and size.device == "cuda" and name != "decoupled_softmax":
                continue
            found[f"xmc {kind}: {name}"] = engine(name, kind)
        found[f"xmc {kind}: soft_topk, warm"] = lambda kind=kind: losses.soft_topk(  # type: ignore[misc]
            *inputs, positives, TEMPERATURE, threshold=threshold, impl=kind
        )
        found[f"xmc {kind}: softmax, one positive"] = lambda kind=kind: losses.softmax(  # type: ignore[misc]
            *inputs, single, TEMPERATURE, impl=kind
        )
    if size.device == "cuda":
        peaked_queries, peaked_labels, peaked_positives = embeddings(size, seed, peaked=True)
        peaked = [tensor.requires_grad_() for tensor in (peaked_queries, peaked_labels)]
        found["xmc triton: decoupled_softmax, peaked scores"] = lambda: losses.decoupled_softmax(
            *peaked, peaked_positives, TEMPERATURE, impl="triton"
        )
    found["dense torch, mask: decoupled_softmax"] = lambda: dense_mask(*inputs, positives)
    found["dense torch, sparse: decoupled_softmax"] = lambda: dense_sparse(*inputs, positives)
    compiled = torch.compile(_dense_sparse)
    parts = (positives.rows, positives.indices, positives.counts)
    found["torch.compile, sparse: decoupled_softmax"] = lambda: compiled(*inputs, *parts)
    if importlib.util.find_spec("cut_cross_entropy"):
        from cut_cross_entropy import linear_cross_entropy

        kernel = "cce" if size.device == "cuda" else "torch_compile"
        found[f"cut-cross-entropy {kernel}: softmax, one positive"] = lambda: linear_cross_entropy(
            inputs[0] / TEMPERATURE, inputs[1], targets, impl=kernel
        )
    if importlib.util.find_spec("liger_kernel") and size.device == "cuda":
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

        found["liger-kernel: softmax, one positive"] = lambda: liger_fused_linear_cross_entropy(
            inputs[0] / TEMPERATURE, inputs[1], targets
        )
    return found


def step_of(loss: Callable[[], Tensor], size: Size) -> Step:
    """Forward and backward pass; the gradients are dropped."""

    def step() -> None:
        loss().backward()

    return step


def method_of(size: Size, method: str, seed: int) -> Step:
    """One method's step, for a process of its own."""
    return step_of(methods(size, seed)[method], size)


def run(seed: int, names: Sequence[str], gpu: bool = False) -> Iterator[list[Measurement]]:
    """Measure each size, all methods in turns."""
    for size in GPU_SIZES if gpu else CPU_SIZES:
        floor = 8.0 * size.queries * size.labels * size.dimension / matmul_rate(size)
        chosen = [name for name in methods(size, seed) if not names or name.startswith(tuple(names))]
        seconds, memory = _on_gpu(size, chosen, seed) if gpu else _on_cpu(size, chosen, seed)
        for name, samples in seconds.items():
            p20, p50, p80 = quantiles(samples)
            method = f"{name}, {size}"
            share = memory[name] / (size.queries * size.labels * (2 if size.dtype == "bf16" else 4))
            yield [
                Measurement("losses", method, "time", p50 * 1e3, "ms", seed, p20 * 1e3, p80 * 1e3),
                Measurement("losses", method, "time / floor", p50 / floor, "", seed, p20 / floor, p80 / floor),
                Measurement("losses", method, "extra memory", memory[name] / 2**20, "MiB", seed),
                Measurement("losses", method, "extra memory / scores", 100 * share, "percent", seed),
            ]


Found = tuple[dict[str, list[float]], dict[str, float]]


def _on_cpu(size: Size, names: Sequence[str], seed: int) -> Found:
    workers = {name: Worker("losses", size, name, seed) for name in names}
    seconds = in_turns({name: worker.seconds for name, worker in workers.items()}, 7)
    for worker in workers.values():
        worker.close()
    return seconds, {name: worker.memory - _gradient_bytes(size) for name, worker in workers.items()}


def _on_gpu(size: Size, names: Sequence[str], seed: int) -> Found:
    steps, memory = {}, {}
    for name, loss in methods(size, seed).items():
        if name not in names:
            continue
        step = step_of(loss, size)
        try:
            step()
            memory[name] = peak_memory(step, "cuda") - _gradient_bytes(size)
        except torch.OutOfMemoryError:
            print(f"{name} left out at {size}: it does not fit the memory.")
            torch.cuda.empty_cache()
            continue
        steps[name] = partial(seconds_of, step)
    return in_turns(steps, 7), memory


def _gradient_bytes(size: Size) -> float:
    return float((size.queries + size.labels) * size.dimension * (2 if size.dtype == "bf16" else 4))
