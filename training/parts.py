"""What a training run is made of: the run, and its parts, over which the trainer loops and asks none by name."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from typing_extensions import Self

from xmc.cached import cached_property
from xmc.config import TrainConfig
from xmc.encoders.dual import DualEncoder
from xmc.encoders.precision import Computed
from xmc.training.batch import Batch, StepReport
from xmc.training.checkpoints import Checkpoint
from xmc.training.clock import Clock
from xmc.training.data import TrainingData
from xmc.training.distributed import World
from xmc.training.embedding import encode_labels
from xmc.training.result import Validated

__all__ = ["PartState", "Progress", "Sizes", "TrainingPart", "TrainingRun", "bytes_of", "steps_of_epoch"]

P = TypeVar("P", bound="TrainingPart")


@dataclass(frozen=True)
class PartState:
    """The tensors of a part that a checkpoint holds, by name.

    shared: those that every process has, whole, or split over the processes by torch. rows: tensors with a row for each of
    this process's labels; a checkpoint holds the rows of all processes.
    """

    shared: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """What the memory of a part is counted from, before a run begins.

    model: without label vectors. labels, queries: of the data set, and of its training part. processes: of the run.
    """

    config: TrainConfig
    model: DualEncoder
    labels: int
    queries: int
    processes: int

    @property
    def row(self) -> float:
        """Bytes of one embedding in float32."""
        return 4.0 * self.model.dimension

    @property
    def own_labels(self) -> float:
        """Labels of each process."""
        return self.labels / self.processes


@dataclass
class Progress:
    """How far a run is, and how it goes.

    seconds: tokenising and all steps. loss: of the last step. best: the highest value of the validation metric, None before
    the first; since_best: evaluations since. finished: whether validation says that training should end. history: all
    evaluations of the held-out queries; those before it was kept in checkpoints are missing.
    """

    seconds: float
    steps: int = 0
    loss: float = math.nan
    best: float | None = None
    since_best: int = 0
    finished: bool = False
    history: list[Validated] = field(default_factory=list)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """What `asdict` gives, also that of a version without `history`."""
        return cls(**{**values, "history": [Validated(**item) for item in values.get("history", ())]})


@dataclass
class TrainingRun:
    """One training run in one of its processes: what all parts see.

    steps_per_epoch, steps: of an epoch, and of the whole run. parts: in the order in which they are asked. clock: of the steps.
    startup: of what comes before the first. precision: what encoders compute in.
    """

    config: TrainConfig
    model: DualEncoder
    data: TrainingData
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    world: World = field(default_factory=World)
    progress: Progress = field(default_factory=lambda: Progress(0.0))
    clock: Clock = field(default_factory=Clock)
    startup: Clock = field(default_factory=Clock)
    parts: list[TrainingPart] = field(default_factory=list)
    precision: Computed = "float32"

    @property
    def labels(self) -> slice:
        """The labels that are this process's."""
        return self.world.own(len(self.data.label_features))

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return steps_of_epoch(len(self.data.training), self.config.batch_size)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.config.epochs

    def begin(self) -> None:
        """Let all parts begin, in a run that does not go on from a checkpoint."""
        for part in self.parts:
            with self.startup.of(part.name):
                part.begin(self)
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)  # so that each part's work counts as its own
        self.__dict__.pop("first_label_texts", None)

    @cached_property
    def first_label_texts(self) -> Tensor:
        """Unit embeddings [n, D] of the texts of this process's labels by the untrained model, kept while `begin` lasts."""
        return encode_labels(self.model, self.data.label_features, self.world)

    def find(self, kind: type[P]) -> P | None:
        """The run's part of a kind, for parts that build on one another; None where the run has none."""
        return next((part for part in self.parts if isinstance(part, kind)), None)


class TrainingPart:
    """Something that has a state between steps, or does something around them. Every hook does nothing by default.

    `from_run` makes one; parts are made, and asked, in the order of `xmc.training.assembly.part_kinds`.
    """

    name: ClassVar[str]
    """What people call it; no two parts of a run have the same."""
    needs_queries: ClassVar[bool] = False
    """Whether it reads the embeddings that training queries had when they were last in a batch."""

    @classmethod
    def from_run(cls, run: TrainingRun) -> Self:
        """The part of a run whose earlier parts are made; by default one that needs nothing of the run."""
        return cls()

    @classmethod
    def memory(cls, sizes: Sizes) -> dict[str, float]:
        """Bytes that it takes in each process, by what takes them."""
        return {}

    def begin(self, run: TrainingRun) -> None:
        """Before the first step of a run that does not go on from a checkpoint."""

    def before_epoch(self, run: TrainingRun, epoch: int) -> None:
        """Before the first step of each epoch, counted from 0; not where a run goes on within it."""

    def before_step(self, run: TrainingRun, batch: Batch) -> None:
        """Before each step."""

    def after_step(self, run: TrainingRun, batch: Batch, report: StepReport) -> Mapping[str, Any]:
        """After each step's gradients are there. Returns what the log says of it, by name."""
        return {}

    @contextlib.contextmanager
    def as_saved(self, run: TrainingRun) -> Iterator[None]:
        """A context in which the model is as it is to be evaluated and saved."""
        yield

    def state(self) -> PartState:
        """What a checkpoint holds of it."""
        return PartState()

    def load_state(self, run: TrainingRun, checkpoint: Checkpoint) -> None:
        """Take up what `state` gave; all processes call it."""

    def checkpoint_bytes(self, run: TrainingRun) -> int:
        """Bytes that checkpoints hold of it, for all processes together."""
        state = self.state()
        return bytes_of(state.shared.values()) + run.world.size * bytes_of(state.rows.values())

    def close(self) -> None:
        """The run ends, well or not."""


def steps_of_epoch(queries: int, batch_size: int) -> int:
    """Steps in which each query is once: as many as have at least `batch_size` queries each, and at least one."""
    return max(1, queries // batch_size)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
