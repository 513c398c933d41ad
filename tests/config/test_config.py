"""Configuration: what is given is checked when it is written, and mistakes are sentences with the nearest name."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from xmc.config import (
    BankConfig,
    ClustersConfig,
    EncoderConfig,
    LoRAConfig,
    PrototypesConfig,
    ResidualConfig,
    ShortlistConfig,
    StaticConfig,
    TrainConfig,
    TransformerConfig,
    TripletMarginConfig,
)
from xmc.config.overrides import parse_override
from xmc.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def test_defaults_survive_a_round_trip(tmp_path: Path) -> None:
    config = TrainConfig()
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    assert TrainConfig.load(file) == config
    assert TrainConfig.from_mapping(config.to_mapping()) == config


def test_every_section_survives_a_round_trip() -> None:
    config = TrainConfig(
        encoder={"kind": "transformer", "directory": "models/x", "lora": {"rank": 4, "target": ["q_proj"]}},
        objective={"loss": {"kind": "triplet_margin", "most": 0.5}, "nested_dimensions": [4, 8]},
        negatives=["sampled", {"kind": "clusters", "doubling_epochs": (3, 5)}],
        label_vectors={"kind": "residual", "moments": "int8"},
        optimizer={"warmup": 7},
    )
    again = TrainConfig.from_mapping(yaml.safe_load(config.to_yaml()))
    assert again == config
    assert hash(again) == hash(config)
    assert (config.negatives_named, again.optimizer.warmup_steps(1000)) == ("sampled+clusters", 7)


def test_file_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("epochs: 3\noptimizer:\n  learning_rate: 1e-2\nencoder:\n  kind: static\n  dimension: 64\n")
    config = TrainConfig.load(
        file,
        ["encoder.table_rows=1000", "negatives=sampled", "objective.temperature=1", "optimizer.learning_rate=5e-3"],
    )
    encoder = StaticConfig.of(config.encoder)
    assert encoder is not None
    assert (config.epochs, encoder.dimension, encoder.table_rows) == (3, 64, 1000)
    assert (config.negatives_named, config.objective.temperature, config.encoder_learning_rate) == (
        "sampled",
        1.0,
        5e-3,
    )
    assert isinstance(config.objective.temperature, float)


def test_overrides_reach_into_sections_of_a_kind() -> None:
    config = TrainConfig.from_mapping({}, ["negatives.bank.hard=2", "negatives=bank", "encoder.dimension=8"])
    assert config.negatives_of(BankConfig) == BankConfig(hard=2)
    with pytest.raises(ConfigError, match=r"negatives are .*, without a section ShortlistConfig"):
        config.negatives_of(ShortlistConfig)
    assert config.encoder == StaticConfig(dimension=8)
    joined = TrainConfig.from_mapping({}, ["negatives=[clusters, shortlist]", "negatives.clusters.size=3"])
    assert joined.negatives == (ClustersConfig(size=3), ShortlistConfig())
    # What a file says of a kind holds where the kind is chosen again.
    values = {"negatives": [{"kind": "bank", "hard": 1}], "optimizer": {"learning_rate": 0.1}}
    again = TrainConfig.from_mapping(values, ["negatives=bank", "optimizer.learning_rate.label_vectors=0.2"])
    assert again.negatives == (BankConfig(hard=1),)
    assert (again.encoder_learning_rate, again.optimizer.learning_rate.label_vectors) == (0.1, 0.2)
    with pytest.raises(
        ConfigError, match=r"negatives\.bank\.hard is of negatives that are not chosen; set negatives=bank too"
    ):
        TrainConfig.from_mapping({}, ["negatives.bank.hard=2"])


def test_the_name_of_a_kind_is_short_for_its_section() -> None:
    assert (
        TrainConfig(encoder="static") == TrainConfig(encoder={"kind": "static"}) == TrainConfig(encoder=StaticConfig())
    )
    assert TrainConfig(negatives="bank") == TrainConfig(negatives=["bank"]) == TrainConfig(negatives=BankConfig())
    assert TrainConfig(validation=0.1).validation.share == 0.1
    assert TrainConfig(optimizer={"learning_rate": "5e-3"}).optimizer.learning_rate.encoder == 5e-3
    assert TrainConfig(label_vectors="residual").label_vectors == ResidualConfig()
    assert TripletMarginConfig.of(TrainConfig(objective={"loss": "triplet_margin"}).objective.loss) is not None


TRANSFORMER = {"kind": "transformer", "directory": "x"}
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"epoch": 3}, r"unknown key 'epoch'.*Did you mean 'epochs'"),
    ({"encoder": {"dimensions": 3}}, r"unknown key 'encoder\.dimensions'.*'encoder\.dimension'"),
    ({"epochs": "three"}, r"epochs must be of type int, but is 'three'"),
    ({"epochs": True}, r"epochs must be of type int"),
    ({"epochs": 2.5}, r"epochs must be of type int, but is 2\.5"),
    ({"epochs": 2.0}, r"epochs must be of type int"),
    ({"epochs": None}, r"epochs must be of type int, but is None"),
    ({"tile_bytes": "half"}, r'tile_bytes must be int \(at least 1\) or "auto", but is \'half\''),
    ({"tile_bytes": 0}, r"tile_bytes must be at least 1, but is 0"),
    ({"keep_bytes": -5}, r"keep_bytes must be at least 0, but is -5"),
    ({"epochs": 0}, r"epochs must be at least 1, but is 0"),
    ({"objective": {"temperature": float("nan")}}, r"objective\.temperature must be of type float"),
    ({"objective": {"temperature": float("inf")}}, r"objective\.temperature must be of type float"),
    ({"objective": {"temperature": True}}, r"objective\.temperature must be of type float"),
    ({"objective": {"temperature": -1}}, r"objective\.temperature must be greater than 0, but is -1"),
    ({"objective": {"positives_propensity": [1]}}, r"objective\.positives_propensity must be two numbers A and B > 0"),
    ({"objective": {"nested_dimensions": [0]}}, r"objective\.nested_dimensions must be at least 1, but is 0"),
    ({"objective": {"nested_dimensions": [4, 4]}}, r"nested_dimensions must name each dimension once, but is \[4, 4\]"),
    (
        {"objective": {"distillation": {"weight": 0}}},
        r"objective\.distillation\.weight must be a share in \(0, 1\], but is 0",
    ),
    (
        {"objective": {"loss": "triplet"}},
        r"objective\.loss must be one of softmax.*'triplet'\. Did you mean 'triplet_margin'",
    ),
    ({"objective": {"loss": {"kind": "triplet_margin", "most": 0.01}}}, r"objective\.loss\.most must be at least"),
    ({"data": {"token_dropout": 1.0}}, r"data\.token_dropout must be a share in \[0, 1\), but is 1\.0"),
    (
        {"negatives": "some"},
        r"negatives must be one of all, bank, in-batch, sampled, shortlist, clusters, but is 'some'",
    ),
    ({"negatives": 4}, r"negatives must be .*but is 4"),
    ({"negatives": []}, r"negatives must name at least one kind"),
    ({"negatives": ["bank", "sampled"]}, r"negatives bank scores every label; it cannot be joined with others"),
    ({"negatives": ["sampled", "sampled"]}, r"negatives 'sampled\+sampled' names one kind twice"),
    ({"negatives": {"kind": "bank", "hrad": 1}}, r"unknown key 'negatives\.bank\.hrad'.*'negatives\.bank\.hard'"),
    ({"negatives": [{"kind": "bank", "hard": 1.5}]}, r"negatives\.bank\.hard must be of type int, but is 1\.5"),
    (
        {"negatives": {"kind": "shortlist", "size": 40}},
        r"negatives\.shortlist\.window_end must be at least window_start",
    ),
    (
        {"objective": {"loss": "soft_topk"}, "negatives": "sampled"},
        r"soft_topk is defined over all labels; set negatives to all",
    ),
    ({"objective": {"in_batch_positives": True}}, r"in_batch_positives is for negatives that score some labels"),
    ({"objective": {"loss": "soft_topk"}, "label_vectors": "prototypes"}, r"ranks all labels of a query; prototypes"),
    ({"encoder": 5}, r"encoder must be one of static, transformer, but is 5"),
    ({"encoder": "statik"}, r"encoder must be one of static.*'statik'\. Did you mean 'static'"),
    ({"encoder": {"kind_scales": [1, 2]}}, r"encoder\.kind_scales must be five numbers.*but is \[1(\.0)?, 2(\.0)?\]"),
    ({"encoder": "transformer"}, r"encoder\.directory must be given: A Hugging Face"),
    ({"encoder": {"kind": "transformer", "directory": ""}}, r"encoder\.directory must be a text that is not empty"),
    (
        {"encoder": {**TRANSFORMER, "shard": True}, "gradient_cache": False},
        r"encoder\.shard needs gradient_cache; set it to",
    ),
    ({"encoder": {**TRANSFORMER, "shard": True, "compile": True}}, r"shard and encoder\.compile do not go together"),
    ({"encoder": {**TRANSFORMER, "lora": {"rank": -1}}}, r"encoder\.lora\.rank must be at least 0, but is -1"),
    (
        {"encoder": {**TRANSFORMER, "lora": {"target": "q"}}},
        r"encoder\.lora\.target must be a list of texts, but is 'q'",
    ),
    (
        {"encoder": {**TRANSFORMER, "pooling": "max"}},
        r"encoder\.pooling must be one of mean, cls, last, eos, but is 'max'",
    ),
    ({"device": "cuda"}, r"static encoder runs on the CPU"),
    (
        {"precision": "float16"},
        r"precision must be one of auto, float32, bfloat16, but is 'float16'\. Did you mean 'bfloat16'",
    ),
    ({"objective": {"learn_temperature": "yes please"}}, r"objective\.learn_temperature must be of type bool"),
    ({"objective": 4}, r"objective must be a section of keys, but is 4"),
    (
        {"optimizer": {"warmup": 1.5}},
        r"optimizer\.warmup must be a share in \[0, 1\) of all steps, or a whole number of steps",
    ),
    ({"optimizer": {"warmup": -1}}, r"optimizer\.warmup must be a share"),
    (
        {"optimizer": {"learning_rate": {"encoder": 0}}},
        r"optimizer\.learning_rate\.encoder must be greater than 0, but is 0",
    ),
    ({"optimizer": {"learning_rate": -1}}, r"optimizer\.learning_rate\.encoder must be greater than 0, but is -1"),
    ({"validation": {"metric": "F1@5"}}, r"validation\.metric must be one of P@1.*but is 'F1@5'"),
    ({"validation": 1}, r"validation\.share must be a share in \[0, 1\), but is 1"),
    ({"token_cache": 3}, r"token_cache must be of type str, but is 3"),
]


@pytest.mark.parametrize(("values", "message"), MISTAKES)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match="the file x.*" + message if "unknown" in message else message):
        TrainConfig.from_mapping(values, source="the file x")
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "nope"}, r"unknown key 'loss'\. It is called objective\.loss now"),
        (
            {"static": {"dimension": 3}},
            r"unknown key 'static'\. Its keys are called otherwise now: .*encoder\.dimension",
        ),
        ({"validation_metric": "F1@5"}, r"unknown key 'validation_metric'\. It is called validation\.metric now"),
        ({"encoder": LoRAConfig()}, r"encoder must be one of static, transformer"),
        ({"negatives": "clusters+sampled"}, r"negatives must be one of .* but is 'clusters\+sampled'"),
    ],
)
def test_the_constructor_takes_keys_of_this_version_alone(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**values)


def test_sections_are_checked_when_they_are_made() -> None:
    with pytest.raises(ConfigError, match=r"^hard must be of type int, but is 2\.5\.$"):
        BankConfig(hard=2.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"BankConfig has the unknown key 'herd'\. Did you mean 'hard'"):
        BankConfig(herd=2)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="directory must be given"):
        TransformerConfig()  # type: ignore[call-arg]


def test_a_configuration_cannot_be_changed_in_place() -> None:
    config = TrainConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.epochs = 3


def test_changes_are_checked() -> None:
    config = TrainConfig(negatives="bank", objective={"temperature": 0.5, "learn_temperature": True})
    changed = config.changed(index="exact", **{"objective.temperature": 0.1, "negatives.bank.hard": 1})
    assert (changed.index, changed.objective.temperature, changed.objective.learn_temperature) == ("exact", 0.1, True)
    assert changed.negatives_of(BankConfig) == BankConfig(hard=1)
    assert config.negatives_of(BankConfig) == BankConfig()
    assert config.changed(negatives=[ShortlistConfig(size=2)]).negatives == (ShortlistConfig(size=2),)
    assert config.changed(objective={"temperature": 0.2}).objective.learn_temperature is False
    with pytest.raises(ConfigError, match=r"epochs must be of type int, but is 2\.5"):
        config.changed(epochs=2.5)
    with pytest.raises(ConfigError, match=r"unknown key 'epoch'\. Did you mean 'epochs'"):
        config.changed(epoch=2)


def test_keys_are_flat_for_comparison() -> None:
    flat = TrainConfig(negatives=["clusters", "sampled"]).flat()
    assert (flat["optimizer.learning_rate.feature_weights"], flat["negatives.sampled.count"]) == (0.05, 8192)
    assert flat["encoder.kind"] == "static"
    assert TrainConfig(negatives="all").flat()["negatives.all.kind"] == "all"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml cannot be read"):
        TrainConfig.load(tmp_path / "nowhere.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("epochs: [")
    with pytest.raises(ConfigError, match=r"bad.yaml is not valid YAML"):
        TrainConfig.load(bad)
    bad.write_text("epochs: " + "[" * 5000)
    with pytest.raises(ConfigError, match=r"bad.yaml is not valid YAML: it is nested deeper than 50 levels"):
        TrainConfig.load(bad)
    bad.write_text("epochs: 2\nobjective:\n  loss: soft_topk\n  loss: decoupled_softmax\n")
    with pytest.raises(ConfigError, match=r"the key 'loss' stands twice(.|\n)*line 4"):
        TrainConfig.load(bad)
    bad.write_text("objective: &usual {temperature: 0.1}\n")
    assert TrainConfig.load(bad).objective.temperature == 0.1
    bad.write_text("- epochs")
    with pytest.raises(ConfigError, match=r"must be a mapping"):
        TrainConfig.load(bad)
    bad.write_text("encoder: !!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match=r"not valid YAML"):
        TrainConfig.load(bad)


def test_every_order_of_settings_is_the_same_configuration() -> None:
    settings = ["label_vectors.heads=2", "label_vectors.kind=prototypes", "label_vectors.dropout=0.5"]
    first = TrainConfig.from_mapping({}, settings)
    assert first.label_vectors == PrototypesConfig(heads=2, dropout=0.5)
    assert all(TrainConfig.from_mapping({}, order) == first for order in itertools.permutations(settings))


def test_quoted_settings_are_texts() -> None:
    config = TrainConfig.from_mapping({}, ["index='3'", "objective.temperature=1e-2", "optimizer.warmup=1e-1"])
    assert (config.index, config.objective.temperature, config.optimizer.warmup) == ("3", 0.01, 0.1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("negatives.bank.hard=3", r"negatives that are not chosen; set negatives=bank too"),
        ("negatives.hard=3", r"negatives\.hard must name a kind of negatives that is chosen \(all\)"),
    ],
)
def test_settings_of_negatives_that_are_not_there(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_mapping({}, [setting])


def test_overrides_that_are_not_settings() -> None:
    with pytest.raises(ConfigError, match="form key=value"):
        parse_override("epochs")
    with pytest.raises(ConfigError, match="reaches into 'epochs'"):
        TrainConfig.from_mapping({"epochs": 3}, ["epochs.x=4"])


def test_every_recipe_loads_and_has_an_encoder() -> None:
    recipes = sorted((ROOT / "configs").glob("*.yaml"))
    assert len(recipes) >= 14
    assert all(isinstance(TrainConfig.load(recipe).encoder, EncoderConfig) for recipe in recipes)
