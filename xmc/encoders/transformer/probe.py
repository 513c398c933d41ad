"""Whether a backbone encodes texts that are packed into one run as it encodes them padded."""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xmc.encoders.transformer.arrangement import Arranged
from xmc.encoders.transformer.packed_attention import IMPLEMENTATIONS, attend_within_segments
from xmc.encoders.transformer.packing import pack
from xmc.encoders.transformer.padding import pad

__all__ = ["packs"]

LENGTHS = np.array([5, 1, 9], np.int64)
"""Lengths of the sequences that a backbone is tried with."""
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest difference between packed and padded states, as a share of the largest state, by the backbone's type."""
logger = logging.getLogger("xmc.encoders")


@torch.no_grad()
def packs(backbone: Any, first_position: int, bidirectional: bool) -> bool:
    """Have a backbone attend within segments, and say whether its states of a few tokens are those of padded ones.

    Where they are not, it is left as it was, and the log says why, once for each kind of backbone.
    """
    if backbone.config._attn_implementation in IMPLEMENTATIONS.values():  # a copy of one that attends within segments
        backbone.set_attn_implementation("sdpa")
    before, training = backbone.config._attn_implementation, backbone.training
    backbone.eval()
    try:
        why = _differs(backbone, first_position, bidirectional)
    except Exception as error:  # whatever a backbone raises, it is not packed
        why = str(error) or type(error).__name__
    backbone.train(training)
    if why is None:
        return True
    if backbone.config._attn_implementation != before:
        backbone.set_attn_implementation(before)
    _say(type(backbone).__name__, why)
    return False


def _differs(backbone: Any, first_position: int, bidirectional: bool) -> str | None:
    """Why packed states cannot be had; None where they can."""
    if not getattr(type(backbone), "_supports_attention_backend", False):
        return "its attention does not go through transformers' interface"
    first: Tensor = next(backbone.parameters())
    padding = getattr(backbone.config, "pad_token_id", None)
    tokens = np.flatnonzero(np.arange(backbone.config.vocab_size) != padding)
    values = tokens[np.arange(LENGTHS.sum()) * 7919 % len(tokens)].astype(np.uint32)
    padded = _states(backbone, pad(values, LENGTHS, padding or 0, first.device, bidirectional, first.dtype))
    attend_within_segments(backbone, bidirectional)
    packed = _states(backbone, pack(values, LENGTHS, first_position, first.device))
    difference = float((packed - padded).abs().max() / padded.abs().max().clamp_min(1e-30))
    if difference <= TOLERANCES[first.dtype]:
        return None
    return f"its states differ from those of padded texts by {difference:.2g} of the largest"


def _states(backbone: nn.Module, arranged: Arranged) -> Tensor:
    hidden: Tensor = backbone(input_ids=arranged.ids, **arranged.keywords).last_hidden_state
    states: Tensor = arranged.states(hidden).float()
    return states


@functools.cache
def _say(kind: str, why: str) -> None:
    logger.warning("texts are padded, not packed, for a %s: %s", kind, why)
