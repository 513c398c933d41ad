"""Training, from a data set and a configuration to a run directory. Reads from top to bottom."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from xmc.arrays import Rows
from xmc.config import PrototypesConfig, ResidualConfig, TrainConfig
from xmc.data.dataset import Dataset, opened
from xmc.data.tokens import RaggedTokens
from xmc.encoders.dual import DualEncoder, build_encoder
from xmc.errors import InputError
from xmc.indexes.designs import is_exact
from xmc.progress import progress
from xmc.search.retriever import Retriever
from xmc.training.assembly import part_kinds
from xmc.training.batch import Batch
from xmc.training.batches import batches_of_epoch
from xmc.training.callbacks import Callbacks
from xmc.training.checkpoints import Checkpoints, may_write, require_space
from xmc.training.clock import Clock
from xmc.training.data import prepare
from xmc.training.device import training_device
from xmc.training.distributed import World, distributed
from xmc.training.distributed.sharding import split_backbones
from xmc.training.log import TrainingLog, numbers_of
from xmc.training.negatives import JoinedNegatives, NegativeSource
from xmc.training.parts import Progress, TrainingRun
from xmc.training.prefetch import Prefetcher
from xmc.training.progress import TrainingProgress
from xmc.training.prototypes import add_prototypes
from xmc.training.remembering import add_memory
from xmc.training.report import explained_errors, require_finite, step_values
from xmc.training.reranking import add_reranker
from xmc.training.result import TrainResult, best_of
from xmc.training.resuming import bytes_on_disk, resume_run, write_checkpoint
from xmc.training.saving import retriever_of, save_run
from xmc.training.startup import StartUp
from xmc.training.step import Step
from xmc.training.stopping import StopRequest
from xmc.training.validation import validate_where_due

__all__ = ["TrainResult", "train"]

logger = logging.getLogger("xmc.training")


def train(
    dataset: Dataset | str | Path,
    config: TrainConfig | str | Path | None = None,
    out: str | Path = "runs/run",
    *,
    overwrite: bool = False,
    resume: bool = False,
    callbacks: Sequence[Any] = (),
) -> TrainResult:
    """Train a dual encoder on the split "train" and write a run directory that `Retriever.load` reads.

    dataset: may be a name or a directory, as of `Dataset.load`. config: may be a YAML file; the defaults without one.

    While it runs, `out/metrics.jsonl` gets a line a step. Ctrl-C ends training early and still writes the run. With a
    validation share, the model that is best on the held-out queries is kept, and training stops `patience` evaluations
    after it. The same seed, configuration, data, machine and thread count give the same model.

    Checkpoints stand in `<out>.checkpoints` (see CheckpointConfig) until the run is whole. With `resume` the latest is
    taken up, where there is one, and on a CPU the result is that of a run that was never stopped. Under torchrun, queries
    are spread over the processes and labels split between them; the number of processes may change between runs.

    callbacks: objects that hear of steps, evaluations and what is saved, see xmc.training.callbacks.Callback.

    Raises
    ------
    StoreError: `out` holds something already and `overwrite` is not set, or holds something that is not a run.
    DataError: the data set has no split "train", no query or no positive pair in it, or there is no such data set.
    InputError: a data set or a configuration of another type.
    ConfigError: a configuration that does not fit (see TrainConfig).
    TrainingError: the loss is not finite any more, and no run is written; or a callback failed, and a checkpoint stays.
    """
    config, out, startup = _configured(config), Path(out), Clock()
    with startup.of("data set"):
        dataset = opened(dataset)
    with startup.of("device"):
        device = training_device(config)
    with torch.random.fork_rng(), distributed(device) as world:
        start = time.perf_counter()
        resume = world.from_root(may_write(out, config.checkpoint, overwrite, resume) if world.is_root else None)
        run = prepare_run(dataset, config, device, world, startup)
        run.progress = Progress(seconds=time.perf_counter() - start)
        trainer = Trainer(run, out, Callbacks(callbacks, world.is_root))
        if resume:
            with startup.of("checkpoint"):
                resume_run(run, trainer.checkpoints)
        return trainer.fit()


def _configured(config: TrainConfig | str | Path | None) -> TrainConfig:
    if isinstance(config, (str, Path)):
        return TrainConfig.load(config)
    if not isinstance(config, TrainConfig | None):
        raise InputError(
            f"The configuration must be a TrainConfig or a YAML file, but is a {type(config).__name__}; "
            f"TrainConfig.from_mapping takes a dictionary."
        )
    return config or TrainConfig()


def prepare_run(
    dataset: Dataset, config: TrainConfig, device: torch.device, world: World, startup: Clock | None = None
) -> TrainingRun:
    """A run before its first step: the untrained model, the tokens of both sides, and all parts. startup: times all that."""
    startup = startup or Clock()
    with startup.of("model"):
        model = _untrained(dataset, config, device, world)
        precision = model.compute_in(config.precision)
    data = prepare(dataset, config, model, startup)
    run = TrainingRun(config, model, data, device, world, startup=startup, precision=precision)
    for kind in part_kinds(config):
        with startup.of(kind.name):
            run.parts.append(kind.from_run(run))
    if world.is_root:
        logger.info(
            "training on %d queries, %d labels; %s encoder in %s, dimension %d, negatives %s, device %s, %d processes, seed %d",
            len(run.data.training), len(dataset.labels), config.encoder.kind, precision, model.dimension,
            config.negatives_named, device, world.size, config.seed,
        )  # fmt: skip
    return run


def _untrained(dataset: Dataset, config: TrainConfig, device: torch.device, world: World) -> DualEncoder:
    """The model as it is before the first step, on the device."""
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    labels = world.own(len(dataset.labels))
    model = build_encoder(config, labels.stop - labels.start, generator)
    model.prepare_for_training(config)
    if PrototypesConfig.of(config.label_vectors) is not None:
        model.prototypes = add_prototypes(model.dimension, len(dataset.labels), config)
    if config.encoder.is_split and world.size > 1:
        split_backbones(model, world, device, config.precision)
    residual = ResidualConfig.of(config.label_vectors)
    model.place(device, residual is not None and residual.memory == "host")
    return model


class Trainer:
    """The loop over the steps of a run; in every process of the world."""

    def __init__(self, run: TrainingRun, out: Path, callbacks: Callbacks) -> None:
        self.run, self.out, self.callbacks = run, out, callbacks
        self.sources = [part for part in run.parts if isinstance(part, NegativeSource)]
        self.step = Step(run, JoinedNegatives(self.sources, len(run.data.label_features)))
        self.log = TrainingLog(out, run.config.tensorboard and run.world.is_root)
        self.startup = StartUp(run, self.log)
        self.checkpoints = Checkpoints(out, run.config.checkpoint)
        self.stop = StopRequest()
        self.interrupted = False
        """Whether the processes have agreed to stop."""

    def fit(self) -> TrainResult:
        """All epochs that are left, then the run directory."""
        run = self.run
        if run.world.is_root:
            require_space(self.out, lambda: bytes_on_disk(run))
            self.checkpoints.begin()
            self.log.start(run.progress.steps)
        if not run.progress.steps:
            run.begin()
        try:
            with self.stop, progress("training", run.steps, done=run.progress.steps, unit="steps", keep=True) as line:
                bar = TrainingProgress(line, run.config.batch_size)
                while run.progress.steps < run.steps and not self.interrupted and not run.progress.finished:
                    self._epoch(bar)
        finally:
            self.log.close()
            for part in run.parts:
                part.close()
        return self._finish()

    def _epoch(self, bar: TrainingProgress) -> None:
        """The rest of the epoch that the run is in."""
        run = self.run
        epoch, done = divmod(run.progress.steps, run.steps_per_epoch)
        for part in run.parts if not done else ():
            part.before_epoch(run, epoch)
        order = batches_of_epoch(run, self.sources, epoch)
        with Prefetcher(order[done:], run.progress.steps, self._batch) as prefetched:
            for batch, features in prefetched:
                self._train_step(batch, features)
                bar.advance(epoch, run.progress.loss)
                self._validate()
                # All processes stop after one step; a request that comes while they agree is heard after the next.
                if self._agree_to_stop() or run.progress.finished:
                    return
                if run.world.from_root(self.checkpoints.due(run.progress.steps)):
                    self._write_checkpoint()
                    if self._agree_to_stop():
                        return

    def _agree_to_stop(self) -> bool:
        """Whether all processes stop: where one of them is asked to, or a callback failed."""
        wanted = self.stop.requested or self.callbacks.failure is not None
        self.interrupted = self.run.world.most(int(wanted)) > 0
        return self.interrupted

    def _validate(self) -> None:
        """Evaluate where it is time to, and say so to the callbacks."""
        validated = validate_where_due(self.run, self.out, self.log)
        if validated is not None:
            self.callbacks.tell("on_validation", validated.step, validated.values)
            if not self.run.progress.since_best:
                self.callbacks.tell("on_save", validated.step, self.out)

    def _write_checkpoint(self) -> None:
        write_checkpoint(self.run, self.checkpoints)
        steps = self.run.progress.steps
        self.callbacks.tell("on_save", steps, self.checkpoints.path(steps))

    def _batch(self, step: int, rows: Rows) -> tuple[Batch, RaggedTokens]:
        """What of a step can be made ahead of it."""
        batch = self.run.data.known.batch(step, rows)
        return batch, self.step.dropped_queries(batch)

    def _train_step(self, batch: Batch, features: RaggedTokens) -> None:
        """Gradients, and whatever the parts do around them; among the parts are the optimizers."""
        run, start = self.run, time.perf_counter()
        with run.clock.of("data"):
            for part in run.parts:
                part.before_step(run, batch)
        run.model.train()
        with explained_errors(batch):
            report = self.step(batch, features)
        require_finite(batch, report.loss)
        said: dict[str, Any] = {}
        for part in run.parts:
            said |= part.after_step(run, batch, report)
        seconds = time.perf_counter() - start
        progress = run.progress
        progress.steps, progress.loss, progress.seconds = batch.step + 1, report.loss, progress.seconds + seconds
        values = step_values(run, batch, report, seconds, said)
        if run.world.is_root:
            self.startup.after_step(seconds)
            self.log.write(progress.steps, **values)
            self.callbacks.tell("on_step", progress.steps, numbers_of(values))

    def _finish(self) -> TrainResult:
        """Write the run, unless validation wrote the best model already, and put the checkpoints away."""
        run, progress, interrupted = self.run, self.run.progress, self.interrupted
        failure = run.world.from_root(self.callbacks.failure)
        if interrupted:
            self._write_checkpoint()
            left = (
                f"The checkpoint {self.checkpoints.path(progress.steps)} stays; go on with resume once that is mended."
            )
            self.callbacks.raise_failure(failure, left)
            logger.warning(
                "interrupted after %d of %d steps; the run is written as it is now", progress.steps, run.steps
            )
        if interrupted or progress.best is None:
            save_run(run, retriever_of(run), self.out, interrupted)
            self.callbacks.tell("on_save", progress.steps, self.out)
        elif run.world.is_root and not is_exact(run.config.index, len(run.data.label_features)):
            best = Retriever.load(self.out)  # saved with exact search, as it was validated
            best.reindex(run.config.index)
            best.save(self.out, overwrite=True)
        if run.world.is_root and not interrupted:
            add_memory(self.out, run.data.dataset, run.config.memory)
            add_reranker(self.out, run.data.dataset, run.config.rerank)
            self.checkpoints.remove()
        result = self._result()
        self.callbacks.tell("on_end", result)
        if run.world.is_root:
            logger.info("%s", result)
        self.callbacks.raise_failure(run.world.from_root(self.callbacks.failure), f"The run in {self.out} is whole.")
        return result

    def _result(self) -> TrainResult:
        run, progress = self.run, self.run.progress
        result = TrainResult(self.out, progress.steps, progress.seconds, progress.loss, self.interrupted)
        if run.data.validation is None:
            return result
        metric, history = run.config.validation.metric, tuple(progress.history)
        best = best_of(history, metric)
        if (
            best is None or progress.best is None or best.values[metric] < progress.best
        ):  # known from a checkpoint of before
            return replace(result, metric=metric, best=progress.best, history=history)
        return replace(
            result, metric=metric, best=best.values[metric], best_epoch=best.epoch, best_step=best.step, history=history
        )
