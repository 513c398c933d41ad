"""`xmc hub`: runs to and from the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xmc.cli import complete
from xmc.cli.console import say
from xmc.cli.next_commands import after_push

__all__ = ["app"]

app = typer.Typer(help="Share runs by the Hugging Face Hub.", no_args_is_help=True)

Repository = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository of the Hub.")]


@app.command()
def push(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    repo: Repository,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Measure the run on it, for the model card: a shipped data set, or a data set directory.",
            autocompletion=complete.data_sets,
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split to measure on; its filter file is applied.", autocompletion=complete.splits)
    ] = "test",
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch, made where it is not there.", show_default="main")
    ] = None,
) -> None:
    """Upload a run with a model card; it replaces what the repository held. Log in with `hf auth login`, or set HF_TOKEN."""
    from xmc.data.dataset import Dataset
    from xmc.report import card_results
    from xmc.search.retriever import Retriever

    retriever = Retriever.load(run)
    results = None if dataset is None else card_results(run, Dataset.load(dataset), split)
    address = retriever.push_to_hub(repo, results, private=private or None, revision=revision)
    say(f"run in {address}")
    say(f"next: {after_push(repo, revision)}")


@app.command()
def pull(
    repo: Repository,
    out: Annotated[Path, typer.Argument(help="Directory to write.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag, or hash of a commit.", show_default="main")] = None,
) -> None:
    """Download a run, and verify every file. Nothing but safetensors, Arrow, Parquet and text is taken."""
    from xmc.search.hub import pull

    say(f"run in {pull(repo, revision, out)}")
