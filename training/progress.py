"""What the line of progress of training says: epoch, loss and speed."""

from __future__ import annotations

from xmc.progress import ProgressLine

__all__ = ["TrainingProgress"]


class TrainingProgress:
    """Is told of every step."""

    def __init__(self, line: ProgressLine, batch_size: int) -> None:
        self.line, self.batch_size = line, batch_size
        self.smoothed: float | None = None

    def advance(self, epoch: int, loss: float) -> None:
        """One step is done. epoch: counted from 0."""
        self.smoothed = loss if self.smoothed is None else 0.9 * self.smoothed + 0.1 * loss
        speed = self.line.speed
        rate = "" if speed is None else f", {speed * self.batch_size:,.0f} queries/s"
        self.line.advance(1, f"epoch {epoch + 1}, loss {self.smoothed:.3f}{rate}")
