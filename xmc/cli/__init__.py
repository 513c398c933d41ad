"""The command line: one file a subcommand. Nothing here imports torch before a command needs it."""

from __future__ import annotations

import logging

import typer
from rich.logging import RichHandler

from xmc.cli import (
    calibrate,
    config,
    data,
    doctor,
    embed,
    evaluate,
    export,
    federated,
    hub,
    index,
    labels,
    memory,
    predict,
    quickstart,
    relabel,
    report,
    rerank,
    search,
    serve,
    sign,
    train,
    votes,
)
from xmc.cli.lists import NumberLists
from xmc.cli.net import Commands, guarded
from xmc.progress import console as error_console
from xmc.terminal import VisibleFormatter
from xmc.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="xmc",
    cls=Commands,
    help="Extreme multi-label classification as retrieval: train, index, search, evaluate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(config.app, name="config")
app.add_typer(data.app, name="data")
app.add_typer(hub.app, name="hub")
app.add_typer(labels.app, name="labels")
app.add_typer(votes.app, name="votes")
app.command("quickstart")(quickstart.quickstart)
app.command("train")(train.train)
app.command("federated")(federated.federated)
app.command("index")(index.index)
app.command("search")(search.search)
app.command("serve")(serve.serve)
app.command("predict")(predict.predict)
app.command("embed")(embed.embed)
app.command("evaluate", cls=NumberLists)(evaluate.evaluate)
app.command("export")(export.export)
app.command("memory")(memory.memory)
app.command("relabel")(relabel.relabel)
app.command("rerank")(rerank.rerank)
app.command("calibrate")(calibrate.calibrate)
app.command("report")(report.report)
app.command("sign")(sign.sign)
app.command("verify")(sign.verify)
app.command("doctor")(doctor.doctor)


@app.callback(invoke_without_command=True)
def _options(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what is decided."),
) -> None:
    handler = RichHandler(console=error_console, show_path=False)
    handler.setFormatter(VisibleFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    if version:
        typer.echo(f"xmc {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line, and exit.

    A mistake of the user's is one sentence on standard error and exit code 2; what nobody foresaw is a sentence, a written
    report and exit code 70.
    """
    guarded(app)
