"""Table distributed: 50 steps on LF-WordNet by one process and by two under torchrun (gloo, labels split), loss by loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import lf_wordnet
import numpy as np
from measurements import Measurement, from_samples
from retrieval import CACHE

from xmc.storage.manifests import LOG

__all__ = ["run"]

STEPS = 50


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Measure with one seed. DataError without the data. Processes share the cores: each has its part of the threads."""
    data = lf_wordnet.dataset()
    batch = len(data.split("train")) // STEPS
    found: dict[int, list[dict[str, float]]] = {}
    for processes in (1, 2):
        method = f"xmc static, {processes} process{'es' if processes > 1 else ''}"
        if methods and not method.startswith(tuple(methods)):
            continue
        out = CACHE / "runs" / f"{data.name}-{processes}"
        settings = [f"seed={seed}", "epochs=1", f"batch_size={batch}", f"token_cache={CACHE / 'tokens'}"]
        program = ["-m", "xmc", "train", str(lf_wordnet.CONFIG), "--dataset", str(data.directory), "--out", str(out)]
        program += ["--overwrite", *(part for setting in settings for part in ("--set", setting))]
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = str(max(1, cores // processes))
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
        subprocess.run(
            [sys.executable, *(launcher if processes > 1 else []), *program],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        found[processes] = _steps(out)
        seconds = np.diff([0.0, *(line["seconds"] for line in found[processes])])[1:]
        rows = [
            Measurement("distributed", method, "last loss", found[processes][-1]["loss"], "", seed),
            from_samples("distributed", method, "a step", seconds.tolist(), "seconds", seed),
        ]
        if len(found) == 2:
            one, two = (np.array([line["loss"] for line in found[count]]) for count in (1, 2))
            furthest = float(np.abs(two / one - 1).max())
            rows.append(Measurement("distributed", method, "largest relative difference of losses", furthest, "", seed))
        yield rows


def _steps(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / LOG).read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "loss" in line]
