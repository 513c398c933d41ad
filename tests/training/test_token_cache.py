"""When training keeps tokens between runs, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import WORDS, write_bert
from worlds import tiny_config

from xmc.data.dataset import Dataset
from xmc.encoders.dual import build_encoder
from xmc.storage.caches import user_cache
from xmc.training.data import WORTH_KEEPING, TrainingData, prepare


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XMC_CACHE", str(tmp_path / "user"))


def prepared(labels: int, settings: dict[str, Any]) -> TrainingData:
    """Training data of two queries and some labels."""
    texts = [f"{WORDS[row % len(WORDS)]} {WORDS[row // len(WORDS) % len(WORDS)]}" for row in range(labels)]
    data = Dataset.from_lists("many", texts, {"train": (["a boat", "dog"], [[0], [1]])})
    config = tiny_config(**settings)
    return prepare(data, config, build_encoder(config, labels, torch.Generator()))


def transformer(tmp_path: Path) -> dict[str, Any]:
    return {"encoder": {"kind": "transformer", "directory": str(write_bert(tmp_path / "bert"))}}


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*")) if directory.exists() else []


def test_a_transformer_and_many_texts_have_the_users_cache(tmp_path: Path) -> None:
    first = prepared(WORTH_KEEPING, transformer(tmp_path))
    assert len(files(user_cache() / "tokens")) == 2
    second = prepared(WORTH_KEEPING, transformer(tmp_path))
    without = prepared(WORTH_KEEPING, transformer(tmp_path) | {"token_cache": None})
    assert len(files(user_cache() / "tokens")) == 2
    for data in (first, second):
        for side in ("query_features", "label_features"):
            tokens, expected = getattr(data, side), getattr(without, side)
            np.testing.assert_array_equal(tokens.values, expected.values)
            np.testing.assert_array_equal(tokens.offsets, expected.offsets)


def test_few_texts_and_hashed_features_are_not_kept(tmp_path: Path) -> None:
    prepared(WORTH_KEEPING - 1, transformer(tmp_path))
    prepared(WORTH_KEEPING, {})
    assert not user_cache().exists()


def test_a_named_directory_keeps_all(tmp_path: Path) -> None:
    prepared(3, {"token_cache": str(tmp_path / "tokens")})
    assert len(files(tmp_path / "tokens")) == 2
    assert not user_cache().exists()


def test_a_cache_that_cannot_be_made_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XMC_CACHE", str(tmp_path / "file" / "cache"))
    data = prepared(WORTH_KEEPING, transformer(tmp_path))
    assert len(data.label_features) == WORTH_KEEPING
    (record,) = [record for record in caplog.records if record.name == "xmc.data.tokens"]
    assert "token_cache" in record.getMessage()
