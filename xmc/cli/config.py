"""`xmc config`: a configuration to begin with, what its keys mean, and its schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from xmc.cli import complete
from xmc.cli.console import console, say
from xmc.cli.next_commands import after_new_configuration

__all__ = ["app", "explain", "schema"]

app = typer.Typer(help="Begin a configuration, explain its keys, print its schema.", no_args_is_help=True)


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="YAML file to write.")] = Path("config.yaml"),
    like: Annotated[
        str | None,
        typer.Option(
            help="Begin with this one: a YAML file, or the name of a shipped configuration, such as static.",
            autocompletion=complete.configurations,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A key to begin with: --set epochs=4 --set encoder.dimension=512.",
            autocompletion=complete.settings,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a file that is already there.")] = False,
) -> None:
    """Write a configuration with every key, its value, and above it what it means."""
    from xmc.config import TrainConfig
    from xmc.config.commented import commented_yaml
    from xmc.errors import StoreError
    from xmc.storage.files import atomic_file

    given = settings or []
    config = TrainConfig.from_mapping({}, given, "--set") if like is None else TrainConfig.load(like, given)
    if file.is_dir():
        raise StoreError(f"{file} is a directory; name a file such as {file / 'config.yaml'}.")
    if file.exists() and not overwrite:
        raise StoreError(f"{file} is already there; name another file, or replace it with --overwrite.")
    try:
        with atomic_file(file) as temporary:
            temporary.write_text(commented_yaml(config), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error}.") from error
    say(f"configuration in {file}; it has every key, those that you leave out keep their defaults")
    say("it trains on the shipped data set so, or on one of your own, named in its place:")
    say(f"next: {after_new_configuration(file)}")


@app.command()
def explain(
    key: Annotated[
        str | None,
        typer.Argument(
            help="A key or a section; every key without one.", autocompletion=complete.keys, show_default=False
        ),
    ] = None,
) -> None:
    """Print type, bounds, default and meaning of a key, of a section's keys, or of all."""
    from xmc.config.explain import explain as explained

    keys, note = explained(key)
    if note:
        console.print(note, style="yellow", markup=False, highlight=False)
    for item in keys:
        of_kind = f" ({item.kind})" if item.kind and f".{item.kind}." not in item.name else ""
        facts = [item.type, item.bounds, f"default {item.default}" if item.default else ""]
        line = Text.assemble((item.name, "bold"), of_kind, "  ", (", ".join(filter(None, facts)), "cyan"))
        console.print(line, soft_wrap=True, highlight=False)
        console.print(Padding(Text(item.meaning), (0, 0, 0, 4)))


@app.command()
def schema() -> None:
    """Print the JSON schema of configurations, which editors complete and check by."""
    from xmc.config import TrainConfig

    typer.echo(json.dumps(TrainConfig.model_json_schema(), indent=2))
