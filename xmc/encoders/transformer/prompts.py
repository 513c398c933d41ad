"""Prompts: what stands before and after a text, and where its images go."""

from __future__ import annotations

import re
from dataclasses import dataclass

from xmc.errors import ConfigError

__all__ = ["Prompt"]

_SLOTS = re.compile(r"\{(text|images)\}")


@dataclass(frozen=True)
class Prompt:
    """A template in pieces: those before the text and after it, None standing for the images.

    Pieces are tokenised apart from the text, so that nothing in a text can be taken for a part of the prompt. Blanks before
    the text belong to it, as most tokenizers have it.
    """

    before: tuple[str | None, ...]
    blank: str
    after: tuple[str | None, ...]

    @classmethod
    def parse(cls, template: str, key: str, images: bool) -> Prompt:
        """A template with {text} once and {images} at most once, before everything where it is not there.

        images: whether there are any. Raises ConfigError, which calls the template `key`, for other templates.
        """
        texts_and_slots = _SLOTS.split(template)
        slots = texts_and_slots[1::2]
        if slots.count("text") != 1 or slots.count("images") > 1:
            raise ConfigError(f"{key} must hold {{text}} once, and {{images}} once or not at all, but is {template!r}.")
        if "images" in slots and not images:
            raise ConfigError(f"{key} has {{images}}, but there are none: set encoder.images.dimension.")
        pieces: list[str | None] = [
            None if number % 2 and piece == "images" else piece for number, piece in enumerate(texts_and_slots)
        ]
        text = slots.index("text") * 2 + 1
        head = pieces[text - 1] or ""
        before = [*pieces[: text - 1], head.rstrip(" ")]
        after = pieces[text + 1 :]
        if images and "images" not in slots:
            before.insert(0, None)
        return cls(_filled(before), head[len(head.rstrip(" ")) :], _filled(after))


def _filled(pieces: list[str | None]) -> tuple[str | None, ...]:
    """The pieces that are not empty, without the blanks in front of images."""
    cut = [
        piece.rstrip(" ") if piece is not None and pieces[number + 1 : number + 2] == [None] else piece
        for number, piece in enumerate(pieces)
    ]
    return tuple(piece for piece in cut if piece != "")
