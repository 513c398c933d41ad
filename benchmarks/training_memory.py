"""Table training_memory: peak memory of a training step that scores all labels, against what has to be there anyway.

The step has B = 512 queries, L = 65,962 labels with texts of five random words, D = 256 and negatives "all". The floor is
parameters, optimizer state and the embeddings of queries and labels; a tile of scores is allowed on top. Peak memory is the
growth of the process's highest resident size, from before the model is built to after three steps.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

from measurements import Measurement

__all__ = ["run"]

STEP = """
import json, resource, sys, tempfile
from pathlib import Path
import numpy as np
import torch
from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.encoders.dual import build_encoder
from xmc.encoders.feature_table import Bags
from xmc.training import trainer
from xmc.training.optimizers import RowAdam

seed, rows, queries, labels = int(sys.argv[1]), int(sys.argv[2]), 512, 65_962

def resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def world(queries, labels):
    random = np.random.default_rng(seed)
    words = np.array([f"{a}{b}" for a in "bdfgklmnprst" for b in map(str, range(2000))])
    texts = [" ".join(row) for row in random.choice(words, (labels, 5))]
    asked = [" ".join(row) for row in random.choice(words, (queries, 10))]
    lists = [sorted(set(row.tolist())) for row in random.integers(0, labels, (queries, 5))]
    return Dataset.from_lists("random", texts, {"train": (asked, lists)})

def steps(data, rows):
    config = TrainConfig.from_mapping(
        {"seed": seed, "negatives": "all", "epochs": 3, "batch_size": 512, "static": {"dimension": 256, "table_rows": rows}}
    )
    with tempfile.TemporaryDirectory() as out:
        model = build_encoder(config, len(data.labels), torch.Generator().manual_seed(seed))
        prepared = trainer._prepare(data, config, model)
        run = trainer._Run(config, model, prepared, Path(out), torch.device("cpu"), torch.Generator().manual_seed(seed), 0.0)
        for step in range(3):
            run._step(np.arange(len(prepared.training)))
            run.optimizers.step(0.5)
        parameters = sum(p.numel() * p.element_size() for p in model.parameters())
        tables = [t for a in run.optimizers.tables for t in (a.vectors, a.weights)] + [run.optimizers.vectors]
        state = sum(t.numel() * t.element_size() for a in tables for t in a.moments.tensors.values())
        embeddings = (len(prepared.training) + len(data.labels)) * model.dimension * 4
        return parameters, state, embeddings, config.tile_bytes

steps(world(64, 100), 1000)  # compiles, and loads what is loaded on first use
data = world(queries, labels)
before = resident()
parameters, state, embeddings, tile = steps(data, rows)
print(json.dumps({"parameters": parameters, "optimizer state": state, "embeddings": embeddings, "tile": tile,
                  "peak": resident() - before}))
"""


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Measure tables of 131,072, 262,144 and 524,288 rows, each in a process of its own."""
    for rows in (131_072, 262_144, 524_288):
        method = f"xmc static, {rows:,} rows"
        if methods and not method.startswith(tuple(methods)):
            continue
        done = subprocess.run(
            [sys.executable, "-c", STEP, str(seed), str(rows)], stdout=subprocess.PIPE, text=True, check=True
        )
        found = json.loads(done.stdout)
        floor = found["parameters"] + found["optimizer state"] + found["embeddings"]
        values = {**found, "floor": floor}
        yield [
            *(
                Measurement("training_memory", method, name, value / 2**20, "MiB", seed)
                for name, value in values.items()
            ),
            Measurement(
                "training_memory", method, "peak less a tile / floor", (found["peak"] - found["tile"]) / floor, "", seed
            ),
        ]
