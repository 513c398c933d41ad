"""What a configuration may name is what there is: the sections of each family and its members have the same names."""

from __future__ import annotations

from xmc.config.encoders import ENCODER_SECTIONS
from xmc.config.losses import LOSS_SECTIONS
from xmc.config.negatives import NEGATIVES_SECTIONS
from xmc.encoders.registry import ENCODERS
from xmc.kernels.losses import LOSSES
from xmc.training.negatives import NEGATIVES


def test_every_section_has_a_member_and_every_member_a_section() -> None:
    assert set(ENCODER_SECTIONS) == set(ENCODERS)
    assert set(LOSS_SECTIONS) == set(LOSSES)
    assert set(NEGATIVES_SECTIONS) == set(NEGATIVES)


def test_sections_and_losses_agree_on_what_needs_all_labels() -> None:
    assert {name for name, section in LOSS_SECTIONS.items() if section.over_all_labels} == {
        name for name, loss in LOSSES.items() if loss.over_all_labels
    }
