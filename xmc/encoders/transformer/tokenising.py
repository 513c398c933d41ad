"""Texts to the tokens that a transformer is given: prompts and special tokens around them, cut to a length."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.cached import cached_property
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Side
from xmc.encoders.spans import word_blocks, word_spans
from xmc.encoders.transformer.prompts import Prompt
from xmc.encoders.transformer.settings import TransformerSettings
from xmc.errors import ConfigError
from xmc.storage.fingerprints import fingerprint_of_json

__all__ = ["TextTokenizer"]

TEXTS_AT_ONCE = 4096
"""Number of texts that the tokenizer is given in one call."""
TOKENS_VERSION = 1
"""To be raised when this file makes other tokens of the same text, so that those in caches are not taken for them."""


class TextTokenizer:
    """The tokens of texts on one side, with the side's prompt, the special tokens and the images' slot.

    Each piece of a prompt is tokenised apart from the text, and only the text is cut. `slot` is a token id beyond the
    vocabulary, which no text has: it stands once in each sequence, where the images go, if images are configured.
    """

    def __init__(self, tokenizer: Any, settings: TransformerSettings, vocabulary: int) -> None:
        """tokenizer: of the package transformers. vocabulary: number of token ids that the backbone knows.

        Raises ConfigError for prompts that leave a text no room, or a tokenizer that cannot be used.
        """
        self.tokenizer, self.settings = tokenizer, settings
        self.slot = max(len(tokenizer), vocabulary)
        self.has_images = settings.image_dimension > 0
        self._special = sorted({*tokenizer.all_special_ids, self.slot})
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        # Set once: setting it at every call, as the tokenizer does, is not safe where threads share the encoder.
        if self._backend is not None:
            self._backend.no_padding()
            self._backend.enable_truncation(settings.max_length, direction=tokenizer.truncation_side)
        self._around = self._special_tokens_around()
        self._prompts: dict[Side, tuple[list[int], str, list[int]]] = {
            "query": self._tokenised(settings.query_prompt, "encoder.query_prompt"),
            "label": self._tokenised(settings.label_prompt, "encoder.label_prompt"),
        }

    @property
    def padding(self) -> int:
        """The token id that sequences are padded with."""
        padding: int | None = self.tokenizer.pad_token_id
        return 0 if padding is None else padding

    @property
    def size(self) -> int:
        """Number of token ids, the slot among them where there are images."""
        return self.slot + int(self.has_images)

    def tokens(self, texts: Sequence[str], side: Side) -> RaggedTokens:
        """Token ids of n texts, uint32, at most max_length each, the slot apart."""
        before, prefix, after = self._prompts[side]
        room = self.room(side)
        keep = slice(-room, None) if self.tokenizer.truncation_side == "left" else slice(room)
        offsets, blocks = np.zeros(len(texts) + 1, np.int64), [np.zeros(0, np.uint32)]
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            prepared = [self._prepared(prefix, text) for text in texts[start : start + TEXTS_AT_ONCE]]
            # One flat list: a list kept for each text would make Python's garbage collector go through all of them.
            block: list[int] = []
            for row, text_ids in enumerate(self._token_ids(prepared), start + 1):
                block += before
                block += text_ids[keep]
                block += after
                offsets[row] = len(block)
            offsets[start + 1 : start + 1 + len(prepared)] += offsets[start]
            blocks.append(np.array(block, np.uint32))
        return RaggedTokens(np.concatenate(blocks), offsets)

    def to_dict(self, side: Side) -> dict[str, Any]:
        """What turns a text of a side into tokens beside the tokenizer's own file, as JSON values.

        A text's tokens are `before`, then `room` at most of those of `prefix` + text without special ones, then `after`.
        """
        before, prefix, after = self._prompts[side]
        return {
            "before": before,
            "prefix": prefix,
            "after": after,
            "room": self.room(side),
            "max_length": self.settings.max_length,
            "truncation": self.tokenizer.truncation_side,
            "lower_case": self.settings.lower_case,
            "padding": self.padding,
        }

    def write(self, file: Path) -> None:
        """Write the tokenizer as the package tokenizers reads it; ConfigError for one that is not of that package."""
        if self._untruncated is None:
            raise ConfigError(
                f"A {type(self.tokenizer).__name__} is not of the package tokenizers, and cannot be written as one file."
            )
        self._untruncated.save(str(file))

    def room(self, side: Side) -> int:
        """Number of a text's tokens that prompts and special tokens leave room for."""
        before, _, after = self._prompts[side]
        return self.settings.max_length - len(before) - len(after) + int(self.has_images)

    def spans(self, text: str) -> npt.NDArray[np.int64]:
        """The first character of each token of a text, and the one behind its last, int64 [n, 2].

        Words where the tokenizer knows no offsets. A long text is given to it in blocks of words.
        """
        if self._untruncated is None:
            return word_spans(text)
        spans = [np.zeros((0, 2), np.int64)]
        for start, end in word_blocks(text).tolist():
            encoding = self._untruncated.encode(text[start:end], add_special_tokens=False)
            spans.append(np.array(encoding.offsets, np.int64).reshape(-1, 2) + start)
        return np.concatenate(spans)

    @cached_property
    def _untruncated(self) -> Any:
        """A copy of the tokenizer that truncates no text; None where it knows no offsets."""
        if self._backend is None:
            return None
        copied = copy.deepcopy(self._backend)
        copied.no_truncation()
        return copied

    @property
    def fingerprint(self) -> str:
        """A digest of everything that `tokens` depends on: the tokenizer's content, the settings, the prompts, and the code."""
        settings = self.settings
        others = [settings.prompt, settings.lower_case, settings.max_length, self.tokenizer.truncation_side]
        code = [TOKENS_VERSION, metadata.version("tokenizers")]
        return fingerprint_of_json([self._content, others, self._prompts, code], sort_keys=True)

    def fixed(self, features: RaggedTokens, side: Side) -> npt.NDArray[np.bool_]:
        """Whether a token is not the text's: [CLS], [SEP] and their kin, the side's prompt, the slot; bool [total]."""
        before, _, after = self._prompts[side]
        lengths = features.lengths
        positions = np.arange(len(features.values)) - np.repeat(features.offsets[:-1], lengths)
        of_prompt = (positions < len(before)) | (positions >= np.repeat(lengths, lengths) - len(after))
        return np.asarray(of_prompt | np.isin(features.values, self._special), bool)

    @cached_property
    def _content(self) -> str:
        """A digest of the tokenizer's own content, which takes a tenth of a second for a vocabulary of 30,000."""
        if self._backend is None:
            content: Any = [type(self.tokenizer).__name__, self.tokenizer.get_vocab(), repr(self.tokenizer)]
        else:
            content = json.loads(self._backend.to_str())
            del content["truncation"], content["padding"]
        return fingerprint_of_json(content, sort_keys=True)

    def _prepared(self, prefix: str, text: str) -> str:
        text = prefix + (text or "")
        return text.lower() if self.settings.lower_case else text

    def _token_ids(self, texts: list[str]) -> Iterator[list[int]]:
        """Token ids of each text alone, without special tokens around it, one text after another."""
        if self._backend is not None:
            return (encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False))
        encoded = self.tokenizer(texts, add_special_tokens=False, truncation=False, padding=False, verbose=False)
        return iter(encoded["input_ids"])

    def _special_tokens_around(self) -> tuple[list[int], list[int]]:
        """The special tokens that the tokenizer puts before and after a text."""
        inner = next(self._token_ids(["a"]))
        around = (
            self.tokenizer("a", verbose=False)["input_ids"] if self._backend is None else self._backend.encode("a").ids
        )
        start = next((i for i in range(len(around) + 1) if around[i : i + len(inner)] == inner), None)
        if start is None:
            raise ConfigError(
                "The tokenizer changes a text's tokens when it puts special ones around them; xmc does not."
            )
        return list(around[:start]), list(around[start + len(inner) :])

    def _tokenised(self, template: str | None, key: str) -> tuple[list[int], str, list[int]]:
        """Tokens before the text, what is tokenised with it (blanks, or the directory's prompt), and tokens after it.

        With "eos" pooling at least the end-of-sequence token stands after the text.
        """
        prompt = Prompt.parse("{text}" if template is None else template, key, self.has_images)
        first, last = self._around
        before, after = (
            [token for piece in pieces for token in ([self.slot] if piece is None else next(self._token_ids([piece])))]
            for pieces in (prompt.before, prompt.after)
        )
        slot_first = before[:1] == [self.slot] and "{images}" not in (template or "")
        before = [self.slot, *first, *before[1:]] if slot_first else [*first, *before]
        after = [*after, *last]
        if self.settings.pooling == "eos":
            end = self.tokenizer.eos_token_id
            if end is None:
                raise ConfigError("encoder.pooling is eos, but the tokenizer has no end-of-sequence token; use last.")
            if after[-1:] != [end]:
                after.append(end)
        taken = len(before) + len(after) - int(self.has_images)
        if taken >= self.settings.max_length:
            raise ConfigError(
                f"{key} and special tokens take {taken} tokens, which leaves a text none of encoder.max_length "
                f"{self.settings.max_length}; raise it."
            )
        return before, self.settings.prompt if template is None else prompt.blank, after
