"""What training gives back: where the run is, how training went, and what the held-out queries said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TrainResult", "Validated", "best_of"]


@dataclass(frozen=True)
class Validated:
    """One evaluation of the held-out queries. step: steps before it. epoch: counted from 1. values: metrics, in percent."""

    step: int
    epoch: int
    values: dict[str, float]


@dataclass(frozen=True)
class TrainResult:
    """Where the run is, and how training went.

    seconds: tokenising and all steps, without validation, label indexing and saving. loss: of the last step.
    interrupted: stopped by Ctrl-C; the run is the model as it was then.
    metric: the metric of the held-out queries by which the model was chosen (validation.metric); None where none were held
        out, and then there is no `best` either.
    best: its highest value, in percent: that of the model that the run holds, unless training was interrupted.
    best_epoch, best_step: when it was reached; the epoch is counted from 1. None where a checkpoint of before 0.2.0 knows the
        value alone.
    history: all evaluations, in order.
    """

    directory: Path
    steps: int
    seconds: float
    loss: float
    interrupted: bool
    metric: str | None = None
    best: float | None = None
    best_epoch: int | None = None
    best_step: int | None = None
    history: tuple[Validated, ...] = ()

    def __repr__(self) -> str:
        """The line for people."""
        return f"<{type(self).__name__}: {self}>"

    def __str__(self) -> str:
        """One line for people: steps, seconds, loss, the best epoch with its metric, and the directory."""
        facts = [
            f"{'interrupted' if self.interrupted else 'trained'}: {self.steps} steps in {self.seconds:.1f} s",
            f"last loss {self.loss:.4f}",
        ]
        if self.best is not None:
            epoch = "" if self.best_epoch is None else f"epoch {self.best_epoch} with "
            facts.append(f"best {epoch}{self.metric} {self.best:.2f} on the held-out queries")
        return ", ".join([*facts, f"run in {self.directory}"])


def best_of(history: Sequence[Validated], metric: str) -> Validated | None:
    """The first evaluation with the highest value of a metric; None where there is none."""
    return max(history, key=lambda validated: validated.values[metric], default=None)
