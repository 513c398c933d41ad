"""Docstrings as Markdown for the site: their plain lists of names, their headings and their doctests."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["MarkdownDocstrings", "to_markdown"]

HEADING = re.compile(r"^(Parameters|Returns|Raises)\n-+$", re.MULTILINE)
NAMES = re.compile(r"^(?!Source:|Formula:)(\w+(?:, \w+)*): (?=\S)")
DOCTEST = re.compile(r"^(?:>>>.*(?:\n(?!\s*$).*)*)", re.MULTILINE)


class MarkdownDocstrings(griffe.Extension):
    """Rewrites every docstring that the site shows."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(docstring: str) -> str:
    """A docstring of this project as Markdown.

    Lines `name: meaning` become items of a list, underlined headings bold, and doctests code.
    """
    text = HEADING.sub(r"**\1**\n", docstring)
    text = DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", text)
    lines: list[str] = []
    inside = code = False  # of a list, of a fence
    for line in text.splitlines():
        code ^= line.startswith("```")
        found = None if code else NAMES.match(line)
        if found is not None:
            if not inside:
                lines.append("")
            names = ", ".join(f"`{name}`" for name in found[1].split(", "))
            lines.append(f"- {names}: {line[found.end() :]}")
            inside = True
            continue
        if inside and line and not line.startswith(" "):
            lines.append("")
        inside = inside and line.startswith(" ")
        lines.append(line)
    return "\n".join(lines)
