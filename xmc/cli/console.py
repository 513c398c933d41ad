"""Where commands print: lines as they are, whatever is in them, and nothing that a terminal would obey."""

from __future__ import annotations

import os
import shlex

from xmc.shown import visible
from xmc.terminal import VisibleConsole

__all__ = ["console", "say", "shell"]

console = VisibleConsole()


def say(text: str) -> None:
    """Print a line; a long one is not broken, and what a terminal would obey in it is shown as an escape."""
    print(visible(text))  # not by the console, which takes a hundred times as long: `xmc data validate` says many lines


def shell(*words: object) -> str:
    """A command as it is typed in a shell, and as it can be shown, whatever is in the names of files."""
    return " ".join(map(_quoted, map(str, words)))


def _quoted(word: str) -> str:
    """A word for a shell; with characters that cannot be shown in the form $'...' of bash, ksh and zsh."""
    if visible(word) == word:
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def _escaped(character: str) -> str:
    if visible(character) == character:
        return f"\\{character}" if character in "\\'" else character
    try:
        content = os.fsencode(character)
    except UnicodeEncodeError:
        content = character.encode("utf-8", "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in content)
