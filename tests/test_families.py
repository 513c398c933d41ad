"""What a configuration may name is what there is: the sections of each family and its members have the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from families import members_restored
from worlds import colours, tiny_config

import xmc
from xmc.config import LABEL_VECTOR_SECTIONS, LabelVectorsConfig
from xmc.config.encoders import ENCODER_SECTIONS
from xmc.config.losses import LOSS_SECTIONS
from xmc.config.negatives import NEGATIVES_SECTIONS
from xmc.encoders.registry import ENCODERS
from xmc.errors import ConfigError
from xmc.kernels.losses import LOSSES
from xmc.training.negatives import NEGATIVES
from xmc.training.prototypes import add_prototypes


def test_every_section_has_a_member_and_every_member_a_section() -> None:
    assert set(ENCODER_SECTIONS) == set(ENCODERS)
    assert set(LOSS_SECTIONS) == set(LOSSES)
    assert set(NEGATIVES_SECTIONS) == set(NEGATIVES)


def test_sections_and_losses_agree_on_what_needs_all_labels() -> None:
    assert {name for name, section in LOSS_SECTIONS.items() if section.over_all_labels} == {
        name for name, loss in LOSSES.items() if loss.over_all_labels
    }


class ToyVectorsConfig(LabelVectorsConfig):
    kind: Literal["toy"] = "toy"


def test_label_vectors_that_nothing_makes_are_refused(tmp_path: Path) -> None:
    with members_restored():
        LABEL_VECTOR_SECTIONS.register("toy", ToyVectorsConfig)
        config = tiny_config(label_vectors="toy")
        with pytest.raises(
            ConfigError, match=r"label_vectors\.kind 'toy' has a section .* choose none, residual or proto"
        ):
            xmc.train(colours(), config, tmp_path / "run")
    with pytest.raises(
        ConfigError, match="A PrototypesConfig is needed here, but the configuration has a ResidualConfig"
    ):
        add_prototypes(32, 12, tiny_config())
