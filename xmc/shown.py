"""Foreign text where people read it: what a terminal or a log would obey is made visible, and what is too long is cut."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["one_line", "visible"]

CUT = " … "
"""Stands for what is left out of a long text."""
_SPACES = re.compile(r"\s+")


def visible(text: str, keep: str = "") -> str:
    """The text with every character that is obeyed rather than shown written as its escape, such as \\x1b or \\u202e.

    These are control characters (Unicode Cc), overrides and isolates of direction and other format characters (Cf), line and
    paragraph separators (Zl, Zp), and lone surrogates (Cs). keep: characters that stay, such as a line feed. Joiners inside of
    words and emoji, U+200C and U+200D, stay too: scripts need them, and nothing obeys them.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character in keep or not _is_obeyed(character) else _escape(character) for character in text
    )


def one_line(text: str, longest: int) -> str:
    """The text as one visible line of at most `longest` characters: a long one keeps its beginning and its end.

    Spaces and line ends that follow one another become one space.
    """
    if len(text) > 4 * longest:  # the rest is never looked at
        text = text[: 2 * longest] + text[-2 * longest :]
    line = visible(_SPACES.sub(" ", text).strip())
    if len(line) <= longest:
        return line
    end = (longest - len(CUT)) // 3
    return line[: longest - len(CUT) - end] + CUT + line[len(line) - end :]


def _is_obeyed(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in "\u200c\u200d"


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
