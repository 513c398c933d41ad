"""Where tokens stand in a text, by which passages are cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.errors import InputError
from xmc.search.passages import PassageOptions, cut


def test_tokens_are_placed_in_a_text_of_any_length(bert: Path) -> None:
    encoder = TransformerEncoder.from_pretrained(bert, max_length=8)
    assert encoder.longest_text == 6
    text = "a  BOAT \n with été"
    assert [text[start:end] for start, end in encoder.spans(text)] == ["a", "BOAT", "with", "été"]
    long = "a boat with two hulls " * 20_000  # several blocks of the tokenizer
    spans = encoder.spans(long)
    assert spans.shape == (100_000, 2)
    assert long[slice(*spans[-1])] == "hulls"
    assert cut("a boat with two hulls and", PassageOptions(4, 2), encoder) == ["a boat with two", "with two hulls and"]
    with pytest.raises(InputError, match="let tokens be 6"):
        cut("a boat", PassageOptions(7), encoder)
