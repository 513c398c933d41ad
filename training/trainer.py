"""Training, from a data set and a configuration to a run directory. Reads from top to bottom."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.data.splits import Split
from xmc.data.tokens import RaggedTokens
from xmc.encoders.dual import DualEncoder, build_encoder
from xmc.encoders.registry import ENCODERS
from xmc.errors import ConfigError, NotFiniteError, TrainingError
from xmc.evaluation.evaluate import evaluate_split
from xmc.indexes.designs import is_exact
from xmc.search.retriever import Retriever
from xmc.search.run_metrics import RunMetrics, TrainingRecord
from xmc.training.bank import LabelBank, QueryBank
from xmc.training.batches import Batches
from xmc.training.checkpoints import Checkpoints, is_free_to_differ, may_write, require_same, require_space
from xmc.training.data import TrainingData, prepare
from xmc.training.distributed import World, distributed
from xmc.training.distributed.sharding import is_split, load_tensor, split_backbones, whole_model
from xmc.training.embedding import embed_labels, embed_queries, encode_labels
from xmc.training.log import TrainingLog
from xmc.training.negatives import AllLabels, BankedLabels, Batch, LabelSubset, Negatives, Sampled, Source
from xmc.training.optimizers import Optimizers
from xmc.training.prefetch import Prefetcher
from xmc.training.progress import TrainingProgress
from xmc.training.prototypes import Centroids, add_prototypes
from xmc.training.shortlist import Shortlist
from xmc.training.step import Step, StepReport, is_out_of_memory
from xmc.training.stopping import StopRequest

__all__ = ["TrainResult", "train"]

logger = logging.getLogger("xmc.training")

TUNING_QUERIES = 2_000
"""Queries whose embeddings are kept with a run, for tuning its index: they make the recall certain to a fifth of a percent."""


@dataclass
class Progress:
    """How far a run is, and how it went. best: the validation metric's highest value, None before the first."""

    seconds: float
    steps: int = 0
    loss: float = math.nan
    best: float | None = None
    since_best: int = 0
    finished: bool = False


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


