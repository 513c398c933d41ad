"""What the log says of a step, and the errors of steps that failed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from xmc.errors import NotFiniteError, TrainingError
from xmc.training.batch import Batch, StepReport
from xmc.training.parts import TrainingRun

__all__ = ["explained_errors", "require_finite", "step_values"]


def step_values(
    run: TrainingRun, batch: Batch, report: StepReport, seconds: float, parts: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of a step's line in the log, by name; all processes call it. parts: what the run's parts say of the step."""
    texts, tokens = (round(mean * run.world.size) for mean in run.world.mean(report.texts, report.tokens))
    return {
        "epoch": batch.step // run.steps_per_epoch,
        "loss": report.loss,
        "seconds": round(run.progress.seconds, 4),
        "texts": texts,
        "tokens": tokens,
        "queries_per_second": round(len(batch.rows) / seconds, 2),
        "tokens_per_second": round(tokens / seconds, 1),
        **parts,
        "time": run.clock.shares(),
    }


@contextlib.contextmanager
def explained_errors(batch: Batch) -> Iterator[None]:
    """A context of a step, from which numbers that are not finite, or exhausted memory, come as TrainingError."""
    try:
        yield
    except NotFiniteError:
        raise _divergence(batch, math.nan) from None
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)):
            raise
        raise TrainingError(
            f"Step {batch.step + 1} ran out of memory. Set gradient_cache, or lower encoder.tokens_per_micro_batch, "
            f"batch_size or tile_bytes; `xmc train --dry-run` says what takes how much. ({error})"
        ) from error


def require_finite(batch: Batch, loss: float) -> None:
    """Raise TrainingError unless the loss of a step is a finite number."""
    if not math.isfinite(loss):
        raise _divergence(batch, loss)


def _divergence(batch: Batch, loss: float) -> TrainingError:
    return TrainingError(
        f"The loss of step {batch.step + 1} is {loss}: training diverged. Lower the rates under "
        f"optimizer.learning_rate, or raise objective.temperature."
    )
