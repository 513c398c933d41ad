"""Run by torchrun: `distributed_training.py OUT [NAME ...]` trains the configurations below, each into OUT/<name>.

Without torchrun it does the same in one process. What is in OUT already is gone on with. NAME=STEP kills the root's process
after that step.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist
from small_models import WORDS, write_bert
from worlds import TINY, colours, wordnet_part

import xmc
import xmc.training.trainer  # before there is a group: torch's modules keep what they find when they are imported
from xmc.training.log import TrainingLog

BERT = {
    "encoder": "transformer",
    "optimizer.learning_rate.encoder": 1e-3,
    "batch_size": 50,
    "epochs": 1,
    "objective.temperature": 0.1,
    "gradient_cache": True,
    "optimizer.learning_rate.label_vectors": 0.02,
}
WORDNET = {**TINY, "epochs": 2}
PROTOTYPES = {
    "label_vectors": "prototypes",
    "label_vectors.clusters": 5,
    "label_vectors.heads": 4,
    "label_vectors.feedforward": 32,
    "label_vectors.dropout": 0.0,
    "objective.loss": "triplet_margin",
    "negatives": "in-batch",
    "objective.positives_per_query": 1,
    "objective.in_batch_positives": True,
    "optimizer.max_gradient_norm": 1.0,
    "epochs": 2,
}


def configurations(bert: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name: (data set, configuration). Without dropout inside of the backbone, which each process draws for itself."""
    transformer = {
        "encoder.directory": str(bert),
        "encoder.tokens_per_micro_batch": 64,
        "encoder.dropout": 0.0,
        "precision": "float32",
    }
    return {
        "static-all": ("wordnet", {**WORDNET, "label_vectors.dropout": 0.1}),
        "static-supervision": (
            "wordnet",
            {
                **WORDNET,
                "supervision.estimator": "posterior",
                "supervision.wrong": "estimate",
                "supervision.recorded": 0.7,
                "supervision.first_epoch": 1,
                "supervision.held_out": 0.2,
                "epochs": 3,
            },
        ),
        "static-sampled": (
            "wordnet",
            {
                **WORDNET,
                "negatives": ["clusters", "sampled"],
                "negatives.clusters.first_epoch": 1,
                "negatives.sampled.count": 300,
            },
        ),
        "static-soft-topk": ("colours", {**TINY, "objective.loss": "soft_topk", "objective.learn_temperature": True}),
        "static-propensities": (
            "colours",
            {
                **TINY,
                "objective.loss": {"kind": "binary_cross_entropy", "propensities": "bound"},
                "objective.nested_dimensions": [8],
                "negatives": "bank",
            },
        ),
        "static-prototypes": ("colours", {**TINY, **PROTOTYPES}),
        "static-margins": ("colours", {**TINY, "objective.loss": "triplet_margin", "objective.nested_dimensions": [8]}),
        "bert-bank": (
            "colours",
            {**BERT, **transformer, "negatives": "bank", "negatives.bank.hard": 2, "negatives.bank.refresh": 3},
        ),
        "bert-split": (
            "colours",
            {
                **BERT,
                **transformer,
                "encoder.shard": True,
                "encoder.projection": 12,
                "negatives": "shortlist",
                "epochs": 2,
                "share_towers": False,
                "objective.learn_temperature": True,
                "optimizer.max_gradient_norm": 1.0,
                "negatives.shortlist.size": 2,
                "negatives.shortlist.window_end": 4,
                "negatives.shortlist.refresh_steps": 5,
                "validation": 0.1,
                "checkpoint": {"steps": 5, "minutes": None},
            },
        ),
    }


def kill_after(last: int) -> None:
    write = TrainingLog.write

    def write_and_die(log: TrainingLog, step: int, **values: Any) -> None:
        write(log, step, **values)
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    TrainingLog.write = write_and_die  # type: ignore[method-assign]


def main(out: Path, names: list[str]) -> None:
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        dist.init_process_group("gloo")
    worlds = {"wordnet": wordnet_part(300), "colours": colours(WORDS[3:15])}
    last_steps = dict(name.split("=") if "=" in name else (name, "0") for name in names)
    for name, (data, values) in configurations(out.parent / "bert").items():
        if not names or name in last_steps:
            if last_steps.get(name, "0") != "0":
                kill_after(int(last_steps[name]))
            xmc.train(worlds[data], xmc.TrainConfig.from_mapping(values), out / name, resume=True)
    if several:
        dist.destroy_process_group()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    if "RANK" not in os.environ:
        write_bert(Path(sys.argv[1]).parent / "bert")
    main(Path(sys.argv[1]), sys.argv[2:])