def train(
    dataset: Dataset,
    config: TrainConfig | None = None,
    out: str | Path = "runs/run",
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> TrainResult:
    """Train a dual encoder on the split "train" and write a run directory that `Retriever.load` reads.

    While it runs, `out/metrics.jsonl` gets a line a step. Ctrl-C ends training early and still writes the run. With a
    validation share, the model that is best on the held-out queries is kept, and training stops `patience` evaluations
    after it. The same seed, configuration, data, machine and thread count give the same model.

    Checkpoints stand in `<out>.checkpoints` (see CheckpointConfig) until the run is whole. With `resume` the latest is
    taken up, where there is one, and on a CPU the result is that of a run that was never stopped. Under torchrun, queries
    are spread over the processes and labels split between them; the number of processes may change between runs.

    Raises
    ------
    StoreError: `out` holds something already and `overwrite` is not set, or holds something that is not a run.
    DataError: the data set has no split "train", or too few queries for one batch.
    ConfigError: a configuration that does not fit (see TrainConfig).
    TrainingError: the loss is not finite any more; no run is written then.
    """
    config = config or TrainConfig()
    out = Path(out)
    device = _device(config)
    with torch.random.fork_rng(), distributed(device) as world:
        return _train(dataset, config, out, device, world, overwrite, resume)


def _train(
    dataset: Dataset, config: TrainConfig, out: Path, device: torch.device, world: World, overwrite: bool, resume: bool
) -> TrainResult:
    start = time.perf_counter()
    resume = world.from_root(may_write(out, config.checkpoint, overwrite, resume) if world.is_root else None)
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    own = world.own(len(dataset.labels))
    model = build_encoder(config, own.stop - own.start, generator)
    model.prepare_for_training(config)
    if config.label_vectors == "prototypes":
        model.prototypes = add_prototypes(model.dimension, len(dataset.labels), config)
    if config.transformer.shard and world.size > 1:
        split_backbones(model, world, device)
    model.place(device, config.label_vector_memory == "host")
    data = prepare(dataset, config, model)
    if world.is_root:
        logger.info(
            "training on %d queries, %d labels; %s encoder, dimension %d, negatives %s, device %s, %d processes, seed %d",
            len(data.training), len(dataset.labels), config.encoder, model.dimension, config.negatives, device,
            world.size, config.seed,
        )  # fmt: skip
    run = _Run(config, model, data, out, device, world, time.perf_counter() - start)
    if resume:
        run.resume()
    return run.fit()


class _Run:
    """One training run in progress; in every process of the world."""

    def __init__(
        self,
        config: TrainConfig,
        model: DualEncoder,
        data: TrainingData,
        out: Path,
        device: torch.device,
        world: World,
        prepared: float,
    ) -> None:
        self.config, self.model, self.data, self.out, self.world = config, model, data, out, world
        self.labels = world.own(len(data.label_features))
        self.batches = Batches(config, len(data.training))
        self.total = self.batches.count * config.epochs
        self.optimizers = Optimizers(model, config)
        self.negatives, self.shortlist = _negatives(config, data, self.batches, world)
        self.centroids: Centroids | None = None
        if model.prototypes is not None:
            self.centroids = Centroids(model.prototypes, data.training.positives, self.labels, config)
        wanted = self.batches.clustered or self.centroids is not None
        self.queries = QueryBank(len(data.training), model.dimension) if wanted else None
        self.bank: LabelBank | None = None
        if config.negatives == "bank":
            self.bank = LabelBank(self.labels.stop - self.labels.start, model.dimension, device)
        self.step = Step(config, model, data, self.negatives, self.bank, device, world)
        self.log = TrainingLog(out, config.tensorboard and world.is_root)
        self.checkpoints = Checkpoints(out, config.checkpoint)
        self.progress = Progress(seconds=prepared)

    def fit(self) -> TrainResult:
        """All epochs that are left, then the run directory."""
        progress = self.progress
        if self.world.is_root:
            require_space(self.out, self._bytes_on_disk)
            self.checkpoints.begin()
            self.log.start(progress.steps)
        if not progress.steps:
            self._begin()
        stop = StopRequest()
        try:
            with stop, TrainingProgress(self.total, self.config.batch_size, progress.steps, self.world.is_root) as bar:
                while progress.steps < self.total and not stop.requested and not progress.finished:
                    self._epoch(bar, stop)
        finally:
            self.log.close()
            if self.shortlist is not None:
                self.shortlist.close()
        if stop.requested:
            logger.warning(
                "interrupted after %d of %d steps; the run is written as it is now", progress.steps, self.total
            )
            self._checkpoint()
        if stop.requested or progress.best is None:
            self._save(self._retriever(), stop.requested)
        elif self.world.is_root and not is_exact(self.config.index, len(self.data.label_features)):
            best = Retriever.load(self.out)  # saved with exact search, as it was validated
            best.reindex(self.config.index)
            best.save(self.out, overwrite=True)
        if self.world.is_root and not stop.requested:
            self.checkpoints.remove()
        return TrainResult(self.out, progress.steps, progress.seconds, progress.loss, stop.requested)

    def _begin(self) -> None:
        """What the first step needs of all labels and all queries."""
        if self.bank is None and self.centroids is None:
            return
        texts = encode_labels(self.model, self.data.label_features, self.world)
        if self.bank is not None:
            self.bank.fill(texts)
        if self.centroids is not None and self.queries is not None:
            self.queries.fill(torch.from_numpy(embed_queries(self.model, self.data.query_features)))
            self.centroids.begin(torch.cat(self.world.parts(texts)), self.queries.embeddings.numpy())

    def resume(self) -> None:
        """Take up the latest checkpoint; StoreError when it is of another configuration or data set. Nothing without one."""
        checkpoint = self.checkpoints.latest()
        if checkpoint is None:
            logger.info("there is no checkpoint in %s; training begins at the first step", self.checkpoints.directory)
            return
        require_same(checkpoint, self._identity())
        with torch.no_grad():
            for name, tensor in self._shared_tensors().items():
                load_tensor(tensor, checkpoint, "model." + name)
            if self.model.label_vectors is not None:
                self.model.label_vectors.copy_(checkpoint.tensor("model.label_vectors", self.labels))
        self.optimizers.load_state(checkpoint, self.labels)
        if self.bank is not None:
            self.bank.load_state(checkpoint, self.labels)
        if self.centroids is not None:
            self.centroids.load_state(checkpoint)
        for part in (self.batches, self.queries, self.shortlist):
            if part is not None:
                part.load_state(checkpoint)
        self.progress = Progress(**checkpoint.state["progress"])
        logger.info("resumed after step %d of %d from %s", self.progress.steps, self.total, checkpoint.directory)

    def _epoch(self, bar: TrainingProgress, stop: StopRequest) -> None:
        """What is left of the epoch that the progress is in."""
        epoch, done = divmod(self.progress.steps, self.batches.count)
        order = self.batches.epoch(epoch, self._query_embeddings)
        if self.centroids is not None and self.config.prototypes.centroids == "stale" and epoch and not done:
            self.centroids.renew(self._query_embeddings())
        with Prefetcher(order[done:], self.progress.steps, self._batch) as prefetched:
            for batch, features in prefetched:
                self._train_step(epoch, batch, features)
                bar.advance(epoch, self.progress.loss)
                if self._validation_is_due() and self.data.validation is not None:
                    self._validate(epoch, self.data.validation)
                stop.requested = self.world.mean(float(stop.requested))[0] > 0  # all processes stop after one step
                if stop.requested or self.progress.finished:
                    return
                if self.world.from_root(self.checkpoints.due(self.progress.steps)):
                    self._checkpoint()

    def _batch(self, step: int, rows: npt.NDArray[np.int64]) -> tuple[Batch, RaggedTokens]:
        batch = self.data.known.batch(step, rows)
        return batch, self.step.dropped_queries(batch)

    def _train_step(self, epoch: int, batch: Batch, features: RaggedTokens) -> None:
        start = time.perf_counter()
        clock, data, config = self.step.clock, self.data, self.config
        if self.shortlist is not None:
            with clock.of("data"):
                known = data.known.pairs
                self.shortlist.refresh(batch.step, self.model, data.query_features, data.label_features, known)
        self.model.train()
        try:
            report = self.step.run(batch, features)
        except NotFiniteError:
            report = StepReport(math.nan, 0, 0)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"Step {batch.step + 1} ran out of memory. Set gradient_cache, or lower transformer.micro_batch_size, "
                f"batch_size or tile_bytes; `xmc train --dry-run` says what takes how much. ({error})"
            ) from error
        if not math.isfinite(report.loss):
            raise TrainingError(
                f"The loss of step {batch.step + 1} is {report.loss}: training diverged. Lower learning_rate, "
                f"weight_learning_rate or label_vector_learning_rate, or raise temperature."
            )
        if self.queries is not None and report.queries is not None:
            self.queries.record(torch.from_numpy(batch.rows), report.queries)
            if self.centroids is not None:
                self.centroids.move(batch.positives, report.queries)
        with clock.of("exchange"):
            self.world.sum_gradients(
                self.optimizers.dense_parameters, [table.table for table in self.optimizers.tables]
            )
        with clock.of("optimizer"):
            factor = _schedule(batch.step, self.total, config)
            norm = self.optimizers.step(factor)
        seconds = time.perf_counter() - start
        progress = self.progress
        progress.steps, progress.loss, progress.seconds = batch.step + 1, report.loss, progress.seconds + seconds
        values: dict[str, Any] = {"epoch": epoch, "loss": report.loss, "seconds": round(progress.seconds, 4)}
        texts, tokens = (round(mean * self.world.size) for mean in self.world.mean(report.texts, report.tokens))
        values |= {"learning_rate": factor * config.encoder_learning_rate, "texts": texts, "tokens": tokens}
        values["queries_per_second"] = round(len(batch.rows) / seconds, 2)
        values["tokens_per_second"] = round(tokens / seconds, 1)
        if self.optimizers.dense is not None:
            values["gradient_norm"] = norm
        if report.bank is not None:
            values["bank"] = asdict(report.bank)
        if self.world.is_root:
            self.log.write(progress.steps, **values, time=clock.shares())

    def _validation_is_due(self) -> bool:
        every = self.config.validation_steps or self.batches.count
        return self.progress.steps % every == 0

    def _validate(self, epoch: int, validation: Split) -> None:
        """Evaluate, keep the run if it is the best so far, and say whether training should stop."""
        progress = self.progress
        name = self.config.validation_metric
        retriever = self._retriever("exact")
        values = self.world.from_root(None if retriever is None else self._evaluate(retriever, epoch, validation))
        if name not in values:
            raise ConfigError(f"validation_metric must be one of {', '.join(values)}, but is {name!r}.")
        progress.since_best += 1
        if progress.best is None or values[name] > progress.best:
            progress.best, progress.since_best = values[name], 0
            self._save(retriever, False, values)
        progress.finished = progress.since_best >= self.config.patience
        if progress.finished:
            logger.info("stopped: no better %s for %d evaluations", name, progress.since_best)

    def _evaluate(self, retriever: Retriever, epoch: int, validation: Split) -> dict[str, float]:
        values = evaluate_split(retriever, self.data.dataset, validation, self.data.training).values
        self.log.write(self.progress.steps, epoch=epoch, validation=values)
        logger.info(
            "step %d: P@1 %.2f, P@5 %.2f on the held-out queries", self.progress.steps, values["P@1"], values["P@5"]
        )
        return values

    def _query_embeddings(self) -> npt.NDArray[np.float32]:
        """Of all training queries, as they were when last in a batch; encoded now where some never were."""
        if self.queries is None or not bool(self.queries.seen.all()):
            return embed_queries(self.model, self.data.query_features)
        return self.queries.embeddings.numpy()

    def _retriever(self, index: str = "") -> Retriever | None:
        """The model with all labels, in the root process; every process gives its labels to it."""
        with self._exact_centroids():
            embeddings = self.world.to_root(embed_labels(self.model, self.data.label_features, self.world))
        vectors = None if self.model.label_vectors is None else self.world.to_root(self.model.label_vectors)
        whole = whole_model(self.model, vectors, self.config, self.world)
        if embeddings is None or whole is None:
            return None
        table = self.data.dataset.labels
        uids, texts = table.uids.to_pylist(), table.texts.to_pylist()
        queries = None if index else self._tuning_queries(whole)
        own = embeddings.numpy()
        return Retriever.from_model(whole, uids, texts, self.config, index, own, table.columns, queries)

    @contextlib.contextmanager
    def _exact_centroids(self) -> Iterator[None]:
        """While it lasts, prototypes have the centroids of all queries by the model as it is, not those of training."""
        if self.centroids is None:
            yield
            return
        prototypes = self.centroids.prototypes
        before = prototypes.centroids
        self.centroids.renew(embed_queries(self.model, self.data.query_features))
        try:
            yield
        finally:
            prototypes.centroids = before

    def _tuning_queries(self, model: DualEncoder) -> npt.NDArray[np.float32]:
        """Embeddings of queries to tune the index with: held out from training where some are."""
        split = self.data.validation or self.data.training
        drawn = np.random.default_rng(self.config.seed).permutation(len(split))[:TUNING_QUERIES]
        some = split.take(np.sort(drawn))
        return model.embed_queries(some.texts.to_pylist(), model.query_encoder.images_of(some.images))

    def _save(self, retriever: Retriever | None, interrupted: bool, validation: dict[str, float] | None = None) -> None:
        if retriever is None:
            return
        if not len(retriever.tuning_queries):
            retriever.tuning_queries = self._tuning_queries(retriever.model)
        record = TrainingRecord(
            self.progress.steps,
            self.progress.seconds,
            self.progress.loss,
            self.data.dataset.name,
            self.data.dataset.fingerprint,
            interrupted,
        )
        retriever.metrics = RunMetrics(record, validation)
        retriever.save(self.out, overwrite=True)

    def _checkpoint(self) -> None:
        """Write what `resume` takes up; the root writes, every process gives its rows."""
        shared, own = self.optimizers.state()
        shared |= {"model." + name: tensor for name, tensor in self._shared_tensors().items()}
        own |= {name: tensor for name, tensor in shared.items() if is_split(tensor)}
        tensors = {name: tensor for name, tensor in shared.items() if name not in own}
        if self.model.label_vectors is not None:
            own["model.label_vectors"] = self.model.label_vectors
        if self.bank is not None:
            own |= self.bank.state()
        if self.centroids is not None:
            own |= self.centroids.state()
        for part in (self.batches, self.queries, self.shortlist):
            if part is not None:
                tensors |= part.state()
        for name, tensor in own.items():
            whole = self.world.to_root(tensor)
            if whole is not None:
                tensors[name] = whole
        if self.world.is_root:
            state = {**self._identity(), "progress": asdict(self.progress)}
            self.checkpoints.save(self.progress.steps, tensors, state)

    def _shared_tensors(self) -> dict[str, Tensor]:
        """Parameters that are learned, and buffers, that every process has, whole or split, by name."""
        learned = [(name, one) for name, one in self.model.named_parameters() if one.requires_grad]
        return {name: tensor for name, tensor in [*learned, *self.model.named_buffers()] if name != "label_vectors"}

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the run that takes it up."""
        fixed = {name: value for name, value in self.config.to_mapping().items() if not is_free_to_differ(name)}
        return {"config": fixed, "dataset": self.data.dataset.fingerprint}

    def _bytes_on_disk(self) -> int:
        """Of a run directory, twice while one is replaced, and of one more checkpoint than are kept."""
        labels, dimension = len(self.data.label_features), self.model.dimension
        learned = _bytes(self._shared_tensors().values())
        saved = learned  # adapters are saved alone
        if not self.config.transformer.lora.rank:
            saved = _bytes(one for name, one in self.model.named_parameters() if name != "label_vectors")
        vectors = 0 if self.model.label_vectors is None else 4 * labels * dimension
        run = saved + vectors + 8 * labels * dimension
        bank = 0 if self.bank is None else 4 * labels * dimension
        return 2 * run + (self.config.checkpoint.keep + 1) * (3 * (learned + vectors) + bank)


def _negatives(
    config: TrainConfig, data: TrainingData, batches: Batches, world: World
) -> tuple[Negatives, Shortlist | None]:
    """What a configuration names, and its shortlist if it has one."""
    positives, names = data.training.positives, config.negatives.split("+")
    if names == ["all"]:
        return AllLabels(positives.shape[1], config.relevance_weights), None
    if names == ["bank"]:
        return BankedLabels(positives.shape[1], config), None
    shortlist = Shortlist(config.shortlist, config.seed, world) if "shortlist" in names else None
    sources: list[Source] = [] if shortlist is None else [shortlist]
    if "sampled" in names:
        mean = len(data.training) / batches.count
        sources.append(Sampled(positives, config.sampled_negatives, mean, config.seed))
    return LabelSubset(sources, config.relevance_weights), shortlist


def _device(config: TrainConfig) -> torch.device:
    if config.device == "auto":
        on_gpu = ENCODERS[config.encoder].runs_on_gpu and torch.cuda.is_available()
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    return torch.device(config.device)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _schedule(step: int, total: int, config: TrainConfig) -> float:
    """Linear warm-up over the configured steps, or share of all steps, times linear decay to zero."""
    warmup = config.warmup * total if config.warmup_steps is None else config.warmup_steps
    rise = min(1.0, (step + 1) / max(1.0, warmup))
    return rise * (1.0 - step / total)
