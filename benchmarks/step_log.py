"""What the log of a training run says of its pace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measurements import Measurement, from_samples

from xmc.storage.manifests import LOG

__all__ = ["pace", "read_steps", "steady"]

Line = dict[str, Any]


def read_steps(directory: Path) -> list[Line]:
    """The lines of the steps, in their order."""
    lines = [json.loads(line) for line in (directory / LOG).read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "loss" in line]


def steady(steps: Sequence[Line]) -> Sequence[Line]:
    """The last half of the steps, when everything is loaded and compiled."""
    return steps[len(steps) // 2 :]


def pace(table: str, method: str, steps: Sequence[Line], seed: int) -> list[Measurement]:
    """Seconds and tokens of a steady step, and the share of each activity in its time."""
    chosen = steady(steps)
    seconds = [line["tokens"] / line["tokens_per_second"] for line in chosen]
    rates = [line["tokens_per_second"] for line in chosen]
    shares = [
        Measurement(table, method, f"time in {name}", 100 * float(np.mean([step["time"][name] for step in chosen])), "%", seed)
        for name in chosen[-1]["time"]
    ]  # fmt: skip
    return [
        from_samples(table, method, "seconds a step", seconds, "seconds", seed),
        from_samples(table, method, "tokens a second", rates, "tokens/s", seed),
        *shares,
    ]
