"""What a training run will take, before anything starts: memory by part, and work by step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from rich.table import Table
from torch.utils.benchmark import Timer

from xmc.config import PrototypesConfig, TrainConfig
from xmc.data.dataset import Dataset
from xmc.data.held_out import uses_of_queries
from xmc.encoders.dual import DualEncoder, build_encoder
from xmc.kernels.budget import tile_budget
from xmc.training.assembly import part_kinds
from xmc.training.device import training_device
from xmc.training.distributed import World
from xmc.training.negatives import negative_kinds
from xmc.training.objective import Objective
from xmc.training.parts import Sizes, steps_of_epoch
from xmc.training.prototypes import add_prototypes

__all__ = ["Estimate", "estimate", "flops_per_token"]

MEASURED_TEXTS = 2048
"""Texts that are tokenised to know how long texts are."""


@dataclass(frozen=True)
class Estimate:
    """memory: bytes of each process, by what takes them. work: numbers by name, with their units."""

    memory: dict[str, float]
    work: dict[str, tuple[float, str]]

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
    _check(model, labels, config)
    uses = uses_of_queries(len(training), config.validation.share, config.calibration, config.seed)
    steps_per_epoch = steps_of_epoch(len(uses.training), config.batch_size)
    mean = training.positives.nnz / max(len(training), 1)
    if config.objective.positives_per_query is not None:
        mean = min(mean, config.objective.positives_per_query)
    queries = float(math.ceil(max(1, len(uses.training)) / steps_per_epoch)) / processes
    scored, encoded = _labels_of_a_step(config, labels, queries * processes, mean)
    scored, encoded = scored / processes, encoded / processes
    query_tokens = queries * _mean_tokens(model, training.texts[:MEASURED_TEXTS].to_pylist(), True)
    label_tokens = encoded * _mean_tokens(model, dataset.labels.texts[:MEASURED_TEXTS].to_pylist(), False)
    tokens = query_tokens * (1 - config.data.token_dropout) + label_tokens * (1 - config.data.label_token_dropout)

    sizes = Sizes(config, model, labels, len(uses.training), processes)
    memory: dict[str, float] = {}
    for kind in part_kinds(config):
        memory |= kind.memory(sizes)
    # Of labels: text embeddings, sums with vectors, unit embeddings and their gradients, about four at a time.
    memory["embeddings of a step"] = (queries * processes * 3 + encoded + scored * 4) * sizes.row
    memory["scores"] = float(
        min(tile_budget(config.tile_bytes, training_device(config)), 4 * queries * processes * scored)
    )
    memory["activations"] = _activations(model, config, tokens)

    flops = tokens * flops_per_token(model, config.gradient_cache)
    scores = 8.0 * queries * processes * scored * model.dimension
    rate = _rate(training_device(config))
    steps = steps_per_epoch * config.epochs
    seconds = (flops + scores) / rate
    work = {
        "steps": (float(steps), ""),
        "queries a step": (queries * processes, ""),
        "labels scored a step": (scored * processes, ""),
        "labels encoded a step": (encoded * processes, ""),
        "tokens encoded a step": (tokens * processes, ""),
        "encoding, a step": (flops / 1e9, "Gflop"),
        "scoring, a step": (scores / 1e9, "Gflop"),
        "a step at the rate of matrix products here": (seconds, "s"),
        "all steps at that rate": (seconds * steps / 60, "minutes"),
    }
    return Estimate(memory, work)


def _check(model: DualEncoder, labels: int, config: TrainConfig) -> None:
    """Make what finds mistakes when it is made, without memory for its numbers."""
    Objective(config, model.dimension, World())
    if PrototypesConfig.of(config.label_vectors) is not None:
        with torch.device("meta"):
            add_prototypes(model.dimension, labels, config)


def _labels_of_a_step(config: TrainConfig, labels: int, queries: float, mean: float) -> tuple[float, float]:
    """Number of labels that are scored, and of those among them that are encoded."""
    positives = min(float(labels), queries * mean)
    scored = encoded = 0.0
    for kind in negative_kinds(config):
        more_scored, more_encoded = kind.count(config, labels, queries, positives)
        scored, encoded = scored + more_scored, encoded + more_encoded
        if kind.scores_all:
            return scored, encoded
    return min(labels, positives + scored), min(labels, positives + encoded)


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


def _activations(model: DualEncoder, config: TrainConfig, tokens: float) -> float:
    encoder = model.query_encoder
    if config.gradient_cache and encoder.tokens_per_micro_batch is not None:
        tokens = min(tokens, float(encoder.tokens_per_micro_batch))
    return tokens * encoder.token_cost(4 if config.precision == "float32" else 2).activation_bytes


def _rate(device: torch.device) -> float:
    """Floating point operations a second of a matrix product on the GPU that trains if it is here, else on the CPU."""
    if device.type != "cuda" or not torch.cuda.is_available():
        device = torch.device("cpu")
    size = 4096 if device.type == "cuda" else 1024
    square = torch.randn(size, size, device=device)
    best = 0.0

    for _ in range(3):
        seconds = (
            Timer("square @ square", globals={"square": square}, num_threads=torch.get_num_threads()).timeit(3).mean
        )
        best = max(best, 2.0 * size**3 / seconds)
    return best
