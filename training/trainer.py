"""Training, from a data set and a configuration to a run directory. Reads from top to bottom."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset, Split
from xmc.data.token_cache import cached_tokens
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder
from xmc.encoders.dual import DualEncoder, build_encoder
from xmc.errors import DataError, NotFiniteError, StoreError, TrainingError
from xmc.evaluation import evaluate_split
from xmc.kernels import losses
from xmc.retriever import Retriever
from xmc.store import LOG, refuse_foreign_directory
from xmc.training.negatives import Candidates, build_negatives
from xmc.training.optimizers import Optimizers
from xmc.training.progress import TrainingProgress

__all__ = ["TrainResult", "train"]

logger = logging.getLogger("xmc.training")


@dataclass(frozen=True)
class TrainResult:
    """Where the run is, and how training went.

    seconds: tokenising and all steps, without validation, label indexing and saving.
    interrupted: stopped by Ctrl-C; the run is the model as it was then.
    """

    directory: Path
    steps: int
    seconds: float
    loss: float
    interrupted: bool


@dataclass(frozen=True)
class _Data:
    """What the steps read: the training part, its validation part if any, and the features of both sides."""

    dataset: Dataset
    training: Split
    validation: Split | None
    query_features: RaggedTokens
    label_features: RaggedTokens


def train(
    dataset: Dataset, config: TrainConfig | None = None, out: str | Path = "runs/run", *, overwrite: bool = False
) -> TrainResult:
    """Train a dual encoder on the split "train" and write a run directory that `Retriever.load` reads.

    While it runs, `out/metrics.jsonl` gets a line a step. Ctrl-C ends training early and still writes the run. With a
    validation share, the epoch with the best P@1 on the held-out queries is kept, and training stops `patience` epochs
    after it. The same seed, configuration, data, machine and thread count give the same model.

    Raises
    ------
    StoreError: `out` holds something already and `overwrite` is not set, or holds something that is not a run.
    DataError: the data set has no split "train", or too few queries for one batch.
    ConfigError: a configuration that does not fit (see TrainConfig).
    TrainingError: the loss is not finite any more; no run is written then.
    """
    config = config or TrainConfig()
    out = Path(out)
    refuse_foreign_directory(out, "run")
    if not overwrite and (out / "manifest.json").exists():
        raise StoreError(f"{out} already holds a run; name another directory, or overwrite it explicitly.")
    start = time.perf_counter()
    device = _device(config)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        generator = torch.Generator().manual_seed(config.seed)
        model = build_encoder(config, len(dataset.labels), generator).to(device)
        data = _prepare(dataset, config, model)
        logger.info(
            "training on %d queries and %d labels, %s encoder, dimension %d, negatives %s, device %s, seed %d",
            len(data.training), len(dataset.labels), config.encoder, model.dimension, config.negatives, device, config.seed,
        )  # fmt: skip
        return _Run(config, model, data, out, device, generator, time.perf_counter() - start).fit()


class _Run:
    """One training run in progress."""

    def __init__(
        self,
        config: TrainConfig,
        model: DualEncoder,
        data: _Data,
        out: Path,
        device: torch.device,
        generator: torch.Generator,
        prepared: float,
    ) -> None:
        self.config, self.model, self.data = config, model, data
        self.out, self.device, self.generator = out, device, generator
        self.optimizers = Optimizers(model, config)
        self.order = np.random.default_rng(config.seed)
        self.batches = max(1, len(data.training) // config.batch_size)
        self.negatives = build_negatives(config, data.training.positives, len(data.training) / self.batches)
        self.total = self.batches * config.epochs
        self.steps = 0
        self.seconds = prepared
        self.loss = float("nan")
        self.best: tuple[float, int] | None = None

    def fit(self) -> TrainResult:
        """All epochs, then the run directory."""
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / LOG).unlink(missing_ok=True)
        interrupted = False
        try:
            with TrainingProgress(self.total, self.config.batch_size) as progress:
                for epoch in range(self.config.epochs):
                    self._epoch(epoch, progress)
                    if self.data.validation is not None and self._validate(epoch, self.data.validation):
                        break
        except KeyboardInterrupt:
            interrupted = True
            logger.warning("interrupted after %d of %d steps; the run is written as it is now", self.steps, self.total)
        if interrupted or self.best is None:
            self._save(self._retriever(), interrupted)
        return TrainResult(self.out, self.steps, self.seconds, self.loss, interrupted)

    def _epoch(self, epoch: int, progress: TrainingProgress) -> None:
        self.model.train()
        for rows in _batches(len(self.data.training), self.batches, self.order):
            start = time.perf_counter()
            try:
                self.loss = self._step(rows)
            except NotFiniteError:
                self.loss = math.nan
            if not math.isfinite(self.loss):
                raise TrainingError(
                    f"The loss of step {self.steps + 1} is {self.loss}: training diverged. Lower learning_rate, "
                    f"weight_learning_rate or label_vector_learning_rate, or raise temperature."
                )
            self.optimizers.step(_schedule(self.steps, self.total, self.config.warmup))
            self.steps += 1
            elapsed = time.perf_counter() - start
            self.seconds += elapsed
            progress.advance(epoch, self.loss)
            self._log(step=self.steps, epoch=epoch, loss=self.loss, seconds=round(self.seconds, 4))

    def _step(self, rows: npt.NDArray[np.int64]) -> float:
        """Forward and backward of one batch; returns the loss. Embeddings live no longer than this call."""
        config, data, model = self.config, self.data, self.model
        candidates = self.negatives.candidates(data.training.positives[rows])
        everything = len(candidates.rows) == len(data.label_features)
        label_features = data.label_features if everything else data.label_features.take(candidates.rows.numpy())
        queries = model.queries(data.query_features.take(rows), config.token_dropout, self.generator)
        labels = model.labels(
            label_features,
            candidates.rows.to(self.device),
            config.label_token_dropout,
            config.label_vector_dropout,
            self.generator,
        )
        loss = self._loss(queries, labels, candidates)
        del queries, labels
        loss.backward()
        return float(loss.detach())

    def _loss(self, queries: Tensor, labels: Tensor, candidates: Candidates) -> Tensor:
        loss: Callable[..., Tensor] = getattr(losses, self.config.loss)
        options: dict[str, Any] = {"tile_bytes": self.config.tile_bytes}
        if candidates.log_inclusion is not None:
            options["log_inclusion"] = candidates.log_inclusion.to(queries.device)
        return loss(queries, labels, candidates.positives.to(queries.device), self.model.temperature, **options)

    def _validate(self, epoch: int, validation: Split) -> bool:
        """Evaluate, keep the run if it is the best so far; True when training should stop."""
        retriever = self._retriever("exact")
        values = evaluate_split(retriever, self.data.dataset, validation, self.data.training).values
        self._log(step=self.steps, epoch=epoch, validation=values)
        logger.info("epoch %d: P@1 %.2f, P@5 %.2f on the held-out queries", epoch + 1, values["P@1"], values["P@5"])
        if self.best is None or values["P@1"] > self.best[0]:
            self.best = (values["P@1"], epoch)
            indexed = retriever if self.config.index == "exact" else self._retriever()
            self._save(indexed, interrupted=False, validation=values)
        stop = epoch - self.best[1] >= self.config.patience
        if stop:
            logger.info("stopped: no better P@1 since epoch %d", self.best[1] + 1)
        return stop

    def _retriever(self, index: str = "") -> Retriever:
        table = self.data.dataset.labels
        return Retriever.from_model(self.model, table.uids.to_pylist(), table.texts.to_pylist(), self.config, index)

    def _save(self, retriever: Retriever, interrupted: bool, validation: dict[str, float] | None = None) -> None:
        retriever.metrics = {
            "training": {
                "dataset": self.data.dataset.name,
                "dataset_fingerprint": self.data.dataset.fingerprint,
                "steps": self.steps,
                "seconds": self.seconds,
                "loss": self.loss,
                "interrupted": interrupted,
            }
        }
        if validation is not None:
            retriever.metrics["validation"] = validation
        retriever.save(self.out, overwrite=True)

    def _log(self, **values: Any) -> None:
        with (self.out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def _prepare(dataset: Dataset, config: TrainConfig, model: DualEncoder) -> _Data:
    if "train" not in dataset.splits:
        raise DataError(
            f"The data set {dataset.name!r} has no split train, only {', '.join(dataset.splits) or 'none'}."
        )
    training, validation = dataset.split("train"), None
    if config.validation > 0:
        shuffled = np.random.default_rng(config.seed).permutation(len(training))
        held_out = max(1, round(len(training) * config.validation))
        validation = training.take(np.sort(shuffled[:held_out]))
        training = training.take(np.sort(shuffled[held_out:]))
    if not len(training) or not len(dataset.labels):
        raise DataError(f"The data set {dataset.name!r} has no training queries or no labels.")

    def features(encoder: Encoder, texts: Any, description: str) -> RaggedTokens:
        cache = Path(config.token_cache) if config.token_cache else None
        return cached_tokens(texts, encoder.featurize, encoder.features_key, cache, description)

    query_features = features(model.query_encoder, training.texts, "queries")
    label_features = features(model.label_encoder, dataset.labels.texts, "labels")
    return _Data(dataset, training, validation, query_features, label_features)


def _device(config: TrainConfig) -> torch.device:
    if config.device == "auto":
        # The static encoder is memory traffic in numba, on the CPU.
        on_gpu = config.encoder != "static" and torch.cuda.is_available()
        return torch.device("cuda" if on_gpu else "cpu")
    return torch.device(config.device)


def _batches(queries: int, batches: int, order: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of each batch of an epoch: a random order cut into equal parts (which differ by one row at most)."""
    yield from np.array_split(order.permutation(queries), batches)


def _schedule(step: int, total: int, warmup: float) -> float:
    """Linear warm-up over the share `warmup` of the steps times linear decay to zero."""
    rise = min(1.0, (step + 1) / max(1.0, warmup * total))
    return rise * (1.0 - step / total)
