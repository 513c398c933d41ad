"""`xmc data seal`: list the files of a data set as they are now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xmc.cli.console import say


def seal(
    directory: Annotated[Path, typer.Argument(help="A canonical directory whose files were changed by hand.")],
) -> None:
    """List files that you put into a data set, such as judged-test.parquet, so that they are read."""
    from xmc.data.seal import seal as list_files

    sealed = list_files(directory)
    for word, names in (("added", sealed.added), ("changed", sealed.changed), ("removed", sealed.removed)):
        if names:
            say(f"{word}: {', '.join(names)}")
    if sealed == type(sealed)((), (), ()):
        say(f"all files of {directory} are as they were listed")
