"""The command line: one file a subcommand. Nothing here imports torch before a command needs it."""

from __future__ import annotations

import logging
import sys

import typer
from rich.logging import RichHandler
from rich.text import Text

from xmc.cli import (
    calibrate,
    config,
    data,
    doctor,
    embed,
    evaluate,
    export,
    hub,
    index,
    labels,
    memory,
    predict,
    quickstart,
    report,
    rerank,
    search,
    serve,
    train,
)
from xmc.cli.lists import NumberLists
from xmc.cli.next_commands import after_error
from xmc.errors import XMCError
from xmc.progress import console as error_console
from xmc.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="xmc",
    help="Extreme multi-label classification as retrieval: train, index, search, evaluate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(config.app, name="config")
app.add_typer(data.app, name="data")
app.add_typer(hub.app, name="hub")
app.add_typer(labels.app, name="labels")
app.command("quickstart")(quickstart.quickstart)
app.command("train")(train.train)
app.command("index")(index.index)
app.command("search")(search.search)
app.command("serve")(serve.serve)
app.command("predict")(predict.predict)
app.command("embed")(embed.embed)
app.command("evaluate", cls=NumberLists)(evaluate.evaluate)
app.command("export")(export.export)
app.command("memory")(memory.memory)
app.command("rerank")(rerank.rerank)
app.command("calibrate")(calibrate.calibrate)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)


@app.callback(invoke_without_command=True)
def _options(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what is decided."),
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=error_console, show_path=False)],
    )
    if version:
        typer.echo(f"xmc {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line. A mistake of the user's is one sentence on standard error and exit code 2."""
    try:
        app()
    except XMCError as error:
        error_console.print(Text.assemble(("error:", "red"), f" {error}"), highlight=False, soft_wrap=True)
        for command in after_error(error):
            error_console.print(f"next: {command}", highlight=False, soft_wrap=True, markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
