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
        parts = _SLOTS.split(template)
        slots = parts[1::2]
        if slots.count("text") != 1 or slots.count("images") > 1:
            raise ConfigError(f"{key} must hold {{text}} once, and {{images}} once or not at all, but is {template!r}.")
        if "images" in slots and not images:
            raise ConfigError(f"{key} has {{images}}, but there are none: set transformer.images.dimension.")
        pieces: list[str | None] = [
            None if place % 2 and part == "images" else part for place, part in enumerate(parts)
        ]
        place = parts[1::2].index("text") * 2 + 1
        head = pieces[place - 1] or ""
        before = [*pieces[: place - 1], head.rstrip(" ")]
        after = pieces[place + 1 :]
        if images and "images" not in slots:
            before.insert(0, None)
        return cls(_filled(before), head[len(head.rstrip(" ")) :], _filled(after))


def _filled(pieces: list[str | None]) -> tuple[str | None, ...]:
    """The pieces that are not empty, without the blanks in front of images."""
    cut = [
        piece.rstrip(" ") if piece is not None and pieces[place + 1 : place + 2] == [None] else piece
        for place, piece in enumerate(pieces)
    ]
    return tuple(piece for piece in cut if piece != "")
