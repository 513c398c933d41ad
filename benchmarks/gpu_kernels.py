"""Whether the kernels are right and as fast as they must be, on one GPU, in three minutes.

    python benchmarks/gpu_kernels.py [--out FILE.json]     # needs this package, torch and triton, nothing else
    python benchmarks/gpu_kernels.py --small               # on a CPU: the same code on tiny sizes, times not judged

Every loss and the top-k are compared with float64 on the device; then times are measured by CUDA events and compared with
what is required of them: multiples of the floor, that is of the flops that cannot be avoided at the rate of torch.mm in the
same run, or of another method's time. Ends with 0 where everything held, with 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from device_turns import Clock, Measured, measure
from kernel_checks import OPTIONS, TEMPERATURE, Check, check_losses, check_topk
from kernel_problems import Size, embeddings, matmul_rate, quantiles, random_positives

from xmc.kernels import losses
from xmc.kernels.topk import topk_inner_product

SECONDS, RESERVED = 175.0, 6.0
"""Time limit of everything, and what of it is kept for each size to come; what is not measured by then does not hold."""

RAGGED = (Size(37, 403, 40), Size(193, 5003, 100))
LARGE = Size(1000, 300_011, 768)
"""Sizes of the comparisons with float64; no number is a multiple of a tile."""

WIDE, NARROW = 1_310_720, 131_072
REQUIRED = {
    Size(4096, WIDE, 768, "bf16"): 1.15,
    Size(1024, WIDE, 768, "bf16"): 1.25,
    Size(4096, NARROW, 768, "bf16"): 1.5,
    Size(1024, NARROW, 768, "bf16"): 1.5,
}
"""Largest time of forward and backward pass of decoupled softmax, in units of 8·B·L·D flops, by size."""

FORWARD, WARM, COLD, TORCH = 1.0, 1.3, 1.6, 3.0
"""Largest times: of its forward pass in units of 2·B·L·D flops; of soft top-k from known thresholds and from nothing in
units of decoupled softmax; of decoupled softmax by the torch engine in units of 8·B·L·D flops, at TORCH_SIZE."""

DEFAULT, GRAPH = "decoupled softmax", "decoupled softmax, CUDA graph"
FLOAT8_FORWARD = f"{DEFAULT}, float8, forward alone"
TORCH_SIZE = Size(4096, NARROW, 768, "bf16")


@dataclass(frozen=True)
class Search:
    """A search, and its largest times in units of 2·B·L·D flops and of matmul + topk, where there are such."""

    size: Size
    k: int
    floors: float | None = None
    matmuls: float | None = None


SEARCHES = (
    Search(Size(1024, WIDE, 768, "bf16"), 100, 1.4, 0.5),
    Search(Size(1024, WIDE, 768, "fp32"), 100, None, 1.0),
    Search(Size(1024, WIDE, 768, "bf16"), 2048, None, 1.0),
    Search(Size(4096, WIDE, 768, "bf16"), 10),
)


@dataclass(frozen=True)
class Speed:
    """One measured ratio. `required` is the largest that will do, None where nothing is required."""

    what: str
    size: str
    ratio: float
    unit: str
    required: float | None
    milliseconds: float
    extra_mib: float

    @property
    def held(self) -> bool:
        """What was not measured is NaN, and does not hold."""
        return self.required is None or self.ratio <= self.required


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, time, print and write; 0 where everything held, 1 where not, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write everything that was found to this JSON file")
    parser.add_argument("--small", action="store_true", help="tiny sizes, on a CPU; times are not judged")
    options = parser.parse_args(arguments)
    if not options.small and not torch.cuda.is_available():
        print("torch finds no CUDA device; --small tries the script out on a CPU.", file=sys.stderr)
        return 2
    clock = Clock(SECONDS)
    device = "cpu" if options.small else "cuda"
    print(f"{_device_name(device)}, torch {torch.__version__}", flush=True)
    checks = list(_checks(device))
    print(f"{sum(one.held for one in checks)} of {len(checks)} comparisons with float64 held", flush=True)
    for one in checks:
        if not one.held:
            print(f"  {one.what}, {one.size}: error {one.error:.3g}, largest allowed {one.limit:.3g}")
    speeds = list(_speeds(device, clock))
    _print_table(speeds, judged=not options.small)
    print(f"{SECONDS - clock.left():.0f} seconds")
    if options.out:
        _write(options.out, device, checks, speeds)
    held = all(one.held for one in checks) and (options.small or all(one.held for one in speeds))
    print("everything held" if held else "NOT everything held")
    return 0 if held else 1


def _engine(device: str) -> str:
    """Triton on CUDA, and in its interpreter where that is asked for."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None
    return "triton" if device == "cuda" or interpreted else "torch"


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()


