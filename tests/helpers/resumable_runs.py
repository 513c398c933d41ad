"""A process that has imported everything, and forks one that trains for each line it reads: NAME OUT. Prints its pid.

So that a test can kill and resume many runs without waiting for imports.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from small_models import WORDS
from worlds import TINY, colours

import xmc
import xmc.training.trainer  # xmc imports it when it is first used
from xmc.encoders.transformer.encoder import TransformerEncoder

CHECKPOINTS = {"checkpoint": {"steps": 4, "minutes": None}}


def configurations(bert: str) -> dict[str, dict[str, Any]]:
    """Everything that has a state between steps."""
    transformer = {"directory": bert, "tokens_per_micro_batch": 128, "dropout": 0.2}
    adapters = {**transformer, "lora": {"rank": 2, "dropout": 0.2}, "dropout": None}
    return {
        "clusters and a shortlist mined in the background": {
            **TINY,
            **CHECKPOINTS,
            "negatives": ["clusters", "shortlist", "sampled"],
            "negatives.sampled.count": 3,
            "objective.positives_per_query": 1,
            "negatives.clusters.first_epoch": 2,
            "negatives.clusters.size": 4,
            "negatives.clusters.doubling_epochs": [3],
            "negatives.shortlist.size": 2,
            "negatives.shortlist.window_end": 5,
            "negatives.shortlist.refresh_steps": 5,
            "label_vectors.moments": "int8",
            "epochs": 5,
        },
        "supervision in the background": {
            **TINY,
            **CHECKPOINTS,
            "supervision": {
                "estimator": "posterior",
                "wrong": "estimate",
                "recorded": 0.8,
                "candidates": 3,
                "first_epoch": 1,
                "background": True,
                "held_out": 0.2,
            },
            "negatives": ["shortlist", "sampled"],
            "negatives.sampled.count": 3,
            "negatives.shortlist.size": 2,
            "negatives.shortlist.window_end": 5,
            "epochs": 5,
        },
        "bank and dropout": {
            **CHECKPOINTS,
            "encoder": {"kind": "transformer", **transformer},
            "negatives": "bank",
            "negatives.bank.hard": 1,
            "negatives.bank.refresh": 2,
            "negatives.bank.positives": 0.5,
            "objective.learn_temperature": True,
            "gradient_cache": True,
            "optimizer.learning_rate.encoder": 1e-3,
            "batch_size": 40,
            "epochs": 2,
            "label_vectors.dropout": 0.2,
        },
        "adapters": {
            **CHECKPOINTS,
            "encoder": {"kind": "transformer", **adapters},
            "negatives": "in-batch",
            "optimizer.learning_rate.encoder": 1e-2,
            "batch_size": 40,
            "epochs": 2,
        },
        "prototypes of stale centroids": {
            **TINY,
            **CHECKPOINTS,
            "label_vectors": "prototypes",
            "label_vectors.clusters": 5,
            "label_vectors.heads": 4,
            "label_vectors.feedforward": 32,
            "label_vectors.dropout": 0.2,
            "objective.loss": "triplet_margin",
            "negatives": "clusters",
            "negatives.clusters.first_epoch": 2,
            "negatives.clusters.size": 4,
            "objective.positives_per_query": 1,
            "objective.positives_drawn": "inverse_propensity",
            "objective.nested_dimensions": [8],
            "epochs": 5,
        },
        "validation": {**TINY, **CHECKPOINTS, "validation": {"share": 0.2, "steps": 3, "patience": 50}, "epochs": 5},
    }


def main(bert: str) -> None:
    data = colours(WORDS[3:15])
    known = configurations(bert)
    TransformerEncoder.from_pretrained(bert)  # transformers imports a model's code when it is first used
    for line in sys.stdin:
        name, out = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            logging.basicConfig(filename=out + ".log")
            xmc.train(data, xmc.TrainConfig.from_mapping(known[name]), Path(out), resume=True)
            os._exit(0)
        print(pid, flush=True)
        status = os.waitpid(pid, 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
