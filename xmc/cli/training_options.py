"""What the commands that take a configuration of training have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from xmc.cli import complete

__all__ = ["Settings"]

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Override a key of the configuration: --set epochs=4 --set encoder.dimension=512.",
        autocompletion=complete.settings,
    ),
]
