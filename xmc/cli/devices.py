"""The option --device of commands that open a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xmc.cli import complete

if TYPE_CHECKING:
    from xmc.search.retriever import Retriever

__all__ = ["Device", "devices_named", "opened"]

Device = Annotated[
    str,
    typer.Option(
        help='Where it runs: "auto", the GPU where there is one; "cpu"; "cuda:1"; or several, such as cuda:0,cuda:1, which '
        "share the labels.",
        autocompletion=complete.devices,
    ),
]


def devices_named(device: str) -> str | tuple[str, ...]:
    """What `Retriever.load` takes for a value of --device."""
    names = tuple(name.strip() for name in device.split(",") if name.strip())
    return names if len(names) > 1 else device


def opened(run: Path, device: str) -> Retriever:
    """The run on the devices of --device; errors as of Retriever.load."""
    from xmc.search.retriever import Retriever

    return Retriever.load(run, devices_named(device))
