"""Where commands print: lines as they are, whatever is in them."""

from __future__ import annotations

import shlex

from rich.console import Console

__all__ = ["console", "say", "shell"]

console = Console()


def say(text: str) -> None:
    """Print a line; brackets in names are no markup, and a long one is not broken."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def shell(*words: object) -> str:
    """A command as it is typed in a shell, whatever is in the names of files."""
    return shlex.join(map(str, words))
