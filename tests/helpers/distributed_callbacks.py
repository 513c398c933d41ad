"""Run by torchrun: `distributed_callbacks.py OUT` trains with callbacks, and once more with one that fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import torch.distributed as dist
from worlds import colours, tiny_config

import xmc
import xmc.training.trainer  # before there is a group
from xmc.errors import TrainingError


class Counting:
    """Counts steps and evaluations."""

    def __init__(self) -> None:
        self.steps = self.evaluations = 0

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        """One more."""
        self.steps += 1

    def on_validation(self, step: int, values: Mapping[str, float]) -> None:
        """One more."""
        self.evaluations += 1


class Failing:
    """Fails at step 3."""

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        """Fail."""
        if step == 3:
            raise ValueError("at step 3")


def main(out: Path) -> None:
    dist.init_process_group("gloo")  # one for both runs
    config = tiny_config(epochs=2, validation={"share": 0.25, "patience": 50})
    counting = Counting()
    xmc.train(colours(), config, out / "run", callbacks=[counting])
    try:
        xmc.train(colours(), config, out / "failed", callbacks=[Failing()])
    except TrainingError as error:
        said = str(error).partition(". The checkpoint")[0]
        print(f"process {os.environ['RANK']}: {counting.steps} steps, {counting.evaluations} evaluations; {said}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
