"""Configuration: typed, with unknown keys refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from xmc.config import TrainConfig
from xmc.config.mappings import parse_override
from xmc.errors import ConfigError


def test_defaults_survive_a_round_trip(tmp_path: Path) -> None:
    config = TrainConfig()
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    assert TrainConfig.load(file) == config


def test_file_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("epochs: 3\nlearning_rate: 1e-2\nstatic:\n  dimension: 64\n")
    config = TrainConfig.load(
        file, ["static.table_rows=1000", "negatives=sampled", "temperature=1", "learning_rate=5e-3"]
    )
    assert (config.epochs, config.static.dimension, config.static.table_rows) == (3, 64, 1000)
    assert (config.negatives, config.temperature, config.learning_rate) == ("sampled", 1.0, 5e-3)
    assert isinstance(config.temperature, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, r"unknown key 'epoch'.*Did you mean 'epochs'"),
        ({"static": {"dimensions": 3}}, r"unknown key 'static.dimensions'.*'static.dimension'"),
        ({"epochs": "three"}, r"epochs must be of type int, but is 'three'"),
        ({"epochs": True}, r"epochs must be of type int"),
        ({"epochs": 2.5}, r"epochs must be of type int"),
        ({"epochs": 0}, r"epochs must be at least 1, but is 0"),
        ({"temperature": float("nan")}, r"temperature must be of type float"),
        ({"temperature": -1}, r"temperature must be greater than 0"),
        ({"token_dropout": 1.0}, r"token_dropout must be a share in \[0, 1\)"),
        (
            {"negatives": "some"},
            r"negatives must be made of all, bank, in-batch, sampled, shortlist, clusters, but has 'some'",
        ),
        ({"loss": "soft_topk", "negatives": "sampled"}, r"soft_topk is defined over all labels; set negatives to all"),
        ({"loss": "triplet"}, r"loss must be one of softmax"),
        ({"static": 5}, r"static must be of type StaticConfig"),
        ({"static": {"kind_scales": [1, 2]}}, r"five numbers"),
        ({"encoder": "transformer"}, r"transformer.directory must name a model directory"),
        (
            {"encoder": "transformer", "transformer": {"directory": "x", "shard": True}},
            r"transformer.shard needs gradient_cache; set it to true",
        ),
        ({"transformer": {"shard": True, "compile": True}}, r"shard and transformer.compile do not go together"),
        ({"device": "cuda"}, r"static encoder runs on the CPU"),
        ({"learn_temperature": "yes please"}, r"learn_temperature must be of type bool"),
    ],
)
def test_mistakes_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_mapping(values)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml cannot be read"):
        TrainConfig.load(tmp_path / "nowhere.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("epochs: [")
    with pytest.raises(ConfigError, match=r"bad.yaml is not valid YAML"):
        TrainConfig.load(bad)
    bad.write_text("- epochs")
    with pytest.raises(ConfigError, match=r"must be a mapping"):
        TrainConfig.load(bad)
    bad.write_text("encoder: !!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match=r"not valid YAML"):
        TrainConfig.load(bad)


def test_overrides_that_are_not_settings() -> None:
    with pytest.raises(ConfigError, match="form key=value"):
        parse_override("epochs")
    with pytest.raises(ConfigError, match="reaches into 'epochs'"):
        TrainConfig.from_mapping({"epochs": 3}, ["epochs.x=4"])
