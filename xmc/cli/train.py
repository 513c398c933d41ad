"""`xmc train`: a configuration and a data set in, a run directory out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from xmc.cli import complete
from xmc.cli.config import explain as explained
from xmc.cli.config import schema as print_schema
from xmc.cli.console import console, say
from xmc.cli.next_commands import after_training
from xmc.cli.training_options import Settings


def train(
    config: Annotated[
        str | None,
        typer.Argument(
            help="YAML file, or the name of a shipped configuration; the defaults are used without one. With --explain a key.",
            autocompletion=complete.configurations,
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Name of a shipped data set, or a data set directory; required.",
            show_default=False,
            autocompletion=complete.data_sets,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Run directory to write.")] = Path("runs/run"),
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a run that is already there.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on from the latest checkpoint, where there is one.")] = False,
    tensorboard: Annotated[bool, typer.Option(help="Write the log for TensorBoard too.")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="Only estimate memory and work; nothing is trained or written.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Only print what a key, a section or every key means, as `xmc config explain`."),
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Only print the JSON schema, as `xmc config schema`.")
    ] = False,
) -> None:
    """Train on a data set's train split. Ctrl-C ends early and still writes a run that can be loaded.

    For several processes: torchrun --nproc-per-node N -m xmc train ...
    """
    if explain:
        explained(config)
        return
    if schema:
        print_schema()
        return
    from xmc.config import TrainConfig
    from xmc.errors import ConfigError

    overrides = [*(settings or []), *(["tensorboard=true"] if tensorboard else [])]
    options = TrainConfig.load(config, overrides) if config else TrainConfig.from_mapping({}, overrides, "--set")
    if dataset is None:
        raise ConfigError(
            "Name what to train on: --dataset DIRECTORY, as `xmc data convert` writes it, or --dataset wordnet-8k, which comes "
            "with xmc."
        )
    from xmc.data.dataset import Dataset
    from xmc.training.estimate import estimate
    from xmc.training.trainer import train as run

    data = Dataset.load(dataset)
    if dry_run:
        console.print(estimate(data, options, int(os.environ.get("WORLD_SIZE", "1"))).table())
        return
    result = run(data, options, out, overwrite=overwrite, resume=resume)
    if int(os.environ.get("RANK", "0")):
        return
    say(str(result))
    for command in after_training(result.directory, dataset, data):
        say(f"next: {command}")
