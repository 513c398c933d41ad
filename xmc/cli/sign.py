"""`xmc sign` and `xmc verify`: who vouches for a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xmc.cli.console import say
from xmc.errors import InputError

__all__ = ["sign", "verify"]


def sign(
    run: Annotated[Path | None, typer.Argument(help="Run directory.")] = None,
    key: Annotated[Path | None, typer.Option(help="File with the private key (PEM).")] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(
            help="Make a key instead: the private one in this file, which must not exist, the public one in FILE.pub."
        ),
    ] = None,
) -> None:
    """Sign a run with an Ed25519 key, once every file of it is verified. Saving the run again drops the signature."""
    from xmc.storage import signatures

    if new_key is not None:
        if run is not None or key is not None:
            raise InputError(
                "--new-key makes a key and signs nothing; give it alone, and then xmc sign RUN --key FILE."
            )
        public = signatures.new_key(new_key)
        say(f"private key in {new_key}: keep it to yourself")
        say(f"public key in {new_key}.pub: {public}")
        return
    if run is None or key is None:
        raise InputError("Name a run and a key: xmc sign RUN --key FILE. A key is made by xmc sign --new-key FILE.")
    say(f"signed by {signatures.sign(run, key)}")
    say(f"next: xmc verify {run} --key {key}.pub")


def verify(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    key: Annotated[
        str | None, typer.Option(help='Public key that must have signed it: "ed25519:BASE64", or a file of one.')
    ] = None,
) -> None:
    """Verify that a run is as it was signed, every file of it, and by whom."""
    from xmc.storage import signatures

    public = signatures.verify(run, key)
    say(f"{run} is as it was signed by {public}")
    if key is None:
        say("anybody may have signed it: compare that key with one that you have from elsewhere, or give it as --key")
