"""The progress bar of training: loss, speed, time left; silent where standard error is not a terminal."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from xmc.progress import progress_bar

__all__ = ["TrainingProgress"]


class TrainingProgress:
    """A context that is told of every step."""

    def __init__(self, steps: int, batch_size: int, done: int = 0, shown: bool = True) -> None:
        """done: steps of an earlier session. shown: False in processes that are not the root."""
        self.batch_size = batch_size
        self.smoothed: float | None = None
        self.progress = progress_bar(
            TextColumn("training, epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TextColumn("{task.fields[speed]} queries/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            shown=shown,
        )
        self.task = self.progress.add_task(
            "training", total=steps, completed=done, epoch=1, loss=float("nan"), speed="-"
        )

    def __enter__(self) -> TrainingProgress:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def advance(self, epoch: int, loss: float) -> None:
        """One step is done."""
        self.smoothed = loss if self.smoothed is None else 0.9 * self.smoothed + 0.1 * loss
        speed = self.progress.tasks[0].speed
        shown = "-" if speed is None else f"{speed * self.batch_size:,.0f}"
        self.progress.update(self.task, advance=1, epoch=epoch + 1, loss=self.smoothed, speed=shown)
