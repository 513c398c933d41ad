"""Foreign text on its way to a terminal or a log: shown, not obeyed, and no error where the terminal cannot encode it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from xmc.shown import one_line, visible

__all__ = ["VisibleConsole", "VisibleFormatter", "cell", "show_any_text"]

LONGEST_CELL = 1_000
"""Characters of a table's cell, at most."""
_KEPT = "\n\t"


class VisibleConsole(Console):
    """A console that shows control characters and overrides of direction as escapes, whatever is printed by it.

    Colours and the cursor are rich's own business and pass: they are styles and controls, not text. Names such as :heart: are
    no emoji.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"emoji": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """See rich: text is escaped before its width is measured."""
        return super().render_str(visible(text, _KEPT), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See rich: what did not come as a string is escaped here."""
        for segment in super().render(renderable, options):
            shown = segment.text if segment.control else visible(segment.text, _KEPT)
            yield segment if shown == segment.text else Segment(shown, segment.style)


class VisibleFormatter(logging.Formatter):
    """A record of the log as one visible line, whatever names and texts are in it; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """See logging."""
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """See logging."""
        return visible(super().formatException(ei), _KEPT)


def cell(text: str, style: str = "") -> Text:
    """Foreign text as a cell of a table: one visible line, brackets as they are, a long one cut in its middle."""
    return Text(one_line(text, LONGEST_CELL), style)


def show_any_text() -> None:
    """Let standard output and error show as an escape what their encoding lacks, and lone surrogates, in place of failing.

    Bytes of standard input that are no text are read as U+FFFD.
    """
    for stream, errors in ((sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace"), (sys.stdin, "replace")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)
