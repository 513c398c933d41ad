"""Jobs that are killed at random moments, and resumed until they are finished."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from commands import ENVIRONMENT


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "xmc", "predict", *map(str, arguments)]


def kill_and_resume(arguments: Sequence[object], out: Path, kills: int, start: float, seed: int) -> int:
    """Start a job and kill it with SIGKILL, so many times; then let it end.

    Every third kill comes at a random moment within `start` seconds, of which the job spends most with loading; the others when
    one, two or three more parts are there or begun, give or take. Returns how many kills met the job before its end.
    """
    moments = random.Random(seed)
    met = 0
    for number in range(kills):
        log = out.parent / f"log-{number}"
        resume = ["--resume"] if (out / "_job.json").exists() else []
        before = len(list(out.glob("*part-*")))
        with log.open("wb") as errors:
            job = subprocess.Popen(
                command(*arguments, "--output", out, *resume), env=ENVIRONMENT, stdout=errors, stderr=errors
            )
        more = moments.randint(1, 3)
        if number % 3 == 0:
            time.sleep(moments.uniform(0, start))
        while number % 3 and len(list(out.glob("*part-*"))) < before + more and job.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        met += job.poll() is None
        job.send_signal(signal.SIGKILL)
        code = job.wait()
        assert code in (0, -signal.SIGKILL), log.read_text()
        for part in out.glob("part-*.parquet"):
            pq.read_table(part)  # whole, whenever it is there
        if code == 0:
            break
    if not (out / "_SUCCESS").exists():
        resume = ["--resume"] if (out / "_job.json").exists() else []
        done = subprocess.run(
            command(*arguments, "--output", out, *resume), env=ENVIRONMENT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return met
