"""Federated rounds, from clients' data sets and a configuration to a run directory of the averaged model.

What crosses between clients is encoder weights, the numbers of their queries, and how the average scores on their validation
queries. That is not a protection of what clients have: weights say something of the texts that they were trained on.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from xmc.config import CheckpointConfig, TrainConfig
from xmc.config.federated import FederatedConfig
from xmc.data.dataset import Dataset
from xmc.data.splits import Split
from xmc.encoders.dual import DualEncoder, build_encoder
from xmc.errors import DataError, InputError
from xmc.evaluation.evaluate import evaluate_split
from xmc.progress import progress
from xmc.search.retriever import Retriever
from xmc.search.run_metrics import RunMetrics, TrainingRecord
from xmc.storage.fingerprints import fingerprint_of
from xmc.training.checkpoints import Checkpoints, may_write, require_same, settings_that_matter
from xmc.training.device import training_device
from xmc.training.distributed import World, distributed
from xmc.training.federated.averaging import Average
from xmc.training.federated.local import Client
from xmc.training.log import TrainingLog
from xmc.training.parts import steps_of_epoch
from xmc.training.stopping import StopRequest
from xmc.training.weights import shared_tensors

__all__ = ["FederatedResult", "Round", "federate"]

logger = logging.getLogger("xmc.training")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Round:
    """A round, counted from 1.

    loss: mean over the clients of their last step's. sent: mean and largest number of bytes that a client sent. pseudo_labels:
    number of queries that had one, of all clients; agreeing: of those for which the clients' own models and the average named
    the same label. validation: the metric of the averaged model on the clients' validation queries, None without such.
    """

    round: int
    loss: float
    sent: tuple[float, int]
    pseudo_labels: int
    agreeing: int
    validation: float | None
    seconds: float


@dataclass(frozen=True)
class FederatedResult:
    """Where the run is, and how the rounds went. metric: of `Round.validation`. interrupted: before the last round."""

    directory: Path
    rounds: tuple[Round, ...]
    metric: str
    interrupted: bool


def federate(
    clients: Sequence[Dataset],
    config: TrainConfig | None = None,
    out: str | Path = "runs/run",
    options: FederatedConfig | None = None,
    *,
    validation: Sequence[Dataset] | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> FederatedResult:
    """Train one encoder on the queries of clients that share no text, and write a run directory that `Retriever.load` reads.

    In each round every client begins with the average of the last one, trains for some of `config.epochs` with its own
    queries, and sends the rows of its weights that changed; the mean of all, weighted by numbers of queries, is the next
    average. Label vectors stay with clients: labels of the run are their texts alone. What clients do with queries that are not
    labelled is said by `options`.

    Under torchrun, clients are spread over the processes, and the result is that of one process. After each round a checkpoint
    is written, from which `resume` goes on; Ctrl-C ends training after the round in progress, and the run is written as it is.

    validation: data sets whose split `config.validation.split` is evaluated after each round, by default the clients'.

    Raises ConfigError for a configuration that does not fit, InputError for fewer than two clients, StoreError for an `out`
    that must stay, DataError for a client none of whose training queries is labelled, TrainingError for a loss that is not
    finite.
    """
    config, options, out = config or TrainConfig(), options or FederatedConfig(), Path(out)
    options.rounds_of(config)
    if len(clients) < 2:
        raise InputError(f"There are {len(clients)} clients; federated rounds need two or more.")
    device = training_device(config)
    with torch.random.fork_rng(), distributed(device) as world, StopRequest() as stop:
        resume = world.from_root(may_write(out, CheckpointConfig(), overwrite, resume) if world.is_root else None)
        federation = _Federation(clients, config, options, out, clients if validation is None else validation, world)
        federation.server.place(device)
        return federation.run(resume, stop)


class _Federation:
    """All rounds, in one of the processes."""

    def __init__(
        self,
        datasets: Sequence[Dataset],
        config: TrainConfig,
        options: FederatedConfig,
        out: Path,
        validation: Sequence[Dataset],
        world: World,
    ) -> None:
        self.config, self.out, self.world, self.rounds = config, out, world, options.rounds_of(config)
        self.labels, self.validation = datasets[0].labels, validation
        self.checkpoints = Checkpoints(out, CheckpointConfig(keep=1))
        self.clients = [
            Client(number, dataset, config, options, self.checkpoints.directory)
            for number, dataset in enumerate(datasets, start=1)
        ]
        self.server = _server(config)
        self.split = config.validation.split
        self._require_queries()
        self.name = datasets[0].name
        self.fingerprint = fingerprint_of({str(number): data.fingerprint for number, data in enumerate(datasets)})
        matters = settings_that_matter(config)
        matters |= {f"federated.{key}": value for key, value in options.to_mapping().items()}
        self.identity = {"config": matters, "dataset": self.fingerprint}
        self.done: list[Round] = []

    def _require_queries(self) -> None:
        """Raise DataError where a client has nothing to learn from, or nothing can be validated on, before any round."""
        for client in self._of_this_process(self.clients):
            if not client.dataset.targets("train").truth.nnz:
                where = client.dataset.directory or client.dataset.name
                raise DataError(
                    f"No training query of {client.name} of {len(self.clients)}, {where}, has a positive label; label some, or "
                    f"leave the client out."
                )
        if self.split is None:
            return
        for dataset in self.validation:
            if self.split not in dataset.splits:
                raise DataError(
                    f"validation.split is {self.split!r}, but the data set {dataset.name!r} has the splits "
                    f"{', '.join(dataset.splits)}; name one that all have, or leave it out."
                )
        most = max(
            (_labelled(dataset.split(self.split)) for dataset in self._of_this_process(self.validation)), default=0
        )
        if not self.world.most(most):
            raise DataError(
                f"validation.split is {self.split!r}, none of whose queries is labelled; name another split, or leave it out."
            )

    def _of_this_process(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those of some clients or data sets that this process reads."""
        return items[self.world.rank :: self.world.size]

    def run(self, resume: bool, stop: StopRequest) -> FederatedResult:
        """The rounds that are left, then the run directory."""
        rounds = self.rounds
        if resume:
            self._resume()
        else:
            self._forget()
        log = TrainingLog(self.out, False)
        if self.world.is_root:
            self.checkpoints.begin()
            log.start(len(self.done))
        interrupted = False
        with progress("federated rounds", rounds, done=len(self.done), unit="rounds", keep=True) as line:
            while len(self.done) < rounds and not interrupted:
                self._round()
                line.advance()
                if self.world.is_root:
                    log.write(len(self.done), **asdict(self.done[-1]))
                    self._write_checkpoint()
                interrupted = self.world.most(int(stop.requested)) > 0 and len(self.done) < rounds
        if self.world.is_root:
            self._save(interrupted)
        if not interrupted:
            self._forget()
        return FederatedResult(self.out, tuple(self.done), self.config.validation.metric, interrupted)

    def _round(self) -> None:
        start, world, number = time.perf_counter(), self.world, len(self.done)
        epochs = range(number * self.config.epochs // self.rounds, (number + 1) * self.config.epochs // self.rounds)
        average, said = Average(self.server, world), []
        device = self.server.log_temperature.device
        for first in range(0, len(self.clients), world.size):
            mine = first + world.rank
            work = self.clients[mine].work(self.server, number, epochs, device) if mine < len(self.clients) else None
            average.add(None if work is None else work.update)
            numbers = [] if work is None else [[work.update.bytes, work.pseudo_labels, work.agreeing, work.loss]]
            said += torch.cat(world.parts(torch.tensor(numbers, dtype=torch.float64).view(-1, 4))).tolist()
        average.finish()
        sent, pseudo_labels, agreeing, losses = zip(*said, strict=True)
        self.done.append(
            Round(
                number + 1,
                sum(losses) / len(losses),
                (sum(sent) / len(sent), int(max(sent))),
                int(sum(pseudo_labels)),
                int(sum(agreeing)),
                self._validate(),
                time.perf_counter() - start,
            )
        )
        if world.is_root:
            logger.info("%s", self.done[-1])

    def _validate(self) -> float | None:
        """The metric of the average over all validation queries, each judged where it is."""
        if self.split is None:
            return None
        metric, total, queries = self.config.validation.metric, 0.0, 0
        retriever = None
        for dataset in self._of_this_process(self.validation):
            split = dataset.split(self.split)
            count = _labelled(split)
            if not count:
                continue
            retriever = retriever or self._retriever("exact")
            found = evaluate_split(retriever, dataset, split, dataset.split("train"), dataset.filter(self.split))
            total, queries = total + count * found[metric], queries + count
        return self.world.mean(total / max(queries, 1), weight=queries)[0]

    def _retriever(self, index: str = "") -> Retriever:
        config = self.config.changed(label_vectors="none")
        uids, texts = self.labels.uids.to_pylist(), [text or "" for text in self.labels.texts.to_pylist()]
        embeddings = self.server.eval().embed_labels(texts, self.server.label_encoder.images_of(self.labels.images))
        model = self.server.with_all_vectors(None)
        return Retriever.from_model(model, uids, texts, config, index, embeddings, self.labels.columns)

    def _save(self, interrupted: bool) -> None:
        """Write the run directory of the average."""
        retriever = self._retriever()
        last = self.done[-1]
        most = max(client.dataset.properties["splits"]["train"] for client in self.clients)
        steps = steps_of_epoch(most, self.config.batch_size) * (last.round * self.config.epochs // self.rounds)
        seconds = sum(one.seconds for one in self.done)
        record = TrainingRecord(steps, seconds, last.loss, self.name, self.fingerprint, interrupted)
        values = None if last.validation is None else {self.config.validation.metric: last.validation}
        retriever.metrics = RunMetrics(record, values)
        retriever.save(self.out, overwrite=True)
        logger.info("%d rounds of %d clients, run in %s", len(self.done), len(self.clients), self.out)

    def _write_checkpoint(self) -> None:
        tensors = {f"model.{name}": tensor for name, tensor in shared_tensors(self.server).items()}
        rounds = [asdict(one) for one in self.done]
        self.checkpoints.save(len(self.done), tensors, {**self.identity, "rounds": rounds})

    def _resume(self) -> None:
        """Take up the latest round that is whole; ConfigError where it is of another configuration or of other clients."""
        checkpoint = self.checkpoints.latest()
        if checkpoint is None:
            logger.info("there is no checkpoint in %s; the first round begins", self.checkpoints.directory)
            self._forget()  # clients may have more, of rounds that nobody goes on from
            return
        require_same(checkpoint, self.identity)
        with torch.no_grad():
            for name, tensor in shared_tensors(self.server).items():
                tensor.copy_(checkpoint.tensor(f"model.{name}"))
        rounds: list[dict[str, Any]] = checkpoint.state["rounds"]
        self.done = [Round(**{**one, "sent": tuple(one["sent"])}) for one in rounds]
        logger.info("resumed after round %d from %s", len(self.done), checkpoint.directory)

    def _forget(self) -> None:
        """Remove what was kept between rounds."""
        for client in self._of_this_process(self.clients):
            client.forget()
        if self.world.most(0) == 0 and self.world.is_root:  # once all have
            for folder in set(self.checkpoints.directory.glob("client-*")) - {
                folder for client in self.clients for folder in (client.folder, client.checkpoints.directory)
            }:
                shutil.rmtree(folder)  # of rounds with more clients
            self.checkpoints.remove()


def _labelled(split: Split) -> int:
    """Number of queries that can be judged by."""
    return len(split) if split.labelled is None else int(split.labelled.sum())


def _server(config: TrainConfig) -> DualEncoder:
    """The model that every client begins with, on the CPU; without label vectors."""
    torch.manual_seed(config.seed)
    model = build_encoder(config.changed(label_vectors="none"), 0, torch.Generator().manual_seed(config.seed))
    model.prepare_for_training(config)
    model.compute_in(config.precision)
    return model
