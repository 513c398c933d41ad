"""What others hear of training while it goes: every step, every evaluation, everything that is saved, and the end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xmc.errors import ConfigError, TrainingError
from xmc.registry import did_you_mean
from xmc.training.result import TrainResult

__all__ = ["Callback", "Callbacks"]

logger = logging.getLogger("xmc.training")


class Callback:
    """What `xmc.train(callbacks=[...])` takes: an object with some of these methods, of this class or of any other.

    Of several processes the first alone calls them. An exception in one of them stops training after the step, with a
    TrainingError that names it; a checkpoint of that step is written, which resume goes on from.
    """

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        """After each step. step: counted from 1. values: the numbers of its line in metrics.jsonl, such as "loss"."""

    def on_validation(self, step: int, values: Mapping[str, float]) -> None:
        """After each evaluation of the held-out queries. values: metrics by name, in percent."""

    def on_save(self, step: int, directory: Path) -> None:
        """After a directory was written: a checkpoint, or the run, which is there from its first evaluation on."""

    def on_end(self, result: TrainResult) -> None:
        """After the run is written; not after an error."""


EVENTS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class Callbacks:
    """The callbacks of a run: calls them, and keeps what the first that failed has to say."""

    def __init__(self, callbacks: Sequence[Any], called: bool = True) -> None:
        """called: False in processes that are not the root. Raises ConfigError for an object that has none of the methods."""
        for callback in callbacks:
            _require_methods(callback)
        self._callbacks = tuple(callbacks) if called else ()
        self.failure: str | None = None
        """What failed, as the beginning of a sentence."""
        self._cause: Exception | None = None

    def tell(self, event: str, *arguments: Any) -> None:
        """Call a method of every callback that has it; nothing more after one has failed."""
        for callback in self._callbacks:
            method = getattr(callback, event, None)
            if method is None or self.failure is not None:
                continue
            try:
                method(*arguments)
            except Exception as error:
                self.failure = f"The callback {type(callback).__name__}.{event} failed: {type(error).__name__}: {error}"
                self._cause = error
                logger.warning("%s. Training stops after this step.", self.failure)

    def raise_failure(self, failure: str | None, left: str) -> None:
        """Raise TrainingError where there is a failure, which may be that of another process. left: what stays, a sentence."""
        if failure is not None:
            raise TrainingError(f"{failure.rstrip('.')}. {left}") from self._cause


def _require_methods(callback: Any) -> None:
    if isinstance(callback, type):
        raise ConfigError(f"callbacks must be objects, but {callback.__name__} is a class; give {callback.__name__}().")
    named = [name for name in dir(callback) if name.startswith("on_")]
    unknown = [name for name in named if name not in EVENTS and callable(getattr(callback, name, None))]
    if not set(named) & set(EVENTS):
        near = did_you_mean(unknown[0], EVENTS) if unknown else ""
        raise ConfigError(
            f"The callback {type(callback).__name__} has none of the methods {', '.join(EVENTS)}, so it would never be "
            f"called.{near}"
        )
