"""Whether gradients are cached: as the configuration says, or by what there is room for; either way the run is the same."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import WORDS
from worlds import colours

import xmc
from xmc.config import TrainConfig
from xmc.encoders.dual import build_encoder
from xmc.training.caching import chosen_caching
from xmc.training.estimate import estimate
from xmc.training.free_memory import free_memory
from xmc.training.parts import Sizes
from xmc.training.step_sizes import Lengths, StepSizes

HERE = torch.device("cpu")


def config(bert: Path, **changes: Any) -> TrainConfig:
    encoder = {"kind": "transformer", "directory": str(bert), "dropout": 0.2}
    values = {"encoder": encoder, "optimizer.learning_rate.encoder": 1e-3, "epochs": 1, "batch_size": 100}
    return TrainConfig.from_mapping({**values, **changes})


def chosen(options: TrainConfig, labels: int, processes: int = 1) -> Any:
    model = build_encoder(options, 0, torch.Generator().manual_seed(0))
    sizes = Sizes(options, model, labels, 10_000, processes)
    return chosen_caching(sizes, StepSizes.expected(sizes, Lengths(3, 10, 5)), HERE)


def test_auto_caches_where_a_step_does_not_fit(bert: Path) -> None:
    small, large = chosen(config(bert), 1_000), chosen(config(bert), 10**9)
    assert not small.cached
    assert large.cached
    assert 0 < small.activations < small.room
    assert large.activations > large.room
    assert str(small).startswith("off, for the 0.0")
    assert "do not fit" in str(large)


def test_what_is_configured_holds(bert: Path) -> None:
    for cached in (True, False):
        found = chosen(config(bert, gradient_cache=cached), 10**9)
        assert found.cached is cached
        assert "as configured" in str(found)
    split = TrainConfig.from_mapping({"encoder": {"kind": "transformer", "directory": str(bert), "shard": True}})
    assert chosen(split, 10).cached


def test_free_memory_is_some_of_the_machine() -> None:
    free = free_memory(HERE)
    assert free is None or 2**20 < free < 2**45


def test_a_run_is_the_same_either_way_and_says_what_it_chose(
    bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    embeddings = []
    for cached in ("auto", True):
        with caplog.at_level(logging.INFO, "xmc.training"):
            xmc.train(colours(WORDS[3:15]), config(bert, gradient_cache=cached), tmp_path / str(cached))
        embeddings.append(xmc.Retriever.load(tmp_path / str(cached)).labels.embeddings)
    assert (embeddings[0] == embeddings[1]).all()
    said = [record.message for record in caplog.records if "gradient caching" in record.message]
    assert len(said) == 2
    assert said[0].startswith("gradient caching: off, for the")
    assert said[1] == "gradient caching: on, as configured"


def test_the_estimate_shows_what_would_be_chosen(bert: Path) -> None:
    found = estimate(colours(WORDS[3:15]), config(bert, precision="float32"))
    assert found.choices["precision of encoders"] == "float32"
    assert found.choices["gradient caching"].startswith("off, for the")
    lowered = estimate(colours(WORDS[3:15]), config(bert, precision="bfloat16"))
    assert lowered.choices["precision of encoders"] == "bfloat16"
    assert lowered.memory["activations"] == found.memory["activations"] / 2
    assert lowered.memory["encoder parameters in bfloat16"] > 0
    assert "encoder parameters in bfloat16" not in found.memory
