"""Measurements and the one long-form table that they are appended to."""

from __future__ import annotations

import csv
import io
import os
import platform
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from xmc.errors import StoreError
from xmc.storage.files import atomic_file
from xmc.version import __version__

__all__ = ["Measurement", "append", "from_samples"]


@dataclass(frozen=True)
class Measurement:
    """One number. Of repeated measurements, such as speeds, `value` is the median, p20 and p80 are the quantiles."""

    table: str
    method: str
    metric: str
    value: float
    unit: str
    seed: int
    p20: float | None = None
    p80: float | None = None


@dataclass(frozen=True)
class Circumstances:
    """What a number was measured on."""

    machine: str
    python: str
    torch: str
    xmc: str
    date: str


def from_samples(table: str, method: str, metric: str, samples: Sequence[float], unit: str, seed: int) -> Measurement:
    """The median and the 20% and 80% quantiles of repeated measurements."""
    p20, p50, p80 = (float(value) for value in np.quantile(samples, [0.2, 0.5, 0.8]))
    return Measurement(table, method, metric, p50, unit, seed, p20, p80)


def append(file: Path, measurements: Sequence[Measurement]) -> None:
    """Add rows to the CSV file, which is made if it is not there. StoreError if it has other columns."""
    header = [field.name for kind in (Measurement, Circumstances) for field in fields(kind)]
    before = file.read_text(encoding="utf-8") if file.exists() else ",".join(header) + "\n"
    if before.splitlines()[:1] != [",".join(header)]:
        raise StoreError(f"{file} has other columns than {','.join(header)}; move it away or name another file.")
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    circumstances = astuple(_circumstances())
    for measurement in measurements:
        numbers = [f"{cell:.6g}" if isinstance(cell, float) else cell for cell in astuple(measurement)]
        writer.writerow([*numbers, *circumstances])
    with atomic_file(file) as temporary:
        temporary.write_text(before + lines.getvalue(), encoding="utf-8")


def _circumstances() -> Circumstances:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Circumstances(
        machine=f"{_gpu()}{_processor()}, {cores} cores",
        python=platform.python_version(),
        torch=metadata.version("torch"),
        xmc=__version__,
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    )


def _gpu() -> str:
    """The first GPU that torch sees, and a comma; "" without one."""
    return f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
