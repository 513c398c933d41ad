"""What training writes down: a line of JSON a step, and the same for TensorBoard if asked."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xmc.errors import StoreError, boundary, require_package
from xmc.storage.files import atomic_file
from xmc.storage.manifests import LOG, TENSORBOARD

__all__ = ["TrainingLog", "numbers_of"]


class TrainingLog:
    """`metrics.jsonl` in the run directory, which may be replaced while the log grows, and TensorBoard's files."""

    def __init__(self, out: Path, tensorboard: bool) -> None:
        """Raises DependencyError where TensorBoard is asked for and not installed."""
        self.file, self._writer = out / LOG, None
        if tensorboard:
            require_package("tensorboard", "The log is written for TensorBoard too", "tensorboard")
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(out / TENSORBOARD))

    def start(self, step: int) -> None:
        """Keep the lines up to `step`, where a resumed run goes on; the rest, and a torn last line, go."""
        kept = []
        if step and self.file.exists():
            for line in self.file.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
                except (ValueError, KeyError, TypeError):
                    continue
        with self._writing(), atomic_file(self.file) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")

    def write(self, step: int, **values: Any) -> None:
        """Add a line; nested numbers too. StoreError where it cannot be written."""
        with self._writing(), self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._writer is not None:
            for name, value in numbers_of(values).items():
                self._writer.add_scalar(name, value, step)

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return boundary(StoreError, f"The log {self.file} cannot be written", "Make room and go on with resume.")

    def close(self) -> None:
        """Nothing more comes."""
        if self._writer is not None:
            self._writer.close()


def numbers_of(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers among nested values, by names such as "loss" and "time/data"."""
    numbers: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            numbers |= numbers_of(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            numbers[prefix + name] = float(value)
    return numbers
