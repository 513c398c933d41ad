"""The option --device of commands that open a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xmc.cli import complete

if TYPE_CHECKING:
    from xmc.search.retriever import Retriever

__all__ = ["Device", "TrustedKeys", "devices_named", "opened"]

Device = Annotated[
    str,
    typer.Option(
        help='Where it runs: "auto", the GPU where there is one; "cpu"; "cuda:1"; or several, such as cuda:0,cuda:1, which '
        "share the labels.",
        autocompletion=complete.devices,
    ),
]

TrustedKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--trusted-key",
        help='A public key, or a file of one: the run must be signed with it, see "xmc sign". May be given several times.',
    ),
]


def devices_named(device: str) -> str | tuple[str, ...]:
    """What `Retriever.load` takes for a value of --device."""
    names = tuple(name.strip() for name in device.split(",") if name.strip())
    return names if len(names) > 1 else device


def opened(run: Path, device: str, trusted_keys: Sequence[str] | None = None) -> Retriever:
    """The run on the devices of --device; errors as of Retriever.load. trusted_keys: those of --trusted-key; None for none."""
    from xmc.search.retriever import Retriever

    return Retriever.load(run, devices_named(device), trusted_keys=trusted_keys or None)
