"""Table training_memory: peak memory of a training step that scores all labels, against what has to be there anyway.

Static encoder: B = 512 queries, L = 65,962 labels with texts of five random words, D = 256. The floor is parameters,
optimizer state and the embeddings of queries and labels; a tile of scores is allowed on top.

Gradient cache: a transformer of two layers and 128 numbers, random weights, B = 256 and 4,096 queries, L = 65,962 labels, all
texts of 16 tokens, micro-batches of 128. Peak memory is not to grow with the batch.

Peak memory is the growth of the process's highest resident size, from before the model is built to after the steps. glibc is
told to return blocks of a MiB and more at once: otherwise what it keeps for later differs by hundreds of MiB from run to run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from measurements import Measurement

__all__ = ["run"]

COMMON = """
import json, sys, tempfile
from pathlib import Path
import numpy as np
import torch
from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.encoders.dual import build_encoder
from xmc.training.data import prepare
from xmc.training.negatives import JoinedNegatives
from xmc.training.negatives.all_labels import AllLabels
from xmc.training.optimizers import Optimizers
from xmc.training.parts import TrainingRun
from xmc.training.step import Step

seed, size = int(sys.argv[1]), int(sys.argv[2])

def resident():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

def world(words, queries, query_words, labels, label_words):
    random = np.random.default_rng(seed)
    texts = [" ".join(row) for row in random.choice(words, (labels, label_words))]
    asked = [" ".join(row) for row in random.choice(words, (queries, query_words))]
    lists = [sorted(set(row.tolist())) for row in random.integers(0, labels, (queries, 5))]
    return Dataset.from_lists("random", texts, {"train": (asked, lists)})

def steps(data, settings, count):
    config = TrainConfig.from_mapping({"seed": seed, "negatives": "all", **settings})
    model = build_encoder(config, len(data.labels), torch.Generator().manual_seed(seed)).train()
    prepared = prepare(data, config, model)
    optimizers = Optimizers(model, config)
    step = Step(TrainingRun(config, model, prepared), JoinedNegatives([AllLabels()], len(data.labels)))
    for number in range(count):
        batch = prepared.known.batch(number, np.arange(len(prepared.training)))
        step(batch, step.dropped_queries(batch))
        optimizers.step(0.5)
    return config, model, optimizers
"""

STATIC = """
def settings(rows):
    return {"batch_size": 512, "encoder": {"kind": "static", "dimension": 256, "table_rows": rows}}

words = np.array([f"{a}{b}" for a in "bdfgklmnprst" for b in map(str, range(2000))])
steps(world(words, 64, 10, 100, 5), settings(1000), 1)  # compiles, and loads what is loaded on first use
data = world(words, 512, 10, 65_962, 5)
before = resident()
config, model, optimizers = steps(data, settings(size), 3)
adams = [adam for table in optimizers.tables for adam in (table.vectors, table.weights)] + [optimizers.vectors]
print(json.dumps({
    "parameters": sum(p.numel() * p.element_size() for p in model.parameters()),
    "optimizer state": sum(t.numel() * t.element_size() for a in adams for t in a.moments.tensors.values()),
    "embeddings": (512 + len(data.labels)) * model.dimension * 4,
    "tile": config.tile_bytes,
    "peak": resident() - before,
}))
"""

CACHED = """
import string
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

words = np.array([a + b for a in string.ascii_lowercase for b in string.ascii_lowercase])
with tempfile.TemporaryDirectory() as directory:
    backend = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, **{w: i + 2 for i, w in enumerate(words)}}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(directory)
    shape = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    BertModel(BertConfig(vocab_size=len(words) + 2, max_position_embeddings=32, **shape)).save_pretrained(directory)
    transformer = {"kind": "transformer", "directory": directory, "tokens_per_micro_batch": 4096, "max_length": 32}
    settings = {"encoder": transformer, "gradient_cache": True, "batch_size": size,
                "data": {"token_dropout": 0.0, "label_token_dropout": 0.0}, "device": "cpu"}
    steps(world(words, 64, 16, 300, 16), settings, 1)
    data = world(words, size, 16, 65_962, 16)
    before = resident()
    steps(data, settings, 1)
    print(json.dumps({"peak": resident() - before}))
"""


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Measure static tables of 131,072, 262,144 and 524,288 rows, then the gradient cache; each in a process of its own."""
    for rows in (131_072, 262_144, 524_288):
        method = f"xmc static, {rows:,} rows"
        if methods and not method.startswith(tuple(methods)):
            continue
        found = _process(STATIC, seed, rows)
        floor = found["parameters"] + found["optimizer state"] + found["embeddings"]
        values = {**found, "floor": floor}
        rows_of_table = [_measurement(method, name, value / 2**20, "MiB", seed) for name, value in values.items()]
        share = (found["peak"] - found["tile"]) / floor
        yield [*rows_of_table, _measurement(method, "peak less a tile / floor", share, "", seed)]
    peaks: dict[int, float] = {}
    for queries in (256, 4096):
        method = f"xmc gradient cache, B = {queries:,}"
        if methods and not method.startswith(tuple(methods)):
            continue
        peaks[queries] = _process(CACHED, seed, queries)["peak"]
        found_here = [_measurement(method, "peak", peaks[queries] / 2**20, "MiB", seed)]
        if len(peaks) == 2:
            ratio = peaks[4096] / peaks[256]
            found_here.append(_measurement(method, "peak / peak at B = 256", ratio, "", seed))
        yield found_here


def _process(program: str, seed: int, size: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", COMMON + program, str(seed), str(size)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)},
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measurement(method: str, metric: str, value: float, unit: str, seed: int) -> Measurement:
    return Measurement("training_memory", method, metric, value, unit, seed)
