"""Attention within the segments of a run, as the package transformers calls it, and how a backbone is given it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from xmc.kernels.attention import segment_attention

__all__ = ["IMPLEMENTATIONS", "NotPackableError", "attend_within_segments"]

IMPLEMENTATIONS = {False: "xmc_segments", True: "xmc_segments_bidirectional"}
"""Names of the attention in transformers' AttentionInterface: as the model has it, and where each token sees all others."""
NOT_COMPUTED = ("softcap", "s_aux", "position_bias")
"""What some models ask of attention and segments do not have: capped scores, sinks, biases by position."""


class NotPackableError(Exception):
    """A model asks of attention what segments do not have, or does not say where they are. No user sees it."""


def attend_within_segments(backbone: Any, bidirectional: bool) -> None:
    """Have a backbone attend within the segments that its call names by `cu_seq_lens_q` and `max_length_q`.

    bidirectional: each token sees all tokens of its segment, whatever the model was trained with.
    """
    from transformers import AttentionInterface

    # No mask function is registered under these names: transformers then makes no mask at all.
    for every, name in IMPLEMENTATIONS.items():
        AttentionInterface.register(name, _attention(every))
    backbone.set_attn_implementation(IMPLEMENTATIONS[bidirectional])


def _attention(bidirectional: bool) -> Callable[..., tuple[Tensor, None]]:
    def attend(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        sliding_window: int | None = None,
        is_causal: bool | None = None,
        cu_seq_lens_q: Tensor | None = None,
        max_length_q: int | None = None,
        **others: Any,
    ) -> tuple[Tensor, None]:
        """Attention of a run: query [1, H, T, D], key and value [1, G, T, D] to [1, T, H, D]."""
        asked = [name for name in NOT_COMPUTED if others.get(name) is not None]
        if asked or cu_seq_lens_q is None or max_length_q is None or len(query) != 1:
            raise NotPackableError(asked[0] if asked else "the boundaries of segments do not reach its attention")
        causal = (module.is_causal if is_causal is None else is_causal) and not bidirectional
        attended = segment_attention(
            query[0].transpose(0, 1),
            key[0].transpose(0, 1),
            value[0].transpose(0, 1),
            cu_seq_lens_q,
            max_length_q,
            causal=causal,
            scale=scaling,
            window=None if bidirectional else sliding_window,
            dropout=dropout,
        )
        return attended[None], None

    return attend