def _checks(device: str) -> Iterator[Check]:
    """Ragged sizes with bias and exclusions by every engine; the large one by the device's own."""
    large = Size(24, 1001, 32) if device == "cpu" else LARGE
    for dtype in ("fp32", "bf16"):
        for engine in dict.fromkeys((_engine(device), "torch")):
            for size in RAGGED[:1] if device == "cpu" else RAGGED:
                here = replace(size, dtype=dtype, device=device)
                yield from check_losses(here, engine, 0, extras=True)
                yield from check_topk(here, 13, engine, 0, extras=True)
        here = replace(large, dtype=dtype, device=device)
        yield from check_losses(here, _engine(device), 1, extras=False)
        if _engine(device) == "triton":
            for name, options in OPTIONS.items():
                if name == "float8" and device == "cuda" and torch.cuda.get_device_capability() < (8, 9):
                    continue
                yield from check_losses(here, "triton", 1, extras=False, names=("decoupled_softmax",), **options)
        for k in (100, 700):
            yield from check_topk(here, k, _engine(device), 1, extras=False)


def _speeds(device: str, clock: Clock) -> Iterator[Speed]:
    """All sizes, one after the other; the first ones take the time that compiling takes."""
    to_come = len(REQUIRED) + len(SEARCHES)
    for size, required in REQUIRED.items():
        to_come -= 1
        limit = Clock(clock.left() - RESERVED * to_come)
        yield from _loss_speeds(_here(size, device), required, limit, torch_too=size == TORCH_SIZE)
    for search in SEARCHES:
        to_come -= 1
        here = replace(search, size=_here(search.size, device), k=min(search.k, 200) if device == "cpu" else search.k)
        yield from _search_speeds(here, Clock(clock.left() - RESERVED * to_come))


