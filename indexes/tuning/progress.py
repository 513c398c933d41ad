"""What tuning is at, on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from xmc.progress import progress_bar

__all__ = ["tuning_progress"]


@contextmanager
def tuning_progress(budget: float) -> Iterator[Callable[[str], None]]:
    """A line with the design that is measured and the time used of a budget in seconds; quiet where nobody watches."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with progress_bar(*columns, transient=True) as progress:
        task = progress.add_task("tuning", total=None)

        def report(stage: str) -> None:
            progress.update(task, description=f"tuning the index, {budget:.0f} s at most: {escape(stage)}")

        yield report
