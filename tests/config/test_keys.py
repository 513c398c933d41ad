"""Keys of older versions: files, stored runs and settings are read, with a warning that names each key's new one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from xmc.config import BankConfig, PrototypesConfig, ShortlistConfig, TrainConfig, TransformerConfig
from xmc.config.explain import explained_keys
from xmc.config.keys import GONE, NEW_KEYS, as_written, family_part
from xmc.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
OLD = ROOT / "tests" / "data" / "old-configs"
LEFT_TO_THE_DEVICE = ("precision", "gradient_cache")
"""Keys that recipes leave to the device, whatever their older forms said."""


@pytest.mark.parametrize("file", sorted(OLD.glob("*.yaml")), ids=lambda file: file.stem)
def test_recipes_of_the_old_form_are_those_of_the_new(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = TrainConfig.load(file)
    warned = caplog.text
    new = TrainConfig.load(ROOT / "configs" / file.name)
    auto = {key: "auto" for key in LEFT_TO_THE_DEVICE if new.flat()[key] == "auto"}
    assert old.changed(**auto) == new
    assert caplog.text == warned, "the new form is read without a warning"
    for key, value in yaml.safe_load(file.read_text(encoding="utf-8")).items():
        for name in [f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key]:
            if NEW_KEYS.get(name):
                assert f"{name} is {as_written(NEW_KEYS[name] or '')}" in warned


def test_every_new_key_of_the_table_is_one() -> None:
    known = {(key.name, key.kind) for key in explained_keys()}
    for old, new in NEW_KEYS.items():
        if new is None:
            assert old in GONE
        else:
            parts = family_part(new)
            assert (as_written(new), parts[1] if parts else "") in known, old


def stored_by_the_version_before() -> dict[str, Any]:
    """Every key of the form before, as runs have them in their config.yaml."""
    text = (Path(__file__).parent / "every-old-key.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def test_every_key_of_a_stored_run_is_read(caplog: pytest.LogCaptureFixture) -> None:
    values = stored_by_the_version_before()
    assert TrainConfig.from_mapping(values) == TrainConfig(
        tile_bytes=values["tile_bytes"], token_cache=None, precision="float32", gradient_cache=False
    )  # "auto" now
    assert "weight_learning_rate is optimizer.learning_rate.feature_weights" in caplog.text
    flat = {f"{key}.{name}" for key in values if isinstance(values[key], dict) for name in values[key]} | set(values)
    lacking = {old for old in NEW_KEYS if old.count(".") < 2 and old not in flat}
    assert not lacking


def test_options_of_kinds_that_are_not_chosen_have_no_effect() -> None:
    values = stored_by_the_version_before() | {"negatives": "clusters+shortlist", "label_vectors": "prototypes"}
    values["bank"]["hard"] = 77
    values["margin"]["negatives"] = 12
    values["shortlist"]["size"] = 3
    config = TrainConfig.from_mapping(values)
    assert config.negatives_named == "clusters+shortlist"
    assert config.negatives_of(ShortlistConfig) == ShortlistConfig(size=3)
    prototypes = PrototypesConfig.of(config.label_vectors)
    assert prototypes is not None
    assert prototypes.regularisation_negatives == 12, "the margin's negatives were the regularisation's too"


def test_old_settings_over_files_of_either_form(caplog: pytest.LogCaptureFixture) -> None:
    for recipes in (OLD, ROOT / "configs"):
        config = TrainConfig.load(
            recipes / "minilm-wordnet-8k.yaml",
            ["transformer.directory=models/other", "bank.hard=5", "learning_rate=1e-3"],
        )
        encoder = TransformerConfig.of(config.encoder)
        assert encoder is not None
        assert (encoder.directory, encoder.max_length, config.encoder_learning_rate) == ("models/other", 64, 1e-3)
        assert config.negatives_of(BankConfig) == BankConfig(hard=5, refresh=32)
        assert "transformer.directory is encoder.directory" in caplog.text


def test_old_settings_are_kept_for_the_kind_that_is_chosen_after_them() -> None:
    config = TrainConfig.from_mapping({}, ["bank.hard=5", "sampled_negatives=7", "negatives=bank"])
    assert config.negatives == (BankConfig(hard=5),)


def test_warmup_was_a_share_in_one_key_and_steps_in_another() -> None:
    assert TrainConfig.from_mapping({"warmup": 0}).optimizer.warmup_steps(100) == 0
    assert TrainConfig.from_mapping({"warmup": 0.1, "warmup_steps": None}).optimizer.warmup_steps(100) == 10
    assert TrainConfig.from_mapping({"warmup": 0.1, "warmup_steps": 3}).optimizer.warmup_steps(100) == 3
    assert TrainConfig.from_mapping({"warmup_steps": 1}).optimizer.warmup_steps(100) == 1


def test_warmup_in_steps_goes_before_a_share_in_any_order() -> None:
    assert TrainConfig.from_mapping({"warmup_steps": 3, "warmup": 0.1}).optimizer.warmup_steps(100) == 3
    assert TrainConfig.from_mapping({"warmup_steps": 3}, ["warmup=0.1"]).optimizer.warmup_steps(100) == 3
    without = TrainConfig.from_mapping({"warmup_steps": 3, "warmup": 0.1}, ["warmup_steps=null"])
    assert without.optimizer.warmup_steps(100) == 10
    assert TrainConfig.from_mapping({"warmup_steps": 3}, ["warmup_steps=null"]) == TrainConfig()
    assert TrainConfig.from_mapping({"warmup_steps": 3}, ["optimizer.warmup=0.1"]).optimizer.warmup_steps(100) == 10


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"static": {"dimensions": 3}}, r"unknown key 'static\.dimensions'\. Did you mean 'static\.dimension'"),
        ({"static": 5}, r"static must be a section of keys, but is 5"),
        ({"transformer": {"quantization": "4bit"}}, r"transformer\.quantization is gone"),
        ({"transformer": {"liger": True}}, r"transformer\.liger is gone"),
        ({"loss": "triplet"}, r"objective\.loss must be one of"),
        ({"negatives": "bank+sampled"}, r"negatives bank scores every label"),
        ({"warmup": 2}, r"optimizer\.warmup must be a share"),
        ({"warmup_steps": 0.5}, r"warmup_steps must be of type int, but is 0\.5"),
    ],
)
def test_mistakes_in_old_keys_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_mapping(values, source="x")


def test_the_warning_is_one_line_in_the_log_of_the_configuration(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "xmc.config"):
        TrainConfig.from_mapping({"temperature": 0.5, "negatives": "clusters+sampled"}, source="old.yaml")
    (record,) = caplog.records
    assert record.name == "xmc.config"
    assert record.getMessage() == (
        "old.yaml has keys of an older version, which are called otherwise now: negatives: clusters+sampled is "
        "negatives: [clusters, sampled], temperature is objective.temperature"
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_the_order_of_old_keys_does_not_matter(reverse: bool) -> None:
    """A plain value that stands for a section leaves the section's other keys as they were given."""
    values = {
        "validation": 0.2,
        "validation_steps": 3,
        "patience": 50,
        "learning_rate": 0.01,
        "label_vector_learning_rate": 1.0,
    }
    given = dict(sorted(values.items(), reverse=reverse))
    config = TrainConfig.from_mapping(given)
    assert (config.validation.share, config.validation.steps, config.validation.patience) == (0.2, 3, 50)
    assert config.optimizer.learning_rate.encoder == 0.01
    assert config.optimizer.learning_rate.label_vectors == 1.0
    assert TrainConfig.from_mapping(values, ["validation=0.3"]).validation.patience == 50
    mixed = {"learn_temperature": True, "loss": "softmax", "objective": {"temperature": 0.1}}
    objective = TrainConfig.from_mapping(dict(sorted(mixed.items(), reverse=reverse))).objective
    assert (objective.learn_temperature, objective.temperature, objective.loss.kind) == (True, 0.1, "softmax")
