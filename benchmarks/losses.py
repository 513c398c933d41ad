"""Table losses: forward and backward pass of every loss against its floor, the dense formulas and the peers' kernels.

The floor is 8·B·L·D flops (scores twice, the gradients of queries and labels), of the forward pass alone 2·B·L·D, at the
rate of torch.mm in this run. Extra memory is what comes on top of inputs and gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from device_turns import Clock, measure
from kernel_checks import LOSSES, OPTIONS, TEMPERATURE
from kernel_peers import cross_entropies
from kernel_problems import Size, Worker, embeddings, in_turns, matmul_rate, quantiles, random_positives
from measurements import Measurement
from torch import Tensor

from xmc.kernels import losses
from xmc.kernels.positives import Positives

__all__ = ["Step", "method_of", "run"]

CPU_SIZES = (Size(256, 16_384, 128), Size(512, 65_536, 256))
GPU_SIZES = tuple(
    Size(queries, labels, dimension, "bf16", "cuda")
    for dimension in (768, 384)
    for labels in (1_310_720, 131_072)
    for queries in (4096, 1024)
)
GPU_SECONDS = 160.0
"""Time limit of all sizes of one call on a GPU; the method that runs when it ends is ended by itself."""

ONE_POSITIVE = "softmax, one positive"
SLOWEST = ("liger-kernel", "torch linear_cross_entropy")
"""Peers that take a few queries at a time where there are many labels: seconds for a step."""


@dataclass
class Step:
    """Forward and backward pass of a loss; the gradients of `inputs` are dropped. Without inputs the forward pass alone."""

    loss: Callable[[], Tensor]
    inputs: Sequence[Tensor] = ()
    value: float | None = None
    """The loss of the first run."""

    def __call__(self) -> None:
        """Run it once."""
        with torch.set_grad_enabled(bool(self.inputs)):
            loss = self.loss()
        if self.inputs:
            torch.autograd.grad(loss, self.inputs)
        if self.value is None:
            self.value = loss.item()

    @property
    def products(self) -> int:
        """Number of products of queries, labels and dimension that it cannot do without."""
        return 4 if self.inputs else 1

    @property
    def gradient_bytes(self) -> int:
        """Size of the gradients."""
        return sum(one.nbytes for one in self.inputs)


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


@cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_dense_sparse)


def methods(size: Size, seed: int) -> dict[str, Step]:
    """Every method that runs here, by name; the slowest last, for which a limited time may not be enough."""
    queries, labels, positives = embeddings(size, seed)
    single = random_positives(size, seed, 1)
    inputs = [tensor.requires_grad_() for tensor in (queries, labels)]
    found: dict[str, Step] = {}
    for engine in ("triton", "torch") if size.device == "cuda" else ("torch",):
        names = LOSSES if engine == "triton" or size.device == "cpu" else LOSSES[:1]
        found |= _own(engine, names, inputs, positives, single)
    peers = cross_entropies(queries, labels, single.indices.long(), TEMPERATURE)
    slow = {name: peers.pop(name) for name in SLOWEST if name in peers}
    found |= {f"{name}: {ONE_POSITIVE}": Step(loss, inputs) for name, loss in peers.items()}
    if size.device == "cuda":
        found |= _peaked(size, seed)
    found["dense torch, sparse: decoupled_softmax"] = Step(lambda: dense_sparse(*inputs, positives), inputs)
    found["dense torch, mask: decoupled_softmax"] = Step(lambda: dense_mask(*inputs, positives), inputs)
    found |= {f"{name}: {ONE_POSITIVE}": Step(loss, inputs) for name, loss in slow.items()}
    parts = (positives.rows, positives.indices, positives.counts)
    found["torch.compile, sparse: decoupled_softmax"] = Step(lambda: _compiled()(*inputs, *parts), inputs)
    return found


def _own(
    engine: str, names: Sequence[str], inputs: Sequence[Tensor], positives: Positives, single: Positives
) -> dict[str, Step]:
    """This library's losses by one engine; the first one's forward pass alone too, and soft top-k from its thresholds."""
    queries, labels = inputs
    threshold = torch.full((len(queries),), torch.nan, device=queries.device)

    def loss(name: str, pairs: Positives, **options: Any) -> Callable[[], Tensor]:
        function = getattr(losses, name)
        return lambda: function(queries, labels, pairs, TEMPERATURE, impl=engine, **options)

    found = {f"xmc {engine}: {name}": Step(loss(name, positives), inputs) for name in names}
    found[f"xmc {engine}: {names[0]}, forward alone"] = Step(loss(names[0], positives))
    found[f"xmc {engine}: {ONE_POSITIVE}"] = Step(loss("softmax", single), inputs)
    if queries.is_cuda and engine == "triton":
        for option, given in OPTIONS.items():
            found[f"xmc triton: {names[0]}, {option}"] = Step(loss(names[0], positives, **given), inputs)
        found[f"xmc triton: {names[0]}, float8, forward alone"] = Step(loss(names[0], positives, **OPTIONS["float8"]))
    if "soft_topk" in names:
        warm = loss("soft_topk", positives, threshold=threshold, warm=True)
        found[f"xmc {engine}: soft_topk, warm"] = Step(warm, inputs)
    return found


def _peaked(size: Size, seed: int) -> dict[str, Step]:
    """Of scores as after training, what may skip labels beside what does not."""
    queries, labels, single = embeddings(size, seed, peaked=True, positives=1)
    inputs = [tensor.requires_grad_() for tensor in (queries, labels)]
    found = {"xmc triton": Step(lambda: losses.softmax(*inputs, single, TEMPERATURE, impl="triton"), inputs)}
    for name, loss in cross_entropies(*inputs, single.indices.long(), TEMPERATURE).items():
        if name.startswith("cut-cross-entropy"):
            found[name] = Step(loss, inputs)
    return {f"{name}: {ONE_POSITIVE}, peaked scores": step for name, step in found.items()}


def method_of(size: Size, method: str, seed: int) -> Step:
    """One method's step, for a process of its own."""
    return methods(size, seed)[method]


