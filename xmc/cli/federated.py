"""`xmc federated`: rounds of clients that share no text, and a run directory of the model that they learn together."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from xmc.cli import complete
from xmc.cli.console import console, say, shell
from xmc.cli.training_options import Settings

__all__ = ["federated"]


class By(str, Enum):
    """What training queries are spread over clients by."""

    subject = "subject"
    chance = "chance"


def federated(
    config: Annotated[
        str | None,
        typer.Argument(
            help="YAML file, or the name of a shipped configuration; the defaults are used without one.",
            autocompletion=complete.configurations,
            show_default=False,
        ),
    ] = None,
    clients: Annotated[
        Path | None,
        typer.Option(help="Directory with a data set of each client in a folder of its own.", show_default=False),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="In place of --clients: a data set whose training queries are spread over clients.",
            show_default=False,
            autocompletion=complete.data_sets,
        ),
    ] = None,
    split_by: Annotated[
        By | None,
        typer.Option(help="With --dataset: by clusters of labels, or by chance.", show_default="subject"),
    ] = None,
    number: Annotated[int | None, typer.Option(help="With --dataset: number of clients.", show_default="8")] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Number of rounds, over which the epochs are spread; one an epoch without it.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Run directory to write.")] = Path("runs/federated"),
    pseudo_labels: Annotated[
        bool, typer.Option(help="Learn from queries that are not labelled: the surer of both models names a label.")
    ] = True,
    threshold: Annotated[float, typer.Option(help="Probability from which on such a label is taken.")] = 0.5,
    consistency: Annotated[
        float, typer.Option(help="Weight of what the average says of queries for which both models name one label.")
    ] = 0.5,
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a run that is already there.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on after the last whole round, where there is one.")] = False,
) -> None:
    """Train one encoder on clients that share no text: each trains in turn, and weights are averaged after every round.

    Nothing formal is protected by it. Ctrl-C ends training after the round in progress, and still writes a run that can be
    loaded. One process a client: torchrun --nproc-per-node N -m xmc federated ...
    """
    from xmc.config import TrainConfig
    from xmc.config.federated import FederatedConfig
    from xmc.errors import ConfigError

    if (clients is None) == (dataset is None):
        raise ConfigError(
            "Name either --clients DIRECTORY, with a folder for each client's data set, or --dataset DATASET, whose training "
            "queries are then spread over --number clients."
        )
    if clients is not None and (split_by is not None or number is not None):
        raise ConfigError(
            "--split-by and --number say how --dataset is spread over clients; with --clients leave them out."
        )
    overrides = settings or []
    training = TrainConfig.load(config, overrides) if config else TrainConfig.from_mapping({}, overrides, "--set")
    options = FederatedConfig(rounds=rounds, pseudo_labels=pseudo_labels, threshold=threshold, consistency=consistency)
    from xmc.data.dataset import Dataset
    from xmc.training.federated import federate
    from xmc.training.federated.clients import clients_in, split_clients

    judged = None
    if clients is not None:
        datasets = clients_in(clients)
    else:
        whole = Dataset.load(dataset or "")
        by, count = split_by or By.subject, 8 if number is None else number
        datasets, judged = split_clients(whole, count, by.value, training), [whole]
    result = federate(datasets, training, out, options, validation=judged, overwrite=overwrite, resume=resume)
    if int(os.environ.get("RANK", "0")):
        return
    table = Table("round", "loss", "MiB sent by a client", "pseudo-labels", "agreeing", result.metric, "seconds")
    for one in result.rounds:
        validated = "" if one.validation is None else f"{one.validation:.2f}"
        sent = f"{one.sent[0] / 2**20:,.1f}, at most {one.sent[1] / 2**20:,.1f}"
        table.add_row(
            str(one.round), f"{one.loss:.4f}", sent, f"{one.pseudo_labels:,}", f"{one.agreeing:,}", validated,
            f"{one.seconds:.1f}",
        )  # fmt: skip
    console.print(table)
    how = "interrupted after" if result.interrupted else "trained for"
    say(f"{how} {len(result.rounds)} rounds of {len(datasets)} clients, run in {result.directory}")
    if dataset is not None and "test" in whole.splits:
        say(f"next: {shell('xmc', 'evaluate', result.directory, dataset)}")
