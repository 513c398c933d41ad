"""Kinds that another package registers, the schema, and explanations: all from the sections' own fields."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from families import members_restored
from pydantic import BaseModel, Field

from xmc.config import (
    ENCODER_SECTIONS,
    LABEL_VECTOR_SECTIONS,
    LOSS_SECTIONS,
    NEGATIVES_SECTIONS,
    EncoderConfig,
    LossConfig,
    NegativesConfig,
    TrainConfig,
    TransformerConfig,
)
from xmc.config.explain import explain, explained_keys
from xmc.config.kinds import Family, default_kinds
from xmc.config.overrides import Values
from xmc.config.section import Section, plain_values
from xmc.errors import ConfigError

REGISTRIES: list[Any] = [ENCODER_SECTIONS, LABEL_VECTOR_SECTIONS, LOSS_SECTIONS, NEGATIVES_SECTIONS]


class ToyEncoderConfig(EncoderConfig):
    kind: Literal["toy"] = "toy"
    dimension: int = Field(default=4, ge=1)
    """Length of a toy embedding."""


class ToyLossConfig(LossConfig):
    kind: Literal["toy"] = "toy"
    power: float = Field(default=2.0, gt=0)
    """Power of the toy loss."""


class ToyNegativesConfig(NegativesConfig):
    kind: Literal["toy"] = "toy"
    stride: int = Field(default=3, ge=1)
    """Every how many labels one is a negative."""


@pytest.fixture
def toys() -> Iterator[None]:
    with members_restored():
        ENCODER_SECTIONS.register("toy", ToyEncoderConfig)
        LOSS_SECTIONS.register("toy", ToyLossConfig)
        NEGATIVES_SECTIONS.register("toy", ToyNegativesConfig)
        yield


@pytest.mark.usefixtures("toys")
def test_another_package_adds_kinds_with_options() -> None:
    config = TrainConfig(
        encoder={"kind": "toy", "dimension": 8},
        objective={"loss": "toy"},
        negatives=["sampled", {"kind": "toy", "stride": 2}],
    )
    assert config.encoder == ToyEncoderConfig(dimension=8)
    assert config.objective.loss == ToyLossConfig()
    assert config.negatives_of(ToyNegativesConfig) == ToyNegativesConfig(stride=2)
    assert TrainConfig.from_mapping(config.to_mapping()) == config
    changed = TrainConfig.from_mapping(config.to_mapping(), ["encoder.dimension=2", "negatives.toy.stride=5"])
    assert (changed.encoder, changed.negatives[1]) == (ToyEncoderConfig(dimension=2), ToyNegativesConfig(stride=5))
    assert "toy" in json.dumps(TrainConfig.model_json_schema())
    assert explain("negatives.toy.stride")[0][0].meaning == "Every how many labels one is a negative."
    with pytest.raises(ConfigError, match=r"encoder\.dimension must be at least 1, but is 0"):
        TrainConfig(encoder={"kind": "toy", "dimension": 0})
    with pytest.raises(
        ConfigError, match=r"unknown key 'negatives\.toy\.stripe'\. Did you mean 'negatives\.toy\.stride'"
    ):
        TrainConfig(negatives={"kind": "toy", "stripe": 1})


def test_a_kind_that_is_gone_is_refused_again() -> None:
    with members_restored():
        ENCODER_SECTIONS.register("toy", ToyEncoderConfig)
        assert TrainConfig(encoder={"kind": "toy", "dimension": 8}).encoder == ToyEncoderConfig(dimension=8)
    with pytest.raises(ConfigError, match="encoder must be one of static, transformer, but is 'toy'"):
        TrainConfig(encoder={"kind": "toy", "dimension": 8})


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.family)
def test_each_section_has_its_name_and_a_docstring_under_each_field(registry: Any) -> None:
    for name, section in registry.items():
        assert section.model_fields["kind"].default == name
        assert section.__doc__
        assert all(field.description for field in section.model_fields.values())


def test_every_key_is_explained() -> None:
    keys = explained_keys()
    assert all(key.meaning and key.type for key in keys)
    assert set(default_kinds(TrainConfig)) <= {key.name for key in keys}
    default = TrainConfig().flat()
    assert {name for name in default if not name.endswith("kind")} <= {key.name for key in keys}


def test_explanations_have_type_default_and_bounds() -> None:
    ((key,), note) = explain("data.token_dropout")
    assert (key.type, key.default, key.bounds, note) == ("float", "0.3", "a share in [0, 1)", "")
    assert key.meaning == "Share of a query's tokens dropped in training."
    section, _ = explain("optimizer.learning_rate")
    assert [key.name.rpartition(".")[2] for key in section[1:]] == [
        "encoder", "feature_weights", "label_vectors", "prototypes", "images"
    ]  # fmt: skip
    ((old,), note) = explain("sampled_negatives")
    assert (old.name, note) == ("negatives.sampled.count", "sampled_negatives is negatives.sampled.count now.")
    with pytest.raises(
        ConfigError, match=r"no key 'optimiser\.warmup' in the configuration\. Did you mean 'optimizer\.warmup'"
    ):
        explain("optimiser.warmup")


def test_the_schema_holds_every_section() -> None:
    text = json.dumps(TrainConfig.model_json_schema())
    for registry in REGISTRIES:
        for section in registry.values():
            assert issubclass(section, BaseModel)
            assert all(json.dumps(field.description) in text for field in section.model_fields.values())


def test_the_configuration_needs_no_torch() -> None:
    code = "import sys, xmc.config, xmc.config.explain; print([m for m in ('torch', 'numpy', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_the_reference_shows_every_section() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    sections = {TrainConfig, *(section for registry in REGISTRIES for section in registry.values())}
    for section in list(sections):
        sections |= {
            field.annotation
            for field in section.model_fields.values()
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        }
    shown = set(re.findall(r"\w+", page.partition("members: [")[2].partition("]")[0]))
    assert {section.__name__ for section in sections} - {"EncoderConfig", "LabelVectorsConfig", "LossConfig"} <= shown


class Pace(Section):
    short: ClassVar[str] = "steps"

    steps: int = 3
    """Steps."""
    most: int = 9
    """Most steps."""


class Inner(Section):
    pace: Pace = Pace()
    """A pace."""
    encoder: Annotated[EncoderConfig, Family(ENCODER_SECTIONS)] = TransformerConfig(directory="x")
    """An encoder."""


class Outer(Section):
    inner: Inner = Inner()
    """A section."""


def test_what_a_plain_value_or_no_kind_stands_for_is_read_from_the_sections() -> None:
    assert default_kinds(Outer) == {"inner.encoder": "transformer"}
    assert plain_values(Outer) == {"inner.pace": "steps"}
    assert default_kinds(TrainConfig)["objective.loss"] == "decoupled_softmax"
    assert plain_values(TrainConfig) == {"optimizer.learning_rate": "encoder", "validation": "share"}
    given = Values("x", default_kinds(Outer), plain_values(Outer))
    given.put(["inner", "pace"], 5)
    given.put(["inner", "pace", "most"], 7)
    given.put(["inner", "encoder", "directory"], "y")
    assert Outer.from_mapping(given.mapping()) == Outer(
        inner={"pace": {"steps": 5, "most": 7}, "encoder": TransformerConfig(directory="y")}
    )