def run(seed: int, names: Sequence[str], gpu: bool = False, sizes: Sequence[str] = ()) -> Iterator[list[Measurement]]:
    """Measure each size, those of the table unless `sizes` are given as text, all methods in turns."""
    device = "cuda" if gpu else "cpu"
    chosen = [Size.parse(text, device) for text in sizes] or (GPU_SIZES if gpu else CPU_SIZES)
    clock = Clock(GPU_SECONDS)
    for number, size in enumerate(chosen):
        share = clock.share(len(chosen) - number)
        rate = matmul_rate(size)
        steps = {name: step for name, step in methods(size, seed).items() if not names or name.startswith(tuple(names))}
        seconds, memory = _on_gpu(size, steps, share) if gpu else _on_cpu(size, steps, seed)
        for name, samples in seconds.items():
            p20, p50, p80 = quantiles(samples)
            floor = 2.0 * steps[name].products * size.queries * size.labels * size.dimension / rate
            method, extra = f"{name}, {size}", memory[name] - steps[name].gradient_bytes
            scores = size.queries * size.labels * (2 if size.dtype == "bf16" else 4)
            rows = [
                Measurement("losses", method, "time", p50 * 1e3, "ms", seed, p20 * 1e3, p80 * 1e3),
                Measurement("losses", method, "time / floor", p50 / floor, "", seed, p20 / floor, p80 / floor),
                Measurement("losses", method, "extra memory", extra / 2**20, "MiB", seed),
                Measurement("losses", method, "extra memory / scores", 100 * extra / scores, "percent", seed),
            ]
            value = steps[name].value
            if value is not None:  # where it ran in this process: with one positive, the peers' must be ours
                rows.append(Measurement("losses", method, "loss", value, "", seed))
            yield rows


Found = tuple[dict[str, list[float]], dict[str, float]]


def _on_cpu(size: Size, steps: dict[str, Step], seed: int) -> Found:
    workers = {name: Worker("losses", size, name, seed) for name in steps}
    seconds = in_turns({name: worker.seconds for name, worker in workers.items()}, 7)
    for worker in workers.values():
        worker.close()
    return seconds, {name: worker.memory for name, worker in workers.items()}


def _on_gpu(size: Size, steps: dict[str, Step], clock: Clock) -> Found:
    measured = measure(steps, clock, size)
    return measured.seconds, measured.memory