def _here(size: Size, device: str) -> Size:
    """The size on the device; a tiny one on a CPU."""
    if device == "cpu":
        return Size(size.queries // 128, size.labels // 1024, 24, size.dtype)
    return replace(size, device=device)


def _loss_speeds(size: Size, required: float, clock: Clock, torch_too: bool) -> Iterator[Speed]:
    rate = matmul_rate(size)
    measured = measure(_loss_calls(size, torch_too), clock, size, size.device)
    flops = 2.0 * size.queries * size.labels * size.dimension
    default, forward = DEFAULT, f"{DEFAULT}, forward alone"
    reference = _median(measured, default)
    gradients = (size.queries + size.labels) * size.dimension * (2 if size.dtype == "bf16" else 4)

    def speed(name: str, unit: str, seconds: float, limit: float | None) -> Speed:
        extra = 0 if name in (forward, FLOAT8_FORWARD, GRAPH) else gradients
        return _speed(measured, name, str(size), unit, seconds, limit, extra)

    yield speed(default, "8BLD", 4 * flops / rate, required)
    yield speed(forward, "2BLD", flops / rate, FORWARD)
    yield speed("soft top-k, warm", default, reference, WARM)
    yield speed("soft top-k, from nothing", default, reference, COLD)
    yield speed("softmax, one positive", "8BLD", 4 * flops / rate, None)
    yield speed("binary cross-entropy", "8BLD", 4 * flops / rate, None)
    for name in (GRAPH, *(f"{DEFAULT}, {option}" for option in OPTIONS)):
        if name in measured.seconds:
            yield speed(name, "8BLD", 4 * flops / rate, None)
    if FLOAT8_FORWARD in measured.seconds:
        yield speed(FLOAT8_FORWARD, "2BLD", flops / rate, None)
    if torch_too:
        yield speed(f"{DEFAULT}, torch engine", "8BLD", 4 * flops / rate, TORCH)


def _loss_calls(size: Size, torch_too: bool) -> dict[str, Callable[[], object]]:
    queries, labels, positives = embeddings(size, 0)
    single = random_positives(size, 0, 1)
    inputs = [queries.requires_grad_(), labels.requires_grad_()]
    engine = _engine(size.device)
    threshold = torch.full((size.queries,), torch.nan, device=size.device)

    def step(name: str, pairs: object = positives, impl: str = engine, forward: bool = False, **options: Any) -> None:
        with torch.set_grad_enabled(not forward):
            loss = getattr(losses, name)(*inputs, pairs, TEMPERATURE, impl=impl, **options)
        if not forward:
            torch.autograd.grad(loss, inputs)  # the gradients are dropped

    decoupled, soft = "decoupled_softmax", "soft_topk"
    calls: dict[str, Callable[[], object]] = {
        DEFAULT: partial(step, decoupled),
        f"{DEFAULT}, forward alone": partial(step, decoupled, forward=True),
        "soft top-k, warm": partial(step, soft, threshold=threshold, warm=True),
        "soft top-k, from nothing": partial(step, soft),
        "softmax, one positive": partial(step, "softmax", single),
        "binary cross-entropy": partial(step, "binary_cross_entropy"),
    }
    if torch_too:
        calls[f"{DEFAULT}, torch engine"] = partial(step, decoupled, impl="torch")
    if engine == "triton":
        calls |= {f"{DEFAULT}, {option}": partial(step, decoupled, **given) for option, given in OPTIONS.items()}
        calls[FLOAT8_FORWARD] = partial(step, decoupled, forward=True, **OPTIONS["float8"])
    if size.device == "cuda" and size.labels == NARROW:
        calls[GRAPH] = _Replay(calls[DEFAULT])
    return calls


class _Replay:
    """A call that is captured in a CUDA graph the first time, and replayed from then on: no time between launches."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call, self.graph = call, torch.cuda.CUDAGraph()
        self.captured = False

    def __call__(self) -> None:
        if not self.captured:
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                self.call()
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(self.graph):
                self.call()
            self.captured = True
        self.graph.replay()


def _search_speeds(search: Search, clock: Clock) -> Iterator[Speed]:
    size, k = search.size, search.k
    rate = matmul_rate(size)
    queries, labels, _ = embeddings(size, 0)
    calls = {
        f"top-{k}": lambda: topk_inner_product(queries, labels, k, impl=_engine(size.device)),
        "matmul + topk": lambda: (queries @ labels.T).topk(k, dim=1),
    }
    measured = measure(calls, clock, size, size.device)
    floor = 2.0 * size.queries * size.labels * size.dimension / rate
    yield _speed(measured, f"top-{k}", str(size), "2BLD", floor, search.floors, 0)
    if search.matmuls is not None:
        other = _median(measured, "matmul + topk")
        yield _speed(measured, f"top-{k}", str(size), "matmul + topk", other, search.matmuls, 0)


def _median(measured: Measured, name: str) -> float:
    return quantiles(measured.seconds[name])[1] if name in measured.seconds else float("nan")


def _speed(
    measured: Measured, name: str, size: str, unit: str, seconds: float, required: float | None, held_bytes: float
) -> Speed:
    median = _median(measured, name)
    extra = (measured.memory.get(name, float("nan")) - held_bytes) / 2**20
    return Speed(name, size, median / seconds, unit, required, 1e3 * median, extra)


def _print_table(speeds: Sequence[Speed], judged: bool) -> None:
    rows = [("what", "size", "ms", "extra MiB", "ratio", "unit", "required", "held" if judged else "")]
    for one in speeds:
        required = "" if one.required is None else f"<= {one.required:g}"
        held = ("yes" if one.held else "NO") if judged and required else ""
        numbers = (f"{one.milliseconds:.2f}", f"{one.extra_mib:.0f}", f"{one.ratio:.2f}")
        rows.append((one.what, one.size, *numbers, one.unit, required, held))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if 2 <= number <= 4 else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _write(file: Path, device: str, checks: Sequence[Check], speeds: Sequence[Speed]) -> None:
    found = {
        "device": _device_name(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "checks": [asdict(one) | {"held": one.held} for one in checks],
        "speeds": [asdict(one) | {"held": one.held} for one in speeds],
    }
    file.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
