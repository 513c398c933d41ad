"""Random problems, timing and memory for the kernel tables."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from xmc.errors import InputError
from xmc.kernels.positives import Positives

__all__ = [
    "DTYPES",
    "Size",
    "Worker",
    "embeddings",
    "event_seconds",
    "in_turns",
    "matmul_rate",
    "peak_memory",
    "quantiles",
    "random_positives",
    "resident",
    "seconds_of",
    "serve",
    "square_rate",
]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

RATE_SECONDS = {"cpu": 0.2, "cuda": 0.03}
"""Time that one measurement of torch.mm takes, or a product if that is longer: many products, as a step has."""


@dataclass(frozen=True)
class Size:
    """B queries, L labels, embeddings of D dimensions."""

    queries: int
    labels: int
    dimension: int
    dtype: str = "fp32"
    device: str = "cpu"

    def __str__(self) -> str:
        return f"B={self.queries} L={self.labels} D={self.dimension} {self.dtype}"

    @classmethod
    def parse(cls, text: str, device: str) -> Size:
        """The inverse of str(). InputError for any other text."""
        found = re.fullmatch(r"B=(\d+) L=(\d+) D=(\d+) (\w+)", text)
        if found is None or found[4] not in DTYPES:
            raise InputError(f"{text!r} is no size; write one as {cls(4096, 131_072, 768, 'bf16')}, or with fp32.")
        return cls(*map(int, found.groups()[:3]), found[4], device)


def embeddings(size: Size, seed: int, *, peaked: bool = False, positives: int = 5) -> tuple[Tensor, Tensor, Positives]:
    """Unit vectors and `positives` random labels of each query, those of `random_positives`.

    With `peaked` as after training: labels gather around 1,000 centres, and a query lies at cosine 0.8 or so of its
    positives, which share a centre.
    """
    generator = torch.Generator(size.device).manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=size.device)

    if peaked:
        cpu = torch.Generator().manual_seed(seed)
        groups = min(1000, size.labels // 10)
        group_of = torch.randint(0, groups, (size.labels,), generator=cpu)
        own = torch.randint(0, groups, (size.queries,), generator=cpu)
        centres = normalize(random(groups, size.dimension), dim=1)
        labels = random(size.labels, size.dimension)
        labels = normalize(normalize(labels, dim=1).mul_(0.75).add_(centres[group_of.to(size.device)]), dim=1)
        order = group_of.argsort(stable=True)
        starts = torch.searchsorted(group_of[order], torch.arange(groups + 1))
        lists = [
            sorted(
                {int(order[starts[g] + (7 * row + step) % (starts[g + 1] - starts[g])]) for step in range(positives)}
            )
            for row, g in enumerate(own.tolist())
        ]
        means = torch.stack([labels[row].mean(0) for row in lists])
        queries = normalize(means + 0.3 * normalize(random(size.queries, size.dimension), dim=1), dim=1)
        chosen = Positives.from_lists(lists).to(size.device)
    else:
        chosen = random_positives(size, seed, positives)
        labels = normalize(random(size.labels, size.dimension), dim=1)
        queries = normalize(random(size.queries, size.dimension), dim=1)
    dtype = DTYPES[size.dtype]
    return queries.to(dtype), labels.to(dtype), chosen


def random_positives(size: Size, seed: int, count: int) -> Positives:
    """`count` random labels of each query, fewer where one is drawn twice."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, size.labels, (size.queries, count), generator=generator)
    return Positives.from_lists([sorted(set(row)) for row in drawn.tolist()]).to(size.device)


def matmul_rate(size: Size) -> float:
    """Flops a second of torch.mm on these shapes, in tiles of labels written to one buffer.

    On a CPU the best of seven measurements with tiles of 8,192 labels; on CUDA the median of seven, with tiles of 131,072.
    """
    dtype = DTYPES[size.dtype]
    width = min(size.labels, 8192 if size.device == "cpu" else 131_072)
    rows = torch.randn(size.queries, size.dimension, device=size.device).to(dtype)
    part = torch.randn(width, size.dimension, device=size.device).to(dtype)
    out = torch.empty(size.queries, width, dtype=dtype, device=size.device)
    timer = seconds_of if size.device == "cpu" else event_seconds
    repeats = 1

    def products() -> None:
        for _ in range(repeats):
            torch.mm(rows, part.T, out=out)

    products()
    repeats = max(1, round(RATE_SECONDS[size.device] / timer(products)))
    products()
    samples = sorted(timer(products) for _ in range(7))
    return 2 * size.queries * width * size.dimension * repeats / samples[0 if size.device == "cpu" else 3]


def square_rate(dtype: str, device: str) -> float:
    """Flops a second of torch.mm on square matrices, of 2,048 rows on a CPU and 8,192 on CUDA: what a device can do."""
    rows = 2048 if device == "cpu" else 8192
    return matmul_rate(Size(rows, rows, rows, dtype, device))


def seconds_of(function: Callable[[], object]) -> float:
    """Time of one call, of the device's work too."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def event_seconds(function: Callable[[], object]) -> float:
    """Time of one call on CUDA by the device's own clock: from an event before it to one after."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


class Worker:
    """One method in a process of its own on the CPU: other methods' thread pools, and their memory, are not in its way.

    `module` has `method_of(size, method, seed)`, which gives the call to measure.
    """

    def __init__(self, module: str, size: Size, method: str, seed: int) -> None:
        code = f"import sys, kernel_problems, {module}; kernel_problems.serve({module}, *sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(size), method, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
        )
        self.memory = self._read()

    def seconds(self) -> float:
        """Run once more; a pause before lets the threads of the one before come to rest."""
        time.sleep(0.3)
        assert self.process.stdin is not None
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _read(self) -> float:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("measured "):
                return float(line.split()[1])
        raise RuntimeError(f"A benchmark process ended with code {self.process.wait()}; see above.")


def serve(module: Any, size: str, method: str, seed: str) -> None:
    """A worker's side: the extra memory first, then times on demand.

    Memory is that of the first call on this size, after one on a small problem, since a process keeps what it freed; what
    is compiled has its second call measured, since compiling takes more.
    """
    wanted = Size.parse(size, "cpu")
    module.method_of(Size(8, 2000, wanted.dimension, wanted.dtype), method, int(seed))()
    function = module.method_of(wanted, method, int(seed))
    if "compile" in method:
        function()
    print("measured", peak_memory(function, "cpu"), flush=True)
    for _ in sys.stdin:
        print("measured", seconds_of(function), flush=True)


def in_turns(calls: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each call measures in each round, one after the other, so that a slow minute slows all; one round of warming up."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            measured = call()
            if number:
                found[name].append(measured)
    return found


def quantiles(samples: list[float]) -> tuple[float, float, float]:
    """p20, p50, p80."""
    low, middle, high = (float(value) for value in np.quantile(samples, [0.2, 0.5, 0.8]))
    return low, middle, high


def peak_memory(function: Callable[[], object], device: str) -> float:
    """Bytes by which a call raises the peak, of the process on a CPU, of torch's allocator on CUDA."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated() - before)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    before = resident("VmHWM")
    function()
    return resident("VmHWM") - before


def resident(which: str) -> float:
    """VmRSS, its peak VmHWM, or what is not of files, RssAnon, in bytes; on Linux."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024.0 * float(status.split(f"{which}:")[1].split()[0])
