"""The one progress bar: on standard error, and silent where that is not a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, ProgressColumn

__all__ = ["progress_bar"]


def progress_bar(*columns: str | ProgressColumn, shown: bool = True, transient: bool = False) -> Progress:
    """A bar of the library rich, to be used as a context.

    columns: what the line shows; without any, the description, the bar, the share done and the time left.
    shown: False keeps it silent everywhere, as in processes that are not the root. transient: it disappears at the end.
    """
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not (console.is_terminal and shown), transient=transient)
