"""What the accuracy tables share: train each method, predict the test queries in timed batches, evaluate."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from measurements import Measurement, from_samples
from peers import NapkinxcTree, OmikujiBonsai, Predictions
from rich.console import Console

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.metrics import evaluate_predictions
from xmc.search.retriever import Retriever
from xmc.training.trainer import train

__all__ = ["CACHE", "Xmc", "compare", "in_epochs", "measure"]

CACHE = Path(__file__).parents[1] / "build" / "benchmarks"
CANDIDATES = 120
"""Labels asked for a query; what is left after filtering is cut at 100 by R@100."""
BATCHES = 20
console = Console()


class Method(Protocol):
    """Something that learns from the split "train" and ranks labels for texts."""

    name: str

    def train(self, data: Dataset, seed: int) -> float:
        """Learn; seconds."""

    def predict(self, texts: Sequence[str], k: int) -> Predictions:
        """Label rows int64 [n, k] and scores float32 [n, k]."""


class Xmc:
    """This library with a configuration."""

    def __init__(self, config: TrainConfig, name: str = "xmc") -> None:
        self.config, self.name = config, name

    def train(self, data: Dataset, seed: int) -> float:
        """Train, save and load a run; seconds, with embedding and indexing the labels."""
        config = self.config.changed(seed=seed, token_cache=None)  # a repetition tokenises as the first does
        run = CACHE / "runs" / data.name
        start = time.perf_counter()
        train(data, config, run, overwrite=True)
        self.retriever = Retriever.load(run)
        return time.perf_counter() - start

    def predict(self, texts: Sequence[str], k: int) -> Predictions:
        """Ids of the labels of training are their rows in the data set."""
        return self.retriever.search(texts, k)


def in_epochs(method: Xmc, epochs: int | None) -> Xmc:
    """The method, trained for another number of epochs than its configuration says, and named so; None for that number."""
    if epochs in (None, method.config.epochs):
        return method
    return Xmc(method.config.changed(epochs=epochs), f"{method.name}, {epochs} epochs")


def compare(
    table: str, data: Dataset, config: TrainConfig, seed: int, methods: Sequence[str]
) -> Iterator[list[Measurement]]:
    """Yield the measurements of each method in turn; a peer that is not installed is named and left out.

    methods: beginnings of the names of the methods to run; all when empty.
    """
    for method in (Xmc(config), OmikujiBonsai(), NapkinxcTree()):
        if methods and not method.name.lower().startswith(tuple(name.lower() for name in methods)):
            continue
        if not isinstance(method, Xmc) and (command := method.missing()):
            console.print(f"{method.name} is left out, it is not installed: {command}", highlight=False, soft_wrap=True)
            continue
        console.print(f"{table}: {method.name}, seed {seed}", highlight=False)
        yield measure(table, method, data, seed)


def measure(table: str, method: Method, data: Dataset, seed: int) -> list[Measurement]:
    """Train, predict the test queries in timed batches, evaluate."""
    training, test = data.split("train"), data.split("test")
    seconds = method.train(data, seed)
    labels, scores, speeds = _predict(method, test.texts.to_pylist())
    metrics = evaluate_predictions(
        labels,
        scores,
        test.positives,
        training_counts=np.asarray(training.positives.getnnz(axis=0)),
        training_queries=len(training),
        propensity=data.propensity,
        filter=data.filter("test"),
    )
    percent = {**metrics.values, **{f"macro {name}": value for name, value in metrics.macro.items()}}
    return [
        *(Measurement(table, method.name, name, value, "percent", seed) for name, value in percent.items()),
        Measurement(table, method.name, "training", seconds, "seconds", seed),
        from_samples(table, method.name, "prediction", speeds, "queries/second", seed),
    ]


def _predict(method: Method, texts: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], list[float]]:
    """Predictions for all texts, and the queries a second of each of BATCHES equal parts; the first part warms up."""
    method.predict(texts[: len(texts) // BATCHES + 1], CANDIDATES)
    parts: list[Predictions] = []
    speeds = []
    for rows in np.array_split(np.arange(len(texts)), min(BATCHES, len(texts))):
        batch = texts[rows[0] : rows[-1] + 1]
        start = time.perf_counter()
        parts.append(method.predict(batch, CANDIDATES))
        speeds.append(len(batch) / (time.perf_counter() - start))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), speeds
