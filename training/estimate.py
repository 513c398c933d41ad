"""What a training run will take, before anything starts: memory by part, and work by step."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
import torch
from rich.table import Table
from torch.utils.benchmark import Timer

from xmc.config import PrototypesConfig, TrainConfig
from xmc.data.dataset import Dataset
from xmc.data.held_out import uses_of_queries
from xmc.encoders.dual import DualEncoder, build_encoder
from xmc.training.caching import chosen_caching
from xmc.training.device import training_device
from xmc.training.distributed import World
from xmc.training.objective import Objective
from xmc.training.parts import Sizes, steps_of_epoch
from xmc.training.prototypes import add_prototypes
from xmc.training.step_sizes import Lengths, StepSizes

__all__ = ["Estimate", "estimate", "flops_per_token"]

MEASURED_TEXTS = 2048
"""Texts that are tokenised to know how long texts are."""


@dataclass(frozen=True)
class Estimate:
    """memory: bytes of each process, by what takes them. work: numbers by name, with their units. choices: what the
    configuration leaves open, as this machine would choose, by name.
    """

    memory: dict[str, float]
    work: dict[str, tuple[float, str]]
    choices: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Bytes of each process."""
        return sum(self.memory.values())

    def table(self) -> Table:
        """For people."""
        table = Table(title="Estimated, for each process")
        table.add_column("what")
        table.add_column("how much", justify="right")
        for name, size in self.memory.items():
            table.add_row(name, f"{size / 2**20:,.1f} MiB")
        table.add_row("memory in all", f"{self.total / 2**20:,.1f} MiB", end_section=True)
        for name, (value, unit) in self.work.items():
            table.add_row(name, f"{value:,.1f} {unit}".strip())
        table.add_section()
        for name, choice in self.choices.items():
            table.add_row(name, choice)
        return table


def estimate(dataset: Dataset, config: TrainConfig, processes: int = 1) -> Estimate:
    """Memory of parameters, optimizer, banks, embeddings and activations, and floating point operations of a step.

    Counted, not measured: lengths come from the first 2,048 texts of each side, and allocators add to it. Times are given
    for this machine's rate of matrix products, measured for a moment, if it were reached throughout.
    Raises ConfigError, as `train` does, for nested dimensions and heads of prototypes that do not fit the encoder.
    """
    training, labels = dataset.split("train"), len(dataset.labels)
    model = build_encoder(config, 0, torch.Generator().manual_seed(config.seed))
    model.prepare_for_training(config)
    device = training_device(config)
    computed = model.compute_in(config.precision, device)
    _check(model, labels, config)
    uses = uses_of_queries(len(training), config.validation.share, config.calibration, config.seed, training.labelled)
    lengths = Lengths(
        training.positives.nnz / max(len(training), 1),
        _mean_tokens(model, training.texts[:MEASURED_TEXTS].to_pylist(), True),
        _mean_tokens(model, dataset.labels.texts[:MEASURED_TEXTS].to_pylist(), False),
    )
    sizes = Sizes(config, model, labels, len(uses.training), processes)
    step = StepSizes.expected(sizes, lengths)
    caching = chosen_caching(sizes, step, device)
    memory = {**step.memory(sizes), "activations": step.activations(model, caching.cached)}

    flops = step.tokens * flops_per_token(model, caching.cached)
    scores = 8.0 * step.queries * processes * step.scored * model.dimension
    steps = steps_of_epoch(len(uses.training), config.batch_size) * config.epochs
    dtype = torch.bfloat16 if computed == "bfloat16" else torch.float32
    seconds = flops / _rate(device, dtype) + scores / _rate(device, torch.float32)
    work = {
        "steps": (float(steps), ""),
        "queries a step": (step.queries * processes, ""),
        "labels scored a step": (step.scored * processes, ""),
        "labels encoded a step": (step.encoded * processes, ""),
        "tokens encoded a step": (step.tokens * processes, ""),
        "encoding, a step": (flops / 1e9, "Gflop"),
        "scoring, a step": (scores / 1e9, "Gflop"),
        "a step at the rate of matrix products here": (seconds, "s"),
        "all steps at that rate": (seconds * steps / 60, "minutes"),
    }
    return Estimate(memory, work, {"precision of encoders": computed, "gradient caching": str(caching)})


def _check(model: DualEncoder, labels: int, config: TrainConfig) -> None:
    """Make what finds mistakes when it is made, without memory for its numbers."""
    Objective(config, model.dimension, World())
    if PrototypesConfig.of(config.label_vectors) is not None:
        with torch.device("meta"):
            add_prototypes(model.dimension, labels, config)


def _mean_tokens(model: DualEncoder, texts: list[str], queries: bool) -> float:
    encoder = model.query_encoder if queries else model.label_encoder
    lengths = encoder.featurize([text or "" for text in texts], "query" if queries else "label").lengths
    return float(np.mean(lengths)) if len(lengths) else 0.0


def flops_per_token(model: DualEncoder, twice: bool = False) -> float:
    """Floating point operations of a training step for each token: the forward pass, `twice` with gradient caching, and the
    backward pass.
    """
    cost = model.query_encoder.token_cost()
    return (2 if twice else 1) * cost.forward_flops + cost.backward_flops


@functools.cache
def _rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations a second of a matrix product on the GPU that trains if it is here, else on the CPU."""
    if device.type != "cuda" or not torch.cuda.is_available():
        device = torch.device("cpu")
    size = 4096 if device.type == "cuda" else 1024
    square = torch.randn(size, size, device=device, dtype=dtype)
    best = 0.0

    for _ in range(3):
        seconds = (
            Timer("square @ square", globals={"square": square}, num_threads=torch.get_num_threads()).timeit(3).mean
        )
        best = max(best, 2.0 * size**3 / seconds)
    return best
