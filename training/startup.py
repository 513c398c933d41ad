"""What passes before the steps of a run: seconds by phase, in the log and in a line for people."""

from __future__ import annotations

import logging

from xmc.training.log import TrainingLog
from xmc.training.parts import TrainingRun

__all__ = ["StartUp"]

logger = logging.getLogger("xmc.training")
WORTH_SAYING = 0.05
"""Seconds of a phase from which on people are told of it; the log has all phases."""


class StartUp:
    """Told of each step, it reports once what came before them, and how the first step compares with the second.

    The first step is slower where kernels are compiled, threads started or memory taken from the system.
    """

    def __init__(self, run: TrainingRun, log: TrainingLog) -> None:
        """run: its `startup` has the phases. log: gets a line before that of the first step."""
        self._run, self._log = run, log
        self._first: float | None = None
        self._done = False

    def after_step(self, seconds: float) -> None:
        """After a step of this process's run, before its line is written. seconds: what the step took."""
        if self._done:
            return
        phases, steps = self._run.startup.seconds, self._run.progress.steps
        self._done = self._first is not None or steps == self._run.steps
        second = "" if self._first is None else f", the second {seconds:.2f} s"
        if self._first is None:
            self._first = seconds
            rounded = {name: round(value, 4) for name, value in {**phases, "first step": seconds}.items()}
            self._log.write(steps - 1, startup_seconds=rounded)
        if self._done:
            told = ", ".join(f"{name} {value:.1f}" for name, value in phases.items() if value >= WORTH_SAYING)
            before = f"{sum(phases.values()):.1f} s{f' ({told})' if told else ''}"
            logger.info("before the first step passed %s; it took %.2f s%s", before, self._first, second)
