"""Run by torchrun: `distributed_training.py OUT [NAME ...]` trains the configurations below, each into OUT/<name>.

Without torchrun it does the same in one process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist
from small_models import WORDS, write_bert
from worlds import TINY, colours, wordnet_part

import xmc

BERT = {
    "encoder": "transformer",
    "learning_rate": 1e-3,
    "batch_size": 50,
    "epochs": 1,
    "temperature": 0.1,
    "gradient_cache": True,
    "label_vector_learning_rate": 0.02,
}
WORDNET = {**TINY, "epochs": 2}


def configurations(bert: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name: (data set, configuration). Without dropout inside of the backbone, which each process draws for itself."""
    transformer = {"transformer": {"directory": str(bert), "micro_batch_size": 8, "dropout": 0.0}}
    return {
        "static-all": ("wordnet", {**WORDNET, "label_vector_dropout": 0.1}),
        "static-sampled": ("wordnet", {**WORDNET, "negatives": "sampled", "sampled_negatives": 300}),
        "static-soft-topk": ("colours", {**TINY, "loss": "soft_topk", "learn_temperature": True}),
        "bert-bank": ("colours", {**BERT, **transformer, "negatives": "bank", "bank": {"hard": 2, "refresh": 3}}),
        "bert-shortlist": (
            "colours",
            {
                **BERT,
                **transformer,
                "negatives": "shortlist+clusters",
                "epochs": 3,
                "share_towers": False,
                "learn_temperature": True,
                "max_gradient_norm": 1.0,
                "shortlist": {"size": 2, "window_end": 4, "refresh_steps": 5},
            },
        ),
    }


def main(out: Path, names: list[str]) -> None:
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        dist.init_process_group("gloo")
    worlds = {"wordnet": wordnet_part(300), "colours": colours(WORDS[3:15])}
    for name, (data, values) in configurations(out.parent / "bert").items():
        if not names or name in names:
            xmc.train(worlds[data], xmc.TrainConfig.from_mapping(values), out / name)
    if several:
        dist.destroy_process_group()


if __name__ == "__main__":
    if "RANK" not in os.environ:
        write_bert(Path(sys.argv[1]).parent / "bert")
    main(Path(sys.argv[1]), sys.argv[2:])
