"""Targets: models of others and of our own that hold a transformer: directories of configurations, tokenisers and tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from small_models import MEAN, write_bert, write_sentence_transformer

import xmc
from fuzzing.of_stored import read_run
from fuzzing.targets import Case, Target, register
from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.search.sentence_transformers import read_encoder

TEXTS = ["a boat with two hulls", "the sea", ""]


def write_run_of_transformer(folder: Path) -> None:
    """A run whose encoder is a BERT of two layers."""
    write_bert(folder.parent / "backbone")
    values = {
        "encoder": {"kind": "transformer", "directory": str(folder.parent / "backbone")},
        "epochs": 1,
        "batch_size": 64,
        "device": "cpu",
    }
    data = Dataset.from_lists("boats", ["boat", "sea"], {"train": (["a boat", "the sea"] * 8, [[0], [1]] * 8)})
    xmc.train(data, TrainConfig.from_mapping(values), folder)


def read_sentence_transformer(case: Case) -> None:
    """The encoder embeds texts: numbers that are numbers, of the length that it says."""
    model, _ = read_encoder(case.folder, TEXTS, "exact", "float32")
    embedded = np.asarray(model.embed_queries(TEXTS))
    assert embedded.shape[0] == len(TEXTS), "a text has no embedding"


register(
    Target(
        "sentence-transformers",
        lambda folder: write_sentence_transformer(
            folder, MEAN, dense=(8, "torch.nn.modules.activation.Tanh"), normalize=True
        ),
        read_sentence_transformer,
        slow=100,
    )
)
register(Target("run transformer", write_run_of_transformer, read_run, slow=60))
register(Target("run transformer repaired", write_run_of_transformer, read_run, repaired=True, slow=60))
